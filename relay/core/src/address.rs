//! Socket addresses by role: clients, peers and allocation ports are never confused, and equal addresses are equal keys.
//!
//! Flow label and scope of an IPv6 address are dropped: an address from the kernel must equal the one that a client wrote
//! into XOR-PEER-ADDRESS.

use std::{
    fmt,
    hash::{Hash, Hasher},
    net::{IpAddr, SocketAddr},
};

use connlib_stun::Family;

macro_rules! socket_role {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub struct $name {
            ip: IpAddr,
            port: u16,
        }

        impl $name {
            /// The address and port; flow label and scope are dropped.
            #[must_use]
            pub const fn new(address: SocketAddr) -> Self {
                Self {
                    ip: address.ip(),
                    port: address.port(),
                }
            }

            /// For handing to a socket.
            #[must_use]
            pub const fn address(self) -> SocketAddr {
                SocketAddr::new(self.ip, self.port)
            }

            /// The IP address.
            #[must_use]
            pub const fn ip(self) -> IpAddr {
                self.ip
            }

            /// The port.
            #[must_use]
            pub const fn port(self) -> u16 {
                self.port
            }

            /// The family that a socket needs to reach it.
            #[must_use]
            pub const fn family(self) -> Family {
                family_of(self.ip)
            }
        }

        // One wide write per address instead of one per field: this is hashed for every train of datagrams.
        impl Hash for $name {
            fn hash<H: Hasher>(&self, state: &mut H) {
                let (bits, family) = match self.ip {
                    IpAddr::V4(ip) => (u128::from(u32::from(ip)), 4),
                    IpAddr::V6(ip) => (u128::from(ip), 6),
                };
                state.write_u128(bits);
                state.write_u32(u32::from(self.port) << 8 | family);
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.address(), f)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.address(), f)
            }
        }
    };
}

socket_role! {
    /// A TURN client as the listen port sees it: the client's half of the 5-tuple (relay spec §1.3).
    ClientSocket
}

socket_role! {
    /// Somebody on the other side of an allocation.
    PeerSocket
}

/// The port of an allocation, equal in both families.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AllocationPort(u16);

impl AllocationPort {
    /// Names a port; whether an allocation exists there is another question.
    #[must_use]
    pub const fn new(port: u16) -> Self {
        Self(port)
    }

    /// The port number.
    #[must_use]
    pub const fn get(self) -> u16 {
        self.0
    }
}

impl fmt::Display for AllocationPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// The family of an IP address.
#[must_use]
pub const fn family_of(ip: IpAddr) -> Family {
    match ip {
        IpAddr::V4(_) => Family::V4,
        IpAddr::V6(_) => Family::V6,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{Ipv6Addr, SocketAddrV6};

    #[test]
    fn flow_label_and_scope_do_not_count() {
        let plain = SocketAddrV6::new(Ipv6Addr::LOCALHOST, 1, 0, 0);
        let scoped = SocketAddrV6::new(Ipv6Addr::LOCALHOST, 1, 7, 9);
        assert_eq!(
            PeerSocket::new(plain.into()),
            PeerSocket::new(scoped.into())
        );
        assert_eq!(ClientSocket::new(scoped.into()).address(), plain.into());
    }
}
