//! A client, a relay and a NAT, in virtual time.

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
pub(crate) const PEERS: [&str; 2] = ["203.0.113.9:9", "[2001:db8:9::9]:9"];

pub(crate) fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

pub(crate) fn secs(seconds: u64) -> Duration {
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
pub(crate) struct Net {
    pub(crate) relay: Server,
    pub(crate) client: Allocation,
    /// The client as the relay sees it.
    pub(crate) source: SocketAddr,
    pub(crate) now: Instant,
}

impl Net {
    pub(crate) fn new() -> Self {
        let now = Instant::now();
        let public = PublicAddresses::Dual(
            [198, 51, 100, 7].into(),
            [0x2001, 0xdb8, 7, 0, 0, 0, 0, 7].into(),
        );
        let unix_now = secs(UNIX_NOW);
        let relay = Server::new(Config::portal(public), [7; 32], now, unix_now).unwrap();
        let client = client(&relay, "salt", now);
        let mut net = Self {
            relay,
            client,
            source: addr("192.0.2.1:40000"),
            now,
        };
        net.exchange();
        net
    }

    /// Another client takes the place of this one, with another address and user name.
    pub(crate) fn replace_client(&mut self) {
        self.source.set_port(self.source.port() + 1);
        self.client = client(&self.relay, "newcomer", self.now);
        self.exchange();
    }

    /// Carries datagrams until nobody has any.
    pub(crate) fn exchange(&mut self) {
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
    pub(crate) fn advance(&mut self, by: Duration) {
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
    pub(crate) fn ping(&mut self, peer: SocketAddr) -> bool {
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
    pub(crate) fn recovers_within(&mut self, most: Duration) -> Duration {
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

/// A client that starts to allocate.
fn client(relay: &Server, salt: &str, now: Instant) -> Allocation {
    let expiry = UNIX_NOW + 100_000;
    let credentials = Credentials {
        username: format!("{expiry}:{salt}"),
        password: relay_password(expiry, relay.stamp_secret().expose(), salt),
        realm: "firezone".to_owned(),
    };
    let address = Address::V4(RELAY.parse().unwrap());
    Allocation::new(address, credentials, "test", [1; 32], now)
}
