//! The two queues of a peer: packets that wait for a session, and datagrams that wait to be polled.
//!
//! Both keep their contents back to back in one byte buffer: no allocation per packet, and nothing is held once they are empty.

use std::collections::VecDeque;
use std::time::Instant;

use ip_packet::PacketBatch;

use crate::SealSink;

/// A buffer larger than this is given back when its queue runs empty, so that idle peers cost nothing.
const KEEP_CAPACITY: usize = 8 * 1024;

/// Datagrams that wait to be polled: a full pending queue (256), handshakes and keepalives. A caller that does not poll loses
/// the newest.
const OUTBOX_MAX: usize = 512;

/// Why a datagram is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DatagramKind {
    /// Handshake initiation (type 1).
    Init,
    /// Handshake response (type 2).
    Response,
    /// Sealed nothing (type 4).
    Keepalive,
    /// Sealed packet (type 4) that waited for a session.
    Data,
}

/// One datagram for the peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Datagram<'a> {
    /// Why it is sent.
    pub kind: DatagramKind,
    /// The UDP payload.
    pub bytes: &'a [u8],
}

/// Back-to-back byte strings, first in, first out, each with a tag.
#[derive(Debug)]
struct ByteQueue<T> {
    bytes: Vec<u8>,
    /// Where the first entry starts.
    head: usize,
    entries: VecDeque<(T, usize)>,
}

impl<T> ByteQueue<T> {
    const fn new() -> Self {
        Self {
            bytes: Vec::new(),
            head: 0,
            entries: VecDeque::new(),
        }
    }

    fn push(&mut self, tag: T, bytes: &[u8]) {
        self.recycle();
        self.bytes.extend_from_slice(bytes);
        self.entries.push_back((tag, bytes.len()));
    }

    fn pop(&mut self) -> Option<(T, &[u8])> {
        let Some((tag, len)) = self.entries.pop_front() else {
            self.recycle();
            return None;
        };
        let start = self.head;
        self.head += len;

        Some((tag, &self.bytes[start..start + len]))
    }

    /// Starts over at the front of the buffer once everything is taken out.
    fn recycle(&mut self) {
        if !self.entries.is_empty() {
            return;
        }
        self.head = 0;
        self.bytes.clear();
        if self.bytes.capacity() > KEEP_CAPACITY {
            self.bytes = Vec::new();
            self.entries = VecDeque::new();
        }
    }
}

/// Plain packets that wait for a session; the newest is refused when full, so that what leaves is the start of each flow.
#[derive(Debug)]
pub(crate) struct PendingPackets {
    queue: ByteQueue<Instant>,
    max: usize,
}

impl PendingPackets {
    pub(crate) const fn new(max: usize) -> Self {
        Self {
            queue: ByteQueue::new(),
            max,
        }
    }

    /// Copies `packet` in; `false` if the queue is full.
    pub(crate) fn push(&mut self, packet: &[u8], now: Instant) -> bool {
        if self.len() >= self.max {
            return false;
        }
        self.queue.push(now, packet);
        true
    }

    pub(crate) fn len(&self) -> usize {
        self.queue.entries.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.queue.entries.is_empty()
    }

    /// When the oldest packet was put in.
    pub(crate) fn oldest(&self) -> Option<Instant> {
        self.queue.entries.front().map(|(since, _)| *since)
    }

    /// Drops the oldest packet.
    pub(crate) fn drop_oldest(&mut self) {
        self.queue.pop();
    }
}

impl PacketBatch for PendingPackets {
    fn next_packet(&mut self) -> Option<&[u8]> {
        self.queue.pop().map(|(_, packet)| packet)
    }
}

/// Datagrams for the network, in order.
#[derive(Debug)]
pub(crate) struct Outbox {
    queue: ByteQueue<DatagramKind>,
    overflowed: u64,
}

impl Outbox {
    pub(crate) const fn new() -> Self {
        Self {
            queue: ByteQueue::new(),
            overflowed: 0,
        }
    }

    pub(crate) fn push(&mut self, kind: DatagramKind, datagram: &[u8]) {
        if self.queue.entries.len() >= OUTBOX_MAX {
            self.overflowed += 1;
            return;
        }
        self.queue.push(kind, datagram);
    }

    pub(crate) fn pop(&mut self) -> Option<Datagram<'_>> {
        self.queue
            .pop()
            .map(|(kind, bytes)| Datagram { kind, bytes })
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.queue.entries.is_empty()
    }

    /// Datagrams lost because nobody polled.
    pub(crate) fn overflowed(&self) -> u64 {
        self.overflowed
    }

    /// Lets an engine seal into this queue.
    pub(crate) fn sink(&mut self, kind: DatagramKind) -> OutboxSink<'_> {
        OutboxSink {
            outbox: self,
            kind,
            slot: Vec::new(),
        }
    }
}

/// [`SealSink`] over an [`Outbox`]. Off the packet path: used to flush waiting packets and for keepalives.
pub(crate) struct OutboxSink<'a> {
    outbox: &'a mut Outbox,
    kind: DatagramKind,
    slot: Vec<u8>,
}

impl SealSink for OutboxSink<'_> {
    fn reserve(&mut self, len: usize) -> &mut [u8] {
        self.slot.resize(len, 0);
        &mut self.slot
    }

    fn commit(&mut self, len: usize) {
        if len > 0 {
            self.outbox.push(self.kind, &self.slot[..len]);
        }
    }
}

/// Batch of one empty packet: seals to a keepalive.
pub(crate) struct Nothing(Option<&'static [u8]>);

impl Nothing {
    pub(crate) const fn once() -> Self {
        Self(Some(&[]))
    }
}

impl PacketBatch for Nothing {
    fn next_packet(&mut self) -> Option<&[u8]> {
        self.0.take()
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "a test may start at any instant")]
mod tests {
    use super::*;

    #[test]
    fn packets_leave_in_order_and_the_newest_is_refused() {
        let now = Instant::now();
        let mut pending = PendingPackets::new(3);

        let accepted: Vec<bool> = (0..5u8).map(|i| pending.push(&[i; 20], now)).collect();
        assert_eq!(accepted, [true, true, true, false, false]);

        for i in 0..3u8 {
            assert_eq!(pending.next_packet(), Some(&[i; 20][..]));
        }
        assert_eq!(pending.next_packet(), None);
        assert!(pending.push(&[9; 20], now));
        assert_eq!(pending.next_packet(), Some(&[9; 20][..]));
    }

    #[test]
    fn an_empty_queue_holds_no_memory() {
        let mut outbox = Outbox::new();
        for _ in 0..100 {
            outbox.push(DatagramKind::Data, &[0; 1312]);
        }
        while outbox.pop().is_some() {}

        assert!(outbox.is_empty());
        assert!(outbox.queue.bytes.capacity() <= KEEP_CAPACITY);
    }

    #[test]
    fn an_unpolled_outbox_is_bounded() {
        let mut outbox = Outbox::new();
        for _ in 0..OUTBOX_MAX + 7 {
            outbox.push(DatagramKind::Response, &[0; 92]);
        }

        assert_eq!(outbox.queue.entries.len(), OUTBOX_MAX);
        assert_eq!(outbox.overflowed(), 7);
    }
}
