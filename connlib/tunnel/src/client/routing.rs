//! Which resource does a destination belong to? (tunnel spec 3.4; design row 12)
//!
//! Proxy IPs belong to the DNS resources whose pattern matches the domain behind them, everything else to the CIDR
//! resources that contain it, and what is left to the internet resource. DNS comes first because a wide CIDR resource
//! would otherwise swallow the proxy ranges.
//!
//! Within a table the choice is made per protocol and port: an entry that permits the packet beats one that does not, then
//! the more specific one wins, then the larger id. An answer exists whenever the destination is covered at all, even if
//! every filter refuses, so that the caller can tell the application (tunnel spec 3.16).

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use connlib_cover::cover;
use connlib_lookup::{AddressKey, Secret, Table};
use connlib_model::{
    DnsPattern, DomainName, Filter, FilterProtocol, IpNet, Ipv4Net, Ipv6Net, Resource, ResourceId,
    permits, ranges,
};
use ip_packet::Protocol;

use super::name_routes::{DnsRoute, NameRoutes};

/// Active resources, arranged for look-ups.
#[derive(Debug)]
pub(crate) struct RoutingTable {
    /// In ascending order.
    networks: Vec<(IpNet, Network)>,
    /// Address and prefix length to the place in `networks`.
    places: Table<(AddressKey, u8), u32>,
    /// Prefix lengths that occur in `networks`, longest first; a look-up probes only these.
    prefixes_v4: Vec<u8>,
    prefixes_v6: Vec<u8>,
    names: NameRoutes,
    internet: Option<ResourceId>,
}

/// All resources with one identical network.
#[derive(Debug, Default)]
struct Network {
    resources: BTreeMap<ResourceId, Vec<Filter>>,
    /// Who gets the traffic that several of them permit. Decided when the set of networks changes and then kept, so
    /// that flows do not move for reasons of their own.
    preferred: Option<ResourceId>,
}

/// The outcome of a look-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Route {
    /// The packet belongs to this resource.
    Permitted(ResourceId),
    /// It would belong to this resource, whose filters refuse it.
    Refused(ResourceId),
    /// No resource covers the destination.
    None,
}

impl RoutingTable {
    /// A table without resources.
    pub(crate) fn new(secret: Secret) -> Self {
        Self {
            networks: Vec::new(),
            places: secret.table(),
            prefixes_v4: Vec::new(),
            prefixes_v6: Vec::new(),
            names: NameRoutes::new(secret),
            internet: None,
        }
    }

