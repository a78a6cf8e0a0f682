//! Counters of a node. They are plain integers bumped per batch, read on demand.

/// Counters of one connection since it was made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ConnectionStats {
    /// Packets sealed and sent.
    pub packets_sent: u64,
    /// Packets opened.
    pub packets_received: u64,
    /// Packets that had to wait for a path or a session.
    pub packets_buffered: u64,
    /// Packets dropped on the way out.
    pub packets_dropped: u64,
    /// Plaintext bytes opened.
    pub bytes_received: u64,
    /// Path changes after the first nomination.
    pub path_changes: u64,
}

/// Counters of a node since its creation.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct NodeStats {
    /// Connections right now.
    pub connections: usize,
    /// Connections whose path involves no relay.
    pub direct_connections: usize,
    /// Connections whose path involves a relay.
    pub relayed_connections: usize,
    /// Relays right now.
    pub relays: usize,
    /// Connections that reached [`Event::ConnectionEstablished`](crate::Event).
    pub established: u64,
    /// Connections that ended in [`Event::ConnectionFailed`](crate::Event).
    pub failed: u64,
    /// Packets sealed and sent.
    pub packets_sent: u64,
    /// Packets opened.
    pub packets_received: u64,
    /// Packets dropped on the way out.
    pub packets_dropped: u64,
    /// Inbound datagrams that were dropped.
    pub datagrams_rejected: u64,
    /// Handshake initiations answered with a cookie because of the rate limit.
    pub cookies_sent: u64,
}
