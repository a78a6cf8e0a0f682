//! The key of a NAT session on either side.

use std::net::IpAddr;

use ip_packet::Protocol;

/// Address of the far end, protocol, and the port or echo identifier of the client's end.
///
/// The port of the far end is not part of it. Packed, so that an ordered map compares it in two steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Tuple {
    address: u128,
    /// Protocol in the upper, port or identifier in the lower 16 bits.
    protocol: u32,
}

impl Tuple {
    pub(super) fn new(address: IpAddr, protocol: Protocol) -> Self {
        let address = match address {
            IpAddr::V4(v4) => v4.to_ipv6_mapped().to_bits(),
            IpAddr::V6(v6) => v6.to_bits(),
        };
        let tag: u32 = match protocol {
            Protocol::Tcp(_) => 0,
            Protocol::Udp(_) => 1,
            Protocol::IcmpEcho(_) => 2,
        };
        Self {
            address,
            protocol: tag << 16 | u32::from(protocol.value()),
        }
    }

    /// The port or identifier.
    pub(super) fn value(self) -> u16 {
        // The lower half.
        self.protocol as u16
    }

    /// The same far end and protocol with another port or identifier.
    pub(super) fn with_value(self, value: u16) -> Self {
        Self {
            protocol: self.protocol & 0xffff_0000 | u32::from(value),
            ..self
        }
    }
}
