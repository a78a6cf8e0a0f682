//! Sealing and opening 1280-byte packets through a peer, beside the bare cipher and `boringtun` in the same run.
//!
//! `peer` minus `cipher` is what engine and state machine add per packet.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    missing_docs,
    reason = "benchmark"
)]

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use boringtun::noise::{Tunn, TunnResult};
use boringtun::x25519;
use connlib_aead::{Key, TAG_LEN};
use connlib_wireguard::{
    DATA_OVERHEAD, IndexTable, Opened, Peer, PeerConfig, PrivateKey, Role, SealSink, WallClock,
};
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use ip_packet::{IpPacket, PacketBatch};

const FROM: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const SIZE: usize = 1280;
/// Packets per batch: what fits a GSO send.
const BATCH: usize = 49;

/// The same packet, several times.
struct Repeat<'a> {
    packet: &'a [u8],
    left: usize,
}

impl PacketBatch for Repeat<'_> {
    fn next_packet(&mut self) -> Option<&[u8]> {
        self.left = self.left.checked_sub(1)?;
        Some(self.packet)
    }
}

/// Slots of one send buffer, one behind the other.
struct Buffer {
    bytes: Vec<u8>,
    used: usize,
}

impl Buffer {
    fn new() -> Self {
        Self {
            bytes: vec![0; 65_536],
            used: 0,
        }
    }
}

impl SealSink for Buffer {
    #[inline]
    fn reserve(&mut self, len: usize) -> &mut [u8] {
        &mut self.bytes[self.used..self.used + len]
    }

    #[inline]
    fn commit(&mut self, len: usize) {
        self.used += len;
    }
}

fn packet() -> IpPacket {
    let address = |last| ([100, 64, 0, last], 1000).into();
    ip_packet::make::udp_packet(address(1), address(2), &[7; SIZE - 28]).unwrap()
}

fn peers(now: Instant) -> (Peer, Peer) {
    let keys = [[1; 32], [2; 32]].map(PrivateKey::from_seed);
    let mut indices = IndexTable::new([3; 32]);
    let mut make = |role, own: usize| {
        let config = PeerConfig {
            role,
            private: &keys[own],
            remote: keys[1 - own].public(),
            psk: [4; 32],
            indices: indices.allocate().unwrap(),
            clock: WallClock::new(now, Duration::ZERO),
            seed: [5; 32],
        };
        let mut peer = Peer::new(config, now);
        peer.path_ready(now);
        peer
    };
    let (mut client, mut gateway) = (make(Role::Initiator, 0), make(Role::Responder, 1));
    let mut out = [0; 2048];
    for _ in 0..3 {
        while let Some(datagram) = client.poll_transmit() {
            gateway.open(datagram.bytes, FROM, now, &mut out).unwrap();
        }
        while let Some(datagram) = gateway.poll_transmit() {
            client.open(datagram.bytes, FROM, now, &mut out).unwrap();
        }
    }
    (client, gateway)
}

fn tunnels() -> (Tunn, Tunn) {
    let [a, b] = [[1; 32], [2; 32]].map(x25519::StaticSecret::from);
    let [a_public, b_public] = [&a, &b].map(x25519::PublicKey::from);
    let mut client = Tunn::new(a, b_public, Some([4; 32]), None, 1, None);
    let mut gateway = Tunn::new(b, a_public, Some([4; 32]), None, 2, None);
    let (mut one, mut two, mut out) = ([0; 256], [0; 256], [0; 256]);
    let TunnResult::WriteToNetwork(init) = client.format_handshake_initiation(&mut one, true)
    else {
        panic!()
    };
    let TunnResult::WriteToNetwork(response) = gateway.decapsulate(None, init, &mut two) else {
        panic!()
    };
    let TunnResult::WriteToNetwork(keepalive) = client.decapsulate(None, response, &mut out) else {
        panic!()
    };
    assert!(matches!(
        gateway.decapsulate(None, keepalive, &mut one),
        TunnResult::Done
    ));

    (client, gateway)
}

