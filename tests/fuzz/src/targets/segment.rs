//! Segmentation and coalescing: super-packets into packets, packets into super-packets.
//!
//! Oracle: packets that went into the coalescer come out of it and a splitter as they were, each connection in its order;
//! nothing comes out that was not committed, whatever was written to slots that were then given up; a super-packet's
//! segments are valid packets with right checksums whose payloads are its payload.

use std::{collections::BTreeMap, net::IpAddr};

use connlib_tunnel::segment::{
    ChecksumState, Coalescer, Coalescing, Commit, GsoKind, GsoMeta, Splitter, TunPacket,
};
use ip_packet::{
    IpPacket, IpVersion, MAX_IP_SIZE, PacketBatch as _, PacketMut, PacketRef, Protocol, TcpFlags,
    Transport, make,
};

use crate::input::Input;

/// Most packets between two drains: fewer than a coalescer has items, so that none is lost.
const MAX_PACKETS: usize = 120;

/// Runs one input.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    match input.below(4) {
        0 => split_any(&mut input),
        1 => split_stream(&mut input),
        _ => coalesce(&mut input),
    }
}

/// A super-packet of each protocol, and streams that merge, each of them twice.
pub fn seeds() -> Vec<Vec<u8>> {
    let stream = |kind: u8| {
        let mut seed = vec![2, 3, 0];
        seed.extend([kind, 0, 0, 100].repeat(40));
        seed
    };
    let super_packet = |flow: u8| vec![1, flow, 0x20, 0, 4, 0];
    (0..8).map(stream).chain((0..4).map(super_packet)).collect()
}

/// Any bytes as a super-packet, with any metadata.
fn split_any(input: &mut Input<'_>) {
    let checksum = match input.flag() {
        true => ChecksumState::Complete,
        false => ChecksumState::Partial {
            start: u16::from(input.u8()),
            offset: u16::from(input.u8()),
        },
    };
    let gso = GsoMeta {
        kind: input.pick(&[GsoKind::None, GsoKind::Tcp, GsoKind::Udp]),
        segment_size: input.u16(),
        checksum,
    };
    let mut bytes = input.rest().to_vec();
    check_split(&mut bytes, gso);
}

/// A super-packet as a TUN device hands it over.
fn split_stream(input: &mut Input<'_>) {
    let flow = Flow::read(input);
    let first = flow.packet(0, TcpFlags::ACK | TcpFlags::PSH, &[]);
    let (size, len) = (1 + input.u16() % 1300, usize::from(input.u16()));
    let mut bytes = first.as_slice().to_vec();
    bytes.extend((0..len).map(|i| i as u8 ^ input.u8()));
    bytes.truncate(65_535);
    set_lengths(&mut bytes, first.layout().transport_offset(), flow.is_udp);
    let gso = GsoMeta {
        kind: if flow.is_udp {
            GsoKind::Udp
        } else {
            GsoKind::Tcp
        },
        segment_size: size,
        checksum: ChecksumState::Complete,
    };
    check_split(&mut bytes, gso);
}

fn set_lengths(bytes: &mut [u8], ip_len: usize, is_udp: bool) {
    let len = bytes.len() as u16;
    match bytes[0] >> 4 {
        4 => bytes[2..4].copy_from_slice(&len.to_be_bytes()),
        _ => bytes[4..6].copy_from_slice(&(len - 40).to_be_bytes()),
    }
    if is_udp {
        let udp = len - ip_len as u16;
        bytes[ip_len + 4..ip_len + 6].copy_from_slice(&udp.to_be_bytes());
    }
}

/// Every segment is a packet; together they are the super-packet, and coalesced and split again they are the same.
fn check_split(bytes: &mut [u8], gso: GsoMeta) {
    let Ok(splitter) = Splitter::new(TunPacket { buf: bytes, gso }) else {
        return;
    };
    let payload = splitter.packet().l4_payload().to_vec();
    let count = splitter.segments();
    let packets = drain(splitter);
    assert_eq!(packets.len(), count);
    let mut rejoined = Vec::new();
    for bytes in &packets {
        let packet = PacketRef::parse(bytes).expect("a segment is a packet");
        assert!(gso.kind == GsoKind::None || packet.has_valid_checksums());
        rejoined.extend_from_slice(packet.l4_payload());
    }
    assert_eq!(rejoined, payload);
    let mut coalescer = Coalescer::new(Coalescing::ON);
    for part in packets.chunks(MAX_PACKETS) {
        part.iter()
            .for_each(|it| assert_ne!(coalescer.push(it), Commit::Dropped));
        check_drained(&mut coalescer, part);
    }
}

