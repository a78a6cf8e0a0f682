//! The operating system as the data plane needs it: the TUN interface's addresses, routes and policy rules, socket
//! marks, DNS control, masquerading, device id, token, directories, signals.
//!
//! Everything that differs by system sits in [`linux`] (a Windows twin takes the same names later); what does not
//! (device id, token rules, DNS control's decisions) is beside it.
#![deny(missing_docs)]

mod device_id;
mod directories;
mod dns_control;
mod flags;
mod host_info;
#[cfg(target_os = "linux")]
mod linux;
mod token;

pub use device_id::{DeviceIdError, DeviceKind, load_or_create_device_id};
pub use directories::{ClientDirectories, gateway_id_path};
pub use dns_control::{DnsControl, DnsControlError, DnsControlMethod};
pub use flags::parse_boolean;
pub use host_info::host_name;
#[cfg(target_os = "linux")]
pub use linux::{
    Families, InterfaceError, Masquerade, MasqueradeError, MasqueradeMode, NetworkChanges,
    ResolverChanges, Signal, Signals, TunInterface, default_tun_name, hardware_identity,
    mark_socket, may_administer_network, notify_ready, raise_socket_buffer_limits,
    system_nameservers, tcp_socket,
};
pub use token::{Token, TokenError, read_token};

/// Mark of all sockets that must bypass the tunnel (clients spec §2.3).
pub const FIREWALL_MARK: u32 = 0xfd00_2021;
