//! All clients: by id, by TUN address, and by the instant at which something of theirs ends.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Instant;

use connlib_lookup::{AddressKey, Secret, Table};
use connlib_model::ClientId;

use super::TunAddresses;
use super::peer::ClientPeer;
use crate::unix_time::UnixClock;

/// All clients that are authorized for something.
#[derive(Debug)]
pub(super) struct Peers {
    peers: Table<ClientId, ClientPeer>,
    by_address: Table<AddressKey, ClientId>,
    /// The order in which all clients are visited.
    order: BTreeSet<ClientId>,
    /// At most one entry per client, never later than its next deadline.
    deadlines: BTreeSet<(Instant, ClientId)>,
    secret: Secret,
}

impl Peers {
    /// Nobody.
    pub(super) fn new(secret: Secret) -> Self {
        Self {
            peers: secret.table(),
            by_address: secret.table(),
            order: BTreeSet::new(),
            deadlines: BTreeSet::new(),
            secret,
        }
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.peers.len()
    }

    /// The client with this TUN address.
    pub(super) fn client_at(&self, address: IpAddr) -> Option<ClientId> {
        self.by_address.get(&address.into()).copied()
    }

    /// A client's state. Whoever changes it calls [`reschedule`](Self::reschedule).
    pub(super) fn get_mut(&mut self, client: ClientId) -> Option<&mut ClientPeer> {
        self.peers.get_mut(&client)
    }

    /// A client's state, made if it is not there, with these addresses. The newest owner of an address has it.
    pub(super) fn upsert(&mut self, client: ClientId, addresses: TunAddresses) -> &mut ClientPeer {
        if let Some(peer) = self.peers.get(&client)
            && peer.addresses != addresses
        {
            release(&mut self.by_address, client, peer.addresses);
        }
        for address in keys(addresses) {
            self.by_address.insert(address, client);
        }
        self.order.insert(client);
        let peer = self
            .peers
            .entry(client)
            .or_insert_with(|| ClientPeer::new(addresses, self.secret));
        peer.addresses = addresses;
        peer
    }

    /// Somebody who is not known here owns these addresses now.
    pub(super) fn release_addresses(&mut self, addresses: TunAddresses) {
        for address in keys(addresses) {
            self.by_address.remove(&address);
        }
    }

    /// Forgets a client. Returns whether there was one.
    pub(super) fn remove(&mut self, client: ClientId) -> bool {
        let Some(peer) = self.peers.remove(&client) else {
            return false;
        };
        self.order.remove(&client);
        release(&mut self.by_address, client, peer.addresses);
        if let Some(at) = peer.scheduled_at {
            self.deadlines.remove(&(at, client));
        }
        true
    }

    /// Visits all clients in the order of their ids. Whoever changes one calls [`reschedule`](Self::reschedule).
    pub(super) fn for_each(&mut self, mut visit: impl FnMut(ClientId, &mut ClientPeer)) {
        for client in &self.order {
            if let Some(peer) = self.peers.get_mut(client) {
                visit(*client, peer);
            }
        }
    }

    /// The ids of all clients, in order.
    pub(super) fn clients(&self) -> Vec<ClientId> {
        self.order.iter().copied().collect()
    }

    /// Does something with a client's state, and brings forward its place in the queue of deadlines if its next one has
    /// become earlier. `None` for an unknown client.
    pub(super) fn with<T>(
        &mut self,
        client: ClientId,
        clock: UnixClock,
        act: impl FnOnce(&mut ClientPeer) -> T,
    ) -> Option<T> {
        let peer = self.peers.get_mut(&client)?;
        let result = act(peer);
        if let Some(deadline) = peer.poll_timeout(clock)
            && peer.scheduled_at.is_none_or(|at| deadline < at)
        {
            if let Some(at) = peer.scheduled_at.replace(deadline) {
                self.deadlines.remove(&(at, client));
            }
            self.deadlines.insert((deadline, client));
        }
        Some(result)
    }

    /// The same for changes that were made before.
    pub(super) fn reschedule(&mut self, client: ClientId, clock: UnixClock) {
        self.with(client, clock, |_| ());
    }

    /// Takes the next client with something due at `now` out of the queue. The caller handles it and calls
    /// [`reschedule`](Self::reschedule).
    pub(super) fn pop_due(&mut self, now: Instant) -> Option<ClientId> {
        let (at, client) = *self.deadlines.first()?;
        if at > now {
            return None;
        }
        self.deadlines.pop_first();
        if let Some(peer) = self.peers.get_mut(&client) {
            peer.scheduled_at = None;
        }
        Some(client)
    }

    /// When [`pop_due`](Self::pop_due) yields something next.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.deadlines.first().map(|(at, _)| *at)
    }
}

fn keys(addresses: TunAddresses) -> [AddressKey; 2] {
    [IpAddr::V4(addresses.v4), IpAddr::V6(addresses.v6)].map(AddressKey::from)
}

fn release(index: &mut Table<AddressKey, ClientId>, client: ClientId, addresses: TunAddresses) {
    for address in keys(addresses) {
        if index.get(&address) == Some(&client) {
            index.remove(&address);
        }
    }
}