fn drain(mut splitter: Splitter<'_>) -> Vec<Vec<u8>> {
    let mut packets = Vec::new();
    while let Some(packet) = splitter.next_packet() {
        packets.push(packet.to_vec());
    }
    packets
}

/// Streams of several connections, damaged here and there, into one coalescer.
fn coalesce(input: &mut Input<'_>) {
    let flags = input.u8();
    let coalescing = Coalescing {
        tcp: flags & 1 != 0,
        udp: flags & 2 != 0,
    };
    let mut coalescer = Coalescer::new(coalescing);
    let mut flows = vec![Stream::new(Flow::read(input))];
    let mut kept = Vec::new();
    while !input.is_empty() {
        let action = input.u8();
        match action % 16 {
            14 => flows.push(Stream::new(Flow::read(input))),
            15 => {
                check_drained(&mut coalescer, &kept);
                kept.clear();
            }
            _ => {
                let index = input.below(flows.len().min(16));
                let packet = flows[index].next(input, action);
                if commit(&mut coalescer, &packet, input.u8()) {
                    kept.push(packet);
                }
            }
        }
        if kept.len() == MAX_PACKETS || coalescer.is_full() {
            check_drained(&mut coalescer, &kept);
            kept.clear();
        }
    }
    check_drained(&mut coalescer, &kept);
}

/// Puts a packet in, one way or the other; returns whether it is kept.
fn commit(coalescer: &mut Coalescer, packet: &[u8], how: u8) -> bool {
    match how % 16 {
        // A datagram that turned out not to be authentic: its slot was written to, and is given up.
        1 => {
            let mut slot = coalescer.slot();
            slot.buffer().fill(0xee);
            false
        }
        2 => {
            let mut slot = coalescer.slot();
            slot.buffer().fill(0xee);
            slot.buffer()[..packet.len()].copy_from_slice(packet);
            slot.commit(packet.len()) != Commit::Dropped
        }
        3 => coalescer.slot().commit(0) != Commit::Dropped,
        _ => coalescer.push(packet) != Commit::Dropped,
    }
}

/// What comes out is what went in.
fn check_drained(coalescer: &mut Coalescer, kept: &[Vec<u8>]) {
    let mut out = Vec::new();
    for (gso, bytes) in coalescer.drain() {
        if gso.kind == GsoKind::None {
            out.push(bytes.to_vec());
            continue;
        }
        let splitter = Splitter::new(TunPacket { buf: bytes, gso });
        out.extend(drain(splitter.expect("a coalesced packet can be split")));
    }
    assert!(coalescer.is_empty());
    let (out, kept) = (by_connection(&out), by_connection(kept));
    assert!(out.keys().eq(kept.keys()), "other connections came out");
    for (connection, packets) in &kept {
        compare(&out[connection], packets);
    }
}

/// Says where two lists of packets begin to differ, rather than all of both.
fn compare(out: &[Content], kept: &[Content]) {
    for (index, (out, kept)) in out.iter().zip(kept).enumerate() {
        let headers = |it: &Content| (it.0, it.1.len(), it.1[..it.1.len().min(60)].to_vec());
        assert_eq!(headers(out), headers(kept), "packet {index}");
        assert!(out == kept, "payload of packet {index}");
    }
    assert_eq!(out.len(), kept.len());
}

/// Addresses and ports; `None` for what has none.
type Connection = Option<(IpAddr, IpAddr, Protocol, Protocol)>;
/// Whether the checksums are right, and what merging must not change.
type Content = (bool, Vec<u8>);

fn by_connection(packets: &[Vec<u8>]) -> BTreeMap<Connection, Vec<Content>> {
    let mut connections: BTreeMap<Connection, Vec<Content>> = BTreeMap::new();
    for bytes in packets {
        let packet = PacketRef::parse(bytes).ok();
        let key = packet.and_then(|packet| {
            let (source, destination) = (packet.source_protocol(), packet.destination_protocol());
            let (from, to) = (packet.source(), packet.destination());
            Some((from, to, source.ok()?, destination.ok()?))
        });
        let is_right = packet.is_some_and(PacketRef::has_valid_checksums);
        let content = (is_right, essence(bytes));
        connections.entry(key).or_default().push(content);
    }
    connections
}

