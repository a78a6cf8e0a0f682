//! Where a packet belongs (testing §5.7 rule 1).

use std::{collections::BTreeSet, net::IpAddr};

use connlib_model::ranges;

use super::{Model, Resolved, names};
use crate::{
    topology::{Families, FilterSpec, Target},
    transition::{Destination, Family},
};

/// What filters look at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Traffic {
    Icmp,
    Udp(u16),
    Tcp(u16),
}

/// Where a packet belongs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Route {
    /// To one of these resources, and there to one of these addresses. Without addresses the family is missing; if
    /// `may_lack_family`, either can be.
    To {
        resources: BTreeSet<usize>,
        addresses: BTreeSet<IpAddr>,
        may_lack_family: bool,
    },
    /// Covered, but refused by filters.
    Refused,
    /// Nowhere.
    None,
}

impl Model {
    pub(super) fn route(&self, client: usize, to: &Destination, traffic: Traffic) -> Route {
        match to {
            Destination::Host(ip) => self.route_address(client, *ip, traffic),
            Destination::Name(name, family, nth) => {
                let key = (name.clone(), *family);
                match self.clients[client].resolved.get(&key) {
                    Some(Resolved::Proxy) => self.route_name(client, name, *family, traffic),
                    Some(Resolved::Real(ips)) => {
                        self.route_address(client, ips[nth % ips.len()], traffic)
                    }
                    None => Route::None,
                }
            }
        }
    }

    /// Longest prefix among the networks that permit the packet, then the internet.
    pub(super) fn route_address(&self, client: usize, ip: IpAddr, traffic: Traffic) -> Route {
        let special = ranges::is_proxy(ip) || ranges::is_tunnel(ip);
        if special || ip.is_multicast() || ip.is_unspecified() {
            return Route::None;
        }
        let covering = self.covering(client, ip);
        let permitting: Vec<_> = covering
            .iter()
            .copied()
            .filter(|resource| self.permits(*resource, traffic))
            .collect();
        let to = |resources: BTreeSet<usize>, lacks: bool| Route::To {
            resources,
            addresses: [ip].into_iter().filter(|_| !lacks).collect(),
            may_lack_family: lacks,
        };
        if let Some(longest) = permitting.iter().map(|id| self.prefix(*id)).max() {
            let best: BTreeSet<_> = permitting
                .into_iter()
                .filter(|id| self.prefix(*id) == longest)
                .collect();
            return to(self.favourites(client, &best), false);
        }
        if !covering.is_empty() {
            return Route::Refused;
        }
        match self.internet(client) {
            Some(internet) => to([internet].into(), !is_public(ip)),
            None => Route::None,
        }
    }

    /// Of resources with one network: whoever is preferred, otherwise the largest id.
    fn favourites(&self, client: usize, same_network: &BTreeSet<usize>) -> BTreeSet<usize> {
        let largest = *same_network.last().expect("not empty");
        let Target::Cidr(network) = self.resources[largest].target else {
            return same_network.clone();
        };
        let preferred = self.clients[client].preferred.get(&network.trunc());
        let preferred = preferred.cloned().unwrap_or_default();
        let mut favourites: BTreeSet<_> = preferred.intersection(same_network).copied().collect();
        if favourites.is_empty() || favourites.len() < preferred.len() {
            favourites.insert(largest);
        }
        favourites
    }

    fn route_name(&self, client: usize, name: &str, family: Family, traffic: Traffic) -> Route {
        let matching = self.matching(client, name);
        let permitting = matching.iter().copied().filter(|resource| {
            self.serves_family(*resource, family) && self.permits(*resource, traffic)
        });
        let best = self.most_specific(permitting);
        let Some(best) = best else {
            return match matching.is_empty() {
                true => Route::None,
                false => Route::Refused,
            };
        };
        let mut addresses = BTreeSet::new();
        let mut may_lack_family = false;
        let first = self.clients[client].announced.get(name).copied();
        let versions = self.names.get(name).map_or(&[][..], Vec::as_slice);
        for version in versions.iter().skip(first.unwrap_or(0)) {
            let all: Vec<IpAddr> = match (version.answer, family) {
                (crate::topology::DnsAnswer::Records, Family::V4) => {
                    version.v4.iter().copied().map(IpAddr::V4).collect()
                }
                (crate::topology::DnsAnswer::Records, Family::V6) => {
                    version.v6.iter().copied().map(IpAddr::V6).collect()
                }
                (_, _) => Vec::new(),
            };
            may_lack_family |= all.is_empty();
            addresses.extend(all);
        }
        may_lack_family |= versions.is_empty();
        Route::To {
            resources: [best].into(),
            addresses,
            may_lack_family,
        }
    }

