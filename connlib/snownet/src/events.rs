//! Events waiting for the caller.

use std::collections::VecDeque;

use crate::Event;

/// Queue of events in the order in which they happened.
///
/// Its length is bounded by what was put in since the caller last drained it: candidates per
/// connection are few, and a connection ends once, with a bounded number of waiting packets.
pub(crate) struct Events<P> {
    queue: VecDeque<Event<P>>,
}

impl<P: Copy + Eq> Events<P> {
    pub(crate) fn new() -> Self {
        Self {
            queue: VecDeque::new(),
        }
    }

    pub(crate) fn push(&mut self, event: Event<P>) {
        self.queue.push_back(event);
    }

    pub(crate) fn pop(&mut self) -> Option<Event<P>> {
        self.queue.pop_front()
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Drops undelivered candidates for `peer`: they name the credentials of a connection that is gone.
    pub(crate) fn forget_candidates(&mut self, peer: P) {
        self.queue.retain(|event| match event {
            Event::NewIceCandidate { peer: p, .. }
            | Event::InvalidateIceCandidate { peer: p, .. } => *p != peer,
            Event::ConnectionEstablished(_)
            | Event::ConnectionFailed(_)
            | Event::Undelivered { .. }
            | Event::ConnectionClosed(_)
            | Event::NoRelays => true,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_candidates_of_the_given_peer_are_forgotten() {
        let mut events = Events::new();
        let candidate = |peer| Event::NewIceCandidate {
            peer,
            sdp: String::new(),
        };
        events.push(candidate(1));
        events.push(Event::ConnectionFailed(1));
        events.push(candidate(2));
        events.forget_candidates(1);
        assert_eq!(events.pop(), Some(Event::ConnectionFailed(1)));
        assert_eq!(events.pop(), Some(candidate(2)));
        assert!(events.is_empty());
    }
}
