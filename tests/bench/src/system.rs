//! Our processes in the network: portal and relay on the internet, gateway, client.

use std::{
    collections::BTreeMap,
    net::{SocketAddr, SocketAddrV4},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use demo::{
    launch::{self, HEALTH, Launcher, PATIENCE, TUNNEL_READY},
    portal_files::PortalFiles,
    process::Process,
    steps::{self, ClientPath},
};
use nix::sys::signal::Signal;
use tempfile::TempDir;

use crate::network::{self, Network, Route};

/// How long a process may take to end.
const GRACE: Duration = Duration::from_secs(3);
/// How long after the first packet the final path may take over.
const PATH_LIMIT: Duration = Duration::from_secs(10);
/// Whose devices the swarm is.
const SWARM_PERSON: &str = "Swarm";
/// The portal's port.
const PORTAL_PORT: u16 = 8080;

/// The running system. Dropping it ends all processes.
pub(crate) struct System {
    // Client first: processes end in this order, those that say goodbye before those that hear it.
    client: Process,
    gateway: Process,
    relay: Process,
    portal: Process,
    files: PortalFiles,
    swarm_token: String,
    directory: TempDir,
    route: Route,
}

impl System {
    /// Starts everything, in the order of dependence.
    pub(crate) fn start(network: &Network, route: Route, workers: u16) -> Result<Self> {
        let directory = tempfile::Builder::new()
            .prefix("firezone-bench-")
            .tempdir()?;
        let files = PortalFiles::with_configuration(
            directory.path(),
            &portal_configuration(directory.path()),
        )?;
        // Before the portal starts: a running one takes a moment to notice new tokens.
        let swarm_token = files.create_client_token("Swarm", SWARM_PERSON)?;
        let starter = Starter {
            network,
            files: &files,
            directory: directory.path(),
        };
        let portal = starter.portal()?;
        let relay = starter.relay()?;
        let gateway = starter.gateway(workers)?;
        let client = starter.client()?;
        Ok(Self {
            client,
            gateway,
            relay,
            portal,
            files,
            swarm_token,
            directory,
            route,
        })
    }

    /// Ids of the processes that a packet meets on its way, by name.
    pub(crate) fn on_the_path(&self) -> BTreeMap<&'static str, u32> {
        let mut processes =
            BTreeMap::from([("client", self.client.id()), ("gateway", self.gateway.id())]);
        if self.route == Route::Relayed {
            processes.insert("relay", self.relay.id());
        }
        processes
    }

    /// Where components find the portal.
    pub(crate) fn portal_url(&self) -> String {
        portal_url()
    }

    /// A token that a thousand devices may use, the most that one person may have.
    pub(crate) fn swarm_token(&self) -> &str {
        &self.swarm_token
    }

    /// Ends the client and starts it anew, without any connection.
    pub(crate) fn restart_client(&mut self, network: &Network) -> Result<()> {
        self.client.stop(GRACE)?;
        let starter = Starter {
            network,
            files: &self.files,
            directory: self.directory.path(),
        };
        self.client = starter.client()?;
        Ok(())
    }

    /// Ids of all processes, by name.
    pub(crate) fn all(&self) -> BTreeMap<&'static str, u32> {
        BTreeMap::from([
            ("client", self.client.id()),
            ("gateway", self.gateway.id()),
            ("relay", self.relay.id()),
            ("portal", self.portal.id()),
        ])
    }

    /// Waits until packets take the path that the network allows; some must have been sent already.
    pub(crate) fn wait_for_path(&mut self) -> Result<()> {
        let (logs, route) = (client_logs(self.directory.path()), self.route);
        let fits = |path: &ClientPath| route_of(path) == route;
        self.client
            .wait_for("the right path", PATH_LIMIT, |_| {
                steps::client_path_in(&logs).filter(fits)
            })
            .map(drop)
    }

    /// Fails if the last run did not take that path to its end.
    pub(crate) fn ensure_path(&self) -> Result<()> {
        let path = steps::client_path_in(&client_logs(self.directory.path()));
        let path = path.context("the client's log names no path")?;
        ensure!(
            route_of(&path) == self.route,
            "the path is not {:?} any more: {path:?}",
            self.route
        );
        Ok(())
    }

    /// Says goodbye and ends everything.
    pub(crate) fn stop(mut self) -> Result<()> {
        self.client.stop(GRACE)?;
        self.gateway.stop(GRACE)?;
        // By SIGTERM, a relay waits for the end of its last allocation, which lasts minutes.
        self.relay.stop_by(Signal::SIGINT, GRACE)?;
        self.portal.stop(GRACE)?;
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
        let host = &self.network.internet;
        let mut process = self.start("portal", self.launcher().portal(host)?)?;
        let address = SocketAddrV4::new(network::INTERNET, PORTAL_PORT).to_string();
        launch::wait_healthy(&mut process, host, &address, "/healthz")?;
        Ok(process)
    }

    fn relay(&self) -> Result<Process> {
        let host = &self.network.internet;
        let command = self.launcher().relay(host, Some(network::INTERNET), None)?;
        let mut process = self.start("relay", command)?;
        launch::wait_healthy(&mut process, host, HEALTH, "/readyz")?;
        Ok(process)
    }

    fn gateway(&self, workers: u16) -> Result<Process> {
        let mut command = self.launcher().gateway(&self.network.gateway)?;
        // One may be wished for from outside, too.
        if workers > 1 {
            command.args(["--workers", &workers.to_string()]);
        }
        self.start_until_ready("gateway", command)
    }

    fn client(&self) -> Result<Process> {
        let logs = client_logs(self.directory);
        let command = self.launcher().client(&self.network.client, &logs)?;
        self.start_until_ready("client", command)
    }

    fn launcher(&self) -> Launcher<'_> {
        Launcher {
            portal_url: portal_url(),
            files: self.files,
        }
    }

    fn start_until_ready(&self, name: &str, command: Command) -> Result<Process> {
        let log = self.directory.join(format!("{name}.log"));
        let before = std::fs::read_to_string(log).unwrap_or_default();
        let before = before.matches(TUNNEL_READY).count();
        let mut process = self.start(name, command)?;
        process.wait_for(&format!("\"{TUNNEL_READY}\""), PATIENCE, |log| {
            (log.matches(TUNNEL_READY).count() > before).then_some(())
        })?;
        Ok(process)
    }

    fn start(&self, name: &str, mut command: Command) -> Result<Process> {
        // What is measured is the product as it runs at its customers', where nothing per packet is logged.
        command.env_remove("RUST_LOG");
        Process::start(name, command, self.directory)
    }
}

fn route_of(path: &ClientPath) -> Route {
    match path.is_direct() {
        true => Route::Direct,
        false => Route::Relayed,
    }
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
    let (v4, v6) = (network::RESOURCE, network::RESOURCE_V6);
    format!(
        "[server]\nlisten = \"{listen}\"\ndatabase = {database:?}\n\n\
         [account]\nname = \"bench\"\n\n\
         [[site]]\nname = \"Office\"\n\n\
         [[person]]\nname = \"Ada\"\n\n\
         [[person]]\nname = \"{SWARM_PERSON}\"\n\n\
         [[resource]]\nname = \"Servers\"\ntype = \"cidr\"\naddress = \"{v4}\"\nsite = \"Office\"\n\n\
         [[policy]]\ngroup = \"Everyone\"\nresource = \"Servers\"\n\n\
         [[resource]]\nname = \"Servers by IPv6\"\ntype = \"cidr\"\naddress = \"{v6}\"\nsite = \"Office\"\n\n\
         [[policy]]\ngroup = \"Everyone\"\nresource = \"Servers by IPv6\"\n"
    )
}
