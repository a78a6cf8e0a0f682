//! Validation of a packet, once, and the offsets it finds.
//!
//! RFC 791 (IPv4), RFC 8200 (IPv6 and its extension headers), RFC 9293 (TCP), RFC 768 (UDP), RFC 792 and RFC 4443 (ICMP).

use crate::{EmbeddedError, IpVersion, ParseError, number};

/// Bytes of an IPv4 header without options.
pub(crate) const IPV4_HEADER_LEN: usize = 20;
/// Bytes of the fixed IPv6 header.
pub(crate) const IPV6_HEADER_LEN: usize = 40;
/// Bytes of a TCP header without options.
pub(crate) const TCP_HEADER_LEN: usize = 20;
/// Bytes of a UDP header.
pub(crate) const UDP_HEADER_LEN: usize = 8;
/// Bytes of an ICMP header: type, code, checksum and four bytes that depend on the type.
pub(crate) const ICMP_HEADER_LEN: usize = 8;

/// IPv6 extension headers accepted in one packet: RFC 8200 §4.1 lists seven places.
const MAX_EXTENSION_HEADERS: usize = 8;

/// Transport protocol of a validated packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Transport {
    /// TCP with a complete header.
    Tcp,
    /// UDP whose length is that of the IP payload.
    Udp,
    /// ICMPv4 with a complete header, in IPv4.
    Icmpv4,
    /// ICMPv6 with a complete header, in IPv6.
    Icmpv6,
    /// Anything else, not looked into.
    Other,
}

/// Where the parts of a packet are; the result of its validation.
///
/// Stays true under all mutators, and for any other packet with the same header bytes in front of another payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    version: IpVersion,
    transport: Transport,
    next_header: u8,
    transport_offset: u16,
    payload_offset: u16,
}

impl Layout {
    /// Validates `packet`, which may have at most `max` bytes.
    pub(crate) fn parse(packet: &[u8], max: usize) -> Result<Self, ParseError> {
        let Some(first) = packet.first() else {
            return Err(ParseError::Empty);
        };
        if packet.len() > max {
            return Err(ParseError::TooLong {
                len: packet.len(),
                max,
            });
        }
        match first >> 4 {
            4 => parse_v4(packet),
            6 => parse_v6(packet),
            version => Err(ParseError::UnknownVersion(version)),
        }
    }

    /// IP version.
    pub fn version(&self) -> IpVersion {
        self.version
    }

    /// What the IP payload is, behind all extension headers.
    pub fn transport(&self) -> Transport {
        self.transport
    }

    /// IP protocol number of the transport.
    pub fn next_header(&self) -> u8 {
        self.next_header
    }

    /// Bytes in front of the transport header: IP header with options or extension headers.
    pub fn transport_offset(&self) -> usize {
        usize::from(self.transport_offset)
    }

    /// Bytes in front of the transport's payload: IP and transport header; equal to
    /// [`transport_offset`](Self::transport_offset) for [`Transport::Other`].
    pub fn payload_offset(&self) -> usize {
        usize::from(self.payload_offset)
    }
}

fn parse_v4(packet: &[u8]) -> Result<Layout, ParseError> {
    let Some((header, _)) = packet.split_first_chunk::<IPV4_HEADER_LEN>() else {
        return Err(ParseError::TruncatedHeader);
    };
    let header_len = usize::from(header[0] & 0x0f) * 4;
    if header_len < IPV4_HEADER_LEN || header_len > packet.len() {
        return Err(ParseError::TruncatedHeader);
    }
    let announced = usize::from(u16::from_be_bytes([header[2], header[3]]));
    if announced != packet.len() {
        return Err(ParseError::LengthMismatch {
            announced,
            len: packet.len(),
        });
    }
    // More-fragments flag or an offset; "don't fragment" and the reserved bit say nothing.
    if u16::from_be_bytes([header[6], header[7]]) & 0x3fff != 0 {
        return Err(ParseError::Fragment);
    }
    if header_len > IPV4_HEADER_LEN && is_source_routed(&packet[IPV4_HEADER_LEN..header_len]) {
        return Err(ParseError::SourceRouted);
    }
    parse_transport(packet, IpVersion::V4, header[9], header_len)
}

