//! Time to find the pattern that covers a name in a sorted list of 10 to 10 000.

use std::hint::black_box;

use connlib_model::{DnsPattern, DomainName};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

/// A list as administrators write it: hosts, one-level and any-depth wildcards.
fn patterns(count: usize) -> Vec<DnsPattern> {
    let mut patterns: Vec<_> = (0..count)
        .map(|index| {
            let text = match index % 3 {
                0 => format!("host{index}.corp.example"),
                1 => format!("*.team{index}.corp.example"),
                _ => format!("**.zone{index}.corp.example"),
            };
            DnsPattern::new(&text).expect("generated patterns are valid")
        })
        .collect();
    patterns.sort();
    patterns
}

fn first_match<'a>(patterns: &'a [DnsPattern], name: &DomainName) -> Option<&'a DnsPattern> {
    patterns.iter().find(|pattern| pattern.matches(name))
}

fn bench(c: &mut Criterion) {
    let hit = DomainName::new("a.b.zone5.corp.example").expect("valid name");
    let miss = DomainName::new("www.elsewhere.example").expect("valid name");
    for (case, name) in [("hit", hit), ("miss", miss)] {
        let mut group = c.benchmark_group(format!("first_match/{case}"));
        for count in [10, 100, 1000, 10_000] {
            let patterns = patterns(count);
            group.throughput(Throughput::Elements(1));
            group.bench_with_input(BenchmarkId::from_parameter(count), &patterns, |b, p| {
                b.iter(|| first_match(black_box(p), black_box(&name)));
            });
        }
        group.finish();
    }
}

criterion_group!(benches, bench);
criterion_main!(benches);
