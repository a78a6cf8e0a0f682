//! When the next attempt is due, and when to give up.
//!
//! Exponential: 0.5 s, times 1.5, ±50 %, at most 60 s. The budget runs from the first failure of a partition; an attempt
//! that would start behind its end is not made. Only a completed join, or an owner that asks for an immediate attempt,
//! starts over: a portal that accepts connections and then fails joins must not be hammered.

use std::time::{Duration, Instant};

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha20Rng;

const INITIAL: Duration = Duration::from_millis(500);
const MULTIPLIER: f64 = 1.5;
const JITTER: f64 = 0.5;
const CEILING: Duration = Duration::from_secs(60);

/// Step of the short first budget, without jitter.
const FIRST_STEP: Duration = Duration::from_secs(1);
/// The short first budget: a person waits in front of a sign-in window.
const FIRST_BUDGET: Duration = Duration::from_secs(15);

/// How patient the very first connect is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FirstConnect {
    /// Like every other: for programs under a supervisor, whose portal may be down when they start.
    Patient,
    /// A try per second for 15 s until the first join: for a sign-in that a person waits for.
    FailSoon,
}

/// Delay before the next attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retry {
    /// Time to wait.
    pub delay: Duration,
    /// The budget in force; absent when it is unlimited.
    pub budget: Option<Duration>,
}

/// The schedule of one channel.
#[derive(Debug)]
pub struct Backoff {
    budget: Option<Duration>,
    phase: Phase,
    interval: Duration,
    partition_since: Option<Instant>,
    rng: ChaCha20Rng,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    First,
    Ordinary,
}

impl Backoff {
    /// `budget` limits one partition; `None` retries for ever.
    pub fn new(budget: Option<Duration>, first: FirstConnect, seed: [u8; 32]) -> Self {
        Self {
            budget,
            phase: match first {
                FirstConnect::FailSoon => Phase::First,
                FirstConnect::Patient => Phase::Ordinary,
            },
            interval: INITIAL,
            partition_since: None,
            rng: ChaCha20Rng::from_seed(seed),
        }
    }

    /// An attempt failed or the connection was lost. `asked` is a delay that the portal demanded.
    /// `None` when the budget does not allow another attempt.
    pub fn next(&mut self, asked: Option<Duration>, now: Instant) -> Option<Retry> {
        let since = *self.partition_since.get_or_insert(now);
        let (own, budget) = match self.phase {
            Phase::First => (FIRST_STEP, Some(FIRST_BUDGET)),
            Phase::Ordinary => (self.step(), self.budget),
        };
        let delay = asked.unwrap_or(own);
        let elapsed = now.saturating_duration_since(since);
        match budget {
            Some(budget) if elapsed.saturating_add(delay) > budget => None,
            budget => Some(Retry { delay, budget }),
        }
    }

    /// The join succeeded.
    pub fn succeeded(&mut self) {
        self.phase = Phase::Ordinary;
        self.restart();
    }

    /// The owner wants an attempt at once.
    pub fn restart(&mut self) {
        self.interval = INITIAL;
        self.partition_since = None;
    }

    fn step(&mut self) -> Duration {
        let spread = self.rng.random_range(1.0 - JITTER..=1.0 + JITTER);
        let delay = self.interval.mul_f64(spread).min(CEILING);
        self.interval = self.interval.mul_f64(MULTIPLIER).min(CEILING);
        delay
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn patient(budget: Option<Duration>) -> Backoff {
        Backoff::new(budget, FirstConnect::Patient, [7; 32])
    }

    #[test]
    fn portal_33_grows_by_half_with_half_jitter_up_to_a_minute() {
        let mut backoff = patient(None);
        let now = Instant::now();
        let mut expected = INITIAL;
        for _ in 0..30 {
            let delay = backoff.next(None, now).unwrap().delay;
            assert!(delay >= expected.mul_f64(0.5) && delay <= expected.mul_f64(1.5).min(CEILING));
            expected = expected.mul_f64(1.5).min(CEILING);
        }
        assert_eq!(expected, CEILING);
    }

    #[test]
    fn portal_33_delays_spread_over_the_whole_range() {
        let factors: Vec<f64> = (0..=255)
            .map(|seed| {
                let mut backoff = Backoff::new(None, FirstConnect::Patient, [seed; 32]);
                let retry = backoff.next(None, Instant::now()).unwrap();
                retry.delay.div_duration_f64(INITIAL)
            })
            .collect();
        let within = |from, to| factors.iter().filter(|f| (from..to).contains(*f)).count();
        for tenth in 5..15 {
            let (from, to) = (f64::from(tenth) / 10.0, f64::from(tenth + 1) / 10.0);
            assert!(within(from, to) > 5, "{from} to {to}");
        }
    }

    #[test]
    fn portal_33_an_exhausted_budget_ends_the_attempts() {
        let mut backoff = patient(Some(Duration::from_secs(10)));
        let start = Instant::now();
        assert!(backoff.next(None, start).is_some());
        assert!(
            backoff
                .next(None, start + Duration::from_secs(10))
                .is_none()
        );
    }

    #[test]
    fn portal_34_short_first_budget_is_a_second_apart_for_fifteen_seconds() {
        let mut backoff = Backoff::new(None, FirstConnect::FailSoon, [7; 32]);
        let start = Instant::now();
        for second in 0..15 {
            let retry = backoff
                .next(None, start + Duration::from_secs(second))
                .unwrap();
            assert_eq!(retry.delay, Duration::from_secs(1));
        }
        assert!(
            backoff
                .next(None, start + Duration::from_secs(15))
                .is_none()
        );
    }

    #[test]
    fn portal_34_after_the_first_join_the_ordinary_budget_holds() {
        let mut backoff = Backoff::new(None, FirstConnect::FailSoon, [7; 32]);
        let start = Instant::now();
        backoff.succeeded();
        backoff.next(None, start).unwrap();
        assert!(
            backoff
                .next(None, start + Duration::from_secs(60))
                .is_some()
        );
    }

    #[test]
    fn portal_32_the_portals_delay_replaces_ours() {
        let mut backoff = patient(None);
        let asked = Duration::from_secs(7);
        assert_eq!(
            backoff.next(Some(asked), Instant::now()).unwrap().delay,
            asked
        );
    }

    #[test]
    fn restarting_forgets_the_partition() {
        let mut backoff = patient(Some(Duration::from_secs(10)));
        let start = Instant::now();
        backoff.next(None, start).unwrap();
        backoff.restart();
        assert!(
            backoff
                .next(None, start + Duration::from_secs(100))
                .is_some()
        );
    }

    #[test]
    fn equal_seeds_give_equal_delays() {
        let now = Instant::now();
        let (mut a, mut b) = (patient(None), patient(None));
        for _ in 0..20 {
            assert_eq!(a.next(None, now), b.next(None, now));
        }
    }
}
