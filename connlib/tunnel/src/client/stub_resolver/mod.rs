//! The stub resolver.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Instant;

use connlib_model::DomainName;
use ip_packet::{PacketRef, Protocol};

#[derive(Debug)]
pub(crate) struct StubResolver {}

/// A query that has to be answered in the site of a resource.
#[derive(Debug)]
pub(crate) struct SiteQuery {}

impl StubResolver {
    pub(crate) fn new(_seed: [u8; 32], _now: Instant) -> Self {
        Self {}
    }
    pub(crate) fn set_upstreams(&mut self, _upstreams: &[SocketAddr]) {}
    pub(crate) fn set_system_resolvers(&mut self, _resolvers: Vec<IpAddr>) {}
    pub(crate) fn sentinels(&self) -> Vec<IpAddr> {
        vec![]
    }
    pub(crate) fn on_config_changed(&mut self, _ipv4: Ipv4Addr, _ipv6: Ipv6Addr, _now: Instant) {}
    pub(crate) fn domain_of(&self, _ip: IpAddr) -> Option<&DomainName> {
        None
    }
    pub(crate) fn proxy_ips(&self, _domain: &DomainName) -> Vec<IpAddr> {
        vec![]
    }
    pub(crate) fn is_mapped(&self, _sentinel: IpAddr) -> bool {
        false
    }
    pub(crate) fn is_link_local_query(&self, _destination: IpAddr, _protocol: Protocol) -> bool {
        false
    }
    pub(crate) fn handle_tunnel_packet(&mut self, _packet: PacketRef<'_>, _now: Instant) -> bool {
        false
    }
    pub(crate) fn reset(&mut self, _now: Instant) {}
    pub(crate) fn handle_timeout(&mut self, _now: Instant) {}
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        None
    }
    pub(crate) fn has_recursive_query(&self) -> bool {
        false
    }
}
