//! Coalescing: packets of a flow, opened one behind the other, become one super-packet for the TUN device.
//!
//! # In place
//!
//! The plaintext of a datagram is header plus payload, and only the payload belongs behind the super-packet that is
//! being built. [`Coalescer::slot`] therefore guesses that the next packet extends the most recent open item, saves as
//! many of its last bytes as that flow's headers are long, and hands out the space from there: when the guess is right,
//! the new payload lands exactly behind the old one, and putting the saved bytes back over the new header completes the
//! merge. When it is wrong the packet is copied to where it belongs (at most 1280 bytes).
//!
//! # What is merged
//!
//! Only what the receiving stack could not tell from its parts (tunnel spec §7.4): plain data segments of one
//! connection, equal in every header field that matters, contiguous, of equal size with at most one shorter last, with
//! *verified* checksums: the kernel does not check what is written to it with "needs checksum", so merging unverified
//! packets would hide corruption. Everything else passes as it is. Items leave in the order of their first packet, and a
//! packet only ever joins the most recent item of its connection, so the order within a connection is kept.

use std::fmt;

use super::headers::{self, Transport, TransportKind};
use super::{ChecksumState, GsoKind, GsoMeta};

/// Items between two drains. A receive batch rarely carries more flows; when it does, the caller drains in between.
const MAX_ITEMS: usize = 128;

/// Items that can still grow. Interleaved flows beyond this number are merged less.
const MAX_OPEN: usize = 8;

/// Largest super-packet (bytes): the length field of IPv4.
const MAX_SUPER_LEN: usize = u16::MAX as usize;

/// Most datagrams in one UDP super-packet (the kernel's `UDP_MAX_SEGMENTS`).
const MAX_UDP_SEGMENTS: u16 = 128;

/// Space handed out for one datagram (bytes): a decrypted packet needs less than its datagram.
const SLOT_LEN: usize = connlib_snownet::MAX_DATAGRAM_SIZE;

/// Distance between items (bytes): a full super-packet and one slot, rounded up to an odd number of cache lines so that
/// the starts of items do not compete for the same cache sets.
const STRIDE: usize = {
    let lines = (MAX_SUPER_LEN + SLOT_LEN).div_ceil(64);
    (lines | 1) * 64
};

/// Which protocols the TUN device takes as super-packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Coalescing {
    /// TCP super-packets (TSO) may be written.
    pub tcp: bool,
    /// UDP super-packets (USO) may be written.
    pub udp: bool,
}

impl Coalescing {
    /// Every packet is written by itself.
    pub const OFF: Self = Self {
        tcp: false,
        udp: false,
    };
    /// Everything that can be merged is.
    pub const ON: Self = Self {
        tcp: true,
        udp: true,
    };

    fn permits(self, kind: TransportKind) -> bool {
        match kind {
            TransportKind::Tcp => self.tcp,
            TransportKind::Udp => self.udp,
        }
    }
}

/// What became of a committed packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Commit {
    /// It begins a new item.
    New,
    /// It extends an item.
    Merged,
    /// There was no item left; the packet is lost. See [`Coalescer::is_full`].
    Dropped,
}

/// Collects packets for the TUN device and merges them into super-packets.
///
/// Memory is allocated once and only touched as far as it is used.
pub struct Coalescer {
    /// `MAX_ITEMS` items and one spare, each `STRIDE` bytes.
    storage: Vec<u8>,
    items: Vec<Item>,
    /// Indices of items that can grow, most recently used last.
    open: Vec<usize>,
    saved: [u8; headers::MAX_PLAIN_LEN],
    coalescing: Coalescing,
}

/// A packet or super-packet under construction; its bytes are `storage[index * STRIDE..][..len]`.
#[derive(Debug, Clone, Copy)]
struct Item {
    len: usize,
    packets: u16,
    /// Of the first packet; `None` if that can never be extended.
    transport: Option<Transport>,
    push: bool,
}

/// Where the slot lies that is currently handed out.
#[derive(Debug, Clone, Copy)]
enum Place {
    /// At the start of an unused item.
    Fresh,
    /// In item `index`, so that the payload lands at its end.
    Behind { index: usize, saved: usize },
}

