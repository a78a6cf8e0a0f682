//! What a datagram and a request cost: `cargo bench -p relay-core`.
#![allow(
    missing_docs,
    reason = "`criterion_main!` makes undocumented functions"
)]
#![allow(
    clippy::unwrap_used,
    reason = "a benchmark may stop at the first surprise"
)]
#![allow(clippy::disallowed_methods, reason = "a benchmark has a clock")]

use std::{
    hint::black_box,
    net::SocketAddr,
    time::{Duration, Instant},
};

use connlib_stun::{
    Allocate, AuthAttributes, ChannelBind, ChannelNumber, Envelope, Family, Key, Outcome, Refresh,
    Request, RequestBody, Response, TransactionId, channel, relay_password,
};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use relay_core::{
    AllocationPort, Command, Config, Forwarder, PublicAddresses, Route, Server, Train,
};

const UNIX_NOW: u64 = 1_700_000_000;
/// Payload of a full WireGuard datagram.
const PAYLOAD: usize = 1312;
/// Clients with a channel each, so that tables have a realistic size.
const CLIENTS: u32 = 1000;

struct Sink(usize);

impl Forwarder for Sink {
    fn forward(&mut self, route: Route, payload: &[u8]) {
        black_box(route);
        self.0 += payload.len();
    }
}

struct Bench {
    server: Server,
    now: Instant,
    username: String,
    key: Key,
    transactions: u32,
}

impl Bench {
    fn new() -> Self {
        let public = PublicAddresses::Dual(
            [198, 51, 100, 7].into(),
            [0x2001, 0xdb8, 0, 0, 0, 0, 0, 7].into(),
        );
        let mut config = Config::portal(public);
        config.allocations_per_username = 0;
        let now = Instant::now();
        let server = Server::new(config, [7; 32], now, Duration::from_secs(UNIX_NOW)).unwrap();
        let secret = server.stamp_secret().expose().to_owned();
        let expiry = UNIX_NOW + 100_000;
        let username = format!("{expiry}:salt");
        let key = Key::long_term(
            &username,
            "firezone",
            &relay_password(expiry, &secret, "salt"),
        );
        Self {
            server,
            now,
            username,
            key,
            transactions: 0,
        }
    }

    fn signed(&mut self, nonce: Option<String>, body: RequestBody) -> Vec<u8> {
        self.transactions += 1;
        let mut id = [0; 12];
        id[..4].copy_from_slice(&self.transactions.to_be_bytes());
        let request = Request {
            transaction_id: TransactionId::new(id),
            auth: AuthAttributes {
                username: Some(self.username.clone()),
                realm: Some("firezone".to_owned()),
                nonce,
            },
            software: None,
            body,
        };
        request.encode(Some(&self.key)).unwrap()
    }

    /// Hands a request in and returns the reply.
    fn exchange(&mut self, client: SocketAddr, bytes: &[u8]) -> Option<Vec<u8>> {
        let train = Train::single(bytes);
        self.server
            .handle_client_input(client, train, self.now, &mut Sink(0));
        let mut reply = None;
        while let Some(command) = self.server.poll_command() {
            match command {
                Command::Send { bytes, .. } => reply = Some(bytes),
                Command::CreateAllocation { port, family } => {
                    self.server.handle_port_bound(port, family, self.now);
                }
                Command::FreeAllocation { .. }
                | Command::UserGained { .. }
                | Command::UserLost { .. } => {}
            }
        }
        reply
    }

    fn nonce(&mut self, client: SocketAddr) -> Option<String> {
        let bytes = self.signed(None, RequestBody::Refresh(Refresh::default()));
        let reply = self.exchange(client, &bytes).unwrap();
        let response = Response::decode(&Envelope::parse(&reply).unwrap()).unwrap();
        match response.outcome {
            Outcome::Error(error) => error.nonce,
            Outcome::Success(_) => None,
        }
    }

    /// Allocates, and binds 0x4000 to the peer; returns the allocation's port.
    fn connect(&mut self, client: SocketAddr, peer: SocketAddr) -> AllocationPort {
        let nonce = self.nonce(client);
        let bytes = self.signed(nonce.clone(), allocate());
        let reply = self.exchange(client, &bytes).unwrap();
        let response = Response::decode(&Envelope::parse(&reply).unwrap()).unwrap();
        let Outcome::Success(connlib_stun::Success::Allocate { relayed, .. }) = response.outcome
        else {
            panic!("refused");
        };
        let bind = ChannelBind {
            number: Some(ChannelNumber::MIN),
            peer: Some(peer),
        };
        let bytes = self.signed(nonce, RequestBody::ChannelBind(bind));
        self.exchange(client, &bytes).unwrap();
        AllocationPort::new(relayed[0].port())
    }
}

fn allocate() -> RequestBody {
    RequestBody::Allocate(Allocate {
        requested_transport: Some(Allocate::UDP),
        additional_family: Some(Family::V6),
        ..Allocate::default()
    })
}

fn client(index: u32) -> SocketAddr {
    ((0xC000_0200 + index).to_be_bytes(), 40_000).into()
}

fn data_path(criterion: &mut Criterion) {
    let mut bench = Bench::new();
    let peer: SocketAddr = ([203, 0, 113, 9], 9).into();
    let mut port = AllocationPort::new(0);
    for index in 0..CLIENTS {
        port = bench.connect(client(index), peer);
    }
    let (client, now) = (client(CLIENTS - 1), bench.now);
    let mut group = criterion.benchmark_group("channel data");
    for segments in [1, 48] {
        let mut train = Vec::new();
        for _ in 0..segments {
            train.extend_from_slice(&channel::encode_header(ChannelNumber::MIN, PAYLOAD as u16));
            train.extend_from_slice(&[7; PAYLOAD]);
        }
        group.throughput(Throughput::Elements(segments));
        let mut sink = Sink(0);
        group.bench_function(format!("client to peer, train of {segments}"), |b| {
            b.iter(|| {
                let train = Train::new(black_box(&train), PAYLOAD + channel::HEADER_LEN);
                bench
                    .server
                    .handle_client_input(client, train, now, &mut sink);
            });
        });
        group.bench_function(format!("peer to client, train of {segments}"), |b| {
            b.iter(|| {
                let train = Train::new(black_box(&train), PAYLOAD + channel::HEADER_LEN);
                bench
                    .server
                    .handle_peer_input(port, peer, train, now, &mut sink);
            });
        });
        assert!(sink.0 > 0);
    }
}

fn requests(criterion: &mut Criterion) {
    let mut bench = Bench::new();
    let client = client(0);
    let nonce = bench.nonce(client);
    let delete = RequestBody::Refresh(Refresh {
        lifetime: Some(0),
        ..Refresh::default()
    });
    criterion.bench_function("authenticated Allocate, then deletion", |b| {
        b.iter(|| {
            let bytes = bench.signed(nonce.clone(), allocate());
            bench.exchange(client, &bytes).unwrap();
            let bytes = bench.signed(nonce.clone(), delete.clone());
            bench.exchange(client, &bytes).unwrap();
        });
    });
    criterion.bench_function("challenge", |b| {
        let bytes = bench.signed(None, allocate());
        b.iter(|| bench.exchange(client, &bytes).unwrap());
    });
}

criterion_group!(benches, data_path, requests);
criterion_main!(benches);
