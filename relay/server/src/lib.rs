//! The relay: a STUN and TURN server for clients and gateways that cannot reach each other directly.
//!
//! *Workers*, one thread each, own a part of the clients: a state machine of `relay-core` and all UDP sockets for it. They
//! run a batch of datagrams to completion at a time. The *control* thread talks to the portal, answers health checks and
//! waits for signals; busy traffic must not starve heartbeats, and a slow portal must not delay traffic.
#![deny(missing_docs)]

mod cli;
mod control;
mod health;
mod instruments;
mod mint;
mod otlp;
mod platform;
mod portal;
mod prometheus;
mod secret_file;
mod service;
mod shared;
mod statistics;
mod worker;
mod workers;

use std::{ffi::OsString, process::ExitCode};

use clap::Parser as _;

/// Runs the program with the given command line, its first element being the program's name.
///
/// Must be called before any thread exists: it takes the token out of the environment.
pub fn run(arguments: impl IntoIterator<Item = impl Into<OsString> + Clone>) -> ExitCode {
    let environment = phoenix_channel::driver::take_token_variable();
    let cli = match cli::Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => {
            // Nothing can be done about a closed stdout.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    let result = match &cli.command {
        Some(cli::Subcommand::MintCredentials(arguments)) => mint::run(arguments),
        Some(cli::Subcommand::RotateSecret(arguments)) => {
            secret_file::rotate(&arguments.stamp_secret_file)
        }
        None => service::run(cli, environment),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}
