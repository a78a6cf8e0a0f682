//! ICMP errors and the packets inside them.

use super::IcmpErrorKind;
use crate::make::{self, Unreachable};
use crate::testing::with_extras;
use crate::{EmbeddedError, IpPacket, Protocol, UnsupportedProtocol};
use std::net::{IpAddr, SocketAddr};

const V4: (&str, &str) = ("100.64.0.5", "203.0.113.9");
const V6: (&str, &str) = ("fd00:2021:1111::5", "2001:db8::9");

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn tcp((source, destination): (&str, &str)) -> IpPacket {
    let (source, destination) = (
        SocketAddr::new(ip(source), 4000),
        SocketAddr::new(ip(destination), 443),
    );
    make::tcp_packet(source, destination, make::TcpHeader::default(), &[7; 100]).unwrap()
}

/// A router's error about `embedded`.
fn v4_error(icmp_type: u8, code: u8, rest: [u8; 4], embedded: &[u8]) -> IpPacket {
    make::icmpv4_message(
        ip("192.0.2.1"),
        ip(V4.0),
        60,
        (icmp_type, code, rest),
        embedded,
    )
    .unwrap()
}

fn v6_error(icmp_type: u8, code: u8, rest: [u8; 4], embedded: &[u8]) -> IpPacket {
    make::icmpv6_message(
        ip("2001:db8::1"),
        ip(V6.0),
        60,
        (icmp_type, code, rest),
        embedded,
    )
    .unwrap()
}

#[test]
fn tunnel_63_kinds() {
    let v4 = |icmp_type, code, rest| {
        v4_error(icmp_type, code, rest, &[])
            .icmp_error()
            .map(|error| error.kind())
    };
    assert_eq!(
        v4(3, 1, [0; 4]),
        Some(IcmpErrorKind::V4Unreachable { code: 1 })
    );
    for mtu in [0, 1, 19, 1279] {
        let [high, low] = u16::to_be_bytes(mtu);
        assert_eq!(
            v4(3, 4, [9, 9, high, low]),
            Some(IcmpErrorKind::V4FragmentationNeeded { mtu })
        );
    }
    assert_eq!(
        v4(11, 1, [0; 4]),
        Some(IcmpErrorKind::V4TimeExceeded { code: 1 })
    );
    for other in [0, 4, 5, 8, 12, 13, 255] {
        assert_eq!(v4(other, 0, [0; 4]), None);
    }
    let v6 = |icmp_type, code, rest| {
        v6_error(icmp_type, code, rest, &[])
            .icmp_error()
            .map(|error| error.kind())
    };
    assert_eq!(
        v6(1, 4, [0; 4]),
        Some(IcmpErrorKind::V6Unreachable { code: 4 })
    );
    assert_eq!(
        v6(2, 0, [0xff; 4]),
        Some(IcmpErrorKind::V6PacketTooBig { mtu: u32::MAX })
    );
    assert_eq!(
        v6(3, 0, [0; 4]),
        Some(IcmpErrorKind::V6TimeExceeded { code: 0 })
    );
    for other in [0, 4, 128, 129, 135] {
        assert_eq!(v6(other, 0, [0; 4]), None);
    }
}

#[test]
fn tunnel_63_eight_bytes_behind_the_embedded_header_are_enough() {
    for (packet, header) in [(tcp(V4), 20), (with_extras(&tcp(V4), 2), 36)] {
        let bytes = packet.as_slice();
        let error = v4_error(3, 3, [0; 4], &bytes[..header + 8]);
        let failed = error.icmp_error().unwrap().failed_packet().unwrap();
        assert_eq!(
            (failed.source(), failed.destination()),
            (ip(V4.0), ip(V4.1))
        );
        assert_eq!(failed.source_protocol(), Protocol::Tcp(4000));
        assert_eq!(failed.destination_protocol(), Protocol::Tcp(443));
        let short = v4_error(3, 3, [0; 4], &bytes[..header + 7]);
        assert_eq!(
            short.icmp_error().unwrap().failed_packet(),
            Err(EmbeddedError::Malformed)
        );
    }
    for (packet, header) in [(tcp(V6), 40), (with_extras(&tcp(V6), 2), 56)] {
        let error = v6_error(1, 0, [0; 4], &packet.as_slice()[..header + 8]);
        let failed = error.icmp_error().unwrap().failed_packet().unwrap();
        assert_eq!(
            (failed.source(), failed.destination()),
            (ip(V6.0), ip(V6.1))
        );
        assert_eq!(failed.source_protocol(), Protocol::Tcp(4000));
    }
}

