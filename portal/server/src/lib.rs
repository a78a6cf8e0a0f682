//! The portal as a program: configuration file, SQLite, HTTP, WebSocket and TLS around `portal-core`.
//!
//! One thread owns the state machine and the records ([`actor`](mod@actor)); every connection is a task that turns
//! frames into its inputs and its outputs into frames. All queues between them are bounded: a component that does not
//! read its messages is disconnected.

#![deny(missing_docs)]
#![cfg_attr(
    test,
    allow(clippy::unwrap_used, reason = "a test stops at the first surprise")
)]

pub mod actor;
mod cli;
pub mod config_file;
mod connection;
mod http;
mod listener;
mod metrics;
mod platform;
mod problem;
pub mod server;
pub mod store;
mod tls;
pub mod token_command;
mod watch;

pub use cli::run;
