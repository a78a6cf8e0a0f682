//! The TURN client of this workspace against the relay, for twenty minutes of virtual time (C-56).
#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]
#![allow(clippy::disallowed_methods, reason = "virtual time starts somewhere")]

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use connlib_stun::{channel, relay_password};
use connlib_turn_client::{Allocation, Credentials, Server as Address};
use relay_core::{
    AllocationPort, Command, Config, Forwarder, PublicAddresses, Route, Server, Train,
};

const UNIX_NOW: u64 = 1_700_000_000;
const RELAY: &str = "198.51.100.7:3478";
const PEERS: [&str; 2] = ["203.0.113.9:9", "[2001:db8:9::9]:9"];

fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[derive(Default)]
struct Sink(Vec<(Route, Vec<u8>)>);

impl Forwarder for Sink {
    fn forward(&mut self, route: Route, payload: &[u8]) {
        self.0.push((route, payload.to_vec()));
    }
}

/// A client, a relay and nothing in between but a NAT that may change the client's address.
struct Net {
    relay: Server,
    client: Allocation,
    /// The client as the relay sees it.
    source: SocketAddr,
    now: Instant,
}

impl Net {
    fn new() -> Self {
        let now = Instant::now();
        let public = PublicAddresses::Dual(
            [198, 51, 100, 7].into(),
            [0x2001, 0xdb8, 7, 0, 0, 0, 0, 7].into(),
        );
        let unix_now = secs(UNIX_NOW);
        let relay = Server::new(Config::portal(public), [7; 32], now, unix_now).unwrap();
        let expiry = UNIX_NOW + 100_000;
        let credentials = Credentials {
            username: format!("{expiry}:salt"),
            password: relay_password(expiry, relay.stamp_secret().expose(), "salt"),
            realm: "firezone".to_owned(),
        };
        let address = Address::V4(RELAY.parse().unwrap());
        let client = Allocation::new(address, credentials, "test", [1; 32], now);
        let mut net = Self {
            relay,
            client,
            source: addr("192.0.2.1:40000"),
            now,
        };
        net.exchange();
        net
    }

    /// Carries datagrams until nobody has any.
    fn exchange(&mut self) {
        loop {
            // Candidates come and go; nobody is interested here.
            while self.client.poll_event().is_some() {}
            while let Some(transmit) = self.client.poll_transmit() {
                assert_eq!(transmit.dst, addr(RELAY));
                self.hand_in(&transmit.payload);
            }
            let Some(command) = self.relay.poll_command() else {
                return;
            };
            match command {
                // Replies to an address that the NAT has given up are lost.
                Command::Send { to, bytes } if to.address() == self.source => {
                    let local = addr("10.0.0.2:5000");
                    self.client
                        .handle_input(local, addr(RELAY), &bytes, self.now);
                }
                Command::CreateAllocation { port, family } => {
                    self.relay.handle_port_bound(port, family, self.now);
                }
                Command::Send { .. }
                | Command::FreeAllocation { .. }
                | Command::UserGained { .. }
                | Command::UserLost { .. } => {}
            }
        }
    }

    fn hand_in(&mut self, bytes: &[u8]) -> Vec<(Route, Vec<u8>)> {
        let mut sink = Sink::default();
        let train = Train::single(bytes);
        self.relay
            .handle_client_input(self.source, train, self.now, &mut sink);
        sink.0
    }

    /// Lets time pass, deadline by deadline.
    fn advance(&mut self, by: Duration) {
        let until = self.now + by;
        loop {
            let of_client = self.client.poll_timeout().map(|(at, _)| at);
            let deadlines = [of_client, self.relay.poll_timeout()];
            let next = deadlines.into_iter().flatten().min();
            let next = next.filter(|at| *at <= until);
            self.now = next.unwrap_or(until).max(self.now);
            self.client.handle_timeout(self.now);
            self.relay.handle_timeout(self.now);
            self.exchange();
            if next.is_none() {
                return;
            }
        }
    }

