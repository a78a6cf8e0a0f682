//! What was sent, received and lost, and why. Counted per batch, read by whoever shows them.

/// Counters of what leaves.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SendCounters {
    /// Datagrams handed to the kernel.
    pub datagrams: u64,
    /// Their bytes.
    pub bytes: u64,
    /// System calls that handed them over.
    pub calls: u64,
    /// Times the socket would block.
    pub blocked: u64,
    /// Datagrams that the kernel found too large (EMSGSIZE).
    pub too_large: u64,
    /// Datagrams lost because the kernel had no buffer (ENOBUFS).
    pub no_buffers: u64,
    /// Datagrams refused for another reason, e.g. no route or a source address that is gone.
    pub refused: u64,
    /// Datagrams for a family that has no socket.
    pub no_socket: u64,
    /// Datagrams that never entered the queue because it was full.
    pub queue_full: u64,
    /// Datagrams that never entered the queue because they exceed [`crate::MAX_DATAGRAM`].
    pub oversized: u64,
}

/// Counters of what arrives.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ReceiveCounters {
    /// Datagrams handed out.
    pub datagrams: u64,
    /// Their bytes.
    pub bytes: u64,
    /// System calls that brought them.
    pub calls: u64,
    /// Datagrams larger than [`crate::MAX_DATAGRAM`], dropped.
    pub oversized: u64,
    /// Receives without a local address, dropped.
    pub no_local_address: u64,
    /// Empty or contradictory receives, dropped.
    pub malformed: u64,
}
