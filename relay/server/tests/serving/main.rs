//! The program over real sockets on loopback.
#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod client;
mod collector;
#[cfg(target_os = "linux")]
mod crowd;
mod endpoints;
mod hostile;
mod limits;
mod load;
#[cfg(target_os = "linux")]
mod offload;
mod portal;
mod process;
mod raw;
mod relaying;
mod restart;
mod standalone;
mod turnutils;
mod workers;
