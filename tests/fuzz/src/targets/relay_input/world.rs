//! The relay under test, its driver, and what a bystander who knows the secret can say about it.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use connlib_stun::{
    AuthAttributes, ChannelRange, Class, Envelope, Family, Integrity, Key, Outcome, PacketKind,
    Refresh, RelayUsername, Request, RequestBody, Response, TransactionId, channel::ChannelData,
    classify, relay_password,
};
use relay_core::{
    AllocationPort, Command, Config, PortRange, Profile, PublicAddresses, Route, Train, family_of,
};

use super::requests;
use crate::{
    input::Input,
    targets::relay_input::{
        model::{Model, is_forbidden},
        workers::{Sink, Workers},
    },
};

/// Wall-clock time at the start.
const UNIX_START: u64 = 1_700_000_000;
const PUBLIC_V4: [u8; 4] = [198, 51, 100, 7];
const PUBLIC_V6: [u16; 8] = [0x2001, 0xdb8, 7, 0, 0, 0, 0, 7];
const FIRST_PORT: u16 = 49152;
/// Largest unsigned reply to the smallest request (bytes): a challenge.
const MAX_UNSIGNED_REPLY: usize = 92;
/// MESSAGE-INTEGRITY (bytes).
const SIGNATURE: usize = 24;

/// Somebody with credentials, good or bad.
#[derive(Debug, Clone)]
pub(super) struct User {
    pub(super) name: String,
    pub(super) key: Key,
}

/// A relay and its driver.
pub(super) struct World {
    server: Workers,
    start: Instant,
    now: Instant,
    ports: u16,
    refusals_per_second: u32,
    /// Ports that cannot be bound, by their lowest three bits.
    refusing: u8,
    bound: BTreeSet<(u16, Family)>,
    users: Vec<User>,
    nonces: BTreeMap<SocketAddr, String>,
    transactions: u64,
    /// Replies so far to what anybody could have sent, by source.
    refusals: BTreeMap<IpAddr, u64>,
    model: Model,
}

/// A datagram of a train, as its sender's secrets tell.
struct Sent<'a> {
    bytes: &'a [u8],
    request: Option<Request>,
    is_authentic: bool,
}

impl World {
    pub(super) fn new(input: &mut Input<'_>) -> Self {
        let (flags, size) = (input.u8(), input.u16());
        let (ports, workers) = (1 + size % 16, 1 + (size >> 8 & 1));
        let (v4, v6) = (PUBLIC_V4.into(), PUBLIC_V6.into());
        let public = match flags & 3 {
            0 | 1 => PublicAddresses::Dual(v4, v6),
            2 => PublicAddresses::V4(v4),
            _ => PublicAddresses::V6(v6),
        };
        let mut config = match flags & 4 {
            0 => Config::portal(public),
            _ => Config::open(public),
        };
        config.ports = PortRange::new(FIRST_PORT, FIRST_PORT + ports - 1).expect("it is in order");
        config.strict_username = flags & 8 != 0;
        config.challenge_only_with_username = flags & 16 != 0;
        config.allocations_per_username = usize::from(flags >> 5 & 3);
        if flags & 128 != 0 {
            let (name, password) = ("alice".to_owned(), "wonderland".to_owned());
            config.static_users.insert(name, password);
        }
        let start = Instant::now();
        let unix = Duration::from_secs(UNIX_START);
        let server = Workers::new(&config, workers, start, unix);
        Self {
            users: users(server.stamp_secret().expose()),
            model: Model::new(server.config(), start),
            refusals_per_second: server.config().refusals_per_second,
            server,
            start,
            now: start,
            ports,
            refusing: 0,
            bound: BTreeSet::new(),
            nonces: BTreeMap::new(),
            transactions: 0,
            refusals: BTreeMap::new(),
        }
    }

    pub(super) fn client(&self, input: &mut Input<'_>) -> SocketAddr {
        let choice = input.u8();
        match choice {
            250 => SocketAddr::from((PUBLIC_V4, FIRST_PORT)),
            251 => SocketAddr::from(([192, 0, 2, 9], 0)),
            252.. => input.socket(),
            _ => match choice % 6 {
                n @ 0..=2 => SocketAddr::from(([192, 0, 2, 1], 1000 + u16::from(n))),
                3 => SocketAddr::from(([192, 0, 2, 2], 1000)),
                n => SocketAddr::from(([0x2001, 0xdb8, 1, 0, 0, 0, 0, 1], u16::from(n))),
            },
        }
    }