/// Whether IPv4 options ask for loose or strict source routing (RFC 791 §3.1).
fn is_source_routed(mut options: &[u8]) -> bool {
    const END: u8 = 0;
    const NO_OPERATION: u8 = 1;
    const LOOSE: u8 = 131;
    const STRICT: u8 = 137;
    loop {
        match *options {
            [] | [END, ..] => return false,
            [LOOSE | STRICT, ..] => return true,
            [NO_OPERATION, ref rest @ ..] => options = rest,
            [_, len, ..] if len >= 2 && usize::from(len) <= options.len() => {
                options = &options[usize::from(len)..];
            }
            // Nobody can act on what follows a malformed option.
            _ => return false,
        }
    }
}

fn parse_v6(packet: &[u8]) -> Result<Layout, ParseError> {
    let Some((header, _)) = packet.split_first_chunk::<IPV6_HEADER_LEN>() else {
        return Err(ParseError::TruncatedHeader);
    };
    let announced = IPV6_HEADER_LEN + usize::from(u16::from_be_bytes([header[4], header[5]]));
    if announced != packet.len() {
        return Err(ParseError::LengthMismatch {
            announced,
            len: packet.len(),
        });
    }
    match header[6] {
        // The usual case without a look at extension headers.
        next @ (number::TCP | number::UDP | number::ICMPV6) => {
            parse_transport(packet, IpVersion::V6, next, IPV6_HEADER_LEN)
        }
        next => {
            let (next, offset) = skip_extensions(packet, next)?;
            parse_transport(packet, IpVersion::V6, next, offset)
        }
    }
}

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
const DESTINATION_OPTIONS: u8 = 60;

/// Walks the extension headers; returns the transport's protocol number and offset.
fn skip_extensions(packet: &[u8], first: u8) -> Result<(u8, usize), ParseError> {
    let mut next = first;
    let mut offset = IPV6_HEADER_LEN;
    for count in 0..=MAX_EXTENSION_HEADERS {
        if !is_extension(next) {
            return Ok((next, offset));
        }
        // Only the first place is allowed for hop-by-hop options (RFC 8200 §4.1).
        if count == MAX_EXTENSION_HEADERS || (next == HOP_BY_HOP && count > 0) {
            break;
        }
        // No extension header is shorter than 8 bytes.
        let Some(header) = packet.get(offset..offset + 8) else {
            break;
        };
        let len = match next {
            FRAGMENT => {
                // An atomic fragment (RFC 6946) has neither offset nor more-fragments flag.
                if u16::from_be_bytes([header[2], header[3]]) & 0xfff9 != 0 {
                    return Err(ParseError::Fragment);
                }
                8
            }
            AUTHENTICATION => (usize::from(header[1]) + 2) * 4,
            ROUTING if header[3] != 0 => return Err(ParseError::SourceRouted),
            _ => (usize::from(header[1]) + 1) * 8,
        };
        if len < 8 {
            break;
        }
        offset += len;
        if offset > packet.len() {
            break;
        }
        next = header[0];
    }
    Err(ParseError::MalformedExtensions)
}

/// As [`skip_extensions`] for the packet inside an ICMP error.
pub(crate) fn embedded_transport(packet: &[u8], first: u8) -> Result<(u8, usize), EmbeddedError> {
    skip_extensions(packet, first).map_err(|error| match error {
        ParseError::Fragment => EmbeddedError::Fragment,
        _ => EmbeddedError::Malformed,
    })
}

fn is_extension(next: u8) -> bool {
    matches!(
        next,
        HOP_BY_HOP | ROUTING | FRAGMENT | AUTHENTICATION | DESTINATION_OPTIONS
    )
}

/// Checks the transport header at `offset`, which is at most the packet's length.
fn parse_transport(
    packet: &[u8],
    version: IpVersion,
    next_header: u8,
    offset: usize,
) -> Result<Layout, ParseError> {
    let bytes = &packet[offset..];
    let (transport, header_len) = match (next_header, version) {
        (number::TCP, _) => (Transport::Tcp, tcp_header_len(bytes)?),
        (number::UDP, _) => (Transport::Udp, udp_header_len(bytes)?),
        (number::ICMPV4, IpVersion::V4) => (Transport::Icmpv4, icmp_header_len(bytes)?),
        (number::ICMPV6, IpVersion::V6) => (Transport::Icmpv6, icmp_header_len(bytes)?),
        (number::ICMPV4, IpVersion::V6) | (number::ICMPV6, IpVersion::V4) => {
            return Err(ParseError::IcmpVersionMismatch);
        }
        _ => (Transport::Other, 0),
    };
    Ok(Layout {
        version,
        transport,
        next_header,
        // Both fit: no packet is longer than `MAX_SUPER_SIZE`.
        transport_offset: offset as u16,
        payload_offset: (offset + header_len) as u16,
    })
}

