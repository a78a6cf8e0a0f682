//! Notices on the controlled side that the peer has left the nominated pair for another one.
//!
//! The controlling side checks every pair that it uses at the same pace and marks the checks of those that it has nominated. When
//! a NAT gives it another port (restart, expired mapping), its checks arrive on a new pair only. The agent stays on the old pair,
//! which ranks as high, until that has failed: ten minutes on the patient controlled side, and even a client that starts over
//! would be answered into the void. So pairs are counted: one that was nominated again and again since the nominated pair was last
//! checked is a rival, whatever the pace.

use std::collections::BTreeMap;
use std::net::SocketAddr;

/// Nominating checks on another pair, without any on the nominated one in between, that make it a rival: a few lost datagrams on
/// the nominated pair are no reason.
const PERSISTENCE: u8 = 4;

/// Most pairs counted at once.
const MAX_PAIRS: usize = 128;

/// Our end and the peer's end.
pub(super) type Pair = (SocketAddr, SocketAddr);

/// Checks on pairs other than the nominated one.
#[derive(Debug, Default)]
pub(super) struct Rivals {
    counts: BTreeMap<Pair, u8>,
}

impl Rivals {
    /// The nominated pair is alive, or another one was nominated.
    pub(super) fn clear(&mut self) {
        self.counts.clear();
    }

    /// A nominating check arrived on `pair`. Returns whether the peer has left the nominated pair for it.
    pub(super) fn is_persistent(&mut self, pair: Pair) -> bool {
        if self.counts.len() >= MAX_PAIRS && !self.counts.contains_key(&pair) {
            return false;
        }
        let count = self.counts.entry(pair).or_default();
        *count += 1;
        let is_persistent = *count >= PERSISTENCE;
        if is_persistent {
            self.clear();
        }
        is_persistent
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
        let verdicts: Vec<bool> = (0..5).map(|_| rivals.is_persistent(pair(1))).collect();
        assert_eq!(verdicts, [false, false, false, true, false]);
    }

    #[test]
    fn a_check_on_the_nominated_pair_starts_over() {
        let mut rivals = Rivals::default();
        for _ in 0..10 {
            for _ in 0..3 {
                assert!(!rivals.is_persistent(pair(1)));
            }
            rivals.clear();
        }
    }

    #[test]
    fn pairs_are_bounded() {
        let mut rivals = Rivals::default();
        for port in 0..1000 {
            rivals.is_persistent(pair(port));
        }
        assert_eq!(rivals.counts.len(), MAX_PAIRS);
    }
}
