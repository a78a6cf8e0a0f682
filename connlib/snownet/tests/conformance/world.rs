//! Nodes, relays and a signalling channel on a simulated network.
//!
//! Time advances exactly to the smallest announced deadline. The driver checks two global rules on the way: a node makes
//! progress (snownet 2), and a gateway never emits a handshake initiation (snownet 44).

use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::hash::{Hash, Hasher};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use connlib_snownet::{
    Decapsulated, Encapsulated, Event, IceCredentials, MAX_DATAGRAM_SIZE, NoRelays, Node, PathKind,
    Role, Transmit,
};
use ip_packet::{Ecn, IpPacket, Single, make};
use netsim::{
    EdgeConfig, EdgeId, EdgeKind, Filtering, HostConfig, HostId, LinkConfig, Network, Transport,
    Tuple,
};

use crate::relay::Relay;

pub const PSK: [u8; 32] = [0x77; 32];
/// Most time steps of one node at one instant (snownet 2).
const MAX_STEPS_AT_ONE_INSTANT: usize = 100;

/// A datagram as its sender put it on the wire.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wire {
    pub at: Duration,
    pub host: usize,
    pub src: SocketAddr,
    pub dst: SocketAddr,
    pub payload: Vec<u8>,
}

impl Wire {
    /// WireGuard message type, through channel data if need be.
    pub fn wireguard_type(&self) -> Option<u8> {
        let inner = match self.payload.first()? {
            64..=79 => self.payload.get(4..)?,
            _ => &self.payload,
        };
        match inner {
            [kind @ 1..=4, 0, 0, 0, ..] if inner.len() >= 32 => Some(*kind),
            _ => None,
        }
    }
}

/// A node on a host.
pub struct Host {
    pub node: Node<u32, u32>,
    pub id: HostId,
    pub v4: Option<Ipv4Addr>,
    pub v6: Option<Ipv6Addr>,
    pub port: u16,
    pub events: Vec<(Duration, Event<u32>)>,
    pub received: Vec<(Duration, u32, Vec<u8>)>,
    pub wakes: usize,
    steps: (Option<Instant>, usize),
    role: Role,
}

enum Signal {
    Candidate { to: usize, from: u32, sdp: String },
    Withdrawal { to: usize, from: u32, sdp: String },
}

/// Everything.
pub struct World {
    pub net: Network<Vec<u8>>,
    pub now: Instant,
    pub start: Instant,
    pub hosts: Vec<Host>,
    pub relays: Vec<Relay>,
    pub sent: Vec<Wire>,
    /// Which candidates (SDP) travel between nodes.
    pub signalling: fn(&str) -> bool,
    pub signalling_delay: Duration,
    /// Also wakes every node this often, for nothing.
    pub tick: Option<Duration>,
    /// Datagrams for which this returns true are lost.
    pub drop: Box<dyn FnMut(&Wire) -> bool>,
    last_tick: Instant,
    signals: BTreeMap<(Instant, u64), Signal>,
    sequence: u64,
    seed: u8,
}

/// Where a host sits.
#[derive(Debug, Clone, Copy)]
pub enum Place {
    Open,
    Cone,
    Symmetric,
}

impl World {
    pub fn new() -> Self {
        Self::seeded(1)
    }

    pub fn seeded(seed: u8) -> Self {
        let now = Instant::now();
        Self {
            net: Network::new([seed; 32]),
            now,
            start: now,
            hosts: Vec::new(),
            relays: Vec::new(),
            sent: Vec::new(),
            signalling: |_| true,
            signalling_delay: Duration::from_millis(40),
            tick: None,
            drop: Box::new(|_| false),
            last_tick: now,
            signals: BTreeMap::new(),
            sequence: 0,
            seed,
        }
    }

    /// When each event that `matches` happened at `host`.
    pub fn times(&self, host: usize, matches: impl Fn(&Event<u32>) -> bool) -> Vec<Duration> {
        let events = self.hosts[host].events.iter();
        events
            .filter(|(_, event)| matches(event))
            .map(|(at, _)| *at)
            .collect()
    }

    /// What an observer of the network can compare between two runs: ciphertext and transaction ids differ.
    pub fn trace(&self) -> Vec<(Duration, SocketAddr, SocketAddr, usize, Option<u8>)> {
        let line = |w: &Wire| (w.at, w.src, w.dst, w.payload.len(), w.wireguard_type());
        self.sent.iter().map(line).collect()
    }

