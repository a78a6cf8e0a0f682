//! The constants of the timer rules T1–T17 (snownet §4.1).

use std::time::Duration;

/// T1: a session of this age is neither used to send nor to receive.
pub const REJECT_AFTER_TIME: Duration = Duration::from_secs(180);

/// T15: an initiator no longer sends under a session of this age, or the packet may be expired on arrival.
pub const HOLD_AFTER_TIME: Duration = Duration::from_secs(170);

/// T2: sending data under a session of this age starts its successor.
pub const REKEY_AFTER_TIME: Duration = Duration::from_secs(120);

/// T17: the age at which an initiator renews a session, traffic or not, is drawn from here. The spread keeps the clients of one
/// gateway apart; the end leaves one retry before [`HOLD_AFTER_TIME`].
pub const RENEW_AFTER_TIME: std::ops::RangeInclusive<Duration> =
    Duration::from_secs(150)..=Duration::from_secs(165);

/// T16: more messages under one session start its successor.
pub const REKEY_AFTER_MESSAGES: u64 = 1 << 60;

/// T4: data unanswered for this long (plus jitter) starts a handshake.
pub const UNANSWERED_TIMEOUT: Duration = Duration::from_secs(15);

/// T5, T13: wait between two initiations (plus jitter for retries).
pub const REKEY_TIMEOUT: Duration = Duration::from_secs(5);

/// Largest jitter of T4 and T5.
pub const MAX_JITTER: Duration = Duration::from_millis(333);

/// T6: a handshake that takes longer on one path has failed. Longer than the ICE agent's timeout, so that ICE judges the path first.
pub const REKEY_ATTEMPT_TIME: Duration = Duration::from_secs(20);

/// T7: data received and nothing sent for this long is answered with a keepalive.
pub const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);

/// T9: all keys are erased this long after the last new session.
pub const WIPE_AFTER_TIME: Duration = Duration::from_secs(540);

/// A handshake that only proves a path or a peer (new path, connection announced anew) is started at most this often.
pub const PROACTIVE_INTERVAL: Duration = Duration::from_secs(20);

/// An initiation in flight is repeated over a new path at most this often.
pub const REPEAT_INTERVAL: Duration = Duration::from_secs(1);

/// Packets of an initiator that wait for a path or a session: some 300 kB, one congestion window of a fresh flow each.
pub const MAX_PENDING: usize = 256;

/// A packet that waited in vain for longer is of no use to anybody. An attempt that moves to another path when ICE has given the
/// first one up takes almost 40 s; longer waits come from a suspended host.
pub const MAX_WAIT: Duration = Duration::from_secs(45);

/// Packets of a responder that wait for a session to be confirmed, which takes half a round trip.
pub const MAX_HELD: usize = 16;

/// How long a responder lets a packet wait for that.
pub const MAX_HOLD_TIME: Duration = Duration::from_secs(5);
