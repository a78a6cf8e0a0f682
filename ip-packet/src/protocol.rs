//! IP version, and the part of a flow's key that ports and echo identifiers make up.

use std::fmt;

/// Version of the Internet Protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum IpVersion {
    /// IPv4 (RFC 791).
    V4,
    /// IPv6 (RFC 8200).
    V6,
}

/// Transport protocol with the port or echo identifier of one end.
///
/// An ICMP echo has one identifier for both ends; the IP version is not part of this, so ICMPv4 and ICMPv6 share a variant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// TCP and a port.
    Tcp(u16),
    /// UDP and a port.
    Udp(u16),
    /// ICMP echo request or reply and its identifier.
    IcmpEcho(u16),
}

impl Protocol {
    /// The port or identifier.
    pub fn value(self) -> u16 {
        match self {
            Self::Tcp(value) | Self::Udp(value) | Self::IcmpEcho(value) => value,
        }
    }

    /// The same protocol with another port or identifier.
    pub fn with_value(self, value: u16) -> Self {
        match self {
            Self::Tcp(_) => Self::Tcp(value),
            Self::Udp(_) => Self::Udp(value),
            Self::IcmpEcho(_) => Self::IcmpEcho(value),
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(port) => write!(f, "TCP/{port}"),
            Self::Udp(port) => write!(f, "UDP/{port}"),
            Self::IcmpEcho(id) => write!(f, "ICMP-echo/{id}"),
        }
    }
}
