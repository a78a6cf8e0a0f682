//! Conformance of one pair of peers, in virtual time (snownet §6, items 43–60; testing §6.3).
//!
//! Every test runs under the invariants that [`world::World`] checks on each datagram: no initiation ever leaves the responder,
//! nothing is sealed under a session that is too old, and each announced deadline is gone once it was handled.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    unreachable_pub,
    reason = "tests"
)]

mod handshake;
mod hostile;
mod idle;
mod interop;
mod keepalive;
mod longevity;
mod spare;
mod world;
