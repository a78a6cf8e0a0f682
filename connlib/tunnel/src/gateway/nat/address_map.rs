//! Which real address a proxy address stands for, and which resources it belongs to (tunnel spec §5.5).
//!
//! A proxy address of either family maps to a real address of that family only. Every announced proxy address has an
//! entry, also when its family has no address, so that its use is answered with "unreachable" and not "prohibited".

use std::collections::BTreeSet;
use std::net::IpAddr;

use connlib_cover::cover;
use connlib_lookup::{AddressKey, Secret, Table};
use connlib_model::{DomainName, ResourceId, ranges};

/// Proxy addresses of one client. Eight per name: enough for 16 384 names.
const MAX_ENTRIES: usize = 131_072;

/// Resources that one proxy address belongs to: those whose patterns cover one name and which the client uses.
const MAX_RESOURCES: usize = 256;

/// Proxy addresses of one client.
#[derive(Debug)]
pub(in super::super) struct AddressMap {
    entries: Vec<Entry>,
    /// Proxy address to the place of its entry. Entries never go alone.
    places: Table<AddressKey, u32>,
}

/// What is known about one proxy address.
#[derive(Debug)]
pub(in super::super) struct Entry {
    domain: DomainName,
    /// `None` while the name has no address of this family.
    real: Option<IpAddr>,
    /// Ordered, without duplicates.
    resources: Vec<ResourceId>,
}

impl Entry {
    /// The real address for new sessions.
    pub(in super::super) fn real(&self) -> Option<IpAddr> {
        self.real
    }

    /// The resources that the address belongs to.
    pub(in super::super) fn resources(&self) -> &[ResourceId] {
        &self.resources
    }
}

/// What a client wants to be mapped.
#[derive(Debug)]
pub(in super::super) struct Assignment<'a> {
    pub(in super::super) resource: ResourceId,
    pub(in super::super) domain: &'a DomainName,
    pub(in super::super) proxies: &'a [IpAddr],
}

/// What an assignment did to older ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Assigned {
    /// Nothing.
    Kept,
    /// The client has begun to number anew: all its older entries are gone.
    Renumbered,
}

/// Why an assignment was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(in super::super) enum AssignError {
    #[error("an announced address is not in the proxy range")]
    NotAProxy,
    #[error("client has too many proxy addresses")]
    TooMany,
}

impl AddressMap {
    /// No address is known.
    pub(in super::super) fn new(secret: Secret) -> Self {
        Self {
            entries: Vec::new(),
            places: secret.table(),
        }
    }

    /// What is known about a proxy address.
    pub(in super::super) fn get(&self, proxy: IpAddr) -> Option<&Entry> {
        let place = self.places.get(&proxy.into())?;
        self.entries.get(*place as usize)
    }

    /// Maps the proxy addresses of a domain to its addresses, in ascending order and cyclically.
    ///
    /// `resolved` may be of both families and in any order. `None` means that the look-up failed: a mapping that exists
    /// stays.
    ///
    /// # Errors
    ///
    /// [`AssignError`]; nothing has changed then.
    pub(in super::super) fn assign(
        &mut self,
        assignment: &Assignment<'_>,
        resolved: Option<&[IpAddr]>,
    ) -> Result<Assigned, AssignError> {
        let proxies: BTreeSet<_> = assignment.proxies.iter().copied().collect();
        if !proxies
            .iter()
            .all(|ip| ranges::is_proxy(*ip) && !ranges::is_sentinel(*ip))
        {
            return Err(AssignError::NotAProxy);
        }
        let renumbered = self.has_other_owner(&proxies, assignment.domain);
        let present = if renumbered { 0 } else { self.entries.len() };
        let new = proxies
            .iter()
            .filter(|ip| renumbered || self.get(**ip).is_none())
            .count();
        if present + new > MAX_ENTRIES {
            return Err(AssignError::TooMany);
        }
        if renumbered {
            self.entries.clear();
            self.places.clear();
        }
        for is_v4 in [true, false] {
            self.assign_family(assignment, &proxies, resolved, is_v4);
        }
        cover!("nat/several-names-one-address" if self.shares_an_address(assignment.domain));
        Ok(if renumbered {
            Assigned::Renumbered
        } else {
            Assigned::Kept
        })
    }

    /// Whether another name has an address of `domain`, too. For counting only, which must not cost: large tables are not
    /// looked through.
    fn shares_an_address(&self, domain: &DomainName) -> bool {
        const SMALL: usize = 256;
        if self.entries.len() > SMALL {
            return false;
        }
        let reals_of = |is_own: bool| {
            let entries = self.entries.iter();
            entries
                .filter(move |entry| (entry.domain == *domain) == is_own)
                .filter_map(|entry| entry.real)
        };
        let own: BTreeSet<_> = reals_of(true).collect();
        reals_of(false).any(|real| own.contains(&real))
    }

