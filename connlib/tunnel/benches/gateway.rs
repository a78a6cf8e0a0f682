//! What the gateway spends on a packet besides the cipher: decision, session look-up, translation in place.
//!
//! The packet is copied from a template for every iteration, which costs a few nanoseconds of each figure.

#![allow(missing_docs, reason = "criterion's macros make undocumented items")]
#![allow(clippy::unwrap_used, reason = "a benchmark fails by panicking")]
#![allow(
    clippy::disallowed_methods,
    reason = "an instant has to come from somewhere"
)]

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Instant;

use connlib_model::{Filter, GatewayCidrResource, GatewayDnsResource, GatewayResource, ResourceId};
use connlib_tunnel::TunAddresses;
use connlib_tunnel::bench::BenchPeer;
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use ip_packet::make::{TcpHeader, tcp_packet};
use ip_packet::{IpPacket, PacketMut, TcpFlags};

const CLIENT: Ipv4Addr = Ipv4Addr::new(100, 64, 0, 5);
const PROXY_START: u32 = 0x6460_0001;
const REAL_START: u32 = 0x0a00_0001;
const SESSIONS_PER_NAME: u32 = 1_000;

fn peer(resources: &[GatewayResource]) -> BenchPeer {
    let v6 = "fd00:2021:1111::5".parse().unwrap();
    BenchPeer::new(TunAddresses { v4: CLIENT, v6 }, resources)
}

fn packet(source: SocketAddr, destination: SocketAddr, payload: usize) -> IpPacket {
    let header = TcpHeader {
        flags: TcpFlags::ACK,
        ..TcpHeader::default()
    };
    tcp_packet(source, destination, header, &vec![7; payload]).unwrap()
}

fn proxy(session: u32) -> Ipv4Addr {
    (PROXY_START + session / SESSIONS_PER_NAME).into()
}

fn real(session: u32) -> Ipv4Addr {
    (REAL_START + session / SESSIONS_PER_NAME).into()
}

fn port(session: u32) -> u16 {
    10_000 + (session % SESSIONS_PER_NAME) as u16
}

fn up(session: u32, payload: usize) -> IpPacket {
    packet(
        (CLIENT, port(session)).into(),
        (proxy(session), 443).into(),
        payload,
    )
}

fn down(session: u32, payload: usize) -> IpPacket {
    packet(
        (real(session), 443).into(),
        (CLIENT, port(session)).into(),
        payload,
    )
}

fn pass(template: &IpPacket, buffer: &mut [u8], act: impl FnOnce(&mut PacketMut<'_>) -> bool) {
    let len = template.as_slice().len();
    buffer[..len].copy_from_slice(template.as_slice());
    let mut packet = PacketMut::with_layout(&mut buffer[..len], template.layout());
    assert!(black_box(act(&mut packet)));
}

/// A client with this many sessions over as many names as they need.
fn with_sessions(count: u32, now: Instant) -> BenchPeer {
    let id = ResourceId::from_u128(1);
    let names = GatewayResource::Dns(GatewayDnsResource {
        id,
        address: "*.example.com".to_owned(),
        name: "names".to_owned(),
        filters: vec![Filter::Tcp(443..=443)],
    });
    let mut peer = peer(&[names]);
    for name in 0..count.div_ceil(SESSIONS_PER_NAME) {
        let domain = format!("host{name}.example.com").parse().unwrap();
        let session = name * SESSIONS_PER_NAME;
        let (proxy, real): (IpAddr, IpAddr) = (proxy(session).into(), real(session).into());
        peer.resolve(id, &domain, &[proxy], &[real]);
    }
    let mut buffer = [0; 1280];
    for session in 0..count {
        pass(&up(session, 0), &mut buffer, |packet| {
            peer.from_client(packet, now)
        });
        pass(&down(session, 0), &mut buffer, |packet| {
            peer.to_client(packet, now)
        });
    }
    peer
}

fn sessions(c: &mut Criterion) {
    let now = Instant::now();
    let mut buffer = [0; 1280];
    let mut group = c.benchmark_group("nat");
    for count in [10u32, 1_000, 100_000] {
        let mut peer = with_sessions(count, now);
        let templates: Vec<_> = (0..256u32)
            .map(|i| i.wrapping_mul(2_654_435_761) % count)
            .map(|session| (up(session, 0), down(session, 0)))
            .collect();
        let mut at = 0;
        group.bench_function(BenchmarkId::new("from client", count), |b| {
            b.iter(|| {
                at = (at + 1) % templates.len();
                pass(&templates[at].0, &mut buffer, |packet| {
                    peer.from_client(packet, now)
                });
            });
        });
        group.bench_function(BenchmarkId::new("to client", count), |b| {
            b.iter(|| {
                at = (at + 1) % templates.len();
                pass(&templates[at].1, &mut buffer, |packet| {
                    peer.to_client(packet, now)
                });
            });
        });
        group.bench_function(
            BenchmarkId::new("from client, same flow in a batch", count),
            |b| {
                b.iter(|| {
                    pass(&templates[0].0, &mut buffer, |packet| {
                        peer.from_client_cached(packet, now)
                    })
                });
            },
        );
    }
    group.finish();
}

fn networks(c: &mut Criterion) {
    let now = Instant::now();
    let mut buffer = [0; 1280];
    let mut group = c.benchmark_group("filter");
    for count in [10u32, 1_000, 10_000] {
        let resources: Vec<_> = (0..count)
            .map(|i| {
                let address = Ipv4Addr::from(REAL_START & 0xff00_0000 | i << 8);
                GatewayResource::Cidr(GatewayCidrResource {
                    id: ResourceId::from_u128(u128::from(i)),
                    address: format!("{address}/{}", [24, 28, 32][i as usize % 3])
                        .parse()
                        .unwrap(),
                    name: "network".to_owned(),
                    filters: vec![Filter::Tcp(80..=80), Filter::Tcp(443..=443), Filter::Icmp],
                })
            })
            .collect();
        let mut peer = peer(&resources);
        let destination = Ipv4Addr::from(REAL_START & 0xff00_0000 | ((count / 2) / 3 * 3) << 8);
        let template = packet((CLIENT, 5000).into(), (destination, 443).into(), 0);
        group.bench_function(BenchmarkId::new("networks", count), |b| {
            b.iter(|| {
                pass(&template, &mut buffer, |packet| {
                    peer.from_client(packet, now)
                })
            });
        });
    }
    group.finish();
}

criterion_group!(benches, sessions, networks);
criterion_main!(benches);
