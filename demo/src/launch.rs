//! The command lines of the system's programs, and how to know that they are ready. Every network uses the same ones.

use std::{
    io::{Read as _, Write as _},
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream},
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use testbed::Host;

use crate::{portal_files::PortalFiles, process::Process, role::ROLE_ARGUMENT};

/// Health endpoint of relay and gateway, inside their namespaces.
pub const HEALTH: &str = "127.0.0.1:8081";
/// What client and gateway print once their interface is up.
pub const TUNNEL_READY: &str = "Tunnel ready";
/// How long a process may take to get ready.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Makes commands for one network with one portal.
#[derive(Debug)]
pub struct Launcher<'a> {
    /// Where components find the portal.
    pub portal_url: String,
    /// The portal's configuration and everybody's tokens.
    pub files: &'a PortalFiles,
}

impl Launcher<'_> {
    /// The portal.
    ///
    /// # Errors
    ///
    /// If this executable cannot be found, as below.
    pub fn portal(&self, host: &Host) -> Result<Command> {
        let mut command = role_command(host, "portal")?;
        command.arg("--config").arg(self.files.config());
        Ok(command)
    }

    /// A relay with these public addresses.
    ///
    /// # Errors
    ///
    /// As [`Self::portal`].
    pub fn relay(
        &self,
        host: &Host,
        v4: Option<Ipv4Addr>,
        v6: Option<Ipv6Addr>,
    ) -> Result<Command> {
        let mut command = role_command(host, "relay")?;
        if let Some(v4) = v4 {
            command.args(["--public-ip4-addr", &v4.to_string()]);
        }
        if let Some(v6) = v6 {
            command.args(["--public-ip6-addr", &v6.to_string()]);
        }
        command
            .args(["--api-url", &self.portal_url])
            .args(["--health-check-addr", HEALTH])
            .env("FIREZONE_TOKEN", self.files.relay_token());
        Ok(command)
    }

    /// The gateway.
    ///
    /// # Errors
    ///
    /// As [`Self::portal`].
    pub fn gateway(&self, host: &Host) -> Result<Command> {
        let mut command = role_command(host, "gateway")?;
        command
            .args(["--api-url", &self.portal_url])
            .args(["--health-check-addr", HEALTH])
            .env("FIREZONE_TOKEN", self.files.gateway_token())
            .env("FIREZONE_ID", "6f1c3bb6-2a1c-4c5f-8f38-6f6f0a2d7e01")
            .env("FIREZONE_MASQUERADE", "off");
        Ok(command)
    }

    /// The client, with its JSON log in `logs`.
    ///
    /// # Errors
    ///
    /// As [`Self::portal`].
    pub fn client(&self, host: &Host, logs: &Path) -> Result<Command> {
        let mut command = role_command(host, "client")?;
        command
            .args(["--api-url", &self.portal_url])
            .args(["--dns-control", "etc-resolv-conf"])
            .arg("--log-dir")
            .arg(logs)
            .env("FIREZONE_TOKEN", self.files.client_token())
            .env("FIREZONE_ID", "0d1f1f6e-52a5-4b33-9d0b-3f1f2c9a6b02");
        Ok(command)
    }
}

/// A program of this executable on a host, without a token in its environment.
///
/// # Errors
///
/// If this executable cannot be found.
pub fn role_command(host: &Host, role: &str) -> Result<Command> {
    let mut command = host.command(std::env::current_exe()?);
    command
        .args([ROLE_ARGUMENT, role])
        .env("NO_COLOR", "1")
        .env_remove("FIREZONE_TOKEN");
    Ok(command)
}

/// Waits until a process answers a health check on its host.
///
/// # Errors
///
/// If it ends first, or takes longer than [`PATIENCE`].
pub fn wait_healthy(process: &mut Process, host: &Host, address: &str, path: &str) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    process.wait_for(&format!("{path} is fine"), PATIENCE, |_| {
        if Instant::now() > deadline {
            return None;
        }
        let status = host.run(|| http_status(address, path)).ok();
        status.filter(|status| *status == 200).map(drop)
    })
}

/// Status code of a GET, asked for in the caller's namespace.
///
/// # Errors
///
/// If nobody answers within a second.
pub fn http_status(address: &str, path: &str) -> Result<u16> {
    let address: SocketAddr = address.parse()?;
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(1))?;
    stream.set_read_timeout(Some(Duration::from_secs(1)))?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    stream.take(4096).read_to_end(&mut answer)?;
    let answer = String::from_utf8_lossy(&answer);
    let status = answer.split(' ').nth(1).and_then(|code| code.parse().ok());
    status.context("no HTTP status")
}
