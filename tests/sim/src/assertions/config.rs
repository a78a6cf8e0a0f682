//! A12, A13, A20: resolvers, routes and the list of resources are what they should be, and are announced only when they
//! change.

use std::collections::BTreeSet;

use connlib_model::{IpNet, ResourceStatus, ResourceView, TunConfig, ranges};

use super::{Evidence, Failure, Memory};
use crate::{
    model::Model,
    topology::{Target, ids},
    trace::Entry,
};

pub(super) fn check(evidence: &Evidence<'_>, memory: &mut Memory, failures: &mut Vec<Failure>) {
    announcements(evidence, memory, failures);
    for (client, snapshot) in evidence.snapshot.clients.iter().enumerate() {
        let Some(config) = &snapshot.config else {
            failures.push(Failure::new(
                13,
                format!("client {client} has no TUN device"),
            ));
            continue;
        };
        failures.extend(servers(evidence.model, client, config));
        failures.extend(routes(evidence.model, client, config));
        failures.extend(resources(evidence.model, client, &snapshot.resources));
    }
}

/// An announcement that repeats the last one is a mistake (A13, A20).
fn announcements(evidence: &Evidence<'_>, memory: &mut Memory, failures: &mut Vec<Failure>) {
    for (at, entry) in evidence.entries {
        match entry {
            Entry::TunConfig { client, config } => {
                let last = memory.configs.insert(*client, config.clone());
                if last.as_ref() == Some(config) {
                    let text = format!("{at:?}: client {client} announces the same configuration");
                    failures.push(Failure::new(13, text));
                }
            }
            Entry::Resources { client, list } => {
                let last = memory.lists.insert(*client, list.clone());
                if last.as_ref() == Some(list) {
                    let text = format!("{at:?}: client {client} announces the same list");
                    failures.push(Failure::new(20, text));
                }
            }
            Entry::Restarted { client } => {
                memory.configs.remove(client);
                memory.lists.remove(client);
            }
            _ => {}
        }
    }
}

/// A12: one sentinel per server, of its family, in order, each once.
fn servers(model: &Model, client: usize, config: &TunConfig) -> Option<Failure> {
    let expected: Vec<bool> = model.clients[client]
        .servers
        .iter()
        .map(|s| s.is_ipv4())
        .collect();
    let actual: Vec<bool> = config.dns_sentinels.iter().map(|ip| ip.is_ipv4()).collect();
    let distinct: BTreeSet<_> = config.dns_sentinels.iter().collect();
    let are_sentinels = config
        .dns_sentinels
        .iter()
        .all(|ip| ranges::is_sentinel(*ip));
    let ok = expected == actual && distinct.len() == actual.len() && are_sentinels;
    (!ok).then(|| {
        let (sentinels, servers) = (&config.dns_sentinels, &model.clients[client].servers);
        Failure::new(
            12,
            format!("client {client} has {sentinels:?} for {servers:?}"),
        )
    })
}

/// A13: the networks of its resources and the fixed ranges.
fn routes(model: &Model, client: usize, config: &TunConfig) -> Option<Failure> {
    let v4 = [ranges::TUNNEL_V4, ranges::PROXY_V4, ranges::SENTINEL_V4];
    let v6 = [ranges::TUNNEL_V6, ranges::PROXY_V6, ranges::SENTINEL_V6];
    let mut expected: BTreeSet<IpNet> = v4.map(IpNet::V4).into_iter().collect();
    expected.extend(v6.map(IpNet::V6));
    for route in model.routes(client) {
        match route {
            Some(network) => {
                expected.insert(network);
            }
            None => {
                expected.insert(IpNet::V4(ipnet::Ipv4Net::default()));
                expected.insert(IpNet::V6(ipnet::Ipv6Net::default()));
            }
        }
    }
    let mut actual: BTreeSet<IpNet> = config.routes_v4.iter().copied().map(IpNet::V4).collect();
    actual.extend(config.routes_v6.iter().copied().map(IpNet::V6));
    let search_domain = config.search_domain.as_ref().map(ToString::to_string);
    if search_domain != model.search_domain {
        let text = format!("client {client} has search domain {search_domain:?}");
        return Some(Failure::new(20, text));
    }
    (expected != actual).then(|| {
        let missing: Vec<_> = expected.difference(&actual).collect();
        let extra: Vec<_> = actual.difference(&expected).collect();
        let text = format!("client {client} lacks routes {missing:?} and has {extra:?}");
        Failure::new(13, text)
    })
}

/// A20: the list, its order, its sites; online where traffic has just flowed.
fn resources(model: &Model, client: usize, list: &[ResourceView]) -> Vec<Failure> {
    let mut failures = Vec::new();
    let mut fail = |text: String| failures.push(Failure::new(20, text));
    let known = &model.clients[client];
    let listed: BTreeSet<_> = list
        .iter()
        .filter_map(|v| ids::resource_index(v.id))
        .collect();
    if listed != known.granted || list.len() != listed.len() {
        let granted = &known.granted;
        fail(format!(
            "client {client} lists {listed:?} instead of {granted:?}"
        ));
    }
    if !list.is_sorted_by(|a, b| a.list_order(b).is_le()) {
        fail(format!(
            "client {client} lists resources in the wrong order"
        ));
    }
    for view in list {
        let Some(index) = ids::resource_index(view.id).filter(|i| *i < model.resources.len())
        else {
            continue;
        };
        let spec = &model.resources[index];
        let address = match &spec.target {
            Target::Cidr(network) => Some(network.to_string()),
            Target::Dns(pattern, _) => Some(pattern.clone()),
            Target::Internet => None,
        };
        let site = view.sites.first().map(|site| site.id);
        let is_right = view.address == address
            && site == Some(ids::site(spec.site))
            && view.enabled != known.disabled.contains(&index);
        if !is_right {
            fail(format!("client {client} shows {view:?} for {spec:?}"));
        }
        let must_be_online = known.connected.get(&index) == Some(&true);
        if must_be_online && view.status != ResourceStatus::Online {
            let status = view.status;
            fail(format!(
                "client {client} shows resource {index} as {status:?}"
            ));
        }
        // The portal says so of a resource, and it holds for the whole site (tunnel 66). With loss, a gateway may be without relay.
        let in_site = |other: &usize| model.resources[*other].site == spec.site;
        let may_be_offline = known.out_of_reach.iter().any(in_site) || model.is_lossy();
        if view.status == ResourceStatus::Offline && !may_be_offline {
            fail(format!("client {client} shows resource {index} as offline"));
        }
    }
    failures
}
