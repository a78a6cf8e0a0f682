//! A small relay and a network of constant latency, in virtual time.
#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test file uses its own part of this module"
)]
#![allow(clippy::disallowed_methods, reason = "virtual time starts somewhere")]
#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::SocketAddr,
    time::{Duration, Instant},
};

use connlib_stun::*;
use connlib_turn_client::{Allocation, Credentials, Event, FreeReason, Input, Server};

pub const USERNAME: &str = "1767225600:salt";
pub const PASSWORD: &str = "password";

pub fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

pub fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

pub fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

pub fn relay_v4() -> SocketAddr {
    addr("203.0.113.1:3478")
}

pub fn relay_v6() -> SocketAddr {
    addr("[2001:db8::1]:3478")
}

pub fn dual() -> Server {
    let (SocketAddr::V4(v4), SocketAddr::V6(v6)) = (relay_v4(), relay_v6()) else {
        unreachable!()
    };
    Server::Dual { v4, v6 }
}

pub fn only_v4() -> Server {
    Server::new(dual().v4(), None).unwrap()
}

/// The local address that datagrams of the family of `server` arrive on.
pub fn local(server: SocketAddr) -> SocketAddr {
    if server.is_ipv4() {
        addr("192.168.1.2:52625")
    } else {
        addr("[fd00::2]:52625")
    }
}

/// Our address as the relay sees it.
pub fn mapped(server: SocketAddr) -> SocketAddr {
    if server.is_ipv4() {
        addr("198.51.100.2:40000")
    } else {
        addr("[2001:db8:2::2]:40000")
    }
}

/// A request as the relay received it.
#[derive(Debug, Clone)]
pub struct Received {
    /// Since the start of the world.
    pub at: Duration,
    pub dst: SocketAddr,
    pub request: Request,
    pub signed: bool,
}

impl Received {
    pub fn method(&self) -> Method {
        self.request.method()
    }

    pub fn nonce(&self) -> Option<&str> {
        self.request.auth.nonce.as_deref()
    }

    pub fn lifetime(&self) -> Option<u32> {
        match &self.request.body {
            RequestBody::Refresh(refresh) => refresh.lifetime,
            RequestBody::Allocate(allocate) => allocate.lifetime,
            _ => None,
        }
    }

    pub fn bind(&self) -> Option<(u16, SocketAddr)> {
        match &self.request.body {
            RequestBody::ChannelBind(bind) => Some((bind.number?.get(), bind.peer?)),
            _ => None,
        }
    }
}

/// A relay for one client.
pub struct Relay {
    pub realm: String,
    pub nonce: String,
    pub key: Key,
    pub relayed: Vec<SocketAddr>,
    pub lifetime: u32,
    pub allocated: bool,
    pub channels: BTreeMap<u16, SocketAddr>,
    /// Server sockets that receive nothing.
    pub dead: BTreeSet<SocketAddr>,
    /// Methods that are received but never answered.
    pub mute: Vec<Method>,
    /// Another address that the relay sees IPv4 requests come from; it knows no allocation of that address yet.
    pub remapped: Option<SocketAddr>,
    /// Errors to answer the next requests of a method with.
    pub errors: VecDeque<(Method, ErrorCode)>,
    /// Signs with another key, as somebody who does not know the password.
    pub forge: bool,
    pub log: Vec<Received>,
    pub data: Vec<(u16, Vec<u8>)>,
}

impl Relay {
    fn new() -> Self {
        Self {
            realm: DEFAULT_REALM.to_owned(),
            nonce: "nonce-1".to_owned(),
            key: Key::long_term(USERNAME, DEFAULT_REALM, PASSWORD),
            relayed: vec![addr("203.0.113.1:50000"), addr("[2001:db8::1]:50000")],
            lifetime: 600,
            allocated: false,
            channels: BTreeMap::new(),
            dead: BTreeSet::new(),
            mute: Vec::new(),
            remapped: None,
            errors: VecDeque::new(),
            forge: false,
            log: Vec::new(),
            data: Vec::new(),
        }
    }

    fn handle(&mut self, at: Duration, dst: SocketAddr, datagram: &[u8]) -> Option<Vec<u8>> {
        let envelope = Envelope::parse(datagram).unwrap();
        let request = Request::decode(&envelope).unwrap();
        assert_eq!(envelope.unknown_required(), [0u16; 0]);
        let method = request.method();
        self.log.push(Received {
            at,
            dst,
            request: request.clone(),
            signed: envelope.verify_integrity(&self.key) == Integrity::Valid,
        });
        if self.mute.contains(&method) {
            return None;
        }
        let outcome = self.outcome(dst, &request, envelope.verify_integrity(&self.key));
        let response = Response {
            transaction_id: request.transaction_id,
            method,
            software: None,
            outcome,
        };
        let key = if self.forge {
            Key::from_bytes(b"forger")
        } else {
            self.key.clone()
        };
        let key = (method != Method::Binding).then_some(key);
        Some(response.encode(key.as_ref()).unwrap())
    }

