//! The system: starting its processes in order, and steering them.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    path::Path,
    process::{Command, ExitStatus, Stdio},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use nix::sys::signal::Signal;
use serde::de::DeserializeOwned;
use tempfile::TempDir;
use testbed::Testbed;

use crate::{
    interrupt,
    launch::{self, HEALTH, Launcher, PATIENCE, TUNNEL_READY},
    portal_files::PortalFiles,
    process::Process,
    scenario::{self, Scenario, host},
};

/// How long a process may take to end.
const GRACE: Duration = Duration::from_secs(3);

/// A running system.
pub struct System {
    scenario: Scenario,
    processes: BTreeMap<&'static str, Process>,
    testbed: Testbed,
    files: PortalFiles,
    directory: TempDir,
}

impl System {
    /// Builds the network; no process of the system runs yet.
    ///
    /// # Errors
    ///
    /// If namespaces or devices cannot be made.
    pub fn new(scenario: Scenario) -> Result<Self> {
        Self::with_topology(scenario, &scenario.topology())
    }

    /// As [`Self::new`], with a changed topology.
    ///
    /// # Errors
    ///
    /// If namespaces or devices cannot be made.
    pub fn with_topology(scenario: Scenario, topology: &testbed::Topology) -> Result<Self> {
        let directory = tempfile::Builder::new()
            .prefix("firezone-demo-")
            .tempdir()?;
        let testbed = Testbed::start(topology)?;
        let files = PortalFiles::create(directory.path(), scenario)?;
        Ok(Self {
            scenario,
            processes: BTreeMap::new(),
            testbed,
            files,
            directory,
        })
    }

    /// The network that lies between the processes.
    pub fn scenario(&self) -> Scenario {
        self.scenario
    }

    /// The test network.
    pub fn testbed(&self) -> &Testbed {
        &self.testbed
    }

    /// Configuration and tokens of the portal.
    pub fn files(&self) -> &PortalFiles {
        &self.files
    }

    /// Where logs and state are.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// A process of the system by its host's name.
    ///
    /// # Errors
    ///
    /// If it was not started.
    pub fn process(&mut self, name: &str) -> Result<&mut Process> {
        let process = self.processes.get_mut(name);
        process.with_context(|| format!("{name} is not running"))
    }

    /// Starts the private web server.
    ///
    /// # Errors
    ///
    /// If it does not get ready.
    pub fn start_web(&mut self) -> Result<()> {
        let mut command = self.role_command(host::WEB, "web")?;
        let addresses: [IpAddr; 4] = [
            scenario::WEB_V4.into(),
            scenario::WEB_V6.into(),
            scenario::APP_V4.into(),
            scenario::APP_V6.into(),
        ];
        command.args(addresses.map(|address| address.to_string()));
        self.add_addresses(host::WEB, &addresses[2..])?;
        self.start(host::WEB, command)?
            .wait_for("it listens", PATIENCE, |log| {
                log.contains("listening").then_some(())
            })
    }

    /// Starts the portal.
    ///
    /// # Errors
    ///
    /// If it does not get ready.
    pub fn start_portal(&mut self) -> Result<()> {
        let command = self.launcher().portal(self.testbed.host(host::PORTAL)?)?;
        self.start(host::PORTAL, command)?;
        let address = SocketAddr::new(self.scenario.portal_address(), scenario::PORTAL_PORT);
        self.wait_healthy(host::PORTAL, &address.to_string(), "/healthz")
    }

    /// Starts the relay.
    ///
    /// # Errors
    ///
    /// If it does not join the portal.
    pub fn start_relay(&mut self) -> Result<()> {
        let command = self.relay_command()?;
        self.start(host::RELAY, command)?;
        self.wait_healthy(host::RELAY, HEALTH, "/readyz")
    }

