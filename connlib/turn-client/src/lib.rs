//! One TURN allocation, seen from the client (RFC 8656; snownet spec §2).
//!
//! An [`Allocation`] finds out through which address family a relay answers, allocates relayed addresses there, keeps them
//! alive, binds channels to peers, and discovers this host's own addresses on the way. It knows nothing about who the
//! peers are and owns no socket, clock or randomness.
//!
//! # Driving it
//!
//! ```text
//! loop {
//!     while let Some(transmit) = allocation.poll_transmit() { send transmit.payload to transmit.dst }
//!     while let Some(event) = allocation.poll_event() { tell the ICE agents }
//!     if let Some(reason) = allocation.free_reason() { drop the allocation; break }
//!     sleep until allocation.poll_timeout() or a datagram arrives
//!     on STUN:         allocation.handle_input(local, from, datagram, now)
//!     on channel data: allocation.decapsulate(from, datagram, now)
//!     on time-out:     allocation.handle_timeout(now)
//! }
//! ```
//!
//! Requests must leave before channel data that is framed later: data sent right behind a channel binding is relayed
//! because the relay handles datagrams of one client in order. [`Allocation::expect_answer`] is for channel data that calls
//! for an answer.
#![deny(missing_docs)]

mod allocation;
mod backoff;
mod candidates;
mod channels;
mod credentials;
mod output;
mod requests;
mod server;
mod silence;

pub use allocation::{Allocation, Framed, Input, Unwrapped};
pub use credentials::Credentials;
pub use output::{Event, FreeReason, Transmit};
pub use server::Server;
