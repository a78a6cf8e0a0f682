//! The TUN device: one super-packet per system call, in both directions.
//!
//! With offload the kernel hands over, and takes, up to 64 KB of one flow at once, behind a 10-byte header that says how
//! to cut it apart ([`VnetHeader`]). Without offload (refused by the kernel, or switched off) every packet stands for
//! itself; readers and writers see the same interface.
//!
//! The crate opens the device and moves bytes. Addresses, routes and the link's state belong to the platform; cutting and
//! joining packets to the tunnel.

#![deny(missing_docs)]

mod header;
mod platform;

pub use header::{Checksum, Gso, InvalidHeader, VnetHeader};
pub use platform::Tun;

/// Name of the device unless another is asked for.
pub const DEFAULT_NAME: &str = "tun-firezone";

/// Size that a read buffer must have: the largest IP packet. The header in front of it is kept elsewhere.
pub const READ_BUFFER_BYTES: usize = 65_535;

/// How a device is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// Ask the kernel for super-packets. It is used without them when it refuses.
    pub offload: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { offload: true }
    }
}

/// What crosses the device as super-packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Offload {
    /// Nothing: plain packets, without a header.
    None,
    /// TCP (kernels before 6.2).
    Tcp,
    /// TCP and UDP.
    TcpAndUdp,
}

/// A device cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The name is empty, too long, or contains characters that no interface has.
    #[error("`{0}` is not a valid name for a network interface (1 to 15 characters)")]
    InvalidName(String),
    /// Another process holds a device of this name.
    #[error("the network interface `{0}` is in use by another process")]
    InUse(String),
    /// The process may not create network interfaces.
    #[error(
        "no permission to create the network interface `{0}`; run as root or with the capability CAP_NET_ADMIN"
    )]
    NoPermission(String),
    /// Anything else.
    #[error("cannot open the network interface `{name}`: {source}")]
    Io {
        /// Its name.
        name: String,
        /// What the system said.
        source: std::io::Error,
    },
}
