//! What can happen in a case. Plain data: generated, shrunk, recorded, and written by hand in scripts.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use serde::{Deserialize, Serialize};

use crate::topology::{Edge, Families, FilterSpec, Target};

/// One thing that happens; then time passes until everything that it causes is over.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub enum Transition {
    /// An application of a client sends packets, all at once.
    Send {
        /// Which client.
        client: usize,
        /// The packets, in order.
        probes: Vec<Probe>,
    },
    /// An application of a client sends more packets at once than may wait for access.
    Burst {
        /// Which client.
        client: usize,
        /// Where to.
        to: Destination,
        /// To this port.
        port: u16,
        /// How many.
        count: usize,
    },
    /// An application of a client asks its resolver, all at once.
    Query {
        /// Which client.
        client: usize,
        /// The queries, in order.
        queries: Vec<Query>,
    },
    /// An application opens a TCP connection, exchanges some bytes and keeps it open. Connections count from 0 over all
    /// clients.
    OpenTcp {
        /// Which client.
        client: usize,
        /// Where to.
        to: Destination,
        /// Port.
        port: u16,
        /// Whether it sends keep-alives, which wake a tunnel that sleeps.
        #[serde(default = "yes")]
        keep_alive: bool,
    },
    /// Bytes travel on an open connection.
    UseTcp {
        /// Which connection.
        connection: usize,
        /// Who begins.
        from: Side,
    },
    /// The application closes a connection.
    CloseTcp {
        /// Which connection.
        connection: usize,
    },
    /// The portal lets a client reach a resource.
    Grant {
        /// Which client.
        client: usize,
        /// Which resource.
        resource: usize,
        /// Access ends by itself after this many seconds.
        #[serde(default)]
        for_s: Option<u64>,
    },
    /// The portal takes that back.
    Revoke {
        /// Which client.
        client: usize,
        /// Which resource.
        resource: usize,
    },
    /// The user switches off exactly these resources.
    SetDisabled {
        /// Which client.
        client: usize,
        /// All that are off from now on.
        resources: Vec<usize>,
    },
    /// An administrator changes what a resource is, where it is or what it permits. `None` keeps.
    ChangeResource {
        /// Which resource.
        resource: usize,
        /// New target: another address, or another type under the same id.
        #[serde(default)]
        target: Option<Target>,
        /// New site.
        #[serde(default)]
        site: Option<usize>,
        /// New filters.
        #[serde(default)]
        filters: Option<Vec<FilterSpec>>,
    },
    /// The operating system's resolvers change.
    SystemDns {
        /// Which client.
        client: usize,
        /// The new list.
        servers: Vec<IpAddr>,
    },
    /// The portal's resolvers change.
    UpstreamDns {
        /// The new list.
        servers: Vec<SocketAddr>,
    },
    /// The portal's search domain changes.
    SearchDomain {
        /// The new one.
        domain: Option<String>,
    },
    /// A name's addresses change.
    SetRecords {
        /// Which name.
        name: String,
        /// All A records from now on.
        v4: Vec<Ipv4Addr>,
        /// All AAAA records from now on.
        v6: Vec<Ipv6Addr>,
    },
    /// A client moves to another network.
    Roam {
        /// Which client.
        client: usize,
        /// Address families there.
        families: Families,
        /// NAT there.
        edge: Edge,
        /// No connectivity for this long, in milliseconds.
        dead_ms: u64,
        /// After that, no portal for this long, in milliseconds.
        portal_ms: u64,
    },
    /// The connection to the portal is lost and made again; nothing else changes.
    ReconnectPortal {
        /// Whose.
        who: Component,
        /// It is away for this long, in milliseconds.
        away_ms: u64,
    },
    /// The portal takes a resource from a client while its gateways cannot be told.
    RevokeWhilePartitioned {
        /// Which client.
        client: usize,
        /// Which resource.
        resource: usize,
    },
    /// A client's process ends and starts again: new key, same device.
    RestartClient {
        /// Which client.
        client: usize,
        /// How it ends.
        end: End,
    },
    /// A gateway's process ends and starts again.
    RestartGateway {
        /// Which gateway.
        gateway: usize,
        /// How it ends.
        end: End,
    },
    /// All relays are replaced by this many new ones.
    DeployRelays {
        /// How many.
        count: usize,
    },
    /// The portal loses all relays for this long; they go on working and come back.
    PartitionRelays {
        /// Milliseconds.
        away_ms: u64,
    },
    /// All relays start again with the same identity but without state; nobody is told.
    RebootRelays,
    /// All relays start again with the same identity but without state, and elsewhere on the network.
    MoveRelays,
    /// The direct path between clients and gateways is blocked, or open again.
    BlockDirect(bool),
    /// A client's NAT forgets everything.
    FlushEdge {
        /// Which client.
        client: usize,
    },
    /// Nothing happens.
    Idle {
        /// Seconds.
        seconds: u64,
    },
    /// A client's process does not run at all, as in suspend; then it goes on. Everything that arrives meanwhile is lost.
    Stall {
        /// Which client.
        client: usize,
        /// Seconds.
        seconds: u64,
        /// The packet that is its first input afterwards.
        #[serde(default)]
        then: Vec<Probe>,
    },
    /// A misbehaving client does something.
    Rogue(RogueAct),
}

