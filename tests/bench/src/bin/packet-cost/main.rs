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
//! | [`valgrind`] | counting instructions |
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
mod tunnel;
mod valgrind;
mod wireguard;
mod world;

use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use clap::{Parser, Subcommand};

use case::{CASES, Case};

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
  packet-cost time 'gateway seal, any of'    a packet for any of 10, 1000, 100 000 clients (five minutes, 17 GB)"
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Names of the cases.
    List,
    /// Counts instructions per packet with valgrind and compares them with the budget.
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
    /// Does the work of one case, under valgrind.
    #[command(hide = true)]
    Run {
        name: String,
        #[arg(long)]
        rounds: usize,
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
        Command::Run { name, rounds } => {
            let case = Case::find(&name).with_context(|| format!("no case `{name}`"))?;
            valgrind::work(case, rounds);
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn count(filter: Option<&str>, write: bool) -> Result<ExitCode> {
    ensure!(
        !cfg!(debug_assertions),
        "cannot run: built without optimisation; instructions are counted in release builds"
    );
    let Some(version) = valgrind::version() else {
        anyhow::bail!(
            "cannot run: valgrind is missing; install it with `apt-get install valgrind`"
        );
    };
    let counts = valgrind::count_all(filter)?;
    let budget = budget::Budget::read()?;
    print!("{}", budget.table(&counts, &version));
    if write {
        budget.with(&counts).write()?;
        return Ok(ExitCode::SUCCESS);
    }
    Ok(match budget.is_kept(&counts) {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}

/// Whether a case was asked for.
fn is_wanted(case: &Case, filter: Option<&str>) -> bool {
    filter.is_none_or(|filter| case.name.contains(filter))
}
