//! Session indices: the 24 bits of a receiver index that name an engine (snownet §4.6, trap 7).
//!
//! The lower 8 bits of a receiver index count handshakes inside one engine; the upper 24 are drawn here, one per engine, and
//! given back when the peer goes. A random draw (instead of a counter) keeps an index from being reused soon after its release.

use std::collections::BTreeSet;
use std::fmt;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha20Rng;

/// Indices are 24 bits wide; 0 is avoided because it reads like "none".
const INDICES: std::ops::RangeInclusive<u32> = 1..=0x00ff_ffff;

/// Half of the space: a random draw then succeeds within two tries on average.
const MAX_USED: usize = 1 << 23;

/// The upper 24 bits of a receiver index: names one engine of one peer.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerIndex(u32);

impl PeerIndex {
    /// The engine that a receiver index on the wire belongs to.
    pub fn of_receiver(receiver_index: u32) -> Self {
        Self(receiver_index >> 8)
    }

    /// The 24-bit value.
    pub fn get(self) -> u32 {
        self.0
    }
}

impl fmt::Debug for PeerIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:06x}", self.0)
    }
}

/// All indices of a node that are in use.
#[derive(Debug)]
pub struct IndexTable {
    rng: ChaCha20Rng,
    used: BTreeSet<PeerIndex>,
}

/// More than 8 million engines live at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too many WireGuard peers: all session indices are in use")]
pub struct IndexesExhausted;

impl IndexTable {
    /// An empty table that draws from `seed`.
    pub fn new(seed: [u8; 32]) -> Self {
        Self {
            rng: ChaCha20Rng::from_seed(seed),
            used: BTreeSet::new(),
        }
    }

    /// Draws the two indices of a new peer: one per engine.
    pub fn allocate(&mut self) -> Result<[PeerIndex; 2], IndexesExhausted> {
        if self.used.len() + 2 > MAX_USED {
            return Err(IndexesExhausted);
        }

        Ok([self.draw(), self.draw()])
    }

    /// Gives a peer's indices back; call it when the peer is dropped.
    pub fn release(&mut self, indices: [PeerIndex; 2]) {
        for index in indices {
            self.used.remove(&index);
        }
    }

    /// How many indices are in use.
    pub fn used(&self) -> usize {
        self.used.len()
    }

    fn draw(&mut self) -> PeerIndex {
        loop {
            let index = PeerIndex(self.rng.random_range(INDICES));

            if self.used.insert(index) {
                return index;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn live_indices_never_collide_and_are_released() {
        let mut table = IndexTable::new([1; 32]);
        let all: Vec<_> = (0..2_000).map(|_| table.allocate().unwrap()).collect();
        let distinct: BTreeSet<_> = all.iter().flatten().map(|index| index.get()).collect();

        assert_eq!(distinct.len(), 4_000);
        assert!(distinct.iter().all(|index| INDICES.contains(index)));

        for pair in all {
            table.release(pair);
        }
        assert_eq!(table.used(), 0);
    }

    #[test]
    fn equal_seeds_draw_equal_indices() {
        let draw = |seed| IndexTable::new([seed; 32]).allocate().unwrap();

        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7), draw(8));
    }
}
