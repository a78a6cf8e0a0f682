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
