//! Builders: packets that are made here, with right lengths and checksums.
//!
//! Time to live 64, for ICMP errors 20, for control packets 0. Payloads are copied straight into the packet's buffer.

mod icmp;
mod ip;

pub use icmp::{
    Unreachable, icmp_echo_reply, icmp_echo_request, icmp_unreachable, icmpv4_message,
    icmpv6_message, translated_icmp_error,
};

use crate::control::CONTROL_HEADER_LEN;
use crate::layout::{TCP_HEADER_LEN, UDP_HEADER_LEN};
use crate::{BuildError, IpPacket, TcpFlags, number};
use ip::Header;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

/// Time to live of ordinary packets.
const TTL: u8 = 64;

/// A UDP packet.
///
/// # Errors
/// [`BuildError::MixedFamilies`], [`BuildError::TooLong`].
pub fn udp_packet(
    source: SocketAddr,
    destination: SocketAddr,
    payload: &[u8],
) -> Result<IpPacket, BuildError> {
    let header = Header {
        source: source.ip(),
        destination: destination.ip(),
        protocol: number::UDP,
        ttl: TTL,
    };
    let len = UDP_HEADER_LEN + payload.len();
    header.build(len, |transport| {
        transport[0..2].copy_from_slice(&source.port().to_be_bytes());
        transport[2..4].copy_from_slice(&destination.port().to_be_bytes());
        // Fits: `build` refuses longer packets.
        transport[4..6].copy_from_slice(&(len as u16).to_be_bytes());
        transport[6..8].fill(0);
        transport[8..].copy_from_slice(payload);
    })
}

/// The header fields of a TCP segment that are not ports, lengths or checksums.
#[derive(Debug, Clone, Copy)]
pub struct TcpHeader<'a> {
    /// Sequence number.
    pub sequence: u32,
    /// Acknowledgement number.
    pub acknowledgement: u32,
    /// Control bits.
    pub flags: TcpFlags,
    /// Window.
    pub window: u16,
    /// Option bytes: a multiple of 4, at most 40.
    pub options: &'a [u8],
}

impl Default for TcpHeader<'_> {
    fn default() -> Self {
        Self {
            sequence: 0,
            acknowledgement: 0,
            flags: TcpFlags::NONE,
            window: 128,
            options: &[],
        }
    }
}

/// A TCP packet.
///
/// # Errors
/// [`BuildError::MixedFamilies`], [`BuildError::TooLong`], [`BuildError::InvalidOptions`].
pub fn tcp_packet(
    source: SocketAddr,
    destination: SocketAddr,
    tcp: TcpHeader<'_>,
    payload: &[u8],
) -> Result<IpPacket, BuildError> {
    if tcp.options.len() > 40 || !tcp.options.len().is_multiple_of(4) {
        return Err(BuildError::InvalidOptions(tcp.options.len()));
    }
    let header_len = TCP_HEADER_LEN + tcp.options.len();
    let header = Header {
        source: source.ip(),
        destination: destination.ip(),
        protocol: number::TCP,
        ttl: TTL,
    };
    header.build(header_len + payload.len(), |transport| {
        transport[0..2].copy_from_slice(&source.port().to_be_bytes());
        transport[2..4].copy_from_slice(&destination.port().to_be_bytes());
        transport[4..8].copy_from_slice(&tcp.sequence.to_be_bytes());
        transport[8..12].copy_from_slice(&tcp.acknowledgement.to_be_bytes());
        transport[12] = (header_len as u8 / 4) << 4;
        transport[13] = tcp.flags.bits();
        transport[14..16].copy_from_slice(&tcp.window.to_be_bytes());
        transport[16..20].fill(0);
        transport[20..header_len].copy_from_slice(tcp.options);
        transport[header_len..].copy_from_slice(payload);
    })
}

