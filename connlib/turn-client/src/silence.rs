//! Notices a relay from which nothing comes back although something is sent through it that calls for an answer.
//!
//! A relay that starts again with the secret of before forgets its allocations, and nobody is told: what is sent to it is
//! swallowed. Whoever sends notices first, so that is who asks: with a REFRESH, which the relay answers with 437 if it has
//! forgotten us. Whoever sends nothing, or has the last word, is not concerned and has no deadline.

use std::time::{Duration, Instant};

/// How long nothing may come back. ICE checks each path in use every 1.5 s, that of a one-way flow as well: two checks in a
/// row have got lost by then. That is rare on a path that works, and one question is all that it costs.
const PATIENCE: Duration = Duration::from_secs(3);
/// Least time between two questions about one allocation. An answer shows that the relay is there and that the silence is
/// the peer's, who may stay silent for minutes. What is sent to it defers the relay's keep-alive, so questions as rare as
/// that cost no more than the keep-alives that they take the place of.
const INTERVAL: Duration = super::allocation::KEEP_ALIVE;

/// What was sent to a relay and not answered.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Silence {
    /// The first thing that was sent since anything came back.
    unanswered_since: Option<Instant>,
    asked_at: Option<Instant>,
}

impl Silence {
    /// Something that calls for an answer is sent through the relay.
    #[inline]
    pub(crate) fn sent(&mut self, now: Instant) {
        self.unanswered_since.get_or_insert(now);
    }

    /// Something came back that only a relay with our allocation sends.
    #[inline]
    pub(crate) fn heard(&mut self) {
        self.unanswered_since = None;
    }

    /// The relay is being asked.
    pub(crate) fn asked(&mut self, now: Instant) {
        self.asked_at = Some(now);
    }

    /// Whether something came back since the relay was asked.
    pub(crate) fn is_over(&self) -> bool {
        self.unanswered_since
            .is_none_or(|since| self.asked_at.is_none_or(|at| since >= at))
    }

    /// When to ask the relay whether it still has our allocation; `None` while nothing is unanswered.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let patient_until = self.unanswered_since? + PATIENCE;
        let next = self.asked_at.map(|at| at + INTERVAL);
        Some(next.map_or(patient_until, |next| next.max(patient_until)))
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "virtual time starts somewhere")]
mod tests {
    use super::*;

    #[test]
    fn patience_counts_from_the_first_thing_that_is_unanswered() {
        let start = Instant::now();
        let mut silence = Silence::default();
        assert_eq!(silence.deadline(), None);
        silence.sent(start);
        silence.sent(start + PATIENCE / 2);
        assert_eq!(silence.deadline(), Some(start + PATIENCE));
        silence.heard();
        assert_eq!(silence.deadline(), None);
        silence.sent(start + PATIENCE);
        assert_eq!(silence.deadline(), Some(start + 2 * PATIENCE));
    }

    #[test]
    fn questions_are_as_rare_as_keep_alives() {
        let start = Instant::now();
        let mut silence = Silence::default();
        silence.asked(start);
        silence.sent(start);
        assert_eq!(silence.deadline(), Some(start + INTERVAL));
        silence.heard();
        silence.sent(start + INTERVAL);
        assert_eq!(silence.deadline(), Some(start + INTERVAL + PATIENCE));
    }

    #[test]
    fn silence_ends_when_something_comes_back_after_the_question() {
        let start = Instant::now();
        let mut silence = Silence::default();
        silence.sent(start);
        silence.asked(start + PATIENCE);
        assert!(!silence.is_over());
        silence.heard();
        assert!(silence.is_over());
        silence.sent(start + 2 * PATIENCE);
        assert!(silence.is_over());
    }
}
