//! Relays that end, come back or drain while traffic flows.

use std::{
    net::Ipv4Addr,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use demo::{
    scenario::{APP_NAME, Scenario, host},
    steps::client_path,
    system::System,
};
use e2e::{case::Case, logs::Expected, traffic::HeldRequest};
use nix::sys::signal::Signal;
use testbed::Topology;

use crate::{
    both::{BACK_AFTER_GOODBYE, BACK_WITHIN, Both},
    support::{app_address, client_host, page, wait},
};

/// From the end of a relay that comes back at once with its secret to the first answer. Whoever gets no answer through it for
/// 3 s asks it, and has a new allocation two round trips later.
const BACK_WITH_SECRET: Duration = Duration::from_secs(10);

const SECOND_RELAY: &str = "relay-2";
const SECOND_RELAY_V4: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 21);

pub(crate) const CASES: &[Case] = &[
    Case::new(
        "relay_restart_keeps_direct_traffic",
        Scenario::Direct,
        relay_restarts_direct,
    ),
    Case::new(
        "relay_restart_relayed_traffic_recovers",
        Scenario::Relayed,
        relay_restarts_relayed,
    ),
    Case::new(
        "relay_restart_with_and_without_its_secret",
        Scenario::Relayed,
        relay_restarts_with_and_without_its_secret,
    ),
    Case::new("relay_drains_then_ends", Scenario::Direct, relay_drains),
    Case {
        extend: with_second_relay,
        expected: TOKEN_ARGUMENT,
        ..Case::new(
            "relay_drains_beside_another",
            Scenario::Relayed,
            one_of_two_drains,
        )
    },
    Case {
        extend: with_second_relay,
        expected: TOKEN_ARGUMENT,
        ..Case::new(
            "relay_killed_beside_another",
            Scenario::Relayed,
            one_of_two_is_killed,
        )
    },
];

const TOKEN_ARGUMENT: &[Expected] = &[Expected {
    process: SECOND_RELAY,
    text: "A token on the command line",
    why: "the second relay gets it there",
}];

fn relay_restarts_direct(system: &mut System) -> Result<()> {
    let traffic = Both::start(system)?;
    let client = client_host(system)?;
    let held = HeldRequest::open(&client, app_address(system)?)?;

    let since = Instant::now();
    system.kill_process(host::RELAY)?;
    wait(Duration::from_secs(2))?;
    system.start_relay()?;
    wait(Duration::from_secs(12))?;

    traffic.ensure_steady(since)?;
    held.finish()?;
    page(system, APP_NAME)
}

fn relay_restarts_relayed(system: &mut System) -> Result<()> {
    let traffic = Both::start(system)?;

    system.kill_process(host::RELAY)?;
    wait(Duration::from_secs(1))?;
    let restarted = Instant::now();
    system.start_relay()?;

    traffic
        .wait_for_answers(restarted, BACK_WITHIN)
        .context("after the relay's restart")?;
    page(system, APP_NAME)
}

/// With the secret of before, the portal takes it for the same relay and says nothing to anybody: client and gateway find out
/// by what goes unanswered. With another secret they are told of a new relay.
fn relay_restarts_with_and_without_its_secret(system: &mut System) -> Result<()> {
    let secret = system.directory().join("relay-secret");
    let start = |system: &mut System| {
        let mut command = system.relay_command()?;
        command.env("STAMP_SECRET_FILE", &secret);
        system.start_until(host::RELAY, command, "Joined the portal")
    };
    system.start_web()?;
    system.start_portal()?;
    start(system)?;
    system.start_gateway()?;
    system.start_client()?;
    let traffic = Both::of(system)?;

    system.kill_process(host::RELAY)?;
    let restarted = Instant::now();
    start(system)?;
    traffic
        .wait_for_answers(restarted, BACK_WITH_SECRET)
        .context("with the same secret")?;

    system.kill_process(host::RELAY)?;
    std::fs::remove_file(&secret)?;
    let restarted = Instant::now();
    start(system)?;
    traffic
        .wait_for_answers(restarted, BACK_WITHIN)
        .context("with another secret")?;
    page(system, APP_NAME)
}

fn with_second_relay(topology: &mut Topology) {
    let first = topology
        .hosts
        .iter()
        .find(|known| known.name == host::RELAY);
    let Some(mut second) = first.cloned() else {
        return;
    };
    second.name = SECOND_RELAY.to_owned();
    for interface in &mut second.interfaces {
        interface.v4 = Some(SECOND_RELAY_V4);
        interface.v6 = None;
    }
    topology.hosts.push(second);
}

/// Starts everything with two relays and relayed traffic; the result names the relay that the client reaches the
/// gateway through.
fn start_with_two_relays(system: &mut System) -> Result<(Both, &'static str)> {
    let mut command = system.role_command(host::PORTAL, "portal")?;
    command.args(["token", "create", "--type", "relay", "--name", "Relay 2"]);
    let output = command
        .arg("--config")
        .arg(system.files().config())
        .output()?;
    ensure!(output.status.success(), "no token for the second relay");
    let token = String::from_utf8(output.stdout)?;
    system.start_web()?;
    system.start_portal()?;
    let address = SECOND_RELAY_V4.to_string();
    let url = system.portal_url();
    let arguments = ["--public-ip4-addr", &address, "--api-url", &url];
    let arguments = [arguments.as_slice(), &[token.trim()]].concat();
    system.start_role(SECOND_RELAY, "relay", &arguments, "Joined the portal")?;
    system.start_relay()?;
    system.start_gateway()?;
    system.start_client()?;

    let both = Both::of(system)?;
    let path = client_path(system).context("no path")?;
    let is_second = |end: &str| end.starts_with(&format!("{address}:"));
    let relay = match is_second(&path.local) || is_second(&path.remote) {
        true => SECOND_RELAY,
        false => host::RELAY,
    };
    Ok((both, relay))
}

fn one_of_two_drains(system: &mut System) -> Result<()> {
    let (traffic, relay) = start_with_two_relays(system)?;

    let since = Instant::now();
    system.process(relay)?.signal(Signal::SIGTERM)?;
    // The portal says after a second that the relay is gone.
    let told = since + Duration::from_millis(1500);
    wait(told.saturating_duration_since(Instant::now()))?;

    traffic.wait_for_answers(told, BACK_AFTER_GOODBYE)?;
    page(system, APP_NAME)?;
    system.forget(relay).context("no relay")?.kill()
}

fn one_of_two_is_killed(system: &mut System) -> Result<()> {
    let (traffic, relay) = start_with_two_relays(system)?;

    let since = Instant::now();
    system.kill_process(relay)?;

    traffic.wait_for_answers(since + Duration::from_millis(500), BACK_WITHIN)?;
    page(system, APP_NAME)
}

/// The first SIGTERM drains, the second ends it (clients 93).
fn relay_drains(system: &mut System) -> Result<()> {
    let traffic = Both::start(system)?;

    let since = Instant::now();
    system.process(host::RELAY)?.signal(Signal::SIGTERM)?;
    system
        .process(host::PORTAL)?
        .wait_for("the relay leaves", Duration::from_secs(2), |log| {
            log.contains("disconnected connection=0").then_some(())
        })?;
    wait(Duration::from_secs(5))?;
    traffic.ensure_steady(since)?;
    let ended = system.ended()?;
    ensure!(ended.is_empty(), "while it drains: {ended:?}");

    let mut relay = system.forget(host::RELAY).context("no relay")?;
    let status = relay.stop(Duration::from_secs(5))?;
    ensure!(status.success(), "the relay ended with {status}");
    Ok(())
}
