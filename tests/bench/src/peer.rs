//! Other WireGuard programs, as two ends of a plain tunnel in the same two namespaces that our client and gateway use.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use demo::process::Process;
use rand::RngCore as _;
use serde::Serialize;
use tempfile::TempDir;
use testbed::{Address, Host};
use x25519_dalek::{PublicKey, StaticSecret};

use crate::{
    network::{self, Network},
    uapi::Settings,
};

/// The address of the tunnel's far end, where iperf3's server is reached.
pub(crate) const SERVER: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 2);
const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 1);
/// The tunnel's MTU in bytes: ours, so that both send packets of the same size.
const MTU: u32 = 1280;
const PORT: u16 = 51820;
const DEVICE: &str = "wg-peer";
/// How long a program may take to open its device.
const PATIENCE: Duration = Duration::from_secs(10);

/// The programs that can be compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Peer {
    /// Mullvad's, from crates.io.
    Gotatun,
    /// Cloudflare's, from crates.io.
    BoringtunCli,
    /// The reference in Go. Debian 12 has the one of 2022, from before it used offloads.
    WireguardGo,
}

impl Peer {
    /// The program's file name.
    pub(crate) fn program(self) -> &'static str {
        match self {
            Self::Gotatun => "gotatun",
            Self::BoringtunCli => "boringtun-cli",
            Self::WireguardGo => "wireguard-go",
        }
    }

    /// How to get the program.
    fn installation(self) -> &'static str {
        match self {
            Self::Gotatun => "cargo install --locked --root ~/peers gotatun-cli",
            Self::BoringtunCli => "cargo install --locked --root ~/peers boringtun-cli",
            Self::WireguardGo => "apt-get install wireguard-go",
        }
    }

    /// What the program says about its version.
    pub(crate) fn version(program: &Path) -> Result<String> {
        let output = Command::new(program)
            .arg("--version")
            .output()
            .with_context(|| format!("cannot start {}", program.display()))?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        Ok(text.lines().next().unwrap_or_default().trim().to_owned())
    }

    /// The program as a command that stays in the foreground and keeps its rights: the Rust ones drop them by default
    /// and then cannot serve the configuration socket.
    fn configure(self, command: &mut Command) {
        match self {
            Self::Gotatun | Self::BoringtunCli => {
                command.args(["--foreground", "--disable-drop-privileges", DEVICE]);
            }
            Self::WireguardGo => {
                command.args(["--foreground", DEVICE]);
            }
        }
    }

    /// Finds the program: the given file or directory, else in `PATH`.
    pub(crate) fn find(self, given: Option<&Path>) -> Result<PathBuf> {
        let program = self.program();
        let candidates = match given {
            Some(path) => vec![
                path.to_owned(),
                path.join(program),
                path.join("bin").join(program),
            ],
            None => {
                let path = std::env::var_os("PATH").unwrap_or_default();
                std::env::split_paths(&path)
                    .map(|directory| directory.join(program))
                    .collect()
            }
        };
        let Some(found) = candidates.into_iter().find(|path| path.is_file()) else {
            bail!(
                "cannot find {program} {}; install it with `{}` and name its place with --peer-path",
                match given {
                    Some(path) => format!("at {}", path.display()),
                    None => "in PATH".to_owned(),
                },
                self.installation()
            );
        };
        found
            .canonicalize()
            .context("cannot resolve the peer's path")
    }
}

/// A running tunnel between two processes of a peer.
pub(crate) struct PeerTunnel {
    client: Process,
    server: Process,
    peer: Peer,
    _logs: TempDir,
}

impl PeerTunnel {
    /// Starts both ends and configures them.
    pub(crate) fn start(network: &Network, peer: Peer, program: &Path) -> Result<Self> {
        let logs = tempfile::Builder::new()
            .prefix("firezone-bench-peer-")
            .tempdir()?;
        let start = |host, name| start_end(host, name, peer, program, logs.path());
        let client = start(&network.client, "peer-client")?;
        let server = start(&network.gateway, "peer-server")?;

        let [client_key, server_key] = [(); 2].map(|()| new_key());
        let settings = |own: &StaticSecret, other: &StaticSecret, endpoint, inside| Settings {
            private_key: own.to_bytes(),
            listen_port: PORT,
            peer: PublicKey::from(other).to_bytes(),
            endpoint: SocketAddr::new(Ipv4Addr::into(endpoint), PORT),
            allowed_ip: format!("{inside}/32"),
        };
        settings(&client_key, &server_key, network::GATEWAY, SERVER).apply(client.id(), DEVICE)?;
        settings(&server_key, &client_key, network::CLIENT, CLIENT).apply(server.id(), DEVICE)?;

        let bring_up = |host: &Host, address| host.bring_up(DEVICE, Address::new(address, 24), MTU);
        bring_up(&network.client, CLIENT)?;
        bring_up(&network.gateway, SERVER)?;
        Ok(Self {
            client,
            server,
            peer,
            _logs: logs,
        })
    }

    /// The program's name.
    pub(crate) fn program(&self) -> &'static str {
        self.peer.program()
    }

    /// Process id of the end on the client's host.
    pub(crate) fn client_id(&self) -> u32 {
        self.client.id()
    }

    /// Process id of the end on the gateway's host.
    pub(crate) fn server_id(&self) -> u32 {
        self.server.id()
    }
}

/// Starts one end and waits for its configuration socket.
fn start_end(host: &Host, name: &str, peer: Peer, program: &Path, logs: &Path) -> Result<Process> {
    let make_directory = host
        .command("mkdir")
        .args(["-p", "/run/wireguard"])
        .status()?;
    anyhow::ensure!(make_directory.success(), "cannot make /run/wireguard");
    let mut command = host.command(program);
    peer.configure(&mut command);
    let mut process = Process::start(name, command, logs)?;
    let socket = format!("/proc/{}/root/run/wireguard/{DEVICE}.sock", process.id());
    process.wait_for("its configuration socket is there", PATIENCE, |_| {
        Path::new(&socket).exists().then_some(())
    })?;
    wait_for_device(&process)?;
    Ok(process)
}

fn wait_for_device(process: &Process) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    let list = format!("/proc/{}/net/dev", process.id());
    while !std::fs::read_to_string(&list)?.contains(DEVICE) {
        if Instant::now() > deadline {
            bail!("the peer made no device {DEVICE}");
        }
        thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

fn new_key() -> StaticSecret {
    let mut bytes = [0; 32];
    rand::rng().fill_bytes(&mut bytes);
    StaticSecret::from(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_program_is_explained() {
        let nowhere = Path::new("/nonexistent");
        let error = Peer::Gotatun.find(Some(nowhere)).unwrap_err().to_string();
        assert!(
            error.contains("cannot find gotatun at /nonexistent"),
            "{error}"
        );
        assert!(
            error.contains("cargo install --locked --root ~/peers gotatun-cli"),
            "{error}"
        );
    }

    #[test]
    fn a_program_is_found_below_the_root_of_cargo_install() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("bin")).unwrap();
        let file = root.path().join("bin/gotatun");
        std::fs::write(&file, "").unwrap();
        let file = file.canonicalize().unwrap();
        assert_eq!(Peer::Gotatun.find(Some(root.path())).unwrap(), file);
        assert_eq!(Peer::Gotatun.find(Some(&file)).unwrap(), file);
    }
}
