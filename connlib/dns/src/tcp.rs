//! DNS over TCP in user space (RFC 7766), on `smoltcp`.

mod client;
mod framing;
mod server;
mod stack;

#[cfg(test)]
mod testing;

pub use client::Client;
pub use server::{NoConnection, Server, TcpQuery};
