//! Load on TURN servers, and our relay side by side with coturn.
//!
//! | Module | Holds |
//! |---|---|
//! | [`command`] | `turn load`: one server, one load |
//! | [`compare`], [`report`] | `turn compare`: ours and coturn in turn; the table |
//! | [`hold`] | `turn hold`: what idle allocations cost |
//! | [`options`] | what several commands accept |
//! | [`place`], [`network`], [`server`], [`portal`] | where a load happens: two hosts, ours or coturn on one of them |
//! | [`client`], [`credentials`], [`flows`] | allocations, channels, peers |
//! | [`load`], [`stamp`], [`tally`], [`histogram`], [`refresher`] | the generator |
//! | [`session`], [`search`] | measurements: a load and its cost; the highest rate without loss |

mod client;
mod command;
mod compare;
mod credentials;
mod flows;
mod histogram;
mod hold;
mod load;
mod network;
mod options;
mod place;
mod portal;
mod refresher;
mod report;
mod search;
mod server;
mod session;
mod stamp;
mod tally;

use anyhow::Result;

/// Command line of `bench turn`.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Load one TURN server: rate, loss, latency, and the server's CPU.
    Load(command::Options),
    /// Hold idle allocations: the memory and CPU time that they cost the server.
    Hold(hold::Options),
    /// Load our relay and coturn in turn, and print the ratios of forwarded packets and of CPU time.
    Compare(compare::Options),
}

impl Command {
    /// Whether it makes a network of its own.
    pub(crate) fn needs_namespaces(&self) -> bool {
        match self {
            Self::Load(options) => !options.server.is_on_loopback(),
            Self::Hold(options) => !options.server.is_on_loopback(),
            Self::Compare(_) => true,
        }
    }
}

/// Runs one of them.
pub(crate) fn run(command: &Command) -> Result<()> {
    match command {
        Command::Load(options) => command::run(options),
        Command::Hold(options) => hold::run(options),
        Command::Compare(options) => compare::run(options),
    }
}
