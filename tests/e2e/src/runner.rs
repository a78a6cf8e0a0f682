//! Command line, threads and results of a scenario executable. It takes what `cargo test -- …` passes on: names or
//! parts of names, `--list`, `--exact`, `--skip`, `--test-threads`.

use std::{
    process::ExitCode,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use demo::interrupt;

use crate::case::{Case, Failure, Lane};

/// Scenarios of the queue that run at the same time: each keeps a processor busy.
const PARALLEL: usize = 2;

/// Runs what the command line selects.
pub fn run(cases: &'static [&'static [Case]]) -> ExitCode {
    let arguments = match Arguments::parse(std::env::args().skip(1)) {
        Ok(arguments) => arguments,
        Err(problem) => {
            eprintln!("{problem}");
            return ExitCode::from(2);
        }
    };
    let all = cases.iter().copied().flatten();
    let (selected, others): (Vec<&Case>, Vec<&Case>) =
        all.partition(|case| arguments.selects(case.name));
    if arguments.list {
        for case in selected {
            println!("{}: test", case.name);
        }
        return ExitCode::SUCCESS;
    }
    if selected.is_empty() {
        println!("0 passed, 0 failed, {} filtered out", others.len());
        return ExitCode::SUCCESS;
    }
    if let Err(error) = testbed::isolate() {
        // Not a failure of what is tested here; continuous integration looks for this line.
        println!("cannot run: {error}");
        return ExitCode::SUCCESS;
    }
    if let Err(error) = interrupt::install() {
        println!("cannot run: {error:#}");
        return ExitCode::SUCCESS;
    }
    let failed = run_all(&selected, arguments.threads);
    let passed = selected.len() - failed;
    println!(
        "{passed} passed, {failed} failed, {} filtered out",
        others.len()
    );
    ExitCode::from(u8::from(failed > 0))
}

/// Runs everything; the result is the number of failures.
fn run_all(cases: &[&'static Case], threads: usize) -> usize {
    let is_beside = |case: &&&Case| case.lane == Lane::Beside;
    let beside = cases.iter().filter(is_beside).collect::<Vec<_>>();
    let queue = cases.iter().filter(|case| !is_beside(case));
    let queue = Mutex::new(queue);
    let next = || {
        let mut queue = queue.lock().unwrap_or_else(PoisonError::into_inner);
        queue.next()
    };
    let failed = AtomicUsize::new(0);
    let output = Mutex::new(());
    let one = |case: &Case| {
        let started = Instant::now();
        let result = if interrupt::is_pending() {
            Err(Failure {
                problems: vec!["interrupted".to_owned()],
                logs: Vec::new(),
            })
        } else {
            case.run()
        };
        let _lines_stay_together = output.lock().unwrap_or_else(PoisonError::into_inner);
        if print(case, started.elapsed(), result) == Verdict::Failed {
            failed.fetch_add(1, Ordering::Relaxed);
        }
    };
    thread::scope(|scope| {
        for case in beside {
            scope.spawn(|| one(case));
        }
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some(case) = next() {
                    one(case);
                }
            });
        }
    });
    failed.into_inner()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Passed,
    Failed,
}

fn print(case: &Case, took: Duration, result: Result<(), Failure>) -> Verdict {
    let seconds = took.as_secs_f64();
    let Err(failure) = result else {
        println!("test {} ... ok ({seconds:.1} s)", case.name);
        return Verdict::Passed;
    };
    println!("test {} ... FAILED ({seconds:.1} s)", case.name);
    for problem in &failure.problems {
        println!("  {problem}");
    }
    for (process, tail) in &failure.logs {
        println!("  --- end of the log of {process}");
        for line in tail.lines() {
            println!("  | {line}");
        }
    }
    Verdict::Failed
}

struct Arguments {
    filters: Vec<String>,
    skips: Vec<String>,
    exact: bool,
    list: bool,
    threads: usize,
}

impl Arguments {
    fn parse(arguments: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut parsed = Self {
            filters: Vec::new(),
            skips: Vec::new(),
            exact: false,
            list: false,
            threads: PARALLEL,
        };
        let mut arguments = arguments;
        while let Some(argument) = arguments.next() {
            let (flag, value) = match argument.split_once('=') {
                Some((flag, value)) => (flag, Some(value.to_owned())),
                None => (argument.as_str(), None),
            };
            let mut value = || {
                let value = value.clone().or_else(|| arguments.next());
                value.ok_or_else(|| format!("{flag} needs a value"))
            };
            match flag {
                "--list" => parsed.list = true,
                "--exact" => parsed.exact = true,
                "--skip" => parsed.skips.push(value()?),
                "--test-threads" => {
                    let threads = value()?.parse::<usize>();
                    parsed.threads = threads.ok().filter(|n| *n > 0).unwrap_or(PARALLEL);
                }
                // Without meaning here: output is never captured, and there are no ignored scenarios.
                "--format" | "--color" | "-Z" => drop(value()?),
                "--nocapture" | "--no-capture" | "--show-output" | "-q" | "--quiet"
                | "--include-ignored" => {}
                unknown if unknown.starts_with('-') => {
                    return Err(format!("unknown option {unknown}"));
                }
                _ => parsed.filters.push(argument.clone()),
            }
        }
        Ok(parsed)
    }

    fn selects(&self, name: &str) -> bool {
        let fits = |pattern: &String| match self.exact {
            true => name == pattern,
            false => name.contains(pattern.as_str()),
        };
        let is_wanted = self.filters.is_empty() || self.filters.iter().any(fits);
        is_wanted && !self.skips.iter().any(fits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Arguments, String> {
        Arguments::parse(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn selects_as_cargo_test_does() {
        let arguments = parse("relay --skip drains --nocapture --test-threads=1").unwrap();
        assert!(arguments.selects("relay_restart") && !arguments.selects("relay_drains"));
        assert!(!arguments.selects("idle"));
        assert_eq!(arguments.threads, 1);
        let exact = parse("relay --exact").unwrap();
        assert!(exact.selects("relay") && !exact.selects("relay_restart"));
        assert!(parse("").unwrap().selects("anything"));
        assert!(parse("--unknown").is_err() && parse("--skip").is_err());
    }
}