impl fmt::Debug for Coalescer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Coalescer")
            .field("items", &self.items.len())
            .field("coalescing", &self.coalescing)
            .finish_non_exhaustive()
    }
}

impl Coalescer {
    /// An empty coalescer for a device with the given abilities.
    pub fn new(coalescing: Coalescing) -> Self {
        Self {
            storage: vec![0; (MAX_ITEMS + 1) * STRIDE],
            items: Vec::with_capacity(MAX_ITEMS),
            open: Vec::with_capacity(MAX_OPEN),
            saved: [0; headers::MAX_PLAIN_LEN],
            coalescing,
        }
    }

    /// Changes what is merged from now on, for example after the kernel refused a super-packet.
    pub fn set_coalescing(&mut self, coalescing: Coalescing) {
        self.coalescing = coalescing;
        self.open.clear();
    }

    /// Whether nothing is waiting to be drained.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Number of packets and super-packets waiting.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether the next packet may find no place. The caller drains before it goes on.
    pub fn is_full(&self) -> bool {
        self.items.len() == MAX_ITEMS
    }

    /// Space for the plaintext of one datagram. Dropping the slot without [`Slot::commit`] leaves no trace.
    pub fn slot(&mut self) -> Slot<'_> {
        let place = self.guess();
        if let Place::Behind { index, saved } = place {
            let end = index * STRIDE + self.items[index].len;
            self.saved[..saved].copy_from_slice(&self.storage[end - saved..end]);
        }
        Slot {
            coalescer: self,
            place,
        }
    }

    /// Adds a packet that was made elsewhere.
    pub fn push(&mut self, packet: &[u8]) -> Commit {
        let mut slot = self.slot();
        let Some(space) = slot.buffer().get_mut(..packet.len()) else {
            return Commit::Dropped;
        };
        space.copy_from_slice(packet);
        slot.commit(packet.len())
    }

    /// Takes everything out, in order: packets and finished super-packets with what the device must be told.
    pub fn drain(&mut self) -> impl Iterator<Item = (GsoMeta, &mut [u8])> {
        self.open.clear();
        self.storage
            .chunks_exact_mut(STRIDE)
            .zip(self.items.drain(..))
            .map(|(chunk, item)| {
                let packet = &mut chunk[..item.len];
                (item.finish(packet), packet)
            })
    }

    /// The next packet most probably extends the item that was extended last.
    fn guess(&self) -> Place {
        let Some(&index) = self.open.last() else {
            return Place::Fresh;
        };
        let item = &self.items[index];
        match item.transport {
            // The item's own header must stay readable for the comparison.
            Some(transport) if item.len >= 2 * transport.header_len => Place::Behind {
                index,
                saved: transport.header_len,
            },
            Some(_) | None => Place::Fresh,
        }
    }

    fn slot_start(&self, place: Place) -> usize {
        match place {
            Place::Fresh => self.items.len() * STRIDE,
            Place::Behind { index, saved } => index * STRIDE + self.items[index].len - saved,
        }
    }

    fn commit(&mut self, place: Place, len: usize) -> Commit {
        let start = self.slot_start(place);
        let packet = &self.storage[start..start + len];
        let connection = Transport::parse(packet);
        let position = connection.and_then(|new| self.position_of_connection(packet, new));
        let candidate = connection
            .filter(|new| self.coalescing.permits(new.kind) && new.is_plain(packet))
            .filter(|new| headers::checksums_are_right(packet, *new));

        if let (Some(position), Some(new)) = (position, candidate)
            && self.continues(self.open[position], start, new)
        {
            self.extend(position, place, start, new);
            return Commit::Merged;
        }
        // Whatever follows on this connection must not overtake this packet.
        if let Some(position) = position {
            self.open.remove(position);
        }
        self.begin(place, start, len, candidate)
    }

    /// The open item of the packet's connection, as an index into `open`.
    fn position_of_connection(&self, packet: &[u8], new: Transport) -> Option<usize> {
        self.open.iter().rposition(|&index| {
            let first = &self.storage[index * STRIDE..][..self.items[index].len];
            self.items[index]
                .transport
                .is_some_and(|old| headers::same_connection(first, old, packet, new))
        })
    }

    /// Whether the packet at `start` may be put behind item `index`, whose connection it belongs to.
    fn continues(&self, index: usize, start: usize, new: Transport) -> bool {
        let item = &self.items[index];
        let Some(old) = item.transport else {
            return false;
        };
        let first = &self.storage[index * STRIDE..][..old.header_len];
        let header = &self.storage[start..start + new.header_len];
        let payload_so_far = item.len - old.header_len;
        new.payload_len <= old.payload_len
            && item.len + new.payload_len <= MAX_SUPER_LEN
            && (new.kind == TransportKind::Tcp || item.packets < MAX_UDP_SEGMENTS)
            && headers::can_share_header(first, old, header, new, payload_so_far)
    }

    /// Puts the payload of the packet at `start` behind the item at `open[position]`.
    fn extend(&mut self, position: usize, place: Place, start: usize, new: Transport) {
        let index = self.open.remove(position);
        let end = index * STRIDE + self.items[index].len;
        let payload = start + new.header_len;
        let push = new.has_push(&self.storage[start..]);
        if payload != end {
            self.storage
                .copy_within(payload..payload + new.payload_len, end);
        }
        self.restore(place);

        let item = &mut self.items[index];
        item.len += new.payload_len;
        item.packets += 1;
        item.push |= push;
        let is_last = push
            || item
                .transport
                .is_some_and(|old| new.payload_len < old.payload_len);
        if !is_last {
            self.open.push(index);
        }
    }

    /// Makes the packet at `start` an item of its own.
    fn begin(
        &mut self,
        place: Place,
        start: usize,
        len: usize,
        candidate: Option<Transport>,
    ) -> Commit {
        if self.is_full() {
            self.restore(place);
            return Commit::Dropped;
        }
        let index = self.items.len();
        if start != index * STRIDE {
            self.storage.copy_within(start..start + len, index * STRIDE);
        }
        self.restore(place);

        let push = candidate.is_some_and(|new| new.has_push(&self.storage[index * STRIDE..]));
        self.items.push(Item {
            len,
            packets: 1,
            transport: candidate,
            push,
        });
        if candidate.is_some() && !push {
            if self.open.len() == MAX_OPEN {
                self.open.remove(0);
            }
            self.open.push(index);
        }
        Commit::New
    }

    /// Undoes what handing out the slot did to the item in front of it.
    fn restore(&mut self, place: Place) {
        if let Place::Behind { index, saved } = place {
            let end = index * STRIDE + self.items[index].len;
            self.storage[end - saved..end].copy_from_slice(&self.saved[..saved]);
        }
    }
}

