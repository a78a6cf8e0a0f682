//! Stateful filter of one edge (RFC 4787 §5), for both address families.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    time::{Duration, Instant},
};

use super::Filtering;
use crate::tuple::{Transport, Tuple};

/// Entries above this are dropped oldest-use-first on insert, so that a port scan cannot fill memory.
const MAX_ENTRIES: usize = 65_536;

#[derive(Debug)]
pub(super) struct Filter {
    filtering: Option<Filtering>,
    idle_expiry: Duration,
    /// (transport, inner socket) and remote, as far as the filtering compares it → last outbound packet.
    entries: BTreeMap<(Transport, SocketAddr, Option<SocketAddr>), Instant>,
}

impl Filter {
    pub(super) fn new(filtering: Option<Filtering>, idle_expiry: Duration) -> Self {
        Self {
            filtering,
            idle_expiry,
            entries: BTreeMap::new(),
        }
    }

    /// Notes a packet from inside.
    pub(super) fn outbound(&mut self, tuple: &Tuple, now: Instant) {
        let Some(filtering) = self.filtering else {
            return;
        };
        if self.entries.len() >= MAX_ENTRIES {
            self.evict(now);
        }
        let remote = comparable(filtering, tuple.remote_of_outbound());
        self.entries
            .insert((tuple.transport, tuple.source, remote), now);
    }

    /// Whether a packet from outside (inner destination already known) may pass.
    pub(super) fn permits(&self, tuple: &Tuple, now: Instant) -> bool {
        let Some(filtering) = self.filtering else {
            return true;
        };
        let remote = comparable(filtering, tuple.remote_of_inbound());
        self.entries
            .get(&(tuple.transport, tuple.destination, remote))
            .is_some_and(|last| now.duration_since(*last) < self.idle_expiry)
    }

    fn evict(&mut self, now: Instant) {
        let expiry = self.idle_expiry;
        self.entries
            .retain(|_, last| now.duration_since(*last) < expiry);
        if self.entries.len() < MAX_ENTRIES {
            return;
        }
        let oldest = self
            .entries
            .iter()
            .min_by_key(|(_, last)| **last)
            .map(|(key, _)| *key);
        if let Some(key) = oldest {
            self.entries.remove(&key);
        }
    }
}

fn comparable(filtering: Filtering, remote: SocketAddr) -> Option<SocketAddr> {
    match filtering {
        Filtering::Open => None,
        Filtering::AddressRestricted => Some(SocketAddr::new(remote.ip(), 0)),
        Filtering::PortRestricted => Some(remote),
    }
}