    fn outcome(&mut self, dst: SocketAddr, request: &Request, integrity: Integrity) -> Outcome {
        let method = request.method();
        if method != Method::Binding {
            if request.auth.nonce.is_none() || integrity != Integrity::Valid {
                return self.challenge(ErrorCode::UNAUTHORIZED);
            }
            if request.auth.nonce.as_ref() != Some(&self.nonce) {
                return self.challenge(ErrorCode::STALE_NONCE);
            }
        }
        if let Some(at) = self.errors.iter().position(|(of, _)| *of == method) {
            let (_, code) = self.errors.remove(at).unwrap();
            if matches!(code, ErrorCode::UNAUTHORIZED | ErrorCode::STALE_NONCE) {
                return self.challenge(code);
            }
            return Outcome::Error(ErrorResponse::new(code));
        }
        let mismatch = Outcome::Error(ErrorResponse::new(ErrorCode::ALLOCATION_MISMATCH));
        Outcome::Success(match &request.body {
            RequestBody::Binding => Success::Binding {
                mapped: Some(self.sees(dst)),
            },
            RequestBody::Allocate(_) if self.allocated => return mismatch,
            RequestBody::Allocate(_) => {
                self.allocated = true;
                Success::Allocate {
                    relayed: self.relayed.clone(),
                    mapped: Some(self.sees(dst)),
                    lifetime: Some(self.lifetime),
                    address_error: None,
                }
            }
            _ if !self.allocated => return mismatch,
            RequestBody::Refresh(refresh) => {
                let lifetime = refresh.lifetime.unwrap_or(self.lifetime);
                self.allocated = lifetime > 0;
                if lifetime == 0 {
                    self.channels.clear();
                }
                Success::Refresh {
                    lifetime: Some(lifetime),
                }
            }
            RequestBody::ChannelBind(bind) => {
                let (number, peer) = (bind.number.unwrap().get(), bind.peer.unwrap());
                self.channels.insert(number, peer);
                Success::ChannelBind
            }
            RequestBody::CreatePermission(_) => Success::CreatePermission,
        })
    }

    /// A NAT gives the client another address: the allocation of the former one is out of its reach.
    pub fn remap(&mut self, to: SocketAddr) {
        self.remapped = Some(to);
        self.allocated = false;
        self.channels.clear();
    }

    fn sees(&self, dst: SocketAddr) -> SocketAddr {
        self.remapped
            .filter(|_| dst.is_ipv4())
            .unwrap_or_else(|| mapped(dst))
    }

    fn challenge(&self, code: ErrorCode) -> Outcome {
        Outcome::Error(ErrorResponse {
            code,
            realm: Some(self.realm.clone()),
            nonce: Some(self.nonce.clone()),
            unknown_attributes: Vec::new(),
        })
    }
}

/// Allocation, relay, and datagrams in flight between them.
pub struct World {
    pub allocation: Allocation,
    pub relay: Relay,
    pub start: Instant,
    pub now: Instant,
    /// One way.
    pub latency: Duration,
    /// One way, from relay to client, for the responses made from now on.
    pub extra_latency: Duration,
    pub events: Vec<Event>,
    pub wakeups: usize,
    order: u64,
    in_flight: BTreeMap<(Instant, u64), Flight>,
}

enum Flight {
    ToRelay(SocketAddr, Vec<u8>),
    ToClient(SocketAddr, Vec<u8>),
}

impl World {
    pub fn new(server: Server) -> Self {
        Self::with_latency(server, ms(10))
    }

    pub fn with_latency(server: Server, latency: Duration) -> Self {
        let start = Instant::now();
        let credentials = Credentials {
            username: USERNAME.to_owned(),
            password: PASSWORD.to_owned(),
            realm: DEFAULT_REALM.to_owned(),
        };
        Self {
            allocation: Allocation::new(server, credentials, "snownet", [7; 32], start),
            relay: Relay::new(),
            start,
            now: start,
            latency,
            extra_latency: Duration::ZERO,
            events: Vec::new(),
            wakeups: 0,
            order: 0,
            in_flight: BTreeMap::new(),
        }
    }

    /// A world whose allocation exists; the log is empty.
    pub fn allocated(server: Server) -> Self {
        let mut world = Self::new(server);
        world.run(secs(1));
        assert!(world.allocation.has_allocation());
        world.relay.log.clear();
        world.events.clear();
        world
    }

    pub fn elapsed(&self) -> Duration {
        self.now - self.start
    }

    /// Runs by exact deadlines until `duration` has passed.
    pub fn run(&mut self, duration: Duration) {
        let end = self.now + duration;
        loop {
            self.drain();
            let deadline = self.allocation.poll_timeout().map(|(at, _)| at);
            let arrival = self.in_flight.keys().next().map(|(at, _)| *at);
            let Some(next) = deadline.into_iter().chain(arrival).min() else {
                break;
            };
            if next > end {
                break;
            }
            self.now = self.now.max(next);
            self.deliver();
            self.wake();
        }
        self.now = end;
    }

