//! What a peer does with its engines over hours (snownet 56, 57; testing LI-11).

use std::cell::Cell;
use std::net::IpAddr;
use std::time::Instant;

use connlib_wireguard::{
    Engine, EngineConfig, EngineError, HandshakeLimiter, Inbound, IndexTable, Noise, OpenJob,
    Opened, Peer, PeerConfig, PeerIndex, PrivateKey, Role, SealOutcome, SealSink, Timestamp,
    WallClock, classify,
};
use ip_packet::{PacketBatch, Single};

use crate::world::{CLIENT_IP, GATEWAY_IP, UNIX, VecSink, packet, secs};

thread_local! {
    static MADE: Cell<usize> = const { Cell::new(0) };
    static FORGOTTEN: Cell<usize> = const { Cell::new(0) };
    static CLEARED: Cell<usize> = const { Cell::new(0) };
}

/// The real engine, with the calls counted that only show inside.
struct Counting(Noise);

impl Engine for Counting {
    fn new(config: &EngineConfig, psk: [u8; 32], index: PeerIndex) -> Self {
        MADE.set(MADE.get() + 1);
        Self(Noise::new(config, psk, index))
    }

    fn seal<B: PacketBatch, S: SealSink>(
        &mut self,
        session: u32,
        batch: &mut B,
        sink: &mut S,
    ) -> SealOutcome {
        self.0.seal(session, batch, sink)
    }

    fn open(&mut self, jobs: &mut [OpenJob<'_>]) {
        self.0.open(jobs);
    }

    fn init(&mut self, timestamp: Timestamp) -> [u8; 148] {
        self.0.init(timestamp)
    }

    fn accept_init(&mut self, datagram: &[u8]) -> Result<[u8; 92], EngineError> {
        self.0.accept_init(datagram)
    }

    fn accept_response(&mut self, datagram: &[u8]) -> Result<[u8; 32], EngineError> {
        self.0.accept_response(datagram)
    }

    fn accept_cookie(&mut self, datagram: &[u8]) -> Result<(), EngineError> {
        self.0.accept_cookie(datagram)
    }

    fn forget(&mut self, session: u32) {
        FORGOTTEN.set(FORGOTTEN.get() + 1);
        self.0.forget(session);
    }

    fn clear(&mut self) {
        CLEARED.set(CLEARED.get() + 1);
        self.0.clear();
    }
}

/// A client and the gateway's peer for it, on a link without latency.
struct Pair {
    client: Peer<Counting>,
    gateway: Peer<Counting>,
}

impl Pair {
    fn new(
        seed: u8,
        keys: [&PrivateKey; 2],
        clock: &mut WallClock,
        indices: &mut IndexTable,
        now: Instant,
    ) -> Self {
        let [client, gateway] = [Role::Initiator, Role::Responder].map(|role| {
            let (own, other) = if role == Role::Initiator {
                (0, 1)
            } else {
                (1, 0)
            };
            let config = PeerConfig {
                role,
                private: keys[own],
                remote: keys[other].public(),
                psk: [7; 32],
                indices: indices.allocate().unwrap(),
                clock: clock.next_connection(),
                seed: [seed.wrapping_add(own as u8); 32],
            };
            let mut peer = Peer::new(config, now);
            peer.path_ready(now);
            peer
        });

        Self { client, gateway }
    }

    fn deadline(&self) -> Option<Instant> {
        [self.client.poll_timeout(), self.gateway.poll_timeout()]
            .into_iter()
            .flatten()
            .min()
    }

    fn step(&mut self, gate: &mut HandshakeLimiter, now: Instant) {
        self.client.handle_timeout(now);
        self.gateway.handle_timeout(now);
        self.settle(gate, now);
    }

    fn settle(&mut self, gate: &mut HandshakeLimiter, now: Instant) {
        loop {
            let up = self
                .client
                .poll_transmit()
                .map(|datagram| datagram.bytes.to_vec());
            if let Some(datagram) = &up {
                if classify(datagram) == Ok(Inbound::Init) {
                    gate.check(datagram, CLIENT_IP, now)
                        .expect("no cookie, no refusal");
                }
                open(&mut self.gateway, datagram, CLIENT_IP, now);
            }
            let down = self
                .gateway
                .poll_transmit()
                .map(|datagram| datagram.bytes.to_vec());
            if let Some(datagram) = &down {
                open(&mut self.client, datagram, GATEWAY_IP, now);
            }
            if up.is_none() && down.is_none() {
                break;
            }
        }
        while self
            .client
            .poll_event()
            .or(self.gateway.poll_event())
            .is_some()
        {}
    }

