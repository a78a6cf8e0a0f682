//! `snownet`: strangers' datagrams into two nodes with a live connection between them.
//!
//! The decoder sends any bytes, bytes dressed up as one of the protocols, and the nodes' own datagrams with damage, from the
//! peer's address, the relay's, or any. Oracle: a node says nothing (but WireGuard's cookies under load), reports nothing,
//! keeps its path and its deadlines, hands out no packet; and afterwards packets still get through both ways.

use std::{
    collections::{BTreeSet, VecDeque},
    net::SocketAddr,
    ops::Range,
    time::{Duration, Instant},
};

use connlib_snownet::{
    Decapsulated, Event, IceCredentials, MAX_DATAGRAM_SIZE, Node, PathInfo, RelayConfig, Role,
};
use ip_packet::{Ecn, Single, make};

use crate::input::Input;

/// Most datagrams of strangers in one run.
const MAX_STEPS: usize = 100;
/// Most genuine datagrams that are remembered for damage.
const MAX_GENUINE: usize = 256;
/// Longest wait for the connection.
const MAX_SETUP: Duration = Duration::from_secs(20);
/// WireGuard's cookie reply: type and length.
const COOKIE: (u8, usize) = (3, 64);
const RELAY: &str = "203.0.113.9:3478";

/// Runs one input.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let mut world = World::connected();
    for _ in 0..MAX_STEPS {
        if input.is_empty() {
            break;
        }
        match input.below(8) {
            0 => world.advance(input.duration().min(Duration::from_secs(5))),
            _ => world.stranger(&mut input),
        }
    }
    world.ping();
}

/// Garbage of each kind, and each genuine datagram with a flipped bit.
pub fn seeds() -> Vec<Vec<u8>> {
    let dressed = (0..6u8).map(|kind| vec![1, 0, 0, kind, 0, 20, 1, 2, 3, 4, 5, 6, 7, 8]);
    let damaged = (0..40u8).flat_map(|which| [1, which & 1, 0, 6, which, 0, 9, 3]);
    dressed.chain([damaged.collect()]).collect()
}

struct Host {
    node: Node<u32, u32>,
    socket: SocketAddr,
    received: usize,
}

struct World {
    hosts: [Host; 2],
    now: Instant,
    /// What was sent: by whom, and the bytes.
    genuine: Vec<(usize, Vec<u8>)>,
}

impl World {
    fn connected() -> Self {
        let now = Instant::now();
        let host = |role, seed: u8, socket: &str| Host {
            node: Node::new(role, [seed; 32], now, Duration::from_secs(1_700_000_000)),
            socket: socket.parse().expect("it is a socket"),
            received: 0,
        };
        let mut world = Self {
            hosts: [
                host(Role::Client, 1, "192.0.2.1:52625"),
                host(Role::Gateway, 2, "198.51.100.1:52625"),
            ],
            now,
            genuine: Vec::new(),
        };
        let keys = [0, 1].map(|i| world.hosts[i].node.public_key());
        let ice = |name: &str| {
            let credentials = IceCredentials::new(name, "0123456789012345678901");
            credentials.expect("they are well-formed")
        };
        for i in [1, 0] {
            let (local, remote) = match i {
                0 => (ice("client"), ice("gateway")),
                _ => (ice("gateway"), ice("client")),
            };
            let Host { node, socket, .. } = &mut world.hosts[i];
            node.update_relays(&BTreeSet::new(), &[relay()], now);
            node.add_host_candidate(*socket, now);
            node.upsert_connection(1 - i as u32, keys[1 - i], [3; 32], local, remote, now)
                .expect("there is a relay");
        }
        world.pump();
        let end = now + MAX_SETUP;
        while !world.is_connected() {
            assert!(world.now < end, "no connection");
            world.advance(Duration::from_millis(100));
            world.send(0);
        }
        world.advance(Duration::from_secs(2));
        world.ping();
        world
    }

    fn is_connected(&self) -> bool {
        self.hosts.iter().all(|host| host.received > 0) || {
            // The gateway answers only after it heard something.
            self.hosts[1].received > 0
        }
    }

    /// A packet each way.
    fn ping(&mut self) {
        for from in [0, 1] {
            let before = self.hosts[1 - from].received;
            self.send(from);
            assert!(self.hosts[1 - from].received > before, "a packet is lost");
        }
    }

    fn send(&mut self, from: usize) {
        let (a, b) = ([10, 0, 0, 1].into(), [10, 0, 0, 2].into());
        let packet = make::icmp_echo_request(a, b, 1, 1, b"ping").expect("it fits");
        let mut sink = VecDeque::new();
        let peer = 1 - from as u32;
        let mut batch = Single::from(&packet);
        let outcome =
            self.hosts[from]
                .node
                .encapsulate(peer, &mut batch, Ecn::NotEct, self.now, &mut sink);
        assert!(outcome.is_ok(), "the connection is gone");
        for transmit in sink {
            self.deliver(from, transmit.dst, transmit.payload);
        }
        self.pump();
    }

    /// The network: no delay, no loss, and nobody at the relay's address.
    fn deliver(&mut self, from: usize, dst: SocketAddr, bytes: Vec<u8>) {
        let to = 1 - from;
        if self.hosts[to].socket == dst {
            let source = self.hosts[from].socket;
            if let Some(Decapsulated::Packet { .. }) = self.receive(to, source, &bytes) {
                self.hosts[to].received += 1;
            }
        }
        if self.genuine.len() < MAX_GENUINE {
            self.genuine.push((to, bytes));
        }
    }

    fn receive(&mut self, to: usize, from: SocketAddr, bytes: &[u8]) -> Option<Decapsulated<u32>> {
        let mut out = vec![0; bytes.len().max(MAX_DATAGRAM_SIZE)];
        let Host { node, socket, .. } = &mut self.hosts[to];
        node.decapsulate(*socket, from, bytes, self.now, &mut out)
            .ok()
    }

