//! Which real address a proxy address stands for, and which resources it belongs to (tunnel spec §5.5).
//!
//! A proxy address of either family maps to a real address of that family only. Every announced proxy address has an
//! entry, also when its family has no address, so that its use is answered with "unreachable" and not "prohibited".
//!
//! A client's process that starts again hands the same proxy addresses out to other names. What it has announced itself is
//! told from what an earlier process had announced by the *generation*: the keys that a client has had, counted. An older
//! generation alone is no reason to forget an entry, since a client that roams changes its key and keeps its numbers.

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
    generation: u32,
    /// Entries of older generations.
    outdated: usize,
}

/// What is known about one proxy address.
#[derive(Debug)]
pub(in super::super) struct Entry {
    proxy: AddressKey,
    domain: DomainName,
    /// In which it was announced last.
    generation: u32,
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
    /// The client has begun to number anew: entries are gone.
    Renumbered,
}

/// Which entries an assignment leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Keep {
    All,
    /// Those of the present generation.
    Newest,
    None,
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
            generation: 0,
            outdated: 0,
        }
    }

    /// What is announced from now on is of a new generation: the client has another key.
    pub(in super::super) fn begin_generation(&mut self) {
        self.generation = self.generation.wrapping_add(1);
        self.outdated = self.entries.len();
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
    /// If one of the proxy addresses is another name's, the client has begun to number anew, and every entry of an older
    /// generation goes. If that name was announced in the present one, nothing tells old from new, and all entries go.
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
        let mut keep = self.kept_beside(&proxies, assignment.domain);
        if keep == Keep::All && self.count_with(&proxies, keep) > MAX_ENTRIES && self.outdated > 0 {
            keep = Keep::Newest;
        }
        if self.count_with(&proxies, keep) > MAX_ENTRIES {
            return Err(AssignError::TooMany);
        }
        self.forget_but(keep);
        for is_v4 in [true, false] {
            self.assign_family(assignment, &proxies, resolved, is_v4);
        }
        cover!("nat/several-names-one-address" if self.shares_an_address(assignment.domain));
        Ok(match keep {
            Keep::All => Assigned::Kept,
            Keep::Newest | Keep::None => Assigned::Renumbered,
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

    /// Which entries can stay when `domain` has these proxy addresses.
    fn kept_beside(&self, proxies: &BTreeSet<IpAddr>, domain: &DomainName) -> Keep {
        let others = proxies
            .iter()
            .filter_map(|ip| self.get(*ip))
            .filter(|entry| entry.domain != *domain);
        others.fold(Keep::All, |keep, entry| match keep {
            Keep::All | Keep::Newest if entry.generation != self.generation => Keep::Newest,
            Keep::All | Keep::Newest | Keep::None => Keep::None,
        })
    }

    /// How many entries there are once `proxies` have theirs beside those that stay.
    fn count_with(&self, proxies: &BTreeSet<IpAddr>, keep: Keep) -> usize {
        let stays = |entry: &Entry| match keep {
            Keep::All => true,
            Keep::Newest => entry.generation == self.generation,
            Keep::None => false,
        };
        let staying = match keep {
            Keep::All => self.entries.len(),
            Keep::Newest => self.entries.len() - self.outdated,
            Keep::None => 0,
        };
        let is_new = |ip: &&IpAddr| !self.get(**ip).is_some_and(stays);
        staying + proxies.iter().filter(is_new).count()
    }

    fn forget_but(&mut self, keep: Keep) {
        match keep {
            Keep::All => return,
            Keep::Newest => {
                let newest = self.generation;
                self.entries.retain(|entry| entry.generation == newest);
            }
            Keep::None => self.entries.clear(),
        }
        self.outdated = 0;
        self.places.clear();
        let places = self.entries.iter().zip(0..);
        self.places
            .extend(places.map(|(entry, place)| (entry.proxy, place)));
    }

    /// The entry of a proxy address, made if it is not there, and of the present generation from now on.
    fn announced_entry(&mut self, proxy: IpAddr, domain: &DomainName) -> &mut Entry {
        let generation = self.generation;
        let place = *self.places.entry(proxy.into()).or_insert_with(|| {
            self.entries.push(Entry {
                proxy: proxy.into(),
                domain: domain.clone(),
                generation,
                real: None,
                resources: Vec::new(),
            });
            (self.entries.len() - 1) as u32
        });
        let entry = &mut self.entries[place as usize];
        if entry.generation != generation {
            entry.generation = generation;
            self.outdated -= 1;
        }
        entry
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
            let entry = self.announced_entry(*proxy, assignment.domain);
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
mod tests;