    /// The entry of a proxy address, made if it is not there.
    fn entry(&mut self, proxy: IpAddr, domain: &DomainName) -> &mut Entry {
        let place = *self.places.entry(proxy.into()).or_insert_with(|| {
            self.entries.push(Entry {
                domain: domain.clone(),
                real: None,
                resources: Vec::new(),
            });
            (self.entries.len() - 1) as u32
        });
        &mut self.entries[place as usize]
    }

    fn has_other_owner(&self, proxies: &BTreeSet<IpAddr>, domain: &DomainName) -> bool {
        proxies
            .iter()
            .filter_map(|ip| self.get(*ip))
            .any(|entry| entry.domain != *domain)
    }

    fn assign_family(
        &mut self,
        assignment: &Assignment<'_>,
        proxies: &BTreeSet<IpAddr>,
        resolved: Option<&[IpAddr]>,
        is_v4: bool,
    ) {
        let reals: Option<BTreeSet<_>> = resolved.map(|addresses| {
            let of_family = |ip: &IpAddr| ip.is_ipv4() == is_v4 && is_mappable(*ip);
            addresses.iter().copied().filter(of_family).collect()
        });
        let mut cycle = reals.iter().flatten().cycle();
        for proxy in proxies.iter().filter(|ip| ip.is_ipv4() == is_v4) {
            let entry = self.entry(*proxy, assignment.domain);
            if reals.is_some() {
                entry.real = cycle.next().copied();
            }
            if let Err(at) = entry.resources.binary_search(&assignment.resource)
                && entry.resources.len() < MAX_RESOURCES
            {
                entry.resources.insert(at, assignment.resource);
            }
        }
    }
}

