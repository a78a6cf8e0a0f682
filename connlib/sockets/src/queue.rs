//! Datagrams on their way out, in the order they were written.
//!
//! Senders write straight into the queue ([`GsoQueue::reserve`], [`GsoQueue::commit`]). Equal neighbours form a batch
//! that leaves in one system call (UDP GSO): same source, destination and congestion mark, same size but for a shorter
//! last one, at most 64 datagrams and 65 507 bytes — the kernel loses more than that without an error. Nothing is
//! reordered, and nothing is lost while a socket would block: [`GsoQueue::flush`] keeps what was not taken.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;

use ip_packet::Ecn;

use crate::MAX_DATAGRAM;
use crate::counters::SendCounters;
use crate::platform;
use crate::sockets::{Family, Sockets};
use crate::udp::Sent;

/// Datagrams per system call (`UDP_MAX_SEGMENTS` of Linux).
pub const MAX_SEGMENTS: usize = 64;

/// Bytes per system call: the largest UDP payload in an IPv4 packet.
pub const MAX_BATCH_BYTES: usize = 65_507;

/// Memory of a queue. Sixteen super-packets of 64 KB, grown by their headers, fit twice; who does not flush in between
/// has a socket that blocks, and should stop reading.
const CAPACITY: usize = 2 * 1024 * 1024;

/// Where the memory's front is used again although something still waits. The less memory datagrams pass through, the
/// more of it is in the processor's cache when the kernel copies them; moving the one open batch forward every so many
/// bytes costs next to nothing.
const HOT_BYTES: usize = 128 * 1024;

/// Bytes behind which a queue is so full that its owner should not read more: room for one more super-packet is left.
const HIGH_WATER: usize = CAPACITY - 2 * MAX_BATCH_BYTES;

/// Result of a flush: which sockets would block. Wait until these are writable, then flush again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Flushed {
    /// The IPv4 socket takes nothing now.
    pub v4_blocked: bool,
    /// The IPv6 socket takes nothing now.
    pub v6_blocked: bool,
}

impl Flushed {
    /// Whether everything left the queue.
    pub fn is_complete(self) -> bool {
        !self.v4_blocked && !self.v6_blocked
    }

    fn of(&mut self, family: Family) -> &mut bool {
        match family {
            Family::V4 => &mut self.v4_blocked,
            Family::V6 => &mut self.v6_blocked,
        }
    }
}

/// The queue. Fixed memory, one per data thread.
pub struct GsoQueue {
    /// Batches lie one behind the other, from `start` of the first to `end`.
    memory: Box<[u8]>,
    end: usize,
    batches: VecDeque<Batch>,
    reserved: Reserved,
    written: u64,
    /// Takes datagrams that do not enter the queue.
    spill: Vec<u8>,
    counters: SendCounters,
}

/// Equal datagrams, one behind the other in memory.
#[derive(Debug)]
struct Batch {
    key: Key,
    segment_size: usize,
    start: usize,
    end: usize,
    segments: usize,
    /// The last datagram is shorter, so no other may follow.
    is_sealed: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Key {
    source: Option<SocketAddr>,
    destination: SocketAddr,
    ecn: Ecn,
}

/// Where the datagram goes that is being written.
#[derive(Debug, Clone, Copy)]
enum Reserved {
    Nothing,
    /// At the end of the last batch.
    Append {
        len: usize,
    },
    /// Into a batch of its own.
    Open {
        key: Key,
        len: usize,
    },
    /// Nowhere.
    Spill {
        reason: Spill,
    },
}

#[derive(Debug, Clone, Copy)]
enum Spill {
    Full,
    Oversized,
}

impl Default for GsoQueue {
    fn default() -> Self {
        Self::new()
    }
}

impl GsoQueue {
    /// An empty queue.
    pub fn new() -> Self {
        Self {
            memory: vec![0; CAPACITY].into_boxed_slice(),
            end: 0,
            batches: VecDeque::new(),
            reserved: Reserved::Nothing,
            written: 0,
            spill: Vec::new(),
            counters: SendCounters::default(),
        }
    }

