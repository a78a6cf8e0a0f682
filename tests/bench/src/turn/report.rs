//! The figures of a comparison: medians per load and server, ratios of medians, as a table or as JSON.

use std::fmt::Write as _;

use serde::Serialize;

use crate::{
    statistics::Spread,
    turn::{
        compare::{Case, Question, Sample},
        flows::Direction,
        session::Measurement,
    },
};

/// How it was measured.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Settings {
    /// Turns per load and server.
    pub(crate) rounds: u32,
    /// Length of a load.
    pub(crate) seconds: u32,
    /// Packets per second of the question of cost.
    pub(crate) rate: u32,
    /// Time between bursts of paced loads.
    pub(crate) tick_us: u32,
    /// Whether generator and server had a CPU of their own each.
    pub(crate) is_pinned: bool,
    /// Of the other programs.
    pub(crate) versions: Vec<String>,
}

/// Everything that a comparison came to.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    /// How it was measured.
    pub(crate) settings: Settings,
    /// Medians, in the order of measurement.
    pub(crate) rows: Vec<Row>,
    /// The first server by each of the others.
    pub(crate) ratios: Vec<Ratio>,
    /// Every turn.
    pub(crate) samples: Vec<Sample>,
}

/// One server with one load.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Row {
    /// Who.
    pub(crate) server: &'static str,
    /// With what.
    #[serde(flatten)]
    pub(crate) case: Case,
    /// Packets per second that arrived.
    pub(crate) delivered_pps: Spread,
    /// Share that did not arrive.
    pub(crate) loss_percent: Spread,
    /// The server's CPU seconds per million packets that arrived.
    pub(crate) cpu_seconds_per_million: Option<Spread>,
    /// Latency that 99 % stayed below.
    pub(crate) p99_us: Option<Spread>,
    /// In how many turns the server could do more than the generator.
    pub(crate) generator_limits: usize,
}

/// The first server's median by another one's.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Ratio {
    /// The other one.
    pub(crate) by: &'static str,
    /// With what.
    #[serde(flatten)]
    pub(crate) case: Case,
    /// Packets per second; more is better.
    pub(crate) delivered: f64,
    /// CPU time per packet; less is better.
    pub(crate) cpu: Option<f64>,
}

impl Report {
    /// Sums samples up.
    pub(crate) fn new(settings: Settings, samples: Vec<Sample>) -> Self {
        let mut keys = Vec::new();
        for sample in &samples {
            let key = (sample.case, sample.server);
            if !keys.contains(&key) {
                keys.push(key);
            }
        }
        // All servers of a case together, although measured in turn.
        let mut cases = Vec::new();
        for (case, _) in &keys {
            if !cases.contains(case) {
                cases.push(*case);
            }
        }
        keys.sort_by_key(|(case, _)| cases.iter().position(|other| other == case));
        let rows = keys
            .into_iter()
            .filter_map(|(case, server)| row(case, server, &samples))
            .collect::<Vec<_>>();
        Self {
            settings,
            ratios: cases.iter().flat_map(|case| ratios(*case, &rows)).collect(),
            rows,
            samples,
        }
    }
}

fn row(case: Case, server: &'static str, samples: &[Sample]) -> Option<Row> {
    let turns = samples
        .iter()
        .filter(|sample| (sample.case, sample.server) == (case, server));
    let spread = |value: fn(&Measurement) -> Option<f64>| {
        Spread::of(turns.clone().filter_map(|turn| value(&turn.measurement)))
    };
    Some(Row {
        server,
        case,
        delivered_pps: spread(|m| Some(m.outcome.delivered_pps()))?,
        loss_percent: spread(|m| Some(m.outcome.totals.loss_percent()))?,
        cpu_seconds_per_million: spread(Measurement::cpu_seconds_per_million),
        p99_us: spread(|m| Some(m.outcome.totals.latency?.p99_us)),
        generator_limits: turns.clone().filter(|turn| turn.is_generator_limit).count(),
    })
}

