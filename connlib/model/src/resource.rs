//! Resources as the client sees them.

use std::{collections::BTreeSet, net::IpAddr};

use ipnet::IpNet;

use crate::{Filter, ResourceId, Site, SiteId, status::ResourceKind};

/// The name of an internet resource that the portal did not name.
pub const INTERNET_RESOURCE_NAME: &str = "Internet Resource";

/// Something that a client may reach.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Resource {
    /// A network; a single address is a network of one.
    Cidr(CidrResource),
    /// Names that match a pattern.
    Dns(DnsResource),
    /// Everything else.
    Internet(InternetResource),
}

/// A network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CidrResource {
    /// Identity.
    pub id: ResourceId,
    /// The network, without host bits.
    pub address: IpNet,
    /// For display.
    pub name: String,
    /// For display: a hint or URL of whoever made the resource.
    pub address_description: Option<String>,
    /// Where its gateways are.
    pub sites: Vec<Site>,
    /// What is permitted; empty permits everything.
    pub filters: Vec<Filter>,
}

/// Names that match a pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DnsResource {
    /// Identity.
    pub id: ResourceId,
    /// The pattern as written; compile it with [`crate::DnsPattern`]. It may be invalid: such a resource is listed but
    /// not activated.
    pub address: String,
    /// For display.
    pub name: String,
    /// For display: a hint or URL of whoever made the resource.
    pub address_description: Option<String>,
    /// Where its gateways are.
    pub sites: Vec<Site>,
    /// What is permitted; empty permits everything.
    pub filters: Vec<Filter>,
    /// Address families to answer for.
    pub ip_stack: IpStack,
}

/// Everything that no other resource covers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InternetResource {
    /// Identity.
    pub id: ResourceId,
    /// For display; [`INTERNET_RESOURCE_NAME`] when the portal gave none.
    pub name: String,
    /// Where its gateways are.
    pub sites: Vec<Site>,
}

/// Address families that a DNS resource is answered for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum IpStack {
    /// IPv4 and IPv6.
    #[default]
    Dual,
    /// A records only.
    Ipv4Only,
    /// AAAA records only.
    Ipv6Only,
}

impl IpStack {
    /// Whether A records are answered.
    pub const fn has_v4(self) -> bool {
        matches!(self, Self::Dual | Self::Ipv4Only)
    }

    /// Whether AAAA records are answered.
    pub const fn has_v6(self) -> bool {
        matches!(self, Self::Dual | Self::Ipv6Only)
    }

    /// Whether addresses of this family are answered.
    pub const fn permits(self, ip: IpAddr) -> bool {
        match ip {
            IpAddr::V4(_) => self.has_v4(),
            IpAddr::V6(_) => self.has_v6(),
        }
    }
}

impl Resource {
    /// Identity.
    pub fn id(&self) -> ResourceId {
        match self {
            Self::Cidr(r) => r.id,
            Self::Dns(r) => r.id,
            Self::Internet(r) => r.id,
        }
    }

    /// Display name.
    pub fn name(&self) -> &str {
        match self {
            Self::Cidr(r) => &r.name,
            Self::Dns(r) => &r.name,
            Self::Internet(r) => &r.name,
        }
    }

    /// The sites whose gateways serve it.
    pub fn sites(&self) -> &[Site] {
        match self {
            Self::Cidr(r) => &r.sites,
            Self::Dns(r) => &r.sites,
            Self::Internet(r) => &r.sites,
        }
    }

    /// What is permitted; the internet resource has no filters and permits everything.
    pub fn filters(&self) -> &[Filter] {
        match self {
            Self::Cidr(r) => &r.filters,
            Self::Dns(r) => &r.filters,
            Self::Internet(_) => &[],
        }
    }

    /// The hint of whoever made the resource.
    pub fn address_description(&self) -> Option<&str> {
        match self {
            Self::Cidr(r) => r.address_description.as_deref(),
            Self::Dns(r) => r.address_description.as_deref(),
            Self::Internet(_) => None,
        }
    }

