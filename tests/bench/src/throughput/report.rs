//! The figures of one run: medians per load and contender, ratios, and what was promised.

use std::collections::BTreeMap;

use serde::Serialize;

use super::turns::{OURS, RELAYED, Sample};
use crate::{
    chart::{Chart, Group},
    counters::Counters,
    idle::Idle,
    load::{DATAGRAM, Load, Traffic, Version},
    statistics::Spread,
};

/// Our relayed rate by our direct one.
const RELAYED_SHARE: f64 = 0.85;
/// What is as fast as something else is no slower than what a shared machine can tell apart.
const AS_FAST: f64 = 0.9;
/// Of UDP datagrams, in per cent, up to [`UDP_GOAL_MEGABITS`].
const UDP_LOSS_PERCENT: f64 = 0.1;
const UDP_GOAL_MEGABITS: u32 = 500;
/// Of an idle client or gateway with one connection.
const IDLE_WAKE_UPS_PER_SECOND: f64 = 1.0;
const IDLE_CPU_PERCENT: f64 = 0.1;

/// How it was measured.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Settings {
    /// Turns per load and contender.
    pub(crate) rounds: u32,
    /// Length of a turn.
    pub(crate) seconds: u32,
    /// TCP congestion control.
    pub(crate) congestion: String,
    /// The program that we took turns with.
    pub(crate) peer: Option<&'static str>,
    /// That program's version, in its own words.
    pub(crate) peer_version: Option<String>,
    /// iperf3's version.
    pub(crate) iperf: String,
    /// CPUs of the machine.
    pub(crate) cpus: usize,
}

/// Everything that a run came to.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    /// How it was measured.
    pub(crate) settings: Settings,
    /// Medians, in the order of measurement.
    pub(crate) rows: Vec<Row>,
    /// Medians of one contender by those of another.
    pub(crate) ratios: Vec<Ratio>,
    /// Processes with nothing to do, after the last turn.
    pub(crate) idle: Vec<Idle>,
    /// What the product promises, as far as this run can tell.
    pub(crate) goals: Vec<Goal>,
    /// Every turn.
    pub(crate) samples: Vec<Sample>,
}

/// One contender with one load.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Row {
    /// Who.
    pub(crate) contender: &'static str,
    /// With what.
    #[serde(flatten)]
    pub(crate) load: Load,
    /// Payload that arrived, both directions together.
    pub(crate) gbit_per_second: Spread,
    /// Payload that arrived in the slower direction, median.
    pub(crate) slower_gbit_per_second: f64,
    /// TCP segments sent again per turn.
    pub(crate) retransmits: Spread,
    /// UDP datagrams lost, in per cent.
    pub(crate) loss_percent: Spread,
    /// Of the processes on the path; none without a tunnel.
    pub(crate) cost: Option<Cost>,
}

/// What the processes on the path spent and lost.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Cost {
    /// CPU seconds of all together per Gbit of payload.
    pub(crate) cpu_seconds_per_gbit: Spread,
    /// Of each, medians.
    pub(crate) cpu_by_process: BTreeMap<&'static str, f64>,
    /// Context switches of all together per Gbit, median.
    pub(crate) switches_per_gbit: f64,
    /// Memory of each at the end of a turn, highest.
    pub(crate) rss_bytes: BTreeMap<&'static str, u64>,
    /// Datagrams lost at their UDP sockets, all turns.
    pub(crate) udp_drops: u64,
    /// Packets lost at their TUN devices, all turns.
    pub(crate) tun_drops: u64,
    /// Packets lost at the cables between them, all turns.
    pub(crate) cable_drops: u64,
}

/// One median by another.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Ratio {
    /// With what.
    #[serde(flatten)]
    pub(crate) load: Load,
    /// Whose.
    pub(crate) of: &'static str,
    /// By whose.
    pub(crate) to: &'static str,
    /// More is better.
    pub(crate) rate: f64,
    /// CPU per Gbit; less is better.
    pub(crate) cpu: f64,
}

/// Something promised.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Goal {
    /// In words, with the limit.
    pub(crate) what: String,
    /// The worst figure of this run.
    pub(crate) measured: f64,
    /// Whether it holds.
    pub(crate) met: bool,
}

