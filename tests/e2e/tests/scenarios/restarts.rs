//! Gateway, portal and client end and come back, or lose the network, while others carry on.

use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use demo::{
    scenario::{APP_NAME, Scenario, WEB_V4, host},
    steps::client_path,
    system::System,
};
use e2e::{
    case::{Case, Lane},
    logs::Expected,
    traffic::HeldRequest,
};
use nix::sys::signal::Signal;

use crate::{
    both::{BACK_AFTER_GOODBYE, BACK_WITHIN, Both, HICCUP},
    support::{app_address, client_host, eventually, page, read_file, wait},
};

/// A laptop that was closed: longer than any session lives, and than the portal waits for a heartbeat.
const FROZEN: Duration = Duration::from_secs(200);
/// Nobody tells that a path died: first the client's checks give up, then the gateway has to follow.
const OTHER_PATH_WITHIN: Duration = Duration::from_secs(40);
/// What the client's host says about name servers while no client runs.
const RESOLV_CONF: &str = "nameserver 203.0.113.53\n";

pub(crate) const CASES: &[Case] = &[
    Case {
        lane: Lane::Beside,
        ..Case::new("client_frozen_for_200s", Scenario::Direct, client_frozen)
    },
    Case::new(
        "gateway_killed_under_traffic",
        Scenario::Direct,
        gateway_killed,
    ),
    Case::new(
        "gateway_restart_under_traffic",
        Scenario::Direct,
        gateway_restarts,
    ),
    Case {
        expected: PORTAL_GONE,
        ..Case::new(
            "portal_restart_keeps_traffic",
            Scenario::Direct,
            portal_restarts,
        )
    },
    Case {
        expected: PORTAL_GONE,
        ..Case::new(
            "portal_down_at_client_start",
            Scenario::Direct,
            portal_down_at_start,
        )
    },
    Case::new(
        "client_killed_dns_restored",
        Scenario::Direct,
        client_killed,
    ),
    Case::new("hangup_starts_afresh", Scenario::Direct, hangup),
    Case::new("nats_forget_their_mappings", Scenario::Direct, nats_forget),
    Case::new(
        "direct_path_blocked_later",
        Scenario::Direct,
        direct_path_is_blocked,
    ),
];

const PORTAL_GONE: &[Expected] = &[
    Expected {
        process: host::CLIENT,
        text: "portal",
        why: "the portal is away",
    },
    Expected {
        process: host::GATEWAY,
        text: "portal",
        why: "the portal is away",
    },
    Expected {
        process: host::RELAY,
        text: "portal",
        why: "the portal is away",
    },
];

fn gateway_killed(system: &mut System) -> Result<()> {
    let traffic = Both::start(system)?;

    system.kill_process(host::GATEWAY)?;
    wait(Duration::from_secs(2))?;
    let restarted = Instant::now();
    system.start_gateway()?;

    traffic
        .wait_for_answers(restarted, BACK_WITHIN)
        .context("after the gateway's restart")?;
    page(system, APP_NAME)
}

fn gateway_restarts(system: &mut System) -> Result<()> {
    let traffic = Both::start(system)?;

    let status = system.stop_process(host::GATEWAY)?;
    ensure!(status.success(), "the gateway ended with {status}");
    let restarted = Instant::now();
    system.start_gateway()?;

    traffic
        .wait_for_answers(restarted, BACK_AFTER_GOODBYE)
        .context("after the gateway's restart")?;
    page(system, APP_NAME)
}

fn client_frozen(system: &mut System) -> Result<()> {
    let traffic = Both::start(system)?;

    system.process(host::CLIENT)?.signal(Signal::SIGSTOP)?;
    let thaw = wait(FROZEN);
    system.process(host::CLIENT)?.signal(Signal::SIGCONT)?;
    thaw?;

    traffic
        .wait_for_answers(Instant::now(), BACK_WITHIN)
        .context("after 200 s without the client")?;
    page(system, APP_NAME)
}

