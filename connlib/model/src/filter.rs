//! Traffic filters of a resource: which protocols and ports are permitted.
//!
//! An empty list permits everything, including protocols other than TCP, UDP and ICMP (tunnel specification §5.3).

use std::ops::RangeInclusive;

/// One permission.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Filter {
    /// TCP to these destination ports, both ends included.
    Tcp(RangeInclusive<u16>),
    /// UDP to these destination ports, both ends included.
    Udp(RangeInclusive<u16>),
    /// ICMP of either family and any type.
    Icmp,
}

/// What a filter looks at in a packet on its way to the resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FilterProtocol {
    /// TCP to this port.
    Tcp(u16),
    /// UDP to this port.
    Udp(u16),
    /// ICMPv4 or ICMPv6.
    Icmp,
    /// Anything else; only an empty filter list permits it.
    Other,
}

impl Filter {
    /// All TCP ports.
    pub const ALL_TCP: Self = Self::Tcp(0..=u16::MAX);
    /// All UDP ports.
    pub const ALL_UDP: Self = Self::Udp(0..=u16::MAX);

    /// Whether this one filter permits the protocol.
    pub fn permits(&self, protocol: FilterProtocol) -> bool {
        match (self, protocol) {
            (Self::Tcp(ports), FilterProtocol::Tcp(port))
            | (Self::Udp(ports), FilterProtocol::Udp(port)) => ports.contains(&port),
            (Self::Icmp, FilterProtocol::Icmp) => true,
            (Self::Tcp(_) | Self::Udp(_) | Self::Icmp, _) => false,
        }
    }
}

/// Whether a resource with these filters permits the protocol. No filters at all permit everything.
pub fn permits(filters: &[Filter], protocol: FilterProtocol) -> bool {
    filters.is_empty() || filters.iter().any(|filter| filter.permits(protocol))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn empty_list_permits_everything() {
        assert!(permits(&[], FilterProtocol::Tcp(1)));
        assert!(permits(&[], FilterProtocol::Icmp));
        assert!(permits(&[], FilterProtocol::Other));
    }

    #[test]
    fn ports_are_inclusive_and_protocols_do_not_mix() {
        let filters = [Filter::Tcp(80..=443), Filter::Icmp];
        assert!(permits(&filters, FilterProtocol::Tcp(80)));
        assert!(permits(&filters, FilterProtocol::Tcp(443)));
        assert!(!permits(&filters, FilterProtocol::Tcp(79)));
        assert!(!permits(&filters, FilterProtocol::Tcp(444)));
        assert!(!permits(&filters, FilterProtocol::Udp(80)));
        assert!(permits(&filters, FilterProtocol::Icmp));
        assert!(!permits(&filters, FilterProtocol::Other));
    }

    #[test]
    fn whole_range_has_both_ends() {
        assert!(Filter::ALL_UDP.permits(FilterProtocol::Udp(0)));
        assert!(Filter::ALL_UDP.permits(FilterProtocol::Udp(65_535)));
    }
}