impl Report {
    pub(crate) fn new(settings: Settings, samples: Vec<Sample>, idle: Vec<Idle>) -> Self {
        let mut keys = Vec::new();
        for sample in &samples {
            let key = (sample.load, sample.contender);
            if !keys.contains(&key) {
                keys.push(key);
            }
        }
        let rows = keys
            .into_iter()
            .filter_map(|(load, contender)| {
                let turns = samples
                    .iter()
                    .filter(|s| (s.load, s.contender) == (load, contender));
                row(contender, load, &turns.collect::<Vec<_>>())
            })
            .collect::<Vec<_>>();
        let mut ratios = ratios(&rows, RELAYED, OURS);
        ratios.extend(
            settings
                .peer
                .iter()
                .flat_map(|peer| self::ratios(&rows, OURS, peer)),
        );
        let goals = goals(&rows, &ratios, &idle);
        Self {
            settings,
            rows,
            ratios,
            idle,
            goals,
            samples,
        }
    }

    /// Rates, a group of bars per load.
    pub(crate) fn chart(&self) -> Chart {
        let mut groups = Vec::<Group>::new();
        for row in &self.rows {
            let label = row.load.describe();
            let bar = (row.contender.to_owned(), row.gbit_per_second);
            match groups.iter_mut().find(|group| group.label == label) {
                Some(group) => group.bars.push(bar),
                None => groups.push(Group {
                    label,
                    bars: vec![bar],
                }),
            }
        }
        Chart {
            title: format!(
                "Payload through the tunnel: medians of {} turns of {} s, {} CPUs",
                self.settings.rounds, self.settings.seconds, self.settings.cpus
            ),
            unit: "Gbit/s",
            groups,
        }
    }
}

fn row(contender: &'static str, load: Load, turns: &[&Sample]) -> Option<Row> {
    Some(Row {
        contender,
        load,
        gbit_per_second: spread(turns, |s| s.transfer.bits_per_second / 1e9)?,
        slower_gbit_per_second: spread(turns, |s| s.transfer.slower_bits_per_second / 1e9)?.median,
        retransmits: spread(turns, |s| s.transfer.retransmits as f64)?,
        loss_percent: spread(turns, |s| s.transfer.loss_percent())?,
        cost: cost(turns),
    })
}

fn cost(turns: &[&Sample]) -> Option<Cost> {
    let names = turns.first()?.processes.keys().copied();
    let names = names.collect::<Vec<_>>();
    if names.is_empty() {
        return None;
    }
    let per_gbit = |value: &dyn Fn(&Sample) -> f64| {
        spread(turns, |s| value(s) / (s.transfer.bytes as f64 * 8.0 / 1e9))
    };
    let all = |sample: &Sample, pick: fn(&Counters) -> f64| {
        sample.processes.values().map(pick).sum::<f64>()
    };
    let total = |pick: fn(&Counters) -> u64| {
        let counters = turns.iter().flat_map(|sample| sample.processes.values());
        counters.map(pick).sum()
    };
    let highest = |name| turns.iter().map(|s| s.processes[name].rss_bytes).max();
    Some(Cost {
        cpu_seconds_per_gbit: per_gbit(&|s| all(s, |c| c.cpu_seconds))?,
        cpu_by_process: names
            .iter()
            .filter_map(|name| Some((*name, per_gbit(&|s| s.processes[name].cpu_seconds)?.median)))
            .collect(),
        switches_per_gbit: per_gbit(&|s| all(s, |c| (c.sleeps + c.preemptions) as f64))?.median,
        rss_bytes: names
            .iter()
            .filter_map(|name| Some((*name, highest(*name)?)))
            .collect(),
        udp_drops: total(|c| c.udp_drops),
        tun_drops: total(|c| c.tun_drops),
        cable_drops: total(|c| c.cable_drops),
    })
}

fn spread(turns: &[&Sample], value: impl Fn(&Sample) -> f64) -> Option<Spread> {
    Spread::of(turns.iter().map(|sample| value(sample)))
}

fn ratios(rows: &[Row], of: &'static str, to: &'static str) -> Vec<Ratio> {
    let ours = rows.iter().filter(|row| row.contender == of);
    ours.filter_map(|ours| {
        let theirs = rows
            .iter()
            .find(|row| row.contender == to && row.load == ours.load)?;
        let cpu = |row: &Row| Some(row.cost.as_ref()?.cpu_seconds_per_gbit.median);
        Some(Ratio {
            load: ours.load,
            of,
            to,
            rate: ours.gbit_per_second.median / theirs.gbit_per_second.median,
            cpu: cpu(ours)? / cpu(theirs)?,
        })
    })
    .collect()
}

