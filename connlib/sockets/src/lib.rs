//! UDP sockets for the data path: many datagrams per system call in both directions.
//!
//! | Module | Holds |
//! |---|---|
//! | [`sockets`] | the pair of sockets (IPv4, IPv6-only) of one data thread; binding and re-binding |
//! | [`udp`] | one non-blocking socket: buffers, marks, offloads |
//! | [`receive`] | receive buffers and the datagrams in them (GRO) |
//! | [`queue`] | datagrams on their way out, in write order, in batches (GSO) |
//! | [`counters`] | what was sent, received and lost, and why |
//!
//! Nothing here allocates, locks or reads a clock per datagram.

#![deny(missing_docs)]

pub mod counters;
mod platform;
pub mod queue;
pub mod receive;
pub mod sockets;
pub mod udp;

pub use counters::{ReceiveCounters, SendCounters};
pub use queue::{Flushed, GsoQueue};
pub use receive::{ReceiveBuffers, Train, Trains};
pub use sockets::{BindError, Family, Sockets};
pub use udp::{Prepare, SocketOptions, UdpSocket};

/// Largest datagram in either direction: a packet of 1280 bytes, 32 bytes of WireGuard and 4 bytes of channel header.
/// Larger ones are of no use to anybody, so they are dropped and counted.
pub const MAX_DATAGRAM: usize = 1316;

/// Port bound at process start, so that a static port forward works.
pub const PREFERRED_PORT: u16 = 52625;
