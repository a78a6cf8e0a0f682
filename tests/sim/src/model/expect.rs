//! What a transition must lead to.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
};

use crate::dns::message::{Message, SERVER_FAILURE};
use crate::transition::{Destination, Protocol, Query};

/// Everything that a transition must lead to, and nothing else may.
#[derive(Debug, Clone, Default)]
pub struct Expectations {
    /// Packets of applications.
    pub probes: Vec<ExpectedProbe>,
    /// Queries of applications.
    pub queries: Vec<ExpectedQuery>,
    /// TCP connections that must be established (`true`), or must not.
    pub opened: Vec<(usize, Reach, bool)>,
    /// TCP connections on which bytes must travel.
    pub used: Vec<usize>,
    /// Time to wait for things that nobody announces, in milliseconds.
    pub settle_ms: u64,
    /// Paths may be lost: applications try again until they get through, and must do so in this many seconds.
    pub recovery_s: Option<u64>,
    /// A packet of the misbehaving client: its number, and whether a gateway may let it through.
    pub rogue: Option<(u64, bool)>,
    /// Virtual seconds of idling, for the traffic ceiling.
    pub idle_s: u64,
}

impl Expectations {
    /// Adds what a transition at the same time must lead to.
    pub fn merge(&mut self, other: Self) {
        self.probes.extend(other.probes);
        self.queries.extend(other.queries);
        self.opened.extend(other.opened);
        self.used.extend(other.used);
        self.settle_ms = self.settle_ms.max(other.settle_ms);
        self.recovery_s = self.recovery_s.max(other.recovery_s);
        self.rogue = self.rogue.or(other.rogue);
        self.idle_s += other.idle_s;
    }
}

/// A packet of an application.
#[derive(Debug, Clone)]
pub struct ExpectedProbe {
    /// Its number.
    pub number: u64,
    /// Who sends it.
    pub client: usize,
    /// Where to.
    pub to: Destination,
    /// What kind.
    pub how: Protocol,
    /// What may become of it; exactly one of these does.
    pub fates: Fates,
}

/// What may become of a packet.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fates {
    /// It arrives behind a gateway and is answered, or yields the error of an unreachable host.
    pub reach: Option<Reach>,
    /// "Administratively prohibited".
    pub refused: bool,
    /// "Network unreachable" (IPv4) or "address unreachable" (IPv6) from the gateway.
    pub no_family: bool,
    /// Nothing at all.
    pub silence: bool,
}

/// Where a packet arrives.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reach {
    /// At one of these gateways.
    pub gateways: BTreeSet<usize>,
    /// For one of these hosts.
    pub destinations: BTreeSet<IpAddr>,
}

/// A query of an application.
#[derive(Debug, Clone)]
pub struct ExpectedQuery {
    /// Its number.
    pub number: u64,
    /// Who asks.
    pub client: usize,
    /// What it asks, and how.
    pub query: Query,
    /// The server behind the sentinel that is asked.
    pub server: Option<SocketAddr>,
    /// Name and type of the question; no name if it depends on a proxy address.
    pub question: (Option<String>, u16),
    /// The answer.
    pub reply: Reply,
    /// Look-up outside the tunnel: whether there is one. `None`: either.
    pub via_host: Option<bool>,
}

/// The answer to a query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// This many proxy addresses of the question's family.
    Proxies(usize),
    /// The name of a proxy address.
    Pointer(String),
    /// Exactly these addresses, or none for other types.
    Records {
        /// Response code.
        code: u8,
        /// All addresses.
        addresses: BTreeSet<IpAddr>,
        /// Number of answers of other types.
        others: usize,
        /// Whether it must be cut.
        truncated: bool,
    },
    /// None.
    Silence,
}

impl ExpectedQuery {
    /// Whether a response is the last word. With loss, a resolver may say that it failed because it heard nothing.
    pub fn is_final(&self, response: &Message) -> bool {
        let is_failure = |code: u8| code == SERVER_FAILURE;
        let may_fail = matches!(self.reply, Reply::Records { code, .. } if is_failure(code));
        may_fail || !is_failure(response.code)
    }
}

impl Fates {
    /// Nothing at all.
    pub fn silence() -> Self {
        Self {
            silence: true,
            ..Self::default()
        }
    }

    /// Whether the application hears something in any case.
    pub fn is_answered(&self) -> bool {
        !self.silence
    }
}
