//! The parts of the client's stub resolver: DNS messages, sentinels, proxy addresses, and user-space servers and clients
//! for DNS over TCP and UDP.
//!
//! Pure: packets and time go in, packets and results come out. Which resource a name belongs to, and whether a look-up
//! goes through the tunnel, is decided by the tunnel's state machine; this crate provides what it needs for that.
//!
//! | Part | Job |
//! |---|---|
//! | [`message`] | read a query, make local answers, cut answers to the size of a packet |
//! | [`SentinelMap`] | which upstream is behind which stub-resolver address |
//! | [`ProxyIps`] | which invented addresses belong to which domain |
//! | [`tcp::Server`] | DNS over TCP towards applications, on the sentinels |
//! | [`tcp::Client`], [`udp::Client`] | look-ups through the tunnel, from the TUN address |
//! | [`RecursiveQuery`], [`RecursiveResponse`] | one look-up and its result, whoever does it |

#![deny(missing_docs)]
#![forbid(unsafe_code)]

pub mod message;
pub mod tcp;
pub mod udp;

mod ports;
mod proxy_ips;
mod recursive;
mod sentinel;
mod source;

#[cfg(test)]
mod testing;

pub use message::{Query, QueryError, QueryType};
pub use proxy_ips::{ProxyAddresses, ProxyIps};
pub use recursive::{DnsTransport, QueryId, RecursiveError, RecursiveQuery, RecursiveResponse};
pub use sentinel::{EffectiveServers, SentinelMap, ServerOrigin};
pub use source::SourceAddresses;

/// Port of DNS servers.
pub const DNS_PORT: u16 = 53;