fn tcp_header_len(bytes: &[u8]) -> Result<usize, ParseError> {
    let Some((header, _)) = bytes.split_first_chunk::<TCP_HEADER_LEN>() else {
        return Err(ParseError::MalformedTcp);
    };
    let len = usize::from(header[12] >> 4) * 4;
    if len < TCP_HEADER_LEN || len > bytes.len() {
        return Err(ParseError::MalformedTcp);
    }
    Ok(len)
}

fn udp_header_len(bytes: &[u8]) -> Result<usize, ParseError> {
    let Some((header, _)) = bytes.split_first_chunk::<UDP_HEADER_LEN>() else {
        return Err(ParseError::MalformedUdp);
    };
    if usize::from(u16::from_be_bytes([header[4], header[5]])) != bytes.len() {
        return Err(ParseError::MalformedUdp);
    }
    Ok(UDP_HEADER_LEN)
}

fn icmp_header_len(bytes: &[u8]) -> Result<usize, ParseError> {
    if bytes.len() < ICMP_HEADER_LEN {
        return Err(ParseError::MalformedIcmp);
    }
    Ok(ICMP_HEADER_LEN)
}

#[cfg(test)]
mod tests {
    use crate::testing::{Mutation, packet, touch, with_extras};
    use crate::{
        IpPacket, MAX_IP_SIZE, MAX_SUPER_SIZE, PacketMut, PacketRef, ParseError, Transport, make,
    };
    use proptest::prelude::*;
    use std::net::SocketAddr;

    fn udp_v4() -> Vec<u8> {
        udp("10.0.0.1:1", "10.0.0.2:2")
    }

    fn udp_v6() -> Vec<u8> {
        udp("[fd00::1]:1", "[fd00::2]:2")
    }

    fn udp(source: &str, destination: &str) -> Vec<u8> {
        let (source, destination): (SocketAddr, SocketAddr) =
            (source.parse().unwrap(), destination.parse().unwrap());
        make::udp_packet(source, destination, b"payload")
            .unwrap()
            .as_slice()
            .to_vec()
    }

    fn error(bytes: &[u8]) -> ParseError {
        PacketRef::parse(bytes).unwrap_err()
    }

    /// `bytes` with some of them overwritten.
    fn with(mut bytes: Vec<u8>, changes: &[(usize, u8)]) -> Vec<u8> {
        for (at, value) in changes {
            bytes[*at] = *value;
        }
        bytes
    }

    /// An IPv6 packet with these bytes behind the header.
    fn v6(next_header: u8, payload: &[u8]) -> Vec<u8> {
        let mut bytes = udp_v6()[..40].to_vec();
        bytes[6] = next_header;
        bytes[4..6].copy_from_slice(&(payload.len() as u16).to_be_bytes());
        bytes.extend_from_slice(payload);
        bytes
    }

    /// An IPv4 packet with these bytes behind the header.
    fn v4(protocol: u8, payload: &[u8]) -> Vec<u8> {
        let mut bytes = udp_v4()[..20].to_vec();
        bytes[9] = protocol;
        bytes[2..4].copy_from_slice(&(20 + payload.len() as u16).to_be_bytes());
        bytes.extend_from_slice(payload);
        bytes
    }

    #[test]
    fn tunnel_74_length_and_version() {
        assert_eq!(error(&[]), ParseError::Empty);
        assert_eq!(
            error(&[0; 1281]),
            ParseError::TooLong {
                len: 1281,
                max: MAX_IP_SIZE
            }
        );
        assert_eq!(error(&[0; 1280]), ParseError::UnknownVersion(0));
        assert_eq!(error(&[0x50; 40]), ParseError::UnknownVersion(5));
        assert_eq!(error(&udp_v4()[..19]), ParseError::TruncatedHeader);
        assert_eq!(error(&udp_v6()[..39]), ParseError::TruncatedHeader);
    }

