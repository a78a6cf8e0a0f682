//! The node: all connections of one process.

mod upkeep;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use connlib_lookup::Secret;
use connlib_wireguard::{HandshakeLimiter, IndexTable, PrivateKey, PublicKey, WallClock};
use ip_packet::{Ecn, IpPacket, PacketBatch};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha20Rng;

use crate::connection::{Connection, Io, NewConnection};
use crate::events::Events;
use crate::relays::Relays;
use crate::requests::Requests;
use crate::schedule::Slot;
use crate::stats::Totals;
use crate::table::Table;
use crate::train::Whole;
use crate::transmits::Transmits;
use crate::{
    ConnectionState, DatagramSink, DecapsulateError, Decapsulated, EncapsulateError, Encapsulated,
    Event, IceCredentials, Id, NoRelays, NodeStats, PacketSink, PathInfo, RelayConfig, Role, Train,
    Transmit,
};

/// All connections of one process.
///
/// `P` identifies peers and `R` relays; both are opaque.
///
/// # Driving a node
///
/// ```text
/// loop {
///     // After every input, in this order, into the queue that `encapsulate` writes to as well:
///     while let Some(transmit) = node.poll_transmit() { queue(transmit) }
///     while let Some(event) = node.poll_event() { signal(event) }
///
///     wait until node.poll_timeout(), or for one of these:
///         a timeout      => node.handle_timeout(now)
///         a datagram     => node.decapsulate(local, from, datagram, now, out)
///         packets        => node.encapsulate(peer, batch, ecn, now, sink)
///         a message      => node.upsert_connection(..), node.add_remote_candidate(..), node.update_relays(..)
/// }
/// ```
///
/// `now` never decreases; a smaller value counts as the largest one seen. An announced instant may lie in the past, which
/// means at once; it does while transmits or events are queued. After `handle_timeout(t)` the next instant is later than `t`
/// once the queues are drained.
pub struct Node<P, R> {
    pub(crate) role: Role,
    pub(crate) now: Instant,
    pub(crate) rng: ChaCha20Rng,
    pub(crate) private: PrivateKey,
    pub(crate) limiter: HandshakeLimiter,
    clock: WallClock,
    pub(crate) indices: IndexTable,
    pub(crate) relays: Relays<R>,
    pub(crate) table: Table<P, R>,
    pub(crate) requests: Requests<P>,
    pub(crate) transmits: Transmits,
    pub(crate) events: Events<P>,
    /// Connections whose relay is gone and for which no other was at hand.
    orphans: BTreeSet<P>,
    pub(crate) totals: Totals,
}

