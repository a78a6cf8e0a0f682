//! Preconditions: shrinking removes transitions, so every transition is checked again before it is applied.

use super::{
    Model, Resolved, TcpModel, TcpState,
    routing::{Route, Traffic},
};
use crate::{
    topology::Target,
    transition::{Destination, Probe, Query, Question, RogueAct, Side, Transition},
};

/// Probes at once: as many as there are source ports.
const MAX_PROBES: usize = 8;

impl Model {
    /// Whether the transition makes sense now.
    pub fn is_legal(&self, transition: &Transition) -> bool {
        let has_client = |client: &usize| *client < self.clients.len();
        let has_resource = |resource: &usize| *resource < self.resources.len();
        match transition {
            Transition::Send { client, probes } => {
                has_client(client) && !probes.is_empty() && self.are_sendable(*client, probes)
            }
            Transition::Burst {
                client, to, port, ..
            } => has_client(client) && self.is_flood_clear(*client, to, *port),
            Transition::Stall { client, then, .. } => {
                has_client(client) && self.are_sendable(*client, then)
            }
            Transition::Query { client, queries } => {
                has_client(client)
                    && !self.clients[*client].servers.is_empty()
                    && queries.iter().all(|query| self.is_askable(*client, query))
            }
            Transition::OpenTcp {
                client, to, port, ..
            } => has_client(client) && *port != 53 && self.is_known(*client, to),
            Transition::UseTcp { connection, from } => {
                let is_cold = |tcp: &TcpModel| tcp.state == TcpState::Cold;
                let is_cold = self.connections.get(*connection).is_some_and(is_cold);
                self.is_open(*connection) && !(is_cold && *from == Side::Resource)
            }
            Transition::CloseTcp { connection } => self.is_open(*connection),
            Transition::Grant {
                client, resource, ..
            } => {
                has_client(client)
                    && has_resource(resource)
                    && !self.clients[*client].granted.contains(resource)
            }
            Transition::Revoke { client, resource }
            | Transition::RevokeWhilePartitioned { client, resource } => {
                has_client(client) && self.clients[*client].granted.contains(resource)
            }
            Transition::SetDisabled { client, resources } => {
                has_client(client) && resources.iter().all(has_resource)
            }
            Transition::ChangeResource {
                resource,
                site,
                target,
                ..
            } => {
                has_resource(resource)
                    && site.is_none_or(|site| site < self.topology.sites)
                    && (self.resources[*resource].target != Target::Internet || target.is_none())
            }
            Transition::SetRecords { name, .. } => self.names.contains_key(name),
            Transition::SystemDns { client, .. }
            | Transition::Roam { client, .. }
            | Transition::RestartClient { client, .. }
            | Transition::FlushEdge { client } => has_client(client),
            Transition::ReconnectPortal { who, .. } => self.exists(*who),
            Transition::RestartGateway { gateway, .. } => *gateway < self.topology.gateways.len(),
            Transition::DeployRelays { count } => *count > 0,
            Transition::Rogue(act) => match act {
                RogueAct::Connect { resource } | RogueAct::Announce { resource, .. } => {
                    has_resource(resource)
                }
                RogueAct::Send { .. } | RogueAct::IcmpError { .. } | RogueAct::Garbage => {
                    self.rogue.is_some()
                }
            },
            Transition::UpstreamDns { .. }
            | Transition::SearchDomain { .. }
            | Transition::PartitionRelays { .. }
            | Transition::RebootRelays
            | Transition::MoveRelays
            | Transition::BlockDirect(_)
            | Transition::Idle { .. } => true,
        }
    }

    fn are_sendable(&self, client: usize, probes: &[Probe]) -> bool {
        probes.len() <= MAX_PROBES && probes.iter().all(|probe| self.is_known(client, &probe.to))
    }

    /// Whether many packets with few source ports are told apart: each is answered, and by nothing but its answer.
    fn is_flood_clear(&self, client: usize, to: &Destination, port: u16) -> bool {
        let Route::To {
            addresses,
            may_lack_family: false,
            ..
        } = self.route(client, to, Traffic::Udp(port))
        else {
            return false;
        };
        self.is_known(client, to)
            && !addresses.is_empty()
            && addresses.iter().all(|ip| self.failure_at(*ip).is_none())
    }

    pub(super) fn is_known(&self, client: usize, to: &Destination) -> bool {
        match to {
            Destination::Host(_) => true,
            Destination::Name(name, family, _) => {
                let key = (name.clone(), *family);
                match self.clients[client].resolved.get(&key) {
                    Some(Resolved::Proxy) => true,
                    Some(Resolved::Real(ips)) => !ips.is_empty(),
                    None => false,
                }
            }
        }
    }

    fn is_askable(&self, client: usize, query: &Query) -> bool {
        match &query.question {
            Question::Records(..) => true,
            Question::Reverse(to) => self.is_known(client, to),
        }
    }
}
