//! Our processes in the network: portal and relay on the internet, gateway, client.

use std::{
    net::{SocketAddr, SocketAddrV4},
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use demo::{
    portal_files::PortalFiles,
    process::Process,
    role::ROLE_ARGUMENT,
    steps::{self, ClientPath},
    system::http_status,
};
use tempfile::TempDir;
use testbed::Host;

use crate::network::{self, Network};

/// How long a process may take to get ready.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long a process may take to end.
const GRACE: Duration = Duration::from_secs(3);
/// How long after the first packet the direct path may take over.
const DIRECT_PATH_LIMIT: Duration = Duration::from_secs(10);
/// The portal's port.
const PORTAL_PORT: u16 = 8080;
/// Health endpoint of relay and gateway, inside their namespaces.
const HEALTH: &str = "127.0.0.1:8081";
/// What client and gateway print once their interface is up.
const TUNNEL_READY: &str = "Tunnel ready";

/// The running system. Dropping it ends all processes.
pub(crate) struct System {
    // Client first: processes end in this order, those that say goodbye before those that hear it.
    client: Process,
    gateway: Process,
    relay: Process,
    portal: Process,
    directory: TempDir,
}

impl System {
    /// Starts everything, in the order of dependence.
    pub(crate) fn start(network: &Network) -> Result<Self> {
        let directory = tempfile::Builder::new()
            .prefix("firezone-bench-")
            .tempdir()?;
        let files = PortalFiles::with_configuration(
            directory.path(),
            &portal_configuration(directory.path()),
        )?;
        let starter = Starter {
            network,
            files: &files,
            directory: directory.path(),
        };
        let portal = starter.portal()?;
        let relay = starter.relay()?;
        let gateway = starter.gateway()?;
        let client = starter.client()?;
        Ok(Self {
            client,
            gateway,
            relay,
            portal,
            directory,
        })
    }

    /// Process id of the client.
    pub(crate) fn client_id(&self) -> u32 {
        self.client.id()
    }

    /// Process id of the gateway.
    pub(crate) fn gateway_id(&self) -> u32 {
        self.gateway.id()
    }

    /// Waits until packets take the direct path; some must have been sent already.
    pub(crate) fn wait_for_direct_path(&mut self) -> Result<()> {
        let logs = client_logs(self.directory.path());
        let is_direct = || steps::client_path_in(&logs).filter(ClientPath::is_direct);
        self.client
            .wait_for("a direct path", DIRECT_PATH_LIMIT, |_| is_direct())
            .map(drop)
    }

    /// Fails if the last run did not take the direct path to its end.
    pub(crate) fn ensure_direct_path(&self) -> Result<()> {
        let path = steps::client_path_in(&client_logs(self.directory.path()));
        let path = path.context("the client's log names no path")?;
        ensure!(
            path.is_direct(),
            "the path is not direct any more: {path:?}"
        );
        Ok(())
    }

    /// Says goodbye and ends everything.
    pub(crate) fn stop(mut self) -> Result<()> {
        for process in [
            &mut self.client,
            &mut self.gateway,
            &mut self.relay,
            &mut self.portal,
        ] {
            process.stop(GRACE)?;
        }
        Ok(())
    }

    /// Leaves logs and state behind and tells where.
    pub(crate) fn keep_logs(&mut self) -> &Path {
        self.directory.disable_cleanup(true);
        self.directory.path()
    }
}

struct Starter<'a> {
    network: &'a Network,
    files: &'a PortalFiles,
    directory: &'a Path,
}

impl Starter<'_> {
    fn portal(&self) -> Result<Process> {
        let mut command = role(&self.network.internet, "portal")?;
        command.arg("--config").arg(self.files.config());
        let mut process = Process::start("portal", command, self.directory)?;
        let address = SocketAddrV4::new(network::INTERNET, PORTAL_PORT).to_string();
        wait_healthy(&mut process, &self.network.internet, &address, "/healthz")?;
        Ok(process)
    }

    fn relay(&self) -> Result<Process> {
        let mut command = role(&self.network.internet, "relay")?;
        command
            .args(["--public-ip4-addr", &network::INTERNET.to_string()])
            .args(["--api-url", &portal_url()])
            .args(["--health-check-addr", HEALTH])
            .env("FIREZONE_TOKEN", self.files.relay_token());
        let mut process = Process::start("relay", command, self.directory)?;
        wait_healthy(&mut process, &self.network.internet, HEALTH, "/readyz")?;
        Ok(process)
    }

    fn gateway(&self) -> Result<Process> {
        let mut command = role(&self.network.gateway, "gateway")?;
        command
            .args(["--api-url", &portal_url()])
            .args(["--health-check-addr", HEALTH])
            .env("FIREZONE_TOKEN", self.files.gateway_token())
            .env("FIREZONE_ID", "6f1c3bb6-2a1c-4c5f-8f38-6f6f0a2d7e01")
            .env("FIREZONE_MASQUERADE", "off");
        self.start_until_ready("gateway", command)
    }

    fn client(&self) -> Result<Process> {
        let mut command = role(&self.network.client, "client")?;
        command
            .args(["--api-url", &portal_url()])
            .args(["--dns-control", "etc-resolv-conf"])
            .arg("--log-dir")
            .arg(client_logs(self.directory))
            .env("FIREZONE_TOKEN", self.files.client_token())
            .env("FIREZONE_ID", "0d1f1f6e-52a5-4b33-9d0b-3f1f2c9a6b02");
        self.start_until_ready("client", command)
    }

    fn start_until_ready(&self, name: &str, command: Command) -> Result<Process> {
        let mut process = Process::start(name, command, self.directory)?;
        process.wait_for(&format!("\"{TUNNEL_READY}\""), PATIENCE, |log| {
            log.contains(TUNNEL_READY).then_some(())
        })?;
        Ok(process)
    }
}

fn role(host: &Host, role: &str) -> Result<Command> {
    let mut command = host.command(std::env::current_exe()?);
    command
        .args([ROLE_ARGUMENT, role])
        .env("NO_COLOR", "1")
        .env_remove("FIREZONE_TOKEN")
        // What is measured is the product as it runs at its customers', where nothing per packet is logged.
        .env_remove("RUST_LOG");
    Ok(command)
}

fn wait_healthy(process: &mut Process, host: &Host, address: &str, path: &str) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    process.wait_for(&format!("{path} is fine"), PATIENCE, |_| {
        if Instant::now() > deadline {
            return None;
        }
        let status = host.run(|| http_status(address, path)).ok();
        status.filter(|status| *status == 200).map(drop)
    })
}

fn client_logs(directory: &Path) -> PathBuf {
    directory.join("client-logs")
}

fn portal_url() -> String {
    format!("ws://{}:{PORTAL_PORT}/", network::INTERNET)
}

fn portal_configuration(directory: &Path) -> String {
    let listen = SocketAddr::new(network::INTERNET.into(), PORTAL_PORT);
    let database = directory.join("portal.sqlite");
    let resource = network::RESOURCE;
    format!(
        "[server]\nlisten = \"{listen}\"\ndatabase = {database:?}\n\n\
         [account]\nname = \"bench\"\n\n\
         [[site]]\nname = \"Office\"\n\n\
         [[person]]\nname = \"Ada\"\n\n\
         [[resource]]\nname = \"Servers\"\ntype = \"cidr\"\naddress = \"{resource}\"\nsite = \"Office\"\n\n\
         [[policy]]\ngroup = \"Everyone\"\nresource = \"Servers\"\n"
    )
}