impl Item {
    /// Completes the header of a super-packet.
    fn finish(&self, packet: &mut [u8]) -> GsoMeta {
        let Some(transport) = self.transport.filter(|_| self.packets > 1) else {
            return GsoMeta::NONE;
        };
        headers::finish_super_packet(packet, transport, self.push);
        let kind = match transport.kind {
            TransportKind::Tcp => GsoKind::Tcp,
            TransportKind::Udp => GsoKind::Udp,
        };
        GsoMeta {
            kind,
            segment_size: u16::try_from(transport.payload_len)
                .expect("a packet is at most 1280 bytes"),
            checksum: ChecksumState::Partial {
                start: u16::try_from(transport.ip_len)
                    .expect("an IP header is at most 40 bytes here"),
                offset: transport.kind.checksum_offset(),
            },
        }
    }
}

/// Space for one packet. See [`Coalescer::slot`].
#[derive(Debug)]
pub struct Slot<'a> {
    coalescer: &'a mut Coalescer,
    place: Place,
}

impl Slot<'_> {
    /// The space: [`MAX_DATAGRAM_SIZE`](connlib_snownet::MAX_DATAGRAM_SIZE) bytes of undefined content.
    pub fn buffer(&mut self) -> &mut [u8] {
        let start = self.coalescer.slot_start(self.place);
        &mut self.coalescer.storage[start..start + SLOT_LEN]
    }

    /// Keeps the first `len` bytes of the space, which must be one valid IP packet.
    pub fn commit(mut self, len: usize) -> Commit {
        let place = std::mem::replace(&mut self.place, Place::Fresh);
        if len == 0 || len > SLOT_LEN {
            self.coalescer.restore(place);
            return Commit::Dropped;
        }
        self.coalescer.commit(place, len)
    }
}

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        self.coalescer.restore(self.place);
    }
}

