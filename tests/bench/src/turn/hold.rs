//! `turn hold`: allocations that do nothing, for the memory and the CPU time that they cost.

use std::time::Duration;

use anyhow::{Context, Result};
use clap::builder::RangedU64ValueParser;
use serde::Serialize;

use crate::{
    counters::Counters,
    progress::Progress,
    turn::{flows::Direction, network::Family, options, place::ServerOptions, session::Shape},
};

/// Command line of `bench turn hold`.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    #[command(flatten)]
    pub(crate) server: ServerOptions,
    /// Clients, each with a socket, an allocation and a channel of its own.
    #[arg(long, default_value_t = 1000, value_parser = options::allocations())]
    allocations: usize,
    /// IP versions to clients and peers.
    #[arg(long, value_enum, default_value = "v4")]
    family: Family,
    /// How long they are watched.
    #[arg(long, default_value_t = 10, value_parser = RangedU64ValueParser::<u32>::new().range(1..=options::MAX_SECONDS))]
    seconds: u32,
    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
}

/// What they cost.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
struct Held {
    allocations: usize,
    /// The server's memory without them.
    rss_bytes_before: u64,
    /// And with them; kernel memory of their sockets is not in it.
    rss_bytes: u64,
    rss_bytes_per_allocation: f64,
    /// Of one CPU, while nothing happens.
    cpu_percent: f64,
    wake_ups_per_second: f64,
}

/// Allocates, waits, prints.
pub(crate) fn run(options: &Options) -> Result<()> {
    let progress = Progress::new();
    let place = options.server.prepare(options.family.client())?;
    let process = place
        .process()
        .context("give the server's process by --server-pid")?;
    let before = Counters::read(process)?;
    let shape = Shape {
        family: options.family,
        direction: Direction::ClientToPeer,
        allocations: options.allocations,
    };
    let session = place.establish(shape, &progress)?;
    let established = Counters::read(process)?;
    let time = Duration::from_secs(options.seconds.into());
    progress.wait("holding the allocations", time)?;
    let grown = Counters::read(process)? - established;
    progress.clear();
    session.end()?;
    place.stop()?;

    let held = Held {
        allocations: options.allocations,
        rss_bytes_before: before.rss_bytes,
        rss_bytes: grown.rss_bytes,
        rss_bytes_per_allocation: (grown.rss_bytes as f64 - before.rss_bytes as f64)
            / options.allocations as f64,
        cpu_percent: 100.0 * grown.cpu_seconds / time.as_secs_f64(),
        wake_ups_per_second: grown.sleeps as f64 / time.as_secs_f64(),
    };
    match options.json {
        true => println!("{}", serde_json::to_string_pretty(&held)?),
        false => print(&held),
    }
    Ok(())
}

fn print(held: &Held) {
    println!(
        "{} allocations: {:.0} bytes each ({:.1} MB before, {:.1} MB with them); idle: {:.2} % of a CPU, {:.1} wake-ups/s",
        held.allocations,
        held.rss_bytes_per_allocation,
        held.rss_bytes_before as f64 / 1e6,
        held.rss_bytes as f64 / 1e6,
        held.cpu_percent,
        held.wake_ups_per_second,
    );
}
