//! `packet-cost`: what one packet of 1280 bytes costs in client, gateway and relay, without the kernel.
//!
//! Instructions are the stable figure: they are the same on a busy machine, so a budget can hold them. Nanoseconds are
//! what counts in the end; they are only ever compared within one run.
//!
//! | Module | Holds |
//! |---|---|
//! | [`case`] | the list of what is measured |
//! | [`world`], [`packets`] | connected clients, gateway, relay in virtual time; what they carry |
//! | [`cipher`], [`wireguard`], [`tunnel`], [`decide`], [`relay`] | the work |
//! | [`valgrind`], [`stepping`] | counting instructions |
//! | [`budget`] | how many there may be |
//! | [`clock`] | nanoseconds |
#![allow(
    clippy::disallowed_methods,
    reason = "virtual time begins at an instant, which only the clock can make"
)]

mod budget;
mod case;
mod cipher;
mod clock;
mod decide;
mod packets;
mod relay;
mod stepping;
mod tunnel;
mod valgrind;
mod wireguard;
mod world;

use std::{collections::BTreeMap, process::ExitCode};

use anyhow::{Context, Result, ensure};
use clap::{Parser, Subcommand};

use case::{CASES, Case, Measured};

/// Instructions per packet, by name of the case.
type Counts = BTreeMap<&'static str, f64>;

/// What one packet of 1280 bytes costs in client, gateway and relay, without the kernel.
#[derive(Debug, Parser)]
#[command(
    name = "packet-cost",
    after_help = "\
Examples:
  packet-cost count                  instructions per packet, against the budget (needs valgrind, takes a minute)
  packet-cost count 'client seal'    only the cases whose name contains this
  packet-cost count --write          make what is measured now the budget
  packet-cost time                   nanoseconds per packet, and how many more than the bare cipher
  packet-cost time 'gateway seal, any of'    a packet for any of 10, 1000, 100 000 clients (five minutes, 17 GB)
  packet-cost count 'gateway seal, any of'   the same in instructions, stepped one by one"
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Names of the cases.
    List,
    /// Counts instructions per packet and compares them with the budget.
    ///
    /// With valgrind. Cases of crowds of clients, which have no budget, step through them instead.
    Count {
        /// Only cases whose name contains this.
        filter: Option<String>,
        /// Write the budget file anew.
        #[arg(long)]
        write: bool,
    },
    /// Measures nanoseconds per packet, all cases taking turns.
    Time {
        /// Only cases whose name contains this (and the bare cipher).
        filter: Option<String>,
        /// Turns of each case.
        #[arg(long, default_value_t = 300)]
        rounds: usize,
    },
    /// Does the work of one case, for who counts its instructions.
    #[command(hide = true)]
    Run {
        name: String,
        #[arg(long)]
        rounds: usize,
        /// By steps, not by valgrind.
        #[arg(long)]
        stepped: bool,
    },
}

fn main() -> ExitCode {
    match run(Arguments::parse().command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<ExitCode> {
    match command {
        Command::List => {
            for case in CASES {
                println!("{}", case.name);
            }
        }
        Command::Count { filter, write } => return count(filter.as_deref(), write),
        Command::Time { filter, rounds } => clock::run(filter.as_deref(), rounds),
        Command::Run {
            name,
            rounds,
            stepped,
        } => {
            let case = Case::find(&name).with_context(|| format!("no case `{name}`"))?;
            match stepped {
                true => stepping::work(case, rounds)?,
                false => valgrind::work(case, rounds),
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn count(filter: Option<&str>, write: bool) -> Result<ExitCode> {
    ensure!(
        !cfg!(debug_assertions),
        "cannot run: built without optimisation; instructions are counted in release builds"
    );
    let (counts, counter) = match names_crowd(filter) {
        true => (count_all(filter, stepping::count)?, "stepped".to_owned()),
        false => {
            let Some(version) = valgrind::version() else {
                anyhow::bail!(
                    "cannot run: valgrind is missing; install it with `apt-get install valgrind`"
                );
            };
            (count_all(filter, valgrind::count)?, version)
        }
    };
    let budget = budget::Budget::read()?;
    print!("{}", budget.table(&counts, &counter));
    if write {
        budget.with(&counts).write()?;
        return Ok(ExitCode::SUCCESS);
    }
    Ok(match budget.is_kept(&counts) {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}

/// Counts all wanted cases, and the bare cipher that they contain.
fn count_all(filter: Option<&str>, count: fn(&Case) -> Result<f64>) -> Result<Counts> {
    let mut counts = Counts::new();
    for case in CASES.iter().filter(|case| is_wanted(case, filter)) {
        eprintln!("counting {}", case.name);
        counts.insert(case.name, count(case)?);
    }
    Ok(counts)
}

/// Whether a case was asked for, or is the ground that others stand on.
fn is_wanted(case: &Case, filter: Option<&str>) -> bool {
    let is_named = filter.is_none_or(|filter| case.name.contains(filter));
    let is_ready = case.measured == Measured::Always || names_crowd(filter);
    case.is_cipher() || (is_named && is_ready)
}

/// Whether crowds of clients were asked for.
fn names_crowd(filter: Option<&str>) -> bool {
    filter.is_some_and(|filter| filter.contains(", any of"))
}