    /// Room for a datagram of at most `len` bytes from `source` (chosen by the system if absent) to `destination`. It
    /// counts for nothing before [`Self::commit`]; another call replaces it.
    ///
    /// A datagram that is too large, or for which there is no room, gets memory too but goes nowhere and is counted.
    pub fn reserve(
        &mut self,
        source: Option<SocketAddr>,
        destination: SocketAddr,
        ecn: Ecn,
        len: usize,
    ) -> &mut [u8] {
        let key = Key {
            source,
            destination,
            ecn,
        };
        self.reserved = self.place(key, len);
        match self.reserved {
            Reserved::Append { .. } | Reserved::Open { .. } => {
                &mut self.memory[self.end..self.end + len]
            }
            Reserved::Spill { .. } | Reserved::Nothing => {
                self.spill.resize(len, 0);
                &mut self.spill
            }
        }
    }

    /// The reserved datagram is complete with its first `len` bytes; 0 takes it back.
    ///
    /// # Panics
    /// If `len` exceeds what was reserved.
    pub fn commit(&mut self, len: usize) {
        match std::mem::replace(&mut self.reserved, Reserved::Nothing) {
            _ if len == 0 => {}
            Reserved::Nothing => {}
            Reserved::Append { len: reserved } => {
                assert!(len <= reserved, "committed more than was reserved");
                self.append(len);
            }
            Reserved::Open { key, len: reserved } => {
                assert!(len <= reserved, "committed more than was reserved");
                self.open(key, len);
            }
            Reserved::Spill {
                reason: Spill::Full,
            } => self.counters.queue_full += 1,
            Reserved::Spill {
                reason: Spill::Oversized,
            } => self.counters.oversized += 1,
        }
    }

    /// Copies a finished datagram into the queue.
    pub fn push(
        &mut self,
        source: Option<SocketAddr>,
        destination: SocketAddr,
        ecn: Ecn,
        payload: &[u8],
    ) {
        self.reserve(source, destination, ecn, payload.len())
            .copy_from_slice(payload);
        self.commit(payload.len());
    }

    /// Sends in order until the queue is empty or a socket would block. A family that blocks or has no socket does not
    /// hold up the other.
    pub fn flush(&mut self, sockets: &mut Sockets) -> Flushed {
        self.flush_with(self.batches.len(), send_to(sockets))
    }

    /// Like [`Self::flush`], but keeps the last batch while it may still grow. For use between reads, so that sending and
    /// reading overlap and memory stays in the cache; [`Self::flush`] follows in the end.
    pub fn flush_ready(&mut self, sockets: &mut Sockets) -> Flushed {
        self.flush_with(self.ready(), send_to(sockets))
    }

    /// Number of batches that nothing joins any more.
    fn ready(&self) -> usize {
        let is_open = self.batches.back().is_some_and(Batch::is_open);
        self.batches.len() - usize::from(is_open)
    }

    /// Sends from the first `count` batches.
    fn flush_with(
        &mut self,
        count: usize,
        mut send: impl FnMut(&Key, &[u8], usize) -> Option<Sent>,
    ) -> Flushed {
        let mut flushed = Flushed::default();
        self.reserved = Reserved::Nothing;
        for batch in self.batches.iter_mut().take(count) {
            let is_blocked = flushed.of(Family::of(batch.key.destination));
            if !*is_blocked
                && let BatchSent::Blocked = batch.send(&self.memory, &mut self.counters, &mut send)
            {
                self.counters.blocked += 1;
                *is_blocked = true;
            }
        }
        self.batches.retain(|batch| !batch.is_empty());
        match self.batches.front() {
            None => self.end = 0,
            // What a blocked socket has left behind is too much to be moved often.
            Some(first) if first.start >= HOT_BYTES && self.end - first.start <= HOT_BYTES => {
                self.compact();
            }
            Some(_) => {}
        }
        flushed
    }

    /// Datagrams that have entered the queue so far.
    pub fn written(&self) -> u64 {
        self.written
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.batches.is_empty()
    }

    /// Whether more should be written only after a flush.
    pub fn is_nearly_full(&self) -> bool {
        self.end > HIGH_WATER
    }

    /// Forgets everything that waits, e.g. because the sockets are new.
    pub fn clear(&mut self) {
        self.batches.clear();
        self.end = 0;
        self.reserved = Reserved::Nothing;
    }

