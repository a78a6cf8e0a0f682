//! Who may receive next. Sockets are edge-triggered: one that was not emptied must be remembered here.
//!
//! A socket that just became readable goes before those that have used up a turn already, so that a quiet allocation is
//! not delayed by two thousand busy ones (relay spec §4.3).

use std::collections::{HashSet, VecDeque};

use super::sockets::SocketId;

#[derive(Debug, Default)]
pub(crate) struct Ready {
    fresh: VecDeque<SocketId>,
    busy: VecDeque<SocketId>,
    listed: HashSet<SocketId>,
}

impl Ready {
    /// The socket became readable.
    pub(crate) fn add(&mut self, id: SocketId) {
        if self.listed.insert(id) {
            self.fresh.push_back(id);
        }
    }

    /// The socket used up its turn and holds more.
    pub(crate) fn add_busy(&mut self, id: SocketId) {
        if self.listed.insert(id) {
            self.busy.push_back(id);
        }
    }

    /// Whose turn it is.
    pub(crate) fn next(&mut self) -> Option<SocketId> {
        let id = self.fresh.pop_front().or_else(|| self.busy.pop_front())?;
        self.listed.remove(&id);
        Some(id)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.listed.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use relay_core::{AllocationPort, Family};

    #[test]
    fn fresh_sockets_overtake_busy_ones() {
        let id = |port| SocketId::Allocation(AllocationPort::new(port), Family::V4);
        let mut ready = Ready::default();
        ready.add(id(1));
        ready.add(id(1));
        assert_eq!(ready.next(), Some(id(1)));
        ready.add_busy(id(1));
        ready.add_busy(id(2));
        ready.add(id(3));
        ready.add(id(2));
        assert_eq!(
            [ready.next(), ready.next(), ready.next(), ready.next()],
            [Some(id(3)), Some(id(1)), Some(id(2)), None]
        );
        assert!(ready.is_empty());
    }
}
