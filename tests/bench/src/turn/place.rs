//! Where a load happens: a server that is started in a network of its own, or one that runs on loopback already.

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
};

use anyhow::{Result, bail, ensure};
use clap::ValueEnum;
use demo::interrupt;

use crate::{
    load::Version,
    progress::Progress,
    turn::{
        credentials::{Accounts, Credentials},
        flows::Target,
        network::{Addresses, Network},
        portal::{self, Portal, Readiness, Watch},
        server::{self, Program, Server},
        session::{Session, Shape},
    },
};

/// Which server.
#[derive(Debug, clap::Args)]
pub(crate) struct ServerOptions {
    /// The server that is started for the load.
    #[arg(long, value_enum, default_value = "firezone")]
    relay: Relay,
    /// Another build of firezone-relay to start.
    #[arg(long, value_name = "PROGRAM", conflicts_with_all = ["server", "portal"])]
    relay_path: Option<PathBuf>,
    /// Join our relay to a portal, as in production: one allocation per user, heartbeats. Fails if the relay leaves the
    /// portal while it is loaded.
    #[arg(long, conflicts_with = "server")]
    portal: bool,
    /// Load a server that runs already. Only on loopback: this is a generator of floods.
    #[arg(long, value_name = "ADDRESS:PORT", requires = "credentials")]
    server: Option<SocketAddr>,
    /// That server's process, to measure its CPU time.
    #[arg(long, requires = "server", value_name = "PID")]
    server_pid: Option<u32>,
    /// User name there.
    #[arg(long, requires = "password", group = "credentials")]
    user: Option<String>,
    /// Password there.
    #[arg(long, env = "TURN_PASSWORD", hide_env_values = true, requires = "user")]
    password: Option<String>,
    /// Instead of both: the secret from which a firezone-relay's credentials are minted.
    #[arg(
        long,
        env = "STAMP_SECRET",
        hide_env_values = true,
        group = "credentials"
    )]
    stamp_secret: Option<String>,
    /// Realm of the first request; the server may correct it.
    #[arg(long, default_value = connlib_stun::DEFAULT_REALM)]
    realm: String,
    /// Do not give generator and server a CPU of their own each.
    #[arg(long)]
    no_pin: bool,
}

/// Servers that can be started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Relay {
    /// Ours.
    Firezone,
    /// coturn, from PATH.
    Coturn,
}

/// A server and how to reach it. Dropping it ends what was started.
pub(crate) struct Place {
    // Processes first, then the namespaces that they live in.
    server: Option<Server>,
    _portal: Option<Portal>,
    watch: Option<Watch>,
    network: Option<Network>,
    process: Option<u32>,
    target: Target,
}

impl ServerOptions {
    /// Whether the load stays on this machine's own loopback device.
    pub(crate) fn is_on_loopback(&self) -> bool {
        self.server.is_some()
    }

    /// Starts what has to be started. Clients will use this IP version.
    ///
    /// # Errors
    ///
    /// If the server is not on loopback, or does not start.
    pub(crate) fn prepare(&self, client: Version) -> Result<Place> {
        if let Some(address) = self.server {
            return Ok(Place {
                server: None,
                _portal: None,
                watch: None,
                network: None,
                process: self.server_pid,
                target: self.target_on_loopback(address, client)?,
            });
        }
        let [own_cpu, server_cpu] = server::cpus(self.no_pin)?;
        own_cpu.map(server::pin_here).transpose()?;
        let network = Network::build()?;
        let (portal, server, target) = match self.portal {
            true => {
                ensure!(
                    self.relay == Relay::Firezone,
                    "only our relay knows portals"
                );
                let (portal, server, target) = portal::start(&network, server_cpu)?;
                (Some(portal), server, target)
            }
            false => {
                let server = Server::start(&network, &self.program(), server_cpu)?;
                (None, server, server::target())
            }
        };
        Ok(Place {
            process: Some(server.id()),
            watch: portal.as_ref().map(|_| Watch::start(&network.server)),
            server: Some(server),
            _portal: portal,
            network: Some(network),
            target,
        })
    }

