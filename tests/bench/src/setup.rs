//! From the first packet of a fresh client to the first byte from behind the gateway: intent, portal, path, handshake.

use std::{
    fmt::Write as _,
    net::{IpAddr, TcpStream},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use clap::builder::RangedU64ValueParser;
use demo::interrupt;
use serde::Serialize;

use crate::{
    network::{self, Route},
    progress::Progress,
    stage::Stage,
    statistics::Percentiles,
};

/// The resource's server, which sends a byte as soon as it is connected to.
const PORT: u16 = 7777;
const PATIENCE: Duration = Duration::from_secs(20);

/// Command line of `bench setup`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
The network has no latency here: what is left is the work and the waiting of the programs. Each repetition starts the
client's process anew and waits until it is logged in; then an application connects.

Examples:
  bench setup                       50 repetitions, direct and relayed: about a minute
  bench setup --repetitions 10 --path relayed")]
pub(crate) struct Options {
    /// Repetitions per path.
    #[arg(long, default_value_t = 50, value_parser = RangedU64ValueParser::<u32>::new().range(1..=1000))]
    repetitions: u32,
    /// How client and gateway reach each other.
    #[arg(
        long,
        value_enum,
        value_delimiter = ',',
        default_value = "direct,relayed"
    )]
    path: Vec<Route>,
    /// Print as JSON.
    #[arg(long)]
    json: bool,
}

/// One path.
#[derive(Debug, Clone, Serialize)]
struct Row {
    path: Route,
    repetitions: u32,
    /// First SYN to first byte.
    #[serde(flatten)]
    milliseconds: Percentiles,
    samples: Vec<f64>,
}

/// Measures, prints.
pub(crate) fn run(options: &Options) -> Result<()> {
    let progress = Progress::new();
    let mut rows = Vec::new();
    for &path in &options.path {
        let mut stage = Stage::start(path, false, &progress)?;
        serve(&stage)?;
        let mut samples = Vec::new();
        for repetition in 1..=options.repetitions {
            progress.say(&format!("{path:?}: {repetition}/{}", options.repetitions));
            if repetition > 1 {
                stage.system.restart_client(&stage.network)?;
            }
            samples.push(first_byte(&stage)?);
        }
        stage.system.stop()?;
        rows.push(Row {
            path,
            repetitions: options.repetitions,
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

/// A server in the resource, on a thread that ends with this process.
fn serve(stage: &Stage) -> Result<()> {
    let listener = stage.network.gateway.run(|| {
        let address = (network::SERVER, PORT);
        std::net::TcpListener::bind(address).context("cannot serve in the resource")
    })?;
    thread::spawn(move || {
        for mut visitor in listener.incoming().flatten() {
            let _ = std::io::Write::write_all(&mut visitor, b"!");
        }
    });
    Ok(())
}

/// Milliseconds from the first SYN to the first byte.
fn first_byte(stage: &Stage) -> Result<f64> {
    interrupt::check()?;
    stage.network.client.run(|| {
        let address = (IpAddr::from(network::SERVER), PORT).into();
        let started = Instant::now();
        let mut stream =
            TcpStream::connect_timeout(&address, PATIENCE).context("no connection is made")?;
        stream.set_read_timeout(Some(PATIENCE))?;
        std::io::Read::read_exact(&mut stream, &mut [0]).context("no byte arrives")?;
        Ok(started.elapsed().as_secs_f64() * 1e3)
    })
}

fn table(rows: &[Row]) -> String {
    let mut text = format!(
        "First SYN of a fresh client to the first byte of the resource, in milliseconds.\n\n{:<10} {:>8} {:>8} {:>8} {:>8} {:>12}\n",
        "path", "p50", "p90", "p99", "max", "repetitions"
    );
    for row in rows {
        let Percentiles { p50, p90, p99, max } = row.milliseconds;
        let path = format!("{:?}", row.path).to_lowercase();
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "{path:<10} {p50:>8.1} {p90:>8.1} {p99:>8.1} {max:>8.1} {:>12}",
            row.repetitions
        );
    }
    text
}
