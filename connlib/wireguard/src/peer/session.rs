//! Our view of one session inside an engine: what the engine does not know or does not check.

use std::time::{Duration, Instant};

use super::timing::{REJECT_AFTER_TIME, REKEY_AFTER_MESSAGES};
use crate::message::REJECT_AFTER_MESSAGES;

/// One session of an engine.
#[derive(Debug, Clone, Copy)]
pub(super) struct Session {
    /// Receiver index of what we get; names the session to its engine.
    pub(super) local_index: u32,
    /// At the initiator when the response arrived, at the responder when the initiation did.
    pub(super) established_at: Instant,
    /// Messages sealed, keepalives included.
    pub(super) sent: u64,
}

impl Session {
    #[inline]
    pub(super) fn age(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.established_at)
    }

    /// T1.
    #[inline]
    pub(super) fn is_expired(&self, now: Instant) -> bool {
        // One addition and comparison: cheaper per packet than the age.
        now >= self.expires_at()
    }

    #[inline]
    pub(super) fn expires_at(&self) -> Instant {
        self.established_at + REJECT_AFTER_TIME
    }

    /// T16, second half.
    #[inline]
    pub(super) fn is_exhausted(&self) -> bool {
        self.sent >= REJECT_AFTER_MESSAGES
    }

    /// T16, first half.
    #[inline]
    pub(super) fn wants_rekey_by_count(&self) -> bool {
        self.sent > REKEY_AFTER_MESSAGES
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "a test may start at any instant")]
mod tests {
    use super::*;

    fn session(sent: u64) -> Session {
        Session {
            local_index: 1,
            established_at: Instant::now(),
            sent,
        }
    }

    /// snownet 53, T16: the limits cannot be reached by sending, so they are checked here.
    #[test]
    fn message_limits() {
        assert!(!session(1 << 60).wants_rekey_by_count());
        assert!(session((1 << 60) + 1).wants_rekey_by_count());
        assert!(!session(u64::MAX - (1 << 13) - 1).is_exhausted());
        assert!(session(u64::MAX - (1 << 13)).is_exhausted());
    }

    #[test]
    fn expires_at_exactly_180_s() {
        let session = session(0);

        assert!(!session.is_expired(session.expires_at() - Duration::from_nanos(1)));
        assert!(session.is_expired(session.expires_at()));
    }
}
