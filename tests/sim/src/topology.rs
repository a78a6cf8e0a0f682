//! What a case starts from: sites, hosts and where they sit, resources, names. Plain data, equal in generated cases and
//! scripts.
//!
//! Everything is named by its index: client 0, gateway 2, resource 1. Ids follow from indices ([`ids`]), so that "the
//! larger id" is the later resource.

pub mod addresses;
pub mod ids;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// A whole starting point.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Topology {
    /// Feeds every random choice of nodes, relays, portal and network.
    pub seed: u64,
    /// Number of sites.
    pub sites: usize,
    /// Gateways; each serves one site.
    pub gateways: Vec<GatewaySpec>,
    /// Relays.
    pub relays: Vec<RelaySpec>,
    /// Clients.
    pub clients: Vec<ClientSpec>,
    /// Everything that may become a resource of somebody during the case.
    pub resources: Vec<ResourceSpec>,
    /// Names that exist, wherever they are asked for.
    pub names: Vec<NameSpec>,
    /// Hosts behind gateways that cannot be reached, and what a packet to them yields.
    pub unreachable: Vec<(IpAddr, Failure)>,
    /// Resolvers that the portal configures.
    pub upstream_dns: Vec<SocketAddr>,
    /// Appended to single-label queries.
    pub search_domain: Option<String>,
    /// Packets lost on each link, in percent.
    pub loss: u8,
    /// Packets held up on each link and overtaken by later ones, in percent.
    pub reordered: u8,
    /// Packets that reach a host twice, in percent.
    pub duplicated: u8,
    /// Clients and gateways cannot reach each other without a relay.
    pub block_direct: bool,
    /// How the way to and from the portal behaves.
    pub portal: PortalManners,
}

/// A gateway.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GatewaySpec {
    /// Index of its site.
    pub site: usize,
    /// Where it is on the network.
    #[serde(default)]
    pub host: HostSpec,
}

/// A relay.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RelaySpec {
    /// Address families it has.
    pub families: Families,
    /// One-way latency of its link in milliseconds.
    pub latency_ms: u64,
}

/// A client.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ClientSpec {
    /// Where it is on the network.
    pub host: HostSpec,
    /// Resolvers of its operating system.
    pub system_dns: Vec<IpAddr>,
    /// Resources that it may reach from the beginning.
    pub granted: Vec<usize>,
    /// Decides how long its TCP connections wait for an answer.
    pub os: Os,
}

/// Operating system of a client: how long TCP goes on without an acknowledgement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Os {
    /// 924 s; Android too.
    #[default]
    Linux,
    /// 450 s; iOS too.
    MacOs,
    /// 90 s.
    Windows,
}

/// Where a host sits.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HostSpec {
    /// Address families it has.
    pub families: Families,
    /// What is between it and everybody else.
    pub edge: Edge,
    /// Idle expiry of the edge's state in seconds.
    pub expiry_s: u64,
    /// Whether traffic from outside keeps the edge's mappings alive.
    pub inbound_refresh: bool,
    /// One-way latency of its link in milliseconds.
    pub latency_ms: u64,
}

/// Address families.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Families {
    /// Both.
    #[default]
    Dual,
    /// IPv4 only.
    V4,
    /// IPv6 only.
    V6,
}

/// NAT and firewall in front of a host (testing §5.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Edge {
    /// None.
    #[default]
    Open,
    /// No translation, stateful filter.
    Firewall(Filtering),
    /// Endpoint-independent mapping.
    Cone(Filtering),
    /// Endpoint-dependent mapping, port-restricted filtering.
    Symmetric,
}

/// Which packets from outside an edge lets in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Filtering {
    /// All for which there is a mapping.
    Open,
    /// From addresses that were sent to.
    Address,
    /// From sockets that were sent to.
    Port,
}

/// Something that can be reached.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ResourceSpec {
    /// What.
    pub target: Target,
    /// Index of the site that serves it.
    pub site: usize,
    /// What is permitted; empty permits everything.
    #[serde(default)]
    pub filters: Vec<FilterSpec>,
}

