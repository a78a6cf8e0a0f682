//! Datagrams of the node itself that wait for the caller.

use std::collections::VecDeque;

use crate::Transmit;

/// Most waiting datagrams.
///
/// The caller drains the queue after every input. One input can make every connection of a gateway check all its pairs, so the
/// bound only stops a caller that never drains: eight checks for each of 10 000 connections fit.
const CAPACITY: usize = 80_000;

/// First in, first out; the newest is dropped when full.
#[derive(Default)]
pub(crate) struct Transmits {
    queue: VecDeque<Transmit>,
}

impl Transmits {
    /// Returns whether there was room.
    pub(crate) fn push(&mut self, transmit: Transmit) -> bool {
        let has_room = self.queue.len() < CAPACITY;
        if has_room {
            self.queue.push_back(transmit);
        }
        has_room
    }

    pub(crate) fn pop(&mut self) -> Option<Transmit> {
        self.queue.pop_front()
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    pub(crate) fn clear(&mut self) {
        self.queue.clear();
    }
}

#[cfg(test)]
mod tests {
    use ip_packet::Ecn;

    use super::*;

    #[test]
    fn the_newest_is_dropped_when_full() {
        let transmit = |byte| Transmit {
            src: None,
            dst: "192.0.2.1:1".parse().expect("address"),
            payload: vec![byte],
            ecn: Ecn::NotEct,
        };
        let mut transmits = Transmits::default();
        assert!(transmits.push(transmit(1)));
        while transmits.push(transmit(2)) {}
        assert_eq!(transmits.queue.len(), CAPACITY);
        assert_eq!(transmits.pop(), Some(transmit(1)));
        transmits.clear();
        assert!(transmits.is_empty());
    }
}
