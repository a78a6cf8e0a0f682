//! How long a client is away after it has changed its network: another address behind its NAT, noticed by itself.

use std::{
    fmt::Write as _,
    net::{IpAddr, Ipv4Addr},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use clap::builder::RangedU64ValueParser;
use demo::{
    interrupt,
    probe::ping::{DEFAULT_PAYLOAD, Echo},
    scenario::{Scenario, WEB_V4, host},
    system::System,
};
use serde::Serialize;
use testbed::Host;

use crate::{progress::Progress, statistics::Percentiles};

/// Addresses that the client takes turns with; it starts with neither.
const ADDRESSES: [Ipv4Addr; 2] = [Ipv4Addr::new(192, 168, 1, 3), Ipv4Addr::new(192, 168, 1, 4)];
/// Between one echo request and the next.
const INTERVAL: Duration = Duration::from_millis(10);
/// How long the cable is out.
const UNPLUGGED: Duration = Duration::from_millis(500);
/// Between two changes: connections settle on their final paths.
const SETTLE: Duration = Duration::from_secs(3);
/// A client that is not back by then does not come back.
const PATIENCE: Duration = Duration::from_secs(30);

/// Command line of `bench roam`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
On the demo's network (10 ms to the internet at both edges, NATs), unlike the other benchmarks. The client waits 0.4 s for
the network to calm down before it acts; that is part of the figure.

Examples:
  bench roam                        10 changes, direct and relayed: two minutes")]
pub(crate) struct Options {
    /// Changes of network per scenario.
    #[arg(long, default_value_t = 10, value_parser = RangedU64ValueParser::<u32>::new().range(1..=1000))]
    repetitions: u32,
    /// Networks between client and gateway.
    #[arg(
        long,
        value_enum,
        value_delimiter = ',',
        default_value = "direct,relayed"
    )]
    scenario: Vec<Scenario>,
    /// Print as JSON.
    #[arg(long)]
    json: bool,
}

/// One scenario.
#[derive(Debug, Clone, Serialize)]
struct Row {
    scenario: Scenario,
    /// From the new address to the first answer that comes in on it.
    #[serde(flatten)]
    milliseconds: Percentiles,
    samples: Vec<f64>,
}

/// Measures, prints.
pub(crate) fn run(options: &Options) -> Result<()> {
    let progress = Progress::new();
    let mut rows = Vec::new();
    for &scenario in &options.scenario {
        progress.say(&format!("starting everything ({scenario:?})"));
        let mut system = System::new(scenario)?;
        system.start_all()?;
        let client = system.testbed().host(host::CLIENT)?.clone();
        let _: demo::probe::ping::Pinged = system.probe(&["ping", &WEB_V4.to_string()])?;
        let mut samples = Vec::new();
        for repetition in 0..options.repetitions {
            progress.say(&format!(
                "{scenario:?}: change {}/{}",
                repetition + 1,
                options.repetitions
            ));
            let address = ADDRESSES[repetition as usize % ADDRESSES.len()];
            thread::sleep(SETTLE);
            samples.push(roam(&system, &client, address)?);
        }
        system.stop();
        rows.push(Row {
            scenario,
            milliseconds: Percentiles::of(samples.iter().copied()).unwrap_or_default(),
            samples,
        });
    }
    progress.clear();
    match options.json {
        true => println!("{}", serde_json::to_string_pretty(&rows)?),
        false => print!("{}", table(&rows)),
    }
    Ok(())
}

/// Milliseconds from the new address to the first answer.
fn roam(system: &System, client: &Host, address: Ipv4Addr) -> Result<f64> {
    let echo = client.run(|| Ok(Echo::open(IpAddr::from(WEB_V4), DEFAULT_PAYLOAD)?))?;
    system.testbed().unplug(host::CLIENT)?;
    thread::sleep(UNPLUGGED);
    system.testbed().plug(host::CLIENT, Some(address), None)?;
    let plugged = Instant::now();
    let answered = first_answer(&echo, plugged)?;
    Ok(answered.duration_since(plugged).as_secs_f64() * 1e3)
}

/// Sends at a steady pace until something is answered.
fn first_answer(echo: &Echo, since: Instant) -> Result<Instant> {
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut sequence = 0_u16;
            while !done.load(Ordering::Relaxed) {
                sequence = sequence.wrapping_add(1);
                // Without a route the request is lost like any other.
                let _ = echo.request(sequence);
                thread::sleep(INTERVAL);
            }
        });
        let answer = loop {
            if let Err(error) = interrupt::check() {
                break Err(error);
            }
            if echo.reply(Instant::now() + 10 * INTERVAL).is_some() {
                break Ok(Instant::now());
            }
            if since.elapsed() > PATIENCE {
                break Err(anyhow::anyhow!("not back after {PATIENCE:?}"));
            }
        };
        done.store(true, Ordering::Relaxed);
        answer
    })
    .context("after a change of network")
    .and_then(|at| {
        ensure!(at > since, "an answer from before");
        Ok(at)
    })
}

fn table(rows: &[Row]) -> String {
    let mut text = format!(
        "From a new address to the first answer through the tunnel, in milliseconds.\n\n{:<14} {:>8} {:>8} {:>8} {:>12}\n",
        "network", "p50", "p90", "max", "repetitions"
    );
    for row in rows {
        let Percentiles { p50, p90, max, .. } = row.milliseconds;
        let scenario = format!("{:?}", row.scenario).to_lowercase();
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "{scenario:<14} {p50:>8.0} {p90:>8.0} {max:>8.0} {:>12}",
            row.samples.len()
        );
    }
    text
}
