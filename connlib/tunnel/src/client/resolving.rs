//! Where the stub resolver meets routing, intents and gateways.

use std::collections::VecDeque;
use std::time::Instant;

use connlib_model::{GatewayId, ResourceId};
use ip_packet::PacketRef;

use super::Client;
use super::stub_resolver::SiteQuery;

impl Client {
    pub(super) fn resolve(&mut self, _packet: PacketRef<'_>, _now: Instant) {}
    pub(super) fn refuse_queries(&mut self, _queries: VecDeque<SiteQuery>, _now: Instant) {}
    pub(super) fn announce_domains_of(&mut self, _resource: ResourceId, _now: Instant) {}
    pub(super) fn ask_site(&mut self, _query: SiteQuery, _gateway: GatewayId, _now: Instant) {}
    pub(super) fn drain_resolver(&mut self, _now: Instant) {}
}
