//! The nominated path and how sealed datagrams get onto it.

use std::net::SocketAddr;
use std::time::Instant;

use connlib_stun::ChannelNumber;
use connlib_stun::channel::{HEADER_LEN, encode_header};
use connlib_wireguard::SealSink;
use ip_packet::Ecn;

use crate::DatagramSink;
use crate::ice::Pair;

/// Our end of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Route<R> {
    /// A socket of ours.
    Direct { local: SocketAddr },
    /// Our address on a relay.
    Relayed { relay: R, local: SocketAddr },
}

impl<R> Route<R> {
    /// Our address as the peer sees it (before NATs).
    #[inline]
    pub(crate) fn local(&self) -> SocketAddr {
        match self {
            Self::Direct { local } | Self::Relayed { local, .. } => *local,
        }
    }
}

/// A nominated pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Path<R> {
    pub(crate) route: Route<R>,
    pub(crate) remote: SocketAddr,
    pub(crate) since: Instant,
}

impl<R> Path<R> {
    /// Our end and the peer's.
    #[inline]
    pub(crate) fn pair(&self) -> Pair {
        (self.route.local(), self.remote)
    }
}

/// Seals straight to the peer.
pub(crate) struct DirectSink<'a, S> {
    pub(crate) sink: &'a mut S,
    pub(crate) local: SocketAddr,
    pub(crate) remote: SocketAddr,
    pub(crate) ecn: Ecn,
}

impl<S: DatagramSink> SealSink for DirectSink<'_, S> {
    #[inline]
    fn reserve(&mut self, len: usize) -> &mut [u8] {
        self.sink
            .reserve(Some(self.local), self.remote, self.ecn, len)
    }

    #[inline]
    fn commit(&mut self, len: usize) {
        self.sink.commit(len);
    }
}

/// Seals behind a channel-data header (RFC 8656 §12.4), to the relay.
///
/// The header is written when the slot is reserved. A sealed datagram always fills the length that
/// was reserved for it, which `commit` checks.
pub(crate) struct ChannelSink<'a, S> {
    pub(crate) sink: &'a mut S,
    pub(crate) server: SocketAddr,
    pub(crate) channel: ChannelNumber,
    pub(crate) ecn: Ecn,
    pub(crate) reserved: usize,
}

impl<S: DatagramSink> SealSink for ChannelSink<'_, S> {
    #[inline]
    fn reserve(&mut self, len: usize) -> &mut [u8] {
        self.reserved = len;
        let slot = self
            .sink
            .reserve(None, self.server, self.ecn, HEADER_LEN + len);
        let (header, payload) = slot.split_at_mut(HEADER_LEN);
        // Lengths are bounded by the tunnel's MTU, far below 64 KiB.
        header.copy_from_slice(&encode_header(self.channel, len as u16));
        payload
    }

    #[inline]
    fn commit(&mut self, len: usize) {
        debug_assert!(len == 0 || len == self.reserved, "header names the length");
        let total = if len == self.reserved && len > 0 {
            HEADER_LEN + len
        } else {
            0
        };
        self.sink.commit(total);
    }
}
