//! Threads, queues and the event loop: the only place where time, sockets and state machines meet.
//!
//! ```text
//!   tokio runtime                                        data thread (one per worker)
//!   ├ portal: WebSocket channel     ── bounded queue ──► ┌──────────────────────────────┐
//!   ├ DNS look-ups                  ◄── bounded queue ── │ session + tunnel  (`&mut`)   │
//!   └ the program: OS set-up, UI    ── commands ───────► │ TUN device, UDP sockets      │
//!                                   ◄── events ───────── └──────────────────────────────┘
//! ```
//!
//! The data thread runs each batch to completion: read → decide → seal → send, receive → open → decide → write. It
//! never waits for anything but its descriptors, its queue and its next deadline, and nothing else touches them.
//!
//! A gateway may have several data threads, each with its share of the clients, a queue of the TUN device and sockets of
//! its own. `desk` gives each the portal's messages that concern it, `siblings` the packets that came out of another's
//! queue.
//!
//! [`Client`] and [`Gateway`] start the threads; dropping them stops everything.
#![deny(missing_docs)]

mod client;
mod clock;
mod desk;
mod dns_server;
mod gateway;
mod outgoing;
mod portal;
mod recursive;
mod resolver;
mod role;
mod siblings;
mod start;
mod tun_io;
mod worker;

pub use client::{Client, ClientEvent, ClientOptions};
pub use dns_server::DnsServer;
pub use gateway::{Gateway, GatewayOptions, GatewayRuntimeEvent};
pub use start::StartError;

/// Most workers of a gateway: each is a user of its own on the relays.
pub const MAX_WORKERS: usize = connlib_messages::MAX_RELAY_USERS;
