//! Sockets that bypass the tunnel, and what the process may do (clients spec §2.3, §7.1).

use std::{
    fs, io,
    net::SocketAddr,
    os::fd::{AsFd, BorrowedFd},
};

use nix::sys::socket::{setsockopt, sockopt};
use tokio::net::TcpSocket;

use crate::FIREWALL_MARK;

/// Receive buffer limit that a gateway asks of the kernel, in bytes: 10 ms at 10 Gbit/s.
const RMEM_MAX: u64 = 16 << 20;
/// Send buffer limit, in bytes.
const WMEM_MAX: u64 = 2 << 20;

/// Marks a socket so that the policy rules send it past the tunnel.
///
/// # Errors
///
/// Without `CAP_NET_ADMIN`.
pub fn mark_socket(socket: BorrowedFd<'_>) -> io::Result<()> {
    setsockopt(&socket, sockopt::Mark, &FIREWALL_MARK).map_err(io::Error::from)
}

/// A marked TCP socket of the family of `remote`, without Nagle's delay.
///
/// # Errors
///
/// If the family is missing or the socket cannot be marked.
pub fn tcp_socket(remote: SocketAddr) -> io::Result<TcpSocket> {
    let socket = match remote {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    mark_socket(socket.as_fd())?;
    socket.set_nodelay(true)?;
    Ok(socket)
}

/// Whether the process is root or holds `CAP_NET_ADMIN`.
pub fn may_administer_network() -> bool {
    const CAP_NET_ADMIN: u64 = 12;
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .is_some_and(|mask| mask & (1 << CAP_NET_ADMIN) != 0)
}

/// Raises the kernel's limits for socket buffers where they are lower. Failure is only logged.
pub fn raise_socket_buffer_limits() {
    for (path, wanted) in [
        ("/proc/sys/net/core/rmem_max", RMEM_MAX),
        ("/proc/sys/net/core/wmem_max", WMEM_MAX),
    ] {
        let current = fs::read_to_string(path)
            .ok()
            .and_then(|text| text.trim().parse::<u64>().ok());
        if current.is_none_or(|current| current >= wanted) {
            continue;
        }
        if let Err(error) = fs::write(path, wanted.to_string()) {
            tracing::info!(path, wanted, %error, "Cannot raise a socket buffer limit");
        }
    }
}
