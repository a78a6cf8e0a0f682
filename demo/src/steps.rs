//! What the demo does, in order, and what has to come out of it.

use std::{
    net::{IpAddr, SocketAddr},
    path::Path,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};

use crate::{
    content,
    http_server::PAGE,
    interrupt,
    probe::{fetch::Fetched, ping::Pinged, refused::Refused, resolve::Resolved},
    report::{Reporter, Step},
    scenario::{self, APP_NAME, DATABASE_PORT, Scenario, host},
    system::System,
};

/// First SYN to first byte of a DNS resource, in networks without loss.
const FIRST_BYTE_LIMIT: Duration = Duration::from_millis(400);
/// A direct path is in use this long after the first packet.
const DIRECT_PATH_LIMIT: Duration = Duration::from_secs(2);
/// A transfer may take this long.
const TRANSFER_LIMIT: Duration = Duration::from_secs(180);

/// What a run depends on beside the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// Size of the transferred file in bytes.
    pub file_size: u64,
    /// First SYN to first byte of a DNS resource, in networks without loss.
    pub first_byte_limit: Duration,
    /// Whether the client is left running.
    pub ending: Ending,
}

/// How a run ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// The client says goodbye.
    Goodbye,
    /// Everything keeps running.
    KeepRunning,
}

impl Options {
    /// What the demo promises in this network.
    pub fn of(scenario: Scenario) -> Self {
        Self {
            file_size: scenario.file_size(),
            first_byte_limit: FIRST_BYTE_LIMIT,
            ending: Ending::Goodbye,
        }
    }
}

/// Starts the system and does everything. Stops at the first step that others depend on.
///
/// # Errors
///
/// Only when interrupted; failed steps are in the report.
pub fn run(system: &mut System, reporter: &mut Reporter, options: Options) -> Result<()> {
    reporter.heading("Starting the system");
    for (name, start) in STARTS {
        if !step(reporter, name, || start(system))? {
            return Ok(());
        }
    }

    reporter.heading("A DNS resource: http://app.demo.internal/");
    if !step(reporter, "resolve from the client's machine", || {
        resolve(system)
    })? {
        return Ok(());
    }
    let mut first_packet = Instant::now();
    step(
        reporter,
        "first page, IPv4: first SYN to first byte",
        || {
            first_packet = Instant::now();
            first_page(system, options.first_byte_limit)
        },
    )?;
    step(reporter, "path in use", || path(system, first_packet))?;
    step(reporter, "page again, IPv4", || page(system, 4))?;
    step(reporter, "page, IPv6", || page(system, 6))?;
    step(reporter, "ping, IPv4 and IPv6", || ping_app(system))?;
    step(reporter, "file with checksum, IPv4", || {
        file(system, 4, options.file_size)
    })?;
    step(reporter, "file with checksum, IPv6", || {
        file(system, 6, options.file_size)
    })?;

    reporter.heading("A CIDR resource: the private network by address");
    step(reporter, "page from 10.20.0.10", || {
        cidr(system, scenario::WEB_V4.into())
    })?;
    step(reporter, "page from fd20::10", || {
        cidr(system, scenario::WEB_V6.into())
    })?;

    reporter.heading("What no policy allows");
    step(reporter, "database at 10.20.0.66 is refused", || {
        refused(system, scenario::DATABASE_V4.into())
    })?;
    step(reporter, "database at fd20::66 is refused", || {
        refused(system, scenario::DATABASE_V6.into())
    })?;

    if options.ending == Ending::KeepRunning {
        return Ok(());
    }
    reporter.heading("Goodbye");
    step(reporter, "client ends and gives DNS back", || {
        goodbye(system)
    })?;
    Ok(())
}

type Start = fn(&mut System) -> Result<Step>;

const STARTS: [(&str, Start); 5] = [
    ("private web server", |system| {
        timed(system, System::start_web)
    }),
    ("portal", |system| timed(system, System::start_portal)),
    ("relay, joined the portal", |system| {
        timed(system, System::start_relay)
    }),
    ("gateway, tunnel ready", |system| {
        timed(system, System::start_gateway)
    }),
    ("client, tunnel ready", |system| {
        timed(system, System::start_client)
    }),
];

fn timed(system: &mut System, start: fn(&mut System) -> Result<()>) -> Result<Step> {
    let started = Instant::now();
    start(system)?;
    let took = started.elapsed().as_secs_f64() * 1e3;
    Ok(Step::ok("", format!("{took:.0} ms")).with_value(took, "ms"))
}

