//! Which way the datagrams of a connection take.

use std::fmt;
use std::net::SocketAddr;
use std::time::Instant;

/// Coarse state of a connection, for status views and tests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ConnectionState {
    /// No path nominated yet.
    Connecting,
    /// Path nominated, checked every few seconds.
    Connected,
    /// Path nominated, nothing tunnelled for a while: checked rarely.
    Idle,
}

/// Where each end of a path sits: directly on a socket or behind its TURN relay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PathKind {
    /// No relay involved.
    PeerToPeer,
    /// We send directly to an address on the peer's relay.
    PeerToRelay,
    /// We send through our relay directly to the peer.
    RelayToPeer,
    /// We send through our relay to an address on the peer's relay.
    RelayToRelay,
}

impl PathKind {
    pub(crate) fn new(local_relayed: bool, remote_relayed: bool) -> Self {
        match (local_relayed, remote_relayed) {
            (false, false) => Self::PeerToPeer,
            (false, true) => Self::PeerToRelay,
            (true, false) => Self::RelayToPeer,
            (true, true) => Self::RelayToRelay,
        }
    }

    /// Whether no relay is involved at either end.
    pub fn is_direct(self) -> bool {
        self == Self::PeerToPeer
    }
}

impl fmt::Display for PathKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::PeerToPeer => "peer-to-peer",
            Self::PeerToRelay => "peer-to-relay",
            Self::RelayToPeer => "relay-to-peer",
            Self::RelayToRelay => "relay-to-relay",
        })
    }
}

/// The nominated path of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PathInfo<R> {
    /// Directly or by relays.
    pub kind: PathKind,
    /// Our end: a local socket address, or our address on our relay.
    pub local: SocketAddr,
    /// The peer's end as we address it.
    pub remote: SocketAddr,
    /// Our relay, if our end sits behind it.
    pub relay: Option<R>,
    /// When this path was nominated.
    pub since: Instant,
    /// When the first WireGuard handshake of the connection completed; `None` before that.
    pub established: Option<Instant>,
}
