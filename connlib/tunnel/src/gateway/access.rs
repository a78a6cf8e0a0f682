//! What one client may reach: its authorized resources, and the verdict on a destination (tunnel spec §5.2, §5.3).
//!
//! Three kinds of destination are judged by three kinds of resource, and never by another: proxy addresses by DNS
//! resources, everything else by networks, or, if the client has the internet resource, by that alone.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use connlib_lookup::{Secret, Table};
use connlib_model::{DnsPattern, FilterProtocol, GatewayResource, ResourceId, ranges};
use ipnet::IpNet;

use super::networks::NetworkTable;
use super::rules::Rules;

/// The verdict on a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It may pass.
    Permitted,
    /// Nothing that the client is authorized for permits it.
    Prohibited,
    /// It is permitted, but leads nowhere.
    Unreachable,
}

/// The authorized resources of one client.
#[derive(Debug)]
pub(super) struct Access {
    authorizations: BTreeMap<ResourceId, Authorization>,
    /// Those that expire.
    expiries: BTreeSet<(Duration, ResourceId)>,
    // Derived from `authorizations`, for the look-ups of packets.
    names: Table<ResourceId, Rules>,
    networks: NetworkTable,
    internet: Option<Rules>,
    secret: Secret,
}

#[derive(Debug)]
struct Authorization {
    target: Target,
    rules: Rules,
    /// As time since the Unix epoch; `None` for never.
    expires_at: Option<Duration>,
}

#[derive(Debug)]
enum Target {
    Network(IpNet),
    /// `None` for a pattern that does not compile: it covers no name.
    Names(Option<DnsPattern>),
    Internet,
}

impl Target {
    fn new(resource: &GatewayResource) -> Self {
        match resource {
            GatewayResource::Cidr(cidr) => Self::Network(cidr.address),
            GatewayResource::Dns(dns) => Self::Names(DnsPattern::new(&dns.address).ok()),
            GatewayResource::Internet(_) => Self::Internet,
        }
    }

    fn is_same_kind(&self, other: &Self) -> bool {
        std::mem::discriminant(self) == std::mem::discriminant(other)
    }
}

/// How the names of a resource relate to a domain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NameAccess {
    /// The resource covers the domain.
    Covered,
    /// The client is not authorized for the resource.
    NotAuthorized,
    /// The resource is not one of names.
    NotDns,
    /// The resource is one of other names.
    NotCovered,
}

impl Access {
    /// Access to nothing.
    pub(super) fn new(secret: Secret) -> Self {
        Self {
            authorizations: BTreeMap::new(),
            expiries: BTreeSet::new(),
            names: secret.table(),
            networks: NetworkTable::new(secret),
            internet: None,
            secret,
        }
    }

    /// Grants access to `resource` until `expires_at`, replacing what was granted under its id.
    pub(super) fn authorize(&mut self, resource: &GatewayResource, expires_at: Option<Duration>) {
        let authorization = Authorization {
            target: Target::new(resource),
            rules: Rules::new(resource.filters()),
            expires_at,
        };
        let id = resource.id();
        match self.authorizations.insert(id, authorization) {
            // A client with many resources asks for one after the other.
            None => self.derive(id),
            Some(old) => {
                self.forget_expiry(id, old.expires_at);
                self.rebuild();
            }
        }
        self.expiries.extend(expires_at.map(|end| (end, id)));
    }

    /// Replaces address and filters of an authorized resource.
    ///
    /// Returns whether anything changed. A change of kind is refused: the portal never makes one.
    pub(super) fn update(&mut self, resource: &GatewayResource) -> bool {
        let Some(authorization) = self.authorizations.get_mut(&resource.id()) else {
            return false;
        };
        let target = Target::new(resource);
        if !authorization.target.is_same_kind(&target) {
            tracing::debug!(resource = %resource.id(), "Ignoring update that changes the kind of a resource");
            return false;
        }
        authorization.target = target;
        authorization.rules = Rules::new(resource.filters());
        self.rebuild();
        true
    }

    /// Sets the expiry of an authorized resource; does nothing for another.
    pub(super) fn set_expiry(&mut self, resource: ResourceId, expires_at: Option<Duration>) {
        let Some(authorization) = self.authorizations.get_mut(&resource) else {
            return;
        };
        let old = std::mem::replace(&mut authorization.expires_at, expires_at);
        self.forget_expiry(resource, old);
        self.expiries.extend(expires_at.map(|end| (end, resource)));
    }

