//! The end-to-end scenarios: real processes on the test network. A plain `main`, since namespaces must be entered
//! before threads exist and every process is this executable, started again.
//!
//! `cargo test -p e2e --test scenarios -- [part of a name]… [--list]`

mod both;
mod cleanup;
mod command_line;
mod idle;
mod packets;
mod policies;
mod relays;
mod restarts;
mod roaming;
mod steps;
mod support;
mod workers;

use std::process::ExitCode;

use e2e::case::Case;

/// The long ones first, so that nothing waits for them at the end.
const CASES: &[&[Case]] = &[
    idle::CASES,
    restarts::CASES,
    roaming::CASES,
    relays::CASES,
    workers::CASES,
    policies::CASES,
    cleanup::CASES,
    steps::CASES,
    packets::CASES,
    command_line::CASES,
];

fn main() -> ExitCode {
    if let Some(code) = e2e::role::run_if_asked() {
        return code;
    }
    e2e::runner::run(CASES)
}