/// What a resource is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Target {
    /// A network.
    Cidr(IpNet),
    /// Names, for the given families.
    Dns(String, Families),
    /// Everything else.
    Internet,
}

/// Something that a resource permits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum FilterSpec {
    /// TCP to these ports, both ends included.
    Tcp(u16, u16),
    /// UDP to these ports, both ends included.
    Udp(u16, u16),
    /// ICMP.
    Icmp,
}

/// A name with its records.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NameSpec {
    /// The name, without a trailing dot.
    pub name: String,
    /// A records.
    pub v4: Vec<Ipv4Addr>,
    /// AAAA records.
    pub v6: Vec<Ipv6Addr>,
    /// Number of TXT strings of 255 bytes; enough of them make the answer too large for UDP.
    pub txt: usize,
    /// What resolvers say about it.
    pub answer: DnsAnswer,
}

/// How resolvers outside treat a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum DnsAnswer {
    /// With its records.
    #[default]
    Records,
    /// As if it did not exist.
    NameError,
    /// With a failure.
    ServerFailure,
    /// Not at all.
    Silence,
    /// By an error that says that the server cannot be reached.
    Unreachable,
}

/// What a packet to an unreachable host yields.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Failure {
    /// Network unreachable.
    Network,
    /// Host (address) unreachable.
    Host,
    /// Port unreachable.
    Port,
    /// Prohibited by an administrator, behind the gateway.
    Prohibited,
    /// Time exceeded in transit.
    TimeExceeded,
    /// Too big, with this MTU.
    TooBig(u16),
}

/// How the way to and from the portal behaves.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PortalManners {
    /// What is added to the way of each answer to a request for access, in milliseconds.
    pub answer_delay_ms: u64,
    /// Each such answer comes twice.
    pub doubled: bool,
    /// The first such answer to each client never comes.
    pub loses_first: bool,
    /// Each request for access changes the preshared key, as portals of early 2025 do.
    pub rotate_psk: bool,
}

impl Default for Topology {
    fn default() -> Self {
        Self {
            seed: 1,
            sites: 1,
            gateways: vec![GatewaySpec {
                site: 0,
                host: HostSpec::default(),
            }],
            relays: vec![RelaySpec::default()],
            clients: vec![ClientSpec::default()],
            resources: vec![],
            names: vec![],
            unreachable: vec![],
            upstream_dns: vec![],
            search_domain: None,
            loss: 0,
            reordered: 0,
            duplicated: 0,
            block_direct: false,
            portal: PortalManners::default(),
        }
    }
}

impl Default for RelaySpec {
    fn default() -> Self {
        Self {
            families: Families::Dual,
            latency_ms: 10,
        }
    }
}

impl Default for ClientSpec {
    fn default() -> Self {
        Self {
            host: HostSpec::default(),
            system_dns: vec![IpAddr::V4(Ipv4Addr::new(192, 0, 2, 53))],
            granted: vec![],
            os: Os::default(),
        }
    }
}

impl Default for HostSpec {
    fn default() -> Self {
        Self {
            families: Families::Dual,
            edge: Edge::Open,
            expiry_s: 120,
            inbound_refresh: false,
            latency_ms: 15,
        }
    }
}

impl Families {
    /// Whether IPv4 is among them.
    pub fn has_v4(self) -> bool {
        self != Self::V6
    }

    /// Whether IPv6 is among them.
    pub fn has_v6(self) -> bool {
        self != Self::V4
    }

    /// Whether the address's family is among them.
    pub fn has(self, ip: IpAddr) -> bool {
        match ip {
            IpAddr::V4(_) => self.has_v4(),
            IpAddr::V6(_) => self.has_v6(),
        }
    }
}

impl FilterSpec {
    /// As the components know it.
    pub fn to_filter(self) -> connlib_model::Filter {
        match self {
            Self::Tcp(from, to) => connlib_model::Filter::Tcp(from..=to),
            Self::Udp(from, to) => connlib_model::Filter::Udp(from..=to),
            Self::Icmp => connlib_model::Filter::Icmp,
        }
    }
}
