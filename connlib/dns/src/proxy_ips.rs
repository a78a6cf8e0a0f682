//! Proxy addresses: what the client invents for the domains of DNS resources.
//!
//! Each domain gets four IPv4 and four IPv6 addresses on first use and keeps them for the life of the process, since
//! applications remember them. Assignment is sequential, so a domain is a number and its addresses follow from it: one
//! look-up in either direction costs no table of addresses.

use connlib_model::{DomainName, ranges};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Addresses of each IP version per domain.
const PER_DOMAIN: u32 = 4;

/// Usable IPv4 proxies: all of the range but its network and broadcast address and the sentinels.
const V4_COUNT: u32 = (1 << (32 - 11)) - 2 - SENTINELS;
/// IPv6 proxies.
const V6_COUNT: u32 = 1 << (128 - 107);
/// IPv4 addresses of the sentinel range.
const SENTINELS: u32 = 256;

/// Domains that get addresses at all; also bounds the table.
const MAX_DOMAINS: u32 = V6_COUNT / PER_DOMAIN;

/// Which proxy addresses belong to which domain.
#[derive(Debug, Clone, Default)]
pub struct ProxyIps {
    numbers: BTreeMap<DomainName, u32>,
    /// Indexed by number.
    domains: Vec<DomainName>,
}

impl ProxyIps {
    /// No assignment yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The addresses of a domain, assigned on first use.
    ///
    /// `None` when all addresses are in use, after some 520 000 domains; the last domain before that may have fewer.
    pub fn assign(&mut self, domain: &DomainName) -> Option<ProxyAddresses> {
        if let Some(number) = self.numbers.get(domain) {
            return Some(ProxyAddresses { number: *number });
        }
        let number = self.domains.len() as u32;
        if number >= MAX_DOMAINS {
            tracing::error!("All proxy addresses are in use");
            return None;
        }
        self.numbers.insert(domain.clone(), number);
        self.domains.push(domain.clone());
        Some(ProxyAddresses { number })
    }

    /// The addresses of a domain that has some.
    pub fn get(&self, domain: &DomainName) -> Option<ProxyAddresses> {
        self.numbers
            .get(domain)
            .map(|number| ProxyAddresses { number: *number })
    }

    /// The domain that an address was assigned to.
    pub fn domain(&self, address: IpAddr) -> Option<&DomainName> {
        let index = match address {
            IpAddr::V4(v4) => index_of_v4(v4)?,
            IpAddr::V6(v6) => index_of_v6(v6)?,
        };
        self.domains.get((index / PER_DOMAIN) as usize)
    }

    /// All domains in the order of their addresses.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&DomainName, ProxyAddresses)> {
        self.domains.iter().enumerate().map(|(number, domain)| {
            (
                domain,
                ProxyAddresses {
                    number: number as u32,
                },
            )
        })
    }
}

/// The addresses of one domain, in ascending order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProxyAddresses {
    number: u32,
}

impl ProxyAddresses {
    /// IPv4 addresses, four of them until the range ends.
    pub fn v4(self) -> impl Iterator<Item = Ipv4Addr> + Clone {
        self.indices().filter(|index| *index < V4_COUNT).map(v4_at)
    }

    /// IPv6 addresses, four of them.
    pub fn v6(self) -> impl Iterator<Item = Ipv6Addr> + Clone {
        self.indices().filter(|index| *index < V6_COUNT).map(v6_at)
    }

    /// IPv4 addresses, then IPv6 addresses.
    pub fn all(self) -> impl Iterator<Item = IpAddr> + Clone {
        self.v4().map(IpAddr::V4).chain(self.v6().map(IpAddr::V6))
    }

    fn indices(self) -> std::ops::Range<u32> {
        self.number * PER_DOMAIN..(self.number + 1) * PER_DOMAIN
    }
}

/// The address at a place in the order of assignment: ascending from the first host, without sentinels.
fn v4_at(index: u32) -> Ipv4Addr {
    let address = u32::from(ranges::PROXY_V4.network()) + 1 + index;
    let sentinels = u32::from(ranges::SENTINEL_V4.network());
    if address < sentinels {
        address.into()
    } else {
        (address + SENTINELS).into()
    }
}

fn index_of_v4(address: Ipv4Addr) -> Option<u32> {
    if !ranges::PROXY_V4.contains(&address) || ranges::SENTINEL_V4.contains(&address) {
        return None;
    }
    let sentinels_below = if address < ranges::SENTINEL_V4.network() {
        0
    } else {
        SENTINELS
    };
    let offset = u32::from(address) - u32::from(ranges::PROXY_V4.network());
    offset
        .checked_sub(1 + sentinels_below)
        .filter(|index| *index < V4_COUNT)
}

