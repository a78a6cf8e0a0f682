//! Where a direct path must be found (testing §5.3).

use super::Model;
use crate::{
    topology::{Edge, Families, Filtering},
    transition::Transition,
};

impl Model {
    /// Whether all connections of a client must be direct: nothing has stood in their way since they were made, and the
    /// edges of both sides allow it with every gateway.
    pub fn is_direct(&self, client: usize) -> bool {
        let mut gateways = 0..self.topology.gateways.len();
        !self.is_lossy()
            && !self.clients[client].was_disturbed
            // A host behind a NAT learns its address from a relay of that family.
            && self.topology.relays.iter().all(|relay| relay.families == Families::Dual)
            && gateways.all(|gateway| self.allows_direct(client, gateway))
    }

    fn allows_direct(&self, client: usize, gateway: usize) -> bool {
        let (v4, v6) = self.common_families(client, gateway);
        let (a, b) = (
            self.clients[client].edge,
            self.topology.gateways[gateway].host.edge,
        );
        let is_refused = |a, b| a == Edge::Symmetric && filters_ports(b);
        v6 || (v4 && !is_refused(a, b) && !is_refused(b, a))
    }

    /// Takes note of what may force connections onto a relay. They may stay there when it is over.
    pub(super) fn note_obstacles(&mut self, transition: &Transition) {
        let blocked = self.direct_blocked;
        match transition {
            Transition::Roam { client, edge, .. } => {
                self.clients[*client].edge = *edge;
                self.clients[*client].was_disturbed = blocked;
            }
            Transition::RestartClient { client, .. } => {
                self.clients[*client].was_disturbed = blocked;
            }
            Transition::FlushEdge { client } | Transition::Stall { client, .. } => {
                self.clients[*client].was_disturbed = true;
            }
            Transition::BlockDirect(true) => {
                for client in &mut self.clients {
                    client.was_disturbed = true;
                }
            }
            _ => {}
        }
    }
}

fn filters_ports(edge: Edge) -> bool {
    matches!(
        edge,
        Edge::Symmetric | Edge::Cone(Filtering::Port) | Edge::Firewall(Filtering::Port)
    )
}