    /// Revokes access to one resource. Returns whether it was authorized.
    pub(super) fn revoke(&mut self, resource: ResourceId) -> bool {
        let Some(revoked) = self.authorizations.remove(&resource) else {
            return false;
        };
        self.forget_expiry(resource, revoked.expires_at);
        self.rebuild();
        true
    }

    /// Revokes access to every resource that `keep` does not name, and returns those.
    pub(super) fn retain(&mut self, mut keep: impl FnMut(ResourceId) -> bool) -> Vec<ResourceId> {
        self.revoke_if(|id, _| !keep(id))
    }

    /// Revokes access to every resource whose time is over at `unix_now`, and returns those.
    pub(super) fn expire(&mut self, unix_now: Duration) -> Vec<ResourceId> {
        self.revoke_if(|_, authorization| {
            authorization.expires_at.is_some_and(|end| end <= unix_now)
        })
    }

    /// When the next authorization expires, as time since the Unix epoch.
    pub(super) fn next_expiry(&self) -> Option<Duration> {
        self.expiries.first().map(|(end, _)| *end)
    }

    /// Whether nothing is authorized any more.
    pub(super) fn is_empty(&self) -> bool {
        self.authorizations.is_empty()
    }

    /// The verdict on a packet between the client and `address`, which is not in the proxy range.
    pub(super) fn judge(&self, address: IpAddr, protocol: FilterProtocol) -> Verdict {
        if ranges::is_tunnel(address) {
            return Verdict::Prohibited;
        }
        let permitted = match &self.internet {
            Some(_) if !is_public(address) => return Verdict::Unreachable,
            Some(rules) => rules.permit(protocol),
            None => self.networks.permit(address, protocol),
        };
        if permitted {
            Verdict::Permitted
        } else {
            Verdict::Prohibited
        }
    }

    /// Whether any of `resources` is an authorized DNS resource that permits `protocol`.
    pub(super) fn permits_names(&self, resources: &[ResourceId], protocol: FilterProtocol) -> bool {
        resources
            .iter()
            .filter_map(|id| self.names.get(id))
            .any(|rules| rules.permit(protocol))
    }

    /// Whether the client may use `domain` by way of `resource`.
    pub(super) fn name_access(
        &self,
        resource: ResourceId,
        domain: &connlib_model::DomainName,
    ) -> NameAccess {
        let Some(authorization) = self.authorizations.get(&resource) else {
            return NameAccess::NotAuthorized;
        };
        match &authorization.target {
            Target::Names(Some(pattern)) if pattern.matches(domain) => NameAccess::Covered,
            Target::Names(_) => NameAccess::NotCovered,
            Target::Network(_) | Target::Internet => NameAccess::NotDns,
        }
    }

    fn revoke_if(
        &mut self,
        mut condition: impl FnMut(ResourceId, &Authorization) -> bool,
    ) -> Vec<ResourceId> {
        let revoked: Vec<_> = self
            .authorizations
            .extract_if(.., |id, authorization| condition(*id, authorization))
            .map(|(id, authorization)| (id, authorization.expires_at))
            .collect();
        if !revoked.is_empty() {
            self.rebuild();
        }
        let forget = |(id, expires_at)| {
            self.forget_expiry(id, expires_at);
            id
        };
        revoked.into_iter().map(forget).collect()
    }

    fn forget_expiry(&mut self, resource: ResourceId, expires_at: Option<Duration>) {
        if let Some(end) = expires_at {
            self.expiries.remove(&(end, resource));
        }
    }

    /// Derives the look-up structures anew.
    fn rebuild(&mut self) {
        self.names.clear();
        self.networks = NetworkTable::new(self.secret);
        self.internet = None;
        let resources: Vec<_> = self.authorizations.keys().copied().collect();
        for resource in resources {
            self.derive(resource);
        }
    }

    /// Adds an authorization to the look-up structures.
    fn derive(&mut self, resource: ResourceId) {
        let Some(Authorization { target, rules, .. }) = self.authorizations.get(&resource) else {
            return;
        };
        match target {
            Target::Network(network) => self.networks.add(*network, rules),
            Target::Internet => self.internet.get_or_insert_default().add(rules),
            Target::Names(_) => {
                self.names.insert(resource, rules.clone());
            }
        }
    }
}

