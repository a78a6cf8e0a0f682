//! Cost of what a relay does per datagram: channel data on the hot path, envelope and integrity per control message.

use std::hint::black_box;

use connlib_stun::{
    Allocate, AuthAttributes, ChannelNumber, ChannelRange, DEFAULT_REALM, Envelope, Family, Key,
    Request, RequestBody, TransactionId, channel,
};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

fn control(c: &mut Criterion) {
    let key = Key::long_term("1767225600:Zm9vYmFyc2FsdA", DEFAULT_REALM, "password");
    let request = Request {
        transaction_id: TransactionId::new([7; 12]),
        auth: AuthAttributes {
            username: Some("1767225600:Zm9vYmFyc2FsdA".to_owned()),
            realm: Some(DEFAULT_REALM.to_owned()),
            nonce: Some("0123456789abcdef0123456789abcdef".to_owned()),
        },
        software: Some("snownet".to_owned()),
        body: RequestBody::Allocate(Allocate {
            requested_transport: Some(Allocate::UDP),
            additional_family: Some(Family::V6),
            ..Allocate::default()
        }),
    };
    let bytes = request.encode(Some(&key)).expect("short texts");
    let envelope = Envelope::parse(&bytes).expect("own message");

    let mut group = c.benchmark_group("control");
    group.throughput(Throughput::Elements(1));
    group.bench_function("envelope", |b| {
        b.iter(|| Envelope::parse(black_box(&bytes)))
    });
    group.bench_function("integrity", |b| {
        b.iter(|| black_box(&envelope).verify_integrity(&key));
    });
    group.bench_function("decode", |b| {
        b.iter(|| Request::decode(black_box(&envelope)))
    });
    group.bench_function("encode", |b| {
        b.iter(|| black_box(&request).encode(Some(&key)))
    });
    group.finish();
}

fn channel_data(c: &mut Criterion) {
    let number = ChannelNumber::MIN;
    let mut datagram = channel::encode_header(number, 1312).to_vec();
    datagram.resize(1316, 0);

    let mut group = c.benchmark_group("channel data");
    group.throughput(Throughput::Bytes(1312));
    group.bench_function("parse", |b| {
        b.iter(|| channel::ChannelData::parse(black_box(&datagram), ChannelRange::Strict));
    });
    group.bench_function("encode header", |b| {
        b.iter(|| channel::encode_header(black_box(number), black_box(1312)));
    });
    group.finish();
}

criterion_group!(benches, control, channel_data);
criterion_main!(benches);
