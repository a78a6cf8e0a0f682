//! The decision about the last packet of a client, for the next one of the same flow.
//!
//! Datagrams of one flow arrive in bursts and are decided one by one. Everything that a decision depends on changes by
//! an input that invalidates this cache or with time, and a batch has one `now`; so an entry of this very instant is still
//! right. Packets that change the state of a TCP connection always take the long way.

use std::net::IpAddr;
use std::time::Instant;

use connlib_model::ClientId;
use ip_packet::{PacketRef, Protocol};

use super::nat::TcpSignal;
use super::peer::Passage;

/// The last decision, if it may be used again.
#[derive(Debug, Default)]
pub(super) struct FlowCache(Option<(Flow, Instant, Passage)>);

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

impl FlowCache {
    /// The decision about an earlier packet of this flow at this instant.
    pub(super) fn get(&self, flow: &Flow, now: Instant) -> Option<Passage> {
        let (cached, at, passage) = self.0.as_ref()?;
        (*at == now && cached == flow).then_some(*passage)
    }

    /// Remembers a decision.
    pub(super) fn insert(&mut self, flow: Flow, now: Instant, passage: Passage) {
        self.0 = Some((flow, now, passage));
    }

    /// Forgets it: something that decisions depend on has changed.
    pub(super) fn invalidate(&mut self) {
        self.0 = None;
    }
}
