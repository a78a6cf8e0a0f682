//! Conformance tests on the state machine, by the numbers of the relay specification's list (`relay_12_…` is C-12).

mod allocate;
mod auth;
mod channel;
mod flood;
mod model;
mod open;
mod shards;

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    time::{Duration, Instant},
};

use connlib_stun::{
    Allocate, AuthAttributes, ChannelBind, ChannelNumber, CreatePermission, Envelope, ErrorCode,
    ErrorResponse, Family, Integrity, Key, Outcome, Refresh, Request, RequestBody, Response,
    Success, TransactionId, channel::encode_header, relay_password,
};

use crate::{
    AllocationPort, ClientSocket, Command, Config, Forwarder, PeerSocket, PortRange,
    PublicAddresses, Route, Server, Train,
};

/// Wall-clock time at the start of every test.
const UNIX_START: u64 = 1_700_000_000;
const PUBLIC_V4: &str = "198.51.100.7";
const PUBLIC_V6: &str = "2001:db8:7::7";
const FIRST_PORT: u16 = 49152;

fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn number(number: u16) -> ChannelNumber {
    ChannelNumber::new(number).unwrap()
}

/// A relay with a driver that binds every socket, unless told otherwise, and remembers what happens.
struct World {
    server: Server,
    start: Instant,
    now: Instant,
    forwarded: Vec<(Route, Vec<u8>)>,
    replies: Vec<(SocketAddr, Vec<u8>)>,
    /// Sockets in the order in which they were bound and closed.
    log: Vec<String>,
    bound: BTreeSet<(u16, Family)>,
    /// Ports that somebody else holds.
    occupied: BTreeSet<u16>,
    transactions: u128,
}

#[derive(Default)]
struct Sink(Vec<(Route, Vec<u8>)>);

impl Forwarder for Sink {
    fn forward(&mut self, route: Route, payload: &[u8]) {
        self.0.push((route, payload.to_vec()));
    }
}

impl World {
    /// Dual-stack, portal profile, with this many ports.
    fn new(ports: u16) -> Self {
        Self::with(|config| config.ports = range(ports))
    }

    fn with(change: impl FnOnce(&mut Config)) -> Self {
        let public = PublicAddresses::Dual(PUBLIC_V4.parse().unwrap(), PUBLIC_V6.parse().unwrap());
        let mut config = Config::portal(public);
        config.ports = range(1);
        change(&mut config);
        Self::of(config)
    }

    #[allow(clippy::disallowed_methods, reason = "virtual time starts somewhere")]
    fn of(config: Config) -> Self {
        let start = Instant::now();
        let server = Server::new(config, [7; 32], start, secs(UNIX_START)).unwrap();
        Self {
            server,
            start,
            now: start,
            forwarded: Vec::new(),
            replies: Vec::new(),
            log: Vec::new(),
            bound: BTreeSet::new(),
            occupied: BTreeSet::new(),
            transactions: 0,
        }
    }

    fn advance(&mut self, by: Duration) {
        self.now += by;
        self.server.handle_timeout(self.now);
        self.execute();
        assert!(self.server.poll_timeout().is_none_or(|at| at > self.now));
    }

    fn client_sends(&mut self, client: SocketAddr, bytes: &[u8]) {
        self.client_sends_train(client, bytes, bytes.len());
    }

    fn client_sends_train(&mut self, client: SocketAddr, bytes: &[u8], segment_size: usize) {
        let mut sink = Sink::default();
        let train = Train::new(bytes, segment_size);
        self.server
            .handle_client_input(client, train, self.now, &mut sink);
        self.forwarded.append(&mut sink.0);
        self.execute();
    }

    fn peer_sends(&mut self, port: u16, peer: SocketAddr, payload: &[u8]) {
        let mut sink = Sink::default();
        let port = AllocationPort::new(port);
        self.server
            .handle_peer_input(port, peer, Train::single(payload), self.now, &mut sink);
        self.forwarded.append(&mut sink.0);
        self.execute();
    }

