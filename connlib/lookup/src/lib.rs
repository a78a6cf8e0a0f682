//! Hash tables whose keys others choose: addresses, ports, names.
//!
//! A look-up costs the same among ten entries and among a hundred thousand, also when a peer picks its keys to collide:
//! the hash is a polynomial over the field of 2⁶¹ − 1 elements, evaluated at a secret point (Carter and Wegman, "Universal
//! classes of hash functions", 1979). Whatever keys are chosen without knowing the point, two of them of n words share a
//! hash with a probability of at most n / 2⁶¹; a secret multiplier spreads it over the buckets. A handful of multiplications,
//! where SipHash takes dozens of dependent steps.
//!
//! Tables are only ever looked up, never iterated: the order depends on the secret and would leak into decisions.

use std::collections::HashMap;
use std::fmt;
use std::hash::{BuildHasher, Hash, Hasher};
use std::net::IpAddr;

use rand::{RngCore, SeedableRng as _};
use rand_chacha::ChaCha20Rng;

/// A table that is looked up by key and never iterated.
pub type Table<K, V> = HashMap<K, V, Secret>;

/// The field's modulus, a Mersenne prime: reduction is an addition.
const MODULUS: u64 = (1 << 61) - 1;

/// The stream of random numbers that secrets are drawn from.
const STREAM: u64 = u64::from_be_bytes(*b"look-ups");

/// Bits of a 128-bit word that are taken in at a time; fewer than the modulus has.
const WORD_BITS: u32 = 43;

/// 2⁶⁴ divided by the golden ratio: odd, and without a pattern in its bits.
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// Bytes that are taken in at a time; fewer bits than the modulus has.
const CHUNK: usize = 7;

/// What strangers do not know about a table: where the polynomial is evaluated, and how the result is spread.
#[derive(Clone, Copy)]
pub struct Secret {
    point: u64,
    spread: u64,
}

impl Secret {
    /// The secret of somebody whose random choices all derive from `seed`. Independent of whatever else is drawn from it.
    pub fn from_seed(seed: [u8; 32]) -> Self {
        let mut rng = ChaCha20Rng::from_seed(seed);
        rng.set_stream(STREAM);
        Self::draw(&mut rng)
    }

    fn draw(rng: &mut impl RngCore) -> Self {
        Self {
            point: field_element(rng),
            spread: rng.next_u64() | 1 << 63 | 1,
        }
    }

    /// A table without entries.
    pub fn table<K, V>(self) -> Table<K, V> {
        HashMap::with_hasher(self)
    }
}

/// Uniform but for the few values at the end, and never 0 or 1, which would forget words or their order.
fn field_element(rng: &mut impl RngCore) -> u64 {
    2 + rng.next_u64() % (MODULUS - 2)
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

impl BuildHasher for Secret {
    type Hasher = KeyHasher;

    #[inline]
    fn build_hasher(&self) -> KeyHasher {
        KeyHasher {
            secret: *self,
            // One, so that leading zeros count.
            sum: 1,
        }
    }
}

/// The hash of one key in the making.
#[derive(Debug)]
pub struct KeyHasher {
    secret: Secret,
    sum: u64,
}

impl KeyHasher {
    /// Takes in one word of less than 61 bits: Horner's rule.
    #[inline]
    fn take(&mut self, word: u64) {
        self.sum = times(self.sum + word, self.secret.point);
    }
}

/// The product in the field, not quite reduced: at most a little more than [`MODULUS`].
#[inline]
fn times(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    let sum = (product as u64 & MODULUS) + (product >> 61) as u64;
    (sum & MODULUS) + (sum >> 61)
}

impl Hasher for KeyHasher {
    #[inline]
    fn finish(&self) -> u64 {
        // The table uses a few bits at either end, so all of them have to bear on all: both halves of a product. Keys in a
        // row give sums in a row, and products of these are regular still, which the second product ends.
        let product = u128::from(self.sum) * u128::from(self.secret.spread);
        let folded = product as u64 ^ (product >> 64) as u64;
        let mixed = (folded ^ folded >> 32).wrapping_mul(GOLDEN);
        mixed ^ mixed >> 32
    }

    #[inline]
    fn write(&mut self, bytes: &[u8]) {
        let (chunks, rest) = bytes.as_chunks::<CHUNK>();
        for [a, b, c, d, e, f, g] in chunks {
            self.take(u64::from_le_bytes([*a, *b, *c, *d, *e, *f, *g, 0]));
        }
        if !rest.is_empty() {
            let mut word = [0; 8];
            word[..rest.len()].copy_from_slice(rest);
            // Zeros at the end differ in their number.
            word[CHUNK] = rest.len() as u8;
            self.take(u64::from_le_bytes(word));
        }
    }

    #[inline]
    fn write_u8(&mut self, word: u8) {
        self.take(u64::from(word));
    }

    #[inline]
    fn write_u16(&mut self, word: u16) {
        self.take(u64::from(word));
    }

    #[inline]
    fn write_u32(&mut self, word: u32) {
        self.take(u64::from(word));
    }

    #[inline]
    fn write_u64(&mut self, word: u64) {
        self.take(word & u64::from(u32::MAX));
        self.take(word >> 32);
    }

    #[inline]
    fn write_u128(&mut self, word: u128) {
        let mask = (1 << WORD_BITS) - 1;
        self.take((word & mask) as u64);
        self.take((word >> WORD_BITS & mask) as u64);
        self.take((word >> (2 * WORD_BITS)) as u64);
    }

    #[inline]
    fn write_usize(&mut self, word: usize) {
        self.write_u64(word as u64);
    }
}

/// An IP address as a key: one number for both families, IPv4 as in RFC 4291 §2.5.5.2.
///
/// Hashing it takes three steps, where `IpAddr` takes in its family and its length as well.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct AddressKey {
    // Two halves, since a `u128` would make every key that holds one half as large again.
    high: u64,
    low: u64,
}

