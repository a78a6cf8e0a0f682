//! Hosts, edges and the packets in flight between them.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::Instant,
};

use rand::SeedableRng;
use rand_chacha::ChaCha20Rng;

use crate::{
    edge::{Edge, EdgeConfig},
    link::{Direction, LinkConfig},
    tuple::Tuple,
};

/// Packets in flight at most; more are dropped, as a router with full buffers does.
const MAX_IN_FLIGHT: usize = 262_144;

/// A host of a [`Network`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostId(usize);

/// An edge of a [`Network`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EdgeId(usize);

/// An address range, for hosts that route for others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Prefix {
    /// Any address of the range.
    pub address: IpAddr,
    /// Length of the common prefix in bits.
    pub length: u8,
}

impl Prefix {
    fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address) {
            (IpAddr::V4(net), IpAddr::V4(ip)) => {
                let shift = 32u32.saturating_sub(self.length.into());
                u32::from(net).checked_shr(shift) == u32::from(ip).checked_shr(shift)
            }
            (IpAddr::V6(net), IpAddr::V6(ip)) => {
                let shift = 128u32.saturating_sub(self.length.into());
                u128::from(net).checked_shr(shift) == u128::from(ip).checked_shr(shift)
            }
            _ => false,
        }
    }
}

/// Configuration of a host.
#[derive(Debug, Clone)]
pub struct HostConfig {
    /// Name, for people.
    pub name: String,
    /// IPv4 address as the host itself sees it.
    pub v4: Option<Ipv4Addr>,
    /// IPv6 address.
    pub v6: Option<Ipv6Addr>,
    /// Further ranges that the host routes for: packets to them are delivered to it, packets from them accepted.
    pub routes: Vec<Prefix>,
    /// The edge that it sits behind; `None`: directly on the network.
    pub edge: Option<EdgeId>,
    /// Its link.
    pub link: LinkConfig,
}

impl HostConfig {
    /// A host directly on the network, without an address yet.
    pub fn open(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            v4: None,
            v6: None,
            routes: Vec::new(),
            edge: None,
            link: LinkConfig::default(),
        }
    }

    /// Sets the IPv4 address.
    pub fn v4(mut self, address: Ipv4Addr) -> Self {
        self.v4 = Some(address);
        self
    }

    /// Sets the IPv6 address.
    pub fn v6(mut self, address: Ipv6Addr) -> Self {
        self.v6 = Some(address);
        self
    }

    /// Puts the host behind an edge.
    pub fn behind(mut self, edge: EdgeId) -> Self {
        self.edge = Some(edge);
        self
    }

    /// Sets the link's properties.
    pub fn link(mut self, link: LinkConfig) -> Self {
        self.link = link;
        self
    }

    fn owns(&self, address: IpAddr) -> bool {
        let own = match address {
            IpAddr::V4(v4) => self.v4 == Some(v4),
            IpAddr::V6(v6) => self.v6 == Some(v6),
        };
        own || self.routes.iter().any(|prefix| prefix.contains(address))
    }
}

/// A packet that reached its host.
#[derive(Debug, PartialEq, Eq)]
pub struct Delivery<P> {
    /// The receiver.
    pub host: HostId,
    /// Tuple as the receiver sees it.
    pub tuple: Tuple,
    /// What was sent.
    pub payload: P,
}

/// Fate of a packet at the moment of sending.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sent {
    /// On its way; the receiver's edge and link may still drop it.
    InFlight,
    /// Dropped, with the reason.
    Dropped(DropReason),
}

/// Why the network dropped a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum DropReason {
    /// Source address not owned by the sender, or families differ.
    BadSource,
    /// Nobody owns the destination, or it did and gave it up.
    NoRoute,
    /// A NAT or firewall refused it.
    Edge,
    /// Lost on a link, or its queue was full.
    Link,
    /// The two hosts are blocked from each other.
    Blocked,
    /// Too many packets in flight.
    Overflow,
}

/// Packets and bytes delivered between two hosts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counters {
    /// Packets.
    pub packets: u64,
    /// Bytes, as given at sending.
    pub bytes: u64,
}

