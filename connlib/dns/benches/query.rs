//! Cost of a query that is answered locally: reading it and making the answer.

use connlib_dns::{ProxyIps, Query, SentinelMap};
use criterion::{Criterion, criterion_group, criterion_main};
use std::hint::black_box;
use std::net::IpAddr;

/// A for `wiki.corp.example.com`, with an OPT record.
const QUERY: &[u8] = b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x01\
    \x04wiki\x04corp\x07example\x03com\x00\x00\x01\x00\x01\
    \x00\x00\x29\x10\x00\x00\x00\x00\x00\x00\x00";

fn parse(c: &mut Criterion) {
    c.bench_function("parse", |b| {
        b.iter(|| Query::parse(black_box(QUERY)).map(|query| query.query_type()))
    });
}

fn parse_and_answer(c: &mut Criterion) {
    let mut proxies = ProxyIps::new();
    c.bench_function("parse_and_answer", |b| {
        b.iter(|| {
            let query = Query::parse(black_box(QUERY)).expect("a query");
            let addresses = proxies
                .assign(query.name().expect("a name"))
                .expect("addresses");
            query.answer_a(addresses.v4())
        });
    });
}

fn look_ups_per_packet(c: &mut Criterion) {
    let mut proxies = ProxyIps::new();
    for number in 0..10_000 {
        proxies.assign(&format!("host{number}.example").parse().expect("a name"));
    }
    let mut sentinels = SentinelMap::new();
    sentinels.update(&[([1, 1, 1, 1], 53).into(), ([9, 9, 9, 9], 53).into()]);
    let address = IpAddr::from([100, 96, 100, 1]);
    c.bench_function("domain_of_proxy", |b| {
        b.iter(|| proxies.domain(black_box(address)).is_some())
    });
    c.bench_function("upstream_of_sentinel", |b| {
        b.iter(|| sentinels.upstream(black_box(address)))
    });
}

criterion_group!(benches, parse, parse_and_answer, look_ups_per_packet);
criterion_main!(benches);
