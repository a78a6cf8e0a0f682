//! The TCP side of the stub resolver: listens on the sentinels and hands complete queries to its owner.

use ip_packet::{IpPacket, PacketRef};
use std::net::SocketAddr;
use std::time::Instant;

/// A query that arrived over a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TcpQuery {
    /// The sentinel and port that were asked.
    pub local: SocketAddr,
    /// Who asks.
    pub remote: SocketAddr,
    /// The message, without its length; not yet looked into, except that it is no response.
    pub message: Vec<u8>,
}

/// The connection that a response is for is gone, or waits for another response.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("connection is gone")]
pub struct NoConnection;

/// DNS over TCP towards applications.
pub struct Server {}

impl Server {
    /// A server that listens nowhere.
    pub fn new(seed: [u8; 32], now: Instant) -> Self {
        let _ = (seed, now);
        Self {}
    }

    /// Listens on exactly these sockets.
    ///
    /// Nothing happens when they are the ones of before, in whatever order; otherwise all connections and all queries
    /// that have not been answered are forgotten.
    pub fn listen_on(&mut self, sockets: impl IntoIterator<Item = SocketAddr>) {
        let _ = sockets.into_iter();
    }

    /// Whether a packet is TCP for one of the sockets and must be given to [`handle_packet`](Self::handle_packet).
    pub fn accepts(&self, packet: PacketRef<'_>) -> bool {
        let _ = packet;
        false
    }

    /// Takes a packet from the TUN device, at most 1280 bytes and with right checksums; ignores it if not
    /// [accepted](Self::accepts).
    pub fn handle_packet(&mut self, packet: PacketRef<'_>, now: Instant) {
        let _ = (packet, now);
    }

    /// The next query. A connection's next one is read only when its response has been sent and has left.
    pub fn poll_query(&mut self) -> Option<TcpQuery> {
        None
    }

    /// Sends a response over the connection that asked.
    ///
    /// # Errors
    /// [`NoConnection`] when it does not wait for this response (any more); the response is void then.
    pub fn send_response(
        &mut self,
        local: SocketAddr,
        remote: SocketAddr,
        message: &[u8],
        now: Instant,
    ) -> Result<(), NoConnection> {
        let _ = (local, remote, message, now);
        Err(NoConnection)
    }

    /// The next packet for the TUN device.
    pub fn poll_packet(&mut self) -> Option<IpPacket> {
        None
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