    /// Active networks around an address, whatever they permit.
    pub(super) fn covering(&self, client: usize, ip: IpAddr) -> Vec<usize> {
        let active = self.clients[client].active();
        active
            .filter(|resource| match &self.resources[*resource].target {
                Target::Cidr(network) => network.contains(&ip),
                Target::Dns(..) | Target::Internet => false,
            })
            .collect()
    }

    /// Active DNS resources that cover a name.
    pub(super) fn matching(&self, client: usize, name: &str) -> Vec<usize> {
        let active = self.clients[client].active();
        active
            .filter(|resource| self.covers(*resource, name))
            .collect()
    }

    /// Whether a resource is a DNS resource that covers a name.
    pub fn covers(&self, resource: usize, name: &str) -> bool {
        match &self.resources[resource].target {
            Target::Dns(pattern, _) => names::covers(pattern, name),
            Target::Cidr(_) | Target::Internet => false,
        }
    }

    /// Where the TCP connections of a client may lead: to what they were opened to, and to where their packets go now. Systems
    /// repeat those also on connections that were not made.
    pub fn in_use_by_tcp(&self, client: usize) -> BTreeSet<usize> {
        let mut resources = BTreeSet::new();
        for tcp in self.connections.iter().filter(|tcp| tcp.client == client) {
            resources.insert(tcp.resource);
            if self.is_known(client, &tcp.to)
                && let Route::To { resources: now, .. } =
                    self.route(client, &tcp.to, Traffic::Tcp(tcp.port))
            {
                resources.extend(now);
            }
        }
        resources
    }

    /// The most specific pattern, then the largest id.
    pub(super) fn most_specific(&self, dns: impl Iterator<Item = usize>) -> Option<usize> {
        let pattern = |id: usize| match &self.resources[id].target {
            Target::Dns(pattern, _) => pattern.as_str(),
            Target::Cidr(_) | Target::Internet => "",
        };
        dns.min_by(|a, b| names::precedence(pattern(*a), pattern(*b)).then_with(|| b.cmp(a)))
    }

    /// The active internet resource.
    pub(super) fn internet(&self, client: usize) -> Option<usize> {
        let is_internet = |id: &usize| self.resources[*id].target == Target::Internet;
        self.clients[client].active().filter(is_internet).last()
    }

    pub(super) fn serves_family(&self, resource: usize, family: Family) -> bool {
        match (&self.resources[resource].target, family) {
            (Target::Dns(_, families), Family::V4) => families.has_v4(),
            (Target::Dns(_, families), Family::V6) => families.has_v6(),
            (Target::Cidr(_) | Target::Internet, _) => true,
        }
    }

    pub(super) fn permits(&self, resource: usize, traffic: Traffic) -> bool {
        let filters = &self.resources[resource].filters;
        filters.is_empty()
            || filters.iter().any(|filter| match (filter, traffic) {
                (FilterSpec::Icmp, Traffic::Icmp) => true,
                (FilterSpec::Udp(from, to), Traffic::Udp(port))
                | (FilterSpec::Tcp(from, to), Traffic::Tcp(port)) => (from..=to).contains(&&port),
                (_, _) => false,
            })
    }

    fn prefix(&self, resource: usize) -> u8 {
        match &self.resources[resource].target {
            Target::Cidr(network) => network.prefix_len(),
            Target::Dns(..) | Target::Internet => 0,
        }
    }

    /// Whether all patterns together answer for a family.
    pub(super) fn families_of(&self, resources: &[usize]) -> Families {
        let any = |family| resources.iter().any(|id| self.serves_family(*id, family));
        match (any(Family::V4), any(Family::V6)) {
            (true, false) => Families::V4,
            (false, true) => Families::V6,
            (_, _) => Families::Dual,
        }
    }
}

/// Whether the internet resource leads there (tunnel §5.3).
pub(super) fn is_public(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => {
            let [a, b, ..] = v4.octets();
            let carrier = a == 100 && (64..128).contains(&b);
            !(v4.is_private() || v4.is_loopback() || v4.is_link_local() || carrier)
                && a != 0
                && a < 224
        }
        IpAddr::V6(v6) => {
            let first = v6.segments()[0];
            let unique_local = first & 0xfe00 == 0xfc00;
            let link_local = first & 0xffc0 == 0xfe80;
            !(unique_local || link_local || v6.is_loopback() || v6.is_multicast())
        }
    }
}