/// One packet of an application that expects to be answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Probe {
    /// Where to.
    pub to: Destination,
    /// What kind of packet.
    pub how: Protocol,
    /// Sent from this address instead of the client's own.
    #[serde(default)]
    pub source: Option<IpAddr>,
}

/// Where a packet goes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Destination {
    /// To this address.
    Host(IpAddr),
    /// To an address that the client's resolver gave for a name: the family and which one of several.
    Name(String, Family, usize),
}

/// Address family of a resolved name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Family {
    /// A records.
    V4,
    /// AAAA records.
    V6,
}

/// Kind of a probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Protocol {
    /// An echo request.
    Icmp,
    /// A datagram to this port.
    Udp(u16),
}

/// One query of an application.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Query {
    /// What is asked.
    pub question: Question,
    /// Index into the effective resolvers, wrapping around.
    #[serde(default)]
    pub server: usize,
    /// How it is asked.
    #[serde(default)]
    pub transport: Transport,
    /// DNS message id.
    pub id: u16,
}

/// The question of a query.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Question {
    /// Records of a name.
    Records(String, RecordType),
    /// The name of an address.
    Reverse(Destination),
}

/// Types of records that applications ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum RecordType {
    /// IPv4 addresses.
    A,
    /// IPv6 addresses.
    Aaaa,
    /// Text.
    Txt,
    /// Mail servers.
    Mx,
    /// Service bindings.
    Https,
    /// Services.
    Srv,
}

/// Transport of DNS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Transport {
    /// Datagrams.
    #[default]
    Udp,
    /// A connection per query.
    Tcp,
}

/// One end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Side {
    /// The application on the client.
    Application,
    /// The server behind the gateway.
    Resource,
}

/// A component with a connection to the portal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Component {
    /// A client.
    Client(usize),
    /// A gateway.
    Gateway(usize),
    /// A relay.
    Relay(usize),
}

/// How a process ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum End {
    /// It says goodbye.
    Graceful,
    /// It is killed.
    Killed,
}

/// What the misbehaving client does. It is let in like anybody else, and then seals what it likes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum RogueAct {
    /// Asks for access and connects to the gateway.
    Connect {
        /// What it asks for.
        resource: usize,
    },
    /// Sends a packet to the gateway that it asked last, whatever its own rules say.
    Send {
        /// Where to.
        to: IpAddr,
        /// What kind of packet.
        how: Protocol,
        /// From this address instead of its own.
        source: Option<IpAddr>,
    },
    /// Announces proxy addresses for a name of a resource.
    Announce {
        /// Resource.
        resource: usize,
        /// Name.
        name: String,
        /// The addresses.
        addresses: Vec<IpAddr>,
    },
    /// Sends an ICMP error about a flow that does not exist.
    IcmpError {
        /// The host that the error pretends to be about.
        about: Ipv4Addr,
    },
    /// Sends bytes that are no packet at all.
    Garbage,
}

fn yes() -> bool {
    true
}

impl Transition {
    /// The variant's name, for the table of what was done.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Send { .. } => "Send",
            Self::Burst { .. } => "Burst",
            Self::Query { .. } => "Query",
            Self::OpenTcp { .. } => "OpenTcp",
            Self::UseTcp { .. } => "UseTcp",
            Self::CloseTcp { .. } => "CloseTcp",
            Self::Grant { .. } => "Grant",
            Self::Revoke { .. } => "Revoke",
            Self::SetDisabled { .. } => "SetDisabled",
            Self::ChangeResource { .. } => "ChangeResource",
            Self::SystemDns { .. } => "SystemDns",
            Self::UpstreamDns { .. } => "UpstreamDns",
            Self::SearchDomain { .. } => "SearchDomain",
            Self::SetRecords { .. } => "SetRecords",
            Self::Roam { .. } => "Roam",
            Self::ReconnectPortal { .. } => "ReconnectPortal",
            Self::RevokeWhilePartitioned { .. } => "RevokeWhilePartitioned",
            Self::RestartClient { .. } => "RestartClient",
            Self::RestartGateway { .. } => "RestartGateway",
            Self::DeployRelays { .. } => "DeployRelays",
            Self::PartitionRelays { .. } => "PartitionRelays",
            Self::RebootRelays => "RebootRelays",
            Self::MoveRelays => "MoveRelays",
            Self::BlockDirect(_) => "BlockDirect",
            Self::FlushEdge { .. } => "FlushEdge",
            Self::Idle { .. } => "Idle",
            Self::Stall { .. } => "Stall",
            Self::Rogue(_) => "Rogue",
        }
    }
}
