//! A client that changes its network in the middle of a download.

use std::{
    io::Read as _,
    net::Ipv4Addr,
    process::Stdio,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use demo::{
    content,
    probe::fetch::Fetched,
    scenario::{APP_NAME, Scenario, WEB_V4, host},
    system::System,
};
use e2e::{case::Case, logs::Expected, traffic::Traffic};
use testbed::Topology;

use crate::support::{client_host, page, wait};

/// Size of the download.
const BYTES: u64 = 10 << 20;
/// Slow enough that the download is in the middle when the client moves: at least 10 s.
const RATE: u64 = 8_000_000;
const BEFORE_MOVE: Duration = Duration::from_secs(3);
const UNPLUGGED: Duration = Duration::from_secs(3);
/// Another address behind the same NAT.
const ELSEWHERE: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 77);
/// From the new address to the first answer. The product's own limit is 2 s; the rest is for a busy machine.
const BACK_WITHIN: Duration = Duration::from_secs(5);

pub(crate) const CASES: &[Case] = &[
    Case {
        extend: slow_client,
        expected: NETWORK_CHANGED,
        ..Case::new("download_roaming", Scenario::Direct, download)
    },
    Case {
        extend: slow_client,
        expected: NETWORK_CHANGED,
        ..Case::new("download_roaming_relayed", Scenario::Relayed, download)
    },
];

const NETWORK_CHANGED: &[Expected] = &[Expected {
    process: host::CLIENT,
    text: "The network changed",
    why: "it does",
}];

fn slow_client(topology: &mut Topology) {
    let interfaces = topology
        .hosts
        .iter_mut()
        .filter(|known| known.name == host::CLIENT)
        .flat_map(|client| &mut client.interfaces);
    for interface in interfaces {
        interface.link.rate = Some(RATE);
    }
}

fn download(system: &mut System) -> Result<()> {
    system.start_all()?;
    page(system, APP_NAME)?;
    let mut child = system
        .role_command(host::CLIENT, "probe")?
        .args(["fetch", APP_NAME, &format!("/file?bytes={BYTES}")])
        .args(["--timeout", "90"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut output = child.stdout.take().context("a probe without output")?;
    wait(BEFORE_MOVE)?;
    ensure!(child.try_wait()?.is_none(), "the download is too fast");

    system.testbed().unplug(host::CLIENT)?;
    wait(UNPLUGGED)?;
    system.testbed().plug(host::CLIENT, Some(ELSEWHERE), None)?;
    let plugged = Instant::now();
    let traffic = Traffic::start(&client_host(system)?, WEB_V4.into())?;
    traffic
        .wait_for_answer(plugged, BACK_WITHIN)
        .context("at the new address")?;

    let mut text = String::new();
    output.read_to_string(&mut text)?;
    ensure!(child.wait()?.success(), "the download did not survive");
    let fetched: Fetched = serde_json::from_str(&text).context("unreadable result of the probe")?;
    ensure!(
        fetched.sha256 == content::checksum(BYTES),
        "wrong checksum after {} bytes",
        fetched.bytes
    );
    Ok(())
}