fn portal_restarts(system: &mut System) -> Result<()> {
    let traffic = Both::start(system)?;
    let client = client_host(system)?;
    let held = HeldRequest::open(&client, app_address(system)?)?;

    let since = Instant::now();
    let status = system.stop_process(host::PORTAL)?;
    ensure!(status.success(), "the portal ended with {status}");
    wait(Duration::from_secs(3))?;
    page(system, APP_NAME).context("while the portal is away")?;
    system.start_portal()?;
    let portal = system.process(host::PORTAL)?;
    for component in [host::CLIENT, host::GATEWAY, host::RELAY] {
        let line = format!("connected component={component}");
        let is_back = |log: &str| (log.matches(&line).count() > 1).then_some(());
        portal.wait_for(&format!("the {component} is back"), BACK_WITHIN, is_back)?;
    }
    wait(Duration::from_secs(3))?;

    traffic.ensure_steady(since)?;
    held.finish()?;
    page(system, APP_NAME)
}

/// The client's and the gateway's routers lose all mappings, as after a power cut.
fn nats_forget(system: &mut System) -> Result<()> {
    let traffic = Both::start(system)?;

    let since = Instant::now();
    system.testbed().flush_edge("client-edge")?;
    system.testbed().flush_edge("gateway-edge")?;

    traffic.wait_for_answers(since, BACK_WITHIN)?;
    wait(BACK_WITHIN.saturating_sub(since.elapsed()))?;
    let settled = Instant::now();
    wait(Duration::from_secs(3))?;
    traffic.ensure_steady(settled)?;
    page(system, APP_NAME)
}

/// Something on the way starts to block direct traffic, and stops later.
fn direct_path_is_blocked(system: &mut System) -> Result<()> {
    let traffic = Both::start(system)?;

    let since = Instant::now();
    system.testbed().block(host::CLIENT, host::GATEWAY)?;
    traffic
        .wait_for_answers(since + HICCUP, OTHER_PATH_WITHIN)
        .context("after the direct path was blocked")?;
    let path = client_path(system).context("no path")?;
    ensure!(!path.is_direct(), "still {path:?}");
    system.testbed().unblock(host::CLIENT, host::GATEWAY)?;
    page(system, APP_NAME)
}

/// clients 10
fn portal_down_at_start(system: &mut System) -> Result<()> {
    system.start_web()?;
    system.start_portal()?;
    system.start_relay()?;
    system.start_gateway()?;
    system.stop_process(host::PORTAL)?;

    system.spawn_client()?;
    wait(Duration::from_secs(3))?;
    let ended = system.ended()?;
    ensure!(ended.is_empty(), "without a portal: {ended:?}");

    system.start_portal()?;
    let patience = Duration::from_secs(30);
    system
        .process(host::CLIENT)?
        .wait_for("the tunnel is ready", patience, |log| {
            log.contains("Tunnel ready").then_some(())
        })?;
    eventually("a page", patience, || page(system, APP_NAME))
}

/// clients 12, 38, 49
fn client_killed(system: &mut System) -> Result<()> {
    system.start_all()?;
    let client = client_host(system)?;
    let resolv_conf = || read_file(&client, "/etc/resolv.conf");
    ensure!(resolv_conf()? != RESOLV_CONF, "DNS control is not active");

    system.kill_process(host::CLIENT)?;
    ensure!(resolv_conf()? != RESOLV_CONF, "who restored it?");
    system.start_client()?;
    eventually("a page", BACK_WITHIN, || page(system, APP_NAME))?;
    ensure!(resolv_conf()? != RESOLV_CONF, "DNS control is not active");
    let status = system.stop_process(host::CLIENT)?;
    ensure!(status.success(), "the client ended with {status}");
    let text = resolv_conf()?;
    ensure!(
        text == RESOLV_CONF,
        "resolv.conf is not the original: {text}"
    );

    system.start_client()?;
    system.kill_process(host::CLIENT)?;
    let check = system.client_command()?.arg("--check").output()?;
    ensure!(
        check.status.success(),
        "--check ended with {}",
        check.status
    );
    let text = resolv_conf()?;
    ensure!(
        text == RESOLV_CONF,
        "--check did not repair resolv.conf: {text}"
    );
    Ok(())
}

/// clients 12
fn hangup(system: &mut System) -> Result<()> {
    let traffic = Both::start(system)?;

    let since = Instant::now();
    let client = system.process(host::CLIENT)?;
    client.signal(Signal::SIGHUP)?;
    client.wait_for("it hears the signal", BACK_WITHIN, |log| {
        log.contains("Starting the session afresh").then_some(())
    })?;
    wait(Duration::from_secs(1))?;

    traffic.wait_for_answers(since + Duration::from_secs(1), BACK_WITHIN)?;
    page(system, &IpAddr::V4(WEB_V4).to_string())
}
