//! What many scenarios do.

use std::{
    net::IpAddr,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use demo::{
    http_server::PAGE,
    interrupt,
    probe::{fetch::Fetched, ping::Pinged, resolve::Resolved},
    scenario::{APP_NAME, host},
    system::System,
};
use testbed::Host;

/// The client's host.
pub(crate) fn client_host(system: &System) -> Result<Host> {
    Ok(system.testbed().host(host::CLIENT)?.clone())
}

/// First address of the DNS resource's name on the client's machine.
pub(crate) fn app_address(system: &System) -> Result<IpAddr> {
    let found: Resolved = system.probe(&["resolve", APP_NAME])?;
    let first = found.addresses.iter().find(|address| address.is_ipv4());
    first.copied().context("no IPv4 address")
}

/// Fetches the page from a name or address, over IPv4 unless the address says otherwise.
pub(crate) fn page(system: &System, from: &str) -> Result<()> {
    let is_v6 = from
        .parse::<IpAddr>()
        .is_ok_and(|address| address.is_ipv6());
    let family = if is_v6 { "6" } else { "4" };
    let page: Fetched = system
        .probe(&["fetch", from, "/", "--family", family, "--timeout", "10"])
        .with_context(|| format!("no page from {from}"))?;
    ensure!(
        page.bytes == PAGE.len() as u64,
        "a page of {} bytes",
        page.bytes
    );
    Ok(())
}

/// Sends `count` echo requests, all of which have to be answered.
pub(crate) fn ping_all(system: &System, address: IpAddr, count: u16, payload: usize) -> Result<()> {
    let (count_text, payload) = (count.to_string(), payload.to_string());
    let pinged: Pinged = system.probe(&[
        "ping",
        &address.to_string(),
        "--count",
        &count_text,
        "--payload",
        &payload,
    ])?;
    ensure!(
        pinged.received == count,
        "{} of {count} answered",
        pinged.received
    );
    Ok(())
}

/// A file of a host, as the host sees it.
pub(crate) fn read_file(host: &Host, path: &str) -> Result<String> {
    let output = host.command("cat").arg(path).output()?;
    ensure!(output.status.success(), "cannot read {path}");
    Ok(String::from_utf8(output.stdout)?)
}

/// Sleeps in small pieces, so that Ctrl-C is heard.
pub(crate) fn wait(time: Duration) -> Result<()> {
    let until = Instant::now() + time;
    while Instant::now() < until {
        interrupt::check()?;
        thread::sleep(Duration::from_millis(50).min(time));
    }
    Ok(())
}

/// Repeats something until it works.
pub(crate) fn eventually<T>(
    what: &str,
    patience: Duration,
    mut attempt: impl FnMut() -> Result<T>,
) -> Result<T> {
    let deadline = Instant::now() + patience;
    loop {
        let error = match attempt() {
            Ok(value) => return Ok(value),
            Err(error) => error,
        };
        interrupt::check()?;
        if Instant::now() > deadline {
            bail!("{what} did not happen within {patience:?}: {error:#}");
        }
        thread::sleep(Duration::from_millis(100));
    }
}
