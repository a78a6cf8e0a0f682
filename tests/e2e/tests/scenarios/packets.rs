//! Packets of the largest size, and names that are nobody's resource.

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use anyhow::{Context, Result, ensure};
use demo::{
    probe::resolve::Resolved,
    scenario::{APP_NAME, Scenario, WEB_V4, WEB_V6},
    system::System,
};
use e2e::{
    case::Case,
    resolver::{self, Transport},
    role,
};
use testbed::{HostSpec, InterfaceSpec, LinkSpec, RouteSpec, Topology};

use crate::support::{client_host, eventually, ping_all, read_file};

/// Largest packet of the tunnel.
const MTU: usize = 1280;
const IPV4_HEADER: usize = 20;
const IPV6_HEADER: usize = 40;
const ICMP_HEADER: usize = 8;

const PUBLIC_NAME: &str = "www.public.example";

pub(crate) const CASES: &[Case] = &[
    Case::new("ping_of_the_largest_size", Scenario::Direct, largest),
    Case::new(
        "ping_of_the_largest_size_relayed",
        Scenario::Relayed,
        largest,
    ),
    Case {
        extend: with_resolver,
        ..Case::new(
            "other_names_go_to_the_hosts_resolver",
            Scenario::Direct,
            other_names,
        )
    },
];

/// Adds a name server to the public internet.
pub(crate) fn with_resolver(topology: &mut Topology) {
    topology.hosts.push(HostSpec {
        name: "resolver".to_owned(),
        interfaces: vec![InterfaceSpec {
            device: "eth0".to_owned(),
            network: "internet".to_owned(),
            v4: Some(resolver::ADDRESS),
            routes: vec![RouteSpec::default_v4()],
            link: LinkSpec {
                latency: Duration::from_millis(1),
                ..LinkSpec::default()
            },
            ..InterfaceSpec::default()
        }],
        etc: BTreeMap::new(),
        forwarding: false,
    });
}

fn largest(system: &mut System) -> Result<()> {
    system.start_all()?;
    let found: Resolved = system.probe(&["resolve", APP_NAME])?;
    let family = |v4: bool| found.addresses.iter().find(|a| a.is_ipv4() == v4).copied();
    let targets = [
        Some(IpAddr::V4(WEB_V4)),
        Some(IpAddr::V6(WEB_V6)),
        family(true),
        family(false),
    ];
    for target in targets {
        let target = target.context("one family is missing")?;
        let header = if target.is_ipv4() {
            IPV4_HEADER
        } else {
            IPV6_HEADER
        };
        let payload = MTU - header - ICMP_HEADER;
        eventually("the way is open", Duration::from_secs(10), || {
            ping_all(system, target, 1, 0)
        })?;
        // The answer is as large as the request.
        ping_all(system, target, 5, payload).with_context(|| format!("{target}"))?;
    }
    Ok(())
}

fn other_names(system: &mut System) -> Result<()> {
    let address = resolver::ADDRESS.to_string();
    system.start_role("resolver", role::RESOLVER, &[&address], "listening")?;
    system.start_all()?;
    let client = client_host(system)?;
    let resolv_conf = read_file(&client, "/etc/resolv.conf")?;
    let servers = resolv_conf.lines().filter_map(|line| {
        let server = line.strip_prefix("nameserver ")?;
        server.trim().parse::<IpAddr>().ok()
    });
    let servers = servers.collect::<Vec<_>>();
    ensure!(!servers.is_empty(), "no server in {resolv_conf}");
    ensure!(
        !servers.contains(&resolver::ADDRESS.into()),
        "DNS control is not active"
    );

    for server in servers {
        for transport in [Transport::Udp, Transport::Tcp] {
            let ask = |name: &str| client.run(|| resolver::ask(server, name, transport));
            let found = ask(PUBLIC_NAME).with_context(|| format!("{transport:?} to {server}"))?;
            ensure!(found == [resolver::ANSWER], "{transport:?}: {found:?}");
            let missing = ask(&format!("host.{}", resolver::MISSING));
            let error = missing.err().context("a name that does not exist")?;
            ensure!(
                error.to_string() == "no such name",
                "{transport:?}: {error:#}"
            );
            let ours = ask(APP_NAME).with_context(|| format!("{transport:?} to {server}"))?;
            ensure!(
                !ours.is_empty() && ours.iter().all(|address| address.octets()[0] == 100),
                "{transport:?}: {ours:?}"
            );
        }
    }
    let found: Resolved = system.probe(&["resolve", PUBLIC_NAME])?;
    ensure!(
        found.addresses == [IpAddr::V4(resolver::ANSWER)],
        "{found:?}"
    );
    let log = system.process("resolver")?.output();
    ensure!(
        log.contains("over UDP") && log.contains("over TCP"),
        "{log}"
    );
    Ok(())
}