    /// The relay's program with its configuration, on its host.
    ///
    /// # Errors
    ///
    /// If this executable cannot be found.
    pub fn relay_command(&self) -> Result<Command> {
        let (v4, v6) = self.scenario.relay_addresses();
        self.launcher()
            .relay(self.testbed.host(host::RELAY)?, v4, v6)
    }

    /// Starts the gateway.
    ///
    /// # Errors
    ///
    /// If it does not get its interface from the portal.
    pub fn start_gateway(&mut self) -> Result<()> {
        let command = self.gateway_command()?;
        self.start_until(host::GATEWAY, command, TUNNEL_READY)
    }

    /// The gateway's program with its configuration, on its host.
    ///
    /// # Errors
    ///
    /// If this executable cannot be found.
    pub fn gateway_command(&self) -> Result<Command> {
        self.launcher().gateway(self.testbed.host(host::GATEWAY)?)
    }

    /// Starts the client.
    ///
    /// # Errors
    ///
    /// If its tunnel does not get ready.
    pub fn start_client(&mut self) -> Result<()> {
        let command = self.client_command()?;
        self.start_until(host::CLIENT, command, TUNNEL_READY)
    }

    /// Starts the client without waiting for its tunnel.
    ///
    /// # Errors
    ///
    /// If the process cannot be made.
    pub fn spawn_client(&mut self) -> Result<()> {
        let command = self.client_command()?;
        self.start(host::CLIENT, command).map(drop)
    }

    /// The client's program with its configuration, on its host.
    ///
    /// # Errors
    ///
    /// If this executable cannot be found.
    pub fn client_command(&self) -> Result<Command> {
        let logs = self.directory.path().join("client-logs");
        self.launcher()
            .client(self.testbed.host(host::CLIENT)?, &logs)
    }

