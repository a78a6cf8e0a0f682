//! Packets for property tests: every transport, with IPv4 options and IPv6 extension headers, and what may be done to them.

use crate::{Ecn, IpPacket, PacketMut, PacketRef, make, number};
use proptest::prelude::*;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Two addresses of one version.
pub(crate) fn addresses() -> impl Strategy<Value = (IpAddr, IpAddr)> {
    prop_oneof![
        any::<(Ipv4Addr, Ipv4Addr)>().prop_map(|(a, b)| (a.into(), b.into())),
        any::<(Ipv6Addr, Ipv6Addr)>().prop_map(|(a, b)| (a.into(), b.into())),
    ]
}

/// Payload bytes; often all zero, since zeros are where checksums go wrong.
pub(crate) fn payload() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..200),
        (0..20usize).prop_map(|len| vec![0; len]),
    ]
}

/// A well-formed packet with right checksums.
pub(crate) fn packet() -> impl Strategy<Value = IpPacket> {
    (
        addresses(),
        any::<(u16, u16)>(),
        payload(),
        0..6u8,
        0..4u8,
        0..3usize,
    )
        .prop_map(
            |((source, destination), (a, b), payload, kind, ecn, extras)| {
                let (from, to) = (SocketAddr::new(source, a), SocketAddr::new(destination, b));
                let packet = match kind {
                    0 => make::udp_packet(from, to, &payload),
                    1 => make::tcp_packet(from, to, make::TcpHeader::default(), &payload),
                    2 => make::icmp_echo_request(source, destination, a, b, &payload),
                    3 => make::icmp_echo_reply(source, destination, a, b, &payload),
                    4 if source.is_ipv4() => {
                        make::icmpv4_message(source, destination, 9, (3, 1, [0; 4]), &payload)
                    }
                    4 => make::icmpv6_message(source, destination, 9, (1, 0, [0; 4]), &payload),
                    _ => make::control_packet(1, &payload),
                };
                let mut packet = with_extras(&packet.expect("packet fits"), extras);
                packet.view_mut().set_ecn(Ecn::from_bits(ecn));
                packet
            },
        )
}

/// The same packet with `count` 8-byte extension headers, or 8 bytes of options per count.
pub(crate) fn with_extras(packet: &IpPacket, count: usize) -> IpPacket {
    let mut bytes = packet.as_slice().to_vec();
    if packet.source().is_ipv4() {
        bytes.splice(20..20, std::iter::repeat_n(1, 8 * count));
        bytes[0] += 2 * count as u8;
        let len = bytes.len() as u16;
        bytes[2..4].copy_from_slice(&len.to_be_bytes());
    } else {
        for _ in 0..count {
            let next = bytes[6];
            bytes[6] = 60;
            bytes.splice(40..40, [next, 0, 1, 4, 0, 0, 0, 0]);
        }
        let len = bytes.len() as u16 - 40;
        bytes[4..6].copy_from_slice(&len.to_be_bytes());
    }
    let mut packet = IpPacket::from_slice(&bytes).expect("packet stays well-formed");
    packet.view_mut().fill_checksums();
    packet
}

/// One call of a mutator.
#[derive(Debug, Clone)]
pub(crate) enum Mutation {
    Source(IpAddr),
    Destination(IpAddr),
    SourceProtocol(u16),
    DestinationProtocol(u16),
    TranslateSource(IpAddr, u16),
    TranslateDestination(IpAddr, u16),
    Ecn(Ecn),
}

impl Mutation {
    /// Any mutation, also with an address of the wrong version.
    pub(crate) fn any() -> impl Strategy<Value = Self> {
        let value = || prop_oneof![any::<u16>(), Just(0), Just(0xffff)];
        prop_oneof![
            any::<IpAddr>().prop_map(Self::Source),
            any::<IpAddr>().prop_map(Self::Destination),
            value().prop_map(Self::SourceProtocol),
            value().prop_map(Self::DestinationProtocol),
            (any::<IpAddr>(), value()).prop_map(|(a, v)| Self::TranslateSource(a, v)),
            (any::<IpAddr>(), value()).prop_map(|(a, v)| Self::TranslateDestination(a, v)),
            any::<u8>().prop_map(|bits| Self::Ecn(Ecn::from_bits(bits))),
        ]
    }