    pub(super) fn peer(&self, input: &mut Input<'_>) -> SocketAddr {
        match input.below(8) {
            n @ 0..=2 => SocketAddr::from(([203, 0, 113, 1], 1 + n as u16)),
            n @ 3..=4 => SocketAddr::from(([0x2001, 0xdb8, 9, 0, 0, 0, 0, 1], n as u16)),
            5 => SocketAddr::from((PUBLIC_V4, self.port(input))),
            6 => SocketAddr::from((PUBLIC_V6, self.port(input))),
            _ => input.socket(),
        }
    }

    /// A port of the range, or just beside it.
    pub(super) fn port(&self, input: &mut Input<'_>) -> u16 {
        FIRST_PORT + u16::from(input.u8()) % (self.ports + 1)
    }

    /// Number of a client's port within the range.
    #[cfg(test)]
    pub(super) fn port_index(&self, client: SocketAddr) -> Option<u8> {
        let port = self.model.port_of(client)?;
        u8::try_from(port - FIRST_PORT).ok()
    }

    #[cfg(test)]
    pub(super) fn crossed(&self) -> usize {
        self.server.crossed()
    }

    pub(super) fn user(&self, input: &mut Input<'_>) -> User {
        input.pick(&self.users)
    }

    pub(super) fn transaction(&mut self, input: &mut Input<'_>) -> TransactionId {
        self.transactions += 1;
        requests::transaction(input, self.transactions)
    }

    /// The nonce that the relay last told this client; asked for as published clients do if there was none.
    pub(super) fn nonce_for(&mut self, client: SocketAddr) -> String {
        if !self.nonces.contains_key(&client) {
            self.transactions += 1;
            let user = &self.users[0];
            let request = Request {
                transaction_id: requests::transaction(&mut Input::new(&[1]), self.transactions),
                auth: AuthAttributes {
                    username: Some(user.name.clone()),
                    ..AuthAttributes::default()
                },
                software: None,
                body: RequestBody::Refresh(Refresh::default()),
            };
            let bytes = request
                .encode(Some(&user.key))
                .expect("the texts are short");
            self.client_sends(client, &bytes, bytes.len());
        }
        self.nonces.get(&client).cloned().unwrap_or_default()
    }

    /// Some client's nonce.
    pub(super) fn any_nonce(&self, input: &mut Input<'_>) -> Option<String> {
        let index = usize::from(input.u8()) % self.nonces.len().max(1);
        self.nonces.values().nth(index).cloned()
    }

    pub(super) fn set_refusing_ports(&mut self, mask: u8) {
        self.refusing = mask;
    }

    pub(super) fn set_unix_time(&mut self, seconds: u32) {
        let unix = Duration::from_secs(UNIX_START - 1000 + u64::from(seconds % 10_000));
        self.server.set_unix_time(unix, self.now);
    }

    pub(super) fn drain(&mut self) {
        self.server.drain();
    }

    pub(super) fn advance(&mut self, by: Duration) {
        let end = self.now + by;
        // As a driver does: awake exactly at each deadline.
        while let Some(at) = self.server.poll_timeout().filter(|at| *at <= end) {
            assert!(at > self.now, "a deadline that was handled already");
            self.handle_timeout(at);
        }
        self.handle_timeout(end);
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.now = now;
        self.server.handle_timeout(now);
        self.model.set_now(now);
        assert!(
            self.execute().is_empty(),
            "time alone is no reason to speak"
        );
    }

    /// A socket fails, whether or not it exists.
    pub(super) fn fail_port(&mut self, port: u16) {
        let port = AllocationPort::new(port);
        self.server.handle_port_failed(port, Family::V4, self.now);
        assert!(self.execute().is_empty());
    }

    pub(super) fn client_sends(&mut self, client: SocketAddr, bytes: &[u8], size: usize) {
        let counts = (self.server.allocation_count(), self.server.channel_count());
        let train = Train::new(bytes, size);
        let sent: Vec<_> = train.datagrams().map(|it| self.judge(it)).collect();
        let mut sink = Sink::default();
        self.server
            .handle_client_input(client, train, self.now, &mut sink);
        let replies = self.execute();

        let requests = sent
            .iter()
            .filter(|it| it.request.is_some() || it.is_stun());
        assert!(replies.len() <= requests.count() + self.model.indications(&replies));
        for (to, reply) in &replies {
            self.check_message(client, &sent, *to, reply);
        }
        // Data of a train is judged by the bindings in force before and behind it.
        let before = self.model.clone();
        for (to, reply) in &replies {
            let request = sent.iter().find(|it| it.is_answered_by(reply));
            if let Some(request) = request.and_then(|it| it.request.as_ref()) {
                self.model.learn(*to, request, reply);
            }
        }
        for (route, payload) in &sink.0 {
            let fits = |model: &Model| {
                sent.iter()
                    .any(|it| model.may_forward(client, it.bytes, *route, payload))
            };
            assert!(
                fits(&before) || fits(&self.model),
                "{route:?} is not for {client}"
            );
            self.check_route(*route);
        }
        if let [only] = &sent[..] {
            let owed = self.model.owes(client, only.bytes);
            assert!(
                !owed || !sink.0.is_empty(),
                "data on a bound channel is lost"
            );
        }
        if !sent.iter().any(|it| it.is_authentic) {
            let now = (self.server.allocation_count(), self.server.channel_count());
            assert_eq!(now, counts, "changed by somebody unknown");
        }
    }

