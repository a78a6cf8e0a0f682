//! Who takes turns, and the turns.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use demo::interrupt;
use serde::Serialize;
use testbed::Host;

use super::Options;
use crate::{
    counters::Counters,
    iperf::{Direction, Load, Run, Server, Traffic, Transfer},
    network::{self, Route},
    peer::{self, PeerTunnel},
    progress::Progress,
    stage::Stage,
};

/// Length of the run before the first round, in which connections are made and paths settle.
const WARM_UP_SECONDS: u32 = 2;

/// Name of our own rows, direct.
pub(crate) const OURS: &str = "firezone";
/// Name of our own rows, through the relay.
pub(crate) const RELAYED: &str = "fz relayed";
const BARE: &str = "no tunnel";

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
    /// What the counters of its processes grew by, by name.
    pub(crate) processes: BTreeMap<&'static str, Counters>,
    /// Length of the machine's run queue, averaged over the minute before: other work disturbs.
    pub(crate) load_average: f64,
}

/// Somebody who takes turns.
pub(crate) struct Contender {
    name: &'static str,
    /// Where iperf3's client runs.
    client: Host,
    server: Server,
    /// Processes that packets meet.
    on_the_path: BTreeMap<&'static str, u32>,
    /// All processes of its own.
    all: BTreeMap<&'static str, u32>,
}

impl Contender {
    /// Ours over each path, then the others over the direct one.
    pub(crate) fn all(
        options: &Options,
        stages: &[Stage],
        tunnel: Option<&PeerTunnel>,
    ) -> Result<Vec<Self>> {
        let mut contenders = Vec::new();
        for stage in stages {
            if options.path.contains(&stage.route) {
                contenders.push(Self::ours(stage)?);
            }
        }
        let host = &stages[0].network;
        if let Some(tunnel) = tunnel {
            let ends = BTreeMap::from([
                ("client", tunnel.client_id()),
                ("server", tunnel.server_id()),
            ]);
            contenders.push(Self {
                name: tunnel.program(),
                client: host.client.clone(),
                server: Server::start(&host.gateway, peer::SERVER)?,
                on_the_path: ends.clone(),
                all: ends,
            });
        }
        if options.bare {
            contenders.push(Self {
                name: BARE,
                client: host.client.clone(),
                server: Server::start(&host.gateway, network::GATEWAY)?,
                on_the_path: BTreeMap::new(),
                all: BTreeMap::new(),
            });
        }
        Ok(contenders)
    }

    fn ours(stage: &Stage) -> Result<Self> {
        Ok(Self {
            name: match stage.route {
                Route::Direct => OURS,
                Route::Relayed => RELAYED,
            },
            client: stage.network.client.clone(),
            server: Server::start(&stage.network.gateway, network::SERVER)?,
            on_the_path: stage.system.on_the_path(),
            all: stage.system.all(),
        })
    }

    /// All of its processes, with names that tell whose they are.
    pub(crate) fn named_processes(&self) -> impl Iterator<Item = (String, u32)> {
        let name = self.name;
        self.all
            .iter()
            .map(move |(process, id)| (format!("{name} {process}"), *id))
    }

    fn turn(&mut self, load: Load, round: u32, options: &Options) -> Result<Sample> {
        let before = self.counters()?;
        let transfer = self.transfer(load, options.seconds, &options.congestion)?;
        let after = self.counters()?.into_iter();
        let grown = after.map(|(name, now)| (name, now - before[name]));
        Ok(Sample {
            contender: self.name,
            load,
            round,
            transfer,
            processes: grown.collect(),
            load_average: load_average()?,
        })
    }

    fn transfer(&mut self, load: Load, seconds: u32, congestion: &str) -> Result<Transfer> {
        interrupt::check()?;
        let run = Run {
            load,
            seconds,
            congestion,
        };
        run.between(&self.client, &mut self.server)
            .with_context(|| format!("{} with {}", self.name, load.describe()))
    }

    fn counters(&self) -> Result<BTreeMap<&'static str, Counters>> {
        let read = |(name, id): (&&'static str, &u32)| Ok((*name, Counters::read(*id)?));
        self.on_the_path.iter().map(read).collect()
    }
}

/// Who measures what, in which order.
pub(crate) struct Turns<'a> {
    pub(crate) options: &'a Options,
    pub(crate) stages: &'a mut [Stage],
    pub(crate) contenders: &'a mut [Contender],
    pub(crate) progress: &'a Progress,
}

impl Turns<'_> {
    /// Makes connections and waits for their final paths.
    pub(crate) fn warm_up(&mut self) -> Result<()> {
        let load = Load {
            traffic: Traffic::Tcp { streams: 1 },
            direction: Direction::Forward,
        };
        for contender in &mut *self.contenders {
            self.progress.say(&format!("warming up {}", contender.name));
            contender.transfer(load, WARM_UP_SECONDS, &self.options.congestion)?;
        }
        for stage in &mut *self.stages {
            if self.options.path.contains(&stage.route) {
                stage.system.wait_for_path()?;
            }
        }
        Ok(())
    }

    /// Each load of each round by one contender after the other (A B A B …), so that drift meets all alike.
    pub(crate) fn measure(&mut self, loads: &[Load]) -> Result<Vec<Sample>> {
        let mut samples = Vec::new();
        for round in 1..=self.options.rounds {
            for load in loads {
                for index in 0..self.contenders.len() {
                    let sample = self.contenders[index].turn(*load, round, self.options)?;
                    self.report(&sample);
                    samples.push(sample);
                }
                for stage in &*self.stages {
                    if self.options.path.contains(&stage.route) {
                        stage.system.ensure_path()?;
                    }
                }
            }
        }
        Ok(samples)
    }

    fn report(&self, sample: &Sample) {
        let Transfer {
            bits_per_second,
            retransmits,
            ..
        } = sample.transfer;
        let losses = match sample.load.traffic {
            Traffic::Tcp { .. } => format!("{retransmits:>7} retransmits"),
            Traffic::Udp { .. } => format!("{:>7.3} % lost", sample.transfer.loss_percent()),
        };
        self.progress.say(&format!(
            "round {}/{}  {:<24}  {:<13} {:>6.2} Gbit/s {losses}",
            sample.round,
            self.options.rounds,
            sample.load.describe(),
            sample.contender,
            bits_per_second / 1e9,
        ));
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
