//! The gateway's half of the tunnel: who may reach what, name resolution on behalf of clients, and the NAT between proxy
//! addresses and the real ones (tunnel spec §5).
//!
//! [`Gateway`] composes the connections ([`connlib_snownet::Node`]), one [`peer::ClientPeer`] per client, and the
//! look-ups in flight. A client's state outlives its connection and ends with its last authorization.
//!
//! | file | holds |
//! |---|---|
//! | `state` | entry points, deadlines, events |
//! | `packets` | the packet paths: open, decide, translate, seal |
//! | `peer` | the state of one client, and the order of decisions for a packet in each direction |
//! | `access`, `networks`, `rules` | authorizations and the filter engine |
//! | `nat` | proxy address map and session table |
//! | `control`, `names` | control packets and look-ups |

mod access;
mod api;
#[cfg(feature = "bench")]
pub mod bench;
mod control;
mod flow_cache;
mod names;
mod nat;
mod networks;
mod packets;
mod peer;
mod peers;
mod rules;
mod state;

pub use api::{AuthorizeFlow, GatewayEvent, GatewayStats, ResolveError, ResolveId, TunAddresses};
pub use state::Gateway;
