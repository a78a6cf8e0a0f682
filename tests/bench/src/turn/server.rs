//! The TURN servers: ours in its stand-alone profile, and coturn, each as a process on the server's host.

use std::{
    net::{SocketAddr, UdpSocket},
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use connlib_stun::{AuthAttributes, Request, RequestBody, TransactionId};
use demo::{
    launch::{HEALTH, role_command},
    process::Process,
};
use nix::{
    sched::{CpuSet, sched_setaffinity},
    unistd::Pid,
};
use tempfile::TempDir;

use crate::{
    load::Version,
    turn::{
        credentials::{Accounts, Credentials},
        flows::Target,
        network::{self, Network},
    },
};

/// The port of every server.
const PORT: u16 = 3478;
/// The user of every load.
const USER: &str = "load";
const PASSWORD: &str = "no-secret-in-a-namespace-of-its-own";
/// The realm of every server.
pub(crate) const REALM: &str = connlib_stun::DEFAULT_REALM;
/// How long a server may take to answer, or to end.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a server is waited for before it is asked again.
const PROBE: Duration = Duration::from_millis(20);

/// A program to load.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Program {
    /// The relay inside this executable.
    Ours,
    /// Another build of our relay.
    OursAt(PathBuf),
    /// coturn, from `PATH`.
    Coturn,
}

impl Program {
    /// In tables.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Ours => "firezone",
            Self::OursAt(_) => "baseline",
            Self::Coturn => "coturn",
        }
    }

    /// Version of a foreign program, in its own words.
    pub(crate) fn version(&self) -> Result<Option<String>> {
        let Self::Coturn = self else {
            return Ok(None);
        };
        // It says its version and then complains.
        let output = Command::new(COTURN)
            .arg("--version")
            .output()
            .context("cannot start turnserver; install it with: apt-get install coturn")?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let version = text.lines().map(str::trim).find(|line| !line.is_empty());
        Ok(Some(format!("coturn {}", version.unwrap_or("?"))))
    }
}

const COTURN: &str = "turnserver";

/// A running server. Dropping it ends the process.
pub(crate) struct Server {
    process: Process,
    _directory: TempDir,
}

impl Server {
    /// Starts it on the given CPU, or on all of them, and waits until it answers.
    ///
    /// # Errors
    ///
    /// If it cannot be started or does not answer.
    pub(crate) fn start(network: &Network, program: &Program, cpu: Option<usize>) -> Result<Self> {
        let directory = tempfile::Builder::new()
            .prefix("firezone-bench-turn-")
            .tempdir()?;
        let command = match program {
            Program::Ours => standalone(role_command(&network.server, "relay")?),
            Program::OursAt(path) => standalone(network.server.command(path)),
            Program::Coturn => coturn(network, directory.path(), cpu.is_some()),
        };
        Self::launch(network, program.name(), command, directory, cpu)
    }

    /// Starts any command of a server that listens at [`network::SERVER`] and [`PORT`]; as [`Self::start`].
    pub(crate) fn launch(
        network: &Network,
        name: &str,
        mut command: Command,
        directory: TempDir,
        cpu: Option<usize>,
    ) -> Result<Self> {
        if let Some(cpu) = cpu {
            pin_command(&mut command, cpu)?;
        }
        let mut process = Process::start(name, command, directory.path())?;
        process.wait_for("answering", PATIENCE, |_| answers(network).then_some(()))?;
        Ok(Self {
            process,
            _directory: directory,
        })
    }

    /// The process.
    pub(crate) fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Process id.
    pub(crate) fn id(&self) -> u32 {
        self.process.id()
    }

    /// Ends it.
    ///
    /// # Errors
    ///
    /// If its end cannot be waited for.
    pub(crate) fn stop(mut self) -> Result<()> {
        self.process.kill()
    }
}

/// How the clients of a load reach the server.
pub(crate) fn target() -> Target {
    target_for(Accounts::One(Credentials {
        username: USER.to_owned(),
        password: PASSWORD.to_owned(),
        realm: REALM.to_owned(),
    }))
}

/// As [`target`], with accounts of the caller.
pub(crate) fn target_for(accounts: Accounts) -> Target {
    Target {
        server: network::SERVER,
        port: PORT,
        local: network::GENERATOR,
        accounts,
    }
}

