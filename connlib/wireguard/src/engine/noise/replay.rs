//! Which counters of a session were seen (whitepaper §5.4.6; RFC 6479 describes the ring).
//!
//! A window ends at the greatest counter seen and goes back [`WINDOW`] counters. Check before decrypting, mark after: a forged
//! message must not move it.

const WORD_BITS: u64 = u64::BITS as u64;

/// Words of the ring: 8192 counters, as in the kernel. A train of datagrams that overtakes another one is some 50 long.
const WORDS: u64 = 128;

/// One word of the ring is being refilled, so it does not count.
pub(super) const WINDOW: u64 = (WORDS - 1) * WORD_BITS;

/// The counters seen.
pub(super) struct Replay {
    /// One more than the greatest counter seen; counters stay far below the end of their range.
    next: u64,
    ring: [u64; WORDS as usize],
}

impl Replay {
    pub(super) fn new() -> Self {
        Self {
            next: 0,
            ring: [0; WORDS as usize],
        }
    }

    /// Whether `counter` is new. One that is too old to tell is not.
    #[inline]
    pub(super) fn is_new(&self, counter: u64) -> bool {
        if counter >= self.next {
            return true;
        }

        self.next - counter <= WINDOW && self.ring[word(counter)] & bit(counter) == 0
    }

    /// Marks a counter that [`is_new`](Self::is_new).
    #[inline]
    pub(super) fn mark(&mut self, counter: u64) {
        if counter >= self.next {
            self.advance(counter);
        }
        self.ring[word(counter)] |= bit(counter);
    }

    /// Empties the words between the greatest counter so far and this one.
    #[inline]
    fn advance(&mut self, counter: u64) {
        let (from, to) = (self.next.div_ceil(WORD_BITS), counter / WORD_BITS);

        // At most each word once, and none while the counter stays in the last one.
        for block in from.max((to + 1).saturating_sub(WORDS))..=to {
            self.ring[(block % WORDS) as usize] = 0;
        }
        self.next = counter + 1;
    }
}

#[inline]
fn word(counter: u64) -> usize {
    (counter / WORD_BITS % WORDS) as usize
}

#[inline]
fn bit(counter: u64) -> u64 {
    1 << (counter % WORD_BITS)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;
    use crate::message::REJECT_AFTER_MESSAGES;

    /// The window as one would write it down.
    #[derive(Default)]
    struct Naive {
        seen: BTreeSet<u64>,
    }

    impl Naive {
        fn accepts(&mut self, counter: u64) -> bool {
            let newest = self.seen.last().copied();
            let too_old =
                newest.is_some_and(|newest| counter < newest && newest - counter >= WINDOW);

            !too_old && self.seen.insert(counter)
        }
    }

    fn accepts(replay: &mut Replay, counter: u64) -> bool {
        let new = replay.is_new(counter);
        if new {
            replay.mark(counter);
        }
        new
    }

    #[test]
    fn edges_of_the_window() {
        let mut replay = Replay::new();
        assert!(accepts(&mut replay, 0));
        assert!(!accepts(&mut replay, 0));
        assert!(accepts(&mut replay, 100_000));
        assert!(accepts(&mut replay, 100_001 - WINDOW));
        assert!(!accepts(&mut replay, 100_001 - WINDOW));
        assert!(!accepts(&mut replay, 100_000 - WINDOW));
        assert!(accepts(&mut replay, 99_999));
        assert!(!accepts(&mut replay, 100_000));
    }

    /// A message that is not authentic is checked and not marked.
    #[test]
    fn checking_changes_nothing() {
        let mut replay = Replay::new();
        assert!(accepts(&mut replay, 7));
        assert!(replay.is_new(1 << 40));
        assert!(replay.is_new(3));
        assert!(!replay.is_new(7));
    }

    #[test]
    fn the_greatest_counter_that_is_accepted() {
        let mut replay = Replay::new();
        assert!(accepts(&mut replay, REJECT_AFTER_MESSAGES - 1));
        assert!(!accepts(&mut replay, REJECT_AFTER_MESSAGES - 1));
        assert!(accepts(&mut replay, REJECT_AFTER_MESSAGES - 2));
        assert!(!accepts(&mut replay, 0));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]

        #[test]
        fn equals_the_naive_window(
            steps in proptest::collection::vec((any::<bool>(), 0u64..4, 0u64..20_000), 1..400),
            start in prop_oneof![Just(0), any::<u32>().prop_map(u64::from), Just(1u64 << 62)],
        ) {
            let (mut replay, mut naive) = (Replay::new(), Naive::default());
            let mut at = start;
            for (forward, scale, distance) in steps {
                // Mostly near, sometimes beyond the window.
                let distance = distance >> (scale * 4);
                let counter = if forward { at + distance } else { at.saturating_sub(distance) };
                at = at.max(counter);
                prop_assert_eq!(accepts(&mut replay, counter), naive.accepts(counter), "counter {}", counter);
            }
        }

        #[test]
        fn in_order_everything_is_new_once(start in 0u64..1 << 40, len in 1u64..20_000) {
            let mut replay = Replay::new();
            for counter in start..start + len {
                prop_assert!(accepts(&mut replay, counter));
            }
            prop_assert!(!replay.is_new(start + len - 1));
        }
    }
}
