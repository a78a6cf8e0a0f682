//! A connection that must not succeed, and the ICMP error that says so.

use std::{
    io,
    net::{IpAddr, SocketAddr, TcpStream},
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// How a connection was refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// Who sent the error.
    pub from: IpAddr,
    /// ICMP or ICMPv6 type.
    pub icmp_type: u8,
    /// Code of the type.
    pub icmp_code: u8,
    /// What type and code mean.
    pub meaning: String,
    /// What the application saw.
    pub connect_error: String,
}

/// Tries to connect and waits for the ICMP error.
///
/// # Errors
///
/// If the connection succeeds, or nothing comes back.
pub fn refused(address: IpAddr, port: u16) -> Result<Refused> {
    // Raw, to see type and code; opened before the attempt, so that nothing is missed.
    let errors = open_raw(address).context("cannot open a raw ICMP socket")?;
    let target = SocketAddr::new(address, port);
    let connect_error = match TcpStream::connect_timeout(&target, PATIENCE) {
        Ok(_) => bail!("{target} accepted the connection, although no policy allows it"),
        Err(error) => error.to_string(),
    };
    let (from, icmp_type, icmp_code) =
        next_error(&errors, address).with_context(|| format!("no ICMP error: {connect_error}"))?;
    Ok(Refused {
        from,
        icmp_type,
        icmp_code,
        meaning: meaning(address, icmp_type, icmp_code).to_owned(),
        connect_error,
    })
}

fn open_raw(address: IpAddr) -> io::Result<OwnedFd> {
    let (domain, protocol) = match address {
        IpAddr::V4(_) => (libc::AF_INET, libc::IPPROTO_ICMP),
        IpAddr::V6(_) => (libc::AF_INET6, libc::IPPROTO_ICMPV6),
    };
    // SAFETY: plain system call.
    let fd = unsafe {
        libc::socket(
            domain,
            libc::SOCK_RAW | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK,
            protocol,
        )
    };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: `fd` was just opened and is owned by nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// The next unreachable error that arrives: its sender, type and code.
fn next_error(socket: &OwnedFd, target: IpAddr) -> Result<(IpAddr, u8, u8)> {
    use nix::sys::socket::{SockaddrStorage, recvfrom};
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        let mut buffer = [0; 1500];
        let (length, from) = match recvfrom::<SockaddrStorage>(socket.as_raw_fd(), &mut buffer) {
            Ok((length, from)) => (length, from),
            Err(nix::Error::EAGAIN) => {
                std::thread::sleep(Duration::from_millis(10));
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        // An IPv4 raw socket delivers the IP header as well.
        let header = if target.is_ipv4() {
            usize::from(buffer[0] & 0x0f) * 4
        } else {
            0
        };
        let Some([kind, code]) = buffer[..length].get(header..header + 2) else {
            continue;
        };
        let from = from.as_ref().and_then(address_of);
        if let (Some(from), true) = (from, is_unreachable(target, *kind)) {
            return Ok((from, *kind, *code));
        }
    }
    bail!("nothing came back")
}

fn address_of(from: &nix::sys::socket::SockaddrStorage) -> Option<IpAddr> {
    let v4 = from.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip()));
    v4.or_else(|| from.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip())))
}

fn is_unreachable(target: IpAddr, kind: u8) -> bool {
    kind == if target.is_ipv4() { 3 } else { 1 }
}

fn meaning(target: IpAddr, kind: u8, code: u8) -> &'static str {
    match (target.is_ipv4(), kind, code) {
        (true, 3, 13) => "communication administratively prohibited",
        (true, 3, 0) => "network unreachable",
        (true, 3, 1) => "host unreachable",
        (true, 3, 3) => "port unreachable",
        (false, 1, 1) => "communication administratively prohibited",
        (false, 1, 0) => "no route",
        (false, 1, 3) => "address unreachable",
        (false, 1, 4) => "port unreachable",
        _ => "other",
    }
}
