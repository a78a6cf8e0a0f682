//! Addresses of hosts on the simulated internet. Each is used once: a cursor counts up, also over roaming.

use std::net::{Ipv4Addr, Ipv6Addr};

/// Hands out addresses that nobody had before.
#[derive(Debug, Clone, Default)]
pub struct AddressCursor {
    next: u16,
}

/// The addresses of one place on the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Public IPv4 address: the host's own, or that of its NAT.
    pub public_v4: Ipv4Addr,
    /// IPv4 address behind a NAT.
    pub private_v4: Ipv4Addr,
    /// IPv6 address.
    pub v6: Ipv6Addr,
}

impl AddressCursor {
    /// The next place.
    pub fn next_place(&mut self) -> Place {
        self.next += 1;
        let [high, low] = self.next.to_be_bytes();
        Place {
            public_v4: Ipv4Addr::new(185, 7, high, low),
            private_v4: Ipv4Addr::new(192, 168, high, low),
            v6: Ipv6Addr::new(0x2a01, 0xdb8, 0, self.next, 0, 0, 0, 1),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_distinct() {
        let mut cursor = AddressCursor::default();
        let (a, b) = (cursor.next_place(), cursor.next_place());
        assert_ne!(a.public_v4, b.public_v4);
        assert_ne!(a.private_v4, b.private_v4);
        assert_ne!(a.v6, b.v6);
    }
}
