//! Devices: clients and gateways that have been here, with their tunnel addresses (portal protocol §7.7).
//!
//! A device is recognised by its owner and the id that it sends; while both stay, its id, addresses and secret stay,
//! also over restarts of the portal. Only its key, name and version change.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{Ipv4Addr, Ipv6Addr},
};

use connlib_messages::Key;
use connlib_model::{SiteId, ranges};
use rand::Rng;
use uuid::Uuid;

use crate::config::PersonId;

/// Most devices of one person or one site. A token's holder chooses the ids of devices, so without a bound it could
/// fill the address range.
pub const MAX_DEVICES_PER_OWNER: usize = 1000;

/// Addresses in a tunnel range of either family (a /11 and a /107).
const RANGE_SIZE: u32 = 1 << 21;

/// Who a device belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Owner {
    /// A client of this person.
    Person(PersonId),
    /// A gateway of this site.
    Site(SiteId),
}

/// A client or gateway that has been here.
#[derive(Clone, PartialEq, Eq)]
pub struct Device {
    /// Becomes its client id or gateway id.
    pub id: Uuid,
    /// Who it belongs to.
    pub owner: Owner,
    /// The id that it sends.
    pub external_id: String,
    /// Display name.
    pub name: String,
    /// Tunnel address.
    pub ipv4: Ipv4Addr,
    /// Tunnel address.
    pub ipv6: Ipv6Addr,
    /// Its share of preshared keys; secret.
    pub psk_base: [u8; 32],
    /// WireGuard key of its latest connection.
    pub public_key: Key,
    /// When it connected last, Unix seconds.
    pub last_seen: u64,
}

/// Without the secret.
impl std::fmt::Debug for Device {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Device")
            .field("id", &self.id)
            .field("owner", &self.owner)
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// A device asks to be let in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Arrival {
    pub(crate) owner: Owner,
    pub(crate) external_id: String,
    pub(crate) name: String,
    pub(crate) public_key: Key,
    pub(crate) unix: u64,
}

/// The owner has [`MAX_DEVICES_PER_OWNER`] devices, or every address is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Full;

/// All devices.
#[derive(Debug, Default)]
pub(crate) struct Devices {
    by_id: BTreeMap<Uuid, Device>,
    by_key: BTreeMap<(Owner, String), Uuid>,
    used_v4: BTreeSet<Ipv4Addr>,
    used_v6: BTreeSet<Ipv6Addr>,
}

impl Devices {
    /// Takes in stored devices.
    pub(crate) fn new(stored: impl IntoIterator<Item = Device>) -> Self {
        let mut devices = Self::default();
        for device in stored {
            devices.insert(device);
        }
        devices
    }

    pub(crate) fn get(&self, id: Uuid) -> Option<&Device> {
        self.by_id.get(&id)
    }

    pub(crate) fn find(&self, owner: Owner, external_id: &str) -> Option<&Device> {
        let id = self.by_key.get(&(owner, external_id.to_owned()))?;
        self.by_id.get(id)
    }

    pub(crate) fn len(&self) -> usize {
        self.by_id.len()
    }

    /// The device that arrives, known or new, with its key, name and time brought up to date.
    pub(crate) fn upsert(&mut self, arrival: Arrival, rng: &mut impl Rng) -> Result<&Device, Full> {
        let key = (arrival.owner, arrival.external_id.clone());
        let id = match self.by_key.get(&key) {
            Some(id) => *id,
            None => self.create(&arrival, rng)?,
        };
        let device = self.by_id.get_mut(&id).expect("every key names a device");
        device.name = arrival.name;
        device.public_key = arrival.public_key;
        device.last_seen = arrival.unix;
        Ok(device)
    }

    fn create(&mut self, arrival: &Arrival, rng: &mut impl Rng) -> Result<Uuid, Full> {
        let first = (arrival.owner, String::new());
        let of_owner = self.by_key.range(first..);
        let count = of_owner
            .take_while(|((owner, _), _)| *owner == arrival.owner)
            .count();
        if count >= MAX_DEVICES_PER_OWNER {
            return Err(Full);
        }
        let v4 = |offset| Ipv4Addr::from(u32::from(ranges::TUNNEL_V4.addr()) + offset);
        let v6 = |offset| Ipv6Addr::from(u128::from(ranges::TUNNEL_V6.addr()) + u128::from(offset));
        let ipv4 = next_free(rng, |offset| {
            let ip = v4(offset);
            (!self.used_v4.contains(&ip)).then_some(ip)
        })?;
        let ipv6 = next_free(rng, |offset| {
            let ip = v6(offset);
            (!self.used_v6.contains(&ip)).then_some(ip)
        })?;
        let id = uuid::Builder::from_random_bytes(rng.random()).into_uuid();
        self.insert(Device {
            id,
            owner: arrival.owner,
            external_id: arrival.external_id.clone(),
            name: arrival.name.clone(),
            ipv4,
            ipv6,
            psk_base: rng.random(),
            public_key: arrival.public_key,
            last_seen: arrival.unix,
        });
        Ok(id)
    }

