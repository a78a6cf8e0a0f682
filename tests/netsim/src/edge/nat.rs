//! Address translation of one edge (RFC 4787 §4).

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr},
    time::{Duration, Instant},
};

use rand::Rng;
use rand_chacha::ChaCha20Rng;

use super::InboundRefresh;
use crate::tuple::{Transport, Tuple};

/// Lowest public port handed out when the inner port is taken or the NAT is symmetric.
const FIRST_DYNAMIC_PORT: u16 = 1024;

/// What a mapping belongs to: the inner socket and, for a symmetric NAT, the destination.
type InnerKey = (Transport, SocketAddr, Option<SocketAddr>);

#[derive(Debug)]
pub(super) struct Nat {
    public: Ipv4Addr,
    per_destination: bool,
    idle_expiry: Duration,
    inbound_refresh: InboundRefresh,
    mappings: BTreeMap<InnerKey, Mapping>,
    by_public_port: BTreeMap<(Transport, u16), InnerKey>,
}

#[derive(Debug)]
struct Mapping {
    port: u16,
    last_used: Instant,
}

impl Nat {
    pub(super) fn new(
        public: Ipv4Addr,
        per_destination: bool,
        idle_expiry: Duration,
        inbound_refresh: InboundRefresh,
    ) -> Self {
        Self {
            public,
            per_destination,
            idle_expiry,
            inbound_refresh,
            mappings: BTreeMap::new(),
            by_public_port: BTreeMap::new(),
        }
    }

    pub(super) fn public(&self) -> Ipv4Addr {
        self.public
    }

    /// The public socket for a packet from inside, made on demand; `None` if no port is left.
    pub(super) fn outbound(
        &mut self,
        tuple: &Tuple,
        now: Instant,
        rng: &mut ChaCha20Rng,
    ) -> Option<SocketAddr> {
        let key = self.key(tuple);
        if let Some(mapping) = self.mappings.get_mut(&key) {
            let expired = now.duration_since(mapping.last_used) >= self.idle_expiry;
            if !expired || !self.per_destination {
                mapping.last_used = now;
                return Some(SocketAddr::new(self.public.into(), mapping.port));
            }
            self.by_public_port.remove(&(key.0, mapping.port));
        }

        let port = self.free_port(&key, now, rng)?;
        self.by_public_port.insert((key.0, port), key);
        self.mappings.insert(
            key,
            Mapping {
                port,
                last_used: now,
            },
        );
        Some(SocketAddr::new(self.public.into(), port))
    }

    /// The inner socket that a public port belongs to, if its mapping is alive.
    pub(super) fn inbound(&mut self, tuple: &Tuple, now: Instant) -> Option<SocketAddr> {
        let key = self
            .by_public_port
            .get(&(tuple.transport, tuple.destination.port()))?;
        if key
            .2
            .is_some_and(|remote| remote != tuple.remote_of_inbound())
        {
            return None;
        }
        let mapping = self.mappings.get_mut(key)?;
        if now.duration_since(mapping.last_used) >= self.idle_expiry {
            return None;
        }
        if self.inbound_refresh == InboundRefresh::Yes {
            mapping.last_used = now;
        }
        Some(key.1)
    }

    fn key(&self, tuple: &Tuple) -> InnerKey {
        let destination = self.per_destination.then_some(tuple.remote_of_outbound());
        (tuple.transport, tuple.source, destination)
    }

    /// A cone NAT keeps the inner port where it can; a symmetric one draws.
    fn free_port(&mut self, key: &InnerKey, now: Instant, rng: &mut ChaCha20Rng) -> Option<u16> {
        if !self.per_destination && self.is_free(key.0, key.1.port(), now) {
            return Some(key.1.port());
        }
        let span = u32::from(u16::MAX - FIRST_DYNAMIC_PORT) + 1;
        let start = rng.random_range(0..span);
        (0..span)
            .map(|i| FIRST_DYNAMIC_PORT + ((start + i) % span) as u16)
            .find(|port| self.is_free(key.0, *port, now))
    }

    fn is_free(&mut self, transport: Transport, port: u16, now: Instant) -> bool {
        let Some(owner) = self.by_public_port.get(&(transport, port)) else {
            return true;
        };
        let expired = self
            .mappings
            .get(owner)
            .is_none_or(|m| now.duration_since(m.last_used) >= self.idle_expiry);
        if expired && self.per_destination {
            // A symmetric NAT must not give an expired mapping's port to the same flow again.
            return false;
        }
        if expired {
            let owner = *owner;
            self.mappings.remove(&owner);
            self.by_public_port.remove(&(transport, port));
        }
        expired
    }
}