/// Whether a name may stand for `address`: it must be a single host, and neither this host nor part of the tunnel.
fn is_mappable(address: IpAddr) -> bool {
    let is_special = match address {
        IpAddr::V4(v4) => v4.is_broadcast() || v4.octets()[0] == 0,
        IpAddr::V6(v6) => v6.to_ipv4_mapped().is_some(),
    };
    !(is_special
        || address.is_unspecified()
        || address.is_loopback()
        || address.is_multicast()
        || ranges::is_tunnel(address)
        || ranges::is_proxy(address))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ips(list: &[&str]) -> Vec<IpAddr> {
        list.iter().map(|ip| ip.parse().unwrap()).collect()
    }

    fn proxies() -> Vec<IpAddr> {
        ips(&[
            "100.96.0.1",
            "100.96.0.2",
            "100.96.0.3",
            "100.96.0.4",
            "fd00:2021:1111:8000::",
            "fd00:2021:1111:8000::1",
            "fd00:2021:1111:8000::2",
            "fd00:2021:1111:8000::3",
        ])
    }

    fn assign(
        map: &mut AddressMap,
        resource: u128,
        domain: &str,
        proxies: &[IpAddr],
        resolved: Option<&[&str]>,
    ) -> Result<Assigned, AssignError> {
        let resolved = resolved.map(ips);
        let assignment = Assignment {
            resource: ResourceId::from_u128(resource),
            domain: &domain.parse().unwrap(),
            proxies,
        };
        map.assign(&assignment, resolved.as_deref())
    }

    fn reals(map: &AddressMap) -> Vec<String> {
        let text = |entry: &Entry| entry.real().map_or("none".into(), |ip| ip.to_string());
        proxies()
            .iter()
            .map(|ip| map.get(*ip).map_or("-".into(), text))
            .collect()
    }

    // tunnel 58
    #[test]
    fn tunnel_58_more_proxies_than_addresses_cycle() {
        let mut map = AddressMap::new(Secret::from_seed([0; 32]));
        let resolved = ["10.0.0.2", "10.0.0.1", "2001:db8::1"];
        assign(&mut map, 1, "a.example", &proxies(), Some(&resolved)).unwrap();
        let expected = [
            "10.0.0.1",
            "10.0.0.2",
            "10.0.0.1",
            "10.0.0.2",
            "2001:db8::1",
            "2001:db8::1",
            "2001:db8::1",
            "2001:db8::1",
        ];
        assert_eq!(reals(&map), expected);

        let reversed = ["2001:db8::1", "10.0.0.1", "10.0.0.2", "10.0.0.1"];
        assign(&mut map, 1, "a.example", &proxies(), Some(&reversed)).unwrap();
        assert_eq!(reals(&map), expected, "same set, same mapping");
    }

    // tunnel 58
    #[test]
    fn tunnel_58_of_many_addresses_the_first_four_are_used() {
        let mut map = AddressMap::new(Secret::from_seed([0; 32]));
        let resolved = [
            "10.0.0.6", "10.0.0.5", "10.0.0.4", "10.0.0.3", "10.0.0.2", "10.0.0.1",
        ];
        assign(&mut map, 1, "a.example", &proxies(), Some(&resolved)).unwrap();
        assert_eq!(
            reals(&map)[..4],
            ["10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4"]
        );
    }

    // tunnel 62
    #[test]
    fn tunnel_62_every_proxy_has_an_entry() {
        for (resolved, v4, v6) in [
            (&["10.0.0.1"][..], "10.0.0.1", "none"),
            (&["2001:db8::1"][..], "none", "2001:db8::1"),
            (&[][..], "none", "none"),
        ] {
            let mut map = AddressMap::new(Secret::from_seed([0; 32]));
            assign(&mut map, 1, "a.example", &proxies(), Some(resolved)).unwrap();
            assert_eq!(reals(&map), [v4, v4, v4, v4, v6, v6, v6, v6]);
        }
    }

    #[test]
    fn failed_look_up_keeps_what_was_known() {
        let mut map = AddressMap::new(Secret::from_seed([0; 32]));
        assign(&mut map, 1, "a.example", &proxies(), None).unwrap();
        assert_eq!(reals(&map), ["none"; 8]);

        assign(&mut map, 1, "a.example", &proxies(), Some(&["10.0.0.1"])).unwrap();
        assign(&mut map, 1, "a.example", &proxies(), None).unwrap();
        assert_eq!(reals(&map)[0], "10.0.0.1");
    }

    // tunnel 46
    #[test]
    fn tunnel_46_proxies_of_another_domain_begin_anew() {
        let mut map = AddressMap::new(Secret::from_seed([0; 32]));
        let all = proxies();
        assert_eq!(
            assign(&mut map, 1, "a.example", &all[..1], Some(&["10.0.0.1"])),
            Ok(Assigned::Kept)
        );
        assert_eq!(
            assign(&mut map, 1, "b.example", &all[1..2], Some(&["10.0.0.2"])),
            Ok(Assigned::Kept)
        );
        assert_eq!(
            assign(&mut map, 1, "c.example", &all[..1], Some(&["10.0.0.3"])),
            Ok(Assigned::Renumbered)
        );
        assert_eq!(reals(&map)[..2], ["10.0.0.3", "-"]);
    }

    #[test]
    fn resources_share_the_addresses_of_a_domain() {
        let mut map = AddressMap::new(Secret::from_seed([0; 32]));
        let all = proxies();
        for resource in [2, 1, 2] {
            assign(&mut map, resource, "a.example", &all, Some(&["10.0.0.1"])).unwrap();
        }
        let owners = map.get(all[0]).unwrap().resources();
        assert_eq!(owners, [ResourceId::from_u128(1), ResourceId::from_u128(2)]);
    }

    #[test]
    fn only_proxy_addresses_can_be_announced() {
        let mut map = AddressMap::new(Secret::from_seed([0; 32]));
        for foreign in ["10.0.0.1", "100.64.0.1", "100.100.111.1", "::"] {
            let announced = [ips(&["100.96.0.1", foreign])].concat();
            let result = assign(&mut map, 1, "a.example", &announced, Some(&["10.0.0.1"]));
            assert_eq!(result, Err(AssignError::NotAProxy), "{foreign}");
        }
        assert_eq!(reals(&map), ["-"; 8]);
    }

    #[test]
    fn names_do_not_stand_for_this_host_or_the_tunnel() {
        let mut map = AddressMap::new(Secret::from_seed([0; 32]));
        let resolved = [
            "127.0.0.1",
            "0.0.0.0",
            "255.255.255.255",
            "224.0.0.1",
            "100.64.0.1",
            "100.96.0.9",
            "::1",
            "::",
            "ff02::1",
            "::ffff:127.0.0.1",
            "fd00:2021:1111::5",
        ];
        assign(&mut map, 1, "a.example", &proxies(), Some(&resolved)).unwrap();
        assert_eq!(reals(&map), ["none"; 8]);
    }

    #[test]
    fn number_of_entries_is_bounded() {
        let mut map = AddressMap::new(Secret::from_seed([0; 32]));
        let all: Vec<IpAddr> = ranges::proxy_addresses_v4()
            .take(MAX_ENTRIES + 1)
            .map(IpAddr::V4)
            .collect();
        assert_eq!(
            assign(&mut map, 1, "a.example", &all[1..], None),
            Ok(Assigned::Kept)
        );
        assert_eq!(
            assign(&mut map, 1, "a.example", &all[..1], None),
            Err(AssignError::TooMany)
        );
        assert_eq!(
            assign(&mut map, 1, "b.example", &all[1..2], None),
            Ok(Assigned::Renumbered)
        );
    }
}