    fn insert(&mut self, device: Device) {
        self.used_v4.insert(device.ipv4);
        self.used_v6.insert(device.ipv6);
        let key = (device.owner, device.external_id.clone());
        self.by_key.insert(key, device.id);
        self.by_id.insert(device.id, device);
    }
}

/// The first free address from a random offset on, without the two first and the two last of the range.
fn next_free<T>(rng: &mut impl Rng, free: impl Fn(u32) -> Option<T>) -> Result<T, Full> {
    let start = rng.random_range(2..=RANGE_SIZE - 2);
    let offsets = (start..=RANGE_SIZE - 2).chain(2..start);
    offsets.into_iter().find_map(free).ok_or(Full)
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng as _;
    use rand_chacha::ChaCha20Rng;

    use super::*;

    fn arrival(owner: u128, external_id: &str) -> Arrival {
        Arrival {
            owner: Owner::Person(PersonId(Uuid::from_u128(owner))),
            external_id: external_id.to_owned(),
            name: "laptop".to_owned(),
            public_key: Key([1; 32]),
            unix: 7,
        }
    }

    // portal 97
    #[test]
    fn portal_97_addresses_in_range_unique_and_stable() {
        let mut rng = ChaCha20Rng::from_seed([3; 32]);
        let mut devices = Devices::default();
        let mut seen = BTreeSet::new();
        for index in 0..500 {
            let arrival = arrival(index % 3, &format!("device {index}"));
            let first = devices.upsert(arrival.clone(), &mut rng).unwrap().clone();
            assert!(ranges::TUNNEL_V4.contains(&first.ipv4));
            assert!(ranges::TUNNEL_V6.contains(&first.ipv6));
            assert!(seen.insert((first.ipv4, first.ipv6)));
            let again = Arrival {
                public_key: Key([2; 32]),
                ..arrival
            };
            let again = devices.upsert(again, &mut rng).unwrap();
            assert_eq!(
                (again.id, again.ipv4, again.ipv6),
                (first.id, first.ipv4, first.ipv6)
            );
            assert_eq!(again.psk_base, first.psk_base);
            assert_eq!(again.public_key, Key([2; 32]));
        }
    }

    #[test]
    fn stored_devices_keep_their_addresses() {
        let mut rng = ChaCha20Rng::from_seed([3; 32]);
        let mut devices = Devices::default();
        let stored = devices.upsert(arrival(1, "a"), &mut rng).unwrap().clone();
        let mut restarted = Devices::new([stored.clone()]);
        assert_eq!(
            restarted.upsert(arrival(1, "a"), &mut rng).unwrap(),
            &stored
        );
        let other = restarted.upsert(arrival(2, "a"), &mut rng).unwrap();
        assert_ne!(other.ipv4, stored.ipv4);
    }

    #[test]
    fn devices_of_one_owner_are_bounded() {
        let mut rng = ChaCha20Rng::from_seed([3; 32]);
        let mut devices = Devices::default();
        for index in 0..MAX_DEVICES_PER_OWNER {
            devices
                .upsert(arrival(1, &index.to_string()), &mut rng)
                .unwrap();
        }
        assert_eq!(
            devices.upsert(arrival(1, "more"), &mut rng).err(),
            Some(Full)
        );
        assert!(devices.upsert(arrival(1, "5"), &mut rng).is_ok());
        assert!(devices.upsert(arrival(2, "more"), &mut rng).is_ok());
    }

    #[test]
    fn offsets_wrap_around_to_the_first_free_one() {
        let mut rng = ChaCha20Rng::from_seed([3; 32]);
        let last_free = next_free(&mut rng, |offset| (offset == 2).then_some(offset));
        assert_eq!(last_free, Ok(2));
        assert_eq!(next_free(&mut rng, |_| None::<u32>), Err(Full));
    }
}
