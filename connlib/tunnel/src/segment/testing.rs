//! Packets and super-packets for the tests of segmentation and coalescing.

use std::net::SocketAddr;

use ip_packet::make::{self, TcpHeader};
use ip_packet::{IpPacket, PacketBatch, TcpFlags};

use super::headers::{Transport, TransportKind, finish_super_packet};
use super::{ChecksumState, Coalescer, GsoKind, GsoMeta, Splitter, TunPacket};

pub(super) const ACK: TcpFlags = TcpFlags::ACK;

/// One direction of a connection.
#[derive(Debug, Clone, Copy)]
pub(super) struct Flow {
    pub(super) from: SocketAddr,
    pub(super) to: SocketAddr,
}

impl Flow {
    pub(super) fn v4(port: u16) -> Self {
        Self {
            from: ([10, 0, 0, 1], port).into(),
            to: ([10, 0, 0, 2], 80).into(),
        }
    }

    pub(super) fn v6(port: u16) -> Self {
        Self {
            from: ([0xfd00, 0, 0, 0, 0, 0, 0, 1], port).into(),
            to: ([0xfd00, 0, 0, 0, 0, 0, 0, 2], 80).into(),
        }
    }

    pub(super) fn tcp(self, sequence: u32, flags: TcpFlags, payload: &[u8]) -> IpPacket {
        self.tcp_with(
            TcpHeader {
                sequence,
                acknowledgement: 7,
                flags,
                ..TcpHeader::default()
            },
            payload,
        )
    }

    pub(super) fn tcp_with(self, header: TcpHeader<'_>, payload: &[u8]) -> IpPacket {
        make::tcp_packet(self.from, self.to, header, payload).unwrap()
    }

    pub(super) fn udp(self, payload: &[u8]) -> IpPacket {
        make::udp_packet(self.from, self.to, payload).unwrap()
    }
}

/// The packet with another IPv4 identification; an IPv6 packet as it is.
pub(super) fn with_id(packet: IpPacket, id: u16) -> IpPacket {
    with_bytes(packet, |bytes| {
        if bytes[0] >> 4 == 4 {
            bytes[4..6].copy_from_slice(&id.to_be_bytes());
        }
    })
}

/// The packet with changed bytes and right checksums.
pub(super) fn with_bytes(packet: IpPacket, change: impl FnOnce(&mut [u8])) -> IpPacket {
    let mut bytes = packet.as_slice().to_vec();
    change(&mut bytes);
    let mut changed = IpPacket::from_slice(&bytes).unwrap();
    changed.view_mut().fill_checksums();
    changed
}

/// A super-packet as a TUN device with offload delivers it: the header of `first` in front of `payload`.
pub(super) fn super_packet(
    first: &IpPacket,
    payload: &[u8],
    segment_size: u16,
) -> (Vec<u8>, GsoMeta) {
    let at = Transport::parse(first.as_slice()).unwrap();
    let mut bytes = first.as_slice()[..at.header_len].to_vec();
    bytes.extend_from_slice(payload);
    finish_super_packet(&mut bytes, at, false);
    let kind = match at.kind {
        TransportKind::Tcp => GsoKind::Tcp,
        TransportKind::Udp => GsoKind::Udp,
    };
    let checksum = ChecksumState::Partial {
        start: at.ip_len as u16,
        offset: at.kind.checksum_offset(),
    };
    let gso = GsoMeta {
        kind,
        segment_size,
        checksum,
    };
    (bytes, gso)
}

/// The packets that a super-packet becomes.
pub(super) fn split(bytes: &[u8], gso: GsoMeta) -> Vec<Vec<u8>> {
    let mut buf = bytes.to_vec();
    let mut splitter = Splitter::new(TunPacket { buf: &mut buf, gso }).unwrap();
    let mut packets = Vec::new();
    while let Some(packet) = splitter.next_packet() {
        packets.push(packet.to_vec());
    }
    packets
}

/// What a coalescer yields.
pub(super) fn drained(coalescer: &mut Coalescer) -> Vec<(GsoMeta, Vec<u8>)> {
    coalescer
        .drain()
        .map(|(gso, packet)| (gso, packet.to_vec()))
        .collect()
}

/// Bytes that differ from position to position.
pub(super) fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i * 7 + i / 251) as u8).collect()
}
