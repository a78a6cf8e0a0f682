//! All connections and the indices that find them.
//!
//! Insertion and removal here are the only places where an index changes, so that no index ever names a connection that is
//! gone.

use std::collections::BTreeMap;
use std::time::Instant;

use connlib_lookup::Secret;
use connlib_wireguard::PublicKey;

use crate::connection::Connection;
use crate::schedule::{Schedule, Slot};
use crate::{IceCredentials, Id};

/// Connections by slot, with secondary indices.
pub(crate) struct Table<P, R> {
    slots: Vec<Option<Connection<P, R>>>,
    free: Vec<Slot>,
    by_peer: connlib_lookup::Table<P, Slot>,
    by_index: connlib_lookup::Table<u32, Slot>,
    /// The order in which all connections are visited.
    order: BTreeMap<P, Slot>,
    by_key: BTreeMap<PublicKey, Slot>,
    by_username: BTreeMap<String, Slot>,
    schedule: Schedule,
}

impl<P: Id, R: Id> Table<P, R> {
    pub(crate) fn new(secret: Secret) -> Self {
        Self {
            slots: Vec::new(),
            free: Vec::new(),
            by_peer: secret.table(),
            by_index: secret.table(),
            order: BTreeMap::new(),
            by_key: BTreeMap::new(),
            by_username: BTreeMap::new(),
            schedule: Schedule::default(),
        }
    }

    /// How many connections there are.
    pub(crate) fn len(&self) -> usize {
        self.order.len()
    }

    /// Puts a connection in. There must be none to the same peer.
    pub(crate) fn insert(&mut self, connection: Connection<P, R>) -> Slot {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            self.slots.len() - 1
        });
        let previous = self.by_peer.insert(connection.peer(), slot);
        debug_assert!(previous.is_none(), "one connection per peer");
        self.order.insert(connection.peer(), slot);
        for index in connection.indices() {
            self.by_index.insert(index.get(), slot);
        }
        self.by_key.insert(connection.remote_key(), slot);
        self.by_username
            .insert(username(connection.local(), connection.remote()), slot);
        self.slots[slot] = Some(connection);
        self.schedule.invalidate(slot);
        slot
    }

    /// Takes a connection out.
    pub(crate) fn remove(&mut self, peer: P) -> Option<Connection<P, R>> {
        let slot = self.by_peer.remove(&peer)?;
        self.order.remove(&peer);
        let connection = self.slots[slot].take()?;
        for index in connection.indices() {
            self.by_index.remove(&index.get());
        }
        // Another connection may have come under the same key or user name since.
        let key = connection.remote_key();
        if self.by_key.get(&key) == Some(&slot) {
            self.by_key.remove(&key);
        }
        let name = username(connection.local(), connection.remote());
        if self.by_username.get(&name) == Some(&slot) {
            self.by_username.remove(&name);
        }
        self.schedule.invalidate(slot);
        self.free.push(slot);
        Some(connection)
    }

    pub(crate) fn slot(&self, peer: P) -> Option<Slot> {
        self.by_peer.get(&peer).copied()
    }

    pub(crate) fn get(&self, peer: P) -> Option<&Connection<P, R>> {
        self.slots[self.slot(peer)?].as_ref()
    }

    /// The connection in `slot`, to be changed: its deadline is recomputed afterwards.
    #[inline]
    pub(crate) fn touch(&mut self, slot: Slot) -> Option<&mut Connection<P, R>> {
        self.schedule.invalidate(slot);
        self.slots.get_mut(slot)?.as_mut()
    }

    /// The connection that owns a WireGuard receiver index (upper 24 bits).
    #[inline]
    pub(crate) fn slot_by_index(&self, index: u32) -> Option<Slot> {
        self.by_index.get(&index).copied()
    }

    /// The connection whose peer has this static key.
    pub(crate) fn slot_by_key(&self, key: PublicKey) -> Option<Slot> {
        self.by_key.get(&key).copied()
    }

    /// The connection that a check with this USERNAME (`ours:theirs`) is for.
    ///
    /// User fragments are only 20 bits, so a gateway may have two equal ones; the pair tells them apart.
    pub(crate) fn slot_by_username(&self, username: &str) -> Option<Slot> {
        self.by_username.get(username).copied()
    }

    /// All peers in order.
    pub(crate) fn peers(&self) -> Vec<P> {
        self.order.keys().copied().collect()
    }

    /// All slots in order of peer.
    pub(crate) fn slots(&self) -> Vec<Slot> {
        self.order.values().copied().collect()
    }

    /// All connections in order of peer.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Connection<P, R>> {
        self.order
            .values()
            .filter_map(|slot| self.slots[*slot].as_ref())
    }

    /// Slots of connections that have something to do at `now`.
    pub(crate) fn due(&mut self, now: Instant) -> Vec<Slot> {
        self.recompute();
        self.schedule.due(now)
    }

    /// The earliest deadline of any connection, and why.
    pub(crate) fn poll_timeout(&mut self) -> Option<(Instant, &'static str)> {
        self.recompute();
        let (at, slot) = self.schedule.first()?;
        let reason = self.slots[slot]
            .as_ref()
            .and_then(Connection::deadline)
            .map_or("connection", |(_, reason)| reason);
        Some((at, reason))
    }

    fn recompute(&mut self) {
        while let Some(slot) = self.schedule.pop_stale() {
            let deadline = self.slots.get(slot).and_then(Option::as_ref);
            let deadline = deadline.and_then(Connection::deadline).map(|(at, _)| at);
            self.schedule.announce(slot, deadline);
        }
    }
}

fn username(local: &IceCredentials, remote: &IceCredentials) -> String {
    format!("{}:{}", local.ufrag(), remote.ufrag())
}