    /// What was sent and lost so far.
    pub fn counters(&self) -> SendCounters {
        self.counters
    }

    fn place(&mut self, key: Key, len: usize) -> Reserved {
        if len > MAX_DATAGRAM {
            return Reserved::Spill {
                reason: Spill::Oversized,
            };
        }
        if self.end + len > self.memory.len() {
            self.compact();
        }
        if self.end + len > self.memory.len() {
            return Reserved::Spill {
                reason: Spill::Full,
            };
        }
        match self.batches.back() {
            Some(last) if last.takes(&key, len) => Reserved::Append { len },
            Some(_) | None => Reserved::Open { key, len },
        }
    }

    fn append(&mut self, len: usize) {
        let last = self
            .batches
            .back_mut()
            .expect("appending was decided with this batch at hand");
        last.segments += 1;
        last.end += len;
        last.is_sealed = len < last.segment_size;
        self.end += len;
        self.written += 1;
    }

    fn open(&mut self, key: Key, len: usize) {
        self.batches.push_back(Batch {
            key,
            segment_size: len,
            start: self.end,
            end: self.end + len,
            segments: 1,
            is_sealed: false,
        });
        self.end += len;
        self.written += 1;
    }

    /// Moves what waits to the front of the memory, in place of what was sent.
    fn compact(&mut self) {
        let mut end = 0;
        for batch in &mut self.batches {
            let len = batch.end - batch.start;
            self.memory.copy_within(batch.start..batch.end, end);
            (batch.start, batch.end) = (end, end + len);
            end += len;
        }
        self.end = end;
    }
}

/// Sends through the socket of the destination's family.
fn send_to(sockets: &mut Sockets) -> impl FnMut(&Key, &[u8], usize) -> Option<Sent> + '_ {
    |key, bytes, segment_size| {
        let socket = sockets.get_mut(Family::of(key.destination))?;
        let source = key.source.map(|source| source.ip());
        Some(socket.send(source, key.destination, key.ecn, bytes, segment_size))
    }
}

enum BatchSent {
    Done,
    Blocked,
}

impl Batch {
    fn takes(&self, key: &Key, len: usize) -> bool {
        !self.is_sealed
            && self.key == *key
            && len <= self.segment_size
            && self.segments < MAX_SEGMENTS
            && self.end - self.start + len <= MAX_BATCH_BYTES
    }

    fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Whether another datagram of the same size could join.
    fn is_open(&self) -> bool {
        self.takes(&self.key, self.segment_size)
    }

    /// Sends all of it, in as many calls as the kernel wants.
    fn send(
        &mut self,
        memory: &[u8],
        counters: &mut SendCounters,
        send: &mut impl FnMut(&Key, &[u8], usize) -> Option<Sent>,
    ) -> BatchSent {
        while !self.is_empty() {
            let bytes = &memory[self.start..self.end];
            let done = match send(&self.key, bytes, self.segment_size) {
                Some(Sent::Bytes(sent)) => {
                    counters.calls += 1;
                    counters.datagrams += self.datagrams(sent);
                    counters.bytes += sent as u64;
                    sent
                }
                Some(Sent::WouldBlock) => return BatchSent::Blocked,
                Some(Sent::Refused(refused, error)) => {
                    tracing::trace!(%error, destination = %self.key.destination, "datagrams refused");
                    *refusal(counters, &error) += self.datagrams(refused);
                    refused
                }
                None => {
                    counters.no_socket += self.datagrams(bytes.len());
                    bytes.len()
                }
            };
            self.start += done;
            // Nothing may join what is left: its last datagram need not be of the common size.
            self.is_sealed = true;
        }
        BatchSent::Done
    }

    fn datagrams(&self, bytes: usize) -> u64 {
        bytes.div_ceil(self.segment_size) as u64
    }
}

