//! Starts the real server on a port of this machine and speaks to it as client, gateway and relay, with the frames that
//! components of both generations send.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod channel;
mod http;
mod operation;
mod peer;
mod portal;
mod process;