    /// Rebuilds the table from the active resources, in ascending order of their ids.
    ///
    /// `is_connected` says whether a resource has a connected gateway; such a resource keeps the traffic of its network
    /// when another one with the same network appears.
    pub(crate) fn rebuild<'a>(
        &mut self,
        active: impl Iterator<Item = &'a Resource>,
        is_connected: impl Fn(ResourceId) -> bool,
    ) {
        let mut networks = BTreeMap::<IpNet, Network>::new();
        self.names.clear();
        self.internet = None;

        for resource in active {
            match resource {
                Resource::Cidr(cidr) => {
                    let network = networks.entry(cidr.address.trunc()).or_default();
                    network.resources.insert(cidr.id, cidr.filters.clone());
                }
                Resource::Dns(dns) => match DnsPattern::new(&dns.address) {
                    Ok(pattern) => {
                        let route = DnsRoute {
                            pattern,
                            filters: dns.filters.clone(),
                            ip_stack: dns.ip_stack,
                        };
                        self.names.insert(dns.id, route);
                    }
                    Err(error) => {
                        tracing::warn!(resource = %dns.id, %error, "DNS resource is not activated")
                    }
                },
                Resource::Internet(internet) => self.internet = Some(internet.id),
            }
        }

        self.replace_networks(networks, is_connected);
    }

    /// The resource for a packet to `destination`. `domain` is the name behind it if it is an assigned proxy IP.
    pub(crate) fn route(
        &self,
        destination: IpAddr,
        domain: Option<&DomainName>,
        protocol: Protocol,
    ) -> Route {
        if ranges::is_proxy(destination) {
            let Some(domain) = domain else {
                return Route::None;
            };
            let route = self.route_domain(destination, domain, protocol);
            cover!("routing/to-dns" if matches!(route, Route::Permitted(_)));
            return route;
        }

        if let Some(route) = self.route_network(destination, protocol) {
            cover!("routing/to-cidr" if matches!(route, Route::Permitted(_)));
            return route;
        }

        match self.internet {
            Some(id) if !ranges::is_tunnel(destination) => {
                cover!("routing/to-internet");
                Route::Permitted(id)
            }
            Some(_) | None => Route::None,
        }
    }

    /// Whether `resource` covers `ip`, whatever its filters say.
    pub(crate) fn covers(
        &self,
        resource: ResourceId,
        ip: IpAddr,
        domain: Option<&DomainName>,
    ) -> bool {
        self.any_covering(ip, domain, |covering| covering == resource)
    }

    /// Whether any resource that covers `ip`, whatever its filters say, is one that `is_wanted` names: may packets from `ip`
    /// come in for one of them?
    pub(crate) fn any_covering(
        &self,
        ip: IpAddr,
        domain: Option<&DomainName>,
        mut is_wanted: impl FnMut(ResourceId) -> bool,
    ) -> bool {
        if ranges::is_proxy(ip) {
            return domain.is_some_and(|domain| {
                self.names
                    .covering(domain)
                    .any(|(id, route)| route.ip_stack.permits(ip) && is_wanted(id))
            });
        }
        let of_internet = self.internet.filter(|_| !ranges::is_tunnel(ip));

        of_internet.is_some_and(&mut is_wanted)
            || self
                .networks_around(ip)
                .flat_map(|network| network.resources.keys())
                .any(|id| is_wanted(*id))
    }

    /// Whether a DNS server at `ip` is reached through the tunnel (tunnel spec 3.7).
    pub(crate) fn covers_server(&self, ip: IpAddr) -> bool {
        if ranges::is_proxy(ip) || ranges::is_tunnel(ip) {
            return false;
        }

        self.internet.is_some() || self.networks_around(ip).next().is_some()
    }

    /// Active DNS resources whose pattern matches `domain`.
    pub(crate) fn matching(&self, domain: &DomainName) -> BTreeSet<ResourceId> {
        self.names.covering(domain).map(|(id, _)| id).collect()
    }

    /// Whether `domain` belongs to the active DNS resource `resource`.
    pub(crate) fn matches(&self, resource: ResourceId, domain: &DomainName) -> bool {
        self.names
            .get(resource)
            .is_some_and(|route| route.pattern.matches(domain))
    }

    /// The one resource that stands for `domain` when no port decides: the most specific pattern, then the larger id.
    pub(crate) fn best_match(&self, domain: &DomainName) -> Option<ResourceId> {
        self.names
            .covering(domain)
            .min_by(|(a_id, a), (b_id, b)| a.pattern.cmp(&b.pattern).then_with(|| b_id.cmp(a_id)))
            .map(|(id, _)| id)
    }

    /// The families for which `domain` is answered, over all matching resources; `None` if none matches.
    pub(crate) fn families(&self, domain: &DomainName) -> Option<Families> {
        self.names
            .covering(domain)
            .map(|(_, route)| Families {
                v4: route.ip_stack.has_v4(),
                v6: route.ip_stack.has_v6(),
            })
            .reduce(|a, b| Families {
                v4: a.v4 || b.v4,
                v6: a.v6 || b.v6,
            })
    }

    /// Networks to route into the TUN device (tunnel spec 3.5).
    pub(crate) fn networks(&self) -> (BTreeSet<Ipv4Net>, BTreeSet<Ipv6Net>) {
        let mut v4 = BTreeSet::from([ranges::TUNNEL_V4, ranges::PROXY_V4, ranges::SENTINEL_V4]);
        let mut v6 = BTreeSet::from([ranges::TUNNEL_V6, ranges::PROXY_V6, ranges::SENTINEL_V6]);
        if self.internet.is_some() {
            v4.insert(Ipv4Net::default());
            v6.insert(Ipv6Net::default());
        }
        for (network, _) in &self.networks {
            match network {
                IpNet::V4(network) => v4.insert(*network),
                IpNet::V6(network) => v6.insert(*network),
            };
        }

        (v4, v6)
    }

    fn replace_networks(
        &mut self,
        mut new: BTreeMap<IpNet, Network>,
        is_connected: impl Fn(ResourceId) -> bool,
    ) {
        let is_same_set = new.len() == self.networks.len()
            && new
                .iter()
                .zip(&self.networks)
                .all(|(a, b)| *a.0 == b.0 && a.1.resources.keys().eq(b.1.resources.keys()));

        for (address, network) in &mut new {
            let kept = self
                .network(*address)
                .and_then(|old| old.preferred)
                .filter(|id| network.resources.contains_key(id))
                .filter(|id| is_same_set || is_connected(*id));
            let largest = network.resources.keys().next_back().copied();
            cover!("routing/overlap-sticky" if !is_same_set && kept.is_some() && kept != largest);
            cover!("routing/overlap-by-id" if kept.is_none() && network.resources.len() > 1);
            network.preferred = kept.or(largest);
        }
        self.places.clear();
        let places = new.keys().enumerate();
        self.places
            .extend(places.map(|(place, network)| (key(*network), place as u32)));
        self.networks = new.into_iter().collect();
        self.prefixes_v4 = self.prefixes(|net| matches!(net, IpNet::V4(_)));
        self.prefixes_v6 = self.prefixes(|net| matches!(net, IpNet::V6(_)));
    }

    fn prefixes(&self, is_family: impl Fn(&IpNet) -> bool) -> Vec<u8> {
        let lengths = self
            .networks
            .iter()
            .map(|(network, _)| network)
            .filter(|network| is_family(network))
            .map(IpNet::prefix_len)
            .collect::<BTreeSet<_>>();

        lengths.into_iter().rev().collect()
    }

    fn route_domain(&self, destination: IpAddr, domain: &DomainName, protocol: Protocol) -> Route {
        let best = self
            .names
            .covering(domain)
            .map(|(id, route)| {
                let is_permitted = route.ip_stack.permits(destination)
                    && permits(&route.filters, filter_protocol(protocol));

                (is_permitted, &route.pattern, id)
            })
            .max_by(|a, b| {
                a.0.cmp(&b.0)
                    .then_with(|| b.1.cmp(a.1)) // the more specific pattern is the smaller one
                    .then_with(|| a.2.cmp(&b.2))
            });

        match best {
            Some((true, _, id)) => Route::Permitted(id),
            Some((false, _, id)) => Route::Refused(id),
            None => Route::None,
        }
    }

    fn route_network(&self, destination: IpAddr, protocol: Protocol) -> Option<Route> {
        let protocol = filter_protocol(protocol);
        let mut refused = None;

        for network in self.networks_around(destination) {
            if let Some(id) = network.permitting(protocol) {
                cover!("routing/longest-prefix-over-wider" if self.networks_around(destination).count() > 1
                    && refused.is_none());
                return Some(Route::Permitted(id));
            }
            refused = refused.or(network.preferred);
        }

        refused.map(Route::Refused)
    }

    /// Networks that contain `ip`, longest prefix first.
    fn networks_around(&self, ip: IpAddr) -> impl Iterator<Item = &Network> {
        let prefixes = match ip {
            IpAddr::V4(_) => &self.prefixes_v4,
            IpAddr::V6(_) => &self.prefixes_v6,
        };

        prefixes
            .iter()
            .filter_map(move |prefix| self.network(IpNet::new(ip, *prefix).ok()?.trunc()))
    }

    fn network(&self, network: IpNet) -> Option<&Network> {
        let place = self.places.get(&key(network))?;

        self.networks
            .get(*place as usize)
            .map(|(_, network)| network)
    }
}