fn goals(rows: &[Row], ratios: &[Ratio], idle: &[Idle]) -> Vec<Goal> {
    let ours = || {
        rows.iter()
            .filter(|row| [OURS, RELAYED].contains(&row.contender))
    };
    let tcp = ratios
        .iter()
        .filter(|ratio| ratio.of == RELAYED && matches!(ratio.load.traffic, Traffic::Tcp { .. }));
    let udp = ours().filter(|row| {
        matches!(row.load.traffic, Traffic::Udp { megabits, size }
            if megabits <= UDP_GOAL_MEGABITS && size == DATAGRAM)
    });
    let costs = ours().filter_map(|row| row.cost.as_ref());
    let asleep = || {
        idle.iter().filter(|idle| {
            let mine = idle.process.strip_prefix(OURS);
            mine.or(idle.process.strip_prefix(RELAYED))
                .is_some_and(|name| [" client", " gateway"].contains(&name))
        })
    };
    let lowest = |values: &mut dyn Iterator<Item = f64>| values.reduce(f64::min);
    let highest = |values: &mut dyn Iterator<Item = f64>| values.reduce(f64::max);
    let at_most = |what: String, measured: Option<f64>, limit: f64| {
        let measured = measured?;
        Some(Goal {
            what,
            measured,
            met: measured <= limit,
        })
    };
    let relayed = lowest(&mut tcp.map(|ratio| ratio.rate)).map(|measured| Goal {
        what: format!("relayed TCP by direct TCP, lowest ratio >= {RELAYED_SHARE}"),
        measured,
        met: measured >= RELAYED_SHARE,
    });
    let as_fast = |what: &str, plain: fn(Load) -> Load| {
        let shares = ours().filter_map(|row| {
            let plain = plain(row.load);
            let is_plain = |it: &&Row| (it.contender, it.load) == (row.contender, plain);
            let plain = rows.iter().find(is_plain).filter(|_| plain != row.load)?;
            Some(row.gbit_per_second.median / plain.gbit_per_second.median)
        });
        lowest(&mut { shares }).map(|measured| Goal {
            what: format!("{what}, lowest ratio >= {AS_FAST}"),
            measured,
            met: measured >= AS_FAST,
        })
    };
    let by_ipv4 = as_fast("IPv6 by IPv4", |load| Load {
        ip: Version::V4,
        ..load
    });
    let by_tcp = as_fast("QUIC by one TCP stream", |load| match load.traffic {
        Traffic::Quic => Load {
            traffic: Traffic::Tcp { streams: 1 },
            ..load
        },
        _ => load,
    });
    [
        relayed,
        by_ipv4,
        by_tcp,
        at_most(
            "datagrams and packets lost at own sockets and TUN devices: 0".to_owned(),
            costs
                .map(|cost| (cost.udp_drops + cost.tun_drops) as f64)
                .reduce(|a, b| a + b),
            0.0,
        ),
        at_most(
            format!(
                "UDP loss up to {UDP_GOAL_MEGABITS} Mbit/s, highest median < {UDP_LOSS_PERCENT} %"
            ),
            highest(&mut udp.map(|row| row.loss_percent.median)),
            UDP_LOSS_PERCENT,
        ),
        at_most(
            format!("idle client or gateway, wake-ups per second <= {IDLE_WAKE_UPS_PER_SECOND}"),
            highest(&mut asleep().map(|idle| idle.wake_ups_per_second)),
            IDLE_WAKE_UPS_PER_SECOND,
        ),
        at_most(
            format!("idle client or gateway, CPU < {IDLE_CPU_PERCENT} %"),
            highest(&mut asleep().map(|idle| idle.cpu_percent)),
            IDLE_CPU_PERCENT,
        ),
    ]
    .into_iter()
    .flatten()
    .collect()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::load::{Direction, Transfer};

    pub(crate) const LOAD: Load = Load {
        traffic: Traffic::Tcp { streams: 1 },
        direction: Direction::Forward,
        ip: Version::V4,
    };

    /// One second at this rate, with this much CPU time at each end.
    pub(crate) fn sample(
        contender: &'static str,
        round: u32,
        gbit: f64,
        cpu: Option<f64>,
    ) -> Sample {
        let counters = |cpu_seconds| Counters {
            cpu_seconds,
            sleeps: 100,
            preemptions: 10,
            udp_drops: 1,
            tun_drops: 2,
            cable_drops: 0,
            tun_in_bytes: 0,
            rss_bytes: 8 << 20,
        };
        Sample {
            contender,
            load: LOAD,
            round,
            transfer: Transfer {
                bytes: (gbit * 1e9 / 8.0) as u64,
                bits_per_second: gbit * 1e9,
                slower_bits_per_second: gbit * 1e9,
                retransmits: 10,
                ..Transfer::default()
            },
            processes: cpu
                .map(|cpu| [("client", counters(cpu)), ("gateway", counters(cpu * 2.0))])
                .into_iter()
                .flatten()
                .collect(),
            load_average: 0.0,
        }
    }

    pub(crate) fn report(samples: Vec<Sample>, peer: Option<&'static str>) -> Report {
        let settings = Settings {
            rounds: 3,
            seconds: 1,
            congestion: "cubic".to_owned(),
            peer,
            peer_version: None,
            iperf: "iperf 3.12".to_owned(),
            cpus: 2,
        };
        let idle = vec![Idle {
            process: format!("{OURS} client"),
            cpu_percent: 0.05,
            wake_ups_per_second: 1.5,
            rss_bytes: 8 << 20,
        }];
        Report::new(settings, samples, idle)
    }

    #[test]
    fn medians_are_per_contender_and_ratios_of_medians() {
        let samples = [(2.0, 1.0), (4.0, 2.0), (3.0, 1.0)]
            .into_iter()
            .enumerate()
            .flat_map(|(round, (ours, theirs))| {
                let round = round as u32 + 1;
                [
                    sample(OURS, round, ours, Some(0.1 * ours)),
                    sample("gotatun", round, theirs, Some(0.5 * theirs)),
                ]
            });
        let report = report(samples.collect(), Some("gotatun"));

        let medians = report
            .rows
            .iter()
            .map(|row| (row.contender, row.gbit_per_second.median));
        assert_eq!(medians.collect::<Vec<_>>(), [(OURS, 3.0), ("gotatun", 1.0)]);
        let cost = report.rows[0].cost.as_ref().unwrap();
        let near = |a: f64, b: f64| (a - b).abs() < 1e-6;
        assert!(near(cost.cpu_seconds_per_gbit.median, 0.3), "{cost:?}");
        assert!(near(cost.cpu_by_process["gateway"], 0.2), "{cost:?}");
        assert!(near(cost.switches_per_gbit, 220.0 / 3.0), "{cost:?}");
        assert_eq!((cost.udp_drops, cost.tun_drops), (6, 12));
        assert!(near(report.ratios[0].rate, 3.0));
        assert!(near(report.ratios[0].cpu, 0.2));
    }

    #[test]
    fn kinds_of_traffic_are_compared_within_one_contender() {
        let with = |gbit, load| Sample {
            load,
            ..sample(OURS, 1, gbit, None)
        };
        let v6 = Version::V6;
        let samples = vec![
            with(4.0, LOAD),
            with(3.0, Load { ip: v6, ..LOAD }),
            with(
                3.8,
                Load {
                    traffic: Traffic::Quic,
                    ..LOAD
                },
            ),
        ];
        let goals = report(samples, None).goals;
        let found = |text: &str| goals.iter().find(|goal| goal.what.starts_with(text));
        let verdict = |text| found(text).map(|goal| (goal.measured, goal.met));
        assert_eq!(verdict("IPv6 by IPv4"), Some((0.75, false)));
        assert_eq!(verdict("QUIC by one TCP"), Some((0.95, true)));
    }

    #[test]
    fn goals_are_held_against_the_worst_figure() {
        let samples = vec![
            sample(OURS, 1, 2.0, Some(0.5)),
            sample(RELAYED, 1, 1.8, Some(0.5)),
        ];
        let goals = report(samples, None).goals;
        let verdicts = goals.iter().map(|goal| (goal.measured, goal.met));
        let near = [(0.9, true), (12.0, false), (1.5, false), (0.05, true)];
        assert_eq!(verdicts.clone().count(), near.len());
        for (verdict, expected) in verdicts.zip(near) {
            assert!((verdict.0 - expected.0).abs() < 1e-6, "{goals:?}");
            assert_eq!(verdict.1, expected.1, "{goals:?}");
        }
    }
}