    fn program(&self) -> Program {
        match (&self.relay_path, self.relay) {
            (Some(path), _) => Program::OursAt(path.clone()),
            (None, Relay::Firezone) => Program::Ours,
            (None, Relay::Coturn) => Program::Coturn,
        }
    }

    fn target_on_loopback(&self, server: SocketAddr, client: Version) -> Result<Target> {
        ensure!(
            server.ip().is_loopback(),
            "{server} is not on loopback; a load may only go to this machine (127.0.0.1, ::1), or to a server that \
             this program starts itself (leave out --server)"
        );
        ensure!(
            client == Version::of(server.ip()),
            "--server {server} is of another IP version than the clients of --family"
        );
        let mut addresses = Addresses::LOOPBACK;
        match server.ip() {
            IpAddr::V4(v4) => addresses.v4 = v4,
            IpAddr::V6(v6) => addresses.v6 = v6,
        }
        Ok(Target {
            server: addresses,
            port: server.port(),
            accounts: self.accounts()?,
            local: Addresses::LOOPBACK,
        })
    }

    fn accounts(&self) -> Result<Accounts> {
        let realm = self.realm.clone();
        Ok(match (&self.user, &self.password, &self.stamp_secret) {
            (Some(user), Some(password), _) => Accounts::One(Credentials {
                username: user.clone(),
                password: password.clone(),
                realm,
            }),
            (_, _, Some(secret)) => Accounts::Minted {
                secret: secret.clone(),
                realm,
            },
            _ => bail!("give --user and --password, or --stamp-secret"),
        })
    }
}

impl Place {
    /// Allocates and binds.
    ///
    /// # Errors
    ///
    /// If the server refuses or does not answer.
    pub(crate) fn establish(&self, shape: Shape, progress: &Progress) -> Result<Session> {
        /// Allocations between two lines on the screen.
        const STEP: usize = 100;
        let host = self.network.as_ref().map(|network| &network.generator);
        let all = shape.allocations;
        Session::establish(host, &self.target, self.process, shape, |number| {
            if number % STEP == 0 && all > STEP {
                progress.say(&format!("allocating, {number} of {all}"));
            }
            interrupt::check()
        })
    }

    /// The server's process, if known.
    pub(crate) fn process(&self) -> Option<u32> {
        self.process
    }

    /// Ends everything. If there is a portal: how the relay stayed in touch with it.
    ///
    /// # Errors
    ///
    /// If the server's end cannot be waited for.
    pub(crate) fn stop(mut self) -> Result<Option<Readiness>> {
        let Some(mut server) = self.server.take() else {
            return Ok(None);
        };
        let watch = self.watch.take();
        let readiness = watch.map(|watch| watch.finish(server.process()));
        server.stop()?;
        readiness.transpose()
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Cli {
        #[command(flatten)]
        server: ServerOptions,
    }

    fn parse(arguments: &[&str]) -> ServerOptions {
        let arguments = ["bench"].into_iter().chain(arguments.iter().copied());
        Cli::try_parse_from(arguments).unwrap().server
    }

    #[test]
    fn only_loopback_may_be_loaded() {
        let credentials = ["--user", "u", "--password", "p"];
        for server in [
            "203.0.113.1:3478",
            "[2001:db8::1]:3478",
            "10.0.0.1:3478",
            "0.0.0.0:3478",
        ] {
            let options = parse(&[&["--server", server], &credentials[..]].concat());
            let version = Version::of(options.server.unwrap().ip());
            let error = options.prepare(version).err().unwrap().to_string();
            assert!(error.contains("is not on loopback"), "{error}");
        }
        for (server, version) in [("127.0.0.1:1", Version::V4), ("[::1]:1", Version::V6)] {
            let options = parse(&[&["--server", server], &credentials[..]].concat());
            assert!(options.prepare(version).is_ok());
        }
    }

    #[test]
    fn a_server_needs_credentials() {
        assert!(Cli::try_parse_from(["bench", "--server", "127.0.0.1:1"]).is_err());
    }
}