/// `network` without host bits as a key.
fn key(network: IpNet) -> (AddressKey, u8) {
    (network.addr().into(), network.prefix_len())
}

/// Address families of the answers for a domain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Families {
    pub(crate) v4: bool,
    pub(crate) v6: bool,
}

impl Network {
    /// Who gets a packet of this protocol: the preferred resource if it permits it, else the largest id that does.
    fn permitting(&self, protocol: FilterProtocol) -> Option<ResourceId> {
        let is_permitted = |id: &ResourceId| {
            self.resources
                .get(id)
                .is_some_and(|filters| permits(filters, protocol))
        };

        self.preferred.filter(is_permitted).or_else(|| {
            self.resources
                .keys()
                .rev()
                .find(|id| is_permitted(id))
                .copied()
        })
    }
}

/// The part of a destination protocol that filters look at.
fn filter_protocol(protocol: Protocol) -> FilterProtocol {
    match protocol {
        Protocol::Tcp(port) => FilterProtocol::Tcp(port),
        Protocol::Udp(port) => FilterProtocol::Udp(port),
        Protocol::IcmpEcho(_) => FilterProtocol::Icmp,
    }
}

#[cfg(test)]
mod tests {
    use connlib_model::IpStack;

    use super::super::testing::{cidr, cidr_with, dns, dns_with, internet};
    use super::*;

