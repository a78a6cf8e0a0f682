//! The client against gateways that are nothing but a connection and a recorder (tunnel spec §11, items marked CL).
//!
//! Portal and network are played by [`world::World`], in virtual time.

#![allow(clippy::disallowed_methods, reason = "virtual time starts somewhere")]
#![allow(unreachable_pub, reason = "modules of one test binary")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod dns;
mod flows;
mod hostile;
mod logs;
mod names;
mod query;
mod resources;
mod roaming;
mod world;
