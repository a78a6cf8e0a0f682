//! What the TUN device and the operating system around it are set to.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use ipnet::{Ipv4Net, Ipv6Net};

use crate::DomainName;

/// The full wish, compared as a whole: a new one is announced only when it differs from the current one
/// (tunnel specification §3.5).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TunConfig {
    /// The device's IPv4 address, used as a /32.
    pub ipv4: Ipv4Addr,
    /// The device's IPv6 address, used as a /128.
    pub ipv6: Ipv6Addr,
    /// Addresses of the stub resolver to put into the host's DNS settings, in order of preference. Empty: leave the
    /// host's DNS alone.
    pub dns_sentinels: Vec<IpAddr>,
    /// Appended to single-label queries.
    pub search_domain: Option<DomainName>,
    /// IPv4 networks to route into the device.
    pub routes_v4: BTreeSet<Ipv4Net>,
    /// IPv6 networks to route into the device.
    pub routes_v6: BTreeSet<Ipv6Net>,
}