/// The counter for what the kernel said.
fn refusal<'a>(counters: &'a mut SendCounters, error: &io::Error) -> &'a mut u64 {
    /// ENOBUFS of Linux, of the BSDs, of Windows.
    const NO_BUFFERS: [i32; 3] = [105, 55, 10055];
    match error.raw_os_error() {
        _ if platform::is_too_large(error) => &mut counters.too_large,
        Some(code) if NO_BUFFERS.contains(&code) => &mut counters.no_buffers,
        Some(_) | None => &mut counters.refused,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn to(port: u16) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, 1], port))
    }

    /// (destination port, sizes of the datagrams) of all batches.
    fn layout(queue: &GsoQueue) -> Vec<(u16, Vec<usize>)> {
        let sizes = |batch: &Batch| {
            let bytes = &queue.memory[batch.start..batch.end];
            bytes.chunks(batch.segment_size).map(<[u8]>::len).collect()
        };
        let describe = |batch: &Batch| (batch.key.destination.port(), sizes(batch));
        queue.batches.iter().map(describe).collect()
    }

    fn filled(datagrams: &[(u16, usize)]) -> GsoQueue {
        let mut queue = GsoQueue::new();
        for (port, len) in datagrams {
            queue.push(None, to(*port), Ecn::NotEct, &vec![0; *len]);
        }
        queue
    }

    #[test]
    fn tunnel_81_equal_sizes_join_and_a_shorter_one_seals() {
        let queue = filled(&[(1, 100), (1, 100), (1, 60), (1, 100), (1, 60)]);
        assert_eq!(
            layout(&queue),
            [(1, vec![100, 100, 60]), (1, vec![100, 60])]
        );
    }

    #[test]
    fn tunnel_81_a_longer_one_starts_a_batch() {
        let queue = filled(&[(1, 60), (1, 100)]);
        assert_eq!(layout(&queue), [(1, vec![60]), (1, vec![100])]);
    }

    #[test]
    fn tunnel_81_other_flows_in_between_do_not_reorder() {
        let queue = filled(&[(1, 100), (2, 100), (1, 100), (1, 60), (2, 50)]);
        let expected = [
            (1, vec![100]),
            (2, vec![100]),
            (1, vec![100, 60]),
            (2, vec![50]),
        ];
        assert_eq!(layout(&queue), expected);
    }

    #[test]
    fn tunnel_81_source_and_congestion_mark_separate_batches() {
        let mut queue = GsoQueue::new();
        for (source, ecn) in [
            (None, Ecn::NotEct),
            (None, Ecn::Ce),
            (Some(to(9)), Ecn::Ce),
            (Some(to(9)), Ecn::Ce),
        ] {
            queue.push(source, to(1), ecn, &[0; 10]);
        }
        assert_eq!(
            layout(&queue),
            [(1, vec![10]), (1, vec![10]), (1, vec![10, 10])]
        );
    }

    #[test]
    fn tunnel_81_at_most_64_segments_and_65507_bytes() {
        let count = |len: usize| {
            layout(&filled(&[(1, len); 150]))
                .iter()
                .map(|(_, sizes)| sizes.len())
                .collect::<Vec<_>>()
        };
        assert_eq!(count(100), [64, 64, 22]);
        assert_eq!(count(1312), [49, 49, 49, 3]);
        assert_eq!(count(1316), [49, 49, 49, 3]);
    }

    #[test]
    fn tunnel_81_a_slot_taken_back_leaves_no_trace() {
        let mut queue = filled(&[(1, 100)]);
        queue.reserve(None, to(1), Ecn::NotEct, 40).fill(1);
        queue.commit(0);
        queue.reserve(None, to(2), Ecn::NotEct, 40).fill(1);
        queue.commit(0);
        queue.push(None, to(1), Ecn::NotEct, &[0; 100]);
        assert_eq!(layout(&queue), [(1, vec![100, 100])]);
    }

    #[test]
    fn less_may_be_committed_than_was_reserved() {
        let mut queue = GsoQueue::new();
        for len in [80, 80, 30] {
            queue.reserve(None, to(1), Ecn::NotEct, 1316);
            queue.commit(len);
        }
        assert_eq!(
            layout(&queue),
            [(1, vec![80]), (1, vec![80]), (1, vec![30])]
        );
    }

    #[test]
    fn tunnel_78_datagrams_above_1316_bytes_are_dropped_and_counted() {
        let queue = filled(&[(1, 1316), (1, 1317)]);
        assert_eq!(layout(&queue), [(1, vec![1316])]);
        assert_eq!(queue.counters().oversized, 1);
    }

    #[test]
    fn only_what_cannot_grow_is_ready() {
        let ready = |datagrams: &[(u16, usize)]| filled(datagrams).ready();
        assert_eq!(ready(&[]), 0);
        assert_eq!(ready(&[(1, 100)]), 0);
        assert_eq!(ready(&[(1, 100), (1, 60)]), 1);
        assert_eq!(ready(&[(1, 100), (2, 100)]), 1);
        assert_eq!(ready(&[(1, 1312); 48]), 0);
        assert_eq!(ready(&[(1, 1312); 49]), 1);
        assert_eq!(ready(&[(1, 100); 64]), 1);
        assert_eq!(ready(&[(1, 1312); 53]), 1);
    }

    #[test]
    fn tunnel_81_flushing_in_between_keeps_order_and_batches_and_little_memory() {
        let mut queue = GsoQueue::new();
        let (mut sent, mut calls) = (Vec::new(), Vec::new());
        for index in 0..10_000u32 {
            let mut payload = [0; 1312];
            payload[..4].copy_from_slice(&index.to_be_bytes());
            queue.push(None, to(1), Ecn::NotEct, &payload);
            let count = queue.ready();
            queue.flush_with(count, |_, bytes, size| {
                calls.push(bytes.len() / size);
                let numbers = bytes
                    .chunks(size)
                    .map(|datagram| u32::from_be_bytes(datagram[..4].try_into().unwrap()));
                sent.extend(numbers);
                Some(Sent::Bytes(bytes.len()))
            });
            assert!(queue.end <= HOT_BYTES + 2 * MAX_BATCH_BYTES);
        }
        assert!(calls.iter().all(|segments| *segments == 49));
        assert!(sent.iter().copied().eq(0..sent.len() as u32));
        assert_eq!(sent.len(), 10_000 / 49 * 49);
    }

    #[test]
    fn memory_is_bounded() {
        let queue = filled(&[(1, 1316); 3000]);
        assert!(queue.is_nearly_full());
        assert_eq!(queue.counters().queue_full as usize, 3000 - CAPACITY / 1316);
    }

    /// Sends with a fake kernel that takes `limit` segments per call and `budget` calls; returns what left.
    fn drain(queue: &mut GsoQueue, limit: usize, budget: usize) -> (Vec<(u16, usize)>, Flushed) {
        let (mut sent, mut calls) = (Vec::new(), 0);
        let count = queue.batches.len();
        let flushed = queue.flush_with(count, |key, bytes, segment_size| {
            calls += 1;
            if calls > budget {
                return Some(Sent::WouldBlock);
            }
            let taken = bytes.len().min(limit * segment_size);
            let port = key.destination.port();
            sent.extend(
                bytes[..taken]
                    .chunks(segment_size)
                    .map(|datagram| (port, datagram.len())),
            );
            Some(Sent::Bytes(taken))
        });
        (sent, flushed)
    }

    // tunnel 80: blocked again and again, sealed by short segments, and nothing overtakes.
    #[test]
    fn tunnel_81_a_blocked_socket_loses_nothing() {
        let written = [(1, 100), (1, 100), (1, 60), (2, 10), (1, 100), (1, 50)];
        let mut queue = filled(&written);
        let (mut sent, mut rounds) = (Vec::new(), 0);
        while !queue.is_empty() {
            let (some, flushed) = drain(&mut queue, 2, 1);
            sent.extend(some);
            assert_eq!(flushed.is_complete(), queue.is_empty());
            rounds += 1;
        }
        assert_eq!((sent, rounds), (written.to_vec(), 4));
    }

    #[test]
    fn what_is_left_of_a_batch_is_not_joined() {
        let mut queue = filled(&[(1, 100), (1, 100), (1, 100)]);
        drain(&mut queue, 1, 1);
        queue.push(None, to(1), Ecn::NotEct, &[0; 100]);
        assert_eq!(layout(&queue), [(1, vec![100, 100]), (1, vec![100])]);
    }

    #[test]
    fn a_full_queue_makes_room_by_moving_what_waits() {
        let mut queue = filled(&[(1, 1316); 3000]);
        let lost = queue.counters().queue_full;
        drain(&mut queue, 64, 20);
        queue.push(None, to(2), Ecn::NotEct, &[9; 1000]);
        assert_eq!(queue.counters().queue_full, lost);
        let (sent, _) = drain(&mut queue, 64, 1000);
        assert_eq!(
            (sent.len(), sent.last()),
            (3000 - lost as usize - 20 * 49 + 1, Some(&(2, 1000)))
        );
    }

    #[test]
    fn tunnel_84_refused_and_homeless_datagrams_do_not_stop_the_others() {
        let mut queue = filled(&[(1, 10), (2, 20), (3, 30), (4, 40)]);
        let mut sent = Vec::new();
        let count = queue.batches.len();
        let flushed = queue.flush_with(count, |key, bytes, _| match key.destination.port() {
            1 => Some(Sent::Refused(
                bytes.len(),
                io::Error::from_raw_os_error(105),
            )),
            2 => None,
            3 => Some(Sent::Refused(bytes.len(), io::Error::other("no route"))),
            port => {
                sent.push(port);
                Some(Sent::Bytes(bytes.len()))
            }
        });
        let counters = queue.counters();
        assert_eq!(
            (
                counters.no_buffers,
                counters.no_socket,
                counters.refused,
                counters.datagrams
            ),
            (1, 1, 1, 1)
        );
        assert_eq!(
            (sent, flushed.is_complete(), queue.is_empty()),
            (vec![4], true, true)
        );
    }

    #[test]
    fn tunnel_84_a_blocked_family_does_not_hold_up_the_other() {
        let mut queue = filled(&[(1, 10)]);
        let v6 = SocketAddr::from(([0, 0, 0, 0, 0, 0, 0, 1], 6));
        queue.push(None, v6, Ecn::NotEct, &[0; 10]);
        let count = queue.batches.len();
        let flushed = queue.flush_with(count, |key, bytes, _| match Family::of(key.destination) {
            Family::V4 => Some(Sent::WouldBlock),
            Family::V6 => Some(Sent::Bytes(bytes.len())),
        });
        assert_eq!((flushed.v4_blocked, flushed.v6_blocked), (true, false));
        assert_eq!(layout(&queue), [(1, vec![10])]);
    }

    proptest! {
        /// However the kernel blocks and splits, everything leaves once and in order.
        #[test]
        fn flushing_keeps_every_datagram_and_their_order(
            datagrams in prop::collection::vec((1u16..4, 1usize..1316), 0..200),
            steps in prop::collection::vec((1usize..65, 0usize..5), 1..200),
        ) {
            let mut queue = GsoQueue::new();
            let (mut sent, mut steps) = (Vec::new(), steps.into_iter());
            for (port, len) in &datagrams {
                queue.push(None, to(*port), Ecn::NotEct, &vec![0; *len]);
                if let Some((limit, budget)) = steps.next() {
                    sent.extend(drain(&mut queue, limit, budget).0);
                }
            }
            sent.extend(drain(&mut queue, 64, usize::MAX).0);
            prop_assert_eq!(sent, datagrams);
        }

        /// Every batch obeys the limits, and reading the batches in order gives back what was written.
        #[test]
        fn batches_hold_the_limits_and_the_order(datagrams in prop::collection::vec((1u16..4, 1usize..1316), 0..400)) {
            let mut queue = GsoQueue::new();
            for (number, (port, len)) in datagrams.iter().enumerate() {
                let slot = queue.reserve(None, to(*port), Ecn::NotEct, *len);
                slot.fill(number as u8);
                queue.commit(*len);
            }
            let mut read = Vec::new();
            for batch in &queue.batches {
                let bytes = &queue.memory[batch.start..batch.end];
                prop_assert!(bytes.len() <= MAX_BATCH_BYTES && batch.segments <= MAX_SEGMENTS);
                for datagram in bytes.chunks(batch.segment_size) {
                    prop_assert!(datagram.iter().all(|byte| *byte == datagram[0]));
                    prop_assert_eq!(datagram[0], read.len() as u8);
                    read.push((batch.key.destination.port(), datagram.len()));
                }
            }
            prop_assert_eq!(read, datagrams);
        }
    }
}
