//! What must hold (testing §5.8). Each assertion is a function from plain evidence to failures; none stops at the first
//! one, so that a failing case shows the whole picture.
//!
//! | File | Assertions |
//! |---|---|
//! | [`packets`] | A1–A8: probes and what becomes of them |
//! | [`paths`] | A1: direct where it can be |
//! | [`dns`] | A9–A11: queries |
//! | [`config`] | A12, A13, A20: resolvers, routes, resources |
//! | [`traffic`] | A14: idle traffic |
//! | [`quiet`] | A15, A18: relays and leaks |
//! | [`wire`] | A16, A17: single datagrams |
//! | [`time`] | A19: deadlines |
//! | [`tcp`] | A21: connections |
//! | [`crate::logs`] | A22: no `ERROR` event |
//! | [`signalling`] | A23: messages to the portal |

pub mod config;
pub mod dns;
pub mod packets;
pub mod paths;
pub mod quiet;
pub mod signalling;
pub mod tcp;
pub mod time;
pub mod traffic;
pub mod wire;

#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use connlib_model::{ResourceView, TunConfig};
use ip_packet::Protocol;

use crate::{
    model::{Expectations, Model, Reach},
    trace::Entry,
    transition::Component,
};

/// An assertion that does not hold.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Failure {
    /// Its number.
    pub assertion: u8,
    /// What is wrong.
    pub text: String,
}

impl Failure {
    /// A failure.
    pub fn new(assertion: u8, text: impl Into<String>) -> Self {
        let text = text.into();
        Self { assertion, text }
    }
}

/// What an assertion looks at.
#[derive(Debug, Clone, Copy)]
pub struct Evidence<'a> {
    /// The model after the transition.
    pub model: &'a Model,
    /// What the transition must have led to.
    pub expected: &'a Expectations,
    /// What was seen.
    pub entries: &'a [(Duration, Entry)],
    /// The system afterwards.
    pub snapshot: &'a Snapshot,
}

/// The running system as far as it can be seen from outside.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// Clients.
    pub clients: Vec<ClientSnapshot>,
    /// Clients that each gateway has connections with.
    pub gateway_connections: Vec<usize>,
    /// Allocations on each relay.
    pub allocations: Vec<usize>,
    /// Which relays run.
    pub relays_alive: Vec<bool>,
}

/// One client as far as it can be seen from outside.
#[derive(Debug, Clone, Default)]
pub struct ClientSnapshot {
    /// As its TUN device is set up.
    pub config: Option<TunConfig>,
    /// As it announced its resources.
    pub resources: Vec<ResourceView>,
    /// Its connections.
    pub connections: usize,
    /// Relays that it knows.
    pub relays: usize,
    /// Whether the portal has let it in.
    pub joined: bool,
}

/// What is remembered from one check to the next.
#[derive(Debug, Clone, Default)]
pub struct Memory {
    /// Which real address stood for a proxy address, and under which versions of the records.
    pub mappings: BTreeMap<(usize, IpAddr), (Mapped, IpAddr)>,
    /// Which real address flows to names went to at which gateway, and when they were seen last.
    pub flows: BTreeMap<Flow, BTreeMap<usize, (IpAddr, Duration)>>,
    /// Where packets of earlier transitions may arrive, where applications repeat them.
    pub probes: BTreeMap<u64, Reach>,
    /// When access was asked for last.
    pub intents: BTreeMap<(usize, usize), Duration>,
    /// Configuration announced last.
    pub configs: BTreeMap<usize, TunConfig>,
    /// List announced last.
    pub lists: BTreeMap<usize, Vec<ResourceView>>,
}

impl Memory {
    /// A5 is about one resolution. A client's process that starts again hands its proxy addresses out anew. One that asks for
    /// access again has lost its connection, and with it the mappings: the gateway resolves anew (tunnel §3.12).
    pub fn forget_mappings(&mut self, model: &Model, entries: &[(Duration, Entry)]) {
        for (_, entry) in entries {
            match entry {
                Entry::Restarted { client } => self.mappings.retain(|(of, _), _| of != client),
                Entry::ToPortal {
                    from: Component::Client(client),
                    resource: Some(resource),
                    ..
                } => {
                    let is_over = |name: &str| model.covers(*resource, name);
                    self.mappings
                        .retain(|(of, _), (mapped, _)| of != client || !is_over(&mapped.name));
                }
                _ => {}
            }
        }
    }

    /// Takes note of announcements and requests that are not judged.
    pub fn observe(&mut self, entries: &[(Duration, Entry)]) {
        for (at, entry) in entries {
            match entry {
                Entry::TunConfig { client, config } => {
                    self.configs.insert(*client, config.clone());
                }
                Entry::Resources { client, list } => {
                    self.lists.insert(*client, list.clone());
                }
                Entry::ToPortal {
                    from: Component::Client(client),
                    resource: Some(resource),
                    ..
                } => {
                    self.intents.insert((*client, *resource), *at);
                }
                _ => {}
            }
        }
    }
}

/// The state of a name's records that a mapping belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mapped {
    /// The name.
    pub name: String,
    /// Versions of the records so far.
    pub versions: usize,
    /// The version that the client announced last.
    pub announced: usize,
}

/// A flow of an application to a name, as the gateway tells flows apart (tunnel §5.5). A restarted client's proxy address may
/// be another name's: that is another flow.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Flow {
    /// Whose.
    pub client: usize,
    /// To what.
    pub name: String,
    /// The address that stands for it.
    pub proxy: IpAddr,
    /// The client's port or echo identifier.
    pub end: Protocol,
}

/// Everything that does not hold.
pub fn check(evidence: &Evidence<'_>, memory: &mut Memory) -> Vec<Failure> {
    let mut failures = Vec::new();
    for (at, entry) in evidence.entries {
        if let Entry::Violation { assertion, text } = entry {
            failures.push(Failure::new(*assertion, format!("{at:?}: {text}")));
        }
    }
    packets::check(evidence, memory, &mut failures);
    dns::check(evidence, &mut failures);
    config::check(evidence, memory, &mut failures);
    traffic::check(evidence, &mut failures);
    quiet::check(evidence, &mut failures);
    tcp::check(evidence, &mut failures);
    signalling::check(evidence, memory, &mut failures);
    failures
}
