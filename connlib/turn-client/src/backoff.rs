//! Retry schedules of requests (snownet spec §2.4) and of suspended allocations (§2.5).

use std::time::{Duration, Instant};

/// Time from the first transmission to the second.
const FIRST_INTERVAL: Duration = Duration::from_secs(1);
/// A request older than this is not sent again; its next trigger (8.125 s) is the verdict.
const BUDGET: Duration = Duration::from_secs(8);
/// The same for a question to a silent relay; the verdict falls after 20.8 s. The silence may be that of our own network,
/// so it takes longer than ICE does to find out (16.5 s), and none of what survives such an outage is lost to the question.
const PATIENT_BUDGET: Duration = Duration::from_secs(16);
/// Time that the one transmission of a probe gets.
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);

/// When a request is sent again, and when it is dead.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Backoff {
    /// Transmissions at 0, 1, 2.5 and 4.75 s, verdict at 8.125 s; more of them with a larger budget.
    Ladder {
        start: Instant,
        budget: Duration,
        interval: Duration,
        next: Instant,
    },
    /// One transmission, verdict after 1 s.
    OneShot { deadline: Instant },
}

/// What to do with a request whose trigger has been reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The trigger lies in the future.
    Wait,
    /// Send again.
    Resend,
    /// No answer will come.
    Dead,
}

impl Backoff {
    pub(crate) fn ladder(now: Instant) -> Self {
        Self::ladder_of(BUDGET, now)
    }

    pub(crate) fn patient_ladder(now: Instant) -> Self {
        Self::ladder_of(PATIENT_BUDGET, now)
    }

    fn ladder_of(budget: Duration, now: Instant) -> Self {
        Self::Ladder {
            start: now,
            budget,
            interval: FIRST_INTERVAL,
            next: now + FIRST_INTERVAL,
        }
    }

    pub(crate) fn one_shot(now: Instant) -> Self {
        Self::OneShot {
            deadline: now + PROBE_TIMEOUT,
        }
    }

    /// The same schedule from the beginning.
    pub(crate) fn restarted(self, now: Instant) -> Self {
        match self {
            Self::Ladder { budget, .. } => Self::ladder_of(budget, now),
            Self::OneShot { .. } => Self::one_shot(now),
        }
    }

    /// The next trigger.
    pub(crate) fn deadline(&self) -> Instant {
        match self {
            Self::Ladder { next, .. } => *next,
            Self::OneShot { deadline } => *deadline,
        }
    }

    /// Judges the request and advances the schedule beyond `now`.
    pub(crate) fn advance(&mut self, now: Instant) -> Verdict {
        if now < self.deadline() {
            return Verdict::Wait;
        }
        match self {
            Self::OneShot { .. } => Verdict::Dead,
            Self::Ladder { start, budget, .. } if now >= *start + *budget => Verdict::Dead,
            Self::Ladder { interval, next, .. } => {
                while *next <= now {
                    *interval = *interval * 3 / 2;
                    *next += *interval;
                }
                Verdict::Resend
            }
        }
    }
}

/// Waiting times of a suspended allocation before it tries again by itself: 30 s, doubling, at most 5 min.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct SuspensionBackoff {
    failures: u32,
}

impl SuspensionBackoff {
    const FIRST: Duration = Duration::from_secs(30);
    const LONGEST: Duration = Duration::from_secs(300);

    /// How long to wait after one more failure.
    pub(crate) fn next_delay(&mut self) -> Duration {
        let factor = 1 << self.failures.min(8);
        self.failures = self.failures.saturating_add(1);
        (Self::FIRST * factor).min(Self::LONGEST)
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "virtual time starts somewhere")]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn snownet_07_ladder() {
        let start = Instant::now();
        let mut backoff = Backoff::ladder(start);
        for at in [1000, 2500, 4750] {
            assert_eq!(backoff.deadline(), start + ms(at));
            assert_eq!(backoff.advance(start + ms(at - 1)), Verdict::Wait);
            assert_eq!(backoff.advance(start + ms(at)), Verdict::Resend);
        }
        assert_eq!(backoff.deadline(), start + ms(8125));
        assert_eq!(backoff.advance(start + ms(8124)), Verdict::Wait);
        assert_eq!(backoff.advance(start + ms(8125)), Verdict::Dead);
    }

    #[test]
    fn silent_relay_has_more_time_than_ice_takes() {
        let start = Instant::now();
        let mut backoff = Backoff::patient_ladder(start);
        let mut transmissions = 1;
        while backoff.advance(backoff.deadline()) == Verdict::Resend {
            transmissions += 1;
        }
        assert_eq!(transmissions, 6);
        assert!(backoff.deadline() > start + ms(20_000), "{backoff:?}");
    }

    #[test]
    fn late_driver_makes_no_burst() {
        let start = Instant::now();
        let mut backoff = Backoff::ladder(start);
        assert_eq!(backoff.advance(start + ms(3000)), Verdict::Resend);
        assert_eq!(backoff.deadline(), start + ms(4750));
        assert_eq!(backoff.advance(start + ms(60_000)), Verdict::Dead);
    }

    #[test]
    fn suspension_grows_to_its_cap() {
        let mut backoff = SuspensionBackoff::default();
        let delays: Vec<u64> = (0..6).map(|_| backoff.next_delay().as_secs()).collect();
        assert_eq!(delays, [30, 60, 120, 240, 300, 300]);
        let mut old = SuspensionBackoff { failures: u32::MAX };
        assert_eq!(old.next_delay().as_secs(), 300);
    }
}
