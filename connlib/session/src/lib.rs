//! The glue between the portal and the tunnel: portal messages become calls of the state machine, its events become portal
//! messages.
//!
//! [`ClientSession`] and [`GatewaySession`] own the tunnel's state machine. They are pure like it: messages and `now` come
//! in, messages and events are polled. Sockets, the WebSocket channel and the resolver are somebody else's.
//!
//! What they add to plain translation:
//!
//! * the order of `init`: interface, then resources, then relays;
//! * what must not get lost while the portal is unreachable is held back and sent on reconnect ([`held_back`]);
//! * relays: which ones are in use, and what to do when there are none ([`relays`]);
//! * several sessions share one gateway's clients ([`Dispatcher`]);
//! * a gateway acknowledges an authorization only after it was applied.

#![deny(missing_docs)]
#![cfg_attr(
    test,
    allow(clippy::disallowed_methods, reason = "virtual time starts somewhere")
)]

mod client;
mod dispatcher;
mod gateway;
mod held_back;
mod outgoing;
mod portal;
mod relays;

pub use client::{ClientSession, ClientSessionEvent};
pub use dispatcher::{Delivery, Dispatcher, Known, WorkerInput};
pub use gateway::{GatewaySession, GatewaySessionEvent};
pub use portal::{PortalInput, PortalOutput};
