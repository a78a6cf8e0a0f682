//! The key of a NAT session on either side.

use std::net::IpAddr;

use connlib_lookup::AddressKey;
use ip_packet::Protocol;

/// Address of the far end, protocol, and the port or echo identifier of the client's end.
///
/// The port of the far end is not part of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Tuple {
    address: AddressKey,
    /// Protocol in the upper, port or identifier in the lower 16 bits.
    protocol: u32,
}

impl Tuple {
    pub(super) fn new(address: IpAddr, protocol: Protocol) -> Self {
        let tag: u32 = match protocol {
            Protocol::Tcp(_) => 0,
            Protocol::Udp(_) => 1,
            Protocol::IcmpEcho(_) => 2,
        };
        Self {
            address: address.into(),
            protocol: tag << 16 | u32::from(protocol.value()),
        }
    }

    /// The far end. No NAT maps from or to an IPv4-mapped address.
    pub(super) fn address(self) -> IpAddr {
        self.address.address()
    }

    /// The protocol with the port or identifier of the client's end.
    pub(super) fn protocol(self) -> Protocol {
        match self.protocol >> 16 {
            0 => Protocol::Tcp(self.value()),
            1 => Protocol::Udp(self.value()),
            _ => Protocol::IcmpEcho(self.value()),
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
