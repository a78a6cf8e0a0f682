//! Look-ups over TCP through the tunnel.

use crate::{RecursiveQuery, RecursiveResponse, SourceAddresses};
use ip_packet::{IpPacket, PacketRef};
use std::time::Instant;

/// DNS over TCP towards upstream servers, from the TUN address.
pub struct Client {}

impl Client {
    /// A client without addresses.
    pub fn new(seed: [u8; 32], now: Instant) -> Self {
        let _ = (seed, now);
        Self {}
    }

    /// Sets the TUN addresses; a change fails all look-ups as [`reset`](Self::reset) does.
    pub fn set_sources(&mut self, sources: SourceAddresses, now: Instant) {
        let _ = (sources, now);
    }

    /// Starts a look-up. Its result, also an immediate failure, comes from [`poll_response`](Self::poll_response).
    pub fn send_query(&mut self, query: RecursiveQuery, now: Instant) {
        let _ = (query, now);
    }

    /// Whether a packet belongs to one of the connections and must be given to
    /// [`handle_packet`](Self::handle_packet).
    pub fn accepts(&self, packet: PacketRef<'_>) -> bool {
        let _ = packet;
        false
    }

    /// Takes a packet from the tunnel; ignores it if not [accepted](Self::accepts).
    pub fn handle_packet(&mut self, packet: PacketRef<'_>, now: Instant) {
        let _ = (packet, now);
    }

    /// The next packet for the tunnel, to be routed like any other.
    pub fn poll_packet(&mut self) -> Option<IpPacket> {
        None
    }

    /// The next result.
    pub fn poll_response(&mut self) -> Option<RecursiveResponse> {
        None
    }

    /// Drops all connections and fails all look-ups with [`RecursiveError::Reset`](crate::RecursiveError::Reset).
    pub fn reset(&mut self, now: Instant) {
        let _ = now;
    }

    /// Lets time pass.
    pub fn handle_timeout(&mut self, now: Instant) {
        let _ = now;
    }

    /// When [`handle_timeout`](Self::handle_timeout) wants to be called.
    pub fn poll_timeout(&self) -> Option<Instant> {
        None
    }
}
