//! Who takes turns, and the turns.

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use anyhow::{Context, Result};
use demo::interrupt;
use serde::Serialize;
use testbed::Host;

use super::Options;
use crate::{
    counters::Counters,
    iperf::{Run, Server},
    load::{Direction, Load, Traffic, Transfer, Version},
    network::{self, Route},
    peer::{self, PeerTunnel},
    progress::Progress,
    quic,
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
    /// Where servers run.
    server: Host,
    /// What is there for each IP version that passes.
    targets: BTreeMap<Version, Target>,
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
                contenders.push(Self::ours(stage, &options.ip)?);
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
                server: host.gateway.clone(),
                targets: targets(&host.gateway, &[peer::SERVER.into()])?,
                on_the_path: ends.clone(),
                all: ends,
            });
        }
        if options.bare {
            contenders.push(Self {
                name: BARE,
                client: host.client.clone(),
                server: host.gateway.clone(),
                targets: targets(&host.gateway, &[network::GATEWAY.into()])?,
                on_the_path: BTreeMap::new(),
                all: BTreeMap::new(),
            });
        }
        Ok(contenders)
    }

    fn ours(stage: &Stage, versions: &[Version]) -> Result<Self> {
        // Warming up is done by IPv4.
        let mut addresses = vec![network::SERVER.into()];
        if versions.contains(&Version::V6) {
            addresses.push(network::SERVER_V6.into());
        }
        Ok(Self {
            name: match stage.route {
                Route::Direct => OURS,
                Route::Relayed => RELAYED,
            },
            client: stage.network.client.clone(),
            server: stage.network.gateway.clone(),
            targets: targets(&stage.network.gateway, &addresses)?,
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

    /// Whether the load's packets pass. The others' tunnels are set up for IPv4 only.
    fn carries(&self, load: Load) -> bool {
        self.targets.contains_key(&load.ip)
    }

    fn transfer(&mut self, load: Load, seconds: u32, congestion: &str) -> Result<Transfer> {
        interrupt::check()?;
        let target = self.targets.get_mut(&load.ip);
        let target = target.context("it has no address of this IP version")?;
        let transfer = match load.traffic {
            Traffic::Quic => {
                let server = (&self.server, target.address);
                let length = Duration::from_secs(seconds.into());
                quic::run(&self.client, server, load.direction, length)
            }
            Traffic::Tcp { .. } | Traffic::Udp { .. } => {
                let run = Run {
                    load,
                    seconds,
                    congestion,
                };
                run.between(&self.client, &mut target.iperf)
            }
        };
        transfer.with_context(|| format!("{} with {}", self.name, load.describe()))
    }

    fn counters(&self) -> Result<BTreeMap<&'static str, Counters>> {
        let read = |(name, id): (&&'static str, &u32)| Ok((*name, Counters::read(*id)?));
        self.on_the_path.iter().map(read).collect()
    }
}

/// Where traffic goes.
struct Target {
    address: IpAddr,
    iperf: Server,
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
            ip: Version::V4,
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
                    if !self.contenders[index].carries(*load) {
                        continue;
                    }
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
            Traffic::Udp { .. } | Traffic::Quic => {
                format!("{:>7.3} % lost", sample.transfer.loss_percent())
            }
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

fn targets(host: &Host, addresses: &[IpAddr]) -> Result<BTreeMap<Version, Target>> {
    let target = |address: &IpAddr| {
        let iperf = Server::start(host, *address)?;
        let address = *address;
        Ok((Version::of(address), Target { address, iperf }))
    };
    addresses.iter().map(target).collect()
}

fn load_average() -> Result<f64> {
    let text = std::fs::read_to_string("/proc/loadavg")?;
    let first = text
        .split(' ')
        .next()
        .and_then(|number| number.parse().ok());
    first.context("unreadable /proc/loadavg")
}
