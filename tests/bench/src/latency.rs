//! Round-trip times through the tunnel, idle and while it carries something else.

use std::{
    fmt::Write as _,
    net::{IpAddr, Ipv4Addr},
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

use anyhow::Result;
use clap::builder::RangedU64ValueParser;
use demo::{
    interrupt,
    probe::ping::{DEFAULT_PAYLOAD, Echo},
};
use serde::Serialize;
use testbed::Host;

use crate::{
    iperf::{Run, Server},
    load::{DATAGRAM, Direction, Load, Traffic, Version},
    network::{self, Route},
    peer::{self, Peer, PeerTunnel},
    progress::Progress,
    stage::Stage,
    statistics::Percentiles,
};

/// Between one echo request and the next, if the answer came before that.
const INTERVAL: Duration = Duration::from_millis(5);
/// An answer that takes longer is lost.
const PATIENCE: Duration = Duration::from_secs(1);
/// The load runs this long before the first echo request, so that its window is open.
const LEAD: Duration = Duration::from_millis(1500);

/// Command line of `bench latency`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
On an idle machine the figures are wake-ups and system calls; under load they are mostly the time that a packet waits
behind super-packets on two busy CPUs, the cable's sender included. `--bare` shows how much of it is not the tunnel's.

Examples:
  bench latency                                        direct and relayed: about a minute
  bench latency --peer gotatun --peer-path ~/peers --bare")]
pub(crate) struct Options {
    /// Echo requests per contender and load.
    #[arg(long, default_value_t = 1000, value_parser = RangedU64ValueParser::<u16>::new().range(10..=60_000))]
    count: u16,
    /// Measure this program too.
    #[arg(long, value_enum)]
    peer: Option<Peer>,
    /// The peer's program, or the directory that it was installed to; default: PATH.
    #[arg(long, requires = "peer", value_name = "PATH")]
    peer_path: Option<PathBuf>,
    /// Measure the bare cable too.
    #[arg(long)]
    bare: bool,
    /// TCP congestion control of the load.
    #[arg(long, default_value = "cubic")]
    congestion: String,
    /// Print as JSON.
    #[arg(long)]
    json: bool,
}

/// What else the tunnel carries meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Beside {
    Nothing,
    Udp,
    Tcp,
}

impl Beside {
    const ALL: [Self; 3] = [Self::Nothing, Self::Udp, Self::Tcp];

    fn load(self) -> Option<Load> {
        let traffic = match self {
            Self::Nothing => return None,
            Self::Udp => Traffic::Udp {
                megabits: 300,
                size: DATAGRAM,
            },
            Self::Tcp => Traffic::Tcp { streams: 1 },
        };
        Some(Load {
            traffic,
            direction: Direction::Forward,
            ip: Version::V4,
        })
    }

    fn describe(self) -> &'static str {
        match self {
            Self::Nothing => "idle",
            Self::Udp => "UDP 300 Mbit/s",
            Self::Tcp => "TCP as fast as it goes",
        }
    }
}

/// One way to the server.
struct Contender {
    name: &'static str,
    client: Host,
    address: Ipv4Addr,
    server: Server,
}

/// Round-trip times in milliseconds.
#[derive(Debug, Clone, Serialize)]
struct Row {
    contender: &'static str,
    beside: Beside,
    sent: u16,
    lost: u16,
    #[serde(flatten)]
    milliseconds: Percentiles,
}

/// Measures, prints.
pub(crate) fn run(options: &Options) -> Result<()> {
    let progress = Progress::new();
    let program = match options.peer {
        Some(peer) => Some((peer, peer.find(options.peer_path.as_deref())?)),
        None => None,
    };
    let stages = [
        Stage::start(Route::Direct, false, &progress)?,
        Stage::start(Route::Relayed, false, &progress)?,
    ];
    let tunnel = match &program {
        Some((peer, path)) => Some(PeerTunnel::start(&stages[0].network, *peer, path)?),
        None => None,
    };
    let mut contenders = contenders(&stages, tunnel.as_ref(), options.bare)?;
    let mut rows = Vec::new();
    for beside in Beside::ALL {
        for contender in &mut contenders {
            progress.say(&format!("{}, {}", contender.name, beside.describe()));
            rows.push(contender.measure(beside, options)?);
        }
    }
    progress.clear();
    drop((contenders, tunnel));
    for stage in stages {
        stage.system.stop()?;
    }
    match options.json {
        true => println!("{}", serde_json::to_string_pretty(&rows)?),
        false => print!("{}", table(&rows)),
    }
    Ok(())
}

