//! Wall-clock time derived from the monotonic clock.
//!
//! A state machine never reads a clock. It is told the wall time once, together with the `now` of that moment; every
//! later wall time is that start plus the monotonic time since. Both directions of the conversion are exact, so a
//! deadline given as a Unix time becomes an exact [`Instant`].

use std::time::{Duration, Instant};

/// Converts between [`Instant`] and time since the Unix epoch.
#[derive(Debug, Clone, Copy)]
pub(crate) struct UnixClock {
    start: Instant,
    unix_start: Duration,
}

impl UnixClock {
    /// `unix_start` is the wall clock at `start`, as time since the Unix epoch.
    pub(crate) fn new(start: Instant, unix_start: Duration) -> Self {
        Self { start, unix_start }
    }

    /// Wall time at `now`. An instant before the start counts as the start.
    pub(crate) fn unix_at(&self, now: Instant) -> Duration {
        self.unix_start
            .saturating_add(now.saturating_duration_since(self.start))
    }

    /// The first instant at which the wall time is at least `unix`; the start if that is already so then.
    ///
    /// `None` if the instant lies beyond what the platform's clock can name, which means never.
    pub(crate) fn instant_of(&self, unix: Duration) -> Option<Instant> {
        self.start.checked_add(unix.saturating_sub(self.unix_start))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conversion_is_exact_both_ways() {
        let start = Instant::now();
        let clock = UnixClock::new(start, Duration::from_secs(1_000));
        let deadline = clock.instant_of(Duration::from_secs(1_060)).unwrap();

        assert_eq!(deadline, start + Duration::from_secs(60));
        assert_eq!(clock.unix_at(deadline), Duration::from_secs(1_060));
    }

    #[test]
    fn past_deadlines_are_the_start_and_absurd_ones_are_never() {
        let start = Instant::now();
        let clock = UnixClock::new(start, Duration::from_secs(1_000));

        assert_eq!(clock.instant_of(Duration::from_secs(999)), Some(start));
        assert_eq!(clock.instant_of(Duration::MAX), None);
    }
}