/// Does one step and reports it under `name`. The result says whether it went well.
fn step(reporter: &mut Reporter, name: &str, work: impl FnOnce() -> Result<Step>) -> Result<bool> {
    interrupt::check()?;
    reporter.begin(name);
    let step = match work() {
        Ok(step) => Step {
            name: name.to_owned(),
            ..step
        },
        Err(error) => {
            interrupt::check()?;
            Step::failed(name, format!("{error:#}"))
        }
    };
    let ok = step.ok;
    reporter.finish(step);
    Ok(ok)
}

fn resolve(system: &mut System) -> Result<Step> {
    let found: Resolved = system.probe(&["resolve", APP_NAME])?;
    let is_proxy = |address: &IpAddr| match address {
        IpAddr::V4(v4) => v4.octets()[0] == 100 && v4.octets()[1] >= 96,
        IpAddr::V6(v6) => v6.segments()[..4] == [0xfd00, 0x2021, 0x1111, 0x8000],
    };
    ensure!(
        found.addresses.iter().all(is_proxy),
        "unexpected addresses {:?}",
        found.addresses
    );
    let (v4, v6): (Vec<&IpAddr>, Vec<&IpAddr>) = found.addresses.iter().partition(|a| a.is_ipv4());
    ensure!(!v4.is_empty() && !v6.is_empty(), "one family is missing");
    let detail = format!(
        "{}, {} … ({} IPv4 and {} IPv6 proxy addresses)",
        v4[0],
        v6[0],
        v4.len(),
        v6.len()
    );
    Ok(Step::ok("", detail).with_value(found.milliseconds, "ms"))
}

fn first_page(system: &mut System, limit: Duration) -> Result<Step> {
    let page = fetch_page(system, APP_NAME, 4)?;
    let took = page.first_byte_ms;
    let limit = limit.as_secs_f64() * 1e3;
    let step = if system.scenario().is_lossy() {
        Step::ok(
            "",
            format!("{took:.0} ms (no limit where packets are lost)"),
        )
    } else if took < limit {
        Step::ok("", format!("{took:.0} ms (limit {limit:.0} ms)"))
    } else {
        Step::failed("", format!("{took:.0} ms (limit {limit:.0} ms)"))
    };
    Ok(step.with_value(page.first_byte_ms, "ms"))
}

/// Which path the client says it uses, until it is of the kind that the network should end on.
fn path(system: &mut System, first_packet: Instant) -> Result<Step> {
    let expected = system.scenario().expects_direct();
    let deadline = first_packet + DIRECT_PATH_LIMIT;
    loop {
        interrupt::check()?;
        let path = client_path(system).context("the client reports no path")?;
        let fits = expected.is_none_or(|direct| path.is_direct() == direct);
        let late = Instant::now() > deadline;
        if !fits && !late {
            thread::sleep(Duration::from_millis(20));
            continue;
        }
        let detail = format!("{} ({})", path.describe(system), path.kind);
        return Ok(match fits {
            true => Step::ok("", detail),
            false => Step::failed("", format!("{detail}, not as the network should end")),
        });
    }
}

fn page(system: &mut System, family: u8) -> Result<Step> {
    let page = fetch_page(system, APP_NAME, family)?;
    let detail = format!("{:.0} ms to the first byte", page.first_byte_ms);
    Ok(Step::ok("", detail).with_value(page.first_byte_ms, "ms"))
}

fn cidr(system: &mut System, address: IpAddr) -> Result<Step> {
    let family = if address.is_ipv4() { 4 } else { 6 };
    let page = fetch_page(system, &address.to_string(), family)?;
    let ping: Pinged = system.probe(&["ping", &address.to_string()])?;
    let detail = format!(
        "{:.0} ms to the first byte; ping {:.1} ms",
        page.first_byte_ms,
        ping.median_ms.unwrap_or_default()
    );
    Ok(Step::ok("", detail).with_value(page.first_byte_ms, "ms"))
}

fn fetch_page(system: &System, host: &str, family: u8) -> Result<Fetched> {
    let family = family.to_string();
    let page: Fetched = system.probe(&["fetch", host, "/", "--family", &family])?;
    ensure!(page.status == 200, "HTTP status {}", page.status);
    ensure!(
        page.bytes == PAGE.len() as u64,
        "a page of {} bytes",
        page.bytes
    );
    Ok(page)
}

