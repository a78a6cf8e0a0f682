//! A gateway with two workers and two clients, one at each.

use std::{
    collections::BTreeMap,
    io::{Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Result, bail, ensure};
use demo::{
    launch::{HEALTH, TUNNEL_READY},
    scenario::{Scenario, WEB_V4, WEB_V6, host},
    system::System,
};
use e2e::{case::Case, traffic::Traffic};
use testbed::Topology;

use crate::{
    both::{BACK_AFTER_GOODBYE, BACK_WITHIN, Both},
    policies::{configuration, configure, wait_for_silence, without_resource},
    support::{eventually, wait},
};

const SECOND: &str = "client-2";
const SECOND_V4: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 3);
/// Identities that the second client may need until it falls to the other worker: each does with a chance of a half.
const IDENTITIES: u8 = 20;
const PATIENCE: Duration = Duration::from_secs(10);

pub(crate) const CASES: &[Case] = &[
    Case {
        extend: with_second_client,
        ..Case::new("workers_share_the_clients", Scenario::Direct, share_clients)
    },
    Case {
        extend: with_second_client,
        ..Case::new(
            "workers_share_the_relay",
            Scenario::SymmetricNat,
            share_relay,
        )
    },
];

fn share_clients(system: &mut System) -> Result<()> {
    let (first, second) = start(system)?;

    // Who comes and goes at one worker is nothing to the other.
    let since = Instant::now();
    stop_second(system)?;
    ensure_clients(system, [1, 0].into())?;
    start_second(system, second.identity)?;
    second.wait_for_answers(Instant::now(), BACK_WITHIN)?;
    first.ensure_steady(since)?;

    // What the administrator changes reaches both.
    let original = configuration(system)?;
    configure(system, &without_resource(&original, "Office IPv4")?)?;
    wait_for_silence(&second.web_v4)?;
    second.web_v6.wait_for_answer(Instant::now(), PATIENCE)?;
    configure(system, &original)?;
    first.wait_for_answers(Instant::now(), PATIENCE)?;
    second.wait_for_answers(Instant::now(), PATIENCE)?;

    // A new process has to bring both back.
    system.stop_process(host::GATEWAY)?;
    start_gateway(system)?;
    let since = Instant::now();
    first.wait_for_answers(since, BACK_AFTER_GOODBYE)?;
    second.wait_for_answers(since, BACK_AFTER_GOODBYE)
}

/// Each worker is a user of its own at the relay, and gives its allocation back.
fn share_relay(system: &mut System) -> Result<()> {
    let (first, second) = start(system)?;
    let since = Instant::now();
    wait(Duration::from_secs(3))?;
    first.ensure_steady(since)?;
    second.wait_for_answers(since, PATIENCE)?;
    let allocations = |system: &System, expected: f64| {
        eventually("the right number of allocations", PATIENCE, || {
            let metrics = metrics(system, host::RELAY)?;
            let count = metrics.get("relay_active_allocations").copied();
            ensure!(count == Some(expected), "{count:?} allocations");
            Ok(())
        })
    };
    allocations(system, 4.0)?;
    system.stop_process(host::GATEWAY)?;
    allocations(system, 2.0)
}

/// Starts everything; both clients' traffic flows, through a worker each.
fn start(system: &mut System) -> Result<(Both, SecondClient)> {
    system.start_web()?;
    system.start_portal()?;
    system.start_relay()?;
    start_gateway(system)?;
    system.start_client()?;
    let first = Both::of(system)?;
    for identity in 0..IDENTITIES {
        start_second(system, identity)?;
        let second = SecondClient::start(system, identity)?;
        second.wait_for_answers(Instant::now(), BACK_WITHIN)?;
        if ensure_clients(system, [1, 1].into()).is_ok() {
            return Ok((first, second));
        }
        drop(second);
        stop_second(system)?;
    }
    bail!("{IDENTITIES} clients fell to one worker of two")
}

fn start_gateway(system: &mut System) -> Result<()> {
    let mut command = system.gateway_command()?;
    command.args(["--workers", "2"]);
    system.start_until(host::GATEWAY, command, TUNNEL_READY)
}

fn start_second(system: &mut System, identity: u8) -> Result<()> {
    let mut command: Command = system.role_command(SECOND, "client")?;
    command
        .args(["--api-url", &system.portal_url()])
        .args(["--dns-control", "disabled"])
        .env("FIREZONE_TOKEN", system.files().client_token())
        .env("FIREZONE_ID", format!("second-client-{identity}"));
    system.start_until(SECOND, command, TUNNEL_READY)
}

fn stop_second(system: &mut System) -> Result<()> {
    let status = system.stop_process(SECOND)?;
    ensure!(status.success(), "the second client ended with {status}");
    Ok(())
}

/// The second client's traffic.
struct SecondClient {
    identity: u8,
    web_v4: Traffic,
    web_v6: Traffic,
}

impl SecondClient {
    fn start(system: &System, identity: u8) -> Result<Self> {
        let host = system.testbed().host(SECOND)?;
        Ok(Self {
            identity,
            web_v4: Traffic::start(host, WEB_V4.into())?,
            web_v6: Traffic::start(host, WEB_V6.into())?,
        })
    }

    fn wait_for_answers(&self, since: Instant, patience: Duration) -> Result<()> {
        self.web_v4.wait_for_answer(since, patience)?;
        self.web_v6.wait_for_answer(since, patience)?;
        Ok(())
    }
}

/// Waits until the workers have so many clients, whichever has which.
fn ensure_clients(system: &System, mut expected: Vec<u8>) -> Result<()> {
    expected.sort_unstable();
    eventually("the clients are spread", Duration::from_secs(5), || {
        let metrics = metrics(system, host::GATEWAY)?;
        let of = |worker| metrics.get(&format!("gateway_clients{{worker=\"{worker}\"}}"));
        let mut clients: Vec<_> = (0..2)
            .map(|worker| of(worker).map_or(0, |clients| *clients as u8))
            .collect();
        clients.sort_unstable();
        ensure!(clients == expected, "{clients:?} clients");
        Ok(())
    })
}

/// What a program counts, by name with labels.
fn metrics(system: &System, name: &str) -> Result<BTreeMap<String, f64>> {
    let host = system.testbed().host(name)?;
    let text = host.run(|| {
        let address: SocketAddr = HEALTH.parse()?;
        let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(1))?;
        stream.set_read_timeout(Some(Duration::from_secs(1)))?;
        write!(
            stream,
            "GET /metrics HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n"
        )?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        Ok(text)
    })?;
    let lines = text.lines().filter_map(|line| line.rsplit_once(' '));
    let values = lines.filter_map(|(name, value)| Some((name.to_owned(), value.parse().ok()?)));
    let values: BTreeMap<_, _> = values.collect();
    ensure!(!values.is_empty(), "no metrics in {text:?}");
    Ok(values)
}

fn with_second_client(topology: &mut Topology) {
    let mut hosts = topology.hosts.iter();
    let first = hosts.find(|known| known.name == host::CLIENT);
    let Some(mut second) = first.cloned() else {
        return;
    };
    second.name = SECOND.to_owned();
    for interface in &mut second.interfaces {
        interface.v4 = Some(SECOND_V4);
        interface.v6 = None;
    }
    topology.hosts.push(second);
}
