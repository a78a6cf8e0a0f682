//! ICMP messages.

use super::TTL;
use super::ip::Header;
use crate::layout::{ICMP_HEADER_LEN, IPV6_HEADER_LEN};
use crate::{
    BuildError, IcmpError, Icmpv4, Icmpv6, IpPacket, IpVersion, MAX_IP_SIZE, PacketRef, number,
};
use std::net::IpAddr;

/// Time to live of ICMP errors.
const ERROR_TTL: u8 = 20;
/// ICMPv4 destination unreachable.
const V4_UNREACHABLE: u8 = 3;
/// ICMPv6 destination unreachable.
const V6_UNREACHABLE: u8 = 1;

/// Why a packet did not reach its destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unreachable {
    /// Access was refused: v4 code 13, v6 code 1. Makes a client ask for access anew.
    Prohibited,
    /// There is nothing to reach: v4 code 0, v6 code 3 (address unreachable).
    Network,
}

/// An ICMP echo request.
///
/// # Errors
/// [`BuildError::MixedFamilies`], [`BuildError::TooLong`].
pub fn icmp_echo_request(
    source: IpAddr,
    destination: IpAddr,
    identifier: u16,
    sequence: u16,
    payload: &[u8],
) -> Result<IpPacket, BuildError> {
    let (v4, v6) = (Icmpv4::ECHO_REQUEST, Icmpv6::ECHO_REQUEST);
    echo(source, destination, [v4, v6], identifier, sequence, payload)
}

/// An ICMP echo reply.
///
/// # Errors
/// [`BuildError::MixedFamilies`], [`BuildError::TooLong`].
pub fn icmp_echo_reply(
    source: IpAddr,
    destination: IpAddr,
    identifier: u16,
    sequence: u16,
    payload: &[u8],
) -> Result<IpPacket, BuildError> {
    let (v4, v6) = (Icmpv4::ECHO_REPLY, Icmpv6::ECHO_REPLY);
    echo(source, destination, [v4, v6], identifier, sequence, payload)
}

/// Any ICMPv4 message: `message` is type, code, and the four bytes of the header behind the checksum.
///
/// # Errors
/// [`BuildError::WrongIcmpVersion`] for IPv6 addresses, [`BuildError::MixedFamilies`], [`BuildError::TooLong`].
pub fn icmpv4_message(
    source: IpAddr,
    destination: IpAddr,
    ttl: u8,
    message: (u8, u8, [u8; 4]),
    payload: &[u8],
) -> Result<IpPacket, BuildError> {
    if !source.is_ipv4() {
        return Err(BuildError::WrongIcmpVersion);
    }
    icmp(
        Header {
            source,
            destination,
            protocol: number::ICMPV4,
            ttl,
        },
        message,
        payload,
    )
}

/// Any ICMPv6 message: `message` is type, code, and the four bytes of the header behind the checksum.
///
/// # Errors
/// [`BuildError::WrongIcmpVersion`] for IPv4 addresses, [`BuildError::MixedFamilies`], [`BuildError::TooLong`].
pub fn icmpv6_message(
    source: IpAddr,
    destination: IpAddr,
    hop_limit: u8,
    message: (u8, u8, [u8; 4]),
    payload: &[u8],
) -> Result<IpPacket, BuildError> {
    if !source.is_ipv6() {
        return Err(BuildError::WrongIcmpVersion);
    }
    icmp(
        Header {
            source,
            destination,
            protocol: number::ICMPV6,
            ttl: hop_limit,
        },
        message,
        payload,
    )
}

/// The error that tells the sender of `original` that its packet went no further.
///
/// From the original destination to the original source. It carries of the original: over IPv4 the IP header with
/// options and 8 bytes, over IPv6 as much as fits into 1280 bytes. `original` may be a super-packet.
///
/// # Errors
/// [`BuildError::NotAnswerable`] when `original` is itself an ICMP error or when one of its addresses is not that of
/// a single host (RFC 1122 §3.2.2, RFC 4443 §2.4).
pub fn icmp_unreachable(
    original: PacketRef<'_>,
    reason: Unreachable,
) -> Result<IpPacket, BuildError> {
    if !is_answerable(original) {
        return Err(BuildError::NotAnswerable);
    }
    let (source, destination) = (original.destination(), original.source());
    let bytes = original.as_slice();
    match original.version() {
        IpVersion::V4 => {
            let code = match reason {
                Unreachable::Prohibited => 13,
                Unreachable::Network => 0,
            };
            let embedded = &bytes[..bytes.len().min(original.layout().transport_offset() + 8)];
            icmpv4_message(
                source,
                destination,
                ERROR_TTL,
                (V4_UNREACHABLE, code, [0; 4]),
                embedded,
            )
        }
        IpVersion::V6 => {
            let code = match reason {
                Unreachable::Prohibited => 1,
                Unreachable::Network => 3,
            };
            let embedded = &bytes[..bytes
                .len()
                .min(MAX_IP_SIZE - IPV6_HEADER_LEN - ICMP_HEADER_LEN)];
            icmpv6_message(
                source,
                destination,
                ERROR_TTL,
                (V6_UNREACHABLE, code, [0; 4]),
                embedded,
            )
        }
    }
}

