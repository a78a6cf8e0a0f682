//! One WireGuard peer as a pure state machine: keys, sessions, timers and queues around an exchangeable cipher engine.
//!
//! The cryptography is behind [`Engine`], which decides nothing and reads no clock. Every rule about *when* (rekey, renewal,
//! retry, keepalive, expiry) lives in [`Peer`] and is an exact deadline on the caller's `now` (snownet §4.4–4.6).
//!
//! Invariants:
//!
//! * Only a [`Role::Initiator`] has code that can emit a handshake initiation. A [`Role::Responder`] answers, and drops what it cannot seal.
//! * The engine seals and opens only under a session that the mirror in [`Peer`] knows to be valid at `now`.
//! * At most one handshake is in flight; starting another is a no-op.
//! * Sealing and opening allocate nothing: packets go from the caller's batch straight into the caller's slot.
//!
//! # Driving a peer
//!
//! ```text
//! datagram in ─ classify ─┬ Init ────── HandshakeLimiter::check ─ parse_init ─ peer by static key ─┐
//!                         ├ Response ── HandshakeLimiter::check ─ peer by receiver index ──────────┤─► Peer::open
//!                         └ Cookie, Data ──────────────────────── peer by receiver index ──────────┘
//! packets out ─ Peer::seal ─► SealSink
//! after every input: drain Peer::poll_transmit, then Peer::poll_event; sleep until Peer::poll_timeout; Peer::handle_timeout
//! ```

#![deny(missing_docs)]

mod engine;
mod index;
mod keys;
mod limiter;
mod macs;
mod message;
mod peer;
mod queue;
mod sink;
mod timestamp;

pub use engine::{Engine, EngineConfig, EngineError, Noise, OpenJob, SealOutcome};
pub use index::{IndexTable, IndexesExhausted, PeerIndex};
pub use keys::{PrivateKey, PublicKey};
pub use limiter::{CookieReply, HANDSHAKES_PER_SECOND, HandshakeLimiter, LimitError};
pub use message::{
    COOKIE_REPLY_LEN, DATA_OVERHEAD, INIT_LEN, Inbound, KEEPALIVE_LEN, MAX_DATAGRAM, Malformed,
    ParseInitError, REJECT_AFTER_MESSAGES, RESPONSE_LEN, classify, parse_init,
};
pub use peer::{
    Event, FailReason, OpenError, OpenSink, Opened, OpenedTrain, Peer, PeerConfig, Role,
    SpareOutcome, Stats, timing,
};
pub use queue::{Datagram, DatagramKind};
pub use sink::{SealSink, Sealed};
pub use timestamp::{Timestamp, WallClock};