fn ping_app(system: &mut System) -> Result<Step> {
    let found: Resolved = system.probe(&["resolve", APP_NAME])?;
    let mut medians = Vec::new();
    for is_v4 in [true, false] {
        let address = found.addresses.iter().find(|a| a.is_ipv4() == is_v4);
        let address = address.context("one family is missing")?.to_string();
        let pinged: Pinged = system.probe(&["ping", &address])?;
        let lost = pinged.sent - pinged.received;
        ensure!(
            lost == 0 || system.scenario().is_lossy(),
            "{lost} of {} lost",
            pinged.sent
        );
        medians.push(pinged.median_ms.unwrap_or_default());
    }
    let detail = format!("round trip {:.1} ms and {:.1} ms", medians[0], medians[1]);
    Ok(Step::ok("", detail).with_value(medians[0], "ms"))
}

fn file(system: &mut System, family: u8, size: u64) -> Result<Step> {
    let (path, family) = (format!("/file?bytes={size}"), family.to_string());
    let timeout = TRANSFER_LIMIT.as_secs().to_string();
    let file: Fetched = system.probe(&[
        "fetch",
        APP_NAME,
        &path,
        "--family",
        &family,
        "--timeout",
        &timeout,
    ])?;
    ensure!(file.sha256 == content::checksum(size), "wrong checksum");
    let rate = file.bits_per_second() / 1e6;
    let mebibytes = size as f64 / f64::from(1 << 20);
    let detail = format!("{mebibytes} MiB, checksum right, {rate:.1} Mbit/s");
    Ok(Step::ok("", detail).with_value(rate, "Mbit/s"))
}

fn refused(system: &mut System, address: IpAddr) -> Result<Step> {
    let port = DATABASE_PORT.to_string();
    let answer: Refused = system.probe(&["refused", &address.to_string(), &port])?;
    ensure!(
        answer.meaning == "communication administratively prohibited",
        "refused by \"{}\"",
        answer.meaning
    );
    let protocol = if address.is_ipv4() { "ICMP" } else { "ICMPv6" };
    Ok(Step::ok(
        "",
        format!(
            "{protocol} type {} code {}: {}",
            answer.icmp_type, answer.icmp_code, answer.meaning
        ),
    ))
}

fn goodbye(system: &mut System) -> Result<Step> {
    let mut client = system.forget(host::CLIENT).context("no client")?;
    let started = Instant::now();
    let status = client.stop(Duration::from_secs(5))?;
    ensure!(status.success(), "the client ended with {status}");
    let output = system
        .testbed()
        .host(host::CLIENT)?
        .command("cat")
        .arg("/etc/resolv.conf")
        .output()?;
    let original = "nameserver 203.0.113.53\n";
    ensure!(
        output.stdout == original.as_bytes(),
        "resolv.conf is not the original"
    );
    let took = started.elapsed().as_secs_f64() * 1e3;
    Ok(Step::ok("", format!("{took:.0} ms")).with_value(took, "ms"))
}

/// The path that the client's log names last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientPath {
    /// Which ends are behind relays, in the words of the log.
    pub kind: String,
    /// The client's end.
    pub local: String,
    /// The gateway's end, as the client addresses it.
    pub remote: String,
}

impl ClientPath {
    /// Whether no relay is involved.
    pub fn is_direct(&self) -> bool {
        self.kind == "peer-to-peer"
    }

    /// In the field's terms.
    fn describe(&self, system: &System) -> &'static str {
        if !self.is_direct() {
            return "relayed";
        }
        let topology = system.scenario().topology();
        let mut own = topology.hosts.iter().flat_map(|host| &host.interfaces);
        let remote = self.remote.parse().map(|s: SocketAddr| s.ip()).ok();
        let is_host = own.any(|interface| {
            let (v4, v6) = (interface.v4.map(IpAddr::V4), interface.v6.map(IpAddr::V6));
            remote.is_some() && (v4 == remote || v6 == remote)
        });
        if is_host { "host" } else { "server-reflexive" }
    }
}

/// Reads the client's last word on its path from its JSON log.
pub fn client_path(system: &System) -> Option<ClientPath> {
    client_path_in(&system.directory().join("client-logs"))
}

/// As [`client_path`], from the log directory of a client.
pub fn client_path_in(logs: &Path) -> Option<ClientPath> {
    let directory = std::fs::read_dir(logs).ok()?;
    let mut files = directory
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|e| e == "log"))
        .collect::<Vec<_>>();
    files.sort();
    let text = std::fs::read_to_string(files.last()?).ok()?;
    text.lines().rev().find_map(|line| {
        let line: serde_json::Value = serde_json::from_str(line).ok()?;
        let field = |name: &str| line.get(name)?.as_str().map(str::to_owned);
        if field("message")? != "Path to gateway in use" {
            return None;
        }
        Some(ClientPath {
            kind: field("path")?,
            local: field("local")?,
            remote: field("remote")?,
        })
    })
}
