//! What can be asked of the running system from outside.

use connlib_tunnel::PathKind;

use super::World;

impl World {
    /// The kinds of path that a client's connections have.
    pub fn paths(&self, client: usize) -> Vec<PathKind> {
        let views = self.clients[client].session.tunnel().gateways();
        views
            .filter_map(|view| view.path.map(|path| path.kind))
            .collect()
    }
}
