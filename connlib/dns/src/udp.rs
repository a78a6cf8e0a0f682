//! DNS over UDP in user space.

mod client;

pub use client::Client;