    /// Network or pattern as text; `None` for the internet.
    pub fn address_string(&self) -> Option<String> {
        match self {
            Self::Cidr(r) => Some(r.address.to_string()),
            Self::Dns(r) => Some(r.address.clone()),
            Self::Internet(_) => None,
        }
    }

    /// Which of the three it is.
    pub fn kind(&self) -> ResourceKind {
        match self {
            Self::Cidr(_) => ResourceKind::Cidr,
            Self::Dns(_) => ResourceKind::Dns,
            Self::Internet(_) => ResourceKind::Internet,
        }
    }

    /// Whether `other`, a resource with the same id, has to replace this one as if it were a different resource:
    /// routing state made for one is not valid for the other (tunnel specification §3.1). A new name, description or
    /// site name only changes the view.
    pub fn address_differs(&self, other: &Self) -> bool {
        let same_target = match (self, other) {
            (Self::Cidr(a), Self::Cidr(b)) => a.address == b.address && a.filters == b.filters,
            (Self::Dns(a), Self::Dns(b)) => {
                a.address == b.address && a.ip_stack == b.ip_stack && a.filters == b.filters
            }
            (Self::Internet(_), Self::Internet(_)) => true,
            (Self::Cidr(_) | Self::Dns(_) | Self::Internet(_), _) => false,
        };
        !same_target || site_ids(self.sites()) != site_ids(other.sites())
    }
}

fn site_ids(sites: &[Site]) -> BTreeSet<SiteId> {
    sites.iter().map(|site| site.id).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn site(id: u128, name: &str) -> Site {
        Site {
            id: SiteId::from_u128(id),
            name: name.to_owned(),
        }
    }

    fn dns() -> DnsResource {
        DnsResource {
            id: ResourceId::from_u128(1),
            address: "*.example.com".to_owned(),
            name: "Web".to_owned(),
            address_description: None,
            sites: vec![site(1, "Berlin"), site(2, "Paris")],
            filters: vec![],
            ip_stack: IpStack::Dual,
        }
    }

    #[test]
    fn names_and_order_of_sites_only_change_the_view() {
        let before = Resource::Dns(dns());
        let after = Resource::Dns(DnsResource {
            name: "Intranet".to_owned(),
            address_description: Some("https://wiki".to_owned()),
            sites: vec![site(2, "Lutetia"), site(1, "Berlin")],
            ..dns()
        });
        assert!(!before.address_differs(&after));
    }

    #[test]
    fn every_routed_property_makes_a_different_resource() {
        let before = Resource::Dns(dns());
        let changed = [
            DnsResource {
                address: "*.example.org".to_owned(),
                ..dns()
            },
            DnsResource {
                ip_stack: IpStack::Ipv4Only,
                ..dns()
            },
            DnsResource {
                filters: vec![Filter::Icmp],
                ..dns()
            },
            DnsResource {
                sites: vec![site(1, "Berlin")],
                ..dns()
            },
        ];
        for resource in changed {
            assert!(before.address_differs(&Resource::Dns(resource)));
        }
        let internet = Resource::Internet(InternetResource {
            id: ResourceId::from_u128(1),
            name: INTERNET_RESOURCE_NAME.to_owned(),
            sites: dns().sites,
        });
        assert!(before.address_differs(&internet));
    }

    #[test]
    fn ip_stack_names_the_families() {
        assert!(IpStack::Dual.has_v4() && IpStack::Dual.has_v6());
        assert!(IpStack::Ipv4Only.has_v4() && !IpStack::Ipv4Only.has_v6());
        assert!(!IpStack::Ipv6Only.permits("192.0.2.1".parse().unwrap()));
        assert!(IpStack::Ipv6Only.permits("2001:db8::1".parse().unwrap()));
    }
}
