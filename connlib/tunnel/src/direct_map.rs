//! A direct-mapped table: memory of recent decisions.
//!
//! A decision about a flow (which resource, filter, binding, NAT state) depends on a few header fields and on tables that
//! change rarely. This table answers for the flows that are active without a hash function and without bookkeeping on a
//! hit. Every change of the tables behind it calls [`DirectMap::invalidate`], which costs one addition.

use std::net::IpAddr;

use connlib_model::GatewayId;
use ip_packet::Protocol;

/// Places; a power of two. Two keys that share a place take turns, which costs a full decision each.
const SLOTS: usize = 1024;

/// Remembers at most [`SLOTS`] decisions.
#[derive(Debug)]
pub(crate) struct DirectMap<K, V> {
    slots: Box<[Option<Slot<K, V>>]>,
    generation: u64,
}

#[derive(Debug, Clone, Copy)]
struct Slot<K, V> {
    generation: u64,
    key: K,
    value: V,
}

/// A key that can be folded into 32 bits.
///
/// The fold spreads neighbouring hosts and ports. It resists nobody: only the local user and authenticated gateways can
/// cause collisions, which slow down nobody but themselves.
pub(crate) trait Fold {
    fn fold(&self) -> u32;
}

impl<K: Copy + Eq + Fold, V: Copy> DirectMap<K, V> {
    pub(crate) fn new() -> Self {
        Self {
            slots: vec![None; SLOTS].into_boxed_slice(),
            generation: 0,
        }
    }

    /// What was decided for `key` since the last invalidation.
    pub(crate) fn get(&self, key: &K) -> Option<V> {
        let slot = self.slots[index(key)].as_ref()?;

        (slot.generation == self.generation && slot.key == *key).then_some(slot.value)
    }

    pub(crate) fn insert(&mut self, key: K, value: V) {
        self.slots[index(&key)] = Some(Slot {
            generation: self.generation,
            key,
            value,
        });
    }

    /// Forgets everything.
    pub(crate) fn invalidate(&mut self) {
        self.generation += 1;
    }

    /// Counts invalidations: a decision made under an equal generation is still right.
    pub(crate) fn generation(&self) -> u64 {
        self.generation
    }
}

impl Fold for IpAddr {
    fn fold(&self) -> u32 {
        match self {
            Self::V4(ip) => u32::from(*ip),
            Self::V6(ip) => {
                let bits = u128::from(*ip);
                (bits as u32) ^ ((bits >> 64) as u32)
            }
        }
    }
}

/// Destination address and protocol of a packet.
impl Fold for (IpAddr, Protocol) {
    fn fold(&self) -> u32 {
        let protocol = match self.1 {
            Protocol::Tcp(port) => u32::from(port),
            Protocol::Udp(port) => u32::from(port) | 1 << 16,
            Protocol::IcmpEcho(id) => u32::from(id) | 2 << 16,
        };

        self.0.fold() ^ protocol.rotate_left(7)
    }
}

/// Gateway and source address of a packet.
impl Fold for (GatewayId, IpAddr) {
    fn fold(&self) -> u32 {
        self.1.fold() ^ (self.0.as_u128() as u32)
    }
}

fn index(key: &impl Fold) -> usize {
    let mixed = key.fold().wrapping_mul(0x9E37_79B1); // 2^32 divided by the golden ratio

    (mixed >> (u32::BITS - SLOTS.trailing_zeros())) as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    const DST: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));

    #[test]
    fn hit_needs_an_equal_key() {
        let mut map = DirectMap::new();
        map.insert((DST, Protocol::Tcp(80)), 1);

        assert_eq!(map.get(&(DST, Protocol::Tcp(80))), Some(1));
        assert_eq!(map.get(&(DST, Protocol::Udp(80))), None);
        assert_eq!(map.get(&(DST, Protocol::Tcp(81))), None);
    }

    #[test]
    fn later_key_takes_the_place() {
        let mut map = DirectMap::new();
        for port in 0..=u16::MAX {
            map.insert((DST, Protocol::Udp(port)), port);
            assert_eq!(map.get(&(DST, Protocol::Udp(port))), Some(port));
        }
        let ip = "fd00::1".parse::<IpAddr>().expect("valid");
        map.insert((ip, Protocol::IcmpEcho(1)), 2);
        assert_eq!(map.get(&(ip, Protocol::IcmpEcho(1))), Some(2));
    }

    #[test]
    fn invalidation_forgets_everything() {
        let mut map = DirectMap::new();
        map.insert((DST, Protocol::Tcp(80)), 1);
        map.invalidate();
        assert_eq!(map.get(&(DST, Protocol::Tcp(80))), None);
    }
}
