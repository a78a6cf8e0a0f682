//! Handshake timestamps (whitepaper §5.1, §5.4.2): what makes an initiation newer than the ones before it.
//!
//! They follow the caller's `now`, so that they are right in virtual time and a wall clock that is set back does not matter.

use std::time::{Duration, Instant};

use crate::message::TIMESTAMP_LEN;

/// TAI64 label of the Unix epoch, 37 s ahead of UTC as TAI is since 2017 (<https://cr.yp.to/libtai/tai64.html>).
const TAI64_UNIX_EPOCH: u64 = (1 << 62) + 37;

/// How far the clocks of two connections made at the same instant are apart. Longer than a peer runs ahead of its clock.
const CONNECTION_STEP: Duration = Duration::from_micros(1);

/// What the wall clock shows at an instant: turns the caller's `now` into handshake timestamps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WallClock {
    at: Instant,
    unix: Duration,
}

impl WallClock {
    /// A clock that shows `unix`, as time since the Unix epoch, at `at`.
    pub fn new(at: Instant, unix: Duration) -> Self {
        Self { at, unix }
    }

    /// The clock of the next connection: each is a little ahead of those before. A connection to the same peer that is made
    /// anew with the same key continues where the last one was, even within one instant.
    #[must_use]
    pub fn next_connection(&mut self) -> Self {
        self.unix += CONNECTION_STEP;
        *self
    }

    fn unix(&self, now: Instant) -> Duration {
        match now.checked_duration_since(self.at) {
            Some(since) => self.unix.saturating_add(since),
            None => self.unix.saturating_sub(self.at.duration_since(now)),
        }
    }
}

/// A TAI64N label: 8 bytes of seconds and 4 of nanoseconds, big endian, so that bytes order like time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timestamp(pub(crate) [u8; TIMESTAMP_LEN]);

impl Timestamp {
    fn new(unix: Duration) -> Self {
        let mut bytes = [0; TIMESTAMP_LEN];
        bytes[..8].copy_from_slice(
            &TAI64_UNIX_EPOCH
                .saturating_add(unix.as_secs())
                .to_be_bytes(),
        );
        bytes[8..].copy_from_slice(&unix.subsec_nanos().to_be_bytes());

        Self(bytes)
    }

    /// Whole seconds from `earlier` to here, 0 if it is later.
    pub(crate) fn seconds_since(&self, earlier: &Self) -> u64 {
        self.seconds().saturating_sub(earlier.seconds())
    }

    fn seconds(&self) -> u64 {
        let [seconds @ .., _, _, _, _] = self.0;

        u64::from_be_bytes(seconds)
    }
}

/// The timestamps of one peer, strictly increasing.
#[derive(Debug)]
pub(crate) struct Timestamps {
    clock: WallClock,
    last: Duration,
}

impl Timestamps {
    pub(crate) fn new(clock: WallClock) -> Self {
        Self {
            clock,
            last: Duration::ZERO,
        }
    }

    pub(crate) fn next(&mut self, now: Instant) -> Timestamp {
        self.last = self
            .clock
            .unix(now)
            .max(self.last.saturating_add(Duration::from_nanos(1)));

        Timestamp::new(self.last)
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "a test may start at any instant")]
mod tests {
    use super::*;

    #[test]
    fn label_of_a_known_time() {
        // The example of the TAI64 page, as if TAI had been 37 s ahead of UTC in 1992 already.
        let unix = Duration::new(0x2a2b_2c2d - 37, 5);
        let mut expected = [0x40, 0, 0, 0, 0x2a, 0x2b, 0x2c, 0x2d, 0, 0, 0, 5];
        assert_eq!(Timestamp::new(unix).0, expected);
        expected[7] += 1;
        assert_eq!(Timestamp::new(unix + Duration::from_secs(1)).0, expected);
    }

    #[test]
    fn strictly_increasing_whatever_now_does() {
        let start = Instant::now() + Duration::from_secs(10);
        let mut stamps = Timestamps::new(WallClock::new(start, Duration::from_secs(1_700_000_000)));
        let mut last = stamps.next(start);
        for now in [
            start,
            start,
            start + Duration::from_secs(1),
            start + Duration::from_secs(1),
            start,
            start - Duration::from_secs(5),
        ] {
            let next = stamps.next(now);
            assert!(next > last, "{next:?} after {last:?}");
            last = next;
        }
        assert_eq!(last.seconds() - TAI64_UNIX_EPOCH, 1_700_000_001);
    }

    #[test]
    fn connections_made_at_one_instant_follow_each_other() {
        let start = Instant::now();
        let mut clock = WallClock::new(start, Duration::ZERO);
        let mut first = Timestamps::new(clock.next_connection());
        let mut last = first.next(start);
        for _ in 0..100 {
            last = last.max(first.next(start));
        }

        assert!(Timestamps::new(clock.next_connection()).next(start) > last);
    }

    #[test]
    fn seconds_between_two() {
        let [early, late] =
            [Duration::from_millis(1_900), Duration::from_millis(3_100)].map(Timestamp::new);

        assert_eq!(late.seconds_since(&early), 2);
        assert_eq!(early.seconds_since(&late), 0);
    }
}
