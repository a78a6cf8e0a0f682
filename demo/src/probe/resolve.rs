//! Name look-up by the system's own resolver, as any program does it.

use std::net::{IpAddr, ToSocketAddrs as _};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

/// Addresses of a name.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Resolved {
    /// In the resolver's order, without duplicates.
    pub addresses: Vec<IpAddr>,
    /// Time of the look-up in milliseconds.
    pub milliseconds: f64,
}

/// Looks a name up.
///
/// # Errors
///
/// If the name does not exist or the resolver does not answer.
pub fn resolve(name: &str) -> Result<Resolved> {
    let started = std::time::Instant::now();
    let found = (name, 80)
        .to_socket_addrs()
        .with_context(|| format!("cannot resolve {name}"))?;
    let mut addresses = Vec::new();
    for socket in found {
        if !addresses.contains(&socket.ip()) {
            addresses.push(socket.ip());
        }
    }
    Ok(Resolved {
        addresses,
        milliseconds: started.elapsed().as_secs_f64() * 1e3,
    })
}
