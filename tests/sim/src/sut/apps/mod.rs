//! What runs on clients and behind gateways: applications that send probes, ask for names and hold TCP connections;
//! servers that answer.

pub(crate) mod client;
pub(crate) mod probe;
pub(crate) mod server;
pub(crate) mod stack;
pub(crate) mod tcp;