/// The address at a place in the order of assignment; the IPv6 sentinels lie outside the range.
fn v6_at(index: u32) -> Ipv6Addr {
    (u128::from(ranges::PROXY_V6.network()) + u128::from(index)).into()
}

fn index_of_v6(address: Ipv6Addr) -> Option<u32> {
    if !ranges::PROXY_V6.contains(&address) {
        return None;
    }
    u32::try_from(u128::from(address) - u128::from(ranges::PROXY_V6.network())).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn domain(number: u32) -> DomainName {
        format!("host{number}.example").parse().unwrap()
    }

    fn texts(addresses: impl Iterator<Item = impl ToString>) -> Vec<String> {
        addresses.map(|address| address.to_string()).collect()
    }

    #[test]
    fn tunnel_1_first_assignments() {
        let mut proxies = ProxyIps::new();
        let first = proxies.assign(&domain(1)).unwrap();
        assert_eq!(
            texts(first.v4()),
            ["100.96.0.1", "100.96.0.2", "100.96.0.3", "100.96.0.4"]
        );
        let v6 = [
            "fd00:2021:1111:8000::",
            "fd00:2021:1111:8000::1",
            "fd00:2021:1111:8000::2",
            "fd00:2021:1111:8000::3",
        ];
        assert_eq!(texts(first.v6()), v6);
        assert_eq!(first.all().count(), 8);
        let second = proxies.assign(&domain(2)).unwrap();
        assert_eq!(texts(second.v4().take(1)), ["100.96.0.5"]);
        assert_eq!(texts(second.v6().take(1)), ["fd00:2021:1111:8000::4"]);
    }

    #[test]
    fn tunnel_18_assignments_are_stable_and_ignore_case() {
        let mut proxies = ProxyIps::new();
        let first = proxies.assign(&"Foo.Example".parse().unwrap());
        proxies.assign(&domain(2));
        assert_eq!(proxies.assign(&"fOO.eXAMPLE".parse().unwrap()), first);
        assert_eq!(proxies.get(&"foo.example".parse().unwrap()), first);
        assert_eq!(proxies.get(&domain(3)), None);
        assert_eq!(proxies.iter().len(), 2);
    }

    #[test]
    fn tunnel_1_whole_range_without_sentinels_in_order_of_the_range() {
        // Index arithmetic against the enumeration that the ranges define.
        let expected = ranges::proxy_addresses_v4();
        assert!((0..V4_COUNT).map(v4_at).eq(expected.clone()));
        assert_eq!(expected.count(), V4_COUNT as usize);
        let expected = ranges::proxy_addresses_v6();
        assert!((0..V6_COUNT).map(v6_at).eq(expected.clone()));
        assert_eq!(expected.count(), V6_COUNT as usize);
        assert!(!(0..V4_COUNT).any(|at| ranges::is_sentinel(v4_at(at).into())));
        assert!(!(0..V6_COUNT).any(|at| ranges::is_sentinel(v6_at(at).into())));
    }

    // tunnel 1
    #[test]
    fn addresses_lead_back_to_their_domain() {
        let mut proxies = ProxyIps::new();
        // Past 100.100.110.255, the last address below the sentinels: number 290 559.
        for number in 0..73_000 {
            proxies.assign(&domain(number)).unwrap();
        }
        for number in [0, 1, 299, 72_639, 72_640, 72_999] {
            for address in proxies.get(&domain(number)).unwrap().all() {
                assert!(!ranges::is_sentinel(address), "tunnel 1");
                assert_eq!(proxies.domain(address), Some(&domain(number)), "{address}");
            }
        }
        for foreign in [
            "100.96.0.0",
            "100.100.111.7",
            "100.127.255.255",
            "100.95.255.255",
            "100.120.0.1",
        ] {
            assert_eq!(proxies.domain(foreign.parse().unwrap()), None, "{foreign}");
        }
        for foreign in [
            "fd00:2021:1111:8000:100:100:111:0",
            "fd00:2021:1111:8000::1f:ffff",
            "::",
        ] {
            assert_eq!(proxies.domain(foreign.parse().unwrap()), None, "{foreign}");
        }
    }

    #[test]
    fn exhaustion_yields_fewer_addresses_and_then_none() {
        let mut proxies = ProxyIps::new();
        for number in 0..MAX_DOMAINS {
            proxies
                .assign(&DomainName::new(&number.to_string()).unwrap())
                .unwrap();
        }
        assert_eq!(proxies.assign(&domain(0)), None);
        let last = proxies
            .get(&DomainName::new(&(MAX_DOMAINS - 1).to_string()).unwrap())
            .unwrap();
        assert_eq!((last.v4().count(), last.v6().count()), (0, 4));
        let partly = ProxyAddresses {
            number: V4_COUNT / PER_DOMAIN,
        };
        assert_eq!(partly.v4().count(), (V4_COUNT % PER_DOMAIN) as usize);
    }
}
