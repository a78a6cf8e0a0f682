//! `turn load`: one server, one load.

use anyhow::{Context, Result, ensure};
use clap::ArgGroup;
use serde::Serialize;

use crate::{
    progress::Progress,
    turn::{
        flows::{self, Direction},
        histogram::Quantiles,
        load::{Outcome, Pace},
        network::Family,
        options::{self, SendOptions},
        place::ServerOptions,
        portal::Readiness,
        search,
        session::{Measurement, Session, Shape},
    },
};

/// Loss that a search tolerates, in per cent.
pub(crate) const SEARCH_LOSS: f64 = 0.1;

/// Time between lines of progress where they do not replace each other.
const LINE_SECONDS: u64 = 10;

/// Command line of `bench turn load`.
#[derive(Debug, clap::Args)]
#[command(group(ArgGroup::new("pace").required(true).args(["rate", "mbit", "flood", "search"])))]
pub(crate) struct Options {
    #[command(flatten)]
    pub(crate) server: ServerOptions,

    /// Clients, each with a socket, an allocation and a channel of its own.
    #[arg(long, default_value_t = 1, value_parser = options::allocations())]
    allocations: usize,
    /// Payload bytes per packet.
    #[arg(long, default_value_t = 1280, value_parser = options::payload_bytes())]
    size: usize,
    /// IP versions to clients and peers.
    #[arg(long, value_enum, default_value = "v4")]
    family: Family,
    /// Which way the packets go.
    #[arg(long, value_enum, default_value = "client-to-peer")]
    direction: Direction,

    /// Packets per second, over all allocations.
    #[arg(long, value_name = "PACKETS")]
    rate: Option<u32>,
    /// Mbit of payload per second and allocation.
    #[arg(long)]
    mbit: Option<f64>,
    /// As fast as this machine can.
    #[arg(long)]
    flood: bool,
    /// Look for the highest rate with at most --max-loss; --seconds is the length of each try.
    #[arg(long)]
    search: bool,
    #[command(flatten)]
    send: SendOptions,
    /// Fail if more is lost, in per cent; what --search tolerates (0.1 if not given).
    #[arg(long, value_name = "PERCENT")]
    max_loss: Option<f64>,
    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
}

impl Options {
    fn pace(&self) -> Pace {
        match (self.rate, self.mbit) {
            (Some(rate), _) => Pace::Rate(rate.into()),
            (None, Some(mbit)) => {
                Pace::Rate(mbit * 1e6 / 8.0 / self.size as f64 * self.allocations as f64)
            }
            (None, None) => Pace::Flood,
        }
    }
}

/// What is printed.
#[derive(Debug, Serialize)]
struct Printout {
    #[serde(flatten)]
    measurement: Measurement,
    portal: Option<Readiness>,
}

/// Starts a server if need be, loads it, prints.
pub(crate) fn run(options: &Options) -> Result<()> {
    flows::check(options.direction, options.allocations)?;
    ensure!(
        options.send.quiet.is_none() || options.allocations > 1,
        "--quiet is about one allocation beside others: give --allocations"
    );
    let progress = Progress::new();
    let place = options.server.prepare(options.family.client())?;
    let shape = Shape {
        family: options.family,
        direction: options.direction,
        allocations: options.allocations,
    };
    let mut session = place.establish(shape, &progress)?;
    let measurement = measure(options, &mut session, &progress)?;
    progress.clear();
    session.end()?;
    let report = Printout {
        measurement,
        portal: place.stop()?,
    };
    match options.json {
        true => println!("{}", serde_json::to_string_pretty(&report)?),
        false => print(&report),
    }
    judge(options, &report)
}

