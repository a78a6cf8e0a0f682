//! How often to look at the sockets when many datagrams come one by one.
//!
//! Every wake-up costs as much as handling several datagrams. Where datagrams come by themselves and soon after each
//! other, the worker rests for a moment before it looks again, so that one look brings several of them: what network
//! adapters do with their interrupts. Each datagram then waits for less than a tenth of a millisecond. Trains that the
//! kernel has joined already, and rare datagrams, gain nothing by that and are never kept waiting.

use std::time::{Duration, Instant};

/// Time over which arrivals are counted.
const WINDOW: Duration = Duration::from_millis(2);
/// Arrivals per second from which a rest pays off. A wake-up each would take a tenth of a processor.
const MIN_RATE: u32 = 20_000;
/// Arrivals per wake-up from which the next one will bring enough by itself.
const ENOUGH: u32 = 24;
/// Length of a rest; the system adds a few microseconds.
const REST: Duration = Duration::from_micros(50);

#[derive(Debug)]
pub(super) struct Pace {
    since: Instant,
    arrivals: u32,
    wakeups: u32,
    rests: bool,
}

impl Pace {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            since: now,
            arrivals: 0,
            wakeups: 0,
            rests: false,
        }
    }

    /// A wake-up has brought this many trains of datagrams. Returns how long to rest.
    pub(super) fn note(&mut self, trains: u64, now: Instant) -> Option<Duration> {
        self.arrivals += u32::try_from(trains)
            .unwrap_or(u32::MAX / 4)
            .min(u32::MAX / 4);
        self.wakeups += 1;
        let elapsed = now.saturating_duration_since(self.since);
        if elapsed >= WINDOW {
            let wanted = f64::from(MIN_RATE) * elapsed.as_secs_f64();
            self.rests = f64::from(self.arrivals) >= wanted
                && self.arrivals < self.wakeups.saturating_mul(ENOUGH);
            *self = Self {
                rests: self.rests,
                ..Self::new(now)
            };
        }
        (self.rests && trains > 0).then_some(REST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether the worker rests in the end, if every wake-up brings so many trains.
    fn rests(trains: u64, interval: Duration) -> bool {
        let mut now = Instant::now();
        let mut pace = Pace::new(now);
        let mut rest = None;
        for _ in 0..1000 {
            now += interval;
            rest = pace.note(trains, now);
        }
        rest.is_some()
    }

    #[test]
    fn only_frequent_small_wakeups_call_for_rest() {
        assert!(rests(1, Duration::from_micros(10)));
        assert!(rests(5, Duration::from_micros(60)));
        assert!(!rests(1, Duration::from_micros(100)), "rare");
        assert!(!rests(32, Duration::from_micros(300)), "large already");
        assert!(!rests(0, Duration::from_micros(10)), "not for datagrams");
    }

    #[test]
    fn rest_ends_with_the_load() {
        let start = Instant::now();
        let mut pace = Pace::new(start);
        let mut now = start;
        for _ in 0..500 {
            now += Duration::from_micros(10);
            pace.note(1, now);
        }
        now += Duration::from_secs(1);
        assert_eq!(pace.note(1, now), None);
    }
}
