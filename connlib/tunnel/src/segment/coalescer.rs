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
//!
//! # One decision per super-packet
//!
//! Whoever decides about packets decides about the first of an item and leaves a [`FlowTag`] with it: whose packet it was,
//! and up to when the decision holds. [`Slot::try_continue`] merges a packet of the same stream under an equal tag before
//! anybody has looked at it; its headers, translated or not, would be thrown away anyway.

use std::fmt;

use ip_packet::Ecn;

use super::headers::{self, Template, Transport, TransportKind};
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

/// What a decision about a packet rests on besides the packet's own headers. Under equal tags, packets with headers that
/// may share an item have the same decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FlowTag {
    /// Who sent it.
    pub(crate) peer: u128,
    /// Changes whenever anything changes that decisions depend on, time included.
    pub(crate) epoch: u64,
    /// Mark of the datagram that carried it.
    pub(crate) ecn: Ecn,
}

/// Headers and tag of a packet before it is changed; see [`Slot::stream`].
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stream {
    template: Template,
    tag: FlowTag,
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
    /// How a packet that needs no decision of its own is recognised.
    stream: Option<Stream>,
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
        let place = self.claim();
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

    /// Makes room where the next packet probably belongs.
    #[inline]
    fn claim(&mut self) -> Place {
        let place = self.guess();
        if let Place::Behind { index, saved } = place {
            let end = index * STRIDE + self.items[index].len;
            self.saved[..saved].copy_from_slice(&self.storage[end - saved..end]);
        }
        place
    }

    /// The next packet most probably extends the item that was extended last.
    #[inline]
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

    /// See [`Slot::try_continue`].
    #[inline]
    fn try_continue(&mut self, place: Place, len: usize, tag: FlowTag) -> bool {
        let Place::Behind { index, saved } = place else {
            return false;
        };
        let item = &self.items[index];
        let Some(stream) = item.stream.as_ref().filter(|stream| stream.tag == tag) else {
            return false;
        };
        let Some(first) = item.transport else {
            return false;
        };
        let start = index * STRIDE + item.len - saved;
        let packet = &self.storage[start..start + len];
        let Some(next) = stream.template.next(packet, item.len - first.header_len) else {
            return false;
        };
        if !item.has_room(first, next) || !headers::checksums_are_right(packet, next) {
            return false;
        }
        // The guess was right: the item is the last open one, and the payload lies at its end.
        self.extend(self.open.len() - 1, place, start, next);
        true
    }

    /// See [`Slot::stream`].
    fn stream(&self, place: Place, len: usize, tag: FlowTag) -> Option<Stream> {
        let start = self.slot_start(place);
        let packet = &self.storage[start..start + len];
        let at = Transport::parse(packet)?;
        let is_candidate = self.coalescing.permits(at.kind) && at.is_plain(packet);
        is_candidate.then(|| Stream {
            template: Template::of(packet, at),
            tag,
        })
    }

    fn commit(&mut self, place: Place, len: usize, stream: Option<Stream>) -> Commit {
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
        self.begin(place, start, len, candidate, stream)
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
        item.has_room(old, new)
            && headers::can_share_header(first, old, header, new, payload_so_far)
    }

    /// Puts the payload of the packet at `start` behind the item at `open[position]`.
    fn extend(&mut self, position: usize, place: Place, start: usize, new: Transport) {
        let index = self.open[position];
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
        if is_last {
            self.open.remove(position);
        } else if position + 1 < self.open.len() {
            self.open[position..].rotate_left(1);
        }
    }

    /// Makes the packet at `start` an item of its own.
    fn begin(
        &mut self,
        place: Place,
        start: usize,
        len: usize,
        candidate: Option<Transport>,
        stream: Option<Stream>,
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
            stream,
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
    /// Whether a packet may be added without making the item too large, `old` being its first.
    fn has_room(&self, old: Transport, new: Transport) -> bool {
        new.payload_len <= old.payload_len
            && self.len + new.payload_len <= MAX_SUPER_LEN
            && (new.kind == TransportKind::Tcp || self.packets < MAX_UDP_SEGMENTS)
    }

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
    pub fn commit(self, len: usize) -> Commit {
        self.commit_stream(len, None)
    }

    /// Keeps the first `len` bytes of the space if they are the next packet of the stream that was extended last and that
    /// was [begun](Self::commit_stream) under an equal tag. The slot is used up then.
    ///
    /// The bytes need not have been validated: what is equal to a valid header is valid.
    #[inline]
    pub(crate) fn try_continue(&mut self, len: usize, tag: FlowTag) -> bool {
        let is_continued = len <= SLOT_LEN && self.coalescer.try_continue(self.place, len, tag);
        if is_continued {
            self.place = Place::Fresh;
        }
        is_continued
    }

    /// Room for the next packet, in place of a slot that is used up.
    #[inline]
    fn renew(&mut self) {
        self.place = self.coalescer.claim();
    }

    /// By what the packets behind this one can be recognised, if it is one that can be extended. To be asked before the
    /// packet is translated, and handed to [`commit_stream`](Self::commit_stream).
    pub(crate) fn stream(&self, len: usize, tag: FlowTag) -> Option<Stream> {
        self.coalescer.stream(self.place, len.min(SLOT_LEN), tag)
    }

    /// Like [`commit`](Self::commit); packets of `stream` that follow may be [continued](Self::try_continue).
    pub(crate) fn commit_stream(mut self, len: usize, stream: Option<Stream>) -> Commit {
        let place = std::mem::replace(&mut self.place, Place::Fresh);
        if len == 0 || len > SLOT_LEN {
            self.coalescer.restore(place);
            return Commit::Dropped;
        }
        self.coalescer.commit(place, len, stream)
    }
}

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        self.coalescer.restore(self.place);
    }
}

mod run;
pub(crate) use run::Run;

#[cfg(test)]
mod tests;
