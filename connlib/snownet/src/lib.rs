//! Encrypted point-to-point IP links between peers that may sit behind NATs.
//!
//! A [`Node`] turns a set of TURN relays and a signalling channel into connections. It composes
//! three things per connection: an ICE agent that finds a path, a WireGuard peer that protects what
//! travels on it, and the node's TURN allocations that lend an address where NATs allow nothing
//! better.
//!
//! The crate is pure: it owns no socket, clock, task or source of randomness. See [`Node`] for the
//! loop that drives it.
//!
//! # Invariants
//!
//! * At most one connection per peer id; it is bound to exactly one relay at a time.
//! * ICE alone decides the path. WireGuard traffic never changes it.
//! * The source address of a datagram never selects the WireGuard peer; indices and keys do.
//! * Only the client nominates paths and only the client starts WireGuard handshakes.
//! * Nothing that arrives from the network panics, allocates without bound or ends a batch.

#![deny(missing_docs)]
#![cfg_attr(
    test,
    allow(
        clippy::disallowed_methods,
        reason = "tests start at the present instant"
    )
)]

mod config;
mod connection;
mod dispatch;
mod events;
mod ice;
mod id;
mod node;
mod output;
mod path;
mod relays;
mod requests;
mod schedule;
mod sink;
mod stats;
mod table;
mod train;
mod transmits;

pub use config::{IceCredentials, InvalidCredentials, RelayConfig, Role};
pub use connlib_wireguard::PublicKey;
pub use id::Id;
pub use node::Node;
pub use output::{
    DecapsulateError, Decapsulated, EncapsulateError, Encapsulated, Event, NoRelays, Transmit,
};
pub use path::{ConnectionState, PathInfo, PathKind};
pub use sink::DatagramSink;
pub use stats::NodeStats;
pub use train::{PacketSink, Train};

/// Largest UDP payload that the node sends or accepts (bytes).
///
/// An IP packet of [`ip_packet::MAX_IP_SIZE`], WireGuard's data header (16) and tag (16), and the
/// header of TURN channel data (4).
pub const MAX_DATAGRAM_SIZE: usize = ip_packet::MAX_IP_SIZE + 32 + 4;
