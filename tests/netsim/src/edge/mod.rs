//! The edge between a host's network and everybody else: NAT for IPv4, stateful filter for both families.
//!
//! Kinds and filtering are those of RFC 4787 (§4 mapping, §5 filtering); idle expiry and its refresh rules §4.3.

mod filter;
mod nat;

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::{Duration, Instant},
};

use rand_chacha::ChaCha20Rng;

use crate::tuple::{Transport, Tuple};
use filter::Filter;
use nat::Nat;

/// How an edge treats IPv4 addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EdgeKind {
    /// No translation and no filter: inner addresses are public.
    Open,
    /// No translation, stateful filter.
    Firewall(Filtering),
    /// NAT with endpoint-independent mapping: one public port per inner socket.
    Cone(Filtering),
    /// NAT with address- and port-dependent mapping and filtering: a new public port per destination.
    Symmetric,
}

/// Which packets from outside an edge lets in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Filtering {
    /// Everything that has a mapping (endpoint-independent).
    Open,
    /// Only from addresses that the inner socket has sent to.
    AddressRestricted,
    /// Only from address and port that the inner socket has sent to.
    PortRestricted,
}

/// Whether traffic from outside keeps a mapping alive (RFC 4787 REQ-6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InboundRefresh {
    /// It does.
    Yes,
    /// Only outbound traffic does.
    No,
}

/// Configuration of an edge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EdgeConfig {
    /// Treatment of addresses and of traffic from outside.
    pub kind: EdgeKind,
    /// The public IPv4 address; must be set for the NAT kinds.
    pub public_v4: Option<Ipv4Addr>,
    /// A mapping or filter entry without traffic for this long is gone.
    pub idle_expiry: Duration,
    /// Whether traffic from outside counts as traffic.
    pub inbound_refresh: InboundRefresh,
}

impl EdgeConfig {
    /// A NAT of the given kind with a 120 s idle expiry that outbound traffic alone refreshes.
    pub fn nat(kind: EdgeKind, public_v4: Ipv4Addr) -> Self {
        Self {
            kind,
            public_v4: Some(public_v4),
            idle_expiry: Duration::from_secs(120),
            inbound_refresh: InboundRefresh::No,
        }
    }

    /// A stateful firewall in front of public addresses.
    pub fn firewall(filtering: Filtering) -> Self {
        Self {
            kind: EdgeKind::Firewall(filtering),
            public_v4: None,
            idle_expiry: Duration::from_secs(120),
            inbound_refresh: InboundRefresh::No,
        }
    }
}

/// An edge with its state.
#[derive(Debug)]
pub(crate) struct Edge {
    config: EdgeConfig,
    nat: Option<Nat>,
    filter: Filter,
}

impl Edge {
    pub(crate) fn new(config: EdgeConfig) -> Self {
        let nat = match (config.kind, config.public_v4) {
            (EdgeKind::Cone(_) | EdgeKind::Symmetric, Some(public)) => Some(Nat::new(
                public,
                config.kind == EdgeKind::Symmetric,
                config.idle_expiry,
                config.inbound_refresh,
            )),
            _ => None,
        };
        let filter = Filter::new(config.kind.filtering(), config.idle_expiry);
        Self {
            config,
            nat,
            filter,
        }
    }

    pub(crate) fn public_v4(&self) -> Option<Ipv4Addr> {
        self.nat.as_ref().map(Nat::public)
    }

    /// A packet from inside: what the world sees, or `None` if the edge drops it.
    pub(crate) fn outbound(
        &mut self,
        tuple: Tuple,
        now: Instant,
        rng: &mut ChaCha20Rng,
    ) -> Option<Tuple> {
        self.filter.outbound(&tuple, now);
        match (&mut self.nat, tuple.source.ip()) {
            (Some(_), IpAddr::V4(_)) if tuple.transport == Transport::Other => None,
            (Some(nat), IpAddr::V4(_)) => {
                let public = nat.outbound(&tuple, now, rng)?;
                Some(tuple.with_source(public))
            }
            _ => Some(tuple),
        }
    }

    /// A packet from outside: the inner tuple, or `None` if the edge drops it.
    pub(crate) fn inbound(&mut self, tuple: Tuple, now: Instant) -> Option<Tuple> {
        let inner = match (&mut self.nat, tuple.destination.ip()) {
            (Some(nat), IpAddr::V4(_)) => {
                let inner: SocketAddr = nat.inbound(&tuple, now)?;
                tuple.with_destination(inner)
            }
            _ => tuple,
        };
        self.filter.permits(&inner, now).then_some(inner)
    }

    /// Forgets every mapping and filter entry, as a reboot does.
    pub(crate) fn flush(&mut self) {
        *self = Self::new(self.config.clone());
    }

    /// Takes a new public address; all state is gone.
    pub(crate) fn renumber(&mut self, public_v4: Ipv4Addr) {
        self.config.public_v4 = Some(public_v4);
        self.flush();
    }
}

