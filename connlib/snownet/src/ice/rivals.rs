//! Notices on the controlled side that the peer has left the nominated pair for another one.
//!
//! The controlling side checks every pair that it uses at the same pace and marks the checks of those that it has nominated. When
//! a NAT gives it another port (restart, expired mapping), its checks arrive on a new pair only. The agent stays on the old pair,
//! which ranks as high, until that has failed: ten minutes on the patient controlled side, and even a client that starts over
//! would be answered into the void. So pairs are counted: one that was nominated again and again since the nominated pair was last
//! checked is a rival, whatever the pace.
//!
//! The peer may have nominated more pairs that died with the nominated one (both families of a direct path). The agent would go
//! on to the next best of them, so all that were as silent are left at once.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

/// Nominating checks on another pair, without any on the nominated one in between, that make it a rival: a few lost datagrams on
/// the nominated pair are no reason.
const PERSISTENCE: u8 = 4;

/// Most pairs counted at once.
const MAX_PAIRS: usize = 128;

/// Our end and the peer's end.
pub(crate) type Pair = (SocketAddr, SocketAddr);

/// Checks on pairs other than the nominated one.
#[derive(Debug, Default)]
pub(super) struct Rivals {
    counts: BTreeMap<Pair, u8>,
    /// Every pair that the peer has nominated and not left.
    nominated: BTreeSet<Pair>,
}

impl Rivals {
    /// The nominated pair is alive, or another one was nominated.
    pub(super) fn clear(&mut self) {
        self.counts.clear();
    }

    /// The peer nominates `pair`, which is our choice as well.
    pub(super) fn confirm(&mut self, pair: Pair) {
        self.clear();
        self.remember(pair);
    }

    /// A nominating check arrived on `pair`, which is not our choice. Returns the pairs that the peer has left, if it has: all
    /// that it nominated before and did not check meanwhile, but for the one check that may have followed the last one on ours.
    pub(super) fn persists(&mut self, pair: Pair) -> Option<BTreeSet<Pair>> {
        self.remember(pair);
        if self.counts.len() >= MAX_PAIRS && !self.counts.contains_key(&pair) {
            return None;
        }
        let count = self.counts.entry(pair).or_default();
        *count += 1;
        if *count < PERSISTENCE {
            return None;
        }
        let checked = std::mem::take(&mut self.counts);
        let is_checked = |pair: &Pair| checked.get(pair).is_some_and(|count| *count > 1);
        let left = self.nominated.iter().filter(|pair| !is_checked(pair));
        let left = left.copied().collect();
        self.nominated.retain(is_checked);
        Some(left)
    }

    fn remember(&mut self, pair: Pair) {
        if self.nominated.len() < MAX_PAIRS {
            self.nominated.insert(pair);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(port: u16) -> Pair {
        let local = SocketAddr::from(([192, 0, 2, 1], 1));
        (local, SocketAddr::from(([198, 51, 100, 1], port)))
    }

    #[test]
    fn the_fourth_check_in_a_row_decides() {
        let mut rivals = Rivals::default();
        let verdicts: Vec<bool> = (0..5).map(|_| rivals.persists(pair(1)).is_some()).collect();
        assert_eq!(verdicts, [false, false, false, true, false]);
    }

    #[test]
    fn all_silent_pairs_are_left_at_once_and_only_once() {
        let mut rivals = Rivals::default();
        rivals.confirm(pair(1));
        rivals.persists(pair(2));
        rivals.persists(pair(3));
        rivals.confirm(pair(1));
        rivals.persists(pair(2));
        let mut left = Vec::new();
        for _ in 0..8 {
            left.extend(rivals.persists(pair(3)));
            left.extend(rivals.persists(pair(4)));
        }
        let expected: BTreeSet<_> = [pair(1), pair(2)].into();
        assert_eq!(left[0], expected);
        assert!(left[1..].iter().all(BTreeSet::is_empty), "{left:?}");
    }

    #[test]
    fn a_check_on_the_nominated_pair_starts_over() {
        let mut rivals = Rivals::default();
        for _ in 0..10 {
            for _ in 0..3 {
                assert_eq!(rivals.persists(pair(1)), None);
            }
            rivals.clear();
        }
    }

    #[test]
    fn pairs_are_bounded() {
        let mut rivals = Rivals::default();
        for port in 0..1000 {
            rivals.persists(pair(port));
        }
        assert_eq!(rivals.counts.len(), MAX_PAIRS);
        assert_eq!(rivals.nominated.len(), MAX_PAIRS);
    }
}
