//! TCP through client and gateway over a direct path, taking turns with a peer.

use std::{
    io::{IsTerminal as _, Write as _},
    net::Ipv4Addr,
    num::NonZeroU16,
    path::PathBuf,
};

use anyhow::{Context, Result};
use clap::builder::RangedU64ValueParser;
use demo::interrupt;
use serde::Serialize;

use crate::{
    counters::Counters,
    iperf::{self, Direction, Load, Run, Server, Transfer},
    network::{self, Network},
    peer::{self, Peer, PeerTunnel},
    report::{self, Report, Settings},
    system::System,
};

/// Length of the run before the first round, in which connections are made and paths settle.
const WARM_UP_SECONDS: u32 = 2;

/// Command line of `bench throughput`.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Turns of each contender with each load.
    #[arg(long, default_value_t = 5, value_parser = RangedU64ValueParser::<u32>::new().range(1..=1000))]
    rounds: u32,
    /// Length of each turn in seconds.
    #[arg(long, default_value_t = 5, value_parser = RangedU64ValueParser::<u32>::new().range(1..=3600))]
    seconds: u32,
    /// Numbers of parallel TCP streams.
    #[arg(long, value_delimiter = ',', default_value = "1,4")]
    streams: Vec<NonZeroU16>,
    /// Which ways the payload goes.
    #[arg(
        long,
        value_enum,
        value_delimiter = ',',
        default_value = "forward,reverse"
    )]
    direction: Vec<Direction>,
    /// TCP congestion control at both ends, by the kernel's name.
    #[arg(long, default_value = "cubic")]
    congestion: String,
    /// Take turns with this program, and print the ratios.
    #[arg(long, value_enum)]
    peer: Option<Peer>,
    /// The peer's program, or the directory that it was installed to; default: PATH.
    #[arg(long, requires = "peer", value_name = "PATH")]
    peer_path: Option<PathBuf>,
    /// Take turns with the bare cable too, without any tunnel.
    #[arg(long)]
    bare: bool,
    /// Print everything, each turn included, as JSON.
    #[arg(long)]
    json: bool,
    /// Leave the logs of our processes behind.
    #[arg(long)]
    keep_logs: bool,
}

impl Options {
    fn loads(&self) -> impl Iterator<Item = Load> {
        let streams = self.streams.iter().map(|streams| streams.get());
        streams.flat_map(|streams| {
            let directions = self.direction.iter();
            directions.map(move |&direction| Load { streams, direction })
        })
    }
}

/// One turn.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Sample {
    /// Who.
    pub(crate) contender: &'static str,
    /// With what.
    #[serde(flatten)]
    pub(crate) load: Load,
    /// Counted from 1.
    pub(crate) round: u32,
    /// What iperf3 says.
    #[serde(flatten)]
    pub(crate) transfer: Transfer,
    /// What the counters of its processes grew by.
    pub(crate) ends: Option<Ends<Counters>>,
    /// Length of the machine's run queue, averaged over the minute before: other work disturbs.
    pub(crate) load_average: f64,
}

/// The two ends of a tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Ends<T> {
    /// On the client's host.
    pub(crate) client: T,
    /// On the gateway's host.
    pub(crate) gateway: T,
}

/// Somebody who takes turns.
struct Contender {
    name: &'static str,
    /// Where iperf3's server is reached through it.
    address: Ipv4Addr,
    processes: Option<Ends<u32>>,
}

/// Name of our own rows.
pub(crate) const OURS: &str = "firezone";
const BARE: &str = "no tunnel";

/// Builds everything, measures, prints.
pub(crate) fn run(options: &Options) -> Result<()> {
    let iperf = iperf::version()?;
    let program = match options.peer {
        Some(peer) => Some((peer, peer.find(options.peer_path.as_deref())?)),
        None => None,
    };
    let peer_version = match &program {
        Some((_, path)) => Some(Peer::version(path)?),
        None => None,
    };

    let progress = Progress::new();
    progress.say("starting portal, relay, gateway and client");
    let network = Network::build()?;
    let logs = tempfile::Builder::new()
        .prefix("firezone-bench-iperf-")
        .tempdir()?;
    let mut system = System::start(&network)?;
    if options.keep_logs {
        progress.say_for_good(&format!("logs are in {}", system.keep_logs().display()));
    }
    let server = Server::start(&network.gateway, logs.path())?;
    let tunnel = match &program {
        Some((peer, path)) => Some((*peer, PeerTunnel::start(&network, *peer, path)?)),
        None => None,
    };

    let contenders = contenders(
        &system,
        tunnel.as_ref().map(|(peer, t)| (*peer, t)),
        options.bare,
    );
    let mut plan = Plan {
        options,
        network: &network,
        server,
        contenders: &contenders,
        progress: &progress,
    };
    plan.warm_up()?;
    system.wait_for_direct_path()?;
    let samples = plan.measure(&system)?;
    progress.clear();

    drop((plan, tunnel));
    system.stop()?;
    let report = Report::new(settings(options, iperf, peer_version), samples);
    match options.json {
        true => println!("{}", serde_json::to_string_pretty(&report)?),
        false => print!("{}", report::table(&report)),
    }
    Ok(())
}

