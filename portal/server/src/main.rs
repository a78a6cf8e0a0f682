//! `firezone-portal`.

use std::process::ExitCode;

fn main() -> ExitCode {
    portal_server::run(std::env::args_os())
}
