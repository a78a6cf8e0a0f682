//! A15, A18: when everything has come to rest, nothing is left over.

use super::{Evidence, Failure};

pub(super) fn check(evidence: &Evidence<'_>, failures: &mut Vec<Failure>) {
    allocations(evidence, failures);
    connections(evidence, failures);
}

/// A15: no relay keeps more allocations than there are clients and gateways that may have one; after a roam or restart
/// the old one lives on until it expires.
fn allocations(evidence: &Evidence<'_>, failures: &mut Vec<Failure>) {
    let nodes = evidence.snapshot.clients.len() + evidence.snapshot.gateway_connections.len();
    for (relay, count) in evidence.snapshot.allocations.iter().enumerate() {
        if *count > nodes + MAX_LEFTOVERS {
            let text = format!("relay {relay} has {count} allocations for {nodes} nodes");
            failures.push(Failure::new(15, text));
        }
    }
}

/// Restarts and changes of address within the lifetime of an allocation.
const MAX_LEFTOVERS: usize = 20;

/// A18: a client has connections only to gateways of sites that it used.
fn connections(evidence: &Evidence<'_>, failures: &mut Vec<Failure>) {
    for (client, snapshot) in evidence.snapshot.clients.iter().enumerate() {
        let used = &evidence.model.clients[client].connected;
        // Applications keep their connections alive, also those that need not survive.
        let tcp = evidence.model.in_use_by_tcp(client);
        let sites: std::collections::BTreeSet<_> = used
            .keys()
            .chain(&tcp)
            .map(|resource| evidence.model.resources[*resource].site)
            .collect();
        let gateways: usize = sites
            .iter()
            .map(|site| evidence.model.gateways_of(*site).count())
            .sum();
        if snapshot.connections > gateways {
            let has = snapshot.connections;
            let text = format!("client {client} has {has} connections, uses sites {sites:?}");
            failures.push(Failure::new(18, text));
        }
    }
}
