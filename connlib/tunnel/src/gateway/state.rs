//! The gateway state machine: entry points, deadlines and events.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use connlib_cover::cover;
use connlib_lookup::Secret;
use connlib_model::{ClientId, GatewayResource, RelayId, ResourceId};
use connlib_snownet::{
    Event, NoRelays, Node, NodeStats, PathInfo, PublicKey, RelayConfig, Role, Transmit,
};

use super::flow_cache::FlowCache;
use super::names::Lookups;
use super::peers::Peers;
use super::{AuthorizeFlow, GatewayEvent, GatewayStats, ResolveError, TunAddresses};
use crate::p2p_control::goodbye_packet;
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
    pub(super) node: Node<ClientId, RelayId>,
    pub(super) clock: UnixClock,
    /// `None` until the portal has told them.
    pub(super) tun: Option<TunAddresses>,
    pub(super) peers: Peers,
    pub(super) lookups: Lookups,
    pub(super) flows: FlowCache,
    /// Sealed here, in front of whatever the node has queued since.
    pub(super) transmits: VecDeque<Transmit>,
    pub(super) events: VecDeque<GatewayEvent>,
    /// When the newest output was made.
    pub(super) output_at: Instant,
    pub(super) stats: GatewayStats,
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
            peers: Peers::new(Secret::from_seed(seed)),
            lookups: Lookups::default(),
            flows: FlowCache::default(),
            transmits: VecDeque::new(),
            events: VecDeque::new(),
            output_at: now,
            stats: GatewayStats::default(),
        }
    }

    /// The same gateway with the key pair of this seed, for one of several that share the clients between them.
    #[must_use]
    pub fn with_key_seed(mut self, key_seed: [u8; 32]) -> Self {
        self.node = self.node.with_key_seed(key_seed);
        self
    }

    /// The WireGuard key that the portal hands to clients. Changes with [`reset`](Self::reset).
    pub fn public_key(&self) -> PublicKey {
        self.node.public_key()
    }

    /// Does everything that is due at `now`.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.flows.invalidate();
        self.node.handle_timeout(now);
        while let Some(lookup) = self.lookups.next_timed_out(now) {
            self.finish_lookup(lookup, Err(ResolveError::TimedOut), now);
        }
        while let Some(client) = self.peers.pop_due(now) {
            self.handle_client_timeout(client, now);
        }
    }

    /// When [`handle_timeout`](Self::handle_timeout) must be called next.
    ///
    /// An instant that has already been reached while output waits to be polled.
    pub fn poll_timeout(&mut self) -> Option<Instant> {
        if !self.events.is_empty() || !self.transmits.is_empty() {
            return Some(self.output_at);
        }
        let node = self.node.poll_timeout().map(|(at, _)| at);
        [node, self.lookups.poll_timeout(), self.peers.poll_timeout()]
            .into_iter()
            .flatten()
            .min()
    }

    /// The next datagram for the network.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        self.transmits
            .pop_front()
            .or_else(|| self.node.poll_transmit())
    }

    /// The next event.
    pub fn poll_event(&mut self) -> Option<GatewayEvent> {
        if self.events.is_empty() {
            self.drain_node_events();
        }
        self.events.pop_front()
    }

    /// Tells the gateway its own TUN addresses (portal `init`).
    pub fn set_interface(&mut self, addresses: TunAddresses) {
        self.flows.invalidate();
        self.tun = Some(addresses);
    }

    /// Lets a client reach a resource and makes or keeps the connection to it.
    ///
    /// # Errors
    ///
    /// [`NoRelays`] if the connection needs a relay and none is known; nothing has changed then.
    pub fn authorize(&mut self, flow: AuthorizeFlow, now: Instant) -> Result<(), NoRelays> {
        self.node.upsert_connection(
            flow.client,
            flow.client_key,
            flow.preshared_key,
            flow.gateway_ice,
            flow.client_ice,
            now,
        )?;
        tracing::info!(client = %flow.client, resource = %flow.resource.id(), expires_at = ?flow.expires_at, "Access allowed");
        self.flows.invalidate();
        let addresses = TunAddresses {
            v4: flow.client_ipv4,
            v6: flow.client_ipv6,
        };
        let peer = self.peers.upsert(flow.client, addresses);
        peer.access.authorize(&flow.resource, flow.expires_at);
        if peer.set_key(flow.client_key) {
            self.lookups.forget(flow.client);
        }
        self.reschedule(flow.client);
        Ok(())
    }

    /// Ends a client's access to a resource.
    pub fn reject(&mut self, client: ClientId, resource: ResourceId, now: Instant) {
        self.flows.invalidate();
        let Some(peer) = self.peers.get_mut(client) else {
            return;
        };
        if peer.access.revoke(resource) {
            tracing::info!(%client, %resource, "Access revoked");
            cover!("acl/revoked-others-left" if !peer.access.is_empty());
        }
        self.remove_if_unauthorized(client, now);
    }

    /// Replaces address and filters of a resource for every client that is authorized for it.
    ///
    /// A change of kind is ignored. `now` is not used yet: an update never ends access.
    pub fn update_resource(&mut self, resource: &GatewayResource, _now: Instant) {
        self.flows.invalidate();
        self.peers.for_each(|client, peer| {
            if peer.access.update(resource) {
                tracing::debug!(%client, resource = %resource.id(), "Resource updated");
            }
        });
    }

    /// Makes `authorizations` the only ones (portal `init`): all others are revoked, the expiry of these is updated, and
    /// unknown ones are ignored.
    pub fn reconcile(
        &mut self,
        authorizations: &[(ClientId, ResourceId, Option<Duration>)],
        now: Instant,
    ) {
        self.flows.invalidate();
        let listed: BTreeMap<_, _> = authorizations
            .iter()
            .map(|(client, resource, expires_at)| ((*client, *resource), *expires_at))
            .collect();
        self.peers.for_each(|client, peer| {
            let revoked = peer
                .access
                .retain(|resource| listed.contains_key(&(client, resource)));
            for resource in revoked {
                tracing::info!(%client, %resource, "Access revoked while the portal was away");
            }
        });
        for ((client, resource), expires_at) in listed {
            if let Some(peer) = self.peers.get_mut(client) {
                peer.access.set_expiry(resource, expires_at);
            }
        }
        for client in self.peers.clients() {
            self.reschedule(client);
            self.remove_if_unauthorized(client, now);
        }
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
        self.flows.invalidate();
        self.node.reset(now);
        self.transmits.clear();
    }

    /// [`reset`](Self::reset) to the key pair of this seed.
    pub fn reset_with_key_seed(&mut self, key_seed: [u8; 32], now: Instant) {
        self.flows.invalidate();
        self.node.reset_with_key_seed(key_seed, now);
        self.transmits.clear();
    }

    /// Another of several gateways that share the clients has the owner of these addresses now.
    pub fn release_addresses(&mut self, addresses: TunAddresses) {
        self.flows.invalidate();
        self.peers.release_addresses(addresses);
    }

    /// Says goodbye to every client and gives allocations on relays back. The caller flushes [`poll_transmit`](Self::poll_transmit) and stops.
    pub fn shutdown(&mut self, now: Instant) {
        self.node.shutdown(Some(&goodbye_packet()), now);
    }

    /// The path to a client, while one is nominated.
    pub fn path(&self, client: ClientId) -> Option<PathInfo<RelayId>> {
        self.node.path(client)
    }

    /// Counters of decisions.
    pub fn stats(&self) -> GatewayStats {
        self.stats
    }

    /// Clients that are authorized for something.
    pub fn client_count(&self) -> usize {
        self.peers.len()
    }

    /// Relays that connections are bound to.
    pub fn relays_in_use(&self) -> BTreeSet<RelayId> {
        self.node.relays_in_use()
    }

    /// Counters of the connections.
    pub fn node_stats(&self) -> NodeStats {
        self.node.stats()
    }

    pub(super) fn reschedule(&mut self, client: ClientId) {
        self.peers.reschedule(client, self.clock);
    }

    fn handle_client_timeout(&mut self, client: ClientId, now: Instant) {
        let Some(peer) = self.peers.get_mut(client) else {
            return;
        };
        peer.handle_timeout(now);
        for resource in peer.access.expire(self.clock.unix_at(now)) {
            tracing::info!(%client, %resource, "Access expired");
            cover!("acl/expired");
        }
        self.reschedule(client);
        self.remove_if_unauthorized(client, now);
    }

    /// Says goodbye to a client whose last authorization has ended.
    fn remove_if_unauthorized(&mut self, client: ClientId, now: Instant) {
        let is_unauthorized = self
            .peers
            .get_mut(client)
            .is_some_and(|peer| peer.access.is_empty());
        if is_unauthorized {
            cover!("acl/last-revoked");
            self.peers.remove(client);
            self.node.close(client, Some(&goodbye_packet()), now);
        }
    }

    /// Turns what the node reports into events: one per client and kind.
    fn drain_node_events(&mut self) {
        let mut added = Candidates::new();
        let mut removed = Candidates::new();
        let mut no_relays = false;
        while let Some(event) = self.node.poll_event() {
            match event {
                Event::NewIceCandidate { peer, sdp } => {
                    supersede(&mut removed, &mut added, peer, sdp)
                }
                Event::InvalidateIceCandidate { peer, sdp } => {
                    supersede(&mut added, &mut removed, peer, sdp);
                }
                Event::ConnectionEstablished(client) => {
                    tracing::info!(%client, "Connection established");
                }
                Event::ConnectionFailed(client) => tracing::info!(%client, "Connection failed"),
                Event::ConnectionClosed(client) => tracing::info!(%client, "Connection closed"),
                // Packets of a gateway wait for half a round trip at most.
                Event::Undelivered { .. } => {}
                Event::NoRelays => no_relays = true,
            }
        }
        let removed = removed
            .into_iter()
            .map(|(client, candidates)| GatewayEvent::RemovedIceCandidates { client, candidates });
        let added = added
            .into_iter()
            .map(|(client, candidates)| GatewayEvent::AddedIceCandidates { client, candidates });
        self.events.extend(removed.chain(added));
        self.events
            .extend(no_relays.then_some(GatewayEvent::NoRelays));
    }
}

/// Candidates per client.
type Candidates = BTreeMap<ClientId, BTreeSet<String>>;

/// Notes a candidate in `into`, unless it cancels what is noted in `opposite`.
fn supersede(opposite: &mut Candidates, into: &mut Candidates, client: ClientId, sdp: String) {
    let cancels = opposite
        .get_mut(&client)
        .is_some_and(|candidates| candidates.remove(&sdp));
    if !cancels {
        into.entry(client).or_default().insert(sdp);
    }
}
