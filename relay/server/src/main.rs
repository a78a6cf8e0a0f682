//! `firezone-relay`.

use std::process::ExitCode;

fn main() -> ExitCode {
    relay_server::run(std::env::args_os())
}
