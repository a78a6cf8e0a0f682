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
/// Bytes behind the ICMP header, if nobody says otherwise.
pub const DEFAULT_PAYLOAD: usize = 48;
/// What the payload consists of.
const FILLER: u8 = 0x42;
/// Type, code, checksum, identifier, sequence number.
const HEADER: usize = 8;

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
pub fn ping(address: IpAddr, count: u16, payload: usize) -> Result<Pinged> {
    let echo = Echo::open(address, payload).context("cannot open a ping socket")?;
    let mut times = Vec::new();
    for sequence in 1..=count {
        let started = Instant::now();
        if let Err(error) = echo.request(sequence) {
            tracing::debug!(%error, "Echo request not sent");
            continue;
        }
        let deadline = started + PATIENCE;
        while let Some(answered) = echo.reply(deadline) {
            if answered == sequence {
                times.push(started.elapsed().as_secs_f64() * 1e3);
                break;
            }
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

/// A socket for echo requests to one address.
#[derive(Debug)]
pub struct Echo {
    socket: OwnedFd,
    address: IpAddr,
    payload: usize,
}

impl Echo {
    /// Opens the socket in the calling thread's network namespace.
    ///
    /// # Errors
    ///
    /// If the system refuses.
    pub fn open(address: IpAddr, payload: usize) -> io::Result<Self> {
        let (domain, protocol) = match address {
            IpAddr::V4(_) => (libc::AF_INET, libc::IPPROTO_ICMP),
            IpAddr::V6(_) => (libc::AF_INET6, libc::IPPROTO_ICMPV6),
        };
        // SAFETY: plain system call.
        let fd = unsafe { libc::socket(domain, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, protocol) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(Self {
            // SAFETY: `fd` was just opened and is owned by nobody else.
            socket: unsafe { OwnedFd::from_raw_fd(fd) },
            address,
            payload,
        })
    }

    /// Sends a request.
    ///
    /// # Errors
    ///
    /// If the system refuses, also because of an error that an earlier request caused.
    pub fn request(&self, sequence: u16) -> io::Result<()> {
        let request_type = if self.address.is_ipv4() { 8 } else { 128 };
        let mut message = vec![request_type, 0, 0, 0, 0, 0];
        message.extend_from_slice(&sequence.to_be_bytes());
        message.resize(HEADER + self.payload, FILLER);
        // The kernel fills in identifier and checksum of a ping socket.
        let target = nix::sys::socket::SockaddrStorage::from(SocketAddr::new(self.address, 0));
        nix::sys::socket::sendto(
            self.socket.as_raw_fd(),
            &message,
            &target,
            nix::sys::socket::MsgFlags::empty(),
        )?;
        Ok(())
    }

    /// The sequence number of the next right answer, if one arrives until `deadline`.
    pub fn reply(&self, deadline: Instant) -> Option<u16> {
        use nix::sys::{
            socket::{setsockopt, sockopt::ReceiveTimeout},
            time::{TimeVal, TimeValLike as _},
        };
        let mut buffer = vec![0; HEADER + self.payload + 1];
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            let left = i64::try_from(left.as_micros()).unwrap_or(1).max(1);
            setsockopt(&self.socket, ReceiveTimeout, &TimeVal::microseconds(left)).ok()?;
            // An error is that of an earlier request, or the end of the wait.
            if let Ok(length) = nix::unistd::read(&self.socket, &mut buffer)
                && let Some(sequence) = self.parse(&buffer[..length])
            {
                return Some(sequence);
            }
        }
    }

    fn parse(&self, message: &[u8]) -> Option<u16> {
        let (header, payload) = message.split_at_checked(HEADER)?;
        let is_right = matches!(header[0], 0 | 129)
            && payload.len() == self.payload
            && payload.iter().all(|byte| *byte == FILLER);
        is_right.then(|| u16::from_be_bytes([header[6], header[7]]))
    }
}