    pub(super) fn peer_sends(&mut self, port: u16, peer: SocketAddr, payload: &[u8]) {
        let mut sink = Sink::default();
        let train = Train::single(payload);
        self.server
            .handle_peer_input(AllocationPort::new(port), peer, train, self.now, &mut sink);
        assert!(sink.0.len() <= 1);
        let owed = self.model.owes_from(port, peer);
        assert_eq!(!sink.0.is_empty(), owed);
        for (route, forwarded) in &sink.0 {
            assert_eq!(forwarded, payload);
            assert!(self.model.may_deliver(port, peer, *route));
        }
        for (to, bytes) in self.execute() {
            assert!(self.model.may_indicate(port, peer, to));
            let envelope = Envelope::parse(&bytes).expect("the relay speaks STUN");
            assert_eq!(envelope.class(), Class::Indication);
        }
    }

    /// Carries out the relay's commands; returns what it says, and to whom.
    fn execute(&mut self) -> Vec<(SocketAddr, Vec<u8>)> {
        let mut messages = Vec::new();
        while let Some(command) = self.server.poll_command() {
            match command {
                Command::Send { to, bytes } => messages.push((to.address(), bytes)),
                Command::CreateAllocation { port, family } => self.bind(port, family),
                Command::FreeAllocation { port, family } => {
                    assert!(self.bound.remove(&(port.get(), family)), "not bound");
                    self.model.free(port.get());
                }
                Command::UserGained { .. } | Command::UserLost { .. } => {
                    unreachable!("the workers' own affair")
                }
            }
        }
        messages
    }

    fn bind(&mut self, port: AllocationPort, family: Family) {
        let number = port.get();
        assert!((FIRST_PORT..FIRST_PORT + self.ports).contains(&number));
        if self.refusing >> (number & 7) & 1 == 1 {
            self.server.handle_port_failed(port, family, self.now);
            return;
        }
        assert!(self.bound.insert((number, family)), "bound twice");
        self.server.handle_port_bound(port, family, self.now);
    }

