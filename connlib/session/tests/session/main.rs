//! Sessions against scripted portal messages, and against each other (portal specification §12; tunnel 69).

#![allow(clippy::disallowed_methods, reason = "virtual time starts somewhere")]
#![allow(unreachable_pub, reason = "modules of one test binary")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod client;
mod dispatcher;
mod fixtures;
mod gateway;
// What a test of logs needs is the same in both crates.
#[path = "../../../tunnel/tests/client/logs.rs"]
mod logs;
mod pair;