    /// A world with `relays` dual-stack relays, a client and a gateway at the given places, all of them connected to the relays.
    pub fn pair(relays: u8, client: Place, gateway: Place) -> Self {
        let mut world = Self::new();
        for i in 0..relays {
            world.add_relay(Some([9, 9, 9, i + 1].into()), Some(v6(0x90 + u16::from(i))));
        }
        world.add_host_at(Role::Client, client);
        world.add_host_at(Role::Gateway, gateway);
        world.announce_relays();
        world.run_for(Duration::from_secs(1));
        world
    }

    /// Loses this share of all packets to and from every host.
    pub fn lose(&mut self, share: f64) {
        for host in &self.hosts {
            let loss = LinkConfig {
                loss: share,
                ..link()
            };
            self.net.set_link(host.id, loss);
        }
    }

    pub fn add_relay(&mut self, v4: Option<Ipv4Addr>, v6: Option<Ipv6Addr>) -> usize {
        let mut config = HostConfig::open("relay").link(link());
        config.v4 = v4;
        config.v6 = v6;
        let host = self.net.add_host(config);
        let id = self.relays.len() as u32 + 100;
        self.relays.push(Relay::new(id, host, v4, v6, self.now));
        self.relays.len() - 1
    }

    /// An IPv4 host at a place of its own.
    pub fn add_host_at(&mut self, role: Role, place: Place) -> usize {
        let i = self.hosts.len() as u8;
        let public = Ipv4Addr::from([1, 0, 0, i + 1]);
        let private = Ipv4Addr::from([192, 168, i, 2]);
        match place {
            Place::Open => self.add_host(role, Some(public), None, None),
            Place::Cone | Place::Symmetric => {
                let kind = match place {
                    Place::Symmetric => EdgeKind::Symmetric,
                    Place::Cone | Place::Open => EdgeKind::Cone(Filtering::PortRestricted),
                };
                let edge = self.net.add_edge(EdgeConfig::nat(kind, public));
                self.add_host(role, Some(private), None, Some(edge))
            }
        }
    }

    pub fn add_host(
        &mut self,
        role: Role,
        v4: Option<Ipv4Addr>,
        v6: Option<Ipv6Addr>,
        edge: Option<EdgeId>,
    ) -> usize {
        let mut config = HostConfig::open(format!("{role:?}")).link(link());
        config.v4 = v4;
        config.v6 = v6;
        config.edge = edge;
        let id = self.net.add_host(config);
        let seed = [self.seed.wrapping_add(10 + self.hosts.len() as u8); 32];
        self.hosts.push(Host {
            node: Node::new(role, seed, self.now, Duration::from_secs(1_700_000_000)),
            id,
            v4,
            v6,
            port: 52625,
            events: Vec::new(),
            received: Vec::new(),
            wakes: 0,
            steps: (None, 0),
            role,
        });
        self.hosts.len() - 1
    }

    /// Tells every node of every living relay.
    pub fn announce_relays(&mut self) {
        let configs: Vec<_> = self.relays.iter().map(Relay::config).collect();
        for i in 0..self.hosts.len() {
            let now = self.now;
            self.hosts[i]
                .node
                .update_relays(&BTreeSet::new(), &configs, now);
            self.drain(i);
        }
    }

    /// Takes `remove` from and gives `add` to one node (indices of relays).
    pub fn update_relays(&mut self, host: usize, remove: &[usize], add: &[usize]) {
        let remove = remove.iter().map(|i| self.relays[*i].id).collect();
        let add: Vec<_> = add.iter().map(|i| self.relays[*i].config()).collect();
        let now = self.now;
        self.hosts[host].node.update_relays(&remove, &add, now);
        self.drain(host);
    }

    /// What the portal does for an authorized flow: gateway first, then client.
    pub fn connect(&mut self, client: usize, gateway: usize) {
        self.upsert(gateway, client, PSK).unwrap();
        self.upsert(client, gateway, PSK).unwrap();
    }

