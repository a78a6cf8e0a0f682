//! What worker and control thread know of each other.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

/// A worker that has not shown itself for this long is stuck.
const STUCK_AFTER: Duration = Duration::from_secs(10);

/// State for health checks: written by its owner, read by whoever asks.
#[derive(Debug)]
pub(crate) struct Shared {
    started: Instant,
    /// Milliseconds since the start.
    last_tick: AtomicU64,
    allocations: AtomicUsize,
    is_joined: AtomicBool,
    is_draining: AtomicBool,
}

impl Shared {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            started: Instant::now(),
            last_tick: AtomicU64::new(0),
            allocations: AtomicUsize::new(0),
            is_joined: AtomicBool::new(false),
            is_draining: AtomicBool::new(false),
        })
    }

    /// The worker shows that it runs.
    pub(crate) fn tick(&self, allocations: usize, now: Instant) {
        let elapsed = now.saturating_duration_since(self.started).as_millis();
        let elapsed = u64::try_from(elapsed).unwrap_or(u64::MAX);
        self.last_tick.store(elapsed, Ordering::Relaxed);
        self.allocations.store(allocations, Ordering::Relaxed);
    }

    /// Whether the worker runs.
    pub(crate) fn is_alive(&self) -> bool {
        let last = Duration::from_millis(self.last_tick.load(Ordering::Relaxed));
        self.started.elapsed().saturating_sub(last) < STUCK_AFTER
    }

    pub(crate) fn allocations(&self) -> usize {
        self.allocations.load(Ordering::Relaxed)
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
        let shared = Shared::new();
        assert!(!shared.is_ready() && shared.is_alive());
        shared.set_joined(true);
        assert!(shared.is_ready());
        shared.set_joined(false);
        assert!(!shared.is_ready());
        shared.set_joined(true);
        shared.set_draining();
        assert!(!shared.is_ready());
    }
}
