//! The figures of one run: medians per load and contender, ratios to the peer, as a table or as JSON.

use std::fmt::Write as _;

use serde::Serialize;

use crate::{
    iperf::{Direction, Load},
    statistics::Spread,
    throughput::{Ends, OURS, Sample},
};

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
    /// Ours by the peer's.
    pub(crate) ratios: Vec<Ratio>,
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
    /// Payload that arrived.
    pub(crate) gbit_per_second: Spread,
    /// Segments sent again per turn.
    pub(crate) retransmits: Spread,
    /// Of the tunnel's processes; none without a tunnel.
    pub(crate) cost: Option<Cost>,
}

/// What the tunnel's two processes spent.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Cost {
    /// CPU seconds of both together per Gbit of payload.
    pub(crate) cpu_seconds_per_gbit: Spread,
    /// Of each, medians.
    pub(crate) ends: Ends<f64>,
    /// Datagrams lost at UDP sockets per turn, both ends.
    pub(crate) udp_drops: Spread,
    /// Packets lost at devices per turn, both ends.
    pub(crate) device_drops: Spread,
}

/// Our median by the peer's.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Ratio {
    /// With what.
    #[serde(flatten)]
    pub(crate) load: Load,
    /// More is better.
    pub(crate) rate: f64,
    /// CPU per Gbit; less is better.
    pub(crate) cpu: f64,
}

impl Report {
    pub(crate) fn new(settings: Settings, samples: Vec<Sample>) -> Self {
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
        let ratios = match settings.peer {
            Some(peer) => ratios(&rows, peer),
            None => Vec::new(),
        };
        Self {
            settings,
            rows,
            ratios,
            samples,
        }
    }
}

fn row(contender: &'static str, load: Load, turns: &[&Sample]) -> Option<Row> {
    Some(Row {
        contender,
        load,
        gbit_per_second: spread(turns, |s| Some(s.transfer.bits_per_second / 1e9))?,
        retransmits: spread(turns, |s| Some(s.transfer.retransmits as f64))?,
        cost: cost(turns),
    })
}

fn cost(turns: &[&Sample]) -> Option<Cost> {
    let cpu = |pick: fn(&Ends<f64>) -> f64| {
        spread(turns, |sample| {
            let ends = sample.ends?;
            let gbit = sample.transfer.bytes as f64 * 8.0 / 1e9;
            Some(pick(&Ends {
                client: ends.client.cpu_seconds / gbit,
                gateway: ends.gateway.cpu_seconds / gbit,
            }))
        })
    };
    let both = |pick: fn(&crate::counters::Counters) -> u64| {
        spread(turns, |sample| {
            let ends = sample.ends?;
            Some((pick(&ends.client) + pick(&ends.gateway)) as f64)
        })
    };
    Some(Cost {
        cpu_seconds_per_gbit: cpu(|ends| ends.client + ends.gateway)?,
        ends: Ends {
            client: cpu(|ends| ends.client)?.median,
            gateway: cpu(|ends| ends.gateway)?.median,
        },
        udp_drops: both(|counters| counters.udp_drops)?,
        device_drops: both(|counters| counters.device_drops)?,
    })
}

fn spread(turns: &[&Sample], value: impl Fn(&Sample) -> Option<f64>) -> Option<Spread> {
    Spread::of(turns.iter().filter_map(|sample| value(sample)))
}

fn ratios(rows: &[Row], peer: &str) -> Vec<Ratio> {
    let ours = rows.iter().filter(|row| row.contender == OURS);
    ours.filter_map(|ours| {
        let theirs = rows
            .iter()
            .find(|row| row.contender == peer && row.load == ours.load)?;
        let cpu = |row: &Row| Some(row.cost.as_ref()?.cpu_seconds_per_gbit.median);
        Some(Ratio {
            load: ours.load,
            rate: ours.gbit_per_second.median / theirs.gbit_per_second.median,
            cpu: cpu(ours)? / cpu(theirs)?,
        })
    })
    .collect()
}

/// A load in words.
pub(crate) fn describe(load: Load) -> String {
    let direction = match load.direction {
        Direction::Forward => "forward",
        Direction::Reverse => "reverse",
    };
    format!("TCP × {} {direction}", load.streams)
}