    /// Announces `other` to `host`, with the credentials that belong to their keys.
    pub fn upsert(&mut self, host: usize, other: usize, psk: [u8; 32]) -> Result<(), NoRelays> {
        let (client, gateway) = match self.hosts[host].role {
            Role::Client => (host, other),
            Role::Gateway => (other, host),
        };
        let (client_ice, gateway_ice) = self.credentials(client, gateway);
        let (local, remote) = match self.hosts[host].role {
            Role::Client => (client_ice, gateway_ice),
            Role::Gateway => (gateway_ice, client_ice),
        };
        let key = self.hosts[other].node.public_key();
        let now = self.now;
        let result =
            self.hosts[host]
                .node
                .upsert_connection(other as u32, key, psk, local, remote, now);
        self.drain(host);
        result
    }

    /// Lets time pass until `duration` from now.
    pub fn run_for(&mut self, duration: Duration) {
        let end = self.now + duration;
        while self.step(end) {}
        self.now = end;
    }

    /// Lets time pass until `done`, at most `limit`. Returns how long it took.
    pub fn run_until(&mut self, limit: Duration, mut done: impl FnMut(&Self) -> bool) -> Duration {
        let begin = self.now;
        let end = begin + limit;
        while !done(self) {
            assert!(self.step(end), "not done within {limit:?}");
        }
        self.now - begin
    }

    /// Jumps ahead without waking anybody, as a suspended machine does. What is on the wire is lost.
    pub fn suspend(&mut self, duration: Duration) {
        self.now += duration;
        while self.net.poll_delivery(self.now).is_some() {}
    }

    /// Sends one packet with this number from host to host and returns what became of it.
    pub fn send(&mut self, from: usize, to: usize, number: u32) -> Encapsulated {
        self.try_send(from, to, number).expect("connection exists")
    }

    pub fn try_send(&mut self, from: usize, to: usize, number: u32) -> Option<Encapsulated> {
        self.send_packet(from, to, &packet(number))
    }

    pub fn send_packet(
        &mut self,
        from: usize,
        to: usize,
        packet: &IpPacket,
    ) -> Option<Encapsulated> {
        let mut sink = VecDeque::new();
        let now = self.now;
        let outcome = self.hosts[from]
            .node
            .encapsulate(
                to as u32,
                &mut Single::from(packet),
                Ecn::NotEct,
                now,
                &mut sink,
            )
            .ok()?;
        for transmit in sink {
            self.put_on_wire(from, transmit);
        }
        self.drain(from);
        Some(outcome)
    }

    /// Numbers of the packets that `host` has received from `peer`.
    pub fn received(&self, host: usize, peer: usize) -> Vec<u32> {
        self.hosts[host]
            .received
            .iter()
            .filter(|(_, p, _)| *p == peer as u32)
            .map(|(_, _, bytes)| number_of(bytes))
            .collect()
    }

    pub fn is_established(&self, host: usize, peer: usize) -> bool {
        self.count(host, |e| *e == Event::ConnectionEstablished(peer as u32)) > 0
    }

    pub fn count(&self, host: usize, matches: impl Fn(&Event<u32>) -> bool) -> usize {
        self.hosts[host]
            .events
            .iter()
            .filter(|(_, event)| matches(event))
            .count()
    }

    pub fn kind(&self, host: usize, peer: usize) -> Option<PathKind> {
        self.hosts[host]
            .node
            .path(peer as u32)
            .map(|path| path.kind)
    }

    /// Connects, sends until both ends are established, and checks that a packet arrives each way.
    pub fn establish(&mut self, client: usize, gateway: usize) {
        self.connect(client, gateway);
        self.run_until(Duration::from_secs(25), |w| {
            w.is_established(client, gateway)
        });
        // The client's first packet confirms the session; should it be lost, the next one does.
        for _ in 0..20 {
            if self.is_established(gateway, client) {
                break;
            }
            self.send(client, gateway, 0);
            self.run_for(Duration::from_millis(500));
        }
        assert!(self.is_established(gateway, client));
        self.ping(client, gateway);
    }

    /// A packet each way, repeated a few times should it be lost.
    pub fn ping(&mut self, client: usize, gateway: usize) {
        for (from, to) in [(client, gateway), (gateway, client)] {
            let number = self.sent.len() as u32;
            for _ in 0..5 {
                self.send(from, to, number);
                self.run_for(Duration::from_millis(100));
                if self.received(to, from).contains(&number) {
                    break;
                }
                self.run_for(Duration::from_millis(900));
            }
            assert!(self.received(to, from).contains(&number), "{from} to {to}");
        }
    }

