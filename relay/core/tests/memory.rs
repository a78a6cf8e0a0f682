//! What a relay costs in memory: per idle allocation, and under floods of strangers (C-13).
#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]
#![allow(clippy::disallowed_methods, reason = "virtual time starts somewhere")]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    net::SocketAddr,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use connlib_stun::{
    Allocate, AuthAttributes, ChannelBind, ChannelNumber, Envelope, Family, Key, Outcome, Request,
    RequestBody, Response, TransactionId, relay_password,
};
use relay_core::{Command, Config, Forwarder, PublicAddresses, Route, Server, Train};

const UNIX_NOW: u64 = 1_700_000_000;

/// The system's allocator with a counter of what is in use.
struct Counting;

static IN_USE: AtomicUsize = AtomicUsize::new(0);
/// Tests of this file measure one after the other.
static MEASURING: Mutex<()> = Mutex::new(());

// SAFETY: every call goes to the system's allocator unchanged; beside it there is only a counter.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        IN_USE.fetch_add(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        IN_USE.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller keeps the contract of `dealloc`.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

struct Nobody;

impl Forwarder for Nobody {
    fn forward(&mut self, _: Route, _: &[u8]) {}
}

struct Relay {
    server: Server,
    now: Instant,
    transactions: u64,
}

impl Relay {
    fn new() -> Self {
        let public = PublicAddresses::Dual(
            [198, 51, 100, 7].into(),
            [0x2001, 0xdb8, 7, 0, 0, 0, 0, 7].into(),
        );
        let now = Instant::now();
        let unix_now = Duration::from_secs(UNIX_NOW);
        let server = Server::new(Config::portal(public), [7; 32], now, unix_now).unwrap();
        Self {
            server,
            now,
            transactions: 0,
        }
    }

    /// Hands a datagram in; returns the last reply.
    fn exchange(&mut self, client: SocketAddr, bytes: &[u8]) -> Option<Vec<u8>> {
        let train = Train::single(bytes);
        self.server
            .handle_client_input(client, train, self.now, &mut Nobody);
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

    fn ask(
        &mut self,
        client: SocketAddr,
        user: &(String, Key),
        nonce: Option<String>,
        body: RequestBody,
    ) -> Outcome {
        self.transactions += 1;
        let mut id = [0; 12];
        id[..8].copy_from_slice(&self.transactions.to_be_bytes());
        let request = Request {
            transaction_id: TransactionId::new(id),
            auth: AuthAttributes {
                username: Some(user.0.clone()),
                realm: Some("firezone".to_owned()),
                nonce,
            },
            software: None,
            body,
        };
        let bytes = request.encode(Some(&user.1)).unwrap();
        let reply = self.exchange(client, &bytes).unwrap();
        Response::decode(&Envelope::parse(&reply).unwrap())
            .unwrap()
            .outcome
    }

    /// A user of a portal: a dual-stack allocation with two channels.
    fn connect(&mut self, index: u32) {
        let client = SocketAddr::from(((0x0A00_0000 + index).to_be_bytes(), 40_000));
        let secret = self.server.stamp_secret().expose().to_owned();
        // As long as the salts that portals make.
        let salt = format!("{index:043}");
        let expiry = UNIX_NOW + 100_000;
        let username = format!("{expiry}:{salt}");
        let password = relay_password(expiry, &secret, &salt);
        let key = Key::long_term(&username, "firezone", &password);
        let user = (username, key);
        let allocate = RequestBody::Allocate(Allocate {
            requested_transport: Some(Allocate::UDP),
            additional_family: Some(Family::V6),
            ..Allocate::default()
        });
        let nonce = match self.ask(client, &user, None, allocate.clone()) {
            Outcome::Error(error) => error.nonce,
            Outcome::Success(success) => panic!("{success:?}"),
        };
        let allocated = self.ask(client, &user, nonce.clone(), allocate);
        assert!(matches!(allocated, Outcome::Success(_)), "{allocated:?}");
        for (number, peer) in [(0x4000, "203.0.113.9:9"), (0x4001, "[2001:db8:9::9]:9")] {
            let bind = RequestBody::ChannelBind(ChannelBind {
                number: ChannelNumber::new(number),
                peer: Some(peer.parse().unwrap()),
            });
            let bound = self.ask(client, &user, nonce.clone(), bind);
            assert!(matches!(bound, Outcome::Success(_)), "{bound:?}");
        }
    }
}

#[test]
fn an_idle_allocation_costs_less_than_four_kilobytes() {
    const ALLOCATIONS: u32 = 4000;
    let _alone = MEASURING.lock();
    let mut relay = Relay::new();
    let before = IN_USE.load(Ordering::Relaxed);
    for index in 0..ALLOCATIONS {
        relay.connect(index);
    }
    let each = (IN_USE.load(Ordering::Relaxed) - before) / ALLOCATIONS as usize;
    println!("{each} bytes per allocation with two channels");
    assert_eq!(relay.server.allocation_count(), ALLOCATIONS as usize);
    assert!(each < 4096, "{each} bytes");

    // What has expired costs next to nothing: tables keep their size.
    relay.now += Duration::from_secs(10_000);
    relay.server.handle_timeout(relay.now);
    while relay.server.poll_command().is_some() {}
    assert_eq!(relay.server.allocation_count(), 0);
    for index in 0..ALLOCATIONS {
        relay.connect(index + ALLOCATIONS);
    }
    let again = (IN_USE.load(Ordering::Relaxed) - before) / ALLOCATIONS as usize;
    assert!(again <= each + each / 4, "{each}, then {again} bytes");
}

#[test]
fn relay_13_a_million_challenges_cost_no_memory() {
    let _alone = MEASURING.lock();
    let mut relay = Relay::new();
    // An empty Refresh: the smallest request that is challenged.
    let mut request = vec![0x00, 0x04, 0, 0, 0x21, 0x12, 0xA4, 0x42];
    request.extend_from_slice(&[9; 12]);
    let mut flood = |from: u32, to: u32| {
        for source in from..to {
            let source = SocketAddr::from((source.to_be_bytes(), 1000));
            relay.exchange(source, &request);
            relay.now += Duration::from_micros(10);
        }
        IN_USE.load(Ordering::Relaxed)
    };
    let before = flood(1, 1000);
    let after = flood(1000, 1_000_000);
    assert!(after <= before + 1024, "{before} bytes, then {after}");
}
