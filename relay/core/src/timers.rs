//! What expires when: an ordered set, so that the next deadline is exact and arming costs O(log n).

use std::{collections::BTreeSet, time::Instant};

use connlib_stun::ChannelNumber;

use crate::address::ClientSocket;

/// What has a deadline.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Timer {
    /// A channel stops relaying, or its cool-down ends. Before allocations: at equal times its own record is the
    /// smaller.
    Channel(ClientSocket, ChannelNumber),
    /// An allocation ends.
    Allocation(ClientSocket),
}

/// At most one deadline per timer; its owner remembers it.
#[derive(Debug, Default)]
pub(crate) struct Timers {
    deadlines: BTreeSet<(Instant, Timer)>,
}

impl Timers {
    pub(crate) fn arm(&mut self, timer: Timer, at: Instant) {
        self.deadlines.insert((at, timer));
    }

    pub(crate) fn disarm(&mut self, timer: Timer, at: Instant) {
        self.deadlines.remove(&(at, timer));
    }

    pub(crate) fn next(&self) -> Option<Instant> {
        self.deadlines.first().map(|(at, _)| *at)
    }

    /// Takes one timer that is due.
    pub(crate) fn pop_due(&mut self, now: Instant) -> Option<Timer> {
        if self.next()? > now {
            return None;
        }
        self.deadlines.pop_first().map(|(_, timer)| timer)
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.deadlines.len()
    }
}