/// A control packet: event type and the event's payload.
///
/// # Errors
/// [`BuildError::TooLong`].
pub fn control_packet(event_type: u8, payload: &[u8]) -> Result<IpPacket, BuildError> {
    let unspecified = IpAddr::V6(Ipv6Addr::UNSPECIFIED);
    let header = Header {
        source: unspecified,
        destination: unspecified,
        protocol: number::CONTROL,
        ttl: 0,
    };
    header.build(CONTROL_HEADER_LEN + payload.len(), |control| {
        control[..CONTROL_HEADER_LEN].fill(0);
        control[0] = event_type;
        control[CONTROL_HEADER_LEN..].copy_from_slice(payload);
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{MAX_IP_SIZE, MAX_UDP_PAYLOAD, PacketRef};

    fn socket(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn tunnel_77_mixed_families_are_errors() {
        let (v4, v6) = (socket("10.0.0.1:1"), socket("[fd00::1]:1"));
        for (source, destination) in [(v4, v6), (v6, v4)] {
            let mixed = BuildError::MixedFamilies {
                source_addr: source.ip(),
                destination: destination.ip(),
            };
            assert_eq!(udp_packet(source, destination, b"").unwrap_err(), mixed);
            assert_eq!(
                tcp_packet(source, destination, TcpHeader::default(), b"").unwrap_err(),
                mixed
            );
            assert_eq!(
                icmp_echo_request(source.ip(), destination.ip(), 1, 1, b"").unwrap_err(),
                mixed
            );
        }
        let wrong = BuildError::WrongIcmpVersion;
        assert_eq!(
            icmpv4_message(v6.ip(), v6.ip(), 1, (0, 0, [0; 4]), b"").unwrap_err(),
            wrong
        );
        assert_eq!(
            icmpv6_message(v4.ip(), v4.ip(), 1, (0, 0, [0; 4]), b"").unwrap_err(),
            wrong
        );
    }

    #[test]
    fn tunnel_77_oversize_is_an_error() {
        let (a, b) = (socket("10.0.0.1:1"), socket("10.0.0.2:2"));
        let payload = [0; 1281];
        assert_eq!(
            udp_packet(a, b, &payload[..1252]).unwrap().as_slice().len(),
            MAX_IP_SIZE
        );
        assert_eq!(
            udp_packet(a, b, &payload[..1253]).unwrap_err(),
            BuildError::TooLong(1281)
        );
        assert_eq!(
            control_packet(0, &payload[..1233]).unwrap_err(),
            BuildError::TooLong(1281)
        );
        assert!(icmp_echo_reply(a.ip(), b.ip(), 1, 1, &payload).is_err());
        assert!(tcp_packet(a, b, TcpHeader::default(), &payload).is_err());
        assert_eq!(MAX_UDP_PAYLOAD, 1212);
    }

    #[test]
    fn tcp_fields_and_options_arrive() {
        let tcp = TcpHeader {
            sequence: 1,
            acknowledgement: 2,
            flags: TcpFlags::SYN | TcpFlags::ACK,
            options: &[2, 4, 5, 0],
            ..TcpHeader::default()
        };
        let packet =
            tcp_packet(socket("[fd00::1]:10"), socket("[fd00::2]:20"), tcp, b"data").unwrap();
        assert!(packet.has_valid_checksums());
        let view = packet.as_tcp().unwrap();
        assert_eq!((view.source_port(), view.destination_port()), (10, 20));
        assert_eq!(
            (view.sequence(), view.acknowledgement(), view.window()),
            (1, 2, 128)
        );
        assert_eq!(
            (view.options(), view.payload()),
            (&[2, 4, 5, 0][..], &b"data"[..])
        );
        assert!(!view.is_initial_syn());
        assert_eq!(packet.hop_limit(), 64);
        let (a, b) = (socket("10.0.0.1:1"), socket("10.0.0.2:2"));
        for options in [&[0; 3][..], &[0; 44]] {
            let invalid = TcpHeader {
                options,
                ..TcpHeader::default()
            };
            assert!(matches!(
                tcp_packet(a, b, invalid, b""),
                Err(BuildError::InvalidOptions(_))
            ));
        }
    }

    #[test]
    fn tunnel_40_control_packet_bytes() {
        let packet = control_packet(1, b"{}").unwrap();
        let mut expected = vec![0x60, 0, 0, 0, 0, 10, 255, 0];
        expected.extend_from_slice(&[0; 32]);
        expected.extend_from_slice(&[1, 0, 0, 0, 0, 0, 0, 0, b'{', b'}']);
        assert_eq!(packet.as_slice(), expected);
        let control = packet.as_control().unwrap();
        assert_eq!((control.event_type, control.payload), (1, &b"{}"[..]));
    }

    #[test]
    fn tunnel_40_what_is_no_control_packet() {
        let good = control_packet(0, b"").unwrap();
        let mut short = good.as_slice()[..47].to_vec();
        short[5] = 7;
        assert!(
            !PacketRef::parse(&short).unwrap().is_control(),
            "seven bytes"
        );
        for at in [8, 23, 24, 39] {
            let mut bytes = good.as_slice().to_vec();
            bytes[at] = 1;
            assert!(!PacketRef::parse(&bytes).unwrap().is_control(), "address");
        }
        let mut other = good.as_slice().to_vec();
        other[6] = 254;
        assert!(
            !PacketRef::parse(&other).unwrap().is_control(),
            "next header"
        );
    }
}
