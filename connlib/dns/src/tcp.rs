//! DNS over TCP in user space (RFC 7766), on `smoltcp`.

mod client;
mod framing;
mod server;
mod stack;

pub use client::Client;
pub use server::{NoConnection, Server, TcpQuery};
