//! Datagrams in and out of the kernel: many per call in, trains of equal ones per call out, each with its congestion mark.
//!
//! A relay pays per call and per control message, so it makes these calls itself and asks for nothing that it does not
//! use. Everything unsafe about that is in `linux`.

#[cfg(target_os = "linux")]
mod linux;
#[cfg(target_os = "linux")]
pub(crate) use linux::{Receiver, can_segment, prepare, send, send_many};

#[cfg(not(target_os = "linux"))]
mod portable;
#[cfg(not(target_os = "linux"))]
pub(crate) use portable::{Receiver, can_segment, prepare, send, send_many};

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// Messages that one receive call takes at most.
pub(crate) const MAX_MESSAGES: usize = 32;
/// Messages that one send call takes at most.
pub(crate) const MAX_DEPARTURES: usize = 16;

/// A congestion mark (RFC 3168): the two bits of the IP header that routers may set. 0 says that nobody looks at them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Ecn(u8);

impl Ecn {
    /// From the whole byte of the header.
    pub(crate) const fn of_traffic_class(byte: u8) -> Self {
        Self(byte & 0b11)
    }
}

/// What one receive buffer was filled with: datagrams of one sender, each `segment_size` bytes, the last perhaps shorter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Arrival {
    pub(crate) from: SocketAddr,
    pub(crate) ecn: Ecn,
    pub(crate) len: usize,
    pub(crate) segment_size: usize,
}

impl Arrival {
    const NONE: Self = Self {
        from: SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0),
        ecn: Ecn(0),
        len: 0,
        segment_size: 0,
    };
}

/// One message to send: a datagram, or several of `segment_size` bytes, the last perhaps shorter, which the kernel or the
/// network adapter takes apart.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Departure<'a> {
    pub(crate) to: SocketAddr,
    /// Address that it comes from, if the kernel shall not choose.
    pub(crate) source: Option<IpAddr>,
    pub(crate) ecn: Ecn,
    pub(crate) bytes: &'a [u8],
    pub(crate) segment_size: Option<u16>,
}
