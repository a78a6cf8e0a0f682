//! What client, gateway and WireGuard engine spend on a packet of 1280 bytes, beside the bare cipher: the same work as
//! `packet-cost` counts in instructions, in criterion's terms.
//!
//! `tunnel/*` minus `ground/cipher *` of the same direction is what engine and state machine add. Criterion measures one
//! case after the other, and the machine drifts; `packet-cost time` lets them take turns and prints the difference.

#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    missing_docs,
    reason = "benchmark; virtual time begins at an instant, which only the clock can make"
)]
// Shared with `packet-cost`, which uses all of it.
#![allow(dead_code, reason = "not everything is measured here")]

#[path = "../src/bin/packet-cost/case.rs"]
mod case;
#[path = "../src/bin/packet-cost/cipher.rs"]
mod cipher;
#[path = "../src/bin/packet-cost/decide.rs"]
mod decide;
#[path = "../src/bin/packet-cost/packets.rs"]
mod packets;
#[path = "../src/bin/packet-cost/relay.rs"]
mod relay;
#[path = "../src/bin/packet-cost/tunnel.rs"]
mod tunnel;
#[path = "../src/bin/packet-cost/wireguard.rs"]
mod wireguard;
#[path = "../src/bin/packet-cost/world.rs"]
mod world;

use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};

use case::Case;

/// Group and name of the case.
const MEASURED: [(&str, &str); 10] = [
    ("ground", "cipher seal"),
    ("ground", "cipher open"),
    ("engine", "wireguard seal"),
    ("engine", "wireguard open"),
    ("tunnel", "client seal, direct"),
    ("tunnel", "client open, direct"),
    ("tunnel", "gateway seal, direct"),
    ("tunnel", "gateway open, direct"),
    ("tunnel", "client seal, relayed"),
    ("tunnel", "client open, relayed"),
];

fn packets(criterion: &mut Criterion) {
    for (group, name) in MEASURED {
        let case = Case::find(name).unwrap();
        let mut round = case.start();
        let mut group = criterion.benchmark_group(group);
        group.throughput(Throughput::Elements(case.packets as u64));
        group.bench_function(name, |bencher| {
            bencher.iter_custom(|iterations| {
                let mut worked = Duration::ZERO;
                for _ in 0..iterations {
                    round.prepare();
                    let started = Instant::now();
                    round.work();
                    worked += started.elapsed();
                }
                worked
            });
        });
        group.finish();
    }
}

criterion_group!(benches, packets);
criterion_main!(benches);
