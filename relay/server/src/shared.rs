//! What workers and control thread know of each other.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use crate::statistics::Statistics;

/// A worker that has not shown itself for this long is stuck.
const STUCK_AFTER: Duration = Duration::from_secs(10);

/// State for health checks and metrics: written by its owner, read by whoever asks.
#[derive(Debug)]
pub(crate) struct Shared {
    started: Instant,
    workers: Box<[Slot]>,
    is_joined: AtomicBool,
    is_draining: AtomicBool,
}

/// What one worker tells; on cache lines of its own, so that workers do not slow each other down.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Slot {
    /// Milliseconds since the start.
    last_tick: AtomicU64,
    allocations: AtomicUsize,
    /// Written once a second, so nobody waits long.
    statistics: Mutex<Statistics>,
}

impl Shared {
    pub(crate) fn new(workers: usize) -> Arc<Self> {
        Arc::new(Self {
            started: Instant::now(),
            workers: (0..workers).map(|_| Slot::default()).collect(),
            is_joined: AtomicBool::new(false),
            is_draining: AtomicBool::new(false),
        })
    }

    /// A worker shows that it runs.
    pub(crate) fn tick(&self, worker: usize, now: Instant) {
        let elapsed = now.saturating_duration_since(self.started).as_millis();
        let elapsed = u64::try_from(elapsed).unwrap_or(u64::MAX);
        self.workers[worker]
            .last_tick
            .store(elapsed, Ordering::Relaxed);
    }

    pub(crate) fn set_allocations(&self, worker: usize, allocations: usize) {
        let slot = &self.workers[worker];
        slot.allocations.store(allocations, Ordering::Relaxed);
    }

    pub(crate) fn set_statistics(&self, worker: usize, statistics: Statistics) {
        let slot = &self.workers[worker].statistics;
        *slot.lock().unwrap_or_else(PoisonError::into_inner) = statistics;
    }

    /// Whether all workers run.
    pub(crate) fn is_alive(&self) -> bool {
        let elapsed = self.started.elapsed();
        self.workers.iter().all(|worker| {
            let last = Duration::from_millis(worker.last_tick.load(Ordering::Relaxed));
            elapsed.saturating_sub(last) < STUCK_AFTER
        })
    }

    /// Of all workers.
    pub(crate) fn allocations(&self) -> usize {
        let workers = self.workers.iter();
        workers
            .map(|worker| worker.allocations.load(Ordering::Relaxed))
            .sum()
    }

    /// Of all workers.
    pub(crate) fn statistics(&self) -> Statistics {
        let mut sum = Statistics::default();
        for worker in &self.workers {
            let slot = worker.statistics.lock();
            sum.add(&slot.unwrap_or_else(PoisonError::into_inner));
        }
        sum
    }

    /// Joined the portal, or needs none.
    pub(crate) fn set_joined(&self, is_joined: bool) {
        self.is_joined.store(is_joined, Ordering::Relaxed);
    }

    pub(crate) fn set_draining(&self) {
        self.is_draining.store(true, Ordering::Relaxed);
    }

    /// Whether new clients should be sent here.
    pub(crate) fn is_ready(&self) -> bool {
        self.is_joined.load(Ordering::Relaxed) && !self.is_draining.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // relay C-50
    #[test]
    fn relay_50_ready_exactly_while_joined_and_not_draining() {
        let shared = Shared::new(1);
        assert!(!shared.is_ready() && shared.is_alive());
        shared.set_joined(true);
        assert!(shared.is_ready());
        shared.set_joined(false);
        assert!(!shared.is_ready());
        shared.set_joined(true);
        shared.set_draining();
        assert!(!shared.is_ready());
    }

    // relay C-50
    #[test]
    fn relay_50_not_alive_once_a_worker_has_been_silent_for_ten_seconds() {
        let now = Instant::now();
        let shared = Shared {
            started: now.checked_sub(STUCK_AFTER).unwrap(),
            workers: (0..2).map(|_| Slot::default()).collect(),
            is_joined: AtomicBool::new(true),
            is_draining: AtomicBool::new(false),
        };
        shared.tick(0, now);
        assert!(!shared.is_alive());
        shared.tick(1, now);
        assert!(shared.is_alive());
    }

    #[test]
    fn allocations_of_all_workers_count() {
        let shared = Shared::new(2);
        shared.set_allocations(0, 3);
        shared.set_allocations(1, 4);
        assert_eq!(shared.allocations(), 7);
    }
}