    /// Sends a payload to the peer and back again; whether both arrive.
    fn ping(&mut self, peer: SocketAddr) -> bool {
        let now = self.now;
        let framed = self.client.encode_channel_header(peer, 4, now);
        // A bind that this caused goes first.
        self.exchange();
        let Some(framed) = framed else {
            return false;
        };
        let forwarded = self.hand_in(&[&framed.header[..], b"ping"].concat());
        let [(Route::ToPeer { port, peer: to }, payload)] = &forwarded[..] else {
            return false;
        };
        assert_eq!((to.address(), &payload[..]), (peer, &b"ping"[..]));
        self.pong(*port, peer)
    }

    fn pong(&mut self, port: AllocationPort, peer: SocketAddr) -> bool {
        let mut sink = Sink::default();
        let train = Train::single(b"pong");
        self.relay
            .handle_peer_input(port, peer, train, self.now, &mut sink);
        let [(Route::ToClient { client, number }, payload)] = &sink.0[..] else {
            return false;
        };
        let header = channel::encode_header(*number, payload.len() as u16);
        let datagram = [&header[..], payload].concat();
        let received = self.client.decapsulate(addr(RELAY), &datagram, self.now);
        client.address() == self.source
            && received.is_some_and(|it| it.peer == peer && it.payload == b"pong")
    }

    /// Pings both peers every second until both answer; how long that took.
    fn recovers_within(&mut self, most: Duration) -> Duration {
        let since = self.now;
        loop {
            if PEERS.map(|peer| self.ping(addr(peer))) == [true; 2] {
                return self.now - since;
            }
            assert!(
                self.now - since < most,
                "no data after {:?}",
                self.now - since
            );
            self.advance(secs(1));
        }
    }
}

#[test]
fn relay_56_dual_stack_for_twenty_minutes() {
    let mut net = Net::new();
    let relayed: Vec<_> = net
        .client
        .relayed_candidates()
        .map(|it| it.addr())
        .collect();
    assert_eq!(relayed.len(), 2);
    assert_eq!(relayed[0].port(), relayed[1].port());
    net.recovers_within(secs(1));
    // Nonces become stale twice in this time, and channels and the allocation have to be refreshed.
    for _ in 0..60 {
        net.advance(secs(20));
        assert_eq!(PEERS.map(|peer| net.ping(addr(peer))), [true; 2]);
    }
    let counters = net.relay.counters();
    assert!(
        counters
            .responses
            .iter()
            .any(|((_, code), _)| *code == Some(438))
    );
    assert_eq!(net.relay.allocation_count(), 1);
}

#[test]
fn relay_56_idle_allocations_live_on_keep_alives() {
    let mut net = Net::new();
    net.advance(secs(1200));
    assert!(net.client.has_allocation());
    net.recovers_within(secs(1));
}

#[test]
fn relay_56_the_relay_forgets_the_allocation() {
    let mut net = Net::new();
    net.recovers_within(secs(1));
    let port = net
        .client
        .relayed_candidates()
        .next()
        .unwrap()
        .addr()
        .port();
    let (port, family) = (AllocationPort::new(port), relay_core::Family::V4);
    net.relay.handle_port_failed(port, family, net.now);
    net.exchange();
    assert_eq!(net.relay.allocation_count(), 0);
    // The next refresh or bind, at half of the life time, finds out (437).
    net.recovers_within(secs(310));
    assert_eq!(net.relay.allocation_count(), 1);
}

#[test]
fn relay_56_the_nat_changes_the_port_and_changes_it_back() {
    let mut net = Net::new();
    net.recovers_within(secs(1));
    for port in [40_001, 40_000, 40_001] {
        net.source.set_port(port);
        net.recovers_within(secs(310));
        // One per user: what was made for the other address is gone.
        assert_eq!(net.relay.allocation_count(), 1);
        net.advance(secs(30));
    }
}
