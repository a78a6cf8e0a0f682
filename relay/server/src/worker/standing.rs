//! Keeps receive queues short that are never rid of trains.
//!
//! A queue is for bursts, and absorbs them as long as it is emptied in between. Where bulk senders are faster than the
//! worker for long, every length loses the same, and a long queue only delays what it does not lose. It costs throughput,
//! too: the bytes at its head have left the processor's caches by the time they are read, and trains are mostly bytes. So
//! the kernel's buffer of a socket that trains kept busy for a while is made small, and large again when nothing is lost
//! any more. Single datagrams keep their room: many small senders may well begin all at once.

use std::time::{Duration, Instant};

/// Trains without a pause for so long are no burst: the listen port's buffer holds a few milliseconds of a full worker's
/// load.
const PATIENCE: Duration = Duration::from_millis(20);
/// Kernel buffer of a queue that stands, in bytes (the kernel grants twice that, for its own book-keeping): half a
/// millisecond of a full worker's load. Half of it and twice as much measure the same and a little worse.
const SHORT: usize = 512 * 1024;

/// What one receive call has shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Look {
    /// Trains, and more behind them.
    Trains,
    /// The end of the queue, or single datagrams.
    Other,
}

/// The receive queue of one socket.
#[derive(Debug)]
pub(super) struct Queue {
    /// Kernel buffer in ordinary times, in bytes.
    wanted: usize,
    /// The first look since which all brought trains, and there were more.
    busy_since: Option<Instant>,
    is_short: bool,
    /// Datagrams lost until the last tick.
    overruns: u64,
}

impl Queue {
    pub(super) fn new(wanted: usize) -> Self {
        Self {
            wanted,
            busy_since: None,
            is_short: false,
            overruns: 0,
        }
    }

    /// A look at the queue. Returns the buffer that it should have from now on, if that changes.
    pub(super) fn note(&mut self, look: Look, now: Instant) -> Option<usize> {
        if look == Look::Other {
            self.busy_since = None;
            return None;
        }
        let since = *self.busy_since.get_or_insert(now);
        let is_standing = now.saturating_duration_since(since) >= PATIENCE;
        if !is_standing || self.is_short || self.wanted <= SHORT {
            return None;
        }
        self.is_short = true;
        Some(SHORT)
    }

    /// Another second is over; so many datagrams are lost in all. Returns the buffer that it should have from now on, if
    /// that changes.
    pub(super) fn tick(&mut self, overruns: u64) -> Option<usize> {
        let is_calm = overruns == self.overruns && self.busy_since.is_none();
        self.overruns = overruns;
        if !self.is_short || !is_calm {
            return None;
        }
        self.is_short = false;
        Some(self.wanted)
    }

    pub(super) fn is_short(&self) -> bool {
        self.is_short
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WANTED: usize = 8 * 1024 * 1024;

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn bursts_keep_their_room() {
        let mut now = Instant::now();
        let mut queue = Queue::new(WANTED);
        for _ in 0..100 {
            for _ in 0..10 {
                now += ms(1);
                assert_eq!(queue.note(Look::Trains, now), None);
            }
            assert_eq!(queue.note(Look::Other, now), None);
        }
    }

    #[test]
    fn a_standing_queue_is_short_until_nothing_is_lost() {
        let now = Instant::now();
        let mut queue = Queue::new(WANTED);
        assert_eq!(queue.note(Look::Trains, now), None);
        assert_eq!(queue.note(Look::Trains, now + ms(19)), None);
        assert_eq!(queue.note(Look::Trains, now + ms(20)), Some(SHORT));
        assert_eq!(queue.note(Look::Trains, now + ms(40)), None, "once");
        assert_eq!(queue.tick(7), None, "losses");
        assert_eq!(queue.note(Look::Other, now + ms(50)), None);
        assert_eq!(queue.tick(8), None, "more of them");
        assert_eq!(queue.tick(8), Some(WANTED));
        assert_eq!(queue.tick(8), None, "once");
        assert!(!queue.is_short());
    }

    #[test]
    fn a_small_buffer_stays() {
        let now = Instant::now();
        let mut queue = Queue::new(SHORT);
        assert_eq!(queue.note(Look::Trains, now), None);
        assert_eq!(queue.note(Look::Trains, now + ms(500)), None);
    }
}