fn settings(options: &Options, iperf: String, peer_version: Option<String>) -> Settings {
    Settings {
        rounds: options.rounds,
        seconds: options.seconds,
        congestion: options.congestion.clone(),
        peer: options.peer.map(Peer::program),
        peer_version,
        iperf,
        cpus: std::thread::available_parallelism().map_or(0, usize::from),
    }
}

fn contenders(system: &System, tunnel: Option<(Peer, &PeerTunnel)>, bare: bool) -> Vec<Contender> {
    let mut contenders = vec![Contender {
        name: OURS,
        address: network::SERVER,
        processes: Some(Ends {
            client: system.client_id(),
            gateway: system.gateway_id(),
        }),
    }];
    contenders.extend(tunnel.map(|(peer, tunnel)| Contender {
        name: peer.program(),
        address: peer::SERVER,
        processes: Some(Ends {
            client: tunnel.client_id(),
            gateway: tunnel.server_id(),
        }),
    }));
    contenders.extend(bare.then_some(Contender {
        name: BARE,
        address: network::GATEWAY,
        processes: None,
    }));
    contenders
}

/// Who measures what, in which order.
struct Plan<'a> {
    options: &'a Options,
    network: &'a Network,
    server: Server,
    contenders: &'a [Contender],
    progress: &'a Progress,
}

impl Plan<'_> {
    fn warm_up(&mut self) -> Result<()> {
        let load = Load {
            streams: 1,
            direction: Direction::Forward,
        };
        for contender in self.contenders {
            self.progress.say(&format!("warming up {}", contender.name));
            self.transfer(contender, load, WARM_UP_SECONDS)?;
        }
        Ok(())
    }

    /// Each load of each round by one contender after the other (A B A B …), so that drift meets all alike.
    fn measure(&mut self, system: &System) -> Result<Vec<Sample>> {
        let options = self.options;
        let mut samples = Vec::new();
        for round in 1..=options.rounds {
            for load in options.loads() {
                for contender in self.contenders {
                    let sample = self.turn(contender, load, round)?;
                    self.progress.report(&sample, options.rounds);
                    samples.push(sample);
                }
                system.ensure_direct_path()?;
            }
        }
        Ok(samples)
    }

    fn turn(&mut self, contender: &Contender, load: Load, round: u32) -> Result<Sample> {
        let before = contender.counters()?;
        let transfer = self.transfer(contender, load, self.options.seconds)?;
        let ends = contender.counters()?.zip(before).map(|(now, then)| Ends {
            client: now.client - then.client,
            gateway: now.gateway - then.gateway,
        });
        Ok(Sample {
            contender: contender.name,
            load,
            round,
            transfer,
            ends,
            load_average: load_average()?,
        })
    }

    fn transfer(&mut self, contender: &Contender, load: Load, seconds: u32) -> Result<Transfer> {
        interrupt::check()?;
        let run = Run {
            address: contender.address,
            load,
            seconds,
            congestion: &self.options.congestion,
        };
        run.between(&self.network.client, &mut self.server)
            .with_context(|| format!("{} with {}", contender.name, report::describe(load)))
    }
}

impl Contender {
    fn counters(&self) -> Result<Option<Ends<Counters>>> {
        let Some(Ends { client, gateway }) = self.processes else {
            return Ok(None);
        };
        Ok(Some(Ends {
            client: Counters::read(client)?,
            gateway: Counters::read(gateway)?,
        }))
    }
}

fn load_average() -> Result<f64> {
    let text = std::fs::read_to_string("/proc/loadavg")?;
    let first = text
        .split(' ')
        .next()
        .and_then(|number| number.parse().ok());
    first.context("unreadable /proc/loadavg")
}

/// Tells on stderr what is going on: one line that changes at a terminal, a line per turn elsewhere.
struct Progress {
    is_terminal: bool,
}

impl Progress {
    fn new() -> Self {
        Self {
            is_terminal: std::io::stderr().is_terminal(),
        }
    }

    fn say(&self, text: &str) {
        match self.is_terminal {
            true => eprint!("\r\x1b[K{text}"),
            false => eprintln!("{text}"),
        }
        let _ = std::io::stderr().flush();
    }

    fn say_for_good(&self, text: &str) {
        self.clear();
        eprintln!("{text}");
    }

    fn report(&self, sample: &Sample, rounds: u32) {
        let Sample {
            contender,
            load,
            round,
            transfer,
            ..
        } = sample;
        self.say(&format!(
            "round {round}/{rounds}  {:<18}  {contender:<13} {:>6.2} Gbit/s {:>7} retransmits",
            report::describe(*load),
            transfer.bits_per_second / 1e9,
            transfer.retransmits,
        ));
    }

    fn clear(&self) {
        if self.is_terminal {
            eprint!("\r\x1b[K");
        }
    }
}
