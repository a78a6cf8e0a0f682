//! Allocations by client, by port and by user name.
//!
//! Invariants: every allocation has exactly one entry in each of the three; a port belongs to at most one allocation.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Instant,
};

use connlib_stun::{ChannelNumber, Family, TransactionId};

use crate::{
    address::{AllocationPort, ClientSocket},
    hash::{SecretHash, Table},
    limit::Budget,
};

/// One relayed address, or one per family under the same port.
#[derive(Debug)]
pub(crate) struct Allocation {
    pub(crate) port: AllocationPort,
    pub(crate) families: Families,
    /// Family that was asked for in addition and does not exist here.
    pub(crate) missing: Option<Family>,
    pub(crate) username: String,
    /// The request that made it, to recognise retransmissions.
    pub(crate) created_by: TransactionId,
    pub(crate) expires_at: Instant,
    /// All its channels, those that cool down included.
    pub(crate) channels: BTreeSet<ChannelNumber>,
    /// Open profile: peers that may send without a channel, and until when.
    pub(crate) permissions: BTreeMap<IpAddr, Instant>,
    /// What it may relay, if that is limited.
    pub(crate) budget: Budget,
}

/// The families of an allocation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Families {
    V4,
    V6,
    Dual,
}

impl Families {
    pub(crate) fn contains(self, family: Family) -> bool {
        match self {
            Self::V4 => family == Family::V4,
            Self::V6 => family == Family::V6,
            Self::Dual => true,
        }
    }

    /// IPv4 first.
    pub(crate) fn iter(self) -> impl Iterator<Item = Family> {
        [Family::V4, Family::V6]
            .into_iter()
            .filter(move |family| self.contains(*family))
    }
}

#[derive(Debug)]
pub(crate) struct Allocations {
    by_client: Table<ClientSocket, Allocation>,
    by_port: Table<AllocationPort, ClientSocket>,
    /// Oldest first; entries of re-owned allocations keep their place.
    by_user: BTreeMap<String, Vec<ClientSocket>>,
}

impl Allocations {
    pub(crate) fn new(hash: &SecretHash) -> Self {
        Self {
            by_client: Table::with_hasher(hash.clone()),
            by_port: Table::with_hasher(hash.clone()),
            by_user: BTreeMap::new(),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.by_client.len()
    }

    pub(crate) fn get(&self, client: ClientSocket) -> Option<&Allocation> {
        self.by_client.get(&client)
    }

    pub(crate) fn get_mut(&mut self, client: ClientSocket) -> Option<&mut Allocation> {
        self.by_client.get_mut(&client)
    }

    pub(crate) fn client_of(&self, port: AllocationPort) -> Option<ClientSocket> {
        self.by_port.get(&port).copied()
    }

    /// The user's oldest allocation, if the user has at least `limit`.
    pub(crate) fn oldest_beyond(&self, username: &str, limit: usize) -> Option<ClientSocket> {
        let clients = self.by_user.get(username)?;
        if limit == 0 || clients.len() < limit {
            return None;
        }
        clients.first().copied()
    }

    pub(crate) fn insert(&mut self, client: ClientSocket, allocation: Allocation) {
        self.by_port.insert(allocation.port, client);
        self.by_user
            .entry(allocation.username.clone())
            .or_default()
            .push(client);
        self.by_client.insert(client, allocation);
    }

    pub(crate) fn remove(&mut self, client: ClientSocket) -> Option<Allocation> {
        let allocation = self.by_client.remove(&client)?;
        self.by_port.remove(&allocation.port);
        self.disown(&allocation.username, client);
        Some(allocation)
    }

    /// Hands an allocation to another user; returns the one before, if that changes anything.
    pub(crate) fn set_owner(&mut self, client: ClientSocket, username: &str) -> Option<String> {
        let allocation = self.by_client.get_mut(&client)?;
        if allocation.username == username {
            return None;
        }
        let previous = std::mem::replace(&mut allocation.username, username.to_owned());
        self.disown(&previous, client);
        self.by_user
            .entry(username.to_owned())
            .or_default()
            .push(client);
        Some(previous)
    }

    fn disown(&mut self, username: &str, client: ClientSocket) {
        if let Some(clients) = self.by_user.get_mut(username) {
            clients.retain(|other| *other != client);
            if clients.is_empty() {
                self.by_user.remove(username);
            }
        }
    }
}

#[cfg(test)]
impl Allocations {
    /// Panics if the tables disagree; returns clients and ports.
    pub(crate) fn check(&self) -> Vec<(ClientSocket, AllocationPort)> {
        let clients: Vec<_> = self.by_user.values().flatten().copied().collect();
        assert_eq!(clients.len(), self.by_client.len());
        assert_eq!(clients.len(), self.by_port.len());
        let ports = clients.iter().map(|client| {
            let allocation = &self.by_client[client];
            assert_eq!(self.by_port[&allocation.port], *client);
            (*client, allocation.port)
        });
        ports.collect()
    }
}
