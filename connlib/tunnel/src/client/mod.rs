//! The client's half of the tunnel.
//!
//! [`Client`] composes small machines, each in a file of its own: what exists ([`resources`]), where a destination belongs
//! ([`routing`]), what waits for the portal ([`intents`]) or for a gateway ([`dns_resource_nat`]), who serves what
//! ([`gateways`]), what is reachable ([`sites`]), and the stub resolver ([`stub_resolver`]). The files [`outbound`] and
//! [`inbound`] are the path of a packet through them; [`signalling`] is what the portal and the application change.

mod api;
mod connections;
mod dns_resource_nat;
mod gateways;
mod inbound;
mod intents;
mod latest;
mod name_routes;
mod outbound;
mod outbox;
mod resolving;
mod resources;
mod routing;
mod signalling;
mod sites;
mod stub_resolver;
#[cfg(test)]
mod testing;

use std::collections::{BTreeSet, VecDeque};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use connlib_lookup::Secret;
use connlib_model::{GatewayId, RelayId, ResourceId};
use connlib_snownet::{Node, NodeStats, PublicKey, Role, Transmit};
use ip_packet::{IpPacket, Protocol};

use crate::direct_map::DirectMap;

pub use api::{
    ClientEvent, ClientStats, FlowCreated, FlowError, FlowFailure, GatewayView, InterfaceConfig,
};
use dns_resource_nat::DnsResourceNat;
use gateways::Gateways;
use intents::Intents;
use outbox::Outbox;
use resources::Resources;
use routing::RoutingTable;
use sites::Sites;
use stub_resolver::{Question, StubResolver};

/// Locally made packets that wait for the TUN device; more than any burst of DNS answers and ICMP errors between two
/// polls.
const MAX_LOCAL_PACKETS: usize = 1024;

/// Everything a client knows: which packet goes where, through whom, and what has to be asked of whom before.
///
/// # Driving loop
///
/// After *every* input the outputs are drained, transmits first, so that what waited leaves before what comes next:
///
/// ```text
/// loop {
///     while let Some(transmit) = client.poll_transmit() { send(transmit) }
///     while let Some(packet) = client.poll_packet() { write_to_tun(packet) }
///     while let Some(query) = client.poll_recursive_query() { resolve_on_this_host(query) }
///     while let Some(event) = client.poll_event() { tell_portal_or_application(event) }
///
///     match wait_until(client.poll_timeout()) {
///         TunRead(packet)         => client.handle_tun(packet, now, &mut send_batch),
///         Datagrams(batch)        => for d in batch { client.handle_network(…, now, &mut coalescer) },
///         PortalMessage(message)  => client.set_resources(…) or handle_flow_created(…) or …,
///         Timeout                 => client.handle_timeout(now),
///     }
/// }
/// ```
///
/// # Invariants
///
/// * No packet goes to a gateway without a binding of its resource to that gateway.
/// * No packet from a gateway reaches the TUN device unless its source belongs to a resource bound to that gateway, or is
///   the gateway itself.
/// * What waits is bounded and has one place per reason: for the portal in the intent, for a NAT set-up in its domain, for
///   a path or session in the node.
pub struct Client {
    node: Node<GatewayId, RelayId>,
    interface: Option<InterfaceConfig>,
    resources: Resources,
    routing: RoutingTable,
    intents: Intents<Question>,
    gateways: Gateways,
    sites: Sites,
    nat: DnsResourceNat,
    resolver: StubResolver,

    /// Destinations whose packets go straight to a gateway.
    outbound_flows: DirectMap<(IpAddr, Protocol), GatewayId>,
    /// Sources that a gateway may send from.
    inbound_sources: DirectMap<(GatewayId, IpAddr), ()>,
    /// Packets of one stream that arrive in the same epoch are treated alike.
    inbound_epoch: u64,

    transmits: VecDeque<Transmit>,
    packets: VecDeque<IpPacket>,
    outbox: Outbox,
    stats: ClientStats,
    last_now: Instant,
}

