//! The reference model: what every transition must lead to (testing §5.7).
//!
//! It is declarative: it knows who may reach what and predicts connectivity, not how the components get there. Which
//! proxy address, relay, path or gateway of a site is used is not modelled; only that it is a valid one.

mod apply;
mod client;
mod dns;
pub mod expect;
mod legal;
mod names;
mod paths;
mod rogue;
mod routing;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::topology::{NameSpec, ResourceSpec, Topology};
use crate::transition::Destination;
pub use client::{ClientModel, Resolved};
pub use expect::{Expectations, ExpectedProbe, ExpectedQuery, Fates, Reach, Reply};

/// The state of the model.
#[derive(Debug, Clone)]
pub struct Model {
    /// The case's starting point; what changes is below.
    pub topology: Topology,
    /// Resources as they are now.
    pub resources: Vec<ResourceSpec>,
    /// Names and all their versions, newest last.
    pub names: BTreeMap<String, Vec<NameSpec>>,
    /// Clients.
    pub clients: Vec<ClientModel>,
    /// Resolvers that the portal configures.
    pub upstream_dns: Vec<SocketAddr>,
    /// The search domain.
    pub search_domain: Option<String>,
    /// TCP connections, in the order of their opening.
    pub connections: Vec<TcpModel>,
    /// Whether clients and gateways can reach each other directly.
    pub direct_blocked: bool,
    /// The misbehaving client, once it is there.
    pub rogue: Option<RogueModel>,
    /// When access that was granted for a while ends: client and resource, and time since the start of the case.
    pub limits: BTreeMap<(usize, usize), Duration>,
    /// Time since the start of the case, set by whoever applies transitions.
    pub now: Duration,
    /// Number of the next probe.
    pub next_probe: u64,
    /// Number of the next query.
    pub next_query: u64,
}

/// What the misbehaving client has been given.
#[derive(Debug, Clone, Default)]
pub struct RogueModel {
    /// Resources that it asked for and may still use.
    pub granted: Vec<usize>,
    /// The site of the gateway that it talks to: that of the resource that it asked for last.
    pub site: usize,
    /// Addresses that it announced, with resource and name.
    pub announced: BTreeMap<IpAddr, (usize, String)>,
    /// Its gateway or its path may be gone: it heeds neither goodbyes nor news of relays, and does not ask again.
    pub may_be_gone: bool,
}

/// A TCP connection of an application.
#[derive(Debug, Clone)]
pub struct TcpModel {
    /// Whose.
    pub client: usize,
    /// Where to.
    pub to: Destination,
    /// The port there.
    pub port: u16,
    /// The resource that it leads to.
    pub resource: usize,
    /// What is known of it.
    pub state: TcpState,
}

/// What is known of a TCP connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TcpState {
    /// It works.
    Open,
    /// It works once the application sends: the client has moved and only it can find the gateway again.
    Cold,
    /// Something happened that it need not survive, or it was closed.
    Unknown,
}

impl Model {
    /// The model at the start of a case.
    pub fn new(topology: &Topology) -> Self {
        let names = topology.names.iter();
        let mut model = Self {
            resources: topology.resources.clone(),
            names: names
                .map(|spec| (spec.name.clone(), vec![spec.clone()]))
                .collect(),
            clients: topology
                .clients
                .iter()
                .map(|spec| ClientModel::new(spec, topology.block_direct))
                .collect(),
            upstream_dns: topology.upstream_dns.clone(),
            search_domain: topology.search_domain.clone(),
            connections: Vec::new(),
            direct_blocked: topology.block_direct,
            rogue: None,
            limits: BTreeMap::new(),
            now: Duration::ZERO,
            next_probe: 0,
            next_query: 0,
            topology: topology.clone(),
        };
        model.update_servers();
        for client in 0..model.clients.len() {
            model.update_preferences(client);
        }
        model
    }

    /// Whether packets may be lost on the way.
    pub fn is_lossy(&self) -> bool {
        self.topology.loss > 0
    }

    /// Whether applications have to try more than once, because packets or the portal's answers may be lost.
    pub fn is_repeating(&self) -> bool {
        self.is_lossy() || self.topology.portal.loses_first
    }

    /// A system has run out of patience with a connection.
    pub fn end_connection(&mut self, connection: usize) {
        if let Some(tcp) = self.connections.get_mut(connection) {
            tcp.state = TcpState::Unknown;
        }
    }

    /// Gateways of a site.
    pub fn gateways_of(&self, site: usize) -> impl Iterator<Item = usize> + '_ {
        let gateways = self.topology.gateways.iter().enumerate();
        gateways
            .filter(move |(_, gateway)| gateway.site == site)
            .map(|(index, _)| index)
    }

    /// What a packet to this host yields, if it cannot be reached.
    pub fn failure_at(&self, ip: IpAddr) -> Option<crate::topology::Failure> {
        let entry = self
            .topology
            .unreachable
            .iter()
            .find(|(host, _)| *host == ip)?;
        Some(entry.1)
    }

    /// A name as it is now.
    pub fn name(&self, name: &str) -> Option<&NameSpec> {
        self.names.get(name)?.last()
    }
}
