//! Virtual time: one object moves the monotonic and the wall clock in lock-step (testing V1, V5).

use std::time::{Duration, Instant};

use portal_core::Time;

/// Wall clock at the start of every case: Monday 2026-01-05, 12:00 UTC.
const UNIX_START: Duration = Duration::from_secs(1_767_614_400);

/// The case's clock.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    start: Instant,
    now: Instant,
}

impl Clock {
    /// A clock at the start of a case.
    #[expect(
        clippy::disallowed_methods,
        reason = "virtual time starts somewhere; only differences to this instant are used"
    )]
    pub fn start() -> Self {
        let start = Instant::now();
        crate::logs::set_time(Duration::ZERO);
        Self { start, now: start }
    }

    /// The present.
    pub fn now(&self) -> Instant {
        self.now
    }

    /// Time since the start of the case.
    pub fn elapsed(&self) -> Duration {
        self.now - self.start
    }

    /// Time since the Unix epoch.
    pub fn unix(&self) -> Duration {
        UNIX_START + self.elapsed()
    }

    /// The present as the portal wants it.
    pub fn portal_time(&self) -> Time {
        Time {
            now: self.now,
            unix: self.unix().as_secs(),
        }
    }

    /// Moves on; never back.
    pub fn advance_to(&mut self, instant: Instant) {
        self.now = self.now.max(instant);
        crate::logs::set_time(self.elapsed());
    }
}