impl EdgeKind {
    fn filtering(self) -> Option<Filtering> {
        match self {
            EdgeKind::Open => None,
            EdgeKind::Firewall(filtering) | EdgeKind::Cone(filtering) => Some(filtering),
            EdgeKind::Symmetric => Some(Filtering::PortRestricted),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    const PUBLIC: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 9);

    fn rng() -> ChaCha20Rng {
        ChaCha20Rng::from_seed([3; 32])
    }

    fn udp(source: &str, destination: &str) -> Tuple {
        Tuple::new(
            Transport::Udp,
            source.parse().expect("test address"),
            destination.parse().expect("test address"),
        )
    }

    fn reply(outside: &Tuple) -> Tuple {
        Tuple::new(outside.transport, outside.destination, outside.source)
    }

    #[test]
    fn cone_keeps_one_public_port_for_all_destinations() {
        let (now, mut rng) = (Instant::now(), rng());
        let kind = EdgeKind::Cone(Filtering::PortRestricted);
        let mut edge = Edge::new(EdgeConfig::nat(kind, PUBLIC));

        let a = edge.outbound(udp("10.0.0.2:5000", "198.51.100.1:1"), now, &mut rng);
        let b = edge.outbound(udp("10.0.0.2:5000", "198.51.100.2:2"), now, &mut rng);

        assert_eq!(a.map(|t| t.source), b.map(|t| t.source));
        assert_eq!(a.map(|t| t.source), "203.0.113.9:5000".parse().ok());
    }

    #[test]
    fn symmetric_uses_a_port_per_destination_and_filters_by_port() {
        let (now, mut rng) = (Instant::now(), rng());
        let mut edge = Edge::new(EdgeConfig::nat(EdgeKind::Symmetric, PUBLIC));

        let a = edge
            .outbound(udp("10.0.0.2:5000", "198.51.100.1:1"), now, &mut rng)
            .expect("translated");
        let b = edge
            .outbound(udp("10.0.0.2:5000", "198.51.100.1:2"), now, &mut rng)
            .expect("translated");

        assert_ne!(a.source, b.source);
        let home = edge.inbound(reply(&a), now).expect("reply passes");
        assert_eq!(home.destination, "10.0.0.2:5000".parse().expect("address"));
        let stranger = Tuple::new(
            Transport::Udp,
            "198.51.100.1:2".parse().expect("address"),
            a.source,
        );
        assert_eq!(edge.inbound(stranger, now), None);
    }

    #[test]
    fn filtering_decides_who_may_answer() {
        for (filtering, other_port, other_host) in [
            (Filtering::Open, true, true),
            (Filtering::AddressRestricted, true, false),
            (Filtering::PortRestricted, false, false),
        ] {
            let (now, mut rng) = (Instant::now(), rng());
            let mut edge = Edge::new(EdgeConfig::nat(EdgeKind::Cone(filtering), PUBLIC));
            edge.outbound(udp("10.0.0.2:5000", "198.51.100.1:1"), now, &mut rng);

            let mut from = |source| edge.inbound(udp(source, "203.0.113.9:5000"), now).is_some();

            assert!(from("198.51.100.1:1"));
            assert_eq!(from("198.51.100.1:2"), other_port, "{filtering:?}");
            assert_eq!(from("198.51.100.2:1"), other_host, "{filtering:?}");
        }
    }

    #[test]
    fn expiry_cone_keeps_the_port_symmetric_mints_a_new_one() {
        let mut rng = rng();
        for (kind, same) in [
            (EdgeKind::Cone(Filtering::PortRestricted), true),
            (EdgeKind::Symmetric, false),
        ] {
            let now = Instant::now();
            let mut edge = Edge::new(EdgeConfig::nat(kind, PUBLIC));
            let tuple = udp("10.0.0.2:5000", "198.51.100.1:1");
            let before = edge.outbound(tuple, now, &mut rng).expect("translated");
            let later = now + Duration::from_secs(120);

            assert_eq!(edge.inbound(reply(&before), later), None, "{kind:?}");
            let after = edge.outbound(tuple, later, &mut rng).expect("translated");
            assert_eq!(before.source == after.source, same, "{kind:?}");
        }
    }

    #[test]
    fn ipv6_is_filtered_but_never_translated() {
        let (now, mut rng) = (Instant::now(), rng());
        let mut edge = Edge::new(EdgeConfig::nat(EdgeKind::Symmetric, PUBLIC));
        let tuple = udp("[2001:db8::2]:5000", "[2001:db8:1::1]:1");

        assert_eq!(edge.inbound(reply(&tuple), now), None);
        assert_eq!(edge.outbound(tuple, now, &mut rng), Some(tuple));
        assert_eq!(edge.inbound(reply(&tuple), now), Some(reply(&tuple)));
    }

    #[test]
    fn echo_identifier_is_translated_on_both_sides() {
        let (now, mut rng) = (Instant::now(), rng());
        let mut edge = Edge::new(EdgeConfig::nat(EdgeKind::Symmetric, PUBLIC));
        let echo = Tuple::new(
            Transport::IcmpEcho,
            "10.0.0.2:77".parse().expect("address"),
            "198.51.100.1:77".parse().expect("address"),
        );

        let outside = edge.outbound(echo, now, &mut rng).expect("translated");
        assert_eq!(outside.source.port(), outside.destination.port());
        let inside = edge.inbound(reply(&outside), now).expect("answered");

        assert_eq!(inside, reply(&echo));
    }
}