#[cfg(test)]
mod tests {
    use ip_packet::make::TcpHeader;
    use ip_packet::{IpPacket, TcpFlags};
    use proptest::prelude::*;

    use super::super::testing::{ACK, Flow, drained, pattern, split, with_bytes, with_id};
    use super::*;

    fn coalescer() -> Coalescer {
        Coalescer::new(Coalescing::ON)
    }

    fn push_all(coalescer: &mut Coalescer, packets: &[IpPacket]) -> Vec<Commit> {
        packets
            .iter()
            .map(|packet| coalescer.push(packet.as_slice()))
            .collect()
    }

    /// `count` contiguous segments of `size` bytes.
    fn segments(flow: Flow, count: u32, size: usize) -> Vec<IpPacket> {
        (0..count)
            .map(|i| {
                with_id(
                    flow.tcp(i * size as u32, ACK, &vec![i as u8; size]),
                    i as u16,
                )
            })
            .collect()
    }

    fn merges(first: &IpPacket, second: &IpPacket) -> bool {
        let mut coalescer = coalescer();
        coalescer.push(first.as_slice());
        let commit = coalescer.push(second.as_slice());
        let out = drained(&mut coalescer);
        if commit == Commit::New {
            // What is not merged is not touched either.
            assert_eq!(out[0].1, first.as_slice());
            assert_eq!(out[1].1, second.as_slice());
        }
        commit == Commit::Merged
    }

    // tunnel 83
    #[test]
    fn tunnel_83_contiguous_segments_become_one_super_packet() {
        for flow in [Flow::v4(1), Flow::v6(1)] {
            let packets = segments(flow, 40, 1200);
            let mut coalescer = coalescer();
            let commits = push_all(&mut coalescer, &packets);
            assert_eq!(commits[0], Commit::New);
            assert!(commits[1..].iter().all(|commit| *commit == Commit::Merged));

            let out = drained(&mut coalescer);
            assert_eq!(out.len(), 1);
            let (gso, bytes) = &out[0];
            assert_eq!((gso.kind, gso.segment_size), (GsoKind::Tcp, 1200));
            let expected: Vec<_> = packets
                .iter()
                .map(|packet| packet.as_slice().to_vec())
                .collect();
            assert_eq!(split(bytes, *gso), expected);
            assert!(coalescer.is_empty());
        }
    }

    // tunnel 83
    #[test]
    fn tunnel_83_datagrams_become_one_super_packet() {
        let packets: Vec<_> = (0..3u16)
            .map(|i| {
                with_id(
                    Flow::v4(1).udp(&vec![i as u8 + 1; if i == 2 { 7 } else { 900 }]),
                    i,
                )
            })
            .collect();
        let mut coalescer = coalescer();
        push_all(&mut coalescer, &packets);
        let out = drained(&mut coalescer);
        assert_eq!(out.len(), 1);
        assert_eq!((out[0].0.kind, out[0].0.segment_size), (GsoKind::Udp, 900));
        let expected: Vec<_> = packets
            .iter()
            .map(|packet| packet.as_slice().to_vec())
            .collect();
        assert_eq!(split(&out[0].1, out[0].0), expected);
    }

