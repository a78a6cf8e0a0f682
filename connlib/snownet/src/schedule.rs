//! Deadlines of many connections: earliest first, recomputed only where something happened.

use std::collections::BTreeSet;
use std::time::Instant;

/// Position of a connection in the connection table.
pub(crate) type Slot = usize;

/// Announced deadlines of all connections, and the connections whose deadline must be recomputed.
#[derive(Default)]
pub(crate) struct Schedule {
    by_time: BTreeSet<(Instant, Slot)>,
    announced: Vec<Option<Instant>>,
    stale: Vec<Slot>,
    is_stale: Vec<bool>,
}

impl Schedule {
    /// Marks `slot` for recomputation. Cheap enough for every packet.
    #[inline]
    pub(crate) fn invalidate(&mut self, slot: Slot) {
        if !self.is_stale.get(slot).is_some_and(|is_stale| *is_stale) {
            self.mark_stale(slot);
        }
    }

    fn mark_stale(&mut self, slot: Slot) {
        if self.is_stale.len() <= slot {
            self.is_stale.resize(slot + 1, false);
            self.announced.resize(slot + 1, None);
        }
        self.is_stale[slot] = true;
        self.stale.push(slot);
    }

    /// The next slot to recompute; hand the result to [`announce`](Self::announce).
    pub(crate) fn pop_stale(&mut self) -> Option<Slot> {
        let slot = self.stale.pop()?;
        self.is_stale[slot] = false;
        Some(slot)
    }

    /// Records the deadline of `slot`; `None` if it has none or is gone.
    pub(crate) fn announce(&mut self, slot: Slot, deadline: Option<Instant>) {
        let announced = &mut self.announced[slot];
        if *announced == deadline {
            return;
        }
        if let Some(old) = announced.take() {
            self.by_time.remove(&(old, slot));
        }
        if let Some(new) = deadline {
            self.by_time.insert((new, slot));
        }
        *announced = deadline;
    }

    /// The earliest deadline and whose it is.
    pub(crate) fn first(&self) -> Option<(Instant, Slot)> {
        self.by_time.first().copied()
    }

    /// Every slot whose deadline is due, in order of deadline.
    pub(crate) fn due(&self, now: Instant) -> Vec<Slot> {
        self.by_time
            .iter()
            .take_while(|(deadline, _)| *deadline <= now)
            .map(|&(_, slot)| slot)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn earliest_deadline_comes_first_and_can_move() {
        let start = Instant::now();
        let at = |secs| Some(start + Duration::from_secs(secs));
        let mut schedule = Schedule::default();
        for (slot, secs) in [(0, 5), (1, 3), (2, 9)] {
            schedule.invalidate(slot);
            assert_eq!(schedule.pop_stale(), Some(slot));
            schedule.announce(slot, at(secs));
        }
        assert_eq!(schedule.first().map(|(_, slot)| slot), Some(1));
        schedule.announce(1, at(20));
        assert_eq!(schedule.first().map(|(_, slot)| slot), Some(0));
        assert_eq!(schedule.due(start + Duration::from_secs(9)), [0, 2]);
        schedule.announce(0, None);
        assert_eq!(schedule.due(start + Duration::from_secs(9)), [2]);
    }

    #[test]
    fn a_slot_is_recomputed_once() {
        let mut schedule = Schedule::default();
        schedule.invalidate(4);
        schedule.invalidate(4);
        assert_eq!(schedule.pop_stale(), Some(4));
        assert_eq!(schedule.pop_stale(), None);
    }
}
