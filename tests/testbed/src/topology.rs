//! Description of a test network, as the orchestrator writes it and the worker reads it.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::Duration,
};

use serde::{Deserialize, Serialize};

/// A whole test network: separate networks, edges in them, hosts with interfaces.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Topology {
    /// Decides loss and the ports of symmetric NATs.
    pub seed: u64,
    /// NATs and firewalls.
    pub edges: Vec<EdgeSpec>,
    /// Hosts.
    pub hosts: Vec<HostSpec>,
    /// Pairs of hosts that cannot exchange packets on any network.
    pub blocked: Vec<(String, String)>,
}

/// A NAT or firewall.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct EdgeSpec {
    /// Unique name, referred to by interfaces.
    pub name: String,
    /// Network that its outer side is on.
    pub network: String,
    /// How it treats traffic.
    pub kind: EdgeKindSpec,
    /// Public IPv4 address of a NAT.
    pub public_v4: Option<Ipv4Addr>,
    /// Idle expiry of mappings and filter entries.
    pub idle_expiry: Duration,
}

/// The kinds of [`netsim::EdgeKind`] that tests use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EdgeKindSpec {
    /// No translation, port-restricted filter.
    Firewall,
    /// Endpoint-independent mapping, port-restricted filter: an ordinary home router.
    Cone,
    /// Endpoint-dependent mapping: a port per destination.
    Symmetric,
}

/// A host: one namespace with interfaces.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct HostSpec {
    /// Unique name; also the host name inside `/etc/hostname`-less namespaces' prompts.
    pub name: String,
    /// Interfaces.
    pub interfaces: Vec<InterfaceSpec>,
    /// Files below `/etc` that this host sees instead of the machine's, by name (`resolv.conf`).
    pub etc: BTreeMap<String, String>,
    /// Whether the host forwards packets between its interfaces.
    pub forwarding: bool,
}

/// One interface of a host.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct InterfaceSpec {
    /// Device name inside the namespace.
    pub device: String,
    /// The network that it is attached to; interfaces of one network can reach each other.
    pub network: String,
    /// Name of the edge that it sits behind.
    pub edge: Option<String>,
    /// IPv4 address.
    pub v4: Option<Ipv4Addr>,
    /// IPv6 address.
    pub v6: Option<Ipv6Addr>,
    /// Routes through this interface.
    pub routes: Vec<RouteSpec>,
    /// Ranges that this host answers for on this network (it routes for somebody else).
    pub serves: Vec<Address>,
    /// Latency, loss and rate.
    pub link: LinkSpec,
}

/// An address with a prefix length.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Address {
    /// Any address of the range.
    pub address: IpAddr,
    /// Prefix length in bits.
    pub length: u8,
}

/// A route of a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteSpec {
    /// Destination range; length 0 is the default route.
    pub to: Address,
}

/// Properties of an interface's link, both directions.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct LinkSpec {
    /// One-way latency.
    pub latency: Duration,
    /// Probability of loss, 0.0 to 1.0.
    pub loss: f64,
    /// Bits per second.
    pub rate: Option<u64>,
}

impl Address {
    /// A range.
    pub fn new(address: impl Into<IpAddr>, length: u8) -> Self {
        Self {
            address: address.into(),
            length,
        }
    }
}

impl RouteSpec {
    /// The IPv4 default route.
    pub fn default_v4() -> Self {
        Self {
            to: Address::new(Ipv4Addr::UNSPECIFIED, 0),
        }
    }

    /// The IPv6 default route.
    pub fn default_v6() -> Self {
        Self {
            to: Address::new(Ipv6Addr::UNSPECIFIED, 0),
        }
    }

    /// A route to a range.
    pub fn to(address: impl Into<IpAddr>, length: u8) -> Self {
        Self {
            to: Address::new(address, length),
        }
    }
}

impl From<LinkSpec> for netsim::LinkConfig {
    fn from(spec: LinkSpec) -> Self {
        netsim::LinkConfig {
            latency: spec.latency,
            loss: spec.loss,
            rate: spec.rate,
            ..netsim::LinkConfig::default()
        }
    }
}

impl EdgeSpec {
    pub(crate) fn config(&self) -> netsim::EdgeConfig {
        let filtering = netsim::Filtering::PortRestricted;
        let kind = match self.kind {
            EdgeKindSpec::Firewall => netsim::EdgeKind::Firewall(filtering),
            EdgeKindSpec::Cone => netsim::EdgeKind::Cone(filtering),
            EdgeKindSpec::Symmetric => netsim::EdgeKind::Symmetric,
        };
        netsim::EdgeConfig {
            kind,
            public_v4: self.public_v4,
            idle_expiry: self.idle_expiry,
            inbound_refresh: netsim::InboundRefresh::No,
        }
    }
}
