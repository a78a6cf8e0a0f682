//! `bench`: macro benchmarks of the whole data plane, side by side with other WireGuard programs.
//!
//! One network of namespaces joined by veth pairs carries everything: our portal, relay, gateway and client as real
//! processes, a peer's two tunnel ends, and iperf3. Contenders take turns within one run, because a shared machine
//! drifts by tens of per cent within minutes: only figures of one interleaved run may be compared, by their ratio.
//!
//! | Module | Holds |
//! |---|---|
//! | [`network`] | hosts, cables, addresses |
//! | [`system`] | our processes |
//! | [`stage`] | a network with a system in it |
//! | [`peer`], [`uapi`] | other WireGuard programs |
//! | [`load`] | what is sent, and what came of it |
//! | [`iperf`], [`quic`], [`counters`], [`idle`] | the sources of figures |
//! | [`datagrams`] | many per system call |
//! | [`statistics`], [`chart`] | medians, ratios, bars |
//! | [`progress`] | what is going on, on stderr |
//! | [`throughput`], [`latency`], [`setup`], [`scale`] with [`swarm`], [`roam`] | the benchmarks |
//! | [`turn`] | through TURN servers: our relay beside coturn |
//!
//! A further benchmark is a module with a `clap::Args` and a `run`, and a variant of [`Benchmark`].

mod chart;
mod counters;
mod datagrams;
mod idle;
mod iperf;
mod latency;
mod load;
mod network;
mod peer;
mod progress;
mod quic;
mod roam;
mod scale;
mod setup;
mod stage;
mod statistics;
mod swarm;
mod system;
mod throughput;
mod turn;
mod uapi;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use demo::{interrupt, role};

/// Measures the data plane on this machine, in network namespaces joined by veth pairs.
///
/// Needs root or user namespaces, /dev/net/tun, the kernel module veth, and iperf3 in PATH.
#[derive(Debug, Parser)]
#[command(name = "bench", version)]
struct Arguments {
    #[command(subcommand)]
    benchmark: Benchmark,
}

#[derive(Debug, Subcommand)]
enum Benchmark {
    /// Bits per second, losses, CPU time and memory of TCP and UDP through client and gateway, and how they idle.
    Throughput(throughput::Options),
    /// Round-trip times through the tunnel, idle and under load.
    Latency(latency::Options),
    /// From the first packet of a fresh client to the first byte of the resource.
    Setup(setup::Options),
    /// Memory, wake-ups and shared throughput of one gateway with many clients.
    Scale(scale::Options),
    /// How long a client is away after it has changed its network.
    Roam(roam::Options),
    /// Load on TURN servers, and our relay side by side with coturn.
    #[command(subcommand)]
    Turn(turn::Command),
}

impl Benchmark {
    fn needs_namespaces(&self) -> bool {
        match self {
            Self::Throughput(_)
            | Self::Latency(_)
            | Self::Setup(_)
            | Self::Scale(_)
            | Self::Roam(_) => true,
            Self::Turn(command) => command.needs_namespaces(),
        }
    }
}

fn main() -> ExitCode {
    if let Some(code) = role::run_if_asked() {
        return code;
    }
    if let Some(code) = swarm::run_if_asked() {
        return code;
    }
    let arguments = Arguments::parse();
    if arguments.benchmark.needs_namespaces()
        && let Err(error) = testbed::isolate()
    {
        eprintln!("{error}");
        return ExitCode::FAILURE;
    }
    let result = interrupt::install().and_then(|()| match &arguments.benchmark {
        Benchmark::Throughput(options) => throughput::run(options),
        Benchmark::Latency(options) => latency::run(options),
        Benchmark::Setup(options) => setup::run(options),
        Benchmark::Scale(options) => scale::run(options),
        Benchmark::Roam(options) => roam::run(options),
        Benchmark::Turn(command) => turn::run(command),
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}
