//! A network on one machine: real processes in namespaces, [`netsim`] between them.
//!
//! Each test host is a network namespace (with a mount namespace of its own, so that it can have a private `/run`
//! and its own `resolv.conf`). Each interface of a host is a TUN device. One process, the *worker*, owns the other
//! end of all of them and moves packets by the rules of [`netsim`]: NATs, firewalls, latency, loss, rates. Nothing
//! of it needs `veth`, `nft` or `netem`, and with user namespaces it does not need root.
//!
//! ```text
//!  orchestrator (demo, e2e)                       worker process
//!   │ Testbed::start(topology) ── TUN fds, JSON ──►│ poll TUNs → netsim → write TUNs
//!   │ Host::command(program)   ◄── line protocol ──│ block, flush, counters …
//!   ▼
//!  processes inside namespaces
//! ```
//!
//! For throughput there is [`connect_by_cables`]: the same hosts joined by veth pairs, without worker and rules.
//!
//! Namespaces are held by file descriptors and processes only, and every process dies with the thread that started
//! it: however the orchestrator ends, nothing stays behind.
//!
//! An executable that uses this crate calls [`run_worker_if_asked`] first thing in `main`, since the worker is the
//! same executable, started again.
#![deny(missing_docs)]

mod cables;
mod control;
mod host;
mod interface;
mod namespace;
mod packet;
mod testbed;
mod topology;
mod worker;

pub use cables::connect_by_cables;
pub use host::Host;
pub use namespace::{Isolation, IsolationError, isolate};
pub use testbed::Testbed;
pub use topology::{
    Address, EdgeKindSpec, EdgeSpec, HostSpec, InterfaceSpec, LinkSpec, RouteSpec, Topology,
};
pub use worker::run_worker_if_asked;