    pub fn elapsed(&self) -> Duration {
        self.now - self.start
    }

    /// Whether a host's first datagrams of this kind were seen since `since`.
    pub fn wires_since(&self, since: Duration) -> impl Iterator<Item = &Wire> {
        self.sent.iter().filter(move |wire| wire.at >= since)
    }

    /// Moves a host to another address after a change of network.
    pub fn roam(&mut self, host: usize, v4: Ipv4Addr) {
        let id = self.hosts[host].id;
        self.net.move_host(id, Some(v4), None, None);
        self.hosts[host].v4 = Some(v4);
        self.hosts[host].v6 = None;
        self.hosts[host].port += 1;
        let now = self.now;
        self.hosts[host].node.reset(now);
        self.drain(host);
    }

    /// Delivers whatever `host` has to say.
    pub fn drain(&mut self, host: usize) {
        while let Some(transmit) = self.hosts[host].node.poll_transmit() {
            self.put_on_wire(host, transmit);
        }
        let at = self.elapsed();
        while let Some(event) = self.hosts[host].node.poll_event() {
            self.signal(host, &event);
            self.hosts[host].events.push((at, event));
        }
    }

    fn signal(&mut self, host: usize, event: &Event<u32>) {
        let from = host as u32;
        let (to, sdp, is_new) = match event {
            Event::NewIceCandidate { peer, sdp } => (*peer as usize, sdp.clone(), true),
            Event::InvalidateIceCandidate { peer, sdp } => (*peer as usize, sdp.clone(), false),
            Event::ConnectionEstablished(_)
            | Event::ConnectionFailed(_)
            | Event::Undelivered { .. }
            | Event::ConnectionClosed(_)
            | Event::NoRelays => return,
        };
        if !(self.signalling)(&sdp) {
            return;
        }
        let signal = if is_new {
            Signal::Candidate { to, from, sdp }
        } else {
            Signal::Withdrawal { to, from, sdp }
        };
        self.sequence += 1;
        self.signals
            .insert((self.now + self.signalling_delay, self.sequence), signal);
    }

    fn put_on_wire(&mut self, host: usize, transmit: Transmit) {
        let sender = &self.hosts[host];
        let own: Option<IpAddr> = if transmit.dst.is_ipv4() {
            sender.v4.map(IpAddr::V4)
        } else {
            sender.v6.map(IpAddr::V6)
        };
        assert!(transmit.payload.len() <= MAX_DATAGRAM_SIZE);
        if let Some(src) = transmit.src {
            let is_socket = own == Some(src.ip()) && src.port() == sender.port;
            assert!(is_socket, "{src} is no socket of host {host}");
        }
        let Some(src) = transmit
            .src
            .or_else(|| Some(SocketAddr::new(own?, sender.port)))
        else {
            return;
        };
        let wire = Wire {
            at: self.elapsed(),
            host,
            src,
            dst: transmit.dst,
            payload: transmit.payload,
        };
        if sender.role == Role::Gateway {
            assert_ne!(
                wire.wireguard_type(),
                Some(1),
                "snownet 44: gateway initiates"
            );
        }
        self.sent.push(wire.clone());
        if (self.drop)(&wire) {
            return;
        }
        let tuple = Tuple::new(Transport::Udp, wire.src, wire.dst);
        let id = self.hosts[host].id;
        self.net
            .send(id, tuple, wire.payload.len() + 28, wire.payload, self.now);
    }

    /// Advances to the next deadline before `end` and does what is due there. False when there is none.
    fn step(&mut self, end: Instant) -> bool {
        let nodes = self
            .hosts
            .iter_mut()
            .filter_map(|host| host.node.poll_timeout().map(|(at, _)| at));
        let tick = self.tick.map(|tick| self.last_tick + tick);
        let next = nodes
            .chain(self.net.poll_timeout())
            .chain(self.signals.keys().next().map(|(at, _)| *at))
            .chain(tick)
            .min();
        let Some(next) = next.filter(|at| *at <= end) else {
            return false;
        };
        self.now = self.now.max(next);
        self.deliver();
        self.deliver_signals();
        for host in 0..self.hosts.len() {
            self.time_out(host);
        }
        if tick.is_some_and(|at| self.now >= at) {
            self.last_tick = self.now;
            for host in 0..self.hosts.len() {
                let now = self.now;
                self.hosts[host].node.handle_timeout(now);
                self.drain(host);
            }
        }
        true
    }

