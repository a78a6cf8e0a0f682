//! Linux.

mod interface;
mod link_scope;
mod masquerade;
mod netlink;
mod network_changes;
mod resolv_conf;
pub(crate) mod resolved;
mod resolver_changes;
mod rules;
mod service;
mod signals;
mod sockets;

pub use interface::{Families, InterfaceError, TunInterface, default_tun_name};
pub use masquerade::{Masquerade, MasqueradeError, MasqueradeMode};
pub use network_changes::NetworkChanges;
pub(crate) use resolv_conf::ResolvConf;
pub use resolv_conf::system_nameservers;
pub use resolver_changes::ResolverChanges;
pub use service::{hardware_identity, notify_ready};
pub use signals::{Signal, Signals};
pub use sockets::{mark_socket, may_administer_network, raise_socket_buffer_limits, tcp_socket};

/// Table of the resources' routes.
pub(crate) const TABLE_RESOURCES: u32 = 0x2021_fd00;
/// Table of the copied link-scope routes, so that the LAN stays reachable under a default route of ours.
pub(crate) const TABLE_LINK_SCOPE: u32 = 0x2021_fd01;
/// Table of our default routes.
pub(crate) const TABLE_DEFAULT: u32 = 0x2021_fd02;
