//! The addresses that look-ups through the tunnel come from.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Our TUN addresses.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SourceAddresses {
    /// TUN IPv4 address.
    pub v4: Option<Ipv4Addr>,
    /// TUN IPv6 address.
    pub v6: Option<Ipv6Addr>,
}

impl SourceAddresses {
    /// The address of the same IP version as `upstream`.
    pub(crate) fn towards(self, upstream: SocketAddr) -> Option<IpAddr> {
        match upstream {
            SocketAddr::V4(_) => self.v4.map(IpAddr::V4),
            SocketAddr::V6(_) => self.v6.map(IpAddr::V6),
        }
    }
}
