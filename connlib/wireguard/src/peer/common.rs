//! What both roles share: results, events, counters, output, the passive keepalive (T7).

use std::time::{Duration, Instant};

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha20Rng;

use super::timing::{KEEPALIVE_TIMEOUT, MAX_JITTER, RENEW_AFTER_TIME};
use crate::engine::EngineError;
use crate::queue::Outbox;

/// What a received datagram was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opened {
    /// An authentic IP packet of `len` bytes, at the start of `out`; not yet checked as such.
    Packet {
        /// Length of the packet.
        len: usize,
    },
    /// An authentic message without content.
    Keepalive,
    /// A handshake message; its answer, if any, is in [`Peer::poll_transmit`](super::Peer::poll_transmit).
    Handshake,
}

/// Why a received datagram was dropped. None of these is worth more than a debug log: anybody can send anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// No WireGuard message.
    #[error("not a WireGuard message")]
    Malformed,
    /// Longer than a sealed packet can be, or longer than `out`.
    #[error("datagram too large")]
    TooLarge,
    /// No session or handshake of this peer has the index.
    #[error("no session or handshake with this index")]
    UnknownIndex,
    /// The session is older than 180 s.
    #[error("session is expired")]
    Expired,
    /// The counter is beyond Reject-After-Messages.
    #[error("message counter is exhausted")]
    CounterExhausted,
    /// Damaged, forged, or made with other keys.
    #[error("message does not decrypt")]
    Undecryptable,
    /// Seen before, or too old to tell.
    #[error("replayed message")]
    Replayed,
    /// Authentic, but no IP packet.
    #[error("authentic message without an IP packet")]
    NotIp,
    /// Of another peer, or not expected now.
    #[error("message does not belong here")]
    Refused,
}

impl From<EngineError> for OpenError {
    fn from(error: EngineError) -> Self {
        match error {
            EngineError::NotIp => OpenError::NotIp,
            EngineError::Undecryptable => OpenError::Undecryptable,
            EngineError::Replayed => OpenError::Replayed,
            EngineError::Refused => OpenError::Refused,
        }
    }
}

/// What the owner of a peer must know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// A session is usable in both directions: at the initiator a response was accepted, at the responder a session was
    /// confirmed. Emitted for every session, including renewals.
    HandshakeCompleted,
    /// No session can be made. Packets still wait: [`Peer::take_waiting`](super::Peer::take_waiting). Initiator only.
    Failed(FailReason),
}

/// Why no session can be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FailReason {
    /// No valid response within 20 s.
    #[error("no answer to handshakes for 20 s")]
    AttemptsExhausted,
    /// Responses do not decrypt: the two sides hold different keys.
    #[error("handshake responses do not decrypt: keys differ")]
    KeysDiffer,
}

/// Counters since a peer was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stats {
    /// Packets sealed, without keepalives.
    pub tx_packets: u64,
    /// Bytes of those packets, before sealing.
    pub tx_bytes: u64,
    /// Packets opened, without keepalives.
    pub rx_packets: u64,
    /// Bytes of those packets, after opening.
    pub rx_bytes: u64,
    /// Packets larger than the tunnel's MTU, dropped.
    pub dropped_oversize: u64,
    /// Packets dropped because the queue of waiting packets was full.
    pub dropped_full: u64,
    /// Packets dropped, or given back, for want of a session or a path, or because waiting took too long.
    pub dropped_no_session: u64,
    /// Datagrams lost because they were not polled.
    pub dropped_outbox: u64,
    /// Received datagrams that were refused.
    pub rejected: u64,
    /// Initiations sent.
    pub inits_sent: u64,
    /// Responses sent.
    pub responses_sent: u64,
    /// Sessions completed.
    pub handshakes: u64,
    /// Keepalives sent.
    pub keepalives_sent: u64,
}

/// The parts of a peer that do not depend on its role.
#[derive(Debug)]
pub(super) struct Common {
    now: Instant,
    rng: ChaCha20Rng,
    /// A path was nominated at least once.
    pub(super) path_ready: bool,
    pub(super) outbox: Outbox,
    pub(super) stats: Stats,
    /// Since when data was received without anything sent.
    owed_since: Option<Instant>,
    completed: bool,
    failed: Option<FailReason>,
}

impl Common {
    pub(super) fn new(seed: [u8; 32], now: Instant) -> Self {
        Self {
            now,
            rng: ChaCha20Rng::from_seed(seed),
            path_ready: false,
            outbox: Outbox::new(),
            stats: Stats::default(),
            owed_since: None,
            completed: false,
            failed: None,
        }
    }

    /// Takes the caller's clock; it never goes back.
    #[inline]
    pub(super) fn advance(&mut self, now: Instant) -> Instant {
        self.now = self.now.max(now);
        self.now
    }

    pub(super) fn now(&self) -> Instant {
        self.now
    }

    #[inline]
    pub(super) fn has_output(&self) -> bool {
        !self.outbox.is_empty() || self.completed || self.failed.is_some()
    }

    pub(super) fn poll_event(&mut self) -> Option<Event> {
        if std::mem::take(&mut self.completed) {
            return Some(Event::HandshakeCompleted);
        }

        self.failed.take().map(Event::Failed)
    }

    pub(super) fn completed(&mut self) {
        self.completed = true;
        self.stats.handshakes += 1;
    }

    pub(super) fn failed(&mut self, reason: FailReason) {
        self.failed = Some(reason);
    }

    /// Jitter of T4 and T5.
    #[inline]
    pub(super) fn jitter(&mut self) -> Duration {
        Duration::from_micros(self.rng.random_range(0..=MAX_JITTER.as_micros() as u64))
    }

    /// The age at which a new session is renewed (T17).
    pub(super) fn renewal_age(&mut self) -> Duration {
        let (min, max) = (RENEW_AFTER_TIME.start(), RENEW_AFTER_TIME.end());

        Duration::from_micros(
            self.rng
                .random_range(min.as_micros() as u64..=max.as_micros() as u64),
        )
    }

    /// Data was received: an answer is owed.
    #[inline]
    pub(super) fn received(&mut self, packets: u64, bytes: u64, now: Instant) {
        self.stats.rx_packets += packets;
        self.stats.rx_bytes += bytes;
        self.owed_since.get_or_insert(now);
    }

    /// Something authentic was sent, or the session is gone: nothing is owed any more.
    #[inline]
    pub(super) fn settle(&mut self) {
        self.owed_since = None;
    }

    /// When the passive keepalive is due.
    pub(super) fn keepalive_at(&self) -> Option<Instant> {
        self.owed_since.map(|since| since + KEEPALIVE_TIMEOUT)
    }
}
