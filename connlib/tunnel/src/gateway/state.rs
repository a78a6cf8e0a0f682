//! The gateway state machine: entry points, deadlines and events.

use std::collections::{BTreeSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use connlib_model::{ClientId, GatewayResource, RelayId, ResourceId};
use connlib_snownet::{
    DatagramSink, NoRelays, Node, NodeStats, PathInfo, PublicKey, RelayConfig, Role, Transmit,
};
use ip_packet::Ecn;

use super::{AuthorizeFlow, GatewayEvent, GatewayStats, ResolveError, ResolveId, TunAddresses};
use crate::segment::{Coalescer, TunPacket};
use crate::transmit_queue::TransmitQueue;
use crate::unix_time::UnixClock;

/// The gateway.
///
/// # Driving loop
///
/// ```text
/// loop {
///     while let Some(transmit) = gateway.poll_transmit() { send }      // after every input, before the next
///     while let Some(event) = gateway.poll_event() { portal or resolver }
///     match wait(gateway.poll_timeout()) {
///         packet from the TUN device  => gateway.handle_tun(packet, now, &mut datagrams),
///         datagram                    => gateway.handle_network(.., now, &mut coalescer),
///         message from the portal     => gateway.authorize(..), reject(..), update_resource(..), reconcile(..), ..
///         answer of the resolver      => gateway.handle_resolved(id, result, now),
///         time-out                    => gateway.handle_timeout(now),
///     }
///     // once per batch
///     for (gso, packet) in coalescer.drain() { write to the TUN device }
/// }
/// ```
pub struct Gateway {
    node: Node<ClientId, RelayId>,
    clock: UnixClock,
    tun: Option<TunAddresses>,
    transmits: TransmitQueue,
    events: VecDeque<GatewayEvent>,
    stats: GatewayStats,
}

impl Gateway {
    /// A gateway without clients. Its key pair and every random choice derive from `seed`.
    ///
    /// `unix_now` is the wall clock at `now`, as time since the Unix epoch.
    pub fn new(seed: [u8; 32], now: Instant, unix_now: Duration) -> Self {
        Self {
            node: Node::new(Role::Gateway, seed, now, unix_now),
            clock: UnixClock::new(now, unix_now),
            tun: None,
            transmits: TransmitQueue::default(),
            events: VecDeque::new(),
            stats: GatewayStats::default(),
        }
    }

    /// The WireGuard key that the portal hands to clients. Changes with [`reset`](Self::reset).
    pub fn public_key(&self) -> PublicKey {
        self.node.public_key()
    }

    /// Takes one packet or super-packet from the TUN device and seals it for its client, straight into `sink`.
    pub fn handle_tun(
        &mut self,
        packet: TunPacket<'_>,
        now: Instant,
        sink: &mut impl DatagramSink,
    ) {
        let _ = (packet, now, sink);
    }

    /// Takes one datagram that arrived on the socket `local` from `from` with the outer codepoint `ecn`.
    ///
    /// What is for the TUN device is opened straight into `out`; the caller drains it once per batch, and whenever it is
    /// full.
    pub fn handle_network(
        &mut self,
        local: SocketAddr,
        from: SocketAddr,
        ecn: Ecn,
        datagram: &[u8],
        now: Instant,
        out: &mut Coalescer,
    ) {
        let _ = (local, from, ecn, datagram, now, out);
    }

    /// Does everything that is due at `now`.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.node.handle_timeout(now);
    }

    /// When [`handle_timeout`](Self::handle_timeout) must be called next.
    pub fn poll_timeout(&mut self) -> Option<Instant> {
        self.node.poll_timeout().map(|(at, _)| at)
    }

    /// The next datagram for the network.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        self.transmits.pop().or_else(|| self.node.poll_transmit())
    }

    /// The next event.
    pub fn poll_event(&mut self) -> Option<GatewayEvent> {
        self.events.pop_front()
    }

    /// Tells the gateway its own TUN addresses (portal `init`).
    pub fn set_interface(&mut self, addresses: TunAddresses) {
        self.tun = Some(addresses);
    }

    /// Lets a client reach a resource and makes or keeps the connection to it.
    ///
    /// # Errors
    ///
    /// [`NoRelays`] if the connection needs a relay and none is known; nothing has changed then.
    pub fn authorize(&mut self, flow: AuthorizeFlow, now: Instant) -> Result<(), NoRelays> {
        let _ = (flow, now);
        Err(NoRelays)
    }

    /// Ends a client's access to a resource.
    pub fn reject(&mut self, client: ClientId, resource: ResourceId, now: Instant) {
        let _ = (client, resource, now);
    }

    /// Replaces address and filters of a resource for every client that is authorized for it.
    pub fn update_resource(&mut self, resource: &GatewayResource, now: Instant) {
        let _ = (resource, now);
    }

    /// Makes `authorizations` the only ones (portal `init`): all others are revoked, the expiry of these is updated, and
    /// unknown ones are ignored.
    pub fn reconcile(
        &mut self,
        authorizations: &[(ClientId, ResourceId, Option<Duration>)],
        now: Instant,
    ) {
        let _ = (authorizations, now);
    }

    /// Takes the answer to [`GatewayEvent::ResolveDns`]: all addresses of both families, in any order.
    pub fn handle_resolved(
        &mut self,
        id: ResolveId,
        result: Result<Vec<IpAddr>, ResolveError>,
        now: Instant,
    ) {
        let _ = (id, result, now);
    }

    /// Takes candidates of a client (SDP form).
    pub fn add_ice_candidates(
        &mut self,
        client: ClientId,
        candidates: impl IntoIterator<Item = impl AsRef<str>>,
        now: Instant,
    ) {
        for candidate in candidates {
            self.node
                .add_remote_candidate(client, candidate.as_ref(), now);
        }
    }

    /// Drops candidates that a client has invalidated.
    pub fn remove_ice_candidates(
        &mut self,
        client: ClientId,
        candidates: impl IntoIterator<Item = impl AsRef<str>>,
        now: Instant,
    ) {
        for candidate in candidates {
            self.node
                .remove_remote_candidate(client, candidate.as_ref(), now);
        }
    }

    /// Changes the set of relays.
    pub fn update_relays(
        &mut self,
        remove: &BTreeSet<RelayId>,
        add: &[RelayConfig<RelayId>],
        now: Instant,
    ) {
        self.node.update_relays(remove, add, now);
    }

    /// Adds a local socket address that relays cannot discover (multi-homed servers).
    pub fn add_host_candidate(&mut self, address: SocketAddr, now: Instant) {
        self.node.add_host_candidate(address, now);
    }

    /// Starts over after a change of network: new key pair, no connections. Authorizations stay. The caller rebinds its
    /// sockets.
    pub fn reset(&mut self, now: Instant) {
        self.node.reset(now);
    }

    /// Says goodbye to every client. The caller flushes [`poll_transmit`](Self::poll_transmit) and stops.
    pub fn shutdown(&mut self, now: Instant) {
        self.node.close_all(Some(&crate::goodbye_packet()), now);
    }

    /// The path to a client, while one is nominated.
    pub fn path(&self, client: ClientId) -> Option<PathInfo<RelayId>> {
        self.node.path(client)
    }

    /// Counters of decisions.
    pub fn stats(&self) -> GatewayStats {
        self.stats
    }

    /// Relays that connections are bound to.
    pub fn relays_in_use(&self) -> BTreeSet<RelayId> {
        self.node.relays_in_use()
    }

    /// Counters of the connections.
    pub fn node_stats(&self) -> NodeStats {
        self.node.stats()
    }
}
