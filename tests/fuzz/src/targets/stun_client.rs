//! `turn-client`: one allocation against a relay that answers right, wrong, late, twice, or not at all.
//!
//! The decoder knows the requests in flight and the credentials, and so can answer as the relay would, as somebody without
//! the key would, or with damage. Oracle: only an authentic answer to a request in flight changes anything (answers to
//! BINDING count by their transaction id, as they are never signed); requests go to the relay, signed, and not without
//! limit; the next deadline lies ahead once time was handled.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    time::{Duration, Instant},
};

use connlib_stun::{
    ChannelNumber, Class, DEFAULT_REALM, Envelope, ErrorCode, ErrorResponse, Integrity, Key,
    Method, Outcome, Request, Response, Success, TransactionId, channel,
};
use connlib_turn_client::{Allocation, Credentials, Event, Input as Verdict, Server};

use crate::input::Input;

/// Most steps of one run.
const MAX_STEPS: usize = 200;
/// Most wake-ups at one instant.
const MAX_WAKES: usize = 100;
/// Requests that a busy relay's client may make in a second of virtual time, and at once.
const REQUESTS: (u64, u64) = (20, 600);

/// Runs one input.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let mut world = World::new(input.u8());
    for _ in 0..MAX_STEPS {
        if input.is_empty() {
            break;
        }
        world.step(&mut input);
    }
    world.advance(Duration::from_secs(3600));
}

/// A relay that answers everything, and one that answers each request with each error.
pub fn seeds() -> Vec<Vec<u8>> {
    let answer = |outcome: u8| [1, 0, outcome, 0, 0, 0];
    let good: Vec<u8> = [vec![2], [answer(0); 6].concat(), vec![5, 0, 0, 1, 0]]
        .concat()
        .into_iter()
        .chain(answer(0))
        .chain([6, 0, 0, 0, 4, 1, 2, 3, 4, 0, 200, 2])
        .collect();
    let bad = (1..12).map(|outcome| [vec![2], [answer(0), answer(outcome)].concat()].concat());
    bad.chain([good]).collect()
}

struct World {
    allocation: Allocation,
    key: Key,
    start: Instant,
    now: Instant,
    /// Unanswered requests, and those answered lately.
    requests: Vec<(TransactionId, SocketAddr, Request)>,
    sent: u64,
    candidates: BTreeMap<String, usize>,
    nonces: u64,
}

