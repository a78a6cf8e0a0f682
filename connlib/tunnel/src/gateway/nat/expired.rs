//! Outside tuples of sessions that have ended.
//!
//! A late packet of such a session must not reach the client untranslated: it would come from an address that the client
//! never contacted.

use std::collections::VecDeque;

use connlib_lookup::{Secret, Table};

use super::tuple::Tuple;

/// Remembered tuples; the oldest is forgotten first. A packet this late finds no listener any more.
const MAX_EXPIRED: usize = 65_536;

/// A bounded set of tuples.
#[derive(Debug)]
pub(super) struct ExpiredTuples {
    /// Tuple to its number of insertion.
    tuples: Table<Tuple, u64>,
    /// Insertions in order; those of removed tuples are stale.
    order: VecDeque<(u64, Tuple)>,
    next: u64,
}

impl ExpiredTuples {
    pub(super) fn new(secret: Secret) -> Self {
        Self {
            tuples: secret.table(),
            order: VecDeque::new(),
            next: 0,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.tuples.is_empty()
    }

    pub(super) fn contains(&self, tuple: Tuple) -> bool {
        self.tuples.contains_key(&tuple)
    }

    pub(super) fn insert(&mut self, tuple: Tuple) {
        let number = self.next;
        self.next += 1;
        self.tuples.insert(tuple, number);
        self.order.push_back((number, tuple));
        if self.order.len() > MAX_EXPIRED
            && let Some((oldest, tuple)) = self.order.pop_front()
            && self.tuples.get(&tuple) == Some(&oldest)
        {
            self.tuples.remove(&tuple);
        }
    }

    pub(super) fn remove(&mut self, tuple: Tuple) {
        self.tuples.remove(&tuple);
    }
}

#[cfg(test)]
mod tests {
    use ip_packet::Protocol;

    use super::*;

    fn tuple(number: usize) -> Tuple {
        let [_, a, b, c] = (number as u32).to_be_bytes();
        Tuple::new([10, a, b, c].into(), Protocol::Udp(1))
    }

    #[test]
    fn oldest_are_forgotten_first() {
        let mut expired = ExpiredTuples::new(Secret::from_seed([0; 32]));
        for number in 0..=MAX_EXPIRED {
            expired.insert(tuple(number));
        }
        assert!(!expired.contains(tuple(0)));
        assert!(expired.contains(tuple(1)));
        assert_eq!(expired.tuples.len(), MAX_EXPIRED);
    }

    #[test]
    fn reuse_does_not_make_the_set_grow_or_forget_early() {
        let mut expired = ExpiredTuples::new(Secret::from_seed([0; 32]));
        expired.insert(tuple(1));
        for _ in 0..MAX_EXPIRED {
            expired.insert(tuple(2));
            expired.remove(tuple(2));
        }
        expired.insert(tuple(2));
        assert!(expired.order.len() <= MAX_EXPIRED);
        assert!(expired.contains(tuple(2)));
    }
}
