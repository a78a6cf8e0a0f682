//! The portal without sockets, clock, files or randomness of its own: who may reach what, and who is introduced to whom.
//!
//! [`Portal`] is one state machine for a whole account: connections of clients, gateways and relays come in, frames come
//! in, frames and records to store come out. The server around it reads the configuration, keeps the records and speaks
//! WebSocket. Section numbers refer to the portal protocol.

#![deny(missing_docs)]
#![cfg_attr(
    test,
    allow(clippy::unwrap_used, reason = "a test stops at the first surprise")
)]

mod admission;
mod authorization;
mod client_channel;
pub mod config;
mod connection;
mod country;
pub mod derive;
mod device;
mod flow;
mod gateway_channel;
mod gateway_choice;
mod ingest;
mod introduction;
mod location;
mod login;
mod output;
mod policy;
mod portal;
mod relay_channel;
mod relays;
mod reload;
pub mod token;
mod version;

pub use authorization::{Authorization, Basis};
pub use device::{Device, MAX_DEVICES_PER_OWNER, Owner};
pub use location::{Coordinates, Location};
pub use login::{ConnectError, Login, LoginParameters, MAX_PARAMETER_LEN};
pub use output::{CloseReason, Output, Refusal, Request, StoreOp};
pub use policy::{Circumstances, Conditions, TimeWindow, Verdict};
pub use portal::{ConnectionId, Portal, Stats, Stored, Time};
pub use version::Version;
