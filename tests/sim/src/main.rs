//! Runs cases of the simulation and tells what does not hold.

use std::{path::PathBuf, process::ExitCode};

use clap::{Args, Parser, Subcommand};
use sim::{
    coverage,
    generators::Weights,
    logs,
    runner::{self, Report, Run},
    script::Script,
};

/// Deterministic simulation of the whole data plane.
///
/// Client, gateway, relay and portal run as in production, on a simulated network and in virtual time. Every case has a
/// number, its seed; the same seed is the same case.
#[derive(Debug, Parser)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run many random cases on all cores.
    ///
    /// A failing case is shrunk, and its state, transitions and log are written to the folder, with a script that does
    /// the same: `<seed>.{state,transitions,log,ron}`.
    Run(RunArgs),
    /// Search the seeds of random cases that reach certain coverage points, and print them.
    Harvest {
        #[command(flatten)]
        run: RunArgs,
        /// A point, as in the table of `run`; all of several must be reached.
        #[arg(long = "point", required = true)]
        points: Vec<String>,
    },
    /// Run one random case and print its log.
    Show {
        /// Its seed.
        seed: u64,
        #[command(flatten)]
        weights: WeightArgs,
    },
    /// Run scripted scenarios.
    Script {
        /// The files.
        #[arg(required = true)]
        paths: Vec<PathBuf>,
        /// Print the log.
        #[arg(long)]
        log: bool,
    },
}

#[derive(Debug, Args)]
struct RunArgs {
    /// Number of cases.
    #[arg(long, env = "SIM_CASES", default_value_t = 256)]
    cases: u64,
    /// Seed of the first case.
    #[arg(long, env = "SIM_SEED", default_value_t = 0)]
    seed: u64,
    #[command(flatten)]
    weights: WeightArgs,
    /// Threads; 0 takes all cores.
    #[arg(long, default_value_t = 0)]
    threads: usize,
    /// Where files of failing cases go.
    #[arg(long, default_value = "testcases")]
    folder: PathBuf,
    /// Stop after this many failing cases.
    #[arg(long, default_value_t = 10)]
    max_failures: usize,
}

#[derive(Debug, Args)]
struct WeightArgs {
    /// Factor of the weight of idling.
    #[arg(long, env = "SIM_IDLE_WEIGHT", default_value_t = 1)]
    idle_weight: u32,
    /// Packets lost on each link, in percent.
    #[arg(long, env = "SIM_LOSS", default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=20))]
    loss: u8,
}

impl WeightArgs {
    fn weights(&self) -> Weights {
        Weights {
            idle: self.idle_weight,
            loss: self.loss,
        }
    }
}

fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Run(args) => run(&args),
        Command::Harvest { run, points } => harvest(&run, &points),
        Command::Show { seed, weights } => show(seed, &weights),
        Command::Script { paths, log } => scripts(&paths, log),
    }
}

fn harvest(args: &RunArgs, points: &[String]) -> ExitCode {
    if let Some(unknown) = points.iter().find(|point| !is_point(point)) {
        eprintln!("there is no coverage point {unknown}");
        return ExitCode::FAILURE;
    }
    for seed in args.to_run().harvest(points) {
        println!("{seed} # {}", points.join(", "));
    }
    ExitCode::SUCCESS
}

fn is_point(name: &str) -> bool {
    coverage::POINTS.iter().any(|point| point.name == name)
}

impl RunArgs {
    fn to_run(&self) -> Run {
        Run {
            cases: self.cases,
            seed: self.seed,
            weights: self.weights.weights(),
            threads: match self.threads {
                0 => std::thread::available_parallelism().map_or(1, usize::from),
                threads => threads,
            },
            folder: self.folder.clone(),
            max_failures: self.max_failures,
        }
    }
}

fn run(args: &RunArgs) -> ExitCode {
    let mut report = args.to_run().run();
    if let Err(error) = report.add_scripts() {
        eprintln!("the scripts cannot be run: {error:#}");
        return ExitCode::FAILURE;
    }
    print(&report);
    let missing = coverage::table(&report.coverage, report.cases)
        .into_iter()
        .any(|row| row.is_missing());
    match report.failures.is_empty() && !missing {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}

fn print(report: &Report) {
    println!("{} cases", report.cases);
    for (name, count) in &report.transitions {
        println!("  {count:>8} {name}");
    }
    for (seed, failures) in &report.failures {
        println!("case {seed}:");
        for failure in failures.iter().take(3) {
            println!("  {failure}");
        }
    }
    for row in coverage::table(&report.coverage, report.cases) {
        let mark = if row.is_missing() { "MISSING" } else { "" };
        println!(
            "  {:>8} of {:>4} {} {mark}",
            row.cases, row.required, row.point.name
        );
    }
    println!("{} failures", report.failures.len());
}

fn show(seed: u64, weights: &WeightArgs) -> ExitCode {
    let (failures, lines) = runner::log_of_seed(seed, weights.weights());
    for line in lines {
        println!("{line}");
    }
    for failure in &failures {
        println!("{failure}");
    }
    match failures.is_empty() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}

fn scripts(paths: &[PathBuf], log: bool) -> ExitCode {
    let mut code = ExitCode::SUCCESS;
    for path in paths {
        let level = log.then_some(tracing::Level::DEBUG);
        let result = Script::load(path).and_then(|script| logs::with(level, || script.run()));
        for line in logs::take_lines() {
            println!("{line}");
        }
        match result {
            Ok(()) => println!("{}: holds", path.display()),
            Err(error) => {
                println!("{}: {error:#}", path.display());
                code = ExitCode::FAILURE;
            }
        }
    }
    code
}