    /// Calls the mutator and checks that the accessors show its effect.
    pub(crate) fn apply(&self, packet: &mut PacketMut<'_>) {
        let before = packet.as_slice().to_vec();
        let fits = |address: &IpAddr| address.is_ipv4() == packet.source().is_ipv4();
        match self {
            Self::Source(address) | Self::TranslateSource(address, _) if !fits(address) => {
                packet.set_source(*address).expect_err("wrong version");
                assert_eq!(packet.as_slice(), before);
            }
            Self::Destination(address) | Self::TranslateDestination(address, _)
                if !fits(address) =>
            {
                packet
                    .translate_destination(*address, 1)
                    .expect_err("wrong version");
                assert_eq!(packet.as_slice(), before);
            }
            Self::Source(address) => {
                packet.set_source(*address).expect("right version");
                assert_eq!(packet.source(), *address);
            }
            Self::Destination(address) => {
                packet.set_destination(*address).expect("right version");
                assert_eq!(packet.destination(), *address);
            }
            Self::SourceProtocol(value) => {
                packet.set_source_protocol(*value);
                assert!(
                    packet.source_protocol().is_ok_and(|p| p.value() == *value)
                        || packet.as_slice() == before
                );
            }
            Self::DestinationProtocol(value) => {
                packet.set_destination_protocol(*value);
                assert!(
                    packet
                        .destination_protocol()
                        .is_ok_and(|p| p.value() == *value)
                        || packet.as_slice() == before
                );
            }
            Self::TranslateSource(address, value) => {
                packet
                    .translate_source(*address, *value)
                    .expect("right version");
                assert_eq!(packet.source(), *address);
                assert!(
                    packet.source_protocol().is_ok_and(|p| p.value() == *value)
                        || packet.source_protocol().is_err()
                );
            }
            Self::TranslateDestination(address, value) => {
                packet
                    .translate_destination(*address, *value)
                    .expect("right version");
                assert_eq!(packet.destination(), *address);
            }
            Self::Ecn(ecn) => {
                packet.set_ecn(*ecn);
                assert_eq!(packet.ecn(), *ecn);
            }
        }
    }
}

/// Calls every accessor.
pub(crate) fn touch(packet: PacketRef<'_>) {
    let _ = format!("{packet:?}");
    let _ = (
        packet.version(),
        packet.source(),
        packet.destination(),
        packet.next_header(),
        packet.hop_limit(),
    );
    let _ = (
        packet.payload(),
        packet.l4_payload(),
        packet.header_len(),
        packet.ecn(),
    );
    let _ = (
        packet.source_protocol(),
        packet.destination_protocol(),
        packet.as_control(),
    );
    let _ = packet.has_valid_checksums();
    if let Some(tcp) = packet.as_tcp() {
        let _ = (
            tcp.options(),
            tcp.flags(),
            tcp.window(),
            tcp.sequence(),
            tcp.payload(),
            tcp.is_initial_syn(),
            tcp.is_bare_ack(),
        );
    }
    if let Some(udp) = packet.as_udp() {
        assert_eq!(usize::from(udp.length()), packet.payload().len());
    }
    if let Some(icmp) = packet.as_icmpv4() {
        let _ = (
            icmp.echo_identifier(),
            icmp.echo_sequence(),
            icmp.rest_of_header(),
        );
    }
    if let Some(icmp) = packet.as_icmpv6() {
        let _ = (
            icmp.echo_identifier(),
            icmp.echo_sequence(),
            icmp.rest_of_header(),
        );
    }
    if let Some(error) = packet.icmp_error() {
        if let Ok(failed) = error.failed_packet() {
            assert!(failed.transport_bytes().len() >= 8);
        }
        let _ = make::translated_icmp_error(&error, packet.source(), packet.destination(), 7);
    }
    for reason in [make::Unreachable::Prohibited, make::Unreachable::Network] {
        if let Ok(unreachable) = make::icmp_unreachable(packet, reason) {
            assert!(unreachable.has_valid_checksums());
        }
    }
    assert_ne!(
        packet.next_header() == number::TCP,
        packet.as_tcp().is_none()
    );
}