    fn execute(&mut self) {
        while let Some(command) = self.server.poll_command() {
            match command {
                Command::Send { to, bytes } => self.replies.push((to.address(), bytes)),
                Command::CreateAllocation { port, family } => {
                    if self.occupied.contains(&port.get()) {
                        self.log.push(format!("occupied {port} {family:?}"));
                        self.server.handle_port_failed(port, family, self.now);
                    } else {
                        self.log.push(format!("bind {port} {family:?}"));
                        assert!(self.bound.insert((port.get(), family)));
                        self.server.handle_port_bound(port, family, self.now);
                    }
                }
                Command::FreeAllocation { port, family } => {
                    self.log.push(format!("free {port} {family:?}"));
                    assert!(self.bound.remove(&(port.get(), family)));
                }
                Command::UserGained { username, client } => {
                    self.log.push(format!("gained {username} {client}"));
                }
                Command::UserLost { username, client } => {
                    self.log.push(format!("lost {username} {client}"));
                }
            }
        }
        self.check_invariants();
    }

    /// Relay spec §1.2.
    fn check_invariants(&self) {
        let clients = self.server.allocations.check();
        let mut channels = Vec::new();
        for (client, port) in clients {
            let allocation = self.server.allocations.get(client).unwrap();
            for family in allocation.families.iter() {
                assert!(self.bound.contains(&(port.get(), family)));
            }
            channels.extend(allocation.channels.iter().map(|number| (client, *number)));
        }
        self.server.channels.check(&channels);
        let timers = self.server.allocations.len() + channels.len();
        assert_eq!(self.server.timers.len(), timers);
    }

    fn transaction(&mut self) -> TransactionId {
        self.transactions += 1;
        let bytes = self.transactions.to_be_bytes();
        TransactionId::new(bytes[4..].try_into().unwrap())
    }

    /// Sends bytes and returns the only reply.
    fn exchange(&mut self, client: SocketAddr, bytes: &[u8]) -> Vec<u8> {
        let before = self.replies.len();
        self.client_sends(client, bytes);
        assert_eq!(self.replies.len(), before + 1, "exactly one reply");
        let (to, reply) = self.replies.pop().unwrap();
        assert_eq!(to, client);
        reply
    }

    fn user(&self, salt: &str) -> Credentials {
        self.user_until(UNIX_START + 100_000, salt)
    }

    fn user_until(&self, expiry: u64, salt: &str) -> Credentials {
        let secret = self.server.stamp_secret().expose();
        Credentials {
            username: format!("{expiry}:{salt}"),
            password: relay_password(expiry, secret, salt),
        }
    }

    /// Sends a request with these credentials and nonce.
    fn request(
        &mut self,
        client: SocketAddr,
        user: &Credentials,
        nonce: Option<&str>,
        body: RequestBody,
    ) -> Reply {
        let bytes = self.signed(user, nonce, body);
        Reply(self.exchange(client, &bytes))
    }

    fn signed(&mut self, user: &Credentials, nonce: Option<&str>, body: RequestBody) -> Vec<u8> {
        let request = Request {
            transaction_id: self.transaction(),
            auth: AuthAttributes {
                username: Some(user.username.clone()),
                realm: Some("firezone".to_owned()),
                nonce: nonce.map(str::to_owned),
            },
            software: None,
            body,
        };
        request.encode(Some(&user.key())).unwrap()
    }

    /// Learns the nonce of a client as published clients do: by a signed request without one.
    fn nonce(&mut self, client: SocketAddr, user: &Credentials) -> String {
        let body = RequestBody::Refresh(Refresh::default());
        let reply = self.request(client, user, None, body);
        reply.error().nonce.expect("a challenge")
    }

    /// The whole exchange: challenge, request, signed reply.
    fn ask(&mut self, client: SocketAddr, user: &Credentials, body: RequestBody) -> Reply {
        let nonce = self.nonce(client, user);
        let reply = self.request(client, user, Some(&nonce), body);
        assert!(reply.is_signed_by(user), "{reply:?}");
        reply
    }

    fn allocate(&mut self, client: SocketAddr, user: &Credentials) -> u16 {
        let (relayed, _) = self.ask(client, user, dual(None)).allocated();
        relayed[0].port()
    }