#[test]
fn embedded_packets_without_flow_are_errors() {
    let failed = |embedded: &[u8]| {
        v4_error(3, 1, [0; 4], embedded)
            .icmp_error()
            .unwrap()
            .failed_packet()
            .unwrap_err()
    };
    let reply = make::icmp_echo_reply(ip(V4.0), ip(V4.1), 1, 1, b"").unwrap();
    assert_eq!(
        failed(reply.as_slice()),
        EmbeddedError::Unsupported(UnsupportedProtocol::Icmpv4Type(0))
    );
    assert_eq!(failed(tcp(V6).as_slice()), EmbeddedError::VersionMismatch);
    assert_eq!(failed(&[]), EmbeddedError::Malformed);
    assert_eq!(failed(&[0x44; 40]), EmbeddedError::Malformed);
    let mut fragment = tcp(V4).as_slice().to_vec();
    fragment[7] = 1;
    assert_eq!(failed(&fragment), EmbeddedError::Fragment);
    let mut gre = tcp(V4).as_slice().to_vec();
    gre[9] = 47;
    assert_eq!(
        failed(&gre),
        EmbeddedError::Unsupported(UnsupportedProtocol::IpPayload(47))
    );
}

#[test]
fn only_administratively_prohibited_is_prohibited() {
    let kind = |reason, packet: IpPacket| {
        let error = make::icmp_unreachable(packet.view(), reason).unwrap();
        error.icmp_error().unwrap().kind().is_prohibited()
    };
    for packet in [tcp(V4), tcp(V6)] {
        assert!(kind(Unreachable::Prohibited, packet.clone()));
        assert!(!kind(Unreachable::Network, packet));
    }
}

#[test]
fn tunnel_63_translation_keeps_kind_and_rewrites_the_embedded_tuple() {
    let (proxy4, proxy6) = (ip("100.96.0.1"), ip("fd00:2021:1111:8000::"));
    let echo4 = make::icmp_echo_request(ip(V4.0), ip(V4.1), 9, 3, b"ping").unwrap();
    let echo6 = make::icmp_echo_request(ip(V6.0), ip(V6.1), 9, 3, b"ping").unwrap();
    let errors = [
        (
            v4_error(3, 4, [0, 0, 5, 0], &tcp(V4).as_slice()[..28]),
            proxy4,
            Protocol::Tcp(1234),
        ),
        (
            v4_error(11, 0, [0; 4], echo4.as_slice()),
            proxy4,
            Protocol::IcmpEcho(1234),
        ),
        (
            v6_error(2, 0, [0, 0, 5, 1], tcp(V6).as_slice()),
            proxy6,
            Protocol::Tcp(1234),
        ),
        (
            v6_error(3, 0, [0; 4], echo6.as_slice()),
            proxy6,
            Protocol::IcmpEcho(1234),
        ),
    ];
    for (original, proxy, expected) in errors {
        let error = original.icmp_error().unwrap();
        let client = original.destination();
        let translated = make::translated_icmp_error(&error, proxy, client, 1234).unwrap();
        assert_eq!(
            (translated.source(), translated.destination()),
            (proxy, client)
        );
        assert_eq!(translated.hop_limit(), 20);
        assert!(translated.has_valid_checksums());
        let translated = translated.icmp_error().unwrap();
        assert_eq!(translated.kind(), error.kind());
        assert_eq!(translated.embedded().len(), error.embedded().len());
        let failed = translated.failed_packet().unwrap();
        assert_eq!((failed.source(), failed.destination()), (client, proxy));
        assert_eq!(failed.source_protocol(), expected);
    }
}

#[test]
fn translation_to_the_other_version_is_an_error() {
    let original = v4_error(3, 1, [0; 4], tcp(V4).as_slice());
    let error = original.icmp_error().unwrap();
    assert!(make::translated_icmp_error(&error, ip(V6.0), ip(V6.1), 1).is_err());
    assert!(make::translated_icmp_error(&error, ip(V4.0), ip(V6.1), 1).is_err());
}

/// What has no identifier as a packet has none inside an error either.
#[test]
fn echo_with_a_code_is_no_echo_wherever_it_is() {
    let ((a, b), (c, d)) = ((ip(V4.0), ip(V4.1)), (ip(V6.0), ip(V6.1)));
    let odd = [
        make::icmpv4_message(a, b, 9, (8, 1, [0; 4]), &[]),
        make::icmpv6_message(c, d, 9, (128, 1, [0; 4]), &[]),
    ];
    for packet in odd.map(Result::unwrap) {
        assert!(packet.source_protocol().is_err());
        let refusal = make::icmp_unreachable(packet.view(), Unreachable::Network).unwrap();
        let failed = refusal.icmp_error().unwrap().failed_packet();
        assert!(matches!(failed, Err(EmbeddedError::Unsupported(_))));
    }
}
