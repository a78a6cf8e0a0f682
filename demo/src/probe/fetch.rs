//! An HTTP GET with timing: first SYN to first byte, throughput, checksum.

use std::{
    io::{Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpStream, ToSocketAddrs as _},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::content::hex;

/// A transfer that moves nothing for this long has stalled.
const STALL: Duration = Duration::from_secs(20);

/// Outcome of a fetch.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Fetched {
    /// The address that was connected to.
    pub address: IpAddr,
    /// HTTP status code.
    pub status: u16,
    /// Bytes of the body.
    pub bytes: u64,
    /// SHA-256 of the body, in hex.
    pub sha256: String,
    /// From the first SYN to the first byte of the answer, in milliseconds.
    pub first_byte_ms: f64,
    /// From the first to the last byte of the body, in seconds.
    pub transfer_seconds: f64,
}

impl Fetched {
    /// Payload bits per second.
    pub fn bits_per_second(&self) -> f64 {
        self.bytes as f64 * 8.0 / self.transfer_seconds.max(1e-9)
    }
}

/// Fetches `path` from `host` over the given address family.
///
/// # Errors
///
/// If the name has no address of the family, or anything of the transfer fails or stalls.
pub fn fetch(host: &str, path: &str, family: u8, timeout: u64) -> Result<Fetched> {
    let address = pick(host, family)?;
    let deadline = Instant::now() + Duration::from_secs(timeout);

    let started = Instant::now();
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(timeout))
        .with_context(|| format!("cannot connect to {address}"))?;
    stream.set_read_timeout(Some(STALL))?;
    stream.set_nodelay(true)?;
    keep_alive(&stream)?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;

    let mut buffer = vec![0; 256 * 1024];
    let mut head = Vec::new();
    let first = stream.read(&mut buffer).context("no answer")?;
    ensure!(first > 0, "the server closed the connection");
    let first_byte_ms = started.elapsed().as_secs_f64() * 1e3;
    head.extend_from_slice(&buffer[..first]);
    let body_start = loop {
        if let Some(end) = find(&head, b"\r\n\r\n") {
            break end + 4;
        }
        ensure!(head.len() < 64 * 1024, "endless header");
        let length = stream.read(&mut buffer)?;
        ensure!(length > 0, "the header ends early");
        head.extend_from_slice(&buffer[..length]);
    };
    let (status, expected) = parse_head(&head[..body_start])?;

    let transfer = Instant::now();
    let mut hash = Sha256::new();
    hash.update(&head[body_start..]);
    let mut bytes = (head.len() - body_start) as u64;
    loop {
        if Instant::now() > deadline {
            bail!("{bytes} of {expected} bytes arrived within {timeout} s");
        }
        let length = stream
            .read(&mut buffer)
            .with_context(|| format!("stalled after {bytes} of {expected} bytes"))?;
        if length == 0 {
            break;
        }
        hash.update(&buffer[..length]);
        bytes += length as u64;
    }
    ensure!(bytes == expected, "{bytes} of {expected} bytes arrived");
    Ok(Fetched {
        address: address.ip(),
        status,
        bytes,
        sha256: hex(&hash.finalize()),
        first_byte_ms,
        transfer_seconds: transfer.elapsed().as_secs_f64(),
    })
}

/// Asks the server every second whether it is still there, as download tools do. A client that only receives would never
/// send a packet on its new network, and nobody else can tell the gateway where it is now.
fn keep_alive(stream: &TcpStream) -> Result<()> {
    use nix::sys::socket::{setsockopt, sockopt};
    setsockopt(stream, sockopt::KeepAlive, &true)?;
    setsockopt(stream, sockopt::TcpKeepIdle, &1)?;
    setsockopt(stream, sockopt::TcpKeepInterval, &1)?;
    Ok(())
}

fn pick(host: &str, family: u8) -> Result<SocketAddr> {
    let found = (host, 80)
        .to_socket_addrs()
        .with_context(|| format!("cannot resolve {host}"))?;
    let mut found = found.filter(|address| address.is_ipv4() == (family == 4));
    found
        .next()
        .with_context(|| format!("{host} has no IPv{family} address"))
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack
        .windows(needle.len())
        .position(|window| window == needle)
}

/// Status code and content length.
fn parse_head(head: &[u8]) -> Result<(u16, u64)> {
    let head = std::str::from_utf8(head).context("header is not text")?;
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length")
            .then(|| value.trim().parse().ok())?
    });
    Ok((
        status.context("no HTTP status")?,
        length.context("no Content-Length")?,
    ))
}
