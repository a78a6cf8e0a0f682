//! iperf3 through client and gateway, taking turns with a peer: TCP as fast as it goes, UDP at fixed rates, each way
//! and both ways at once, over a direct and over a relayed path.
//!
//! | Module | Holds |
//! |---|---|
//! | this one | command line, the order of things |
//! | [`turns`] | who takes turns, and the turns |
//! | [`report`] | medians, ratios, goals |
//! | [`table`] | them for people |

mod report;
mod table;
mod turns;

use std::{num::NonZeroU16, path::PathBuf, time::Duration};

use anyhow::{Context as _, Result};
use clap::builder::RangedU64ValueParser;

use crate::{
    idle, iperf,
    load::{DATAGRAM, Direction, Load, Traffic, Version},
    network::Route,
    peer::{Peer, PeerTunnel},
    progress::Progress,
    stage::Stage,
};
use report::{Report, Settings};
use turns::{Contender, Turns};

/// Command line of `bench throughput`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  bench throughput                                       everything, ours alone: about 9 minutes
  bench throughput --streams 1 --direction forward --udp '' --path direct --rounds 3 --seconds 3
                                                         one figure in 15 seconds
  bench throughput --peer gotatun --peer-path ~/peers    side by side, with ratios of medians
  bench throughput --udp 300,500,800 --streams ''        UDP alone
  bench throughput --udp 10,20 --datagram 64 --streams ''  small packets, as of voice or games
  bench throughput --streams 1 --udp '' --quic --ip v4,v6  TCP and QUIC, by IPv4 and IPv6

How to read it: compare only inside one table, by ratio; differences below 10 % mean nothing.")]
pub(crate) struct Options {
    /// Turns of each contender with each load.
    #[arg(long, default_value_t = 5, value_parser = RangedU64ValueParser::<u32>::new().range(1..=1000))]
    rounds: u32,
    /// Length of each turn in seconds.
    #[arg(long, default_value_t = 5, value_parser = RangedU64ValueParser::<u32>::new().range(1..=3600))]
    seconds: u32,
    /// Numbers of parallel TCP streams; '' for no TCP.
    #[arg(long, value_delimiter = ',', default_value = "1,4", value_parser = optional::<NonZeroU16>)]
    streams: Vec<Option<NonZeroU16>>,
    /// Rates of UDP in Mbit/s; '' for no UDP.
    #[arg(long, value_delimiter = ',', default_value = "500", value_parser = optional::<u32>)]
    udp: Vec<Option<u32>>,
    /// Also traffic as QUIC sends it: trains of 1200-byte datagrams, acknowledged, as fast as it goes.
    #[arg(long)]
    quic: bool,
    /// IP versions of the traffic; other programs' tunnels carry IPv4 only.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "v4")]
    ip: Vec<Version>,
    /// Payload of UDP datagrams in bytes.
    #[arg(long, default_value_t = DATAGRAM, value_parser = RangedU64ValueParser::<u16>::new().range(16..=1232))]
    datagram: u16,
    /// Which ways the payload goes.
    #[arg(
        long,
        value_enum,
        value_delimiter = ',',
        default_value = "forward,reverse,both"
    )]
    direction: Vec<Direction>,
    /// How our client and gateway reach each other; each is a contender.
    #[arg(
        long,
        value_enum,
        value_delimiter = ',',
        default_value = "direct,relayed"
    )]
    path: Vec<Route>,
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
    /// Afterwards, watch for this many seconds whether everything sleeps; 0: do not.
    #[arg(long, default_value_t = 10, value_parser = RangedU64ValueParser::<u32>::new().range(..=3600))]
    idle_seconds: u32,
    /// Write a chart of the rates to this file, as SVG.
    #[arg(long, value_name = "FILE")]
    chart: Option<PathBuf>,
    /// Print everything, each turn included, as JSON.
    #[arg(long)]
    json: bool,
    /// Leave the logs of our processes behind.
    #[arg(long)]
    keep_logs: bool,
}