    fn judge<'a>(&self, bytes: &'a [u8]) -> Sent<'a> {
        let envelope = Envelope::parse(bytes).ok();
        let request = envelope.as_ref().and_then(|it| Request::decode(it).ok());
        let key = request
            .as_ref()
            .and_then(|it| self.key_of(it.auth.username.as_deref()?));
        let is_authentic = match (&envelope, key) {
            (Some(envelope), Some(key)) => envelope.verify_integrity(&key) == Integrity::Valid,
            _ => false,
        };
        Sent {
            bytes,
            request,
            is_authentic,
        }
    }

    /// The key that goes with a user name, if it is one.
    fn key_of(&self, name: &str) -> Option<Key> {
        let realm = &self.server.config().realm;
        if let Some(password) = self.server.config().static_users.get(name) {
            return Some(Key::long_term(name, realm, password));
        }
        let user = RelayUsername::parse(name).ok()?;
        let password = user.password(self.server.stamp_secret().expose());
        Some(Key::long_term(name, realm, &password))
    }

    fn check_message(
        &mut self,
        client: SocketAddr,
        sent: &[Sent<'_>],
        to: SocketAddr,
        bytes: &[u8],
    ) {
        let envelope = Envelope::parse(bytes).expect("the relay speaks STUN");
        if envelope.class() == Class::Indication {
            assert_eq!(self.server.config().profile, Profile::Open);
            return;
        }
        assert_eq!(to, client, "replies go to whoever asked");
        let response = Response::decode(&envelope).expect("the relay's replies can be read");
        let question = sent.iter().find(|it| it.is_answered_by(bytes));
        let question = question.expect("a reply answers a request");
        let name = question
            .request
            .as_ref()
            .and_then(|it| it.auth.username.as_deref());
        let is_binding = envelope.method() == connlib_stun::Method::Binding;
        let key = name
            .and_then(|name| self.key_of(name))
            .filter(|_| !is_binding);
        let expected = match &key {
            Some(key) => envelope.verify_integrity(key) == Integrity::Valid,
            None => !envelope.has_integrity(),
        };
        assert!(expected, "every reply that can be signed is, and no other");
        if let Outcome::Error(error) = &response.outcome
            && let Some(nonce) = &error.nonce
        {
            assert!(nonce.len() <= 32);
            self.nonces.insert(to, nonce.clone());
        }
        if !question.is_authentic {
            self.check_unasked(
                client,
                question.bytes.len(),
                &response,
                bytes.len(),
                key.is_some(),
            );
        }
    }

    /// A reply that anybody can provoke: small, without extras, and not too often.
    fn check_unasked(
        &mut self,
        client: SocketAddr,
        request_len: usize,
        response: &Response,
        len: usize,
        is_signed: bool,
    ) {
        let largest = MAX_UNSIGNED_REPLY + request_len / 2 + if is_signed { SIGNATURE } else { 0 };
        assert!(len <= largest, "{len} bytes for {request_len}");
        assert_eq!(response.software, None);
        let Outcome::Error(_) = response.outcome else {
            assert_eq!(response.method, connlib_stun::Method::Binding);
            assert!(len <= request_len + 24, "amplified");
            return;
        };
        let count = self.refusals.entry(client.ip()).or_default();
        *count += 1;
        let elapsed = (self.now - self.start).as_secs() + 1;
        // Every worker has a limit of its own.
        let budget =
            (100 + elapsed * u64::from(self.refusals_per_second)) * self.server.count() as u64;
        assert!(*count <= budget, "{count} refusals in {elapsed} s");
    }

    /// Data leaves only by sockets that exist, towards addresses that are allowed.
    fn check_route(&self, route: Route) {
        if let Route::ToPeer { port, peer } = route {
            assert!(self.bound.contains(&(port.get(), family_of(peer.ip()))));
            assert!(!is_forbidden(peer.ip()), "{peer} is off limits");
            assert_ne!(peer.port(), 0);
        }
    }

    /// What must hold between steps.
    pub(super) fn check(&mut self) {
        assert_eq!(self.server.poll_command(), None);
        let count = self.server.allocation_count();
        assert_eq!(count, self.model.allocations(), "allocations");
        assert!(count <= usize::from(self.ports));
        assert_eq!(
            self.server.channel_count(),
            self.model.channels(),
            "channels"
        );
        let ports: BTreeSet<u16> = self.bound.iter().map(|(port, _)| *port).collect();
        assert_eq!(ports, self.model.ports());
        let next = self.server.poll_timeout();
        assert!(next.is_none_or(|at| at > self.now));
    }

    /// After the longest lifetime nothing is left.
    pub(super) fn check_idle(&mut self) {
        self.check();
        assert_eq!(self.server.allocation_count(), 0);
        assert_eq!(self.server.poll_timeout(), None);
        assert!(self.bound.is_empty());
    }
}

impl Sent<'_> {
    fn is_stun(&self) -> bool {
        classify(self.bytes, ChannelRange::Wide) == PacketKind::Stun
    }

    fn is_answered_by(&self, reply: &[u8]) -> bool {
        self.is_stun() && self.bytes.get(8..20) == reply.get(8..20)
    }
}

/// Good, short-lived, expired, unknown and malformed ones.
fn users(secret: &str) -> Vec<User> {
    let derived = |expiry: u64, salt: &str| {
        let name = format!("{expiry}:{salt}");
        let password = relay_password(expiry, secret, salt);
        let key = Key::long_term(&name, "firezone", &password);
        User { name, key }
    };
    let named = |name: &str, password| User {
        name: name.to_owned(),
        key: Key::long_term(name, "firezone", password),
    };
    vec![
        derived(UNIX_START + 100_000, "a"),
        derived(UNIX_START + 100_000, "b"),
        derived(UNIX_START + 100_000, "c"),
        derived(UNIX_START + 300, "short"),
        derived(UNIX_START - 1, "expired"),
        derived((1 << 63) - 1, "far"),
        derived(u64::MAX, "overflow"),
        named("alice", "wonderland"),
        named("no colon", "x"),
        named("1:2:3", "x"),
        named("", "x"),
    ]
}

/// Channel data, if it is.
pub(super) fn channel_data(datagram: &[u8], range: ChannelRange) -> Option<ChannelData<'_>> {
    match classify(datagram, range) {
        PacketKind::ChannelData => ChannelData::parse(datagram, range).ok(),
        PacketKind::Stun | PacketKind::Other => None,
    }
}
