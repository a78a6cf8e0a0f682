//! Datagrams that arrived together, and where their packets go.
//!
//! The kernel hands over what one sender sent in a burst as one buffer. Whose it is, by which path and session it came,
//! is found out once for all of it.

use connlib_stun::ChannelRange;
use connlib_stun::channel::{ChannelData, ChannelNumber};
use connlib_wireguard::OpenSink;

/// Datagrams from one sender to one of our sockets, in order of arrival: equally long, but for a shorter last one.
#[derive(Debug, Clone, Copy)]
pub struct Train<'a> {
    rest: &'a [u8],
    stride: usize,
}

impl<'a> Train<'a> {
    /// Datagrams of `stride` bytes one behind the other.
    pub fn new(bytes: &'a [u8], stride: usize) -> Self {
        Self {
            rest: bytes,
            stride: stride.max(1),
        }
    }

    /// One datagram.
    pub fn single(datagram: &'a [u8]) -> Self {
        Self::new(datagram, datagram.len())
    }

    /// Whether every datagram was taken.
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }
}

impl<'a> Iterator for Train<'a> {
    type Item = &'a [u8];

    #[inline]
    fn next(&mut self) -> Option<&'a [u8]> {
        if self.rest.is_empty() {
            return None;
        }
        let (first, rest) = self.rest.split_at(self.stride.min(self.rest.len()));
        self.rest = rest;
        Some(first)
    }
}

/// Takes the packets of a train, in order.
pub trait PacketSink<P> {
    /// Room for the plaintext of the next datagram: as long as the datagram, or it is dropped as too large.
    fn room(&mut self) -> &mut [u8];

    /// Whether the packet of `peer` in the first `len` bytes of the room is done with. If not, it stays where it is and
    /// is handed to the caller.
    fn take(&mut self, peer: P, len: usize) -> bool;
}

/// Room for one packet, which the caller takes.
pub(crate) struct Whole<'a>(pub(crate) &'a mut [u8]);

impl<P> PacketSink<P> for Whole<'_> {
    #[inline]
    fn room(&mut self) -> &mut [u8] {
        self.0
    }

    #[inline]
    fn take(&mut self, _peer: P, _len: usize) -> bool {
        false
    }
}

/// A sink that knows whose packets these are.
pub(crate) struct OfPeer<'a, P, S> {
    pub(crate) sink: &'a mut S,
    pub(crate) peer: P,
}

impl<P: Copy, S: PacketSink<P>> OpenSink for OfPeer<'_, P, S> {
    #[inline]
    fn room(&mut self) -> &mut [u8] {
        self.sink.room()
    }

    #[inline]
    fn take(&mut self, len: usize) -> bool {
        self.sink.take(self.peer, len)
    }
}

/// What channel data messages on one channel contain. Ends before a datagram that is anything else.
#[derive(Clone)]
pub(crate) struct OnChannel<'a> {
    /// Content of the datagram in front of `train`.
    pub(crate) first: Option<&'a [u8]>,
    pub(crate) train: Train<'a>,
    pub(crate) channel: ChannelNumber,
}

impl<'a> Iterator for OnChannel<'a> {
    type Item = &'a [u8];

    #[inline]
    fn next(&mut self) -> Option<&'a [u8]> {
        if let Some(first) = self.first.take() {
            return Some(first);
        }
        let mut ahead = self.train;
        let data = ChannelData::parse(ahead.next()?, ChannelRange::Wide).ok()?;
        if data.number != self.channel {
            return None;
        }
        self.train = ahead;
        Some(data.payload)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_datagram_may_be_shorter() {
        let lengths = Train::new(&[0; 25], 10).map(<[u8]>::len);
        assert_eq!(lengths.collect::<Vec<_>>(), [10, 10, 5]);
        assert_eq!(Train::single(&[0; 7]).count(), 1);
        assert_eq!(Train::single(&[]).count(), 0);
        assert_eq!(Train::new(&[0; 2], 0).count(), 2);
    }

    /// What is not of the same channel waits to be looked at by itself.
    #[test]
    fn another_channel_ends_the_run() {
        let channel = |number| ChannelNumber::new(number).expect("a valid number");
        let mut bytes = Vec::new();
        for number in [0x4001, 0x4001, 0x4002] {
            bytes.extend(connlib_stun::channel::encode_header(channel(number), 2));
            bytes.extend([7, 7]);
        }
        let mut run = OnChannel {
            first: Some(&[8, 8]),
            train: Train::new(&bytes, 6),
            channel: channel(0x4001),
        };
        assert_eq!(run.by_ref().collect::<Vec<_>>(), [[8, 8], [7, 7], [7, 7]]);
        assert_eq!(run.train.count(), 1);
    }
}
