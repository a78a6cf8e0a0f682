//! ICMP echo over an unprivileged "ping" socket.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

/// How long to wait for each answer.
const PATIENCE: Duration = Duration::from_secs(2);
const PAYLOAD: [u8; 48] = [0x42; 48];

/// Outcome of a series of echo requests.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Pinged {
    /// Requests sent.
    pub sent: u16,
    /// Answers received.
    pub received: u16,
    /// Median round-trip time in milliseconds.
    pub median_ms: Option<f64>,
}

/// Pings an address.
///
/// # Errors
///
/// If no socket can be had, or no request is answered.
pub fn ping(address: IpAddr, count: u16) -> Result<Pinged> {
    let socket = open(address).context("cannot open a ping socket")?;
    let mut times = Vec::new();
    for sequence in 1..=count {
        let started = Instant::now();
        if let Err(error) = send(&socket, address, sequence) {
            tracing::debug!(%error, "Echo request not sent");
            continue;
        }
        if answered(&socket, sequence, started + PATIENCE) {
            times.push(started.elapsed().as_secs_f64() * 1e3);
        }
    }
    times.sort_by(f64::total_cmp);
    if times.is_empty() {
        bail!("none of {count} echo requests to {address} was answered");
    }
    Ok(Pinged {
        sent: count,
        received: u16::try_from(times.len()).unwrap_or(u16::MAX),
        median_ms: times.get(times.len() / 2).copied(),
    })
}

fn open(address: IpAddr) -> io::Result<OwnedFd> {
    let (domain, protocol) = match address {
        IpAddr::V4(_) => (libc::AF_INET, libc::IPPROTO_ICMP),
        IpAddr::V6(_) => (libc::AF_INET6, libc::IPPROTO_ICMPV6),
    };
    // SAFETY: plain system calls; the descriptor is ours.
    let fd = unsafe { libc::socket(domain, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, protocol) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: `fd` was just opened and is owned by nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn send(socket: &OwnedFd, address: IpAddr, sequence: u16) -> io::Result<()> {
    let request_type = if address.is_ipv4() { 8 } else { 128 };
    let mut message = vec![request_type, 0, 0, 0, 0, 0];
    message.extend_from_slice(&sequence.to_be_bytes());
    message.extend_from_slice(&PAYLOAD);
    // The kernel fills in identifier and checksum of a ping socket.
    let target = nix::sys::socket::SockaddrStorage::from(SocketAddr::new(address, 0));
    nix::sys::socket::sendto(
        socket.as_raw_fd(),
        &message,
        &target,
        nix::sys::socket::MsgFlags::empty(),
    )?;
    Ok(())
}

fn answered(socket: &OwnedFd, sequence: u16, deadline: Instant) -> bool {
    use nix::sys::{
        socket::{setsockopt, sockopt::ReceiveTimeout},
        time::{TimeVal, TimeValLike as _},
    };
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return false;
        }
        let timeout = TimeVal::microseconds(i64::try_from(left.as_micros()).unwrap_or(1).max(1));
        if setsockopt(socket, ReceiveTimeout, &timeout).is_err() {
            return false;
        }
        let mut buffer = [0; 256];
        match nix::unistd::read(socket, &mut buffer) {
            Ok(length) if is_reply(&buffer[..length], sequence) => return true,
            Ok(_) | Err(nix::Error::EINTR) => {}
            Err(_) => return false,
        }
    }
}

fn is_reply(message: &[u8], sequence: u16) -> bool {
    let expected = sequence.to_be_bytes();
    matches!(message.first(), Some(0 | 129))
        && message.get(6..8) == Some(expected.as_slice())
        && message.get(8..) == Some(PAYLOAD.as_slice())
}