/// The packet without what merging may change when its checksums are right: identification, flow label, window, and the
/// checksums themselves, of which the caller knows that they are right.
fn essence(bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    let Ok(packet) = PacketRef::parse(&bytes).map(|it| (it.layout(), it.has_valid_checksums()))
    else {
        return bytes;
    };
    let (layout, true) = packet else {
        return bytes;
    };
    let at = layout.transport_offset();
    match layout.version() {
        IpVersion::V4 => {
            bytes[4..6].fill(0);
            bytes[10..12].fill(0);
        }
        IpVersion::V6 => {
            bytes[1] &= 0xf0;
            bytes[2..4].fill(0);
        }
    }
    match layout.transport() {
        Transport::Tcp => bytes[at + 14..at + 18].fill(0),
        // Absent is not the same as right.
        Transport::Udp if bytes[at + 6..at + 8] != [0, 0] => bytes[at + 6..at + 8].fill(1),
        _ => {}
    }
    bytes
}

/// One direction of a connection.
#[derive(Debug, Clone, Copy)]
struct Flow {
    port: u16,
    is_v6: bool,
    is_udp: bool,
}

impl Flow {
    fn read(input: &mut Input<'_>) -> Self {
        let bits = input.u8();
        Self {
            port: u16::from(bits >> 2),
            is_v6: bits & 1 != 0,
            is_udp: bits & 2 != 0,
        }
    }

    fn packet(self, sequence: u32, flags: TcpFlags, payload: &[u8]) -> IpPacket {
        let (from, to) = match self.is_v6 {
            false => (
                ([10, 0, 0, 1], self.port).into(),
                ([10, 0, 0, 2], 80).into(),
            ),
            true => (([0xfd00; 8], self.port).into(), ([0xfd01; 8], 80).into()),
        };
        let packet = match self.is_udp {
            true => make::udp_packet(from, to, payload),
            false => {
                let header = make::TcpHeader {
                    sequence,
                    flags,
                    ..make::TcpHeader::default()
                };
                make::tcp_packet(from, to, header, payload)
            }
        };
        packet.expect("payloads are short enough")
    }
}

/// A flow that is being sent.
struct Stream {
    flow: Flow,
    sequence: u32,
    size: usize,
    id: u16,
}

impl Stream {
    fn new(flow: Flow) -> Self {
        Self {
            flow,
            sequence: u32::MAX - 1000,
            size: 500,
            id: 0xfff0,
        }
    }

    /// The next packet, mostly one that continues the stream.
    fn next(&mut self, input: &mut Input<'_>, action: u8) -> Vec<u8> {
        let mut flags = TcpFlags::ACK;
        let mut size = self.size;
        match action % 16 {
            1 => self.size = 1 + usize::from(input.u16()) % 1220,
            2 => size = usize::from(input.u8()),
            3 => flags = TcpFlags::from_bits(input.u8()),
            4 => self.sequence = self.sequence.wrapping_add(u32::from(input.u8())),
            5 => flags = TcpFlags::ACK | TcpFlags::PSH,
            _ => {}
        }
        let payload = vec![self.id as u8; size];
        let packet = self.flow.packet(self.sequence, flags, &payload);
        self.sequence = self.sequence.wrapping_add(size as u32);
        self.id = self.id.wrapping_add(1);
        let mut bytes = packet.as_slice().to_vec();
        if !self.flow.is_v6 {
            bytes[4..6].copy_from_slice(&self.id.to_be_bytes());
        }
        match action >> 4 {
            1 => damage(input, &mut bytes),
            2 => {
                damage(input, &mut bytes);
                refill(&mut bytes);
            }
            _ => refill(&mut bytes),
        }
        bytes
    }
}

fn damage(input: &mut Input<'_>, bytes: &mut [u8]) {
    let at = usize::from(input.u8()) % bytes.len();
    bytes[at] ^= 1 << input.below(8);
}

fn refill(bytes: &mut [u8]) {
    if let Ok(mut packet) = PacketMut::parse(bytes) {
        packet.fill_checksums();
    }
    assert!(bytes.len() <= MAX_IP_SIZE);
}
