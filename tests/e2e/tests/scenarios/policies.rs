//! The administrator changes the portal's configuration while everything runs.

use std::{
    fs,
    net::IpAddr,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use demo::{
    probe::{refused::Refused, resolve::Resolved},
    scenario::{APP_NAME, DATABASE_PORT, DATABASE_V4, Scenario, WEB_V4, host},
    system::System,
};
use e2e::{case::Case, resolver, role, traffic::Traffic};
use nix::sys::signal::Signal;

use crate::{
    packets::with_resolver,
    support::{app_address, client_host, eventually, page, wait},
};

/// From the portal's word to its effect.
const PATIENCE: Duration = Duration::from_secs(10);
const PROHIBITED: &str = "communication administratively prohibited";

pub(crate) const CASES: &[Case] = &[
    Case::new(
        "filter_change_while_running",
        Scenario::Direct,
        filter_changes,
    ),
    Case {
        extend: with_resolver,
        ..Case::new(
            "policy_change_while_running",
            Scenario::Direct,
            policy_changes,
        )
    },
];

fn filter_changes(system: &mut System) -> Result<()> {
    system.start_all()?;
    let web = IpAddr::V4(WEB_V4);
    page(system, &web.to_string())?;
    is_prohibited(system, DATABASE_V4.into(), DATABASE_PORT)?;
    let original = configuration(system)?;

    let of_web = r#"filters = ["tcp:80", "icmp"]"#;
    let of_database = format!("filters = [\"tcp:{DATABASE_PORT}\"]");
    configure(system, &original.replace(of_web, &of_database))?;
    eventually("the web server is out of reach", PATIENCE, || {
        is_prohibited(system, web, 80)
    })?;
    // Nothing listens there, which the database's own host says.
    eventually("the database's host answers", PATIENCE, || {
        let answer = probe_refused(system, DATABASE_V4.into(), DATABASE_PORT);
        let error = answer.err().context("an ICMP error came")?;
        let text = format!("{error:#}");
        ensure!(text.contains("refused"), "{text}");
        Ok(())
    })?;

    configure(system, &original)?;
    eventually("the web server is back", PATIENCE, || {
        page(system, &web.to_string())
    })?;
    is_prohibited(system, DATABASE_V4.into(), DATABASE_PORT)
}

fn policy_changes(system: &mut System) -> Result<()> {
    let resolver = resolver::ADDRESS.to_string();
    system.start_role("resolver", role::RESOLVER, &[&resolver], "listening")?;
    system.start_all()?;
    let client = client_host(system)?;
    let app = Traffic::start(&client, app_address(system)?)?;
    let web = Traffic::start(&client, WEB_V4.into())?;
    let started = Instant::now();
    app.wait_for_answer(started, PATIENCE)?;
    web.wait_for_answer(started, PATIENCE)?;
    let original = configuration(system)?;

    configure(system, &without_resource(&original, "App")?)?;
    wait_for_silence(&app)?;
    // The name is one of the public internet now, where this resolver knows every name.
    eventually("the name is no longer ours", PATIENCE, || {
        let found: Resolved = system.probe(&["resolve", APP_NAME])?;
        ensure!(
            found.addresses == [IpAddr::V4(resolver::ANSWER)],
            "{found:?}"
        );
        Ok(())
    })?;
    let since = Instant::now();
    web.wait_for_answer(since, PATIENCE)
        .context("the other resource must not notice")?;

    configure(system, &without_resource(&original, "Office IPv4")?)?;
    wait_for_silence(&web)?;
    eventually("the name is ours again", PATIENCE, || {
        page(system, APP_NAME)
    })?;

    configure(system, &original)?;
    let since = Instant::now();
    web.wait_for_answer(since, PATIENCE)?;
    page(system, APP_NAME)
}

/// Waits until requests of the last moments stay without an answer.
pub(crate) fn wait_for_silence(traffic: &Traffic) -> Result<()> {
    eventually("the end of access", PATIENCE, || {
        let since = Instant::now();
        wait(Duration::from_secs(1))?;
        let answered = traffic.wait_for_answer(since, Duration::ZERO);
        ensure!(answered.is_err(), "still answered");
        Ok(())
    })
}

fn is_prohibited(system: &System, address: IpAddr, port: u16) -> Result<()> {
    let answer = probe_refused(system, address, port)?;
    ensure!(answer.meaning == PROHIBITED, "refused by {answer:?}");
    Ok(())
}

fn probe_refused(system: &System, address: IpAddr, port: u16) -> Result<Refused> {
    system.probe(&["refused", &address.to_string(), &port.to_string()])
}

pub(crate) fn configuration(system: &System) -> Result<String> {
    Ok(fs::read_to_string(system.files().config())?)
}

/// Writes the file as an editor does, and waits until the portal has taken it. It watches the file; a SIGHUP beside
/// that must do no harm.
pub(crate) fn configure(system: &mut System, text: &str) -> Result<()> {
    const RELOADED: &str = "configuration reloaded";
    let file = system.files().config().to_owned();
    let new = file.with_extension("new");
    fs::write(&new, text)?;
    let portal = system.process(host::PORTAL)?;
    let before = portal.output().matches(RELOADED).count();
    fs::rename(new, file)?;
    portal.signal(Signal::SIGHUP)?;
    portal.wait_for("it takes the configuration", PATIENCE, |log| {
        (log.matches(RELOADED).count() > before).then_some(())
    })
}

/// The configuration without a resource and its policy.
pub(crate) fn without_resource(text: &str, name: &str) -> Result<String> {
    let start = text
        .find(&format!("[[resource]]\nname = \"{name}\""))
        .context("no such resource")?;
    let after = start + "[[resource]]".len();
    let end = text[after..].find("[[resource]]");
    let end = end.map_or(text.len(), |length| after + length);
    Ok([&text[..start], &text[end..]].concat())
}
