//! The decisions about the last packets of clients, for the next ones of the same flows.
//!
//! Datagrams arrive in bursts of a few flows and are decided one by one. Everything that a decision depends on changes by
//! an input that invalidates this cache or with time, and a batch has one `now`; so an entry of this very instant is still
//! right. Packets that change the state of a TCP connection always take the long way.

use std::net::IpAddr;
use std::time::Instant;

use connlib_model::ClientId;
use ip_packet::{PacketRef, Protocol};

use super::nat::TcpSignal;
use super::peer::Passage;
use crate::direct_map::{DirectMap, Fold};

/// Recent decisions that may be used again.
#[derive(Debug)]
pub(super) struct FlowCache {
    passages: DirectMap<Flow, Passage>,
    /// The instant that all of them belong to.
    at: Option<Instant>,
}

/// What tells flows apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Flow {
    client: ClientId,
    source: IpAddr,
    destination: IpAddr,
    from: Protocol,
    to: Protocol,
}

impl Flow {
    /// The flow of a packet that may use the cache.
    pub(super) fn of(client: ClientId, packet: PacketRef<'_>) -> Option<Self> {
        if !TcpSignal::of(packet).is_none() {
            return None;
        }
        Some(Self {
            client,
            source: packet.source(),
            destination: packet.destination(),
            from: packet.source_protocol().ok()?,
            to: packet.destination_protocol().ok()?,
        })
    }
}

impl Fold for Flow {
    fn fold(&self) -> u32 {
        let ports = u32::from(self.from.value()) << 16 | u32::from(self.to.value());
        self.source.fold() ^ self.destination.fold().rotate_left(16) ^ ports
    }
}

impl Default for FlowCache {
    fn default() -> Self {
        Self {
            passages: DirectMap::new(),
            at: None,
        }
    }
}

impl FlowCache {
    /// The decision about an earlier packet of this flow at this instant.
    pub(super) fn get(&self, flow: &Flow, now: Instant) -> Option<Passage> {
        self.passages.get(flow).filter(|_| self.at == Some(now))
    }

    /// Remembers a decision.
    pub(super) fn insert(&mut self, flow: Flow, now: Instant, passage: Passage) {
        self.advance(now);
        self.passages.insert(flow, passage);
    }

    /// Forgets everything: something that decisions depend on has changed.
    pub(super) fn invalidate(&mut self) {
        self.passages.invalidate();
    }

    /// A number that stays the same as long as equal packets meet equal decisions.
    pub(super) fn epoch(&mut self, now: Instant) -> u64 {
        self.advance(now);
        self.passages.generation()
    }

    fn advance(&mut self, now: Instant) {
        if self.at != Some(now) {
            self.at = Some(now);
            self.passages.invalidate();
        }
    }
}
