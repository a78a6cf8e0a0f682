//! NAT between proxy addresses, which the client has invented, and the real addresses of DNS resources (tunnel spec
//! §5.5).
//!
//! [`AddressMap`] says what a proxy address stands for *now*; [`Sessions`] remembers what it stood for when a flow began.
//! The session is consulted first, so a new DNS answer never cuts a running flow. Only the destination of outgoing
//! packets is rewritten, and the client's port where two names share a real address; the client's address stays.

mod address_map;
mod expired;
mod ports;
mod session;
mod sessions;
mod tuple;

pub(super) use address_map::{AddressMap, Assigned, Assignment};
pub(super) use session::TcpSignal;
pub(super) use sessions::{Incoming, NoSession, Sessions, Translation};
