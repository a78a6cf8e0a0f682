//! The words that every part of the data plane shares: ids, sites, resources, filters, domain names and patterns,
//! address ranges and the configuration of the TUN device.
//!
//! Plain data with checked constructors: no socket, clock or randomness. How these types look on the wire is the
//! business of the messages crate; here they mean what they mean inside.

#![deny(missing_docs)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod dns_pattern;
mod domain_name;
mod filter;
mod gateway_resource;
mod ids;
pub mod ranges;
mod resource;
mod site;
mod status;
mod tun_config;

pub use dns_pattern::{DnsPattern, MAX_PATTERN_LEN, PatternError};
pub use domain_name::{DomainName, DomainNameError, MAX_LABEL_LEN, MAX_NAME_LEN};
pub use filter::{Filter, FilterProtocol, permits};
pub use gateway_resource::{
    GatewayCidrResource, GatewayDnsResource, GatewayInternetResource, GatewayResource,
};
pub use ids::{ClientId, GatewayId, ParseIdError, RelayId, ResourceId, SiteId};
pub use ipnet::{IpNet, Ipv4Net, Ipv6Net};
pub use resource::{
    CidrResource, DnsResource, INTERNET_RESOURCE_NAME, InternetResource, IpStack, Resource,
};
pub use site::Site;
pub use status::{ResourceKind, ResourceStatus, ResourceView};
pub use tun_config::TunConfig;
