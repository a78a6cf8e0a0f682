//! What the model knows of one client.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
};

use ipnet::IpNet;

use super::Model;
use crate::{
    topology::{ClientSpec, Edge, Families, Target},
    transition::Family,
};

/// A client.
#[derive(Debug, Clone)]
pub struct ClientModel {
    /// What the portal lets it reach.
    pub granted: BTreeSet<usize>,
    /// What its user switched off.
    pub disabled: BTreeSet<usize>,
    /// Resolvers of its operating system.
    pub system_dns: Vec<IpAddr>,
    /// Address families of its network.
    pub families: Families,
    /// NAT of its network.
    pub edge: Edge,
    /// Whether something may have forced its connections onto a relay.
    pub was_disturbed: bool,
    /// What its resolver said, by name.
    pub resolved: BTreeMap<(String, Family), Resolved>,
    /// The version of a name's records when the resolver answered last with proxy addresses.
    pub announced: BTreeMap<String, usize>,
    /// Servers behind the sentinels, in order.
    pub servers: Vec<SocketAddr>,
    /// Resources that traffic has flowed to; `false` if the connection may be lost since.
    pub connected: BTreeMap<usize, bool>,
    /// Resources that were asked for when there was no way to them: the portal may have said so.
    pub out_of_reach: BTreeSet<usize>,
    /// Who gets the traffic of a network; several if that is not known for sure.
    pub preferred: BTreeMap<IpNet, BTreeSet<usize>>,
    /// Its networks and who has them.
    pub(super) members: BTreeMap<IpNet, BTreeSet<usize>>,
}

/// What kind of addresses a resolver gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Resolved {
    /// Proxy addresses of a resource.
    Proxy,
    /// Real addresses.
    Real(Vec<IpAddr>),
}

impl ClientModel {
    pub(super) fn new(spec: &ClientSpec, is_blocked: bool) -> Self {
        Self {
            granted: spec.granted.iter().copied().collect(),
            disabled: BTreeSet::new(),
            system_dns: spec.system_dns.clone(),
            families: spec.host.families,
            edge: spec.host.edge,
            was_disturbed: is_blocked,
            resolved: BTreeMap::new(),
            announced: BTreeMap::new(),
            servers: Vec::new(),
            connected: BTreeMap::new(),
            out_of_reach: BTreeSet::new(),
            preferred: BTreeMap::new(),
            members: BTreeMap::new(),
        }
    }

    /// Resources that are granted and switched on.
    pub fn active(&self) -> impl Iterator<Item = usize> + '_ {
        self.granted.difference(&self.disabled).copied()
    }

    /// The process started over: its connections are gone, its host's memory of names too.
    pub(super) fn forget_process(&mut self) {
        self.connected.clear();
        self.resolved.clear();
        self.announced.clear();
        self.preferred.clear();
        self.members.clear();
    }

    /// Something happened that connections need not survive.
    pub(super) fn doubt_connections(&mut self) {
        self.connected.values_mut().for_each(|sure| *sure = false);
    }
}

impl Model {
    /// After a client's set of networks may have changed: identical networks stay with the resource that is connected,
    /// otherwise the larger id wins (design row 12). If nothing changed, nothing moves.
    pub(super) fn update_preferences(&mut self, client: usize) {
        let mut networks = BTreeMap::<IpNet, BTreeSet<usize>>::new();
        let model = &self.clients[client];
        for resource in model.active() {
            if let Target::Cidr(network) = &self.resources[resource].target {
                networks
                    .entry(network.trunc())
                    .or_default()
                    .insert(resource);
            }
        }
        let preferred = networks.iter().map(|(network, resources)| {
            let mut keep = BTreeSet::new();
            let largest = *resources.last().expect("networks have resources");
            let old = model.preferred.get(network);
            let old = old
                .into_iter()
                .flatten()
                .filter(|id| resources.contains(*id));
            let mut is_certain = false;
            for id in old {
                match model.connected.get(id) {
                    Some(true) => {
                        keep.insert(*id);
                        is_certain = true;
                    }
                    Some(false) => {
                        keep.insert(*id);
                    }
                    None => {}
                }
            }
            if !is_certain {
                keep.insert(largest);
            }
            (*network, keep)
        });
        let preferred: BTreeMap<_, _> = preferred.collect();
        let model = &mut self.clients[client];
        let old_members: BTreeMap<IpNet, BTreeSet<usize>> = std::mem::take(&mut model.members);
        if old_members != networks {
            model.preferred = preferred;
        }
        model.members = networks;
    }

    /// Effective servers: the portal's if there are any, else the system's; sentinels left out, each once. The order
    /// only changes with the set (tunnel §3.6).
    pub(super) fn update_servers(&mut self) {
        let portal = usable(self.upstream_dns.iter().copied());
        for client in &mut self.clients {
            let system = client.system_dns.iter().map(|ip| SocketAddr::new(*ip, 53));
            let new = match portal.is_empty() {
                true => usable(system),
                false => portal.clone(),
            };
            let set = |servers: &[SocketAddr]| servers.iter().copied().collect::<BTreeSet<_>>();
            if set(&new) != set(&client.servers) {
                client.servers = new;
            }
        }
    }
}

fn usable(servers: impl Iterator<Item = SocketAddr>) -> Vec<SocketAddr> {
    let mut list = Vec::new();
    for server in servers {
        if !connlib_model::ranges::is_sentinel(server.ip()) && !list.contains(&server) {
            list.push(server);
        }
    }
    list
}
