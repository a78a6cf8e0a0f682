//! Cost per packet of what every packet goes through: validation, route key, translation, checksums.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use ip_packet::{IpPacket, PacketMut, PacketRef, checksum, make};
use std::hint::black_box;
use std::net::{IpAddr, SocketAddr};

/// Full-size packets of the usual kinds.
fn packets() -> Vec<(&'static str, IpPacket)> {
    let v4: (SocketAddr, SocketAddr) = (
        ([100, 64, 0, 1], 50_000).into(),
        ([10, 0, 0, 1], 443).into(),
    );
    let v6: (SocketAddr, SocketAddr) = (
        "[fd00:2021:1111::1]:50000".parse().expect("address"),
        "[2001:db8::1]:443".parse().expect("address"),
    );
    let tcp = |(from, to): (SocketAddr, SocketAddr), len: usize| {
        make::tcp_packet(from, to, make::TcpHeader::default(), &vec![7; len]).expect("packet fits")
    };
    let udp = |(from, to): (SocketAddr, SocketAddr), len: usize| {
        make::udp_packet(from, to, &vec![7; len]).expect("packet fits")
    };
    vec![
        ("tcp4", tcp(v4, 1240)),
        ("tcp6", tcp(v6, 1220)),
        ("udp4", udp(v4, 1252)),
        ("udp6", udp(v6, 1232)),
    ]
}

fn parse(c: &mut Criterion) {
    let mut group = c.benchmark_group("parse");
    for (name, packet) in packets() {
        group.bench_function(name, |b| {
            b.iter(|| PacketRef::parse(black_box(packet.as_slice())))
        });
    }
    group.finish();
}

fn route_key(c: &mut Criterion) {
    let mut group = c.benchmark_group("route_key");
    for (name, packet) in packets() {
        let view = packet.view();
        group.bench_function(name, |b| {
            b.iter(|| {
                let view = black_box(view);
                (view.destination(), view.destination_protocol())
            });
        });
    }
    group.finish();
}

fn translate(c: &mut Criterion) {
    let mut group = c.benchmark_group("translate_destination");
    for (name, packet) in packets() {
        let to: IpAddr = match packet.destination() {
            IpAddr::V4(_) => [100, 96, 0, 1].into(),
            IpAddr::V6(_) => "fd00:2021:1111:8000::1".parse().expect("address"),
        };
        let (mut bytes, layout) = (packet.as_slice().to_vec(), packet.layout());
        group.bench_function(name, |b| {
            b.iter(|| {
                PacketMut::with_layout(&mut bytes, layout)
                    .translate_destination(black_box(to), black_box(80))
            });
        });
    }
    group.finish();
}

fn full_checksum(c: &mut Criterion) {
    let mut group = c.benchmark_group("checksum");
    for len in [40, 1280, 65_535] {
        let bytes = vec![0xa5; len];
        group.throughput(Throughput::Bytes(len as u64));
        group.bench_with_input(BenchmarkId::from_parameter(len), &bytes, |b, bytes| {
            b.iter(|| checksum::of(black_box(bytes)));
        });
    }
    group.finish();
}

fn copy(c: &mut Criterion) {
    let (_, packet) = packets().swap_remove(0);
    c.bench_function("clone_and_drop", |b| b.iter(|| black_box(&packet).clone()));
}

criterion_group!(benches, parse, route_key, translate, full_checksum, copy);
criterion_main!(benches);