/// The report for people.
pub(crate) fn table(report: &Report) -> String {
    let Settings {
        rounds,
        seconds,
        congestion,
        iperf,
        cpus,
        peer_version,
        ..
    } = &report.settings;
    let peer_version = match peer_version {
        Some(version) => format!(", {version}"),
        None => String::new(),
    };
    let mut text = format!(
        "TCP with {congestion}, direct path over veth, {rounds} interleaved rounds of {seconds} s, {iperf}{peer_version}, {cpus} CPUs\n\
         Medians (lowest-highest). CPU: seconds per Gbit of client + gateway. Drops: at UDP sockets / devices.\n\n\
         {:<18} {:<13} {:>7} {:<13} {:>11}  {:<21} {:>11}\n",
        "load", "through", "Gbit/s", "(range)", "retransmits", "CPU s/Gbit", "drops",
    );
    let mut last = None;
    for row in &report.rows {
        if last.is_some_and(|load| load != row.load) {
            close(&mut text, report, last);
        }
        last = Some(row.load);
        line(&mut text, row);
    }
    close(&mut text, report, last);
    text
}

fn line(text: &mut String, row: &Row) {
    let rate = &row.gbit_per_second;
    let range = format!("({:.2}-{:.2})", rate.min, rate.max);
    let (cpu, drops) = match &row.cost {
        None => ("-".to_owned(), "-".to_owned()),
        Some(cost) => (
            format!(
                "{:.3} ({:.3} + {:.3})",
                cost.cpu_seconds_per_gbit.median, cost.ends.client, cost.ends.gateway
            ),
            format!("{} / {}", cost.udp_drops.median, cost.device_drops.median),
        ),
    };
    // Writing to a string cannot fail.
    let _ = writeln!(
        text,
        "{:<18} {:<13} {:>7.2} {range:<13} {:>11}  {cpu:<21} {drops:>11}",
        describe(row.load),
        row.contender,
        rate.median,
        row.retransmits.median,
    );
}

/// Ends the lines of one load with the ratio.
fn close(text: &mut String, report: &Report, load: Option<Load>) {
    let ratio = report.ratios.iter().find(|ratio| Some(ratio.load) == load);
    if let (Some(ratio), Some(peer)) = (ratio, report.settings.peer) {
        let name = format!("÷ {peer}");
        let _ = writeln!(
            text,
            "{:<18} {name:<13} {:>7.2} {:<13} {:>11}  {:.2}",
            "", ratio.rate, "", "", ratio.cpu
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{counters::Counters, iperf::Transfer};

    const LOAD: Load = Load {
        streams: 1,
        direction: Direction::Forward,
    };

    /// One second at this rate, with this much CPU time at each end.
    fn sample(contender: &'static str, round: u32, gbit: f64, cpu: Option<f64>) -> Sample {
        let counters = |cpu_seconds| Counters {
            cpu_seconds,
            udp_drops: 1,
            device_drops: 2,
        };
        Sample {
            contender,
            load: LOAD,
            round,
            transfer: Transfer {
                bytes: (gbit * 1e9 / 8.0) as u64,
                bits_per_second: gbit * 1e9,
                retransmits: 10,
            },
            ends: cpu.map(|cpu| Ends {
                client: counters(cpu),
                gateway: counters(cpu * 2.0),
            }),
            load_average: 0.0,
        }
    }

    fn report(samples: Vec<Sample>, peer: Option<&'static str>) -> Report {
        let settings = Settings {
            rounds: 3,
            seconds: 1,
            congestion: "cubic".to_owned(),
            peer,
            peer_version: None,
            iperf: "iperf 3.12".to_owned(),
            cpus: 2,
        };
        Report::new(settings, samples)
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
        assert!(
            (cost.cpu_seconds_per_gbit.median - 0.3).abs() < 1e-6,
            "{cost:?}"
        );
        assert!((cost.ends.gateway - 0.2).abs() < 1e-6, "{cost:?}");
        assert_eq!(
            (cost.udp_drops.median, cost.device_drops.median),
            (2.0, 4.0)
        );
        assert!((report.ratios[0].rate - 3.0).abs() < 1e-6);
        assert!((report.ratios[0].cpu - 0.2).abs() < 1e-6);
    }

    #[test]
    fn table_shows_the_cable_without_cost() {
        let samples = vec![
            sample(OURS, 1, 2.0, Some(0.5)),
            sample("gotatun", 1, 1.0, Some(0.5)),
            sample("no tunnel", 1, 10.0, None),
        ];
        let table = table(&report(samples, Some("gotatun")));
        let lines = table.lines().skip(4).collect::<Vec<_>>();
        assert_eq!(
            lines,
            [
                "TCP × 1 forward    firezone         2.00 (2.00-2.00)            10  0.750 (0.250 + 0.500)       2 / 4",
                "TCP × 1 forward    gotatun          1.00 (1.00-1.00)            10  1.500 (0.500 + 1.000)       2 / 4",
                "TCP × 1 forward    no tunnel       10.00 (10.00-10.00)          10  -                               -",
                "                   ÷ gotatun        2.00                            0.50",
            ]
        );
    }
}