/// A CPU for the generator and one for the server.
pub(crate) fn cpus(no_pin: bool) -> Result<[Option<usize>; 2]> {
    let count = std::thread::available_parallelism().map_or(1, usize::from);
    match (no_pin, count) {
        (true, _) => Ok([None, None]),
        (false, 0 | 1) => bail!(
            "there is only one CPU, so generator and server cannot have one each; --no-pin measures anyway"
        ),
        (false, _) => Ok([Some(0), Some(1)]),
    }
}

/// Keeps the calling thread, and what it starts, on one CPU.
///
/// # Errors
///
/// If there is no such CPU.
pub(crate) fn pin_here(cpu: usize) -> Result<()> {
    let set = only(cpu)?;
    sched_setaffinity(Pid::from_raw(0), &set).with_context(|| format!("cannot use CPU {cpu}"))
}

fn pin_command(command: &mut Command, cpu: usize) -> Result<()> {
    let set = only(cpu)?;
    // SAFETY: `sched_setaffinity` is a plain system call, safe between fork and exec.
    unsafe {
        command.pre_exec(move || Ok(sched_setaffinity(Pid::from_raw(0), &set)?));
    }
    Ok(())
}

fn only(cpu: usize) -> Result<CpuSet> {
    let mut set = CpuSet::new();
    set.set(cpu)?;
    Ok(set)
}

/// What all relays of ours have in common, stand-alone or not.
pub(crate) fn relay(mut command: Command) -> Command {
    command
        .args(["--public-ip4-addr", &network::SERVER.v4.to_string()])
        .args(["--public-ip6-addr", &network::SERVER.v6.to_string()])
        .args(["--listen-port", &PORT.to_string()])
        .args(["--realm", REALM])
        .args(["--health-check-addr", HEALTH])
        .env("NO_COLOR", "1")
        // What is measured is the product as it runs at its customers', where nothing per packet is logged.
        .env_remove("RUST_LOG");
    command
}

fn standalone(command: Command) -> Command {
    let mut command = relay(command);
    command
        .arg("--standalone")
        .env("STATIC_USER", format!("{USER}:{PASSWORD}"));
    command
}

/// coturn as its manual recommends for speed and as little else as possible: plain UDP only, no database, no admin
/// interface, no NAT-discovery extras, quiet log. With one CPU it gets one relay thread; otherwise it decides itself.
fn coturn(network: &Network, directory: &Path, is_pinned: bool) -> Command {
    let mut command = network.server.command(COTURN);
    let own = network::SERVER;
    for option in ["--listening-ip", "--relay-ip"] {
        for address in [own.v4.to_string(), own.v6.to_string()] {
            command.args([option, &address]);
        }
    }
    if is_pinned {
        command.args(["--relay-threads", "1"]);
    }
    command
        .args(["-n", "--lt-cred-mech", "--realm", REALM])
        .args(["--listening-port", &PORT.to_string()])
        .args(["--user", &format!("{USER}:{PASSWORD}")])
        .args(["--no-tls", "--no-dtls", "--no-tcp", "--no-tcp-relay"])
        .args(["--no-cli", "--no-rfc5780"])
        .args([
            "--no-stun-backward-compatibility",
            "--no-software-attribute",
        ])
        .args(["--no-dynamic-ip-list", "--no-dynamic-realms"])
        .args(["--log-file", "stdout", "--simple-log"])
        .arg("--pidfile")
        .arg(directory.join("coturn.pid"))
        .arg("--userdb")
        .arg(directory.join("coturn.sqlite"));
    command
}

/// Whether somebody answers a Binding request.
fn answers(network: &Network) -> bool {
    let probe = || {
        let local = SocketAddr::new(network::GENERATOR.of(Version::V4), 0);
        let socket = UdpSocket::bind(local)?;
        socket.connect((network::SERVER.v4, PORT))?;
        socket.set_read_timeout(Some(PROBE))?;
        let request = Request {
            transaction_id: TransactionId::new([7; 12]),
            auth: AuthAttributes::default(),
            software: None,
            body: RequestBody::Binding,
        };
        socket.send(&request.encode(None)?)?;
        Ok(socket.recv(&mut [0; 512])?)
    };
    network.generator.run(probe).is_ok()
}
