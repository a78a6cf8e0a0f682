//! What the orchestrator can ask of the running worker: one JSON object per line each way, over stdin and stdout.

use std::net::{Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

/// A request to the worker.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case")]
pub(crate) enum Request {
    /// Drop everything between two hosts, on all networks.
    Block { a: String, b: String },
    /// Undo `Block`.
    Unblock { a: String, b: String },
    /// Forget the mappings and filter entries of an edge.
    FlushEdge { edge: String },
    /// Give a host's interface on a network other addresses; with none at all it is unplugged.
    Move {
        host: String,
        network: String,
        v4: Option<Ipv4Addr>,
        v6: Option<Ipv6Addr>,
    },
    /// Packets and bytes delivered from one host to another.
    Counters { from: String, to: String },
}

/// The worker's answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "kebab-case")]
pub(crate) enum Response {
    /// Done.
    Done,
    /// Answer to [`Request::Counters`].
    Counters { packets: u64, bytes: u64 },
    /// The request names something that does not exist.
    Error { message: String },
}
