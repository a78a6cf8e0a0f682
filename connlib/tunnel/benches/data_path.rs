//! What a packet of 1280 bytes costs from the TUN device to the send buffer and from the receive buffer to the TUN device,
//! everything included, against the bare cipher in the same run.
//!
//! The difference between two rows of a group is what engine and state machine add. Times are per packet.

#![allow(missing_docs, reason = "criterion's macros make undocumented items")]
#![allow(clippy::unwrap_used, reason = "a benchmark fails by panicking")]
#![allow(
    clippy::disallowed_methods,
    reason = "an instant has to come from somewhere"
)]

#[path = "../tests/pair/mod.rs"]
mod pair;

use std::hint::black_box;
use std::time::{Duration, Instant};

use connlib_tunnel::segment::{Coalescer, Coalescing};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use pair::{Pair, Slots, Stream, Way};
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};

/// Packets of a GSO batch at this size.
const PACKETS: usize = 49;
const SIZE: usize = 1280;

/// The cipher alone: one copy and one pass per packet, as anybody has to do.
struct Bare {
    key: LessSafeKey,
    plain: Vec<u8>,
    sealed: Vec<u8>,
    opened: Vec<u8>,
    counter: u64,
}

impl Bare {
    const STRIDE: usize = SIZE + 16;

    fn new() -> Self {
        let key = UnboundKey::new(&CHACHA20_POLY1305, &[7; 32]).unwrap();
        Self {
            key: LessSafeKey::new(key),
            plain: vec![7; PACKETS * SIZE],
            sealed: vec![0; PACKETS * Self::STRIDE],
            opened: vec![0; PACKETS * Self::STRIDE],
            counter: 0,
        }
    }

    fn nonce(counter: u64) -> Nonce {
        let mut nonce = [0; 12];
        nonce[4..].copy_from_slice(&counter.to_le_bytes());
        Nonce::assume_unique_for_key(nonce)
    }

    fn seal(&mut self) {
        let slots = self.sealed.chunks_exact_mut(Self::STRIDE);
        for (packet, slot) in self.plain.chunks_exact(SIZE).zip(slots) {
            slot[..SIZE].copy_from_slice(packet);
            let nonce = Self::nonce(self.counter);
            self.counter += 1;
            let tag = self
                .key
                .seal_in_place_separate_tag(nonce, Aad::empty(), &mut slot[..SIZE])
                .unwrap();
            slot[SIZE..].copy_from_slice(tag.as_ref());
        }
    }

    fn open(&mut self) {
        let first = self.counter - PACKETS as u64;
        let slots = self.opened.chunks_exact_mut(Self::STRIDE);
        for ((index, sealed), slot) in (0..).zip(self.sealed.chunks_exact(Self::STRIDE)).zip(slots)
        {
            slot.copy_from_slice(sealed);
            let nonce = Self::nonce(first + index);
            black_box(self.key.open_in_place(nonce, Aad::empty(), slot).unwrap());
        }
    }
}

fn bare(c: &mut Criterion) {
    let mut bare = Bare::new();
    let mut group = c.benchmark_group("bare cipher");
    group.throughput(Throughput::Elements(PACKETS as u64));
    group.bench_function("seal", |b| b.iter(|| bare.seal()));
    group.bench_function("open", |b| {
        b.iter_custom(|rounds| {
            (0..rounds)
                .map(|_| {
                    bare.seal();
                    timed(|| bare.open())
                })
                .sum()
        });
    });
    group.finish();
}

fn both_ways(c: &mut Criterion, way: Way) {
    let mut pair = Pair::connected(way);
    let mut group = c.benchmark_group(format!("{way:?}").to_lowercase());
    group.throughput(Throughput::Elements(PACKETS as u64));
    let mut stream = Stream::to_host(PACKETS, SIZE);
    let mut slots = Slots::new();
    let mut out = Coalescer::new(Coalescing::ON);

    group.bench_function("client seals, gateway opens: seal", |b| {
        b.iter_custom(|rounds| {
            let mut time = Duration::ZERO;
            for _ in 0..rounds {
                let (bytes, gso) = stream.next_super_packet();
                slots.clear();
                time += timed(|| pair.client_seals(bytes, gso, &mut slots));
                assert_eq!(slots.len(), PACKETS);
            }
            time
        });
    });
    group.bench_function("client seals, gateway opens: open", |b| {
        b.iter_custom(|rounds| {
            let mut time = Duration::ZERO;
            for _ in 0..rounds {
                let (bytes, gso) = stream.next_super_packet();
                slots.clear();
                pair.client_seals(bytes, gso, &mut slots);
                let train = pair.train(pair.client_socket, &slots);
                time += timed(|| {
                    pair.gateway_opens(&train, &mut out);
                    assert_eq!(out.drain().count(), 1);
                });
            }
            time
        });
    });
    let mut stream = Stream::to_client(PACKETS, SIZE);
    group.bench_function("gateway seals, client opens: seal", |b| {
        b.iter_custom(|rounds| {
            let mut time = Duration::ZERO;
            for _ in 0..rounds {
                let (bytes, gso) = stream.next_super_packet();
                slots.clear();
                time += timed(|| pair.gateway_seals(bytes, gso, &mut slots));
                assert_eq!(slots.len(), PACKETS);
            }
            time
        });
    });
    group.bench_function("gateway seals, client opens: open", |b| {
        b.iter_custom(|rounds| {
            let mut time = Duration::ZERO;
            for _ in 0..rounds {
                let (bytes, gso) = stream.next_super_packet();
                slots.clear();
                pair.gateway_seals(bytes, gso, &mut slots);
                let train = pair.train(pair.gateway_socket, &slots);
                time += timed(|| {
                    pair.client_opens(&train, &mut out);
                    assert_eq!(out.drain().count(), 1);
                });
            }
            time
        });
    });
    group.finish();
}

fn direct(c: &mut Criterion) {
    both_ways(c, Way::Direct);
}

fn relayed(c: &mut Criterion) {
    both_ways(c, Way::Relayed);
}

fn timed(action: impl FnOnce()) -> Duration {
    let start = Instant::now();
    action();
    start.elapsed()
}

criterion_group!(benches, bare, direct, relayed);
criterion_main!(benches);
