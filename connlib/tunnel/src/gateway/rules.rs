//! The filters of a resource, compiled for look-up (tunnel spec §5.3).

use std::ops::RangeInclusive;

use connlib_cover::cover;
use connlib_model::{Filter, FilterProtocol};
use ip_packet::{PacketRef, Protocol, Transport};

/// What one or several resources permit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Rules {
    /// Some filter list was empty: everything is permitted, whatever the protocol.
    everything: bool,
    icmp: bool,
    tcp: PortSet,
    udp: PortSet,
}

impl Rules {
    /// The rules of one resource. An empty list permits everything.
    pub(super) fn new(filters: &[Filter]) -> Self {
        let mut rules = Self {
            everything: filters.is_empty(),
            ..Self::default()
        };
        for filter in filters {
            match filter {
                Filter::Tcp(ports) => rules.tcp.insert(ports.clone()),
                Filter::Udp(ports) => rules.udp.insert(ports.clone()),
                Filter::Icmp => rules.icmp = true,
            }
        }
        rules
    }

    /// Permits what `other` permits, too.
    pub(super) fn add(&mut self, other: &Self) {
        self.everything |= other.everything;
        self.icmp |= other.icmp;
        for ports in &other.tcp.0 {
            self.tcp.insert(ports.clone());
        }
        for ports in &other.udp.0 {
            self.udp.insert(ports.clone());
        }
    }

    /// Whether a packet of this kind may pass.
    pub(super) fn permit(&self, protocol: FilterProtocol) -> bool {
        let permitted = self.everything
            || match protocol {
                FilterProtocol::Tcp(port) => self.tcp.contains(port),
                FilterProtocol::Udp(port) => self.udp.contains(port),
                FilterProtocol::Icmp => self.icmp,
                FilterProtocol::Other => false,
            };
        cover!("acl/filter-allowed" if permitted && !self.everything);
        cover!("acl/filter-denied" if !permitted);
        permitted
    }
}

/// What a filter looks at in a packet on its way to a resource: protocol and destination port.
pub(super) fn towards_resource(packet: PacketRef<'_>) -> FilterProtocol {
    classify(packet, |packet| packet.destination_protocol().ok())
}

/// What a filter looks at in a packet on its way from a resource: protocol and source port.
pub(super) fn from_resource(packet: PacketRef<'_>) -> FilterProtocol {
    classify(packet, |packet| packet.source_protocol().ok())
}

fn classify<'a>(
    packet: PacketRef<'a>,
    port: impl FnOnce(PacketRef<'a>) -> Option<Protocol>,
) -> FilterProtocol {
    match packet.layout().transport() {
        Transport::Icmpv4 | Transport::Icmpv6 => FilterProtocol::Icmp,
        Transport::Other => FilterProtocol::Other,
        Transport::Tcp | Transport::Udp => match port(packet) {
            Some(Protocol::Tcp(port)) => FilterProtocol::Tcp(port),
            Some(Protocol::Udp(port)) => FilterProtocol::Udp(port),
            Some(Protocol::IcmpEcho(_)) | None => FilterProtocol::Other,
        },
    }
}

/// A set of ports as disjoint, ascending ranges that do not touch.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct PortSet(Vec<RangeInclusive<u16>>);

impl PortSet {
    fn contains(&self, port: u16) -> bool {
        let after = self.0.partition_point(|range| *range.start() <= port);
        self.0[..after]
            .last()
            .is_some_and(|range| range.contains(&port))
    }

    fn insert(&mut self, ports: RangeInclusive<u16>) {
        if ports.is_empty() {
            return;
        }
        let (mut start, mut end) = ports.into_inner();
        self.0.retain(|range| {
            let touches = u32::from(*range.start()) <= u32::from(end) + 1
                && u32::from(start) <= u32::from(*range.end()) + 1;
            if touches {
                start = start.min(*range.start());
                end = end.max(*range.end());
            }
            !touches
        });
        let at = self.0.partition_point(|range| *range.start() < start);
        self.0.insert(at, start..=end);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    // tunnel 48
    #[test]
    fn tunnel_48_filter_matrix() {
        use FilterProtocol::{Icmp, Other, Tcp, Udp};

        let everything = Rules::new(&[]);
        let web = Rules::new(&[Filter::Tcp(80..=443)]);
        let ping = Rules::new(&[Filter::Icmp]);
        let all_udp = Rules::new(&[Filter::Udp(0..=u16::MAX)]);

        // (protocol, everything, web, ping, all_udp)
        let matrix = [
            (Tcp(79), true, false, false, false),
            (Tcp(80), true, true, false, false),
            (Tcp(443), true, true, false, false),
            (Tcp(444), true, false, false, false),
            (Udp(0), true, false, false, true),
            (Udp(80), true, false, false, true),
            (Udp(u16::MAX), true, false, false, true),
            (Icmp, true, false, true, false),
            (Other, true, false, false, false),
        ];
        for (protocol, by_everything, by_web, by_ping, by_udp) in matrix {
            assert_eq!(everything.permit(protocol), by_everything, "{protocol:?}");
            assert_eq!(web.permit(protocol), by_web, "{protocol:?}");
            assert_eq!(ping.permit(protocol), by_ping, "{protocol:?}");
            assert_eq!(all_udp.permit(protocol), by_udp, "{protocol:?}");
        }
    }

    // tunnel 49
    #[test]
    fn tunnel_49_union_with_an_empty_list_permits_everything() {
        let mut rules = Rules::new(&[Filter::Tcp(22..=22)]);
        rules.add(&Rules::new(&[Filter::Udp(53..=53)]));
        assert!(rules.permit(FilterProtocol::Tcp(22)));
        assert!(rules.permit(FilterProtocol::Udp(53)));
        assert!(!rules.permit(FilterProtocol::Tcp(53)));

        rules.add(&Rules::new(&[]));
        assert!(rules.permit(FilterProtocol::Other));
    }

    #[test]
    fn inverted_range_permits_nothing() {
        #[expect(clippy::reversed_empty_ranges, reason = "a portal may send one")]
        let rules = Rules::new(&[Filter::Tcp(90..=80)]);
        assert!(!rules.permit(FilterProtocol::Tcp(85)));
        assert!(!rules.permit(FilterProtocol::Other));
    }

    proptest! {
        #[test]
        fn compiled_rules_equal_the_plain_list(
            ranges in proptest::collection::vec((any::<u16>(), 0u16..2_000), 1..12),
            ports in proptest::collection::vec(any::<u16>(), 40),
        ) {
            let filters: Vec<_> = ranges
                .iter()
                .map(|(start, len)| Filter::Tcp(*start..=start.saturating_add(*len)))
                .collect();
            let rules = Rules::new(&filters);
            let edges = ranges.iter().flat_map(|(start, len)| {
                let end = start.saturating_add(*len);
                [start.saturating_sub(1), *start, end, end.saturating_add(1)]
            });
            for port in ports.into_iter().chain(edges) {
                let protocol = FilterProtocol::Tcp(port);
                prop_assert_eq!(rules.permit(protocol), connlib_model::permits(&filters, protocol));
            }
            prop_assert!(rules.tcp.0.windows(2).all(|pair| u32::from(*pair[0].end()) + 1 < u32::from(*pair[1].start())));
        }
    }
}