/// An ICMP error as the other side of a NAT has to see it: a fresh packet from `source` to `destination` with the same
/// type, code, MTU and embedded bytes, in which the embedded packet goes to `source` and comes from port or identifier
/// `embedded_source_value`.
///
/// Embedded checksums are left as they are: receivers match on addresses and ports only.
///
/// # Errors
/// [`BuildError::Embedded`] when the embedded packet belongs to no flow, [`BuildError::Family`] or
/// [`BuildError::MixedFamilies`] for addresses of the other version.
pub fn translated_icmp_error(
    error: &IcmpError<'_>,
    source: IpAddr,
    destination: IpAddr,
    embedded_source_value: u16,
) -> Result<IpPacket, BuildError> {
    let failed = error.failed_packet()?;
    let protocol = match error.version() {
        IpVersion::V4 => number::ICMPV4,
        IpVersion::V6 => number::ICMPV6,
    };
    if source.is_ipv4() != (error.version() == IpVersion::V4) {
        return Err(BuildError::WrongIcmpVersion);
    }
    let header = Header {
        source,
        destination,
        protocol,
        ttl: ERROR_TTL,
    };
    let mut rewritten = Ok(());
    let packet = header.build(error.message().len(), |message| {
        message.copy_from_slice(error.message());
        rewritten = failed.rewrite(
            &mut message[ICMP_HEADER_LEN..],
            source,
            embedded_source_value,
        );
    })?;
    rewritten?;
    Ok(packet)
}

fn is_answerable(original: PacketRef<'_>) -> bool {
    let is_host = |address: IpAddr| {
        let broadcast = matches!(address, IpAddr::V4(v4) if v4.is_broadcast());
        !address.is_multicast() && !address.is_unspecified() && !broadcast
    };
    let is_error = match (original.as_icmpv4(), original.as_icmpv6()) {
        // Destination unreachable, source quench, redirect, time exceeded, parameter problem.
        (Some(icmp), _) => matches!(icmp.icmp_type(), 3 | 4 | 5 | 11 | 12),
        // RFC 4443 §2.1: error messages have types below 128; redirects (RFC 4861) are not answered either.
        (_, Some(icmp)) => icmp.icmp_type() < 128 || icmp.icmp_type() == 137,
        (None, None) => false,
    };
    !is_error && is_host(original.source()) && is_host(original.destination())
}

fn echo(
    source: IpAddr,
    destination: IpAddr,
    types: [u8; 2],
    identifier: u16,
    sequence: u16,
    payload: &[u8],
) -> Result<IpPacket, BuildError> {
    let ([id_high, id_low], [seq_high, seq_low]) =
        (identifier.to_be_bytes(), sequence.to_be_bytes());
    let rest = [id_high, id_low, seq_high, seq_low];
    let [v4_type, v6_type] = types;
    if source.is_ipv4() {
        icmpv4_message(source, destination, TTL, (v4_type, 0, rest), payload)
    } else {
        icmpv6_message(source, destination, TTL, (v6_type, 0, rest), payload)
    }
}

