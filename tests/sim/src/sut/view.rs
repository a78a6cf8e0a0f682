//! What can be asked of the running system from outside.

use std::time::Duration;

use connlib_tunnel::PathKind;

use super::World;
use crate::{
    assertions::{ClientSnapshot, Snapshot},
    transition::Component,
};

impl World {
    /// The kinds of path that a client's connections have, and for how long the connections have existed.
    pub fn paths(&self, client: usize) -> Vec<(PathKind, Duration)> {
        let now = self.clock.now();
        let views = self.clients[client].session.tunnel().gateways();
        let paths = views.filter_map(|view| view.path);
        paths
            .map(|path| (path.kind, now - path.established.unwrap_or(now)))
            .collect()
    }

    /// The state of everything.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot {
            clients: self
                .clients
                .iter()
                .map(|client| {
                    let stats = client.session.tunnel().node_stats();
                    ClientSnapshot {
                        config: client.config.clone(),
                        resources: client.resources.clone(),
                        connections: stats.connections,
                        relays: stats.relays,
                        joined: self.portal.is_joined(Component::Client(client.index)),
                    }
                })
                .collect(),
            gateway_connections: self
                .gateways
                .iter()
                .map(|gateway| gateway.session.tunnel().node_stats().connections)
                .collect(),
            allocations: self.relays.iter().map(|r| r.allocation_count()).collect(),
            relays_alive: self.relays.iter().map(|r| r.alive).collect(),
        }
    }
}