    fn pump(&mut self) {
        loop {
            let mut is_quiet = true;
            for i in [0, 1] {
                while let Some(transmit) = self.hosts[i].node.poll_transmit() {
                    is_quiet = false;
                    self.deliver(i, transmit.dst, transmit.payload);
                }
                while let Some(event) = self.hosts[i].node.poll_event() {
                    is_quiet = false;
                    if let Event::NewIceCandidate { sdp, .. } = event {
                        let other = &mut self.hosts[1 - i].node;
                        other.add_remote_candidate(i as u32, &sdp, self.now);
                    }
                }
            }
            if is_quiet {
                return;
            }
        }
    }

    fn advance(&mut self, by: Duration) {
        let end = self.now + by;
        while let Some(next) = self.next_deadline().filter(|at| *at <= end) {
            self.handle_timeout(next.max(self.now));
        }
        self.handle_timeout(end);
    }

    fn next_deadline(&mut self) -> Option<Instant> {
        let nodes = self.hosts.iter_mut();
        nodes
            .filter_map(|host| Some(host.node.poll_timeout()?.0))
            .min()
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.now = now;
        self.hosts
            .iter_mut()
            .for_each(|host| host.node.handle_timeout(now));
        self.pump();
    }

    /// A datagram that neither node has made.
    fn stranger(&mut self, input: &mut Input<'_>) {
        let to = input.below(2);
        let from = match input.below(4) {
            0 | 1 => self.hosts[1 - to].socket,
            2 => RELAY.parse().expect("it is a socket"),
            _ => input.socket(),
        };
        let Some(bytes) = self.datagram(input, to) else {
            return;
        };
        let before = self.snapshot(to);
        let outcome = self.receive(to, from, &bytes);
        assert!(
            !matches!(outcome, Some(Decapsulated::Packet { .. })),
            "a stranger's packet got through"
        );
        while let Some(transmit) = self.hosts[to].node.poll_transmit() {
            let kind = (transmit.payload[0], transmit.payload.len());
            assert_eq!(kind, COOKIE, "a stranger was answered");
        }
        assert_eq!(self.hosts[to].node.poll_event(), None);
        assert_eq!(self.snapshot(to), before, "changed by a stranger");
    }

    fn snapshot(
        &mut self,
        host: usize,
    ) -> (Option<PathInfo<u32>>, Option<(Instant, &'static str)>) {
        let node = &mut self.hosts[host].node;
        (node.path(1 - host as u32), node.poll_timeout())
    }

    fn datagram(&self, input: &mut Input<'_>, to: usize) -> Option<Vec<u8>> {
        Some(match input.below(8) {
            0 => input.bytes(1500).to_vec(),
            1 => stun(input),
            2..=5 => wireguard(input),
            _ => self.damaged(input, to)?,
        })
    }

    /// Something genuine, with one to four bits turned, or cut.
    fn damaged(&self, input: &mut Input<'_>, to: usize) -> Option<Vec<u8>> {
        let own: Vec<_> = self.genuine.iter().filter(|it| it.0 == to).collect();
        let (_, genuine) = own.get(usize::from(input.u8()) % own.len().max(1))?;
        let mut bytes = genuine.clone();
        for _ in 0..=input.below(4) {
            let at = usize::from(input.u16()) % bytes.len();
            bytes[at] ^= 1 << input.below(8);
        }
        if input.u8() > 200 {
            bytes.truncate(usize::from(input.u16()) % bytes.len());
        }
        let signed = signed_part(genuine);
        let is_other = signed
            .into_iter()
            .any(|range| bytes.get(range.clone()) != genuine.get(range));
        is_other.then_some(bytes)
    }
}

/// What a signature covers. In STUN that is neither the length, which is put in anew for the check, nor what is behind the
/// MESSAGE-INTEGRITY, the FINGERPRINT here (RFC 8489 §14.5): a change there is a repetition of the genuine message.
fn signed_part(datagram: &[u8]) -> [Range<usize>; 2] {
    const COOKIE: [u8; 4] = [0x21, 0x12, 0xA4, 0x42];
    const FINGERPRINT_LEN: usize = 8;
    match datagram.get(4..8) == Some(&COOKIE) {
        true => [0..2, 4..datagram.len() - FINGERPRINT_LEN],
        false => [0..0, 0..datagram.len()],
    }
}

/// A STUN message with the right length.
fn stun(input: &mut Input<'_>) -> Vec<u8> {
    let kind = input.u16() & 0x3fff;
    let mut message = [&kind.to_be_bytes()[..], &[0, 0, 0x21, 0x12, 0xA4, 0x42]].concat();
    message.extend(input.array::<12>());
    message.extend(input.bytes(400));
    message.truncate(message.len() / 4 * 4);
    let len = (message.len() - 20) as u16;
    message[2..4].copy_from_slice(&len.to_be_bytes());
    message
}

/// A WireGuard message with the right type and length.
fn wireguard(input: &mut Input<'_>) -> Vec<u8> {
    let kind = 1 + input.below(4) as u8;
    let mut bytes = vec![kind, 0, 0, 0];
    bytes.extend(input.bytes(1400));
    let len = match kind {
        1 => 148,
        2 => 92,
        3 => 64,
        _ => bytes.len().max(32),
    };
    bytes.resize(len, 7);
    bytes
}

fn relay() -> RelayConfig<u32> {
    RelayConfig {
        id: 100,
        v4: RELAY.parse().ok(),
        v6: None,
        username: "1767225600:salt".to_owned(),
        password: "password".to_owned(),
        realm: "firezone".to_owned(),
    }
}