impl<P, R> Node<P, R>
where
    P: Id,
    R: Id,
{
    /// Makes a node whose key pair and every random choice derive from `seed`.
    ///
    /// `unix_now` is the wall clock at `now`, as time since the Unix epoch; handshakes are stamped with it.
    pub fn new(role: Role, seed: [u8; 32], now: Instant, unix_now: Duration) -> Self {
        let mut rng = ChaCha20Rng::from_seed(seed);
        let private = PrivateKey::from_seed(rng.random());
        Self {
            role,
            now,
            limiter: limiter(&private, role),
            clock: WallClock::new(now, unix_now),
            private,
            indices: IndexTable::new(rng.random()),
            relays: Relays::new(rng.random()),
            rng,
            table: Table::new(Secret::from_seed(seed)),
            requests: Requests::new(),
            transmits: Transmits::default(),
            events: Events::new(),
            orphans: BTreeSet::new(),
            totals: Totals::default(),
        }
    }

    /// The same node with the key pair of this seed: nodes that share the peers of one gateway between them share its key.
    #[must_use]
    pub fn with_key_seed(mut self, key_seed: [u8; 32]) -> Self {
        self.set_key(key_seed);
        self
    }

    /// Which end of its connections this node is.
    pub fn role(&self) -> Role {
        self.role
    }

    /// The node's WireGuard key. Changes with every [`reset`](Self::reset).
    pub fn public_key(&self) -> PublicKey {
        self.private.public()
    }

    /// Makes a connection to `peer`, or keeps the existing one if key and ICE credentials are equal.
    ///
    /// A kept connection wakes up, signals all its candidates again and (client) renews its session.
    /// A replaced one vanishes without event.
    ///
    /// # Errors
    ///
    /// [`NoRelays`] if no relay is usable; nothing has changed then.
    pub fn upsert_connection(
        &mut self,
        peer: P,
        remote: PublicKey,
        psk: [u8; 32],
        local: IceCredentials,
        remote_ice: IceCredentials,
        now: Instant,
    ) -> Result<(), NoRelays> {
        let now = self.advance(now);
        let is_kept = |c: &Connection<P, R>| c.is_same(remote, &local, &remote_ice);
        if self.table.get(peer).is_some_and(is_kept) {
            tracing::debug!(%peer, "Connection is known");
            self.with_peer(peer, |connection, io| connection.refresh(psk, now, io));
            return Ok(());
        }
        let relay = self.relays.sample().ok_or(NoRelays)?;
        if self.take_out(peer).is_some() {
            tracing::info!(%peer, "Replacing connection");
        }
        let Ok(indices) = self.indices.allocate() else {
            tracing::error!("All session indices are in use");
            return Err(NoRelays);
        };
        tracing::info!(%peer, %relay, "New connection");
        let new = NewConnection {
            peer,
            role: self.role,
            remote_key: remote,
            psk,
            local,
            remote: remote_ice,
            relay,
            private: &self.private,
            clock: self.clock.next_connection(),
            indices,
            seed: self.rng.random(),
            tie_breaker: self.rng.random(),
        };
        self.requests.make_room(self.table.len() + 1);
        let mut io = Io {
            relays: &mut self.relays,
            requests: &mut self.requests,
            transmits: &mut self.transmits,
            events: &mut self.events,
        };
        let connection = Connection::new(new, now, &mut io);
        self.table.insert(connection);
        Ok(())
    }

    /// Whether there is a connection to `peer`, in whatever state.
    pub fn has_connection(&self, peer: P) -> bool {
        self.table.slot(peer).is_some()
    }

    /// State of the connection to `peer`.
    pub fn connection_state(&self, peer: P) -> Option<ConnectionState> {
        self.table.get(peer).map(Connection::state)
    }

    /// The nominated path to `peer`.
    pub fn path(&self, peer: P) -> Option<PathInfo<R>> {
        self.table.get(peer)?.path_info()
    }

    /// Relays that connections are bound to, whatever path they use.
    pub fn relays_in_use(&self) -> BTreeSet<R> {
        self.table.iter().map(Connection::relay).collect()
    }

    /// Takes a candidate of the peer (SDP form). Unparsable ones and unknown peers are ignored.
    pub fn add_remote_candidate(&mut self, peer: P, sdp: &str, now: Instant) {
        let now = self.advance(now);
        let known = self.with_peer(peer, |c, io| c.add_remote_candidate(sdp, now, io));
        if known.is_none() {
            tracing::debug!(%peer, "Candidate for unknown peer");
        }
    }

    /// Drops a candidate that the peer has invalidated.
    pub fn remove_remote_candidate(&mut self, peer: P, sdp: &str, now: Instant) {
        let now = self.advance(now);
        self.with_peer(peer, |c, io| c.remove_remote_candidate(sdp, now, io));
    }

    /// Changes the set of relays: those in `remove` go, those in `add` are taken, or replaced if they changed.
    ///
    /// Every relay that is not mentioned in `add` is asked whether it is still there.
    pub fn update_relays(&mut self, remove: &BTreeSet<R>, add: &[RelayConfig<R>], now: Instant) {
        let now = self.advance(now);
        self.relays.update(remove, add, now);
        self.relay_changes(now);
    }

    /// Adds a local socket address that relays cannot discover (multi-homed servers). Forgotten by [`reset`](Self::reset).
    pub fn add_host_candidate(&mut self, addr: SocketAddr, now: Instant) {
        let now = self.advance(now);
        let Some(candidate) = self.relays.add_host(addr) else {
            return;
        };
        for slot in self.table.slots() {
            self.with_slot(slot, |c, io| c.add_local_candidate(&candidate, now, io));
        }
    }

    /// Seals every packet of `batch` onto the peer's path, straight into `sink`.
    ///
    /// # Errors
    ///
    /// [`EncapsulateError::UnknownPeer`]; no packet was taken from the batch then.
    pub fn encapsulate(
        &mut self,
        peer: P,
        batch: &mut impl PacketBatch,
        ecn: Ecn,
        now: Instant,
        sink: &mut impl DatagramSink,
    ) -> Result<Encapsulated, EncapsulateError> {
        let now = self.advance(now);
        self.with_peer(peer, |c, io| c.encapsulate(batch, ecn, now, io, sink))
            .ok_or(EncapsulateError::UnknownPeer)
    }

    /// Takes one datagram that arrived on the socket `local` from `from`.
    ///
    /// `out` receives the plaintext and must be at least as long as the datagram.
    ///
    /// # Errors
    ///
    /// The datagram was dropped; the node goes on as before.
    #[inline]
    pub fn decapsulate(
        &mut self,
        local: SocketAddr,
        from: SocketAddr,
        datagram: &[u8],
        now: Instant,
        out: &mut [u8],
    ) -> Result<Decapsulated<P>, DecapsulateError> {
        self.decapsulate_train(
            local,
            from,
            &mut Train::single(datagram),
            now,
            &mut Whole(out),
        )
    }

    /// Takes datagrams from the front of `train`, which arrived on the socket `local` from `from`: one at least, and the
    /// ones behind it as long as they belong to the same connection and `sink` takes their packets. The result is about
    /// the last of them; if `sink` took that too, it counts as consumed.
    ///
    /// # Errors
    ///
    /// The last of the datagrams was dropped; the node goes on as before.
    #[inline]
    pub fn decapsulate_train(
        &mut self,
        local: SocketAddr,
        from: SocketAddr,
        train: &mut Train<'_>,
        now: Instant,
        sink: &mut impl PacketSink<P>,
    ) -> Result<Decapsulated<P>, DecapsulateError> {
        let now = self.advance(now);
        let result = self.dispatch(local, from, train, now, sink);
        if result.is_err() {
            self.totals.datagrams_rejected += 1;
        }
        result
    }

    /// Does everything that is due at `now`.
    pub fn handle_timeout(&mut self, now: Instant) {
        let now = self.advance(now);
        self.relays.handle_timeout(now);
        self.pass_on_candidates(now);
        for slot in self.table.due(now) {
            self.time_out(slot, now);
        }
        // A channel that a connection has just used for the first time in minutes may be due for its refresh.
        self.relays.handle_timeout(now);
        self.relay_changes(now);
    }

    /// When [`handle_timeout`](Self::handle_timeout) must be called next, and why.
    pub fn poll_timeout(&mut self) -> Option<(Instant, &'static str)> {
        if !self.transmits.is_empty() {
            return Some((self.now, "queued transmit"));
        }
        if !self.events.is_empty() {
            return Some((self.now, "queued event"));
        }
        let connections = self.table.poll_timeout();
        let relays = self.relays.poll_timeout();
        relays
            .into_iter()
            .chain(connections)
            .min_by_key(|(at, _)| *at)
    }

    /// Whether [`poll_transmit`](Self::poll_transmit) or [`poll_event`](Self::poll_event) has something. Cheap enough for
    /// every packet.
    #[inline]
    pub fn has_output(&self) -> bool {
        !self.transmits.is_empty() || !self.events.is_empty()
    }

    /// The next datagram for the network.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        self.transmits.pop()
    }

    /// The next event.
    pub fn poll_event(&mut self) -> Option<Event<P>> {
        self.events.pop()
    }

    /// Closes the connection to `peer`: seals `goodbye` onto its path if there is one (best effort).
    pub fn close(&mut self, peer: P, goodbye: Option<&IpPacket>, now: Instant) {
        let now = self.advance(now);
        if let Some(packet) = goodbye {
            self.with_peer(peer, |c, io| c.say_goodbye(packet, now, io));
        }
        self.drop_closed(peer);
    }

    /// Closes every connection.
    pub fn close_all(&mut self, goodbye: Option<&IpPacket>, now: Instant) {
        for peer in self.table.peers() {
            self.close(peer, goodbye, now);
        }
    }

    /// Ends everything: closes every connection and gives the allocations back. The caller sends what
    /// [`Self::poll_transmit`] yields and drops the node.
    pub fn shutdown(&mut self, goodbye: Option<&IpPacket>, now: Instant) {
        self.close_all(goodbye, now);
        self.relays.release(now);
        self.relays.drain_transmits(&mut self.transmits);
    }

    /// Drops the connection to `peer` without a word (the peer said goodbye).
    pub fn remove(&mut self, peer: P, now: Instant) {
        self.advance(now);
        self.drop_closed(peer);
    }

    /// Starts over after a change of network: closes all connections, makes a new key pair and restarts every allocation.
    ///
    /// The caller must rebind its sockets to new ports first: a relay that still knows the old ones would refuse.
    pub fn reset(&mut self, now: Instant) {
        let key_seed = self.rng.random();
        self.reset_with_key_seed(key_seed, now);
    }

    /// [`reset`](Self::reset) to the key pair of this seed.
    pub fn reset_with_key_seed(&mut self, key_seed: [u8; 32], now: Instant) {
        let now = self.advance(now);
        self.transmits.clear();
        self.close_all(None, now);
        self.requests.clear();
        self.set_key(key_seed);
        self.relays.reset(now);
        self.relays.drain_transmits(&mut self.transmits);
    }

    fn set_key(&mut self, key_seed: [u8; 32]) {
        self.private = PrivateKey::from_seed(key_seed);
        self.limiter = limiter(&self.private, self.role);
    }

    /// Counters.
    pub fn stats(&self) -> NodeStats {
        self.totals.with(self.table.iter(), self.relays.len())
    }

    #[inline]
    pub(crate) fn advance(&mut self, now: Instant) -> Instant {
        self.now = self.now.max(now);
        self.now
    }

    /// Changes one connection.
    #[inline]
    pub(crate) fn with_slot<T>(
        &mut self,
        slot: Slot,
        change: impl FnOnce(&mut Connection<P, R>, &mut Io<'_, P, R>) -> T,
    ) -> Option<T> {
        let connection = self.table.touch(slot)?;
        let mut io = Io {
            relays: &mut self.relays,
            requests: &mut self.requests,
            transmits: &mut self.transmits,
            events: &mut self.events,
        };
        Some(change(connection, &mut io))
    }

    #[inline]
    fn with_peer<T>(
        &mut self,
        peer: P,
        change: impl FnOnce(&mut Connection<P, R>, &mut Io<'_, P, R>) -> T,
    ) -> Option<T> {
        let slot = self.table.slot(peer)?;
        self.with_slot(slot, change)
    }
}

fn limiter(private: &PrivateKey, role: Role) -> HandshakeLimiter {
    let role = match role {
        Role::Client => connlib_wireguard::Role::Initiator,
        Role::Gateway => connlib_wireguard::Role::Responder,
    };
    HandshakeLimiter::new(private, role)
}