    fn bind(
        &mut self,
        client: SocketAddr,
        user: &Credentials,
        channel: u16,
        peer: SocketAddr,
    ) -> Reply {
        let bind = ChannelBind {
            number: ChannelNumber::new(channel),
            peer: Some(peer),
        };
        self.ask(client, user, RequestBody::ChannelBind(bind))
    }

    fn refresh(&mut self, client: SocketAddr, user: &Credentials, lifetime: u32) -> Reply {
        let refresh = Refresh {
            lifetime: Some(lifetime),
            ..Refresh::default()
        };
        self.ask(client, user, RequestBody::Refresh(refresh))
    }

    fn permit(&mut self, client: SocketAddr, user: &Credentials, peers: &[SocketAddr]) -> Reply {
        let body = CreatePermission {
            peers: peers.to_vec(),
        };
        self.ask(client, user, RequestBody::CreatePermission(body))
    }

    fn client_sends_data(&mut self, client: SocketAddr, channel: u16, payload: &[u8]) {
        self.client_sends(client, &channel_data(channel, payload));
    }

    fn take_forwarded(&mut self) -> Vec<(Route, Vec<u8>)> {
        std::mem::take(&mut self.forwarded)
    }

    fn take_log(&mut self) -> Vec<String> {
        std::mem::take(&mut self.log)
    }
}

fn range(ports: u16) -> PortRange {
    PortRange::new(FIRST_PORT, FIRST_PORT + (ports - 1)).unwrap()
}

fn channel_data(channel: u16, payload: &[u8]) -> Vec<u8> {
    let mut bytes = encode_header(number(channel), payload.len() as u16).to_vec();
    bytes.extend_from_slice(payload);
    bytes
}

fn to_peer(port: u16, peer: SocketAddr) -> Route {
    Route::ToPeer {
        port: AllocationPort::new(port),
        peer: PeerSocket::new(peer),
    }
}

fn to_client(client: SocketAddr, channel: u16) -> Route {
    Route::ToClient {
        client: ClientSocket::new(client),
        number: number(channel),
    }
}

/// What published clients ask for.
fn dual(lifetime: Option<u32>) -> RequestBody {
    RequestBody::Allocate(Allocate {
        requested_transport: Some(Allocate::UDP),
        additional_family: Some(Family::V6),
        lifetime,
        ..Allocate::default()
    })
}

fn single(family: Option<Family>) -> RequestBody {
    RequestBody::Allocate(Allocate {
        requested_transport: Some(Allocate::UDP),
        requested_family: family,
        ..Allocate::default()
    })
}

#[derive(Debug, Clone)]
struct Credentials {
    username: String,
    password: String,
}

impl Credentials {
    fn key(&self) -> Key {
        Key::long_term(&self.username, "firezone", &self.password)
    }
}

/// A reply as it came.
#[derive(Debug)]
struct Reply(Vec<u8>);

impl Reply {
    fn response(&self) -> Response {
        Response::decode(&Envelope::parse(&self.0).unwrap()).unwrap()
    }

    fn is_signed_by(&self, user: &Credentials) -> bool {
        let envelope = Envelope::parse(&self.0).unwrap();
        envelope.verify_integrity(&user.key()) == Integrity::Valid
    }

    fn is_signed(&self) -> bool {
        Envelope::parse(&self.0).unwrap().has_integrity()
    }

    fn error(&self) -> ErrorResponse {
        match self.response().outcome {
            Outcome::Error(error) => error,
            Outcome::Success(success) => panic!("{success:?}"),
        }
    }

    fn code(&self) -> ErrorCode {
        self.error().code
    }

    fn success(&self) -> Success {
        match self.response().outcome {
            Outcome::Success(success) => success,
            Outcome::Error(error) => panic!("{error:?}"),
        }
    }

    /// Relayed addresses and lifetime of an Allocate.
    fn allocated(&self) -> (Vec<SocketAddr>, u32) {
        match self.success() {
            Success::Allocate {
                relayed, lifetime, ..
            } => (relayed, lifetime.unwrap()),
            other => panic!("{other:?}"),
        }
    }

    fn refreshed(&self) -> u32 {
        match self.success() {
            Success::Refresh { lifetime } => lifetime.unwrap(),
            other => panic!("{other:?}"),
        }
    }
}
