//! Hash tables whose keys strangers choose: SipHash-1-3 with a secret from the relay's seed.
//!
//! The tables are only ever looked up, never iterated, so their order cannot leak into decisions.

use std::{
    collections::HashMap,
    hash::{BuildHasher, DefaultHasher, Hasher as _},
};

use rand::RngCore;

/// A table looked up by key, never iterated.
pub(crate) type Table<K, V> = HashMap<K, V, SecretHash>;

/// Hashers that all begin in the same secret state: a SipHash that has taken in 128 secret bits.
#[derive(Clone)]
pub(crate) struct SecretHash(DefaultHasher);

impl SecretHash {
    pub(crate) fn draw(rng: &mut impl RngCore) -> Self {
        let mut hasher = DefaultHasher::new();
        hasher.write_u64(rng.next_u64());
        hasher.write_u64(rng.next_u64());
        Self(hasher)
    }
}

impl BuildHasher for SecretHash {
    type Hasher = DefaultHasher;

    #[inline]
    fn build_hasher(&self) -> DefaultHasher {
        self.0.clone()
    }
}

impl std::fmt::Debug for SecretHash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SecretHash")
    }
}
