//! Cutting super-packets and putting them together, per packet of 1280 bytes.

#![allow(missing_docs, reason = "criterion's macros make undocumented items")]
#![allow(clippy::unwrap_used, reason = "a benchmark fails by panicking")]

use std::hint::black_box;

use connlib_tunnel::TunPacket;
use connlib_tunnel::segment::{ChecksumState, Coalescer, Coalescing, GsoKind, GsoMeta, Splitter};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ip_packet::make::{TcpHeader, tcp_packet};
use ip_packet::{IpPacket, PacketBatch, TcpFlags};

/// TCP over IPv4 at an MTU of 1280.
const SEGMENT: usize = 1240;
/// Packets of the largest super-packet.
const PACKETS: usize = 52;

fn segment(number: usize) -> IpPacket {
    let (from, to) = (([10, 0, 0, 1], 5000).into(), ([10, 0, 0, 2], 443).into());
    let header = TcpHeader {
        sequence: (number * SEGMENT) as u32,
        flags: TcpFlags::ACK,
        ..TcpHeader::default()
    };
    tcp_packet(from, to, header, &[number as u8; SEGMENT]).unwrap()
}

fn split(c: &mut Criterion) {
    let mut bytes = segment(0).as_slice()[..40].to_vec();
    bytes.resize(40 + PACKETS * SEGMENT, 7);
    let total = bytes.len() as u16;
    bytes[2..4].copy_from_slice(&total.to_be_bytes());
    let header = bytes[..40].to_vec();
    let gso = GsoMeta {
        kind: GsoKind::Tcp,
        segment_size: SEGMENT as u16,
        checksum: ChecksumState::Partial {
            start: 20,
            offset: 16,
        },
    };
    let mut group = c.benchmark_group("segment");
    group.throughput(Throughput::Elements(PACKETS as u64));
    group.bench_function("split", |b| {
        b.iter(|| {
            bytes[..40].copy_from_slice(&header);
            let mut packets = Splitter::new(TunPacket {
                buf: &mut bytes,
                gso,
            })
            .unwrap();
            let mut count = 0;
            while let Some(packet) = packets.next_packet() {
                black_box(packet);
                count += 1;
            }
            assert_eq!(count, PACKETS);
        });
    });
    group.finish();
}

fn coalesce(c: &mut Criterion) {
    let packets: Vec<_> = (0..PACKETS).map(segment).collect();
    let mut coalescer = Coalescer::new(Coalescing::ON);
    let mut group = c.benchmark_group("segment");
    group.throughput(Throughput::Elements(PACKETS as u64));
    group.bench_function("coalesce, the cipher's copy included", |b| {
        b.iter(|| {
            for packet in &packets {
                let mut slot = coalescer.slot();
                slot.buffer()[..packet.as_slice().len()].copy_from_slice(packet.as_slice());
                slot.commit(packet.as_slice().len());
            }
            let mut count = 0;
            for item in coalescer.drain() {
                black_box(item);
                count += 1;
            }
            assert_eq!(count, 1);
        });
    });
    let acknowledgements: Vec<_> = (0..100u16)
        .map(|port| {
            let (from, to) = (([10, 0, 0, 1], port).into(), ([10, 0, 0, 2], 443).into());
            tcp_packet(
                from,
                to,
                TcpHeader {
                    flags: TcpFlags::ACK,
                    ..TcpHeader::default()
                },
                &[],
            )
            .unwrap()
        })
        .collect();
    group.throughput(Throughput::Elements(100));
    group.bench_function("acknowledgements of 100 flows", |b| {
        b.iter(|| {
            for packet in &acknowledgements {
                black_box(coalescer.push(packet.as_slice()));
            }
            assert_eq!(coalescer.drain().count(), 100);
        });
    });
    group.finish();
}

criterion_group!(benches, split, coalesce);
criterion_main!(benches);
