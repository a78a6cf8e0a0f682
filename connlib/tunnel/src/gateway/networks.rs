//! Look-up of the rules of all networks that contain an address.
//!
//! Networks are grouped by prefix length. An address is judged by *every* network that contains it, and one that permits
//! is enough, so a look-up visits each prefix length in use once; clients rarely have more than a few.

use std::net::IpAddr;

use connlib_lookup::{Secret, Table};
use connlib_model::FilterProtocol;
use ipnet::IpNet;

use super::rules::Rules;

/// Networks with their rules.
#[derive(Debug)]
pub(super) struct NetworkTable {
    v4: Vec<PrefixGroup>,
    v6: Vec<PrefixGroup>,
    secret: Secret,
}

/// All networks of one prefix length, by the bits of their prefix.
#[derive(Debug)]
struct PrefixGroup {
    /// Number of host bits: what an address is shifted by to become a key.
    host_bits: u32,
    networks: Table<u128, Rules>,
}

impl NetworkTable {
    /// No network.
    pub(super) fn new(secret: Secret) -> Self {
        Self {
            v4: Vec::new(),
            v6: Vec::new(),
            secret,
        }
    }

    /// Adds `rules` to those of `network`.
    pub(super) fn add(&mut self, network: IpNet, rules: &Rules) {
        let (address, family_bits) = key(network.addr());
        let host_bits = family_bits - u32::from(network.prefix_len());
        let groups = match network {
            IpNet::V4(_) => &mut self.v4,
            IpNet::V6(_) => &mut self.v6,
        };
        let at = groups.partition_point(|group| group.host_bits < host_bits);
        if groups
            .get(at)
            .is_none_or(|group| group.host_bits != host_bits)
        {
            let networks = self.secret.table();
            groups.insert(
                at,
                PrefixGroup {
                    host_bits,
                    networks,
                },
            );
        }
        groups[at]
            .networks
            .entry(prefix(address, host_bits))
            .or_default()
            .add(rules);
    }

    /// Whether any network that contains `address` permits `protocol`.
    pub(super) fn permit(&self, address: IpAddr, protocol: FilterProtocol) -> bool {
        let groups = match address {
            IpAddr::V4(_) => &self.v4,
            IpAddr::V6(_) => &self.v6,
        };
        let (address, _) = key(address);
        groups.iter().any(|group| {
            group
                .networks
                .get(&prefix(address, group.host_bits))
                .is_some_and(|rules| rules.permit(protocol))
        })
    }
}

fn key(address: IpAddr) -> (u128, u32) {
    match address {
        IpAddr::V4(v4) => (u128::from(v4.to_bits()), 32),
        IpAddr::V6(v6) => (v6.to_bits(), 128),
    }
}

/// The bits of the prefix; none are left of a prefix of length 0.
fn prefix(address: u128, host_bits: u32) -> u128 {
    address.checked_shr(host_bits).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use connlib_model::Filter;
    use proptest::prelude::*;

    use super::*;

    fn table(entries: &[(&str, &[Filter])]) -> NetworkTable {
        let mut table = NetworkTable::new(Secret::from_seed([0; 32]));
        for (network, filters) in entries {
            table.add(network.parse().unwrap(), &Rules::new(filters));
        }
        table
    }

    fn permits(table: &NetworkTable, address: &str, port: u16) -> bool {
        table.permit(address.parse().unwrap(), FilterProtocol::Tcp(port))
    }

    // tunnel 49
    #[test]
    fn tunnel_49_every_covering_network_counts() {
        let table = table(&[
            ("10.0.0.0/8", &[Filter::Tcp(80..=80)]),
            ("10.1.0.0/16", &[Filter::Tcp(22..=22)]),
            ("10.1.0.0/16", &[Filter::Tcp(23..=23)]),
        ]);

        for port in [80, 22, 23] {
            assert!(permits(&table, "10.1.2.3", port));
        }
        assert!(permits(&table, "10.2.0.1", 80));
        assert!(!permits(&table, "10.2.0.1", 22));
        assert!(!permits(&table, "11.0.0.1", 80));
    }

    #[test]
    fn extreme_prefix_lengths_work() {
        let table = table(&[("0.0.0.0/0", &[]), ("::1/128", &[]), ("2001:db8::/32", &[])]);

        assert!(permits(&table, "203.0.113.1", 1));
        assert!(permits(&table, "::1", 1));
        assert!(!permits(&table, "::2", 1));
        assert!(permits(&table, "2001:db8:ffff::1", 1));
    }

    #[test]
    fn families_do_not_mix() {
        let table = table(&[("::/0", &[])]);
        assert!(!permits(&table, "10.0.0.1", 1));
    }

    proptest! {
        #[test]
        fn look_up_equals_a_linear_scan(
            networks in proptest::collection::vec((any::<u32>(), 0u8..=32, any::<u16>()), 0..40),
            addresses in proptest::collection::vec(any::<u32>(), 20),
        ) {
            let mut table = NetworkTable::new(Secret::from_seed([0; 32]));
            let networks: Vec<_> = networks
                .into_iter()
                .map(|(address, len, port)| (IpNet::new(IpAddr::V4(address.into()), len).unwrap().trunc(), port))
                .collect();
            for (network, port) in &networks {
                table.add(*network, &Rules::new(&[Filter::Tcp(*port..=*port)]));
            }
            let bases = networks.iter().map(|(network, _)| network.addr());
            for address in addresses.into_iter().map(|a| IpAddr::V4(a.into())).chain(bases) {
                for (_, port) in &networks {
                    let expected = networks.iter().any(|(network, p)| p == port && network.contains(&address));
                    prop_assert_eq!(table.permit(address, FilterProtocol::Tcp(*port)), expected);
                }
            }
        }
    }
}