    /// Jumps ahead as after a suspend of the host, then wakes once.
    pub fn sleep(&mut self, duration: Duration) {
        self.in_flight.clear();
        self.now += duration;
        self.wake();
    }

    fn wake(&mut self) {
        let now = self.now;
        if self
            .allocation
            .poll_timeout()
            .is_none_or(|(at, _)| at > now)
        {
            return;
        }
        self.wakeups += 1;
        self.allocation.handle_timeout(now);
        self.drain();
        // Progress: nothing that was due may still be due.
        if let Some((at, why)) = self.allocation.poll_timeout() {
            assert!(at > now, "{why} is still due");
        }
    }

    pub fn drain(&mut self) {
        while let Some(transmit) = self.allocation.poll_transmit() {
            self.post(
                self.latency,
                Flight::ToRelay(transmit.dst, transmit.payload),
            );
        }
        while let Some(event) = self.allocation.poll_event() {
            self.events.push(event);
        }
    }

    fn post(&mut self, latency: Duration, flight: Flight) {
        self.order += 1;
        self.in_flight
            .insert((self.now + latency, self.order), flight);
    }

    fn deliver(&mut self) {
        while let Some(entry) = self.in_flight.first_entry() {
            if entry.key().0 > self.now {
                break;
            }
            match entry.remove() {
                Flight::ToRelay(dst, _) if self.relay.dead.contains(&dst) => {}
                Flight::ToRelay(dst, datagram) => self.at_relay(dst, &datagram),
                Flight::ToClient(from, datagram) => {
                    let now = self.now;
                    self.allocation
                        .handle_input(local(from), from, &datagram, now);
                }
            }
        }
    }

    fn at_relay(&mut self, dst: SocketAddr, datagram: &[u8]) {
        if classify(datagram, ChannelRange::Strict) == PacketKind::ChannelData {
            let data = channel::ChannelData::parse(datagram, ChannelRange::Strict).unwrap();
            if self.relay.channels.contains_key(&data.number.get()) {
                self.relay
                    .data
                    .push((data.number.get(), data.payload.to_vec()));
            }
            return;
        }
        let at = self.elapsed();
        if let Some(reply) = self.relay.handle(at, dst, datagram) {
            self.post(
                self.latency + self.extra_latency,
                Flight::ToClient(dst, reply),
            );
        }
    }

    /// Sends to a peer through the relay; false when there is no channel.
    pub fn send(&mut self, peer: SocketAddr, payload: &[u8]) -> bool {
        let framed = self
            .allocation
            .encode_channel_header(peer, payload.len() as u16, self.now);
        self.drain();
        let Some(framed) = framed else { return false };
        let datagram = [&framed.header[..], payload].concat();
        self.post(self.latency, Flight::ToRelay(framed.server, datagram));
        true
    }

    /// A peer's datagram arrives on a channel.
    pub fn receive(&mut self, number: u16, payload: &[u8]) -> Option<(SocketAddr, SocketAddr)> {
        let number = ChannelNumber::new(number).unwrap();
        let header = channel::encode_header(number, payload.len() as u16);
        let datagram = [&header[..], payload, &[0; 3]].concat();
        let from = self.allocation.active_socket().unwrap();
        let unwrapped = self.allocation.decapsulate(from, &datagram, self.now)?;
        assert_eq!(unwrapped.payload, payload);
        Some((unwrapped.peer, unwrapped.relayed))
    }

    pub fn bind(&mut self, peer: SocketAddr) {
        self.allocation.bind_channel(peer, self.now);
        self.drain();
    }

    /// Methods received so far, in order.
    pub fn methods(&self) -> Vec<Method> {
        self.relay.log.iter().map(Received::method).collect()
    }

    /// Requests of one method received so far.
    pub fn received(&self, method: Method) -> Vec<&Received> {
        let log = self.relay.log.iter();
        log.filter(|received| received.method() == method).collect()
    }

    /// Channel bindings received so far.
    pub fn binds(&self) -> Vec<(u16, SocketAddr)> {
        self.relay.log.iter().filter_map(Received::bind).collect()
    }

    /// When requests of one method arrived, in milliseconds.
    pub fn times(&self, method: Method) -> Vec<u128> {
        let received = self.received(method).into_iter();
        received.map(|received| received.at.as_millis()).collect()
    }

    /// Addresses of relayed candidates that were invalidated.
    pub fn invalidated(&self) -> Vec<SocketAddr> {
        let gone = self.events.iter().filter_map(|event| match event {
            Event::Invalid(candidate) => {
                assert_eq!(candidate.kind().to_string(), "relay");
                Some(candidate.addr())
            }
            Event::New(_) => None,
        });
        gone.collect()
    }

    pub fn free_reason(&self) -> Option<FreeReason> {
        self.allocation.free_reason()
    }

    /// Hands a datagram straight to the allocation.
    pub fn inject(&mut self, from: SocketAddr, datagram: &[u8]) -> Input {
        self.allocation
            .handle_input(local(from), from, datagram, self.now)
    }
}