impl From<IpAddr> for AddressKey {
    #[inline]
    fn from(address: IpAddr) -> Self {
        let bits = match address {
            IpAddr::V4(v4) => v4.to_ipv6_mapped().to_bits(),
            IpAddr::V6(v6) => v6.to_bits(),
        };
        Self {
            high: (bits >> 64) as u64,
            low: bits as u64,
        }
    }
}

impl AddressKey {
    /// The address; IPv4 if it is an IPv4-mapped one.
    #[inline]
    pub fn address(self) -> IpAddr {
        IpAddr::V6(self.bits().into()).to_canonical()
    }

    #[inline]
    fn bits(self) -> u128 {
        u128::from(self.high) << 64 | u128::from(self.low)
    }
}

impl Hash for AddressKey {
    #[inline]
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u128(self.bits());
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn secret(seed: u64) -> Secret {
        Secret::draw(&mut ChaCha20Rng::seed_from_u64(seed))
    }

    fn product(a: u64, b: u64) -> u64 {
        (u128::from(a) * u128::from(b) % u128::from(MODULUS)) as u64
    }

    /// Numbers of entries in the fullest of as many buckets as there are keys, by the low bits as the table takes them, and
    /// by the upper seven, which are its tags.
    fn fullest(keys: impl ExactSizeIterator<Item = impl Hash>, secret: Secret) -> (usize, usize) {
        let buckets = keys.len().next_power_of_two() as u64;
        let (mut low, mut tags) = (BTreeMap::new(), BTreeMap::new());
        for key in keys {
            let hash = secret.hash_one(key);
            *low.entry(hash % buckets).or_insert(0) += 1;
            *tags.entry(hash >> 57).or_insert(0) += 1;
        }
        let most = |counts: BTreeMap<u64, usize>| counts.into_values().max().unwrap_or(0);
        (most(low), most(tags))
    }

    /// Keys as clients choose them: few addresses, ports in a row, or everything a multiple of something.
    #[test]
    fn regular_keys_spread_like_random_ones() {
        const KEYS: u32 = 1 << 16;
        for seed in 0..20 {
            let secret = secret(seed);
            for stride in [1, 2, 3, 255, 256, 4096, 65_535, 65_536] {
                let address = |index: u32| AddressKey::from(IpAddr::V4(index.into()));
                let keys = (0..KEYS).map(|i| (address(0x0a00_0000 + (i >> 8) * stride), i & 0xff));
                let (low, tag) = fullest(keys, secret);
                // Random numbers: 8 or 9 in the fullest bucket, 512 ± 70 under one tag.
                assert!(low <= 14, "stride {stride}: {low} in one bucket");
                assert!(tag <= 1_100, "stride {stride}: {tag} under one tag");
            }
        }
    }

    /// Keys that collide for one who knows the secret are ordinary keys under another.
    #[test]
    fn chosen_collisions_need_the_secret() {
        let known = secret(1);
        let chosen: Vec<_> = (0..u64::MAX)
            .filter(|key| known.hash_one(key).is_multiple_of(256))
            .take(256)
            .collect();
        let of = |seed| fullest(chosen.iter(), secret(seed)).0;
        assert_eq!(of(1), 256);
        assert!(of(2) <= 12, "{}", of(2));
    }

    #[test]
    fn addresses_come_back() {
        for text in ["10.0.0.1", "0.0.0.0", "::", "fd00::1"] {
            let address: IpAddr = text.parse().unwrap();
            assert_eq!(AddressKey::from(address).address(), address);
        }
    }

    proptest! {
        #[test]
        fn products_are_those_of_the_field(a in 0..MODULUS, b in 0..MODULUS) {
            prop_assert_eq!(times(a, b) % MODULUS, product(a, b));
            prop_assert!(times(a, b) <= MODULUS + 1);
        }

        /// Nothing overflows, whatever is taken in.
        #[test]
        fn different_keys_have_different_hashes(a: Vec<u8>, b: Vec<u8>, c: u128, d: u128, seed: u64) {
            let secret = secret(seed);
            prop_assert_eq!(a == b, secret.hash_one(&a) == secret.hash_one(&b));
            prop_assert_eq!(c == d, secret.hash_one(c) == secret.hash_one(d));
            prop_assert_eq!(secret.hash_one(u128::MAX), secret.hash_one(u128::MAX));
        }
    }
}