fn seal(c: &mut Criterion) {
    let now = Instant::now();
    let packet = packet();
    let (mut peer, _) = peers(now);
    let (mut tunn, _) = tunnels();
    let mut buffer = Buffer::new();
    let mut group = c.benchmark_group("seal_49x1280");
    group.throughput(Throughput::Elements(BATCH as u64));

    group.bench_function("cipher", |bencher| {
        let key = Key::new(&[6; 32]);
        let mut counter = 0;
        bencher.iter(|| {
            for slot in buffer
                .bytes
                .chunks_exact_mut(SIZE + DATA_OVERHEAD)
                .take(BATCH)
            {
                counter += 1;
                key.seal(counter, black_box(packet.as_slice()), &mut slot[16..]);
            }
        });
    });
    group.bench_function("boringtun", |bencher| {
        bencher.iter(|| {
            for i in 0..BATCH {
                let slot = &mut buffer.bytes[i * (SIZE + DATA_OVERHEAD)..][..SIZE + DATA_OVERHEAD];
                black_box(tunn.encapsulate(packet.as_slice(), slot));
            }
        });
    });
    group.bench_function("peer", |bencher| {
        bencher.iter(|| {
            buffer.used = 0;
            let mut batch = Repeat {
                packet: packet.as_slice(),
                left: BATCH,
            };
            black_box(peer.seal(&mut batch, now, &mut buffer));
        });
    });
    group.finish();
}

fn open(c: &mut Criterion) {
    let now = Instant::now();
    let packet = packet();
    let (mut sender, mut peer) = peers(now);
    let (mut tunn_sender, mut tunn) = tunnels();
    let mut out = [0; 2048];
    let mut group = c.benchmark_group("open_49x1280");
    group.throughput(Throughput::Elements(BATCH as u64));

    group.bench_function("cipher", |bencher| {
        let key = Key::new(&[6; 32]);
        let mut sealed = vec![0; BATCH * (SIZE + TAG_LEN)];
        for (counter, slot) in (0..).zip(sealed.chunks_exact_mut(SIZE + TAG_LEN)) {
            key.seal(counter, packet.as_slice(), slot);
        }
        bencher.iter(|| {
            for (counter, slot) in (0..).zip(sealed.chunks_exact(SIZE + TAG_LEN)) {
                assert_eq!(key.open(counter, black_box(slot), &mut out), Ok(SIZE));
            }
        });
    });
    group.bench_function("boringtun", |bencher| {
        bencher.iter_batched_ref(
            || {
                let mut bytes = vec![0; BATCH * (SIZE + DATA_OVERHEAD)];
                for slot in bytes.chunks_mut(SIZE + DATA_OVERHEAD) {
                    tunn_sender.encapsulate(packet.as_slice(), slot);
                }
                bytes
            },
            |bytes| {
                for datagram in bytes.chunks(SIZE + DATA_OVERHEAD) {
                    let result = tunn.decapsulate(None, datagram, &mut out);
                    assert!(matches!(result, TunnResult::WriteToTunnelV4(..)));
                }
            },
            BatchSize::PerIteration,
        );
    });
    group.bench_function("peer", |bencher| {
        bencher.iter_batched_ref(
            || {
                let mut buffer = Buffer::new();
                let mut batch = Repeat {
                    packet: packet.as_slice(),
                    left: BATCH,
                };
                let sealed = sender.seal(&mut batch, now, &mut buffer);
                assert_eq!(sealed.sent, BATCH);
                buffer.bytes.truncate(buffer.used);
                buffer.bytes
            },
            |bytes| {
                for datagram in bytes.chunks(SIZE + DATA_OVERHEAD) {
                    let result = peer.open(datagram, FROM, now, &mut out);
                    assert_eq!(result, Ok(Opened::Packet { len: SIZE }));
                }
            },
            BatchSize::PerIteration,
        );
    });
    group.finish();
}

criterion_group!(benches, seal, open);
criterion_main!(benches);
