//! Two and more nodes on a simulated network with NATs and relays, driven in virtual time only by what they announce.
//!
//! Tests are named after the conformance items of the connectivity layer's specification.

#![allow(clippy::unwrap_used, unreachable_pub, reason = "tests")]

mod relay;
mod world;

mod connect;