impl Client {
    /// A client without resources and relays. Keys and every random choice derive from `seed`.
    ///
    /// `unix_now` is the wall clock at `now`, as time since the Unix epoch.
    pub fn new(seed: [u8; 32], now: Instant, unix_now: Duration) -> Self {
        let secret = Secret::from_seed(seed);

        Self {
            node: Node::new(Role::Client, seed, now, unix_now),
            interface: None,
            resources: Resources::default(),
            routing: RoutingTable::new(secret),
            intents: Intents::new(),
            gateways: Gateways::new(secret),
            sites: Sites::default(),
            nat: DnsResourceNat::default(),
            resolver: StubResolver::new(seed, now),
            outbound_flows: DirectMap::new(),
            inbound_sources: DirectMap::new(),
            inbound_epoch: 0,
            transmits: VecDeque::new(),
            packets: VecDeque::new(),
            outbox: Outbox::new(),
            stats: ClientStats::default(),
            last_now: now,
        }
    }

    /// The WireGuard key of this client; the portal has to know it. Changes with every [`Client::reset`].
    pub fn public_key(&self) -> PublicKey {
        self.node.public_key()
    }

    /// Does everything that is due at `now`.
    pub fn handle_timeout(&mut self, now: Instant) {
        let now = self.advance(now);

        if self.sites.handle_timeout(now) {
            self.refresh_resource_list();
        }
        self.resolver.handle_timeout(now);
        self.drain_resolver(now);
        // Last, because what the resolver sends may make something due in the node.
        self.node.handle_timeout(now);
        self.drain_node(now);
    }

    /// When [`Client::handle_timeout`] must be called next, or a poll function if that instant is not in the future.
    pub fn poll_timeout(&mut self) -> Option<Instant> {
        if self.has_output() {
            return Some(self.last_now);
        }

        [
            self.node.poll_timeout().map(|(deadline, _)| deadline),
            self.sites.poll_timeout(),
            self.resolver.poll_timeout(),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// The next datagram for the network.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        self.transmits.pop_front()
    }

    /// The next locally made packet for the TUN device: DNS answers and ICMP errors.
    pub fn poll_packet(&mut self) -> Option<IpPacket> {
        self.packets.pop_front()
    }

    /// The next event.
    pub fn poll_event(&mut self) -> Option<ClientEvent> {
        let gateways = &self.gateways;

        self.outbox.poll(|resource| gateways.preferred(resource))
    }

    /// Connections to gateways, by gateway id.
    pub fn gateways(&self) -> impl Iterator<Item = GatewayView> + '_ {
        self.gateways.peers().map(|(gateway, peer)| GatewayView {
            gateway,
            site: peer.site,
            path: self.node.path(gateway),
        })
    }

    /// Counters of this state machine.
    pub fn stats(&self) -> ClientStats {
        self.stats
    }

    /// Counters of the connections.
    pub fn node_stats(&self) -> NodeStats {
        self.node.stats()
    }

    /// Relays that connections are bound to.
    pub fn relays_in_use(&self) -> BTreeSet<RelayId> {
        self.node.relays_in_use()
    }

    /// Whether the portal was asked for access to `resource` and has not granted it yet.
    pub fn is_access_awaited(&self, resource: ResourceId) -> bool {
        self.intents.contains(resource)
    }

    /// The latest time that the client was told.
    pub fn last_now(&self) -> Instant {
        self.last_now
    }

    /// Time never goes backwards.
    fn advance(&mut self, now: Instant) -> Instant {
        // Whatever comes in may change what becomes of the next packet.
        self.inbound_epoch += 1;
        self.last_now = self.last_now.max(now);

        self.last_now
    }

    /// The same for a datagram: many arrive at one instant, and packets of one stream change nothing.
    fn advance_to_datagram(&mut self, now: Instant) -> Instant {
        if now > self.last_now {
            return self.advance(now);
        }

        self.last_now
    }

    fn has_output(&self) -> bool {
        !self.transmits.is_empty()
            || !self.packets.is_empty()
            || !self.outbox.is_empty()
            || self.resolver.has_recursive_query()
    }

    /// Hands a locally made packet to the TUN device.
    fn push_local(&mut self, packet: IpPacket) {
        if self.packets.len() == MAX_LOCAL_PACKETS {
            self.stats.overflow += 1;
            return;
        }
        self.packets.push_back(packet);
    }

    /// Forgets decisions that rest on tables which have just changed.
    fn invalidate_decisions(&mut self) {
        self.outbound_flows.invalidate();
        self.inbound_sources.invalidate();
        self.inbound_epoch += 1;
    }

    fn refresh_resource_list(&mut self) {
        let views = self.resources.views(&self.sites);
        self.outbox.resources.set(views);
    }
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client")
            .field("interface", &self.interface)
            .field("stats", &self.stats)
            .finish_non_exhaustive()
    }
}
