//! Our relay as it runs in production: joined to a portal, which must see its heartbeats however busy the relay is
//! (testing spec §14).

use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use demo::{
    launch::{HEALTH, Launcher, http_status, role_command, wait_healthy},
    portal_files::PortalFiles,
    process::Process,
};
use serde::Serialize;
use tempfile::TempDir;
use testbed::Host;

use crate::turn::{
    credentials::Accounts,
    flows::Target,
    histogram::{Histogram, Quantiles},
    network::Network,
    server::{self, Server},
};

/// Where the portal listens, beside the relay, in its namespace.
const PORTAL: &str = "127.0.0.1:8080";
/// Time between looks at the relay's readiness.
const PERIOD: Duration = Duration::from_millis(200);

/// A portal with a relay. Dropping it ends the portal.
pub(crate) struct Portal {
    _process: Process,
    _directory: TempDir,
}

/// What came of looking at the relay again and again.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Readiness {
    /// Looks.
    pub(crate) asked: u64,
    /// Of these, how often the relay was not joined to the portal, or did not answer within a second.
    pub(crate) failed: u64,
    /// How often it had to join the portal again.
    pub(crate) rejoined: usize,
    /// How long an answer took.
    pub(crate) latency: Option<Quantiles>,
}

/// Starts portal and relay, and waits until the relay has joined.
///
/// # Errors
///
/// If either cannot be started or does not get ready.
pub(crate) fn start(network: &Network, cpu: Option<usize>) -> Result<(Portal, Server, Target)> {
    let directory = tempfile::Builder::new()
        .prefix("firezone-bench-portal-")
        .tempdir()?;
    let database = directory.path().join("portal.sqlite");
    let configuration = format!(
        "[server]\nlisten = \"{PORTAL}\"\ndatabase = {database:?}\n\n\
         [account]\nname = \"bench\"\n\n\
         [[site]]\nname = \"Office\"\n\n\
         [[person]]\nname = \"Ada\"\n"
    );
    let files = PortalFiles::with_configuration(directory.path(), &configuration)?;
    let launcher = Launcher {
        portal_url: format!("ws://{PORTAL}/"),
        files: &files,
    };
    let mut portal = Process::start(
        "portal",
        launcher.portal(&network.server)?,
        directory.path(),
    )?;
    wait_healthy(&mut portal, &network.server, PORTAL, "/healthz")?;

    let own = tempfile::Builder::new()
        .prefix("firezone-bench-turn-")
        .tempdir()?;
    let secret = own.path().join("secret");
    let mut relay = server::relay(role_command(&network.server, "relay")?);
    relay
        .args(["--api-url", &launcher.portal_url])
        .env("FIREZONE_TOKEN", files.relay_token())
        .env("STAMP_SECRET_FILE", &secret);
    let mut server = Server::launch(network, "relay", relay, own, cpu)?;
    wait_healthy(server.process(), &network.server, HEALTH, "/readyz")?;
    let secret = fs::read_to_string(&secret).context("the relay has written no secret")?;
    let target = server::target_for(Accounts::Minted {
        secret: secret.trim().to_owned(),
        realm: server::REALM.to_owned(),
    });
    let portal = Portal {
        _process: portal,
        _directory: directory,
    };
    Ok((portal, server, target))
}

/// Looks at the relay's readiness until it is stopped.
pub(crate) struct Watch {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Readiness>,
}

impl Watch {
    /// Starts to look.
    pub(crate) fn start(host: &Host) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (host, stopped) = (host.clone(), Arc::clone(&stop));
        let thread = thread::spawn(move || watch(&host, &stopped));
        Self { stop, thread }
    }

    /// Stops looking; `relay` is asked how often it joined.
    pub(crate) fn finish(self, relay: &mut Process) -> Result<Readiness> {
        self.stop.store(true, Ordering::Relaxed);
        let mut readiness = self.thread.join().ok().context("the watch panicked")?;
        let joined = relay.output().matches("Joined the portal").count();
        readiness.rejoined = joined.saturating_sub(1);
        Ok(readiness)
    }
}

fn watch(host: &Host, stopped: &AtomicBool) -> Readiness {
    let (mut asked, mut failed, mut latency) = (0, 0, Histogram::new());
    while !stopped.load(Ordering::Relaxed) {
        let began = Instant::now();
        let status = host.run(|| http_status(HEALTH, "/readyz")).unwrap_or(0);
        asked += 1;
        failed += u64::from(status != 200);
        latency.record(u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX));
        thread::sleep(PERIOD);
    }
    Readiness {
        asked,
        failed,
        rejoined: 0,
        latency: latency.quantiles(),
    }
}