/// What an observer sees of an allocation.
type Snapshot = (String, Vec<String>, Option<(Instant, &'static str)>);

impl World {
    fn new(flags: u8) -> Self {
        let (v4, v6) = ("203.0.113.1:3478", "[2001:db8::1]:3478");
        let server = Server::new(
            (flags & 1 == 0).then(|| v4.parse().expect("it is a socket")),
            (flags & 3 != 0).then(|| v6.parse().expect("it is a socket")),
        );
        let credentials = Credentials {
            username: "1767225600:salt".to_owned(),
            password: "password".to_owned(),
            realm: DEFAULT_REALM.to_owned(),
        };
        let key = Key::long_term(&credentials.username, DEFAULT_REALM, "password");
        let now = Instant::now();
        let server = server.expect("it has an address");
        let mut world = Self {
            allocation: Allocation::new(server, credentials, "fuzz", [1; 32], now),
            key,
            start: now,
            now,
            requests: Vec::new(),
            sent: 0,
            candidates: BTreeMap::new(),
            nonces: 0,
        };
        world.drain();
        world
    }

    fn step(&mut self, input: &mut Input<'_>) {
        match input.below(10) {
            0 => self.advance(input.duration()),
            4 => {
                let (from, bytes) = (self.sender(input), input.bytes(1500).to_vec());
                self.receive(from, &bytes);
            }
            5 => self.allocation.bind_channel(input.socket(), self.now),
            6 => self.receive_data(input),
            7 => self.allocation.refresh(self.now),
            8 if input.u8() == 0 => {
                self.allocation.restart(self.now);
                self.candidates.clear();
            }
            9 => {
                let framed = self
                    .allocation
                    .encode_channel_header(input.socket(), 4, self.now);
                let active = self.allocation.active_socket();
                assert!(framed.is_none_or(|framed| Some(framed.server) == active));
            }
            _ => self.answer(input),
        }
        self.drain();
    }

    fn sender(&self, input: &mut Input<'_>) -> SocketAddr {
        let sockets: Vec<_> = self.allocation.server().sockets().collect();
        match input.below(4) {
            0 => input.socket(),
            _ => input.pick(&sockets),
        }
    }

    /// Answers a request in flight, well or badly.
    fn answer(&mut self, input: &mut Input<'_>) {
        if self.requests.is_empty() {
            return;
        }
        // Counted from the newest.
        let index = input.below(self.requests.len().min(256));
        let (id, dst, request) = self.requests[self.requests.len() - 1 - index].clone();
        let outcome = self.outcome(input, &request);
        let (how, damage) = (input.u8(), input.u8());
        let response = Response {
            transaction_id: id,
            method: if how == 250 {
                Method::Refresh
            } else {
                request.method()
            },
            software: None,
            outcome,
        };
        let wrong = Key::from_bytes(b"wrong");
        let key = match how {
            251 => None,
            252 => Some(&wrong),
            _ => Some(&self.key),
        };
        let Ok(mut bytes) = response.encode(key) else {
            return;
        };
        if damage >= 250 {
            let at = usize::from(input.u16()) % bytes.len();
            bytes[at] ^= 1 << input.below(8);
        }
        let from = if how == 253 { self.sender(input) } else { dst };
        self.receive(from, &bytes);
    }

    fn outcome(&mut self, input: &mut Input<'_>, request: &Request) -> Outcome {
        let choice = input.below(16);
        let error = |code| Outcome::Error(ErrorResponse::new(code));
        match choice {
            1 => self.challenge(ErrorCode::UNAUTHORIZED, DEFAULT_REALM),
            2 => self.challenge(ErrorCode::STALE_NONCE, DEFAULT_REALM),
            3 => self.challenge(ErrorCode::UNAUTHORIZED, "other"),
            4 => error(ErrorCode::ALLOCATION_MISMATCH),
            5 => error(ErrorCode::FORBIDDEN),
            6 => error(ErrorCode::BAD_REQUEST),
            7 => error(ErrorCode::INSUFFICIENT_CAPACITY),
            8 => error(ErrorCode::UNKNOWN_ATTRIBUTE),
            9 => error(ErrorCode::new(300 + input.u16() % 300).expect("it is in range")),
            10 => Outcome::Error(ErrorResponse::new(ErrorCode::UNAUTHORIZED)),
            // As the relay does: a request without nonce is challenged.
            _ if request.method() != Method::Binding && request.auth.nonce.is_none() => {
                self.challenge(ErrorCode::UNAUTHORIZED, DEFAULT_REALM)
            }
            _ => Outcome::Success(success(input, request, choice)),
        }
    }

    fn challenge(&mut self, code: ErrorCode, realm: &str) -> Outcome {
        self.nonces += 1;
        Outcome::Error(ErrorResponse {
            realm: Some(realm.to_owned()),
            nonce: Some(format!("nonce {}", self.nonces)),
            ..ErrorResponse::new(code)
        })
    }

    fn receive(&mut self, from: SocketAddr, bytes: &[u8]) {
        let local = match from {
            SocketAddr::V4(_) => "192.168.1.2:52625",
            SocketAddr::V6(_) => "[fd00::2]:52625",
        };
        let local = local.parse().expect("it is a socket");
        let may_count = self.may_count(from, bytes);
        let before = self.snapshot();
        let verdict = self.allocation.handle_input(local, from, bytes, self.now);
        let is_relay = self.allocation.server().contains(from);
        assert_eq!(verdict != Verdict::OtherSender, is_relay);
        if !may_count {
            assert_eq!(self.snapshot(), before, "changed by a stranger");
        }
    }

    /// Whether this can be the relay's answer to a request.
    fn may_count(&self, from: SocketAddr, bytes: &[u8]) -> bool {
        let Ok(envelope) = Envelope::parse(bytes) else {
            return false;
        };
        let is_response = matches!(envelope.class(), Class::Success | Class::Error);
        let mut requests = self.requests.iter();
        is_response
            && requests.any(|(id, dst, request)| {
                *id == envelope.transaction_id()
                    && *dst == from
                    && request.method() == envelope.method()
                    && (request.method() == Method::Binding
                        || envelope.verify_integrity(&self.key) == Integrity::Valid)
            })
    }

    /// Channel data leads somewhere only from the socket in use, and then exactly as announced.
    fn receive_data(&mut self, input: &mut Input<'_>) {
        let from = self.sender(input);
        let number = 0x4000 | u16::from(input.u8() % 8);
        let number = ChannelNumber::new(number).expect("it is in range");
        let payload = input.bytes(64);
        let header = channel::encode_header(number, payload.len() as u16);
        let datagram = [&header, payload].concat();
        let active = self.allocation.active_socket();
        let unwrapped = self.allocation.decapsulate(from, &datagram, self.now);
        if let Some(unwrapped) = unwrapped {
            assert_eq!(Some(from), active);
            assert_eq!(unwrapped.payload, payload);
            let relayed = unwrapped.relayed;
            assert!(self.allocation.owns_relayed(relayed));
            assert_eq!(relayed.is_ipv4(), unwrapped.peer.is_ipv4());
        }
    }

    fn snapshot(&self) -> Snapshot {
        let it = &self.allocation;
        let state = (
            it.has_allocation(),
            it.is_suspended(),
            it.free_reason(),
            it.active_socket(),
            it.rtt(),
        );
        let candidates = it.shared_candidates().chain(it.relayed_candidates());
        let candidates = candidates.map(ToString::to_string).collect();
        (format!("{state:?}"), candidates, it.poll_timeout())
    }

    fn advance(&mut self, by: Duration) {
        let end = self.now + by;
        let (mut at, mut wakes) = (self.now, 0);
        while let Some((next, reason)) = self.allocation.poll_timeout().filter(|it| it.0 <= end) {
            assert!(next >= self.now || wakes < MAX_WAKES, "{reason} is overdue");
            wakes = if next > at { 0 } else { wakes + 1 };
            assert!(wakes < MAX_WAKES, "busy with {reason}");
            at = at.max(next);
            self.handle_timeout(at);
        }
        self.handle_timeout(end);
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.now = now;
        self.allocation.handle_timeout(now);
        self.drain();
        let next = self.allocation.poll_timeout();
        assert!(next.is_none_or(|(at, _)| at > now), "{next:?}");
    }

    fn drain(&mut self) {
        while let Some(transmit) = self.allocation.poll_transmit() {
            let envelope = Envelope::parse(&transmit.payload).expect("the client speaks STUN");
            let request = Request::decode(&envelope).expect("the client asks");
            assert!(self.allocation.server().contains(transmit.dst));
            let expected = match request.method() {
                Method::Binding => Integrity::Missing,
                _ => Integrity::Valid,
            };
            assert_eq!(envelope.verify_integrity(&self.key), expected);
            self.sent += 1;
            let entry = (request.transaction_id, transmit.dst, request);
            self.requests.push(entry);
        }
        let elapsed = (self.now - self.start).as_secs();
        assert!(self.sent <= REQUESTS.1 + elapsed * REQUESTS.0, "a flood");
        while let Some(event) = self.allocation.poll_event() {
            match event {
                Event::New(candidate) => {
                    self.candidates.insert(candidate.to_string(), 1);
                }
                Event::Invalid(candidate) => {
                    let known = self.candidates.remove(&candidate.to_string());
                    assert!(known.is_some(), "{candidate} was never there");
                }
            }
        }
        for candidate in self.allocation.relayed_candidates() {
            assert!(self.candidates.contains_key(&candidate.to_string()));
        }
    }
}

fn success(input: &mut Input<'_>, request: &Request, choice: usize) -> Success {
    let strange = choice >= 14;
    let mapped = match strange {
        true => input.maybe(Input::socket),
        false => Some(SocketAddr::from(([198, 51, 100, 2], 40000))),
    };
    let lifetime = match strange {
        true => input.maybe(Input::u32),
        false => Some(600),
    };
    match request.method() {
        Method::Allocate => Success::Allocate {
            relayed: match strange {
                true => (0..input.below(4)).map(|_| input.socket()).collect(),
                false => vec![
                    SocketAddr::from(([203, 0, 113, 1], 50000)),
                    SocketAddr::from(([0x2001, 0xdb8, 0, 0, 0, 0, 0, 1], 50000)),
                ],
            },
            mapped,
            lifetime,
            address_error: None,
        },
        Method::Refresh => Success::Refresh { lifetime },
        Method::ChannelBind => Success::ChannelBind,
        _ => Success::Binding { mapped },
    }
}