    const TCP_80: Protocol = Protocol::Tcp(80);

    // tunnel 4
    #[test]
    fn tunnel_4_more_specific_pattern_wins_in_any_order_of_ids() {
        for (exact, wildcard) in [(1, 2), (2, 1)] {
            let table = table(&[
                dns(exact, "foo.example.com"),
                dns(wildcard, "*.example.com"),
            ]);
            let domain = name("foo.example.com");
            assert_eq!(
                table.route(proxy(), Some(&domain), TCP_80),
                permitted(exact)
            );
            assert_eq!(table.best_match(&domain), Some(id(exact)));
            assert_eq!(
                table.route(proxy(), Some(&name("bar.example.com")), TCP_80),
                permitted(wildcard)
            );
        }
    }

    // tunnel 7
    #[test]
    fn tunnel_7_largest_id_owns_an_identical_network_unless_another_is_connected() {
        let mut table = RoutingTable::new(Secret::from_seed([0; 32]));
        let (a, b) = (cidr(1, "10.0.0.0/8"), cidr(2, "10.0.0.0/8"));
        table.rebuild([&a, &b].into_iter(), |_| false);
        assert_eq!(route(&table, "10.1.1.1"), permitted(2));

        let mut table = RoutingTable::new(Secret::from_seed([0; 32]));
        let is_a_connected = |resource| resource == id(1);
        table.rebuild([&a].into_iter(), |_| false);
        table.rebuild([&a, &b].into_iter(), is_a_connected);
        assert_eq!(route(&table, "10.1.1.1"), permitted(1));

        // A change elsewhere does not move the traffic, not even after the connection of A failed.
        let names = dns(3, "example.com");
        table.rebuild([&a, &b, &names].into_iter(), |_| false);
        assert_eq!(route(&table, "10.1.1.1"), permitted(1));

        let other = cidr(4, "192.0.2.0/24");
        table.rebuild([&a, &b, &names, &other].into_iter(), |_| false);
        assert_eq!(route(&table, "10.1.1.1"), permitted(2));
    }

    // tunnel 8
    #[test]
    fn tunnel_8_proxy_ip_beats_network_and_internet_and_is_unroutable_without_its_resource() {
        let wide = cidr(2, "0.0.0.0/1");
        let all = internet(3);
        let names = dns(1, "example.com");
        let domain = name("example.com");

        let with = table(&[names, wide.clone(), all.clone()]);
        assert_eq!(with.route(proxy(), Some(&domain), TCP_80), permitted(1));
        let without = table(&[wide, all]);
        assert_eq!(without.route(proxy(), Some(&domain), TCP_80), Route::None);
    }

    #[test]
    fn longest_prefix_wins_but_a_permitting_one_comes_first() {
        let web = vec![Filter::Tcp(80..=80)];
        let table = table(&[cidr_with(1, "10.0.0.0/24", web), cidr(2, "10.0.0.0/8")]);
        assert_eq!(route(&table, "10.0.0.1"), permitted(1));
        assert_eq!(
            table.route(ip("10.0.0.1"), None, Protocol::Udp(80)),
            permitted(2)
        );
        assert_eq!(route(&table, "10.0.1.1"), permitted(2));
    }

    #[test]
    fn covered_but_refused_names_the_resource() {
        let table = table(&[cidr_with(1, "10.0.0.0/24", vec![Filter::Icmp]), internet(2)]);
        assert_eq!(route(&table, "10.0.0.1"), Route::Refused(id(1)));
        assert_eq!(
            table.route(ip("10.0.0.1"), None, Protocol::IcmpEcho(5)),
            permitted(1)
        );
    }

