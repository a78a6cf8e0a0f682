//! Nothing to do for longer than any session lives.

use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use demo::{
    scenario::{Scenario, WEB_V4},
    system::System,
};
use e2e::{
    case::{Case, Lane},
    cpu,
};

use crate::support::{app_address, page, ping_all, wait};

/// Longer than a WireGuard session (180 s).
const IDLE: Duration = Duration::from_secs(200);
/// Longer than two.
const LONG_IDLE: Duration = Duration::from_secs(400);
/// Set for [`LONG_IDLE`].
const LONG_VARIABLE: &str = "E2E_LONG";

/// When the processes have nothing left to do from before.
const SETTLED: Duration = Duration::from_secs(30);
const QUIET_WINDOW: Duration = Duration::from_secs(3);
/// CPU time that a process may use in a quiet window.
const QUIET_BUDGET: Duration = Duration::from_millis(50);

/// Bytes behind the ICMP header.
const PAYLOAD: usize = 48;

pub(crate) const CASES: &[Case] = &[Case {
    lane: Lane::Beside,
    ..Case::new("idle_200s_then_one_ping", Scenario::Direct, idle)
}];

fn idle(system: &mut System) -> Result<()> {
    system.start_all()?;
    let app = app_address(system)?;
    let web = IpAddr::V4(WEB_V4);
    page(system, &app.to_string())?;
    ping_all(system, web, 1, PAYLOAD)?;

    let quiet = match std::env::var_os(LONG_VARIABLE) {
        Some(_) => LONG_IDLE,
        None => IDLE,
    };
    let since = Instant::now();
    wait(SETTLED)?;
    everybody_sleeps(system)?;
    wait(quiet.saturating_sub(since.elapsed()))?;

    ping_all(system, app, 1, PAYLOAD).context("the one ping after the silence")?;
    ping_all(system, web, 1, PAYLOAD).context("the next ping")
}

fn everybody_sleeps(system: &System) -> Result<()> {
    let running = system.running().collect::<Vec<_>>();
    let before = running.iter().map(|(_, pid)| cpu::used(*pid));
    let before = before.collect::<Result<Vec<_>>>()?;
    wait(QUIET_WINDOW)?;
    for ((name, pid), before) in running.iter().zip(before) {
        let used = cpu::used(*pid)?.saturating_sub(before);
        ensure!(
            used < QUIET_BUDGET,
            "{name} used {used:?} of CPU time within {QUIET_WINDOW:?} without traffic"
        );
    }
    Ok(())
}
