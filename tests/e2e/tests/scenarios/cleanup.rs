//! What is left behind: nothing on the hosts, no token in any environment.

use std::{
    fs,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use demo::{
    scenario::{APP_NAME, Scenario, host},
    system::System,
};
use e2e::{case::Case, os_state::OsState};

use crate::support::{client_host, eventually, page};

const DEVICE: &str = "tun-firezone";
const VARIABLE: &[u8] = b"FIREZONE_TOKEN";
/// How long `--exit` may take.
const EXIT_WITHIN: Duration = Duration::from_secs(20);

pub(crate) const CASES: &[Case] = &[Case::new("clean_up", Scenario::Direct, clean_up)];

fn clean_up(system: &mut System) -> Result<()> {
    system.start_web()?;
    system.start_portal()?;
    system.start_relay()?;
    let client = client_host(system)?;
    let gateway = system.testbed().host(host::GATEWAY)?.clone();
    let hosts = [(&client, host::CLIENT), (&gateway, host::GATEWAY)];
    let before = hosts
        .iter()
        .map(|(host, _)| OsState::of(host))
        .collect::<Result<Vec<_>>>()?;

    system.start_gateway()?;
    system.start_client()?;
    page(system, APP_NAME)?;
    for (host, name) in hosts {
        ensure!(
            OsState::of(host)?.has_link(DEVICE),
            "{name} has no {DEVICE}"
        );
    }
    let during = OsState::of(&client)?;
    for kind in ["link", "address", "route", "rule"] {
        // Otherwise the comparison at the end would say nothing.
        let added = during.added_since(&before[0]);
        let is_there = added.iter().any(|object| object.starts_with(kind));
        ensure!(is_there, "the client added no {kind}: {added:#?}");
    }
    no_tokens_in_environments(system)?;

    for name in [host::CLIENT, host::GATEWAY] {
        let status = system.stop_process(name)?;
        ensure!(status.success(), "{name} ended with {status}");
    }
    for ((host, name), before) in hosts.iter().zip(&before) {
        eventually("everything is given back", Duration::from_secs(2), || {
            let after = OsState::of(host)?;
            let (added, missing) = (after.added_since(before), after.missing_since(before));
            ensure!(added.is_empty(), "left behind on {name}: {added:#?}");
            ensure!(missing.is_empty(), "lost on {name}: {missing:#?}");
            Ok(())
        })?;
    }
    system.start_gateway()?;
    exits_when_ready(system)
}

/// clients 2
fn no_tokens_in_environments(system: &System) -> Result<()> {
    let holders = [host::CLIENT, host::GATEWAY, host::RELAY];
    for (name, pid) in system.running().filter(|(name, _)| holders.contains(name)) {
        let environment = fs::read(format!("/proc/{pid}/environ"))?;
        let found = environment
            .windows(VARIABLE.len())
            .any(|window| window == VARIABLE);
        ensure!(!found, "the environment of {name} still has its token");
        let arguments = fs::read(format!("/proc/{pid}/cmdline"))?;
        ensure!(!arguments.is_empty(), "{name} is gone");
    }
    Ok(())
}

/// clients 8
fn exits_when_ready(system: &System) -> Result<()> {
    let started = Instant::now();
    let output = system
        .client_command()?
        .arg("--exit")
        .output()
        .context("cannot start the client")?;
    let text = String::from_utf8_lossy(&output.stdout);
    ensure!(
        output.status.success(),
        "--exit ended with {}: {text}",
        output.status
    );
    ensure!(
        text.contains("Tunnel ready"),
        "--exit without a tunnel: {text}"
    );
    ensure!(
        started.elapsed() < EXIT_WITHIN,
        "--exit took {:?}",
        started.elapsed()
    );
    Ok(())
}