/// Whether the internet resource leads to `address`: not to networks that mean something else at every site.
fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => is_public_v4(v4),
        IpAddr::V6(v6) => is_public_v6(v6),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [first, second, ..] = address.octets();
    let is_carrier_grade_nat = first == 100 && second & 0xc0 == 64;
    let is_this_network = first == 0;
    let is_class_e_or_broadcast = first >= 240;
    !(address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || address.is_multicast()
        || is_carrier_grade_nat
        || is_this_network
        || is_class_e_or_broadcast)
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    !(address.is_loopback()
        || address.is_unspecified()
        || address.is_multicast()
        || address.is_unique_local()
        || address.is_unicast_link_local()
        || address.to_ipv4_mapped().is_some())
}

#[cfg(test)]
mod tests {
    use connlib_model::{
        DomainName, Filter, GatewayCidrResource, GatewayDnsResource, GatewayInternetResource,
    };

    use super::*;

    const TCP_80: FilterProtocol = FilterProtocol::Tcp(80);

    fn id(number: u128) -> ResourceId {
        ResourceId::from_u128(number)
    }

    fn cidr(number: u128, network: &str, filters: &[Filter]) -> GatewayResource {
        GatewayResource::Cidr(GatewayCidrResource {
            id: id(number),
            address: network.parse().unwrap(),
            name: "network".into(),
            filters: filters.to_vec(),
        })
    }

    fn dns(number: u128, pattern: &str, filters: &[Filter]) -> GatewayResource {
        GatewayResource::Dns(GatewayDnsResource {
            id: id(number),
            address: pattern.into(),
            name: "names".into(),
            filters: filters.to_vec(),
        })
    }

    fn internet(number: u128) -> GatewayResource {
        GatewayResource::Internet(GatewayInternetResource {
            id: id(number),
            filters: Vec::new(),
        })
    }

    fn access(resources: &[GatewayResource]) -> Access {
        let mut access = Access::new(Secret::from_seed([0; 32]));
        for resource in resources {
            access.authorize(resource, None);
        }
        access
    }

    fn verdict(access: &Access, address: &str) -> Verdict {
        access.judge(address.parse().unwrap(), TCP_80)
    }

    #[test]
    fn nothing_authorized_prohibits_everything() {
        let access = access(&[]);
        assert!(access.is_empty());
        assert_eq!(verdict(&access, "10.0.0.1"), Verdict::Prohibited);
        assert_eq!(verdict(&access, "2001:db8::1"), Verdict::Prohibited);
    }

    // tunnel 49
    #[test]
    fn tunnel_49_resources_end_one_by_one() {
        let mut access = Access::new(Secret::from_seed([0; 32]));
        let at = Duration::from_secs;
        access.authorize(
            &cidr(1, "10.0.0.0/8", &[Filter::Tcp(80..=80)]),
            Some(at(10)),
        );
        access.authorize(&cidr(2, "10.0.0.0/8", &[Filter::Icmp]), Some(at(20)));
        let ip = "10.0.0.1".parse().unwrap();

        assert_eq!(access.next_expiry(), Some(at(10)));
        assert!(access.expire(at(10) - Duration::from_nanos(1)).is_empty());
        assert_eq!(access.judge(ip, TCP_80), Verdict::Permitted);

        assert_eq!(access.expire(at(10)), [id(1)]);
        assert_eq!(access.judge(ip, TCP_80), Verdict::Prohibited);
        assert_eq!(access.judge(ip, FilterProtocol::Icmp), Verdict::Permitted);

        assert_eq!(access.expire(at(20)), [id(2)]);
        assert!(access.is_empty());
        assert_eq!(access.next_expiry(), None);
    }

    // tunnel 49
    #[test]
    fn tunnel_49_update_of_filters_takes_effect_at_once() {
        let mut access = access(&[cidr(1, "10.0.0.0/8", &[Filter::Tcp(80..=80)])]);

        assert!(access.update(&cidr(1, "10.0.0.0/8", &[Filter::Tcp(22..=22)])));
        assert_eq!(verdict(&access, "10.0.0.1"), Verdict::Prohibited);

        assert!(!access.update(&dns(1, "example.com", &[])));
        assert!(!access.update(&cidr(9, "10.0.0.0/8", &[])));
    }