    #[test]
    fn one_domain_may_belong_to_several_resources_by_port() {
        let table = table(&[
            dns_with(1, "example.com", vec![Filter::Tcp(80..=80)], IpStack::Dual),
            dns_with(
                2,
                "example.com",
                vec![Filter::Tcp(443..=443)],
                IpStack::Dual,
            ),
        ]);
        let domain = name("example.com");
        assert_eq!(table.route(proxy(), Some(&domain), TCP_80), permitted(1));
        assert_eq!(
            table.route(proxy(), Some(&domain), Protocol::Tcp(443)),
            permitted(2)
        );
        assert_eq!(
            table.route(proxy(), Some(&domain), Protocol::Tcp(22)),
            Route::Refused(id(2))
        );
    }

    // tunnel 31
    #[test]
    fn tunnel_31_excluded_family_is_refused() {
        let table = table(&[dns_with(1, "example.com", vec![], IpStack::Ipv6Only)]);
        let domain = name("example.com");
        assert_eq!(
            table.route(proxy(), Some(&domain), TCP_80),
            Route::Refused(id(1))
        );
        assert_eq!(
            table.families(&domain),
            Some(Families {
                v4: false,
                v6: true
            })
        );
        assert!(!table.covers(id(1), proxy(), Some(&domain)));
    }

    #[test]
    fn tunnel_range_never_belongs_to_the_internet() {
        let table = table(&[internet(1)]);
        assert_eq!(route(&table, "100.64.0.7"), Route::None);
        assert_eq!(route(&table, "100.96.0.7"), Route::None);
        assert_eq!(route(&table, "203.0.113.1"), permitted(1));
        assert!(!table.covers(id(1), ip("100.64.0.7"), None));
    }

    // tunnel 5
    #[test]
    fn tunnel_5_network_is_a_route_while_any_resource_has_it() {
        let net: Ipv4Net = "10.0.0.0/8".parse().expect("valid");
        assert!(
            table(&[cidr(1, "10.0.0.0/8"), cidr(2, "10.0.0.0/8")])
                .networks()
                .0
                .contains(&net)
        );
        assert!(table(&[cidr(2, "10.0.0.0/8")]).networks().0.contains(&net));
        assert!(!table(&[]).networks().0.contains(&net));
        assert!(
            table(&[internet(1)])
                .networks()
                .1
                .contains(&Ipv6Net::default())
        );
    }

    // tunnel 2
    #[test]
    fn tunnel_2_invalid_pattern_is_not_activated() {
        let table = table(&[dns(1, "a**.example.com"), dns(2, "*.example.com")]);
        assert_eq!(table.best_match(&name("ab.example.com")), Some(id(2)));
        assert_eq!(table.matching(&name("ab.example.com")).len(), 1);
    }

    // tunnel 22
    #[test]
    fn tunnel_22_dns_server_is_tunnelled_if_a_network_or_the_internet_covers_it() {
        assert!(table(&[cidr(1, "10.0.0.0/8")]).covers_server(ip("10.0.0.53")));
        assert!(!table(&[cidr(1, "10.0.0.0/8")]).covers_server(ip("9.9.9.9")));
        assert!(table(&[internet(1)]).covers_server(ip("9.9.9.9")));
    }

    fn table(resources: &[Resource]) -> RoutingTable {
        let mut resources = resources.iter().collect::<Vec<_>>();
        resources.sort_by_key(|resource| resource.id());
        let mut table = RoutingTable::new(Secret::from_seed([0; 32]));
        table.rebuild(resources.into_iter(), |_| false);

        table
    }

    fn route(table: &RoutingTable, destination: &str) -> Route {
        table.route(ip(destination), None, TCP_80)
    }

    fn permitted(resource: u128) -> Route {
        Route::Permitted(id(resource))
    }

    fn id(id: u128) -> ResourceId {
        ResourceId::from_u128(id)
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("valid")
    }

    fn name(text: &str) -> DomainName {
        text.parse().expect("valid")
    }

    fn proxy() -> IpAddr {
        ip("100.96.0.1")
    }
}
