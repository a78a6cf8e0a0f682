//! Resources for the tests of the client's parts.

use connlib_model::{
    CidrResource, DnsResource, Filter, InternetResource, IpStack, Resource, ResourceId, Site,
    SiteId,
};

pub(crate) fn site(id: u128) -> Site {
    Site {
        id: SiteId::from_u128(id),
        name: format!("site {id}"),
    }
}

pub(crate) fn cidr(id: u128, address: &str) -> Resource {
    cidr_with(id, address, vec![])
}

pub(crate) fn cidr_with(id: u128, address: &str, filters: Vec<Filter>) -> Resource {
    Resource::Cidr(CidrResource {
        id: ResourceId::from_u128(id),
        address: address.parse().expect("a network"),
        name: format!("network {id}"),
        address_description: None,
        sites: vec![site(1)],
        filters,
    })
}

pub(crate) fn dns(id: u128, pattern: &str) -> Resource {
    dns_with(id, pattern, vec![], IpStack::Dual)
}

pub(crate) fn dns_with(
    id: u128,
    pattern: &str,
    filters: Vec<Filter>,
    ip_stack: IpStack,
) -> Resource {
    Resource::Dns(DnsResource {
        id: ResourceId::from_u128(id),
        address: pattern.to_owned(),
        name: format!("names {id}"),
        address_description: None,
        sites: vec![site(1)],
        filters,
        ip_stack,
    })
}

pub(crate) fn internet(id: u128) -> Resource {
    Resource::Internet(InternetResource {
        id: ResourceId::from_u128(id),
        name: "Internet Resource".to_owned(),
        sites: vec![site(9)],
    })
}