fn icmp(
    header: Header,
    (icmp_type, code, rest): (u8, u8, [u8; 4]),
    payload: &[u8],
) -> Result<IpPacket, BuildError> {
    header.build(ICMP_HEADER_LEN + payload.len(), |message| {
        message[0] = icmp_type;
        message[1] = code;
        message[2..4].fill(0);
        message[4..8].copy_from_slice(&rest);
        message[8..].copy_from_slice(payload);
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::make::{TcpHeader, tcp_packet, udp_packet};
    use crate::testing::with_extras;
    use crate::{Icmpv4, Protocol};
    use std::net::SocketAddr;

    fn udp(source: &str, destination: &str, len: usize) -> IpPacket {
        let (source, destination): (SocketAddr, SocketAddr) =
            (source.parse().unwrap(), destination.parse().unwrap());
        udp_packet(source, destination, &vec![1; len]).unwrap()
    }

    #[test]
    fn tunnel_62_unreachable_over_ipv4_embeds_header_and_eight_bytes() {
        let original = with_extras(&udp("100.64.0.1:5", "203.0.113.1:6", 100), 1);
        for (reason, code) in [(Unreachable::Prohibited, 13), (Unreachable::Network, 0)] {
            let error = icmp_unreachable(original.view(), reason).unwrap();
            assert_eq!(
                (error.source(), error.destination()),
                (original.destination(), original.source())
            );
            assert_eq!(error.hop_limit(), 20);
            assert!(error.has_valid_checksums());
            let icmp = error.as_icmpv4().unwrap();
            assert_eq!((icmp.icmp_type(), icmp.code()), (3, code));
            assert_eq!(icmp.payload(), &original.as_slice()[..36]);
        }
    }

    #[test]
    fn tunnel_62_unreachable_over_ipv6_embeds_what_fits() {
        for (len, embedded) in [(1232, 1232), (10, 58)] {
            let original = udp("[fd00::1]:5", "[2001:db8::1]:6", len);
            for (reason, code) in [(Unreachable::Prohibited, 1), (Unreachable::Network, 3)] {
                let error = icmp_unreachable(original.view(), reason).unwrap();
                let icmp = error.as_icmpv6().unwrap();
                assert_eq!((icmp.icmp_type(), icmp.code()), (1, code));
                assert_eq!(icmp.payload(), &original.as_slice()[..embedded]);
                assert!(error.has_valid_checksums());
            }
        }
    }

    #[test]
    fn no_error_about_an_error_or_to_many_hosts() {
        let original = udp("100.64.0.1:5", "203.0.113.1:6", 0);
        let error = icmp_unreachable(original.view(), Unreachable::Network).unwrap();
        let refused =
            |packet: &IpPacket| icmp_unreachable(packet.view(), Unreachable::Network).unwrap_err();
        assert_eq!(refused(&error), BuildError::NotAnswerable);
        for destination in ["224.0.0.22:1", "255.255.255.255:1", "0.0.0.0:1"] {
            assert_eq!(
                refused(&udp("100.64.0.1:5", destination, 0)),
                BuildError::NotAnswerable
            );
        }
        assert_eq!(
            refused(&udp("[ff02::1]:5", "[fd00::1]:1", 0)),
            BuildError::NotAnswerable
        );
    }

    #[test]
    fn unreachable_about_a_super_packet() {
        let (source, destination): (SocketAddr, SocketAddr) = (
            "[fd00::1]:5".parse().unwrap(),
            "[2001:db8::1]:6".parse().unwrap(),
        );
        let mut bytes = tcp_packet(source, destination, TcpHeader::default(), b"")
            .unwrap()
            .as_slice()
            .to_vec();
        bytes.resize(60_000, 7);
        bytes[4..6].copy_from_slice(&(60_000u16 - 40).to_be_bytes());
        let error = icmp_unreachable(
            PacketRef::parse_super(&bytes).unwrap(),
            Unreachable::Prohibited,
        )
        .unwrap();
        assert_eq!(error.as_slice().len(), MAX_IP_SIZE);
        let failed = error.icmp_error().unwrap().failed_packet().unwrap();
        assert_eq!(failed.destination_protocol(), Protocol::Tcp(6));
    }

    #[test]
    fn echo_fields_arrive() {
        let (a, b) = ("10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap());
        let packet = icmp_echo_request(a, b, 0x1234, 0x5678, b"ping").unwrap();
        let icmp = packet.as_icmpv4().unwrap();
        assert_eq!(icmp.icmp_type(), Icmpv4::ECHO_REQUEST);
        assert_eq!(
            (icmp.echo_identifier(), icmp.echo_sequence()),
            (Some(0x1234), Some(0x5678))
        );
        assert_eq!(packet.source_protocol(), packet.destination_protocol());
        let (a, b) = ("fd00::1".parse().unwrap(), "fd00::2".parse().unwrap());
        let reply = icmp_echo_reply(a, b, 1, 2, b"").unwrap();
        assert!(reply.as_icmpv6().unwrap().is_echo_reply());
    }
}
