//! `demo`: see the system at work on this machine.

use std::{process::ExitCode, thread, time::Duration};

use anyhow::Result;
use clap::Parser;
use demo::{
    interrupt,
    report::{Format, Reporter},
    role,
    scenario::Scenario,
    steps::{self, Ending, Options},
    system::System,
};

/// Starts portal, relay, gateway, client and a private web server as real processes, each in a network namespace of its
/// own, with NATs, latency and loss between them, and reaches the private web server through all of it.
///
/// Needs no root where user namespaces are allowed. Ctrl-C leaves nothing behind.
#[derive(Debug, Parser)]
#[command(name = "demo", version)]
struct Arguments {
    /// The network between client and gateway.
    #[arg(long, value_enum, default_value = "direct")]
    scenario: Scenario,
    /// Leave the system running afterwards and print how to enter each namespace.
    #[arg(long)]
    keep: bool,
    /// Open a shell on this host (client, gateway, relay, portal, web) afterwards.
    #[arg(long, value_name = "HOST")]
    shell: Option<String>,
    /// Print the results as JSON.
    #[arg(long)]
    json: bool,
}

fn main() -> ExitCode {
    if let Some(code) = role::run_if_asked() {
        return code;
    }
    let arguments = Arguments::parse();
    if let Err(error) = testbed::isolate() {
        eprintln!("{error}");
        return ExitCode::FAILURE;
    }
    match run(&arguments) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<bool> {
    interrupt::install()?;
    let format = match arguments.json {
        true => Format::Json,
        false => Format::Table,
    };
    let mut reporter = Reporter::new(format);
    let mut system = System::new(arguments.scenario)?;
    if let Some(host) = &arguments.shell {
        // A misspelt name is told before the work, not after it.
        system.testbed().host(host)?;
    }
    let mut options = Options::of(arguments.scenario);
    if arguments.keep || arguments.shell.is_some() {
        options.ending = Ending::KeepRunning;
    }
    steps::run(&mut system, &mut reporter, options)?;
    let summary = reporter.conclude(arguments.scenario);

    if let Some(host) = &arguments.shell {
        let shell = std::env::var_os("SHELL").unwrap_or_else(|| "/bin/sh".into());
        println!("\nA shell on `{host}`; leave it with `exit`.");
        system.testbed().host(host)?.command(shell).status()?;
    } else if arguments.keep {
        keep(&system)?;
    }
    system.stop();
    Ok(summary.ok)
}

/// Prints how to get in, and waits for Ctrl-C.
fn keep(system: &System) -> Result<()> {
    println!("\nThe system keeps running. Enter a host from another terminal:");
    for host in system.testbed().hosts() {
        println!("  {:<9} {}", host.name(), host.enter_hint());
    }
    println!("\nLogs are in {}.", system.directory().display());
    println!("Ctrl-C ends everything.");
    while !interrupt::is_pending() {
        thread::sleep(Duration::from_millis(100));
    }
    Ok(())
}
