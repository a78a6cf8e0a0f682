//! DNS messages and a name server, written apart from the production code so that both must agree on the wire.

pub mod message;
pub mod server;
