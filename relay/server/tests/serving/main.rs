//! The program over real sockets on loopback.
#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod client;
mod portal;
mod process;
mod relaying;
