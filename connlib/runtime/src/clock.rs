//! Time as the state machines see it: monotonic, and counting the time that the machine slept.

use std::time::{Duration, Instant, SystemTime};

/// The wall clock has to run ahead of the monotonic one by this much between two samples to count as a suspend.
const SUSPEND_THRESHOLD: Duration = Duration::from_secs(1);

/// `Instant` stops while Linux is suspended, so a resumed client would believe its sessions fresh. This clock adds what
/// the wall clock advanced beyond it (tunnel spec §2). Setting the wall clock by hand may therefore lengthen, but
/// never shorten, the result.
#[derive(Debug)]
pub(crate) struct Clock {
    monotonic: Instant,
    wall: SystemTime,
    slept: Duration,
}

impl Clock {
    /// A clock that starts now.
    pub(crate) fn start() -> Self {
        Self {
            monotonic: Instant::now(),
            wall: SystemTime::now(),
            slept: Duration::ZERO,
        }
    }

    /// The current instant. Once per batch, not per packet.
    pub(crate) fn now(&mut self) -> Instant {
        self.sample(Instant::now(), SystemTime::now())
    }

    fn sample(&mut self, monotonic: Instant, wall: SystemTime) -> Instant {
        let ran = monotonic.saturating_duration_since(self.monotonic);
        let passed = wall.duration_since(self.wall).unwrap_or(ran);
        let ahead = passed.saturating_sub(ran);
        if ahead > SUSPEND_THRESHOLD {
            tracing::info!(seconds = ahead.as_secs(), "The machine was suspended");
            self.slept += ahead;
        }
        self.monotonic = monotonic;
        self.wall = wall;
        monotonic + self.slept
    }
}

/// UTC as the time since the Unix epoch; zero before 1970.
pub(crate) fn unix_now() -> Duration {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn suspend_is_counted_and_set_back_clocks_are_not() {
        let mut clock = Clock::start();
        let (monotonic, wall) = (clock.monotonic, clock.wall);

        let awake = clock.sample(monotonic + SECOND, wall + SECOND);
        let resumed = clock.sample(monotonic + 2 * SECOND, wall + 602 * SECOND);
        let set_back = clock.sample(monotonic + 3 * SECOND, wall - 600 * SECOND);

        assert_eq!(awake, monotonic + SECOND);
        assert_eq!(resumed, monotonic + 602 * SECOND);
        assert_eq!(set_back, monotonic + 603 * SECOND);
    }

    #[test]
    fn small_drift_between_the_clocks_does_not_add_up() {
        let mut clock = Clock::start();
        let (monotonic, wall) = (clock.monotonic, clock.wall);
        let drift = Duration::from_millis(900);

        for i in 1..10 {
            clock.sample(monotonic + i * SECOND, wall + i * (SECOND + drift));
        }

        assert_eq!(clock.slept, Duration::ZERO);
    }
}