    // tunnel 83
    #[test]
    fn tunnel_83_only_equal_headers_merge() {
        let header = |sequence| TcpHeader {
            sequence,
            acknowledgement: 7,
            flags: ACK,
            window: 10,
            options: &[1, 1, 1, 1],
        };
        let data = pattern(100);
        for flow in [Flow::v4(1), Flow::v6(1)] {
            let first = flow.tcp_with(header(0), &data);
            let next = |header: TcpHeader<'_>| flow.tcp_with(header, &data);
            let good = next(header(100));
            assert!(merges(&first, &good));
            assert!(merges(
                &first,
                &next(TcpHeader {
                    window: 99,
                    ..header(100)
                })
            ));
            assert!(merges(
                &first,
                &next(TcpHeader {
                    flags: ACK | TcpFlags::PSH,
                    ..header(100)
                })
            ));

            let refused = [
                ("gap", next(header(101))),
                ("overlap", next(header(99))),
                (
                    "acknowledgement",
                    next(TcpHeader {
                        acknowledgement: 8,
                        ..header(100)
                    }),
                ),
                (
                    "options",
                    next(TcpHeader {
                        options: &[1, 1, 1, 0],
                        ..header(100)
                    }),
                ),
                (
                    "longer options",
                    next(TcpHeader {
                        options: &[1; 8],
                        ..header(100)
                    }),
                ),
                (
                    "no options",
                    next(TcpHeader {
                        options: &[],
                        ..header(100)
                    }),
                ),
                (
                    "FIN",
                    next(TcpHeader {
                        flags: ACK | TcpFlags::FIN,
                        ..header(100)
                    }),
                ),
                (
                    "SYN",
                    next(TcpHeader {
                        flags: ACK | TcpFlags::SYN,
                        ..header(100)
                    }),
                ),
                (
                    "RST",
                    next(TcpHeader {
                        flags: ACK | TcpFlags::RST,
                        ..header(100)
                    }),
                ),
                (
                    "URG",
                    next(TcpHeader {
                        flags: ACK | TcpFlags::URG,
                        ..header(100)
                    }),
                ),
                (
                    "ECE",
                    next(TcpHeader {
                        flags: ACK | TcpFlags::ECE,
                        ..header(100)
                    }),
                ),
                (
                    "CWR",
                    next(TcpHeader {
                        flags: ACK | TcpFlags::CWR,
                        ..header(100)
                    }),
                ),
                (
                    "no ACK",
                    next(TcpHeader {
                        flags: TcpFlags::NONE,
                        ..header(100)
                    }),
                ),
                ("empty", flow.tcp_with(header(100), &[])),
                ("longer", flow.tcp_with(header(100), &pattern(101))),
                (
                    "other port",
                    Flow {
                        to: (flow.to.ip(), 81).into(),
                        ..flow
                    }
                    .tcp_with(header(100), &data),
                ),
                ("UDP", flow.udp(&data)),
                (
                    "traffic class",
                    with_bytes(good.clone(), |bytes| bytes[1] ^= 0x10),
                ),
                (
                    "TTL",
                    with_bytes(good.clone(), |bytes| {
                        bytes[if bytes[0] >> 4 == 4 { 8 } else { 7 }] -= 1
                    }),
                ),
            ];
            for (what, packet) in refused {
                assert!(!merges(&first, &packet), "{what}");
            }
        }
        let first = Flow::v4(1).tcp_with(header(0), &data);
        let dont_fragment = with_bytes(Flow::v4(1).tcp_with(header(100), &data), |bytes| {
            bytes[6] ^= 0x40
        });
        assert!(!merges(&first, &dont_fragment));
        let flow_label = with_bytes(Flow::v6(1).tcp_with(header(100), &data), |bytes| {
            bytes[3] = 9
        });
        assert!(merges(&Flow::v6(1).tcp_with(header(0), &data), &flow_label));
    }

    #[test]
    fn wrong_checksums_are_passed_on_unmerged() {
        let [first, second] = &segments(Flow::v4(1), 2, 500)[..] else {
            unreachable!()
        };
        let damaged = |packet: &IpPacket, at: usize| {
            let mut bytes = packet.as_slice().to_vec();
            bytes[at] ^= 1;
            IpPacket::from_slice(&bytes).unwrap()
        };
        assert!(merges(first, second));
        // The last payload byte; the IPv4 header's checksum.
        for at in [539, 10] {
            assert!(!merges(first, &damaged(second, at)));
            assert!(!merges(&damaged(first, at), second));
        }
        let absent = with_bytes(Flow::v4(1).udp(b"abc"), |_| {});
        let mut bytes = absent.as_slice().to_vec();
        bytes[26..28].fill(0);
        let absent = IpPacket::from_slice(&bytes).unwrap();
        assert!(!merges(&absent, &absent));
    }

