//! The real relay's state machine on the simulated network, with switches for what relays do wrong.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::time::{Duration, Instant};

use connlib_snownet::RelayConfig;
use connlib_stun::channel::encode_header;
use connlib_stun::{Class, Envelope, Method, relay_password};
use netsim::HostId;
use relay_core::{
    AllocationPort, ClientSocket, Command, Config, Forwarder, PublicAddresses, Route, Server,
    StampSecret, Train,
};

pub const TURN_PORT: u16 = 3478;

/// Wall clock at the start of every test.
const UNIX_START: Duration = Duration::from_secs(1_700_000_000);

/// When the credentials end: after every test.
const EXPIRY: u64 = 9_999_999_999;

/// A datagram that the relay sends: source, destination, payload.
pub type Output = (SocketAddr, SocketAddr, Vec<u8>);

pub struct Relay {
    pub id: u32,
    pub host: HostId,
    pub v4: Option<Ipv4Addr>,
    pub v6: Option<Ipv6Addr>,
    /// A dead relay swallows everything.
    pub alive: bool,
    /// Requests seen, by method.
    pub requests: Vec<(Instant, Method)>,
    incarnation: u8,
    server: Server,
}

impl Relay {
    pub fn new(
        id: u32,
        host: HostId,
        v4: Option<Ipv4Addr>,
        v6: Option<Ipv6Addr>,
        now: Instant,
    ) -> Self {
        Self {
            id,
            host,
            v4,
            v6,
            alive: true,
            requests: Vec::new(),
            incarnation: 0,
            server: server(v4, v6, id as u8, None, now),
        }
    }

    pub fn config(&self) -> RelayConfig<u32> {
        let secret = self.server.stamp_secret();
        RelayConfig {
            id: self.id,
            v4: self.v4.map(|ip| SocketAddrV4::new(ip, TURN_PORT)),
            v6: self.v6.map(|ip| SocketAddrV6::new(ip, TURN_PORT, 0, 0)),
            username: format!("{EXPIRY}:salt"),
            password: relay_password(EXPIRY, secret.expose(), "salt"),
            realm: "firezone".to_owned(),
        }
    }

    /// Forgets all state and draws a new secret, as a new process under the same identity would.
    pub fn restart(&mut self, now: Instant) {
        self.incarnation += 1;
        let seed = self.id as u8 ^ self.incarnation.wrapping_mul(31);
        self.server = server(self.v4, self.v6, seed, None, now);
    }

    /// Forgets all state but its secret, as a new process with the same secret would.
    pub fn forget(&mut self, now: Instant) {
        self.incarnation += 1;
        let seed = self.id as u8 ^ self.incarnation.wrapping_mul(31);
        let secret = self.server.stamp_secret().clone();
        self.server = server(self.v4, self.v6, seed, Some(secret), now);
    }

    /// Allocations that exist now.
    pub fn allocations(&self) -> usize {
        self.server.allocation_count()
    }

    /// Refuses new allocations from now on.
    pub fn refuse_allocations(&mut self) {
        self.server.drain();
    }

    pub fn handle(
        &mut self,
        to: SocketAddr,
        from: SocketAddr,
        datagram: &[u8],
        now: Instant,
    ) -> Vec<Output> {
        if !self.alive {
            return Vec::new();
        }
        let mut forwarded = Forwarded::default();
        let train = Train::single(datagram);
        if to.port() == TURN_PORT {
            self.note_request(datagram, now);
            self.server
                .handle_client_input(from, train, now, &mut forwarded);
        } else {
            let port = AllocationPort::new(to.port());
            self.server
                .handle_peer_input(port, from, train, now, &mut forwarded);
        }
        let mut outputs = self.carry_out(now);
        for (route, payload) in forwarded.payloads {
            outputs.push(self.output(route, payload));
        }
        outputs
    }

    fn carry_out(&mut self, now: Instant) -> Vec<Output> {
        let mut outputs = Vec::new();
        while let Some(command) = self.server.poll_command() {
            match command {
                Command::Send { to, bytes } => {
                    outputs.push((self.server_socket(to), to.address(), bytes));
                }
                Command::CreateAllocation { port, family } => {
                    self.server.handle_port_bound(port, family, now);
                }
                Command::FreeAllocation { .. } => {}
                Command::UserGained { .. } | Command::UserLost { .. } => {
                    unreachable!("this relay is one server by itself")
                }
            }
        }
        outputs
    }

    fn output(&self, route: Route, payload: Vec<u8>) -> Output {
        match route {
            Route::ToPeer { port, peer } => {
                let source = SocketAddr::new(self.own_ip(peer.address()), port.get());
                (source, peer.address(), payload)
            }
            Route::ToClient { client, number } => {
                let mut framed = encode_header(number, payload.len() as u16).to_vec();
                framed.extend(payload);
                (self.server_socket(client), client.address(), framed)
            }
            Route::ToSibling { .. } => unreachable!("this relay is one server by itself"),
        }
    }

    fn note_request(&mut self, datagram: &[u8], now: Instant) {
        if let Ok(envelope) = Envelope::parse(datagram)
            && envelope.class() == Class::Request
        {
            self.requests.push((now, envelope.method()));
        }
    }

    fn server_socket(&self, client: ClientSocket) -> SocketAddr {
        SocketAddr::new(self.own_ip(client.address()), TURN_PORT)
    }

    /// Our address of the family of `other`.
    fn own_ip(&self, other: SocketAddr) -> IpAddr {
        let v4 = self.v4.map(IpAddr::V4);
        let v6 = self.v6.map(IpAddr::V6);
        let own = if other.is_ipv4() { v4 } else { v6 };
        own.expect("the relay serves this family")
    }
}

#[derive(Default)]
struct Forwarded {
    payloads: Vec<(Route, Vec<u8>)>,
}

impl Forwarder for Forwarded {
    fn forward(&mut self, route: Route, payload: &[u8]) {
        self.payloads.push((route, payload.to_vec()));
    }
}

fn server(
    v4: Option<Ipv4Addr>,
    v6: Option<Ipv6Addr>,
    seed: u8,
    stamp_secret: Option<StampSecret>,
    now: Instant,
) -> Server {
    let public = PublicAddresses::new(v4, v6).unwrap();
    let config = Config {
        // All nodes of a test share one user.
        allocations_per_username: 0,
        stamp_secret,
        ..Config::portal(public)
    };
    Server::new(config, [seed; 32], now, UNIX_START).unwrap()
}