    #[test]
    fn tunnel_74_ipv4_header() {
        assert_eq!(
            error(&with(udp_v4(), &[(0, 0x44)])),
            ParseError::TruncatedHeader
        );
        assert_eq!(
            error(&with(udp_v4(), &[(0, 0x4f)])),
            ParseError::TruncatedHeader
        );
        let mismatch = |announced| ParseError::LengthMismatch { announced, len: 35 };
        assert_eq!(error(&with(udp_v4(), &[(3, 34)])), mismatch(34));
        assert_eq!(error(&with(udp_v4(), &[(3, 36)])), mismatch(36));
    }

    #[test]
    fn tunnel_74_ipv6_header() {
        let mismatch = |announced| ParseError::LengthMismatch { announced, len: 55 };
        assert_eq!(error(&with(udp_v6(), &[(5, 14)])), mismatch(54));
        assert_eq!(error(&with(udp_v6(), &[(5, 16)])), mismatch(56));
    }

    #[test]
    fn tunnel_74_fragments_are_a_distinct_error() {
        assert_eq!(
            error(&with(udp_v4(), &[(6, 0x20)])),
            ParseError::Fragment,
            "more fragments"
        );
        assert_eq!(
            error(&with(udp_v4(), &[(7, 1)])),
            ParseError::Fragment,
            "offset"
        );
        assert!(
            PacketRef::parse(&with(udp_v4(), &[(6, 0x40)])).is_ok(),
            "don't fragment"
        );
        let fragment = |high, low| v6(44, &[59, 0, high, low, 0, 0, 0, 1]);
        assert_eq!(
            error(&fragment(0, 1)),
            ParseError::Fragment,
            "more fragments"
        );
        assert_eq!(error(&fragment(0, 8)), ParseError::Fragment, "offset");
        assert!(
            PacketRef::parse(&fragment(0, 6)).is_ok(),
            "atomic, reserved bits set"
        );
    }

    #[test]
    fn tunnel_74_extension_chain() {
        let udp = &udp_v6()[40..];
        let chain = |headers: &[[u8; 8]]| [headers.concat(), udp.to_vec()].concat();
        let options = |next| [next, 0, 1, 4, 0, 0, 0, 0];
        let bytes = v6(
            0,
            &chain(&[options(60), options(51), [17, 0, 0, 0, 0, 0, 0, 0]]),
        );
        let packet = PacketRef::parse(&bytes).unwrap();
        assert_eq!(
            (packet.next_header(), packet.layout().transport_offset()),
            (17, 64)
        );
        assert_eq!(packet.l4_payload(), b"payload");

        let malformed = ParseError::MalformedExtensions;
        assert_eq!(
            error(&v6(60, &chain(&[options(0), options(17)]))),
            malformed,
            "hop-by-hop in second place"
        );
        assert_eq!(
            error(&v6(60, &[17, 0, 0, 0, 0, 0, 0])),
            malformed,
            "seven bytes"
        );
        assert_eq!(
            error(&v6(60, &[17, 3, 0, 0, 0, 0, 0, 0])),
            malformed,
            "longer than the packet"
        );
        assert_eq!(
            error(&v6(51, &[17, 255, 0, 0, 0, 0, 0, 0])),
            malformed,
            "authentication header too long"
        );
        let nine: Vec<_> = std::iter::repeat_n(options(60), 8)
            .chain([options(17)])
            .collect();
        assert_eq!(error(&v6(60, &chain(&nine))), malformed, "too many");
        assert!(PacketRef::parse(&v6(60, &chain(&nine[1..]))).is_ok());
    }

    #[test]
    fn source_routes_are_refused() {
        let routing = |left| v6(43, &[59, 0, 0, left, 0, 0, 0, 0]);
        assert_eq!(error(&routing(1)), ParseError::SourceRouted);
        assert!(PacketRef::parse(&routing(0)).is_ok());

        let plain = IpPacket::from_slice(&udp_v4()).unwrap();
        let options = with_extras(&plain, 1).as_slice().to_vec();
        assert_eq!(
            error(&with(options.clone(), &[(21, 131), (22, 7)])),
            ParseError::SourceRouted
        );
        assert_eq!(
            error(&with(options.clone(), &[(20, 7), (21, 3), (23, 137)])),
            ParseError::SourceRouted
        );
        assert!(
            PacketRef::parse(&with(options.clone(), &[(20, 0), (21, 131)])).is_ok(),
            "behind the end"
        );
        assert!(
            PacketRef::parse(&with(options, &[(20, 7), (21, 1), (22, 131)])).is_ok(),
            "malformed option"
        );
    }

