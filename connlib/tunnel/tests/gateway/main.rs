//! The gateway against clients that are nothing but a connection and a recorder (tunnel spec §11, items marked GW).
//!
//! Portal, resolver, sites and network are played by [`world::World`], in virtual time.

#![allow(unreachable_pub, reason = "modules of one test binary")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(
    clippy::disallowed_methods,
    reason = "virtual time begins at any instant"
)]

mod access;
mod data_path;
mod names;
mod world;