    fn time_out(&mut self, host: usize) {
        let now = self.now;
        let Some((at, reason)) = self.hosts[host].node.poll_timeout() else {
            return;
        };
        if at > now {
            return;
        }
        let steps = &mut self.hosts[host].steps;
        *steps = match steps.0 {
            Some(last) if last == now => (Some(now), steps.1 + 1),
            _ => (Some(now), 1),
        };
        assert!(
            steps.1 <= MAX_STEPS_AT_ONE_INSTANT,
            "snownet 2: no progress ({reason})"
        );
        self.hosts[host].wakes += 1;
        self.hosts[host].node.handle_timeout(now);
        self.drain(host);
        if let Some((next, reason)) = self.hosts[host].node.poll_timeout() {
            assert!(next > now, "snownet 2: {reason} stays due");
        }
    }

    fn deliver(&mut self) {
        while let Some(delivery) = self.net.poll_delivery(self.now) {
            let (to, from) = (delivery.tuple.destination, delivery.tuple.source);
            if let Some(i) = self.relays.iter().position(|r| r.host == delivery.host) {
                let outputs = self.relays[i].handle(to, from, &delivery.payload, self.now);
                for (src, dst, payload) in outputs {
                    let tuple = Tuple::new(Transport::Udp, src, dst);
                    let size = payload.len() + 28;
                    self.net.send(delivery.host, tuple, size, payload, self.now);
                }
            } else if let Some(i) = self.hosts.iter().position(|h| h.id == delivery.host)
                && to.port() == self.hosts[i].port
            {
                self.receive(i, to, from, &delivery.payload);
            }
        }
    }

    /// Gives one datagram to a node.
    pub fn receive(&mut self, host: usize, local: SocketAddr, from: SocketAddr, datagram: &[u8]) {
        let mut out = [0; 2048];
        let now = self.now;
        let at = self.elapsed();
        let receiver = &mut self.hosts[host];
        match receiver
            .node
            .decapsulate(local, from, datagram, now, &mut out)
        {
            Ok(Decapsulated::Packet { peer, len }) => {
                receiver.received.push((at, peer, out[..len].to_vec()));
            }
            Ok(Decapsulated::Consumed) | Err(_) => {}
        }
        self.drain(host);
    }

    fn deliver_signals(&mut self) {
        while let Some(entry) = self.signals.first_entry() {
            if entry.key().0 > self.now {
                return;
            }
            let now = self.now;
            match entry.remove() {
                Signal::Candidate { to, from, sdp } => {
                    self.hosts[to].node.add_remote_candidate(from, &sdp, now);
                    self.drain(to);
                }
                Signal::Withdrawal { to, from, sdp } => {
                    self.hosts[to].node.remove_remote_candidate(from, &sdp, now);
                    self.drain(to);
                }
            }
        }
    }

    pub fn credentials(&self, client: usize, gateway: usize) -> (IceCredentials, IceCredentials) {
        let mut hasher = DefaultHasher::new();
        (client, gateway).hash(&mut hasher);
        self.hosts[client].node.public_key().0.hash(&mut hasher);
        self.hosts[gateway].node.public_key().0.hash(&mut hasher);
        let hash = format!("{:016x}", hasher.finish());
        let password = |side: &str| format!("{side}{hash}{hash}")[..22].to_owned();
        (
            IceCredentials::new(format!("c{}", &hash[..4]), password("c")).unwrap(),
            IceCredentials::new(format!("g{}", &hash[4..8]), password("g")).unwrap(),
        )
    }
}

pub fn v6(last: u16) -> Ipv6Addr {
    Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, last)
}

pub fn packet(number: u32) -> IpPacket {
    let source = SocketAddr::from(([100, 64, 0, 1], 1000));
    let destination = SocketAddr::from(([100, 64, 0, 2], 2000));
    make::udp_packet(source, destination, &number.to_be_bytes()).unwrap()
}

fn number_of(packet: &[u8]) -> u32 {
    u32::from_be_bytes(packet[28..32].try_into().unwrap())
}

fn link() -> LinkConfig {
    LinkConfig {
        latency: Duration::from_millis(10),
        ..LinkConfig::default()
    }
}
