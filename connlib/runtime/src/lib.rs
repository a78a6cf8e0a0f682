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
//! [`Client`] and [`Gateway`] start the threads; dropping them stops everything.
#![deny(missing_docs)]

mod client;
mod clock;
mod dns_server;
mod gateway;
mod portal;
mod recursive;
mod resolver;
mod role;
mod sink;
mod start;
mod tun_io;
mod worker;

pub use client::{Client, ClientEvent, ClientOptions};
pub use dns_server::DnsServer;
pub use gateway::{Gateway, GatewayOptions, GatewayRuntimeEvent};
pub use start::StartError;