    #[test]
    fn shorter_segment_and_push_end_a_super_packet() {
        let flow = Flow::v4(1);
        for (second, len) in [
            (flow.tcp(100, ACK, &[2; 99]), 99),
            (flow.tcp(100, ACK | TcpFlags::PSH, &[2; 100]), 100),
        ] {
            let mut coalescer = coalescer();
            let packets = [
                flow.tcp(0, ACK, &[1; 100]),
                second,
                flow.tcp(100 + len, ACK, &[3; 50]),
            ];
            let commits = push_all(&mut coalescer, &packets);
            assert_eq!(commits, [Commit::New, Commit::Merged, Commit::New]);
        }
        let pushed = flow.tcp(0, ACK | TcpFlags::PSH, &[1; 100]);
        assert!(!merges(&pushed, &flow.tcp(100, ACK, &[2; 100])));
    }

    // tunnel 80
    #[test]
    fn tunnel_80_nothing_overtakes_within_a_connection() {
        let flow = Flow::v4(1);
        let packets = [
            flow.tcp(0, ACK, &[1; 100]),
            flow.tcp(100, ACK, &[]),
            flow.tcp(100, ACK, &[2; 100]),
        ];
        let mut coalescer = coalescer();
        let commits = push_all(&mut coalescer, &packets);
        assert_eq!(commits, [Commit::New; 3]);
    }

    #[test]
    fn interleaved_flows_are_merged_each() {
        let flows = [Flow::v4(1), Flow::v6(2), Flow::v4(3)];
        let mut coalescer = coalescer();
        for i in 0..10u32 {
            for flow in flows {
                coalescer.push(flow.tcp(i * 1000, ACK, &[i as u8; 1000]).as_slice());
            }
        }
        let out = drained(&mut coalescer);
        assert_eq!(out.len(), 3);
        assert!(
            out.iter()
                .all(|(gso, bytes)| split(bytes, *gso).len() == 10)
        );
    }

    #[test]
    fn dropped_slot_leaves_no_trace() {
        let packets = segments(Flow::v4(1), 3, 700);
        let mut coalescer = coalescer();
        for packet in &packets {
            coalescer.push(packet.as_slice());
            let mut slot = coalescer.slot();
            slot.buffer().fill(0xee);
        }
        let out = drained(&mut coalescer);
        assert_eq!(out.len(), 1);
        let expected: Vec<_> = packets
            .iter()
            .map(|packet| packet.as_slice().to_vec())
            .collect();
        assert_eq!(split(&out[0].1, out[0].0), expected);
    }

    #[test]
    fn super_packets_do_not_exceed_64_kb() {
        let mut coalescer = coalescer();
        push_all(&mut coalescer, &segments(Flow::v6(1), 120, 1220));
        let out = drained(&mut coalescer);
        assert_eq!(out.len(), 3);
        assert!(out.iter().all(|(_, bytes)| bytes.len() <= 65_535));
        assert_eq!(out[0].1.len(), 60 + 53 * 1220);
    }

    #[test]
    fn udp_super_packets_have_at_most_128_datagrams() {
        let mut coalescer = coalescer();
        for _ in 0..130 {
            coalescer.push(Flow::v4(1).udp(&[1; 10]).as_slice());
        }
        let counts: Vec<_> = drained(&mut coalescer)
            .iter()
            .map(|(gso, bytes)| split(bytes, *gso).len())
            .collect();
        assert_eq!(counts, [128, 2]);
    }

    #[test]
    fn full_coalescer_says_so_and_recovers() {
        let mut coalescer = coalescer();
        let packet = Flow::v4(1).tcp(0, ACK, &[]);
        for _ in 0..MAX_ITEMS {
            assert_eq!(coalescer.push(packet.as_slice()), Commit::New);
        }
        assert!(coalescer.is_full());
        assert_eq!(coalescer.push(packet.as_slice()), Commit::Dropped);
        assert_eq!(drained(&mut coalescer).len(), MAX_ITEMS);
        assert_eq!(coalescer.push(packet.as_slice()), Commit::New);
    }

    #[test]
    fn device_without_offload_gets_every_packet_by_itself() {
        let packets = segments(Flow::v4(1), 3, 700);
        let mut coalescer = Coalescer::new(Coalescing::OFF);
        push_all(&mut coalescer, &packets);
        let out = drained(&mut coalescer);
        assert_eq!(out.len(), 3);
        assert!(out.iter().all(|(gso, _)| *gso == GsoMeta::NONE));

        coalescer.set_coalescing(Coalescing {
            tcp: false,
            udp: true,
        });
        push_all(&mut coalescer, &packets);
        assert_eq!(drained(&mut coalescer).len(), 3);
    }