    fn ping(&mut self, gate: &mut HandshakeLimiter, now: Instant) -> bool {
        let mut sink = VecSink::default();
        self.client
            .seal(&mut Single::from(&packet(1)), now, &mut sink);
        let before = self.gateway.stats().rx_packets;
        for datagram in &sink.datagrams {
            open(&mut self.gateway, datagram, CLIENT_IP, now);
        }
        self.settle(gate, now);

        self.gateway.stats().rx_packets == before + 1
    }
}

fn open(peer: &mut Peer<Counting>, datagram: &[u8], from: IpAddr, now: Instant) -> Opened {
    peer.open(datagram, from, now, &mut [0; 2048]).unwrap()
}

fn keys(seed: u8) -> [PrivateKey; 2] {
    [
        PrivateKey::from_seed([seed; 32]),
        PrivateKey::from_seed([seed ^ 0x80; 32]),
    ]
}

/// The wall clock is read when the node is made, and only then: a clock set back cannot make the timestamps of later initiations
/// decrease, which the gateway would refuse.
#[test]
fn snownet_56_rekeys_do_not_depend_on_the_wall_clock() {
    let start = Instant::now();
    let [client, gateway] = &keys(1);
    let mut clock = WallClock::new(start, UNIX);
    let mut gate = HandshakeLimiter::new(gateway, Role::Responder);
    let mut indices = IndexTable::new([1; 32]);
    let mut pair = Pair::new(1, [client, gateway], &mut clock, &mut indices, start);
    pair.settle(&mut gate, start);
    while pair.client.stats().handshakes < 41 {
        let now = pair.deadline().unwrap();
        pair.step(&mut gate, now);
        assert!(pair.ping(&mut gate, now));
    }

    assert_eq!(
        pair.gateway.stats().handshakes,
        41,
        "every initiation is accepted"
    );
    assert_eq!(pair.client.stats().inits_sent, 41);
    assert_eq!(
        MADE.get(),
        3,
        "two engines at the client, one at the gateway"
    );
}

/// A session is erased when it expires or is replaced, not when the next one happens to need its place.
#[test]
fn at_most_two_sessions_live_at_the_gateway_and_one_per_engine_at_the_client() {
    let start = Instant::now();
    let [client, gateway] = &keys(5);
    let mut clock = WallClock::new(start, UNIX);
    let mut gate = HandshakeLimiter::new(gateway, Role::Responder);
    let mut indices = IndexTable::new([5; 32]);
    let mut pair = Pair::new(5, [client, gateway], &mut clock, &mut indices, start);
    pair.settle(&mut gate, start);
    while pair.client.stats().handshakes < 20 {
        let now = pair.deadline().unwrap();
        pair.step(&mut gate, now);
    }

    let made = 2 * 20;
    let left = made - FORGOTTEN.get() - CLEARED.get();
    assert!(left <= 4, "{left} sessions are left");
}

#[test]
fn snownet_57_a_partitioned_gateway_erases_its_sessions_and_waits() {
    let start = Instant::now();
    let [client, gateway] = &keys(2);
    let mut clock = WallClock::new(start, UNIX);
    let mut gate = HandshakeLimiter::new(gateway, Role::Responder);
    let mut indices = IndexTable::new([2; 32]);
    let mut pair = Pair::new(2, [client, gateway], &mut clock, &mut indices, start);
    pair.settle(&mut gate, start);
    assert!(pair.gateway.is_usable(start));
    assert_eq!(CLEARED.get(), 0);

    let mut deadlines = Vec::new();
    while let Some(at) = pair.gateway.poll_timeout() {
        pair.gateway.handle_timeout(at);
        deadlines.push((at - start).as_secs());
        assert_eq!(pair.gateway.poll_event(), None, "silence is no failure");
    }
    assert_eq!(
        deadlines,
        [180, 540],
        "expiry, then the erasure of all keys, then nothing"
    );
    assert_eq!((FORGOTTEN.get(), CLEARED.get()), (1, 1));
    assert!(!pair.gateway.is_usable(start));

    // The client made its connection again, the gateway kept its own.
    let later = start + secs(900);
    let mut again = Pair::new(3, [client, gateway], &mut clock, &mut indices, later);
    std::mem::swap(&mut again.gateway, &mut pair.gateway);
    again.settle(&mut gate, later);
    assert!(again.ping(&mut gate, later));
}

#[test]
fn the_client_erases_expired_sessions() {
    let start = Instant::now();
    let [client, gateway] = &keys(3);
    let mut clock = WallClock::new(start, UNIX);
    let mut gate = HandshakeLimiter::new(gateway, Role::Responder);
    let mut indices = IndexTable::new([3; 32]);
    let mut pair = Pair::new(4, [client, gateway], &mut clock, &mut indices, start);
    pair.settle(&mut gate, start);
    while let Some(at) = pair.client.poll_timeout() {
        pair.client.handle_timeout(at);
        while pair.client.poll_transmit().is_some() || pair.client.poll_event().is_some() {}
    }

    assert_eq!(
        CLEARED.get(),
        1 + 2,
        "the session at 180 s, both engines at 540 s"
    );
}

/// testing LI-11: fifty tunnels, all connected at once, renew for an hour without a single cookie.
#[test]
fn testing_li_11_fifty_tunnels_renew_for_an_hour() {
    let start = Instant::now();
    let gateway = PrivateKey::from_seed([0xee; 32]);
    let mut clock = WallClock::new(start, UNIX);
    let mut gate = HandshakeLimiter::new(&gateway, Role::Responder);
    let mut indices = IndexTable::new([9; 32]);
    let mut pairs: Vec<Pair> = (0..50)
        .map(|seed| {
            let client = PrivateKey::from_seed([seed; 32]);
            let mut pair = Pair::new(
                seed * 2,
                [&client, &gateway],
                &mut clock,
                &mut indices,
                start,
            );
            pair.settle(&mut gate, start);
            pair
        })
        .collect();

    while let Some(now) = pairs
        .iter()
        .filter_map(Pair::deadline)
        .min()
        .filter(|now| *now < start + secs(3600))
    {
        for pair in pairs
            .iter_mut()
            .filter(|pair| pair.deadline().is_some_and(|at| at <= now))
        {
            pair.step(&mut gate, now);
        }
    }
    let rekeys: u64 = pairs
        .iter()
        .map(|pair| pair.gateway.stats().handshakes)
        .sum();
    assert!(rekeys >= 50 * 22, "{rekeys}");
}
