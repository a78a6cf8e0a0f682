//! The programs of the system, inside one executable: the demo and the tests start themselves again with a role.

use std::{net::IpAddr, process::ExitCode};

use clap::Parser as _;

use crate::{http_server, probe};

/// First argument of a process that plays a role.
pub const ROLE_ARGUMENT: &str = "__role";

/// Plays the role that the command line names; returns `None` if it names none. Call first thing in `main`.
pub fn run_if_asked() -> Option<ExitCode> {
    if let Some(code) = testbed::run_worker_if_asked() {
        return Some(code);
    }
    let mut arguments = std::env::args();
    let program = arguments.next().unwrap_or_default();
    if arguments.next().as_deref() != Some(ROLE_ARGUMENT) {
        return None;
    }
    let role = arguments.next().unwrap_or_default();
    let rest = std::iter::once(program)
        .chain(arguments)
        .collect::<Vec<_>>();
    Some(match role.as_str() {
        "portal" => portal_server::run(rest),
        "relay" => relay_server::run(rest),
        "gateway" => gateway::run(rest),
        "client" => headless_client::run(rest),
        "web" => report(serve(&rest[1..])),
        "probe" => report(probe_command(rest)),
        other => {
            eprintln!("unknown role `{other}`");
            ExitCode::from(2)
        }
    })
}

fn report(result: anyhow::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn serve(addresses: &[String]) -> anyhow::Result<()> {
    let addresses = addresses
        .iter()
        .map(|text| Ok(text.parse::<IpAddr>()?))
        .collect::<anyhow::Result<Vec<_>>>()?;
    http_server::serve(&addresses, 80)
}

#[derive(clap::Parser)]
struct ProbeCommand {
    #[command(subcommand)]
    probe: probe::Probe,
}

fn probe_command(arguments: Vec<String>) -> anyhow::Result<()> {
    probe::run(ProbeCommand::try_parse_from(arguments)?.probe)
}