/// An element of a list that may be left out.
fn optional<T: std::str::FromStr>(text: &str) -> Result<Option<T>, T::Err> {
    match text {
        "" => Ok(None),
        text => text.parse().map(Some),
    }
}

impl Options {
    fn loads(&self) -> Vec<Load> {
        let tcp = self.streams.iter().flatten();
        let tcp = tcp.map(|streams| Traffic::Tcp {
            streams: streams.get(),
        });
        let udp = self.udp.iter().flatten();
        let size = self.datagram;
        let udp = udp.map(|&megabits| Traffic::Udp { megabits, size });
        let quic = self.quic.then_some(Traffic::Quic);
        let traffic = tcp.chain(udp).chain(quic).collect::<Vec<_>>();
        let mut loads = Vec::new();
        for traffic in traffic {
            for &direction in &self.direction {
                loads.extend(self.ip.iter().map(|&ip| Load {
                    traffic,
                    direction,
                    ip,
                }));
            }
        }
        loads
    }

    /// The networks to build: the direct one is where peers and the cable are measured too.
    fn routes(&self) -> Vec<Route> {
        let mut routes = self.path.clone();
        if self.peer.is_some() || self.bare {
            routes.push(Route::Direct);
        }
        routes.sort_unstable();
        routes.dedup();
        routes
    }
}

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
    let loads = options.loads();
    anyhow::ensure!(!loads.is_empty(), "nothing to measure");

    let progress = Progress::new();
    let mut stages = Vec::new();
    for route in options.routes() {
        stages.push(Stage::start(route, options.keep_logs, &progress)?);
    }
    let tunnel = match &program {
        Some((peer, path)) => Some(PeerTunnel::start(&stages[0].network, *peer, path)?),
        None => None,
    };
    let mut contenders = Contender::all(options, &stages, tunnel.as_ref())?;
    let mut turns = Turns {
        options,
        stages: &mut stages,
        contenders: &mut contenders,
        progress: &progress,
    };
    turns.warm_up()?;
    let samples = turns.measure(&loads)?;
    let processes = contenders
        .iter()
        .flat_map(Contender::named_processes)
        .collect::<Vec<_>>();
    let idle = match options.idle_seconds {
        0 => Vec::new(),
        seconds => idle::watch(&processes, Duration::from_secs(seconds.into()), &progress)?,
    };
    progress.clear();

    drop((contenders, tunnel));
    for stage in stages {
        stage.system.stop()?;
    }
    let report = Report::new(settings(options, iperf, peer_version), samples, idle);
    if let Some(file) = &options.chart {
        std::fs::write(file, report.chart().svg())
            .with_context(|| format!("cannot write {}", file.display()))?;
    }
    match options.json {
        true => println!("{}", serde_json::to_string_pretty(&report)?),
        false => print!("{}", table::render(&report)),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        options: Options,
    }

    fn options(arguments: &[&str]) -> Options {
        use clap::Parser as _;
        Line::parse_from(std::iter::once(&"bench").chain(arguments)).options
    }

    #[test]
    fn an_empty_list_leaves_a_protocol_out() {
        let loads = options(&["--streams", "", "--direction", "both"]).loads();
        let expected = Load {
            traffic: Traffic::Udp {
                megabits: 500,
                size: 1200,
            },
            direction: Direction::Both,
            ip: Version::V4,
        };
        assert_eq!(loads, [expected]);
        assert!(options(&["--streams", "", "--udp", ""]).loads().is_empty());
    }

    #[test]
    fn peers_need_the_direct_network() {
        let alone = options(&["--path", "relayed"]);
        assert_eq!(alone.routes(), [Route::Relayed]);
        let beside = options(&["--path", "relayed", "--peer", "gotatun"]);
        assert_eq!(beside.routes(), [Route::Direct, Route::Relayed]);
    }
}