/// The network. See the crate's documentation for the driving loop.
#[derive(Debug)]
pub struct Network<P> {
    hosts: Vec<Host>,
    edges: Vec<Edge>,
    blocked: BTreeSet<(HostId, HostId)>,
    in_flight: BTreeMap<(Instant, u64), InFlight<P>>,
    next_sequence: u64,
    delivered: BTreeMap<(HostId, HostId), Counters>,
    dropped: BTreeMap<DropReason, u64>,
    rng: ChaCha20Rng,
}

#[derive(Debug)]
struct Host {
    config: HostConfig,
    up: Direction,
    down: Direction,
}

#[derive(Debug, Clone)]
struct InFlight<P> {
    from: HostId,
    to: Receiver,
    tuple: Tuple,
    size: usize,
    payload: P,
}

/// Where a packet is going, and what is left to do on its way.
#[derive(Debug, Clone, Copy)]
enum Receiver {
    /// On the wire towards an edge; filter and mapping are looked up on arrival.
    Edge(EdgeId),
    /// On the last link.
    Host(HostId),
}

impl<P: Clone> Network<P> {
    /// An empty network; `seed` decides loss and the ports of symmetric NATs.
    pub fn new(seed: [u8; 32]) -> Self {
        Self {
            hosts: Vec::new(),
            edges: Vec::new(),
            blocked: BTreeSet::new(),
            in_flight: BTreeMap::new(),
            next_sequence: 0,
            delivered: BTreeMap::new(),
            dropped: BTreeMap::new(),
            rng: ChaCha20Rng::from_seed(seed),
        }
    }

    /// Adds an edge that hosts can be put behind.
    pub fn add_edge(&mut self, config: EdgeConfig) -> EdgeId {
        self.edges.push(Edge::new(config));
        EdgeId(self.edges.len() - 1)
    }

    /// Adds a host.
    pub fn add_host(&mut self, config: HostConfig) -> HostId {
        self.hosts.push(Host {
            config,
            up: Direction::default(),
            down: Direction::default(),
        });
        HostId(self.hosts.len() - 1)
    }

    /// The host's configuration.
    pub fn host(&self, host: HostId) -> &HostConfig {
        &self.hosts[host.0].config
    }

    /// Takes a packet of `size` bytes from `host`.
    pub fn send(
        &mut self,
        host: HostId,
        tuple: Tuple,
        size: usize,
        payload: P,
        now: Instant,
    ) -> Sent {
        match self.start(host, tuple, size, now) {
            Ok((at, to, tuple)) => {
                let packet = InFlight {
                    from: host,
                    to,
                    tuple,
                    size,
                    payload,
                };
                self.dispatch(at, packet);
                Sent::InFlight
            }
            Err(reason) => {
                self.count_drop(reason);
                Sent::Dropped(reason)
            }
        }
    }

