//! Cost of sending a burst of 49 full datagrams over loopback, with and without segmentation offload.

use std::hint::black_box;
use std::net::{SocketAddr, UdpSocket};

use connlib_sockets::{GsoQueue, SocketOptions, Sockets};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ip_packet::Ecn;

const DATAGRAMS: usize = 49;
const SIZE: usize = 1312;

fn write(queue: &mut GsoQueue, to: SocketAddr) {
    for _ in 0..DATAGRAMS {
        black_box(queue.reserve(None, to, Ecn::NotEct, SIZE));
        queue.commit(SIZE);
    }
}

fn benchmarks(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("send");
    group.throughput(Throughput::Elements(DATAGRAMS as u64));

    group.bench_function("queue only", |bencher| {
        let (mut queue, to) = (GsoQueue::new(), SocketAddr::from(([127, 0, 0, 1], 9)));
        bencher.iter(|| {
            write(&mut queue, to);
            queue.clear();
        });
    });

    for (name, gso) in [("offload", true), ("one by one", false)] {
        let sink = UdpSocket::bind("127.0.0.1:0").expect("loopback");
        let to = sink.local_addr().expect("bound");
        let options = SocketOptions {
            gso,
            ..SocketOptions::default()
        };
        let mut sockets = Sockets::bind_to(0, options).expect("loopback");
        let mut queue = GsoQueue::new();
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                write(&mut queue, to);
                black_box(queue.flush(&mut sockets));
            });
        });
    }
    group.finish();
}

criterion_group!(benches, benchmarks);
criterion_main!(benches);