    fn launcher(&self) -> Launcher<'_> {
        Launcher {
            portal_url: self.portal_url(),
            files: &self.files,
        }
    }

    /// Starts a further program of this executable, and waits until it prints `ready`.
    ///
    /// # Errors
    ///
    /// If it does not get ready.
    pub fn start_role(
        &mut self,
        host: &'static str,
        role: &str,
        arguments: &[&str],
        ready: &str,
    ) -> Result<()> {
        let mut command = self.role_command(host, role)?;
        command.args(arguments);
        self.start_until(host, command, ready)
    }

    /// Starts everything, in the order of dependence.
    ///
    /// # Errors
    ///
    /// If anything does not get ready.
    pub fn start_all(&mut self) -> Result<()> {
        self.start_web()?;
        self.start_portal()?;
        self.start_relay()?;
        self.start_gateway()?;
        self.start_client()
    }

    /// Runs a probe on the client's machine.
    ///
    /// # Errors
    ///
    /// If the probe fails, with what it printed.
    pub fn probe<T: DeserializeOwned>(&self, arguments: &[&str]) -> Result<T> {
        let mut command = self.role_command(host::CLIENT, "probe")?;
        let mut child = command
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        while child.try_wait()?.is_none() {
            if let Err(error) = interrupt::check() {
                child.kill()?;
                return Err(error);
            }
            thread::sleep(Duration::from_millis(5));
        }
        let output = child.wait_with_output()?;
        if !output.status.success() {
            bail!("{}", String::from_utf8_lossy(&output.stderr).trim());
        }
        serde_json::from_slice(&output.stdout).context("unreadable result of a probe")
    }

    /// Stops everything, components that say goodbye first, and says how each ended.
    pub fn stop(&mut self) -> BTreeMap<&'static str, ExitStatus> {
        let first = [host::CLIENT, host::GATEWAY];
        let last = [host::PORTAL, host::WEB];
        let others = self.processes.keys().copied();
        let others = others.filter(|name| !first.contains(name) && !last.contains(name));
        let others = others.collect::<Vec<_>>();
        let mut statuses = BTreeMap::new();
        for name in first.into_iter().chain(others).chain(last) {
            if !self.processes.contains_key(name) {
                continue;
            }
            match self.stop_process(name) {
                Ok(status) => {
                    statuses.insert(name, status);
                }
                Err(error) => eprintln!("cannot stop {name}: {error:#}"),
            }
        }
        statuses
    }

    /// Asks one process to end, and says how it did.
    ///
    /// # Errors
    ///
    /// If it does not run.
    pub fn stop_process(&mut self, name: &str) -> Result<ExitStatus> {
        let mut process = self.processes.remove(name);
        let process = process.as_mut();
        let process = process.with_context(|| format!("{name} is not running"))?;
        // By SIGTERM, a relay waits for the end of its last allocation, which lasts minutes.
        let signal = match name.starts_with(host::RELAY) {
            true => Signal::SIGINT,
            false => Signal::SIGTERM,
        };
        process.stop_by(signal, GRACE)
    }

    /// Ends one process as a power cut would.
    ///
    /// # Errors
    ///
    /// If it does not run.
    pub fn kill_process(&mut self, name: &str) -> Result<()> {
        let mut process = self.processes.remove(name);
        let process = process.as_mut();
        process
            .with_context(|| format!("{name} is not running"))?
            .kill()
    }

    /// Processes that ended although nobody stopped them.
    ///
    /// # Errors
    ///
    /// If the system does not say.
    pub fn ended(&mut self) -> Result<Vec<(&'static str, ExitStatus)>> {
        let mut ended = Vec::new();
        for (name, process) in &mut self.processes {
            if let Some(status) = process.ended()? {
                ended.push((*name, status));
            }
        }
        Ok(ended)
    }

    /// Processes that were started and not stopped, with their ids.
    pub fn running(&self) -> impl Iterator<Item = (&'static str, u32)> {
        self.processes
            .iter()
            .map(|(name, process)| (*name, process.id()))
    }

    /// Leaves logs and state behind, for a look at them.
    pub fn keep_directory(&mut self) {
        self.directory.disable_cleanup(true);
    }

    /// Removes a process from the books, stopped or killed by the caller.
    pub fn forget(&mut self, name: &str) -> Option<Process> {
        self.processes.remove(name)
    }

    fn start(&mut self, name: &'static str, command: Command) -> Result<&mut Process> {
        let process = Process::start(name, command, self.directory.path())?;
        self.processes.insert(name, process);
        self.process(name)
    }

    /// Starts a process under a name of its own and waits until it prints `line` once more than before.
    ///
    /// # Errors
    ///
    /// If it does not get so far.
    pub fn start_until(&mut self, name: &'static str, command: Command, line: &str) -> Result<()> {
        let log = self.directory.path().join(format!("{name}.log"));
        let before = std::fs::read_to_string(log).unwrap_or_default();
        let before = before.matches(line).count();
        self.start(name, command)?
            .wait_for(&format!("\"{line}\""), PATIENCE, |log| {
                (log.matches(line).count() > before).then_some(())
            })
    }

    fn wait_healthy(&mut self, name: &str, address: &str, path: &str) -> Result<()> {
        let host = self.testbed.host(name)?.clone();
        launch::wait_healthy(self.process(name)?, &host, address, path)
    }

    /// A program of this executable on a host, without a token in its environment.
    ///
    /// # Errors
    ///
    /// If the host does not exist, or this executable cannot be found.
    pub fn role_command(&self, host: &str, role: &str) -> Result<Command> {
        launch::role_command(self.testbed.host(host)?, role)
    }

    /// Where components find the portal.
    pub fn portal_url(&self) -> String {
        let address = SocketAddr::new(self.scenario.portal_address(), scenario::PORTAL_PORT);
        format!("ws://{address}/")
    }

    /// Gives a host further addresses of its own, on the loopback device.
    fn add_addresses(&self, host: &str, addresses: &[IpAddr]) -> Result<()> {
        self.testbed.host(host)?.add_addresses(addresses)
    }
}

impl Drop for System {
    fn drop(&mut self) {
        self.stop();
    }
}
