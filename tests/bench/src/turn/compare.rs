//! `turn compare`: our relay and coturn take turns with the same loads in the same namespaces.

use std::{path::PathBuf, time::Duration};

use anyhow::{Context, Result};
use clap::{ValueEnum, builder::RangedU64ValueParser};
use demo::interrupt;
use serde::Serialize;

use crate::{
    progress::Progress,
    turn::{
        command::SEARCH_LOSS,
        flows::{self, Direction},
        load::{Load, Pace, Sending},
        network::{Family, Network},
        options,
        report::{self, Report, Settings},
        search,
        server::{self, Program, Server},
        session::{Measurement, Session, Shape},
    },
};

/// A load before each measurement, in which neighbours are resolved, buffers grow and caches warm up.
const WARM_UP: Duration = Duration::from_millis(200);
/// Its rate in packets per second: well below what anybody can.
const WARM_UP_RATE: f64 = 20_000.0;

/// Command line of `bench turn compare`.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// What to find out.
    #[arg(
        long,
        value_enum,
        value_delimiter = ',',
        default_value = "cost,capacity,bulk"
    )]
    question: Vec<Question>,
    /// Turns of each server with each load.
    #[arg(long, default_value_t = 5, value_parser = RangedU64ValueParser::<u32>::new().range(1..=100))]
    rounds: u32,
    /// Length of each load, and of each try of a search, in seconds.
    #[arg(long, default_value_t = 1, value_parser = RangedU64ValueParser::<u32>::new().range(1..=60))]
    seconds: u32,
    /// Payload bytes per packet.
    #[arg(long, value_delimiter = ',', default_value = "64,1280", value_parser = options::payload_bytes())]
    size: Vec<usize>,
    /// IP versions to clients and peers.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "v4,v6")]
    family: Vec<Family>,
    /// Clients, each with a socket, an allocation and a channel of its own.
    #[arg(long, value_delimiter = ',', default_value = "1,200", value_parser = options::allocations())]
    allocations: Vec<usize>,
    /// Which way the packets go.
    #[arg(
        long,
        value_enum,
        value_delimiter = ',',
        default_value = "client-to-peer"
    )]
    direction: Vec<Direction>,
    /// Packets per second of the question of cost.
    #[arg(long, default_value_t = 100_000, value_parser = RangedU64ValueParser::<u32>::new().range(1..=10_000_000))]
    rate: u32,
    /// With a rate, packets leave in bursts this many microseconds apart.
    #[arg(long, default_value_t = 1000, value_name = "MICROSECONDS", value_parser = RangedU64ValueParser::<u32>::new().range(1..=100_000))]
    tick: u32,
    /// Another build of firezone-relay that takes turns too.
    #[arg(long, value_name = "PROGRAM")]
    baseline: Option<PathBuf>,
    /// Leave coturn out.
    #[arg(long, requires = "baseline")]
    no_coturn: bool,
    /// Do not give generator and server a CPU of their own each.
    #[arg(long)]
    no_pin: bool,
    /// Print everything, each turn included, as JSON.
    #[arg(long)]
    json: bool,
}

/// What can be found out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Question {
    /// CPU time per packet at a fixed rate of separate packets.
    Cost,
    /// The highest rate of separate packets with less than 0.1 % loss.
    Capacity,
    /// What arrives when a sender with segmentation offload sends as fast as it can.
    Bulk,
    /// The highest rate with less than 0.1 % loss when the sender uses segmentation offload.
    BulkCapacity,
}

/// A load to be compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) struct Case {
    /// Why.
    pub(crate) question: Question,
    /// Payload bytes per packet.
    pub(crate) size: usize,
    /// IP versions.
    pub(crate) family: Family,
    /// Which way.
    pub(crate) direction: Direction,
    /// How many clients.
    pub(crate) allocations: usize,
}

/// One turn.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Sample {
    /// Who.
    pub(crate) server: &'static str,
    /// With what.
    #[serde(flatten)]
    pub(crate) case: Case,
    /// Counted from 1.
    pub(crate) round: u32,
    /// The answer.
    #[serde(flatten)]
    pub(crate) measurement: Measurement,
    /// Whether the server could do more than the generator.
    pub(crate) is_generator_limit: bool,
}

