//! The report for people.

use std::{collections::BTreeMap, fmt::Write as _};

use super::report::{Cost, Ratio, Report, Row, Settings};
use crate::load::Traffic;

/// Everything, as lines.
pub(crate) fn render(report: &Report) -> String {
    let mut text = head(&report.settings);
    let mut loads = report.rows.iter().map(|row| row.load).collect::<Vec<_>>();
    loads.dedup();
    for load in loads {
        for row in report.rows.iter().filter(|row| row.load == load) {
            text += &line(row);
        }
        for ratio in report.ratios.iter().filter(|ratio| ratio.load == load) {
            text += &ratio_line(ratio);
        }
    }
    text += &memory(&report.rows);
    text += &idle(report);
    text += &goals(report);
    text
}

fn head(settings: &Settings) -> String {
    let Settings {
        rounds,
        seconds,
        congestion,
        iperf,
        cpus,
        peer_version,
        ..
    } = settings;
    let peer_version = match peer_version {
        Some(version) => format!(", {version}"),
        None => String::new(),
    };
    format!(
        "TCP with {congestion}, veth, {rounds} interleaved rounds of {seconds} s, {iperf}{peer_version}, {cpus} CPUs\n\
         Medians (lowest-highest). CPU: seconds per Gbit of all processes on the path, and of each. Switches: context\n\
         switches per Gbit. Drops: of all turns, at UDP sockets / TUN devices / cables.\n\n\
         {:<26} {:<13} {:>7} {:<13} {:>12} {:>6}  {:<40} {:>8} {:>9}\n",
        "load", "through", "Gbit/s", "(range)", "lost", "CPU", "by process", "switches", "drops",
    )
}

fn line(row: &Row) -> String {
    let rate = &row.gbit_per_second;
    let range = format!("({:.2}-{:.2})", rate.min, rate.max);
    let lost = match row.load.traffic {
        Traffic::Tcp { .. } => format!("{} retr.", row.retransmits.median),
        Traffic::Udp { .. } | Traffic::Quic => format!("{:.3} %", row.loss_percent.median),
    };
    format!(
        "{:<26} {:<13} {:>7.2} {range:<13} {lost:>12} {}\n",
        row.load.describe(),
        row.contender,
        rate.median,
        row.cost.as_ref().map_or_else(String::new, cost),
    )
}

fn cost(cost: &Cost) -> String {
    let processes = cost.cpu_by_process.iter();
    let processes = processes
        .map(|(name, cpu)| format!("{name} {cpu:.3}"))
        .collect::<Vec<_>>()
        .join(", ");
    let drops = format!("{}/{}/{}", cost.udp_drops, cost.tun_drops, cost.cable_drops);
    format!(
        "{:>6.3}  {processes:<40} {:>8.0} {drops:>9}",
        cost.cpu_seconds_per_gbit.median, cost.switches_per_gbit
    )
}

fn ratio_line(ratio: &Ratio) -> String {
    let Ratio {
        of, to, rate, cpu, ..
    } = ratio;
    format!(
        "{:<26} {:<13} {rate:>7.2} {:<26} {cpu:>6.2}\n",
        "",
        format!("÷ {to}"),
        format!("({of})"),
    )
}

/// Highest of all loads.
fn memory(rows: &[Row]) -> String {
    let mut highest = BTreeMap::new();
    for row in rows {
        let processes = row.cost.iter().flat_map(|cost| &cost.rss_bytes);
        for (process, bytes) in processes {
            let entry = highest.entry((row.contender, process)).or_insert(0);
            *entry = (*entry).max(*bytes);
        }
    }
    let parts = highest
        .iter()
        .map(|((contender, process), bytes)| format!("{contender} {process} {} MiB", bytes >> 20));
    match highest.is_empty() {
        true => String::new(),
        false => format!(
            "\nMemory at most: {}\n",
            parts.collect::<Vec<_>>().join(", ")
        ),
    }
}

fn idle(report: &Report) -> String {
    if report.idle.is_empty() {
        return String::new();
    }
    let mut text = format!(
        "\n{:<26} {:>7} {:>12}\n",
        "afterwards, idle", "CPU %", "wake-ups/s"
    );
    for idle in &report.idle {
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "{:<26} {:>7.3} {:>12.2}",
            idle.process, idle.cpu_percent, idle.wake_ups_per_second
        );
    }
    text
}

fn goals(report: &Report) -> String {
    let mut text = String::from("\n");
    for goal in &report.goals {
        let verdict = match goal.met {
            true => "ok    ",
            false => "MISSED",
        };
        // Four digits are more than any of these figures is worth.
        let measured = (goal.measured * 1e4).round() / 1e4;
        let _ = writeln!(text, "{verdict} {} (here {measured})", goal.what);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::{
        report::tests::{report, sample},
        turns::{OURS, RELAYED},
    };
    use super::*;

    #[test]
    fn one_line_per_contender_then_the_ratios() {
        let samples = vec![
            sample(OURS, 1, 2.0, Some(0.5)),
            sample(RELAYED, 1, 1.5, Some(0.75)),
            sample("gotatun", 1, 1.0, Some(0.5)),
            sample("no tunnel", 1, 10.0, None),
        ];
        let table = render(&report(samples, Some("gotatun")));
        let lines = table.lines().skip(5).map(str::trim_end);
        let lines = lines.take_while(|line| !line.is_empty());
        assert_eq!(
            lines.collect::<Vec<_>>(),
            [
                "TCP × 1 forward            firezone         2.00 (2.00-2.00)       10 retr.  0.750  client 0.250, gateway 0.500                   110     2/4/0",
                "TCP × 1 forward            fz relayed       1.50 (1.50-1.50)       10 retr.  1.500  client 0.500, gateway 1.000                   147     2/4/0",
                "TCP × 1 forward            gotatun          1.00 (1.00-1.00)       10 retr.  1.500  client 0.500, gateway 1.000                   220     2/4/0",
                "TCP × 1 forward            no tunnel       10.00 (10.00-10.00)     10 retr.",
                "                           ÷ firezone       0.75 (fz relayed)                 2.00",
                "                           ÷ gotatun        2.00 (firezone)                   0.50",
            ]
        );
        assert!(
            table.contains("MISSED relayed TCP by direct TCP"),
            "{table}"
        );
        assert!(
            table.contains("firezone client              0.050         1.50"),
            "{table}"
        );
    }
}