fn ratios(case: Case, rows: &[Row]) -> Vec<Ratio> {
    let mut of_case = rows.iter().filter(|row| row.case == case);
    let Some(first) = of_case.next() else {
        return Vec::new();
    };
    let cpu = |row: &Row| Some(row.cpu_seconds_per_million?.median);
    of_case
        .map(|other| Ratio {
            by: other.server,
            case,
            delivered: first.delivered_pps.median / other.delivered_pps.median,
            cpu: cpu(first)
                .zip(cpu(other))
                .map(|(ours, theirs)| ours / theirs),
        })
        .collect()
}

/// A case in words.
pub(crate) fn describe(case: Case) -> String {
    let question = match case.question {
        Question::Cost => "cost",
        Question::Capacity => "capacity",
        Question::Bulk => "bulk",
        Question::BulkCapacity => "bulk capacity",
    };
    let direction = match case.direction {
        Direction::ClientToPeer => String::new(),
        other => format!(" {}", other.name()),
    };
    format!(
        "{question:<13} {:>4} B {:<3} × {:<3}{direction}",
        case.size,
        case.family.name(),
        case.allocations
    )
}

/// The report for people.
pub(crate) fn table(report: &Report) -> String {
    let Settings {
        rounds,
        seconds,
        rate,
        tick_us,
        is_pinned,
        versions,
    } = &report.settings;
    let versions = versions.join(", ");
    let pinning = match is_pinned {
        true => "generator and server pinned to one CPU each",
        false => "not pinned",
    };
    let mut text = format!(
        "TURN over veth, channel data, {rounds} interleaved rounds of {seconds} s, {pinning}, {versions}\n\
         Medians (lowest-highest). cost: at {rate} separate packets/s, a burst every {tick_us} µs; capacity: highest rate of \
         separate packets below 0.1 % loss;\n\
         bulk: sender with GSO, as fast as it can. > : the generator could not send more. CPU: of the server.\n\n\
         {:<28} {:<9} {:>10} {:<19} {:>7} {:>8} {:<13} {:>7}\n",
        "load", "server", "packets/s", "(range)", "lost %", "s/Mpkt", "(range)", "99 % µs",
    );
    let mut last = None;
    for row in &report.rows {
        if last.is_some_and(|case| case != row.case) {
            close(&mut text, report, last);
        }
        last = Some(row.case);
        line(&mut text, row);
    }
    close(&mut text, report, last);
    text
}

fn line(text: &mut String, row: &Row) {
    let rate = &row.delivered_pps;
    let bound = if row.generator_limits > 0 { ">" } else { "" };
    let (cost, cost_range) = match &row.cpu_seconds_per_million {
        None => (String::new(), String::new()),
        Some(cost) => (
            format!("{:.2}", cost.median),
            format!("({:.2}-{:.2})", cost.min, cost.max),
        ),
    };
    let p99 = row.p99_us.map(|p99| format!("{:.0}", p99.median));
    // Writing to a string cannot fail.
    let _ = writeln!(
        text,
        "{:<28} {:<9} {:>10} {:<19} {:>7.3} {cost:>8} {cost_range:<13} {:>7}",
        describe(row.case),
        row.server,
        format!("{bound}{:.0}", rate.median),
        format!("({:.0}-{:.0})", rate.min, rate.max),
        row.loss_percent.median,
        p99.unwrap_or_default(),
    );
}

/// Ends the lines of one case with the ratios.
fn close(text: &mut String, report: &Report, case: Option<Case>) {
    for ratio in report
        .ratios
        .iter()
        .filter(|ratio| Some(ratio.case) == case)
    {
        let cpu = ratio.cpu.map(|cpu| format!("{cpu:.2}"));
        let _ = writeln!(
            text,
            "{:<28} ÷ {:<7} {:>10.2} {:<19} {:>7} {:>8}",
            "",
            ratio.by,
            ratio.delivered,
            "",
            "",
            cpu.unwrap_or_default()
        );
    }
}
