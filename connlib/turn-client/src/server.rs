//! The sockets of one relay.

use std::net::{SocketAddr, SocketAddrV4, SocketAddrV6};

/// Where a relay listens: one or both address families.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Server {
    /// IPv4 only.
    V4(SocketAddrV4),
    /// IPv6 only.
    V6(SocketAddrV6),
    /// Both; the first that answers is used.
    Dual {
        /// IPv4 socket.
        v4: SocketAddrV4,
        /// IPv6 socket.
        v6: SocketAddrV6,
    },
}

impl Server {
    /// Groups the addresses that a portal lists under one relay id; `None` without any address.
    #[must_use]
    pub const fn new(v4: Option<SocketAddrV4>, v6: Option<SocketAddrV6>) -> Option<Self> {
        match (v4, v6) {
            (Some(v4), Some(v6)) => Some(Self::Dual { v4, v6 }),
            (Some(v4), None) => Some(Self::V4(v4)),
            (None, Some(v6)) => Some(Self::V6(v6)),
            (None, None) => None,
        }
    }

    /// The IPv4 socket.
    #[must_use]
    pub const fn v4(&self) -> Option<SocketAddrV4> {
        match self {
            Self::V4(v4) | Self::Dual { v4, .. } => Some(*v4),
            Self::V6(_) => None,
        }
    }

    /// The IPv6 socket.
    #[must_use]
    pub const fn v6(&self) -> Option<SocketAddrV6> {
        match self {
            Self::V6(v6) | Self::Dual { v6, .. } => Some(*v6),
            Self::V4(_) => None,
        }
    }

    /// All sockets, IPv4 first.
    pub fn sockets(&self) -> impl Iterator<Item = SocketAddr> + use<> {
        let v4 = self.v4().map(SocketAddr::V4);
        let v6 = self.v6().map(SocketAddr::V6);
        v4.into_iter().chain(v6)
    }

    /// Whether `socket` is one of the relay's.
    #[must_use]
    pub fn contains(&self, socket: SocketAddr) -> bool {
        self.sockets().any(|own| own == socket)
    }
}
