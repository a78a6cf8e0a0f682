//! The client without a window: connects a machine to its resources, under a supervisor or by hand.
#![deny(missing_docs)]

mod cli;
mod client;
mod configure;

use std::{ffi::OsString, process::ExitCode};

use clap::Parser as _;

/// Runs the program with the given command line, its first element being the program's name.
///
/// Must be called before any thread exists: it takes the token out of the environment.
pub fn run(arguments: impl IntoIterator<Item = impl Into<OsString> + Clone>) -> ExitCode {
    let token = phoenix_channel::driver::take_token_variable();
    let cli = match cli::Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => {
            // Nothing can be done about a closed stdout.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    match client::run(cli, token) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}
