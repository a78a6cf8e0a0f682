//! When the peer's checks arrived, by pair: tells on the controlled side whether the peer has left our path.
//!
//! ICE alone decides about paths, and the controlling side decides in ICE. But the agent of the controlled side learns late that a
//! nomination is void: it stays on a dead pair for minutes, and what it sends there is lost although the peer has long found
//! another way. What the peer sends on another pair under WireGuard, a handshake or data, is proof of where it sends and receives
//! now. It is believed only if the peer's own checks agree: they arrive on that pair, and have ceased on our path. So what was
//! overtaken by a nomination changes nothing.
//!
//! A handshake is remembered, since the next one is seconds away; of data there is more, or no reply to be lost.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::Pair;

/// Without a check for this long, an active peer does not use a pair: checks are 1.5 s apart. An idle peer checks every 25 s;
/// there what it sends is the better witness.
const SILENCE: Duration = Duration::from_secs(2);

/// Most pairs that are remembered; checks on further ones are not.
const MAX_PAIRS: usize = 128;

/// The latest check on each pair, and where the peer has started a handshake.
#[derive(Debug, Default)]
pub(super) struct Arrivals {
    latest: BTreeMap<Pair, Instant>,
    handshake: Option<Handshake>,
}

/// A handshake on another pair than our path.
#[derive(Debug, Clone, Copy)]
struct Handshake {
    path: Pair,
    pair: Pair,
}

impl Arrivals {
    /// A check arrived.
    pub(super) fn note_check(&mut self, pair: Pair, now: Instant) {
        if self.latest.len() < MAX_PAIRS || self.latest.contains_key(&pair) {
            self.latest.insert(pair, now);
        }
    }

    /// The peer has started a handshake on `pair`, while `path` is ours.
    pub(super) fn note_handshake(&mut self, path: Pair, pair: Pair) {
        self.handshake = (path != pair).then_some(Handshake { path, pair });
    }

    /// The pair for which the peer has left our path, if it has; once. The first check on that pair may arrive behind the
    /// handshake.
    pub(super) fn take_moved(&mut self, now: Instant) -> Option<Pair> {
        let Handshake { path, pair } = self.handshake?;
        let has_moved = self.has_moved(path, pair, now);
        if has_moved {
            self.handshake = None;
        }

        has_moved.then_some(pair)
    }

    /// Whether the peer's checks agree that it has left our `path` for `pair`, on which it sends.
    pub(super) fn has_moved(&self, path: Pair, pair: Pair, now: Instant) -> bool {
        let is_silent = |at: &Instant| now.saturating_duration_since(*at) >= SILENCE;
        self.latest.contains_key(&pair) && self.latest.get(&path).is_none_or(is_silent)
    }
}

#[cfg(test)]
#[expect(
    clippy::disallowed_methods,
    reason = "a test's time begins at any instant"
)]
mod tests {
    use std::net::SocketAddr;

    use super::*;

    fn pair(port: u16) -> Pair {
        let local = SocketAddr::from(([192, 0, 2, 1], 1));
        (local, SocketAddr::from(([198, 51, 100, 1], port)))
    }

    #[test]
    fn a_pair_that_is_checked_is_believed_when_the_path_has_become_silent() {
        let now = Instant::now();
        let mut arrivals = Arrivals::default();
        arrivals.note_check(pair(1), now);
        arrivals.note_check(pair(2), now);
        assert_eq!(arrivals.take_moved(now + SILENCE), None, "no handshake");
        arrivals.note_handshake(pair(1), pair(2));
        let early = now + SILENCE - Duration::from_millis(1);
        assert_eq!(arrivals.take_moved(early), None);
        assert_eq!(arrivals.take_moved(now + SILENCE), Some(pair(2)));
        assert_eq!(arrivals.take_moved(now + SILENCE), None, "once");
    }

    #[test]
    fn the_first_check_may_come_behind_the_handshake() {
        let now = Instant::now();
        let mut arrivals = Arrivals::default();
        arrivals.note_handshake(pair(1), pair(2));
        assert_eq!(arrivals.take_moved(now), None);
        arrivals.note_check(pair(3), now);
        assert_eq!(arrivals.take_moved(now), None);
        arrivals.note_check(pair(2), now);
        assert_eq!(arrivals.take_moved(now), Some(pair(2)));
    }

    #[test]
    fn a_handshake_on_our_path_settles_it() {
        let now = Instant::now();
        let mut arrivals = Arrivals::default();
        arrivals.note_check(pair(2), now);
        arrivals.note_handshake(pair(1), pair(2));
        arrivals.note_handshake(pair(1), pair(1));
        assert_eq!(arrivals.take_moved(now), None);
    }

    #[test]
    fn data_is_believed_when_the_path_has_become_silent() {
        let now = Instant::now();
        let mut arrivals = Arrivals::default();
        arrivals.note_check(pair(1), now);
        let late = now + SILENCE;
        assert!(!arrivals.has_moved(pair(1), pair(2), late), "no check");
        arrivals.note_check(pair(2), now);
        let early = late - Duration::from_millis(1);
        assert!(!arrivals.has_moved(pair(1), pair(2), early));
        assert!(arrivals.has_moved(pair(1), pair(2), late));
        arrivals.note_check(pair(1), late);
        assert!(!arrivals.has_moved(pair(1), pair(2), late), "overtaken");
    }

    #[test]
    fn pairs_are_bounded() {
        let now = Instant::now();
        let mut arrivals = Arrivals::default();
        for port in 0..1000 {
            arrivals.note_check(pair(port), now);
        }
        assert_eq!(arrivals.latest.len(), MAX_PAIRS);
    }
}
