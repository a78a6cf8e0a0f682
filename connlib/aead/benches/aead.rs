//! Sealing and opening, this processor's best beside `ring`, in one run.

#![allow(missing_docs, reason = "benchmark")]

use std::hint::black_box;

use connlib_aead::{Key, TAG_LEN};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

fn aead(c: &mut Criterion) {
    let key = [7; 32];
    for (name, key) in [("best", Key::new(&key)), ("ring", Key::portable(&key))] {
        for len in [64, 256, 576, 1280] {
            let message = vec![0x45; len];
            let mut sealed = vec![0; len + TAG_LEN];
            let mut opened = vec![0; len];
            let mut group = c.benchmark_group(format!("{len} bytes"));
            group.throughput(Throughput::Bytes(len as u64));

            let mut counter = 0;
            group.bench_function(format!("seal/{name}"), |b| {
                b.iter(|| {
                    counter += 1;
                    key.seal(counter, black_box(&message), black_box(&mut sealed));
                });
            });
            key.seal(1, &message, &mut sealed);
            group.bench_function(format!("open/{name}"), |b| {
                b.iter(|| key.open(1, black_box(&sealed), black_box(&mut opened)));
            });
        }
    }
}

criterion_group!(benches, aead);
criterion_main!(benches);