    #[test]
    fn tunnel_74_transport_headers() {
        assert_eq!(
            error(&with(udp_v4(), &[(25, 14)])),
            ParseError::MalformedUdp
        );
        assert_eq!(
            error(&with(udp_v4(), &[(25, 16)])),
            ParseError::MalformedUdp
        );
        assert_eq!(error(&v6(17, &[0; 7])), ParseError::MalformedUdp);
        let tcp = |offset: u8, len: usize| {
            let mut header = vec![0; len];
            header[12] = offset << 4;
            header
        };
        assert_eq!(error(&v4(6, &tcp(5, 19))), ParseError::MalformedTcp);
        assert_eq!(error(&v4(6, &tcp(4, 20))), ParseError::MalformedTcp);
        assert_eq!(error(&v6(6, &tcp(6, 23))), ParseError::MalformedTcp);
        assert!(PacketRef::parse(&v6(6, &tcp(6, 24))).is_ok());
        assert_eq!(error(&v4(1, &[0; 7])), ParseError::MalformedIcmp);
        assert_eq!(error(&v6(58, &[0; 7])), ParseError::MalformedIcmp);
        assert_eq!(error(&v4(58, &[0; 8])), ParseError::IcmpVersionMismatch);
        assert_eq!(error(&v6(1, &[0; 8])), ParseError::IcmpVersionMismatch);
    }

    #[test]
    fn other_transports_are_opaque() {
        // IGMP, GRE, ESP, SCTP, no next header.
        for protocol in [2, 47, 50, 132, 59] {
            for bytes in [
                v4(protocol, b""),
                v4(protocol, b"abc"),
                v6(protocol, b""),
                v6(protocol, b"abc"),
            ] {
                let packet = PacketRef::parse(&bytes).unwrap();
                assert_eq!(packet.layout().transport(), Transport::Other);
                assert_eq!(
                    (packet.next_header(), packet.payload()),
                    (protocol, packet.l4_payload())
                );
            }
        }
    }

    #[test]
    fn super_packets_may_have_65535_bytes() {
        let mut bytes = v4(17, &vec![0; MAX_SUPER_SIZE - 20]);
        bytes[24..26].copy_from_slice(&(65_515u16).to_be_bytes());
        assert_eq!(
            PacketRef::parse_super(&bytes).unwrap().l4_payload().len(),
            65_507
        );
        assert!(matches!(error(&bytes), ParseError::TooLong { .. }));
        bytes.push(0);
        assert!(matches!(
            PacketRef::parse_super(&bytes),
            Err(ParseError::TooLong { .. })
        ));
    }

    proptest! {
        #[test]
        fn tunnel_74_no_input_panics(mut bytes in proptest::collection::vec(any::<u8>(), 0..1282), fix: bool) {
            if fix && let Some(first) = bytes.first_mut() {
                // Random bytes rarely pass the first checks.
                *first = if *first & 1 == 0 { 0x45 } else { 0x60 };
                let len = bytes.len() as u16;
                if bytes[0] == 0x45 && bytes.len() >= 20 {
                    bytes[2..4].copy_from_slice(&len.to_be_bytes());
                    bytes[6..8].fill(0);
                } else if bytes.len() >= 40 {
                    bytes[4..6].copy_from_slice(&(len - 40).to_be_bytes());
                }
            }
            if let Ok(packet) = PacketRef::parse(&bytes) {
                touch(packet);
            }
        }

        #[test]
        fn tunnel_74_no_damaged_packet_panics(
            packet in packet(),
            damage in proptest::collection::vec((0..80usize, any::<u8>()), 0..6),
            cut in 0..60usize,
            mutations in proptest::collection::vec(Mutation::any(), 0..6),
        ) {
            let mut bytes = packet.as_slice().to_vec();
            for (at, value) in damage {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte = value;
                }
            }
            bytes.truncate(bytes.len().max(cut + 20) - cut);
            if let Ok(mut packet) = PacketMut::parse(&mut bytes) {
                touch(packet.view());
                for mutation in mutations {
                    mutation.apply(&mut packet);
                }
                touch(packet.view());
                prop_assert_eq!(PacketRef::parse(&bytes).map(|p| p.layout()).is_ok(), true);
            }
        }
    }
}
