//! Two and more nodes on a simulated network with NATs and relays, driven in virtual time only by what they announce.
//!
//! Tests are named after the conformance items of the connectivity layer's specification.

#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    unreachable_pub,
    reason = "tests"
)]

mod relay;
mod world;

mod closing;
mod connect;
mod hostile;
mod idle;
mod loss;
mod relays;
mod silence;
mod speed;
mod time;
mod upsert;
mod walk;
mod wireguard;

/// Index of the client in [`world::World::pair`].
const C: usize = 0;
/// Index of the gateway in [`world::World::pair`].
const G: usize = 1;
