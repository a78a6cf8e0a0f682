//! The tunnel's state machines: what becomes of an IP packet between the TUN device and the encrypted connections.
//!
//! [`Client`] and [`Gateway`] own all routing, DNS, NAT, filter and authorisation state of one process, and the
//! [`connlib_snownet::Node`] that carries their packets. Both are pure: they own no socket, clock, task or thread.
//! Time comes in as `now`, randomness as a seed.
//!
//! # Driving loop
//!
//! ```text
//! loop {
//!     drain poll_transmit()  -> outgoing datagrams          // after every input, before the next one
//!     drain poll_packet()    -> TUN device                  // client only
//!     drain poll_event()     -> portal, resolver, application
//!     wait for: a TUN read, a datagram, a message, poll_timeout()
//!     handle_tun / handle_network / handle_… / handle_timeout(now)
//! }
//! ```
//!
//! The unit of work is the *super-packet*: up to 64 KB of one flow with a segment size, as read from a TUN device with
//! offload. Routing, filter and NAT decide once per super-packet; [`segment`] turns it into packets and back.

#![deny(missing_docs)]
#![cfg_attr(
    test,
    allow(
        clippy::disallowed_methods,
        reason = "a test's time begins at any instant, which only the clock can make"
    )
)]

mod client;
mod direct_map;
mod gateway;
mod p2p_control;
pub mod segment;
mod unix_time;

pub use client::*;
pub use connlib_snownet::{
    DatagramSink, IceCredentials, NoRelays, NodeStats, PathInfo, PathKind, PublicKey, RelayConfig,
    Train, Transmit,
};
pub use gateway::*;
pub use p2p_control::{
    AssignedIps, ControlEvent, DecodeControlError, DomainStatus, NatStatus, goodbye_packet,
};
pub use segment::TunPacket;
