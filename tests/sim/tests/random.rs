//! Random cases, seeds of earlier failures first. `SIM_CASES`, `SIM_SEED`, `SIM_IDLE_WEIGHT` and `SIM_LOSS` scale it.
//!
//! Together with the scripts they must reach every coverage point (testing §7).

use std::{env, path::Path, str::FromStr};

use sim::{
    coverage,
    generators::Weights,
    runner::{Report, Run},
};

/// As many as the minima of the coverage points are for.
const CASES: u64 = 256;
/// The first of them. These and the scripts reach all points; should a change move that, `sim harvest` finds others.
const SEED: u64 = 500;

#[test]
fn random_cases_hold() {
    let run = |cases, seed| Run {
        cases,
        seed,
        weights: Weights {
            idle: variable("SIM_IDLE_WEIGHT", 1),
            loss: variable("SIM_LOSS", 0),
        },
        threads: std::thread::available_parallelism().map_or(1, usize::from),
        folder: Path::new(env!("CARGO_TARGET_TMPDIR")).join("testcases"),
        max_failures: 5,
    };
    for seed in seeds() {
        check(&run(1, seed).run());
    }
    let mut report = run(variable("SIM_CASES", CASES), variable("SIM_SEED", SEED)).run();
    check(&report);
    report.add_scripts().expect("the scripts are there");
    check(&report);
    let missing: Vec<_> = coverage::table(&report.coverage, report.cases)
        .into_iter()
        .filter(coverage::Row::is_missing)
        .map(|row| format!("{} in {} of {}", row.point.name, row.cases, row.required))
        .collect();
    assert!(
        missing.is_empty(),
        "reached too rarely:\n{}",
        missing.join("\n")
    );
}

fn check(report: &Report) {
    let mut text = String::new();
    for (seed, failures) in &report.failures {
        text.push_str(&format!("\ncase {seed}: {}", failures.join("\n  ")));
    }
    assert!(
        report.failures.is_empty(),
        "{text}\nfiles are in {}/testcases",
        env!("CARGO_TARGET_TMPDIR")
    );
}

/// Cases that once failed.
fn seeds() -> Vec<u64> {
    let text = include_str!("../regressions/seeds.txt");
    let lines = text
        .lines()
        .map(|line| line.split('#').next().unwrap_or(""));
    lines.filter_map(|line| line.trim().parse().ok()).collect()
}

fn variable<T: FromStr>(name: &str, default: T) -> T {
    let text = env::var(name).ok();
    text.and_then(|text| text.parse().ok()).unwrap_or(default)
}
