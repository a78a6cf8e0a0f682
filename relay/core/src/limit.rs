//! Token buckets: per source, for replies that anybody can ask for (relay spec §6.1), and per allocation, for data.
//!
//! A table of fixed size: sources that collide share a budget, and a flood of forged sources costs no memory. An IPv4
//! source counts by its address, an IPv6 source by its /64; ports never count.

use std::{
    hash::BuildHasher as _,
    net::IpAddr,
    num::NonZeroU64,
    time::{Duration, Instant},
};

use crate::hash::SecretHash;

/// Buckets of one limiter: 64 KB; with a thousand sources at once a quarter of them share.
const BUCKETS: usize = 4096;
/// At most one log line per source in this time.
const LOG_INTERVAL: Duration = Duration::from_secs(60);

/// Time for which an allocation may save up data.
const DATA_BURST: Duration = Duration::from_secs(1);

/// What one allocation may still relay, both directions together.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Budget {
    /// When everything is saved up again.
    full_at: Instant,
}

impl Budget {
    pub(crate) fn new(now: Instant) -> Self {
        Self { full_at: now }
    }

    /// Takes bytes out of a budget of `rate` bytes per second; whether there was any left.
    pub(crate) fn take(&mut self, bytes: usize, rate: NonZeroU64, now: Instant) -> bool {
        let owed = self.full_at.max(now);
        if owed.saturating_duration_since(now) > DATA_BURST {
            return false;
        }
        let nanos = bytes as u64 * 1_000_000_000 / rate;
        self.full_at = owed + Duration::from_nanos(nanos);
        true
    }
}

/// Whether a reply may be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Allowed,
    /// Stay silent; worth a log line the first time in a while.
    Exceeded {
        log: bool,
    },
}

#[derive(Debug)]
pub(crate) struct RateLimiter {
    /// Time that one reply costs.
    cost: Duration,
    /// Time that may be saved up.
    burst: Duration,
    epoch: Instant,
    hash: SecretHash,
    buckets: Box<[Bucket]>,
}

/// Kept as the time at which the bucket is full again: no arithmetic while nothing arrives.
#[derive(Debug, Clone, Copy, Default)]
struct Bucket {
    /// Since the epoch.
    full_at: Duration,
    logged_at: Option<Duration>,
}

impl RateLimiter {
    /// `rate` replies per second, up to `burst` at once.
    pub(crate) fn new(rate: u32, burst: u32, hash: SecretHash, now: Instant) -> Self {
        let cost = Duration::from_secs(1) / rate.max(1);
        Self {
            cost,
            burst: cost * burst,
            epoch: now,
            hash,
            buckets: vec![Bucket::default(); BUCKETS].into_boxed_slice(),
        }
    }

    /// Takes one reply out of the budget of `source`.
    pub(crate) fn take(&mut self, source: IpAddr, now: Instant) -> Verdict {
        let now = now.saturating_duration_since(self.epoch);
        let index = self.hash.hash_one(group(source)) % BUCKETS as u64;
        let bucket = &mut self.buckets[index as usize];
        let full_at = bucket.full_at.max(now) + self.cost;
        if full_at - now <= self.burst {
            bucket.full_at = full_at;
            return Verdict::Allowed;
        }
        let log = bucket
            .logged_at
            .is_none_or(|at| now.saturating_sub(at) >= LOG_INTERVAL);
        if log {
            bucket.logged_at = Some(now);
        }
        Verdict::Exceeded { log }
    }
}

/// What shares one budget.
fn group(source: IpAddr) -> u64 {
    match source {
        IpAddr::V4(ip) => u64::from(u32::from(ip)),
        IpAddr::V6(ip) => (u128::from(ip) >> 64) as u64,
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "virtual time starts somewhere")]
mod tests {
    use super::*;
    use rand::SeedableRng as _;
    use rand_chacha::ChaCha20Rng;

    fn limiter(now: Instant) -> RateLimiter {
        let hash = SecretHash::draw(&mut ChaCha20Rng::from_seed([0; 32]));
        RateLimiter::new(20, 100, hash, now)
    }

    fn allowed(limiter: &mut RateLimiter, source: &str, times: usize, now: Instant) -> usize {
        let source = source.parse().unwrap();
        (0..times)
            .filter(|_| limiter.take(source, now) == Verdict::Allowed)
            .count()
    }

    #[test]
    fn burst_then_rate() {
        let start = Instant::now();
        let mut limiter = limiter(start);
        assert_eq!(allowed(&mut limiter, "192.0.2.1", 1000, start), 100);
        let later = start + Duration::from_secs(1);
        assert_eq!(allowed(&mut limiter, "192.0.2.1", 1000, later), 20);
        assert_eq!(allowed(&mut limiter, "192.0.2.2", 1000, later), 100);
        let much_later = start + Duration::from_secs(3600);
        assert_eq!(allowed(&mut limiter, "192.0.2.1", 1000, much_later), 100);
    }

    #[test]
    fn neighbours_of_a_prefix_share() {
        let start = Instant::now();
        let mut limiter = limiter(start);
        assert_eq!(allowed(&mut limiter, "2001:db8::1", 60, start), 60);
        assert_eq!(allowed(&mut limiter, "2001:db8::2", 60, start), 40);
        assert_eq!(allowed(&mut limiter, "2001:db8:0:1::2", 60, start), 60);
    }

    #[test]
    fn data_is_limited_to_its_rate_and_a_burst() {
        let start = Instant::now();
        let rate = NonZeroU64::new(1_000_000).unwrap();
        let mut budget = Budget::new(start);
        let mut sent = 0;
        for millisecond in 0..10_000 {
            let now = start + Duration::from_millis(millisecond);
            for _ in 0..10 {
                sent += usize::from(budget.take(1000, rate, now)) * 1000;
            }
        }
        assert!((10_990_000..=11_010_000).contains(&sent), "{sent}");
    }

    #[test]
    fn one_log_line_a_minute() {
        let start = Instant::now();
        let mut limiter = limiter(start);
        let source = "192.0.2.1".parse().unwrap();
        allowed(&mut limiter, "192.0.2.1", 100, start);
        assert_eq!(limiter.take(source, start), Verdict::Exceeded { log: true });
        assert_eq!(
            limiter.take(source, start),
            Verdict::Exceeded { log: false }
        );
    }
}