    /// When the next packet arrives somewhere.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.in_flight.keys().next().map(|(at, _)| *at)
    }

    /// The next packet that has reached its host by `now`.
    pub fn poll_delivery(&mut self, now: Instant) -> Option<Delivery<P>> {
        loop {
            let entry = self.in_flight.first_entry()?;
            let (at, _) = *entry.key();
            if at > now {
                return None;
            }
            let packet = entry.remove();
            match packet.to {
                Receiver::Host(host) => {
                    let counters = self.delivered.entry((packet.from, host)).or_default();
                    counters.packets += 1;
                    counters.bytes += packet.size as u64;
                    return Some(Delivery {
                        host,
                        tuple: packet.tuple,
                        payload: packet.payload,
                    });
                }
                Receiver::Edge(edge) => self.enter_edge(edge, packet, at),
            }
        }
    }

    /// Drops everything between two hosts, both ways, from now on.
    pub fn block(&mut self, a: HostId, b: HostId) {
        self.blocked.insert((a.min(b), a.max(b)));
    }

    /// Undoes [`Self::block`].
    pub fn unblock(&mut self, a: HostId, b: HostId) {
        self.blocked.remove(&(a.min(b), a.max(b)));
    }

    /// Forgets all mappings and filter entries of an edge.
    pub fn flush_edge(&mut self, edge: EdgeId) {
        self.edges[edge.0].flush();
    }

    /// Gives an edge a new public address and forgets its state.
    pub fn renumber_edge(&mut self, edge: EdgeId, public_v4: Ipv4Addr) {
        self.edges[edge.0].renumber(public_v4);
    }

    /// Moves a host to other addresses and perhaps another edge (roaming). Packets to the old ones have no route.
    pub fn move_host(
        &mut self,
        host: HostId,
        v4: Option<Ipv4Addr>,
        v6: Option<Ipv6Addr>,
        edge: Option<EdgeId>,
    ) {
        let config = &mut self.hosts[host.0].config;
        config.v4 = v4;
        config.v6 = v6;
        config.edge = edge;
    }

    /// Replaces a host's link properties.
    pub fn set_link(&mut self, host: HostId, link: LinkConfig) {
        self.hosts[host.0].config.link = link;
    }

    /// What has been delivered from one host to another.
    pub fn delivered(&self, from: HostId, to: HostId) -> Counters {
        self.delivered.get(&(from, to)).copied().unwrap_or_default()
    }

    /// Number of packets dropped for a reason.
    pub fn dropped(&self, reason: DropReason) -> u64 {
        self.dropped.get(&reason).copied().unwrap_or_default()
    }

    /// The sender's half of the way: source check, link, own edge, route.
    fn start(
        &mut self,
        host: HostId,
        tuple: Tuple,
        size: usize,
        now: Instant,
    ) -> Result<(Instant, Receiver, Tuple), DropReason> {
        let sender = &mut self.hosts[host.0];
        if !tuple.is_single_family() || !sender.config.owns(tuple.source.ip()) {
            return Err(DropReason::BadSource);
        }
        let at = sender
            .up
            .transit(&sender.config.link, size, now, &mut self.rng)
            .ok_or(DropReason::Link)?;
        let edge = sender.config.edge;

        if let Some(neighbour) = self.inner_owner(tuple.destination.ip(), edge) {
            return self.last_link(host, neighbour, tuple, size, at);
        }
        let outside = match edge {
            Some(edge) => self.edges[edge.0]
                .outbound(tuple, now, &mut self.rng)
                .ok_or(DropReason::Edge)?,
            None => tuple,
        };
        match self.owner(outside.destination.ip()) {
            Some(Receiver::Edge(edge)) => Ok((at, Receiver::Edge(edge), outside)),
            Some(Receiver::Host(to)) => self.last_link(host, to, outside, size, at),
            None => Err(DropReason::NoRoute),
        }
    }

    /// The receiver's half behind an edge.
    fn enter_edge(&mut self, edge: EdgeId, packet: InFlight<P>, at: Instant) {
        let Some(inner) = self.edges[edge.0].inbound(packet.tuple, at) else {
            return self.count_drop(DropReason::Edge);
        };
        let Some(host) = self.inner_owner(inner.destination.ip(), Some(edge)) else {
            return self.count_drop(DropReason::NoRoute);
        };
        match self.last_link(packet.from, host, inner, packet.size, at) {
            Ok((at, to, tuple)) => self.dispatch(
                at,
                InFlight {
                    to,
                    tuple,
                    ..packet
                },
            ),
            Err(reason) => self.count_drop(reason),
        }
    }

    /// Puts a packet on its next leg; on the last one it may arrive twice.
    fn dispatch(&mut self, at: Instant, packet: InFlight<P>) {
        if let Receiver::Host(host) = packet.to {
            let link = &self.hosts[host.0].config.link;
            if link.duplicates(&mut self.rng) {
                let copy = at + link.hold;
                self.enqueue(copy, packet.clone());
            }
        }
        self.enqueue(at, packet);
    }

    fn last_link(
        &mut self,
        from: HostId,
        to: HostId,
        tuple: Tuple,
        size: usize,
        at: Instant,
    ) -> Result<(Instant, Receiver, Tuple), DropReason> {
        if self.blocked.contains(&(from.min(to), from.max(to))) {
            return Err(DropReason::Blocked);
        }
        let receiver = &mut self.hosts[to.0];
        let at = receiver
            .down
            .transit(&receiver.config.link, size, at, &mut self.rng)
            .ok_or(DropReason::Link)?;
        Ok((at, Receiver::Host(to), tuple))
    }

    fn enqueue(&mut self, at: Instant, packet: InFlight<P>) {
        if self.in_flight.len() >= MAX_IN_FLIGHT {
            return self.count_drop(DropReason::Overflow);
        }
        self.in_flight.insert((at, self.next_sequence), packet);
        self.next_sequence += 1;
    }

    /// A host behind the same edge: such traffic never reaches the edge.
    fn inner_owner(&self, address: IpAddr, edge: Option<EdgeId>) -> Option<HostId> {
        let edge = edge?;
        self.hosts
            .iter()
            .position(|host| host.config.edge == Some(edge) && host.config.owns(address))
            .map(HostId)
    }

    /// Who answers to an address on the public side.
    fn owner(&self, address: IpAddr) -> Option<Receiver> {
        let nat = self
            .edges
            .iter()
            .position(|edge| edge.public_v4().map(IpAddr::V4) == Some(address));
        if let Some(edge) = nat {
            return Some(Receiver::Edge(EdgeId(edge)));
        }
        let host = self.hosts.iter().position(|host| {
            host.config.owns(address) && self.is_public(host.config.edge, address)
        })?;
        Some(match self.hosts[host].config.edge {
            Some(edge) => Receiver::Edge(edge),
            None => Receiver::Host(HostId(host)),
        })
    }

    /// Whether a host's own address can be routed to from outside its edge.
    fn is_public(&self, edge: Option<EdgeId>, address: IpAddr) -> bool {
        match edge {
            None => true,
            Some(edge) => address.is_ipv6() || self.edges[edge.0].public_v4().is_none(),
        }
    }

    fn count_drop(&mut self, reason: DropReason) {
        *self.dropped.entry(reason).or_default() += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{EdgeKind, Filtering, Transport};
    use proptest::prelude::*;
    use std::{net::SocketAddr, time::Duration};

    fn addr(text: &str) -> SocketAddr {
        text.parse().expect("test address")
    }

    fn udp(source: &str, destination: &str) -> Tuple {
        Tuple::new(Transport::Udp, addr(source), addr(destination))
    }

    fn ms(latency: u64) -> LinkConfig {
        LinkConfig {
            latency: Duration::from_millis(latency),
            ..LinkConfig::default()
        }
    }

    fn drain<P: Clone>(network: &mut Network<P>) -> Vec<(Instant, Delivery<P>)> {
        let mut all = Vec::new();
        while let Some(due) = network.poll_timeout() {
            while let Some(delivery) = network.poll_delivery(due) {
                all.push((due, delivery));
            }
        }
        all
    }

    #[test]
    fn packets_are_overtaken_and_arrive_twice() {
        let link = LinkConfig {
            reordered: 0.2,
            duplicated: 0.2,
            ..ms(10)
        };
        let mut network = Network::new([4; 32]);
        let v4 = |last| Ipv4Addr::new(203, 0, 113, last);
        let a = network.add_host(HostConfig::open("a").v4(v4(1)));
        network.add_host(HostConfig::open("b").v4(v4(2)).link(link));
        let start = Instant::now();

        for number in 0..1000u32 {
            let now = start + Duration::from_millis(number.into());
            let tuple = udp("203.0.113.1:1", "203.0.113.2:2");
            network.send(a, tuple, 50, number, now);
        }
        let all = drain(&mut network);

        let order: Vec<u32> = all.iter().map(|(_, delivery)| delivery.payload).collect();
        let seen: BTreeSet<u32> = order.iter().copied().collect();
        assert_eq!(seen.len(), 1000, "nothing is lost");
        assert!((1150..1250).contains(&order.len()), "{}", order.len());
        let overtaken = order.windows(2).filter(|pair| pair[0] > pair[1]).count();
        assert!(overtaken > 200, "{overtaken}");
    }

    #[test]
    fn latency_of_both_ends_adds_up() {
        let mut network = Network::new([0; 32]);
        let v4 = |last| Ipv4Addr::new(203, 0, 113, last);
        let a = network.add_host(HostConfig::open("a").v4(v4(1)).link(ms(10)));
        let b = network.add_host(HostConfig::open("b").v4(v4(2)).link(ms(1)));
        let now = Instant::now();

        network.send(a, udp("203.0.113.1:1", "203.0.113.2:2"), 50, (), now);
        let all = drain(&mut network);

        assert_eq!(all.len(), 1);
        assert_eq!(all[0].0, now + Duration::from_millis(11));
        assert_eq!(
            network.delivered(a, b),
            Counters {
                packets: 1,
                bytes: 50
            }
        );
    }

    #[test]
    fn earliest_first_and_at_one_instant_in_the_order_of_sending() {
        let mut network = Network::new([0; 32]);
        let v4 = |last| Ipv4Addr::new(203, 0, 113, last);
        let far = network.add_host(HostConfig::open("far").v4(v4(1)).link(ms(20)));
        let near = network.add_host(HostConfig::open("near").v4(v4(2)).link(ms(5)));
        network.add_host(HostConfig::open("both").v4(v4(3)));
        let now = Instant::now();
        let from = |host: u8| udp(&format!("203.0.113.{host}:1"), "203.0.113.3:1");

        network.send(far, from(1), 1, "last", now);
        network.send(near, from(2), 1, "first", now);
        network.send(near, from(2), 1, "second", now);
        let later = now + Duration::from_millis(15);
        network.send(
            near,
            from(2),
            1,
            "at once with the last, but sent after it",
            later,
        );
        let all = drain(&mut network);

        let order: Vec<&str> = all.iter().map(|(_, delivery)| delivery.payload).collect();
        let last = "at once with the last, but sent after it";
        assert_eq!(order, ["first", "second", "last", last]);
        assert_eq!(all[2].0, all[3].0);
    }

    #[test]
    fn roaming_forgets_what_the_old_edge_let_in() {
        let mut network = Network::new([0; 32]);
        let cone = EdgeKind::Cone(Filtering::PortRestricted);
        let old = network.add_edge(EdgeConfig::nat(cone, Ipv4Addr::new(198, 51, 100, 1)));
        let new = network.add_edge(EdgeConfig::nat(cone, Ipv4Addr::new(198, 51, 100, 2)));
        let inner = Ipv4Addr::new(10, 0, 0, 2);
        let a = network.add_host(HostConfig::open("a").v4(inner).behind(old));
        let b = network.add_host(HostConfig::open("b").v4(Ipv4Addr::new(203, 0, 113, 1)));
        let now = Instant::now();
        let answer = |network: &mut Network<()>, to: &str| {
            network.send(b, udp("203.0.113.1:9", to), 1, (), now);
            drain(network).len()
        };

        network.send(a, udp("10.0.0.2:7", "203.0.113.1:9"), 1, (), now);
        drain(&mut network);
        assert_eq!(answer(&mut network, "198.51.100.1:7"), 1);
        network.move_host(a, Some(inner), None, Some(new));

        // Neither the address of before nor the new one lets anything in until the host has sent.
        assert_eq!(answer(&mut network, "198.51.100.1:7"), 0);
        assert_eq!(answer(&mut network, "198.51.100.2:7"), 0);
        network.send(a, udp("10.0.0.2:7", "203.0.113.1:9"), 1, (), now);
        drain(&mut network);
        assert_eq!(answer(&mut network, "198.51.100.2:7"), 1);
    }

    #[test]
    fn hosts_behind_nats_reach_each_other_only_after_both_sent() {
        let mut network = Network::new([0; 32]);
        let cone = EdgeKind::Cone(Filtering::PortRestricted);
        let left = network.add_edge(EdgeConfig::nat(cone, Ipv4Addr::new(198, 51, 100, 1)));
        let right = network.add_edge(EdgeConfig::nat(cone, Ipv4Addr::new(198, 51, 100, 2)));
        let inner = Ipv4Addr::new(10, 0, 0, 2);
        let a = network.add_host(HostConfig::open("a").v4(inner).behind(left));
        let b = network.add_host(HostConfig::open("b").v4(inner).behind(right));
        let now = Instant::now();

        network.send(a, udp("10.0.0.2:7", "198.51.100.2:7"), 1, "first", now);
        assert_eq!(drain(&mut network).len(), 0);
        network.send(b, udp("10.0.0.2:7", "198.51.100.1:7"), 1, "second", now);
        let all = drain(&mut network);

        assert_eq!(all.len(), 1);
        assert_eq!(all[0].1.host, a);
        assert_eq!(all[0].1.tuple, udp("198.51.100.2:7", "10.0.0.2:7"));
    }

    #[test]
    fn blocked_and_unroutable_packets_are_counted() {
        let mut network = Network::new([0; 32]);
        let v4 = |last| Ipv4Addr::new(203, 0, 113, last);
        let a = network.add_host(HostConfig::open("a").v4(v4(1)));
        let b = network.add_host(HostConfig::open("b").v4(v4(2)));
        network.block(b, a);
        let now = Instant::now();

        let blocked = network.send(a, udp("203.0.113.1:1", "203.0.113.2:2"), 1, (), now);
        let lost = network.send(a, udp("203.0.113.1:1", "203.0.113.3:2"), 1, (), now);
        let spoofed = network.send(a, udp("203.0.113.7:1", "203.0.113.2:2"), 1, (), now);

        assert_eq!(blocked, Sent::Dropped(DropReason::Blocked));
        assert_eq!(lost, Sent::Dropped(DropReason::NoRoute));
        assert_eq!(spoofed, Sent::Dropped(DropReason::BadSource));
        network.unblock(a, b);
        let sent = network.send(a, udp("203.0.113.1:1", "203.0.113.2:2"), 1, (), now);
        assert_eq!(sent, Sent::InFlight);
    }

    #[test]
    fn neighbours_behind_one_nat_talk_directly() {
        let mut network = Network::new([0; 32]);
        let kind = EdgeKind::Symmetric;
        let edge = network.add_edge(EdgeConfig::nat(kind, Ipv4Addr::new(198, 51, 100, 1)));
        let v4 = |last| Ipv4Addr::new(10, 0, 0, last);
        let a = network.add_host(HostConfig::open("a").v4(v4(1)).behind(edge));
        network.add_host(HostConfig::open("b").v4(v4(2)).behind(edge));

        network.send(a, udp("10.0.0.1:1", "10.0.0.2:2"), 1, (), Instant::now());

        assert_eq!(
            drain(&mut network)[0].1.tuple,
            udp("10.0.0.1:1", "10.0.0.2:2")
        );
    }

    proptest! {
        /// Equal seeds and inputs give equal deliveries, also with loss and a symmetric NAT.
        #[test]
        fn deterministic(seed in any::<[u8; 32]>(), sends in prop::collection::vec((1u16..5, 1u16..5, 0u64..50), 0..60)) {
            let run = || {
                let start = Instant::now();
                let mut network = Network::new(seed);
                let kind = EdgeKind::Symmetric;
                let edge = network.add_edge(EdgeConfig::nat(kind, Ipv4Addr::new(198, 51, 100, 1)));
                let lossy = LinkConfig { loss: 0.2, ..ms(3) };
                let a = network.add_host(
                    HostConfig::open("a").v4(Ipv4Addr::new(10, 0, 0, 1)).behind(edge).link(lossy),
                );
                network.add_host(HostConfig::open("b").v4(Ipv4Addr::new(203, 0, 113, 2)).link(ms(1)));
                for (source, destination, at) in &sends {
                    let tuple = udp(
                        &format!("10.0.0.1:{source}"),
                        &format!("203.0.113.2:{destination}"),
                    );
                    network.send(a, tuple, 10, (), start + Duration::from_millis(*at));
                }
                drain(&mut network)
                    .into_iter()
                    .map(|(at, d)| (at - start, d.host, d.tuple))
                    .collect::<Vec<_>>()
            };
            prop_assert_eq!(run(), run());
        }
    }
}