fn measure(options: &Options, session: &mut Session, progress: &Progress) -> Result<Measurement> {
    let mut measure = |pace| {
        session.measure(options.send.load(options.size, pace), |elapsed| {
            let (now, all) = (elapsed.as_secs(), options.send.seconds);
            if progress.is_terminal() || now.is_multiple_of(LINE_SECONDS) {
                progress.say(&format!("loading, {now} of {all} s"));
            }
        })
    };
    if !options.search {
        return measure(options.pace());
    }
    let max_loss = options.max_loss.unwrap_or(SEARCH_LOSS);
    let found = search::highest_rate(
        max_loss,
        |m: &Measurement| &m.outcome,
        |pace| {
            let measured = measure(pace)?;
            progress.say_for_good(&format!(
                "{:>9.0} packets/s: {:.3} % lost",
                measured.outcome.offered_pps(),
                measured.outcome.totals.loss_percent()
            ));
            Ok(measured)
        },
    )?;
    if found.is_generator_limit {
        progress.say_for_good("the server passes everything that the generator can send");
    }
    found.best.context("the server passes nothing without loss")
}

/// Turns what the command line does not tolerate into an error.
fn judge(options: &Options, report: &Printout) -> Result<()> {
    if let Some(portal) = report.portal {
        ensure!(
            (portal.failed, portal.rejoined) == (0, 0),
            "the relay did not stay in touch with the portal: {} of {} looks found it not ready, it joined again {} times",
            portal.failed,
            portal.asked,
            portal.rejoined
        );
    }
    if let (Some(max), false) = (options.max_loss, options.search) {
        let loss = report.measurement.outcome.totals.loss_percent();
        ensure!(loss <= max, "{loss:.3} % lost, more than {max} %");
    }
    Ok(())
}

fn print(report: &Printout) {
    let measured = &report.measurement;
    let outcome @ Outcome {
        seconds,
        totals,
        quiet,
        skipped,
        refreshes,
    } = &measured.outcome;
    let pace = match outcome.is_on_pace() {
        true => String::new(),
        false => format!(" (the generator was too slow for {skipped} more)"),
    };
    println!(
        "sent       {:>12.0} packets/s for {seconds:.1} s{pace}",
        outcome.offered_pps()
    );
    println!("delivered  {:>12.0} packets/s", outcome.delivered_pps());
    println!(
        "lost       {:>12.4} % (worst allocation {:.4} %; {} late, {} strange)",
        totals.loss_percent(),
        totals.worst_loss_percent,
        totals.late,
        totals.strange
    );
    print_latency("latency", totals.latency);
    if let Some(quiet) = quiet {
        println!(
            "quiet one  {:>12} sent, {} arrived",
            quiet.sent, quiet.received
        );
        print_latency("  latency", quiet.latency);
    }
    if let Some(refreshes) = refreshes {
        println!(
            "refreshes  {:>12} sent, {} granted, {} refused",
            refreshes.sent, refreshes.granted, refreshes.refused
        );
        print_latency("  answered", refreshes.latency);
    }
    if let Some(portal) = report.portal {
        println!(
            "readiness  {:>12} looks, {} failed, joined again {} times",
            portal.asked, portal.failed, portal.rejoined
        );
        print_latency("  answered", portal.latency);
    }
    print_cost(measured);
}

fn print_latency(what: &str, quantiles: Option<Quantiles>) {
    if let Some(Quantiles {
        p50_us,
        p99_us,
        p999_us,
        max_us,
    }) = quantiles
    {
        println!(
            "{what:<10} {p50_us:>12.0} µs median, {p99_us:.0} µs 99 %, {p999_us:.0} µs 99.9 %, {max_us:.0} µs longest"
        );
    }
}

fn print_cost(measured: &Measurement) {
    println!(
        "overruns   {:>12} datagrams at the generator's sockets",
        measured.generator_drops
    );
    let (Some(cost), Some(per_million), Some(cores)) = (
        measured.server,
        measured.cpu_seconds_per_million(),
        measured.server_cores(),
    ) else {
        return;
    };
    println!(
        "           {:>12} datagrams at the server's sockets, {} packets at its cable",
        cost.udp_drops, cost.cable_drops
    );
    println!("server     {per_million:>12.3} CPU s per million packets, {cores:.2} CPUs");
    println!(
        "           {:>12.3} times asleep per packet, {:.1} MB",
        cost.sleeps as f64 / measured.outcome.totals.received.max(1) as f64,
        cost.rss_bytes as f64 / 1e6
    );
}
