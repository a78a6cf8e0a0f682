//! The client without a window: connects a machine to its resources, under a supervisor or by hand.
#![deny(missing_docs)]

mod cli;
mod client;
mod configure;

use std::{ffi::OsString, process::ExitCode};

use clap::Parser as _;

/// Environment variable with the token.
const TOKEN_VARIABLE: &str = "FIREZONE_TOKEN";

/// Runs the program with the given command line, its first element being the program's name.
///
/// Must be called before any thread exists: it takes the token out of the environment.
pub fn run(arguments: impl IntoIterator<Item = impl Into<OsString> + Clone>) -> ExitCode {
    let token = take_token();
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

/// Takes the token out of the environment, where children and other users could see it.
fn take_token() -> Option<String> {
    let token = std::env::var(TOKEN_VARIABLE).ok();
    // SAFETY: no other thread exists yet, see `run`.
    unsafe { std::env::remove_var(TOKEN_VARIABLE) };
    token
}