fn contenders(
    stages: &[Stage; 2],
    tunnel: Option<&PeerTunnel>,
    bare: bool,
) -> Result<Vec<Contender>> {
    let [direct, relayed] = stages;
    let contender = |name, stage: &Stage, address| {
        Ok::<_, anyhow::Error>(Contender {
            name,
            client: stage.network.client.clone(),
            address,
            server: Server::start(&stage.network.gateway, address.into())?,
        })
    };
    let mut contenders = vec![
        contender("firezone", direct, network::SERVER)?,
        contender("fz relayed", relayed, network::SERVER)?,
    ];
    if let Some(tunnel) = tunnel {
        contenders.push(contender(tunnel.program(), direct, peer::SERVER)?);
    }
    if bare {
        contenders.push(contender("no tunnel", direct, network::GATEWAY)?);
    }
    Ok(contenders)
}

impl Contender {
    fn measure(&mut self, beside: Beside, options: &Options) -> Result<Row> {
        // Makes the connection, the first time.
        self.ping(10)?;
        let (client, server) = (self.client.clone(), &mut self.server);
        let slack = Duration::from_secs(2);
        let length = LEAD + INTERVAL * u32::from(options.count) + slack;
        let times = thread::scope(|scope| {
            let load = beside.load().map(|load| {
                let client = &client;
                scope.spawn(move || {
                    let run = Run {
                        load,
                        seconds: length.as_secs() as u32,
                        congestion: &options.congestion,
                    };
                    run.between(client, server)
                })
            });
            if load.is_some() {
                thread::sleep(LEAD);
            }
            let times = ping(&self.client, self.address, options.count);
            if let Some(load) = load {
                load.join()
                    .map_err(|_| anyhow::anyhow!("the load panicked"))??;
            }
            times
        })?;
        Ok(Row {
            contender: self.name,
            beside,
            sent: options.count,
            lost: options.count - u16::try_from(times.len()).unwrap_or(u16::MAX),
            milliseconds: Percentiles::of(times).unwrap_or_default(),
        })
    }

    fn ping(&self, count: u16) -> Result<Vec<f64>> {
        ping(&self.client, self.address, count)
    }
}

/// Times of the answers that came.
fn ping(client: &Host, address: Ipv4Addr, count: u16) -> Result<Vec<f64>> {
    client.run(|| {
        let echo = Echo::open(IpAddr::from(address), DEFAULT_PAYLOAD)?;
        let mut times = Vec::new();
        for sequence in 1..=count {
            interrupt::check()?;
            let started = Instant::now();
            if echo.request(sequence).is_err() {
                continue;
            }
            while let Some(answered) = echo.reply(started + PATIENCE) {
                if answered == sequence {
                    times.push(started.elapsed().as_secs_f64() * 1e3);
                    break;
                }
            }
            thread::sleep(INTERVAL.saturating_sub(started.elapsed()));
        }
        Ok(times)
    })
}

fn table(rows: &[Row]) -> String {
    let mut text = format!(
        "Echo round trips in milliseconds, forward load of one iperf3 beside them.\n\n{:<24} {:<13} {:>8} {:>8} {:>8} {:>8} {:>6}\n",
        "beside", "through", "p50", "p90", "p99", "max", "lost"
    );
    for row in rows {
        let Percentiles { p50, p90, p99, max } = row.milliseconds;
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "{:<24} {:<13} {p50:>8.3} {p90:>8.3} {p99:>8.3} {max:>8.3} {:>6}",
            row.beside.describe(),
            row.contender,
            row.lost
        );
    }
    text
}
