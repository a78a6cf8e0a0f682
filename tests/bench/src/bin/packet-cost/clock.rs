//! Nanoseconds per packet. Cases take turns (A B C A B C …), since the machine drifts; compare within one run only.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::{
    case::{CASES, Case},
    is_wanted,
};

/// Cases of single packets are measured over this many, since the clock itself costs time.
const SINGLES: usize = 64;

/// Measures and prints.
pub(crate) fn run(filter: Option<&str>, rounds: usize) {
    let cases = CASES.iter().filter(|case| is_wanted(case, filter));
    let mut running = cases
        .map(|case| {
            eprintln!("setting up {}", case.name);
            (case, case.start(), Vec::with_capacity(rounds))
        })
        .collect::<Vec<_>>();
    for _ in 0..rounds.max(1) {
        for (case, round, times) in &mut running {
            let repeat = if case.packets == 1 { SINGLES } else { 1 };
            let mut worked = Duration::ZERO;
            for _ in 0..repeat {
                round.prepare();
                let started = Instant::now();
                round.work();
                worked += started.elapsed();
            }
            times.push(worked.as_secs_f64() * 1e9 / (repeat * case.packets) as f64);
        }
    }
    let medians = running
        .into_iter()
        .map(|(case, _, times)| (case, median(times)));
    print(&medians.collect::<Vec<_>>());
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times.get(times.len() / 2).copied().unwrap_or_default()
}

fn print(medians: &[(&'static Case, f64)]) {
    let figures = medians.iter().map(|(case, time)| (case.name, *time));
    let figures = figures.collect::<BTreeMap<_, _>>();
    println!(
        "Nanoseconds per packet of 1280 bytes, medians. Above: besides the bare cipher and its copy.\n"
    );
    println!("{:<42} {:>7} {:>7}", "work", "all", "above");
    for (case, time) in medians {
        let above = match case.is_cipher() {
            true => String::new(),
            false => format!("{:.0}", time - case.ground(&figures)),
        };
        println!("{:<42} {time:>7.0} {above:>7}", case.name);
    }
}