/// Takes turns, prints.
pub(crate) fn run(options: &Options) -> Result<()> {
    for (direction, allocations) in options
        .direction
        .iter()
        .flat_map(|d| options.allocations.iter().map(move |a| (*d, *a)))
    {
        flows::check(direction, allocations)?;
    }
    let programs = options.programs();
    let versions = programs
        .iter()
        .filter_map(|program| program.version().transpose())
        .collect::<Result<Vec<_>>>()?;
    let [own_cpu, server_cpu] = server::cpus(options.no_pin)?;
    own_cpu.map(server::pin_here).transpose()?;
    let plan = Plan {
        options,
        network: Network::build()?,
        programs,
        server_cpu,
        progress: Progress::new(),
    };
    let samples = plan.measure()?;
    plan.progress.clear();
    let report = Report::new(
        Settings {
            rounds: options.rounds,
            seconds: options.seconds,
            rate: options.rate,
            tick_us: options.tick,
            is_pinned: server_cpu.is_some(),
            versions,
        },
        samples,
    );
    match options.json {
        true => println!("{}", serde_json::to_string_pretty(&report)?),
        false => print!("{}", report::table(&report)),
    }
    Ok(())
}

impl Options {
    fn programs(&self) -> Vec<Program> {
        let baseline = self.baseline.clone().map(Program::OursAt);
        let coturn = (!self.no_coturn).then_some(Program::Coturn);
        [Some(Program::Ours), baseline, coturn]
            .into_iter()
            .flatten()
            .collect()
    }

    fn cases(&self) -> Vec<Case> {
        let mut cases = Vec::new();
        for &question in &self.question {
            for &direction in &self.direction {
                for &size in &self.size {
                    for &family in &self.family {
                        for &allocations in &self.allocations {
                            cases.push(Case {
                                question,
                                size,
                                family,
                                direction,
                                allocations,
                            });
                        }
                    }
                }
            }
        }
        cases
    }

    fn load(&self, case: Case, pace: Pace) -> Load {
        Load {
            payload_bytes: case.size,
            time: Duration::from_secs(self.seconds.into()),
            pace,
            sending: match case.question {
                Question::Cost | Question::Capacity => Sending::Separately,
                Question::Bulk | Question::BulkCapacity => Sending::Trains,
            },
            tick: Duration::from_micros(self.tick.into()),
            refresh: None,
            quiet: None,
        }
    }
}

/// Who measures what, in which order.
struct Plan<'a> {
    options: &'a Options,
    network: Network,
    programs: Vec<Program>,
    server_cpu: Option<usize>,
    progress: Progress,
}

impl Plan<'_> {
    /// Each load of each round by one server after the other (A B A B …), so that drift meets all alike.
    fn measure(&self) -> Result<Vec<Sample>> {
        let mut samples = Vec::new();
        for round in 1..=self.options.rounds {
            for case in self.options.cases() {
                for program in &self.programs {
                    let name = program.name();
                    self.progress.say(&format!(
                        "round {round}/{}  {}  {name}",
                        self.options.rounds,
                        report::describe(case)
                    ));
                    let sample = self
                        .turn(program, case, round)
                        .with_context(|| format!("{name} with {}", report::describe(case)))?;
                    samples.push(sample);
                }
            }
        }
        Ok(samples)
    }

    /// Every turn has a new process: nothing is left over from the turn before, and nobody else's idles beside it.
    fn turn(&self, program: &Program, case: Case, round: u32) -> Result<Sample> {
        let server = Server::start(&self.network, program, self.server_cpu)?;
        let shape = Shape {
            family: case.family,
            direction: case.direction,
            allocations: case.allocations,
        };
        let mut session = Session::establish(
            Some(&self.network.generator),
            &server::target(),
            Some(server.id()),
            shape,
            |_| interrupt::check(),
        )?;
        let warm_up = Load {
            time: WARM_UP,
            ..self.options.load(case, Pace::Rate(WARM_UP_RATE))
        };
        session.measure(warm_up, |_| {})?;
        let mut measure = |pace| session.measure(self.options.load(case, pace), |_| {});
        let (measurement, is_generator_limit) = match case.question {
            Question::Cost => (measure(Pace::Rate(self.options.rate.into()))?, false),
            Question::Bulk => (measure(Pace::Flood)?, false),
            Question::Capacity | Question::BulkCapacity => {
                let found =
                    search::highest_rate(SEARCH_LOSS, |m: &Measurement| &m.outcome, measure)?;
                let best = found
                    .best
                    .context("no rate was found that it passes without loss")?;
                (best, found.is_generator_limit)
            }
        };
        server.stop()?;
        Ok(Sample {
            server: program.name(),
            case,
            round,
            measurement,
            is_generator_limit,
        })
    }
}