    // tunnel 55
    #[test]
    fn tunnel_55_authorizing_again_replaces_the_expiry() {
        let at = Duration::from_secs;
        let mut access = Access::new(Secret::from_seed([0; 32]));
        let resource = cidr(1, "10.0.0.0/8", &[]);

        access.authorize(&resource, Some(at(10)));
        access.authorize(&resource, Some(at(30)));
        assert!(access.expire(at(29)).is_empty());

        access.authorize(&resource, None);
        assert!(access.expire(at(1_000_000)).is_empty());
        assert_eq!(access.next_expiry(), None);
    }

    // tunnel 51
    #[test]
    fn tunnel_51_internet_leads_to_public_addresses_only() {
        let access = access(&[internet(1)]);

        for public in ["1.1.1.1", "100.63.255.255", "172.15.0.1", "2606:4700::1111"] {
            assert_eq!(verdict(&access, public), Verdict::Permitted, "{public}");
        }
        for private in [
            "10.0.0.1",
            "172.16.0.1",
            "192.168.1.1",
            "127.0.0.1",
            "169.254.1.1",
            "100.127.0.1",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
            "0.1.2.3",
            "::1",
            "::",
            "fc00::1",
            "fe80::1",
            "ff02::1",
            "::ffff:1.1.1.1",
        ] {
            assert_eq!(verdict(&access, private), Verdict::Unreachable, "{private}");
        }
        for tunnel in ["100.64.0.1", "100.95.255.254", "fd00:2021:1111::1"] {
            assert_eq!(verdict(&access, tunnel), Verdict::Prohibited, "{tunnel}");
        }
    }

    // tunnel 51
    #[test]
    fn tunnel_51_internet_takes_the_place_of_networks() {
        let mut access = access(&[internet(1), cidr(2, "10.0.0.0/8", &[])]);
        assert_eq!(verdict(&access, "10.0.0.1"), Verdict::Unreachable);

        assert!(access.revoke(id(1)));
        assert_eq!(verdict(&access, "10.0.0.1"), Verdict::Permitted);
        assert_eq!(verdict(&access, "1.1.1.1"), Verdict::Prohibited);
    }

    // tunnel 52
    #[test]
    fn tunnel_52_no_resource_opens_the_tunnel_range() {
        let access = access(&[cidr(1, "0.0.0.0/0", &[]), cidr(2, "::/0", &[])]);
        assert_eq!(verdict(&access, "100.64.0.7"), Verdict::Prohibited);
        assert_eq!(verdict(&access, "fd00:2021:1111::7"), Verdict::Prohibited);
    }

    // tunnel 50
    #[test]
    fn tunnel_50_names_are_judged_by_their_own_resources() {
        let access = access(&[
            dns(1, "*.example.com", &[Filter::Tcp(80..=80)]),
            cidr(2, "10.0.0.0/8", &[]),
        ]);
        assert!(access.permits_names(&[id(1)], TCP_80));
        assert!(!access.permits_names(&[id(1)], FilterProtocol::Tcp(22)));
        assert!(!access.permits_names(&[id(2)], TCP_80));
        assert!(!access.permits_names(&[id(3)], TCP_80));
    }

    // tunnel 45
    #[test]
    fn tunnel_45_names_must_match_the_pattern() {
        let access = access(&[
            dns(1, "*.example.com", &[]),
            cidr(2, "10.0.0.0/8", &[]),
            dns(3, "a[b", &[]),
        ]);
        let name: DomainName = "www.example.com".parse().unwrap();
        let other: DomainName = "example.org".parse().unwrap();

        assert_eq!(access.name_access(id(1), &name), NameAccess::Covered);
        assert_eq!(access.name_access(id(1), &other), NameAccess::NotCovered);
        assert_eq!(access.name_access(id(2), &name), NameAccess::NotDns);
        assert_eq!(access.name_access(id(3), &name), NameAccess::NotCovered);
        assert_eq!(access.name_access(id(4), &name), NameAccess::NotAuthorized);
    }

    // tunnel 53
    #[test]
    fn tunnel_53_only_listed_resources_stay() {
        let mut access = access(&[cidr(1, "10.0.0.0/8", &[]), cidr(2, "10.0.0.0/8", &[])]);
        assert_eq!(access.retain(|resource| resource == id(2)), [id(1)]);
        assert!(!access.is_empty());
    }
}
