//! The part of the command line that all loads share.

use std::time::Duration;

use clap::builder::RangedU64ValueParser;

use crate::turn::{
    load::{Load, Pace, Sending},
    stamp::STAMP_BYTES,
};

/// Longest load in seconds: channels last for ten minutes, and nobody renews them here.
pub(crate) const MAX_SECONDS: u64 = 300;
/// Most allocations: a portion of the ports of one relay, and of anybody's file descriptors.
pub(crate) const MAX_ALLOCATIONS: u64 = 10_000;
/// Largest payload: with the channel header still one packet at MTU 1500.
const MAX_PAYLOAD: u64 = 1400;

/// How datagrams are sent.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct SendOptions {
    /// Length of a load in seconds.
    #[arg(long, default_value_t = 5, value_parser = RangedU64ValueParser::<u32>::new().range(1..=MAX_SECONDS))]
    pub(crate) seconds: u32,
    /// Send trains by UDP segmentation offload, as a bulk sender does, instead of separate packets.
    #[arg(long)]
    pub(crate) gso: bool,
    /// With a rate, packets leave in bursts this many microseconds apart.
    #[arg(long, default_value_t = 1000, value_name = "MICROSECONDS", value_parser = RangedU64ValueParser::<u32>::new().range(1..=100_000))]
    pub(crate) tick: u32,
    /// Refresh every allocation this often (seconds) beside the load, and report how long the server takes to answer.
    #[arg(long, value_name = "SECONDS", value_parser = RangedU64ValueParser::<u32>::new().range(1..=300))]
    pub(crate) refresh: Option<u32>,
    /// Have the last allocation send one packet this often (milliseconds) instead of its share, and report its latency by
    /// itself; needs two allocations.
    #[arg(long, value_name = "MILLISECONDS", value_parser = RangedU64ValueParser::<u32>::new().range(1..=10_000))]
    pub(crate) quiet: Option<u32>,
}

impl SendOptions {
    /// A load of this size and pace.
    pub(crate) fn load(&self, payload_bytes: usize, pace: Pace) -> Load {
        Load {
            payload_bytes,
            time: Duration::from_secs(self.seconds.into()),
            pace,
            sending: match self.gso {
                true => Sending::Trains,
                false => Sending::Separately,
            },
            tick: Duration::from_micros(self.tick.into()),
            refresh: self
                .refresh
                .map(|seconds| Duration::from_secs(seconds.into())),
            quiet: self.quiet.map(|it| Duration::from_millis(it.into())),
        }
    }
}

/// Parser of payload sizes.
pub(crate) fn payload_bytes() -> RangedU64ValueParser<usize> {
    RangedU64ValueParser::new().range(STAMP_BYTES as u64..=MAX_PAYLOAD)
}

/// Parser of numbers of allocations.
pub(crate) fn allocations() -> RangedU64ValueParser<usize> {
    RangedU64ValueParser::new().range(1..=MAX_ALLOCATIONS)
}