    #[derive(Debug, Clone)]
    struct Step {
        flow: u16,
        kind: u8,
        size: usize,
        push: bool,
        skip: bool,
    }

    fn any_step() -> impl Strategy<Value = Step> {
        let size = prop_oneof![4 => Just(300usize), 1 => 1usize..300, 1 => Just(5usize), 1 => Just(1200usize)];
        (
            0u16..11,
            0u8..12,
            size,
            proptest::bool::weighted(0.1),
            proptest::bool::weighted(0.1),
        )
            .prop_map(|(flow, kind, size, push, skip)| Step {
                flow,
                kind,
                size,
                push,
                skip,
            })
    }

    /// Plays a stream per flow and returns the packets in order.
    fn play(steps: &[Step]) -> Vec<(u16, IpPacket)> {
        let mut sequences = [0u32; 11];
        let mut ids = [0u16; 11];
        steps
            .iter()
            .map(|step| {
                let index = usize::from(step.flow);
                let flow = if step.flow % 2 == 0 {
                    Flow::v4(step.flow)
                } else {
                    Flow::v6(step.flow)
                };
                let payload = pattern(step.size);
                let flags = if step.push { ACK | TcpFlags::PSH } else { ACK };
                let packet = match step.kind {
                    _ if step.flow > 8 => flow.udp(&payload),
                    0 => flow.tcp(sequences[index], ACK, &[]),
                    1 => flow.tcp(sequences[index], ACK | TcpFlags::FIN, &payload),
                    _ => flow.tcp(sequences[index], flags, &payload),
                };
                if step.kind > 0 && step.flow <= 8 {
                    sequences[index] =
                        sequences[index].wrapping_add(step.size as u32 + u32::from(step.skip));
                }
                ids[index] += 1;
                (step.flow, with_id(packet, ids[index]))
            })
            .collect()
    }

    proptest! {
        // tunnel 80, 83
        #[test]
        fn splitting_what_was_coalesced_gives_every_flow_back(
            steps in proptest::collection::vec(any_step(), 0..120),
        ) {
            let packets = play(&steps);
            let mut coalescer = coalescer();
            for (_, packet) in &packets {
                prop_assert_ne!(coalescer.push(packet.as_slice()), Commit::Dropped);
            }
            let out: Vec<_> = drained(&mut coalescer)
                .iter()
                .flat_map(|(gso, bytes)| split(bytes, *gso))
                .map(|bytes| IpPacket::from_slice(&bytes).unwrap())
                .collect();
            for flow in 0..11u16 {
                let port = |packet: &IpPacket| packet.source_protocol().unwrap().value();
                let sent: Vec<_> = packets.iter().filter(|(f, _)| *f == flow).map(|(_, p)| p.as_slice()).collect();
                let received: Vec<_> = out.iter().filter(|p| port(p) == flow).map(IpPacket::as_slice).collect();
                prop_assert_eq!(sent, received);
            }
        }

        #[test]
        fn garbage_never_panics(
            packets in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..1400), 0..20),
        ) {
            let mut coalescer = coalescer();
            for packet in &packets {
                coalescer.push(packet);
            }
            let kept = packets.iter().filter(|packet| (1..=SLOT_LEN).contains(&packet.len())).count();
            prop_assert_eq!(drained(&mut coalescer).len(), kept);
        }

        #[test]
        fn damaged_packets_never_panic(
            at in 0usize..60, byte: u8, v6: bool, cut in 0usize..140,
        ) {
            let flow = if v6 { Flow::v6(1) } else { Flow::v4(1) };
            let mut coalescer = coalescer();
            coalescer.push(flow.tcp(0, ACK, &pattern(80)).as_slice());
            let mut bytes = flow.tcp(80, ACK, &pattern(80)).as_slice().to_vec();
            bytes[at] = byte;
            bytes.truncate(cut.max(1));
            coalescer.push(&bytes);
            let out = drained(&mut coalescer);
            prop_assert!(!out.is_empty());
        }
    }
}
