//! `firezone-headless-client`.

use std::process::ExitCode;

fn main() -> ExitCode {
    headless_client::run(std::env::args_os())
}
