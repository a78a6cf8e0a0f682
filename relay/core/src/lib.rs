//! The relay as a state machine: a STUN and TURN server (RFC 8489, RFC 8656) without sockets, clock or threads.
//!
//! A *client* (an end-user client or a gateway) asks for an *allocation*, a port on the relay that stands for it, and binds
//! *channels* from it to *peers*. Between a bound channel and its peer, datagrams are passed on unread: they are encrypted
//! end to end. [`Server`] holds the protocol; its documentation shows the loop that drives it.
//!
//! | Module | Holds |
//! |---|---|
//! | [`server`] | requests, data path, time; commands to the driver |
//! | [`config`] | settings, profiles |
//! | [`policy`] | whom clients may talk to |
//! | [`address`] | clients, peers and ports as types of their own |
//! | [`shard`] | several servers behind one address |
//! | `allocations`, `channels`, `ports`, `timers` | tables |
//! | `nonce`, `secret`, `limit`, `hash` | what keeps strangers from guessing and flooding |
#![deny(missing_docs)]

pub mod address;
mod allocations;
mod channels;
pub mod config;
pub mod counters;
mod hash;
mod limit;
mod nonce;
pub mod policy;
mod ports;
mod secret;
pub mod server;
pub mod shard;
mod timers;

pub use address::{AllocationPort, ClientSocket, PeerSocket, family_of};
pub use channels::{CHANNEL_COOL_DOWN, CHANNEL_LIFETIME};
pub use config::{Config, ConfigError, PortRange, Profile, PublicAddresses, Quota};
pub use connlib_stun::Family;
pub use counters::Counters;
pub use policy::{PeerPolicy, PrivatePeers};
pub use secret::{InvalidStampSecret, StampSecret};
pub use server::{Command, Forwarder, Route, Server, Train};
pub use shard::{Holder, Shard, Users};
