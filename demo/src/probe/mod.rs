//! What a user does on the client's machine: resolve, fetch, ping, be refused. Each probe is a process of its own in
//! the client's namespace and prints one JSON object.

pub mod fetch;
pub mod ping;
pub mod refused;
pub mod resolve;

use std::net::IpAddr;

use clap::Subcommand;
use serde::Serialize;

/// The probes, as the command line names them.
#[derive(Debug, Clone, Subcommand)]
pub enum Probe {
    /// Look a name up by the system's resolver.
    Resolve {
        /// The name.
        name: String,
    },
    /// Fetch a URL path from a host over HTTP and report checksum and timing.
    Fetch {
        /// Name or address.
        host: String,
        /// Path with query.
        path: String,
        /// Address family: 4 or 6.
        #[arg(long, default_value_t = 4)]
        family: u8,
        /// Give up after this many seconds.
        #[arg(long, default_value_t = 60)]
        timeout: u64,
    },
    /// Send echo requests.
    Ping {
        /// Address.
        address: IpAddr,
        /// How many.
        #[arg(long, default_value_t = 5)]
        count: u16,
        /// Bytes behind the ICMP header.
        #[arg(long, default_value_t = ping::DEFAULT_PAYLOAD)]
        payload: usize,
    },
    /// Try to connect to a port that is not allowed and report the ICMP error that comes back.
    Refused {
        /// Address.
        address: IpAddr,
        /// TCP port.
        port: u16,
    },
}

/// Runs a probe and prints its result as JSON.
///
/// # Errors
///
/// If the probe could not do its work; the message says at what.
pub fn run(probe: Probe) -> anyhow::Result<()> {
    match probe {
        Probe::Resolve { name } => print(&resolve::resolve(&name)?),
        Probe::Fetch {
            host,
            path,
            family,
            timeout,
        } => print(&fetch::fetch(&host, &path, family, timeout)?),
        Probe::Ping {
            address,
            count,
            payload,
        } => print(&ping::ping(address, count, payload)?),
        Probe::Refused { address, port } => print(&refused::refused(address, port)?),
    }
}

fn print(result: &impl Serialize) -> anyhow::Result<()> {
    println!("{}", serde_json::to_string(result)?);
    Ok(())
}
