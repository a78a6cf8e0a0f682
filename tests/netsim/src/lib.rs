//! A pure model of an IP network: hosts, NATs, firewalls, latency, loss, rate limits. Virtual time.
//!
//! The model moves packets, it does not look inside them: a packet is its [`Tuple`] (transport, source,
//! destination), its size, and a payload of the caller's type. What a NAT changes, it changes in the tuple; a
//! caller that carries real bytes (the testbed) writes the delivered tuple back into them, one that carries
//! datagrams (the simulation) has nothing to do.
//!
//! ```text
//!   host ──link──► [edge: NAT + firewall] ──► network ──► [edge] ──link──► host
//!        latency    mapping at send time       by address   filter at        latency
//!        loss, rate                                         arrival time     loss, rate
//! ```
//!
//! The driving loop:
//!
//! ```
//! # use std::time::{Duration, Instant};
//! # use netsim::{HostConfig, Network, Transport, Tuple};
//! let mut network = Network::new([7; 32]);
//! let a = network.add_host(HostConfig::open("a").v4("203.0.113.1".parse().unwrap()));
//! let b = network.add_host(HostConfig::open("b").v4("203.0.113.2".parse().unwrap()));
//! let now = Instant::now();
//! let tuple = Tuple::new(Transport::Udp, "203.0.113.1:5".parse().unwrap(), "203.0.113.2:6".parse().unwrap());
//! network.send(a, tuple, 100, "hello", now);
//! while let Some(due) = network.poll_timeout() {
//!     while let Some(delivery) = network.poll_delivery(due) {
//!         assert_eq!((delivery.host, delivery.payload), (b, "hello"));
//!     }
//! }
//! ```
//!
//! Equal seeds and inputs give equal outputs.
#![deny(missing_docs)]
#![cfg_attr(
    test,
    allow(clippy::disallowed_methods, reason = "tests own the clock")
)]

mod edge;
mod link;
mod network;
mod tuple;

pub use edge::{EdgeConfig, EdgeKind, Filtering, InboundRefresh};
pub use link::LinkConfig;
pub use network::{
    Counters, Delivery, DropReason, EdgeId, HostConfig, HostId, Network, Prefix, Sent,
};
pub use tuple::{Transport, Tuple};
