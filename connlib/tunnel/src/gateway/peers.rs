//! All clients: by id, by TUN address, and by the instant at which something of theirs ends.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Instant;

use connlib_model::ClientId;

use super::TunAddresses;
use super::peer::ClientPeer;
use crate::unix_time::UnixClock;

/// All clients that are authorized for something.
#[derive(Debug, Default)]
pub(super) struct Peers {
    peers: BTreeMap<ClientId, ClientPeer>,
    by_address: BTreeMap<IpAddr, ClientId>,
    /// At most one entry per client, never later than its next deadline.
    deadlines: BTreeSet<(Instant, ClientId)>,
}

impl Peers {
    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.peers.len()
    }

    /// The client with this TUN address.
    pub(super) fn client_at(&self, address: IpAddr) -> Option<ClientId> {
        self.by_address.get(&address).copied()
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
        for address in [addresses.v4.into(), addresses.v6.into()] {
            self.by_address.insert(address, client);
        }
        let peer = self
            .peers
            .entry(client)
            .or_insert_with(|| ClientPeer::new(addresses));
        peer.addresses = addresses;
        peer
    }

    /// Somebody who is not known here owns these addresses now.
    pub(super) fn release_addresses(&mut self, addresses: TunAddresses) {
        for address in [addresses.v4.into(), addresses.v6.into()] {
            self.by_address.remove(&address);
        }
    }

    /// Forgets a client. Returns whether there was one.
    pub(super) fn remove(&mut self, client: ClientId) -> bool {
        let Some(peer) = self.peers.remove(&client) else {
            return false;
        };
        release(&mut self.by_address, client, peer.addresses);
        if let Some(at) = peer.scheduled_at {
            self.deadlines.remove(&(at, client));
        }
        true
    }

    /// All clients in the order of their ids. Whoever changes one calls [`reschedule`](Self::reschedule).
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (ClientId, &mut ClientPeer)> {
        self.peers.iter_mut().map(|(client, peer)| (*client, peer))
    }

    /// The ids of all clients, in order.
    pub(super) fn clients(&self) -> Vec<ClientId> {
        self.peers.keys().copied().collect()
    }

    /// Brings forward the client's place in the queue of deadlines, if its next one has become earlier.
    pub(super) fn reschedule(&mut self, client: ClientId, clock: UnixClock) {
        let Some(peer) = self.peers.get_mut(&client) else {
            return;
        };
        let Some(deadline) = peer.poll_timeout(clock) else {
            return;
        };
        if peer.scheduled_at.is_some_and(|at| at <= deadline) {
            return;
        }
        if let Some(at) = peer.scheduled_at.replace(deadline) {
            self.deadlines.remove(&(at, client));
        }
        self.deadlines.insert((deadline, client));
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

fn release(index: &mut BTreeMap<IpAddr, ClientId>, client: ClientId, addresses: TunAddresses) {
    for address in [addresses.v4.into(), addresses.v6.into()] {
        if index.get(&address) == Some(&client) {
            index.remove(&address);
        }
    }
}
