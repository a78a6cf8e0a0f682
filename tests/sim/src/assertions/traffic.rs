//! A14: an idle system is quiet (design row 35).

use std::time::Duration;

use super::{Evidence, Failure, Snapshot};
use crate::{
    trace::{Class, Entry, Wire},
    transition::Component,
};

/// Datagrams per second at most.
const PER_SECOND: u64 = 2;
/// Nothing is said about short pauses: the end of what went before is still under way.
const MIN_IDLE: u64 = 120;
/// After this long everybody has noticed.
const SETTLING: Duration = Duration::from_secs(60);
/// The ICE agent's period for live pairs, and ours for relays.
const PERIOD: u64 = 25;
/// Live pairs of one connection at most: host and reflexive candidates of two families, and relayed ones.
const MAX_PAIRS: u64 = 8;
/// Refreshes, renewals and channel bindings in six minutes, generously.
const EXTRA: u64 = 60;
/// A connection whose candidates change is active for 20 s (snownet §3.10), and what it has set off goes on for a moment.
const AWAKE: Duration = Duration::from_secs(25);
/// A data message of WireGuard without content.
const KEEPALIVE_LEN: usize = 32;
/// In front of whatever travels through a relay.
const CHANNEL_HEADER_LEN: usize = 4;

/// Whether a packet travels in the datagram, and not just WireGuard's own keep-alive.
fn is_packet(wire: &Wire) -> bool {
    match wire.class {
        Class::WireGuard(kind) => kind == 4 && wire.len > KEEPALIVE_LEN,
        Class::Channel(kind) => kind == 4 && wire.len > CHANNEL_HEADER_LEN + KEEPALIVE_LEN,
        Class::Stun | Class::ChannelStun | Class::Other => false,
    }
}

/// Connections that either end has: one whose client is gone, or is the misbehaving one, is known to its gateway alone.
fn connections(snapshot: &Snapshot) -> u64 {
    let of_clients: usize = snapshot.clients.iter().map(|c| c.connections).sum();
    let of_gateways: usize = snapshot.gateway_connections.iter().sum();
    of_clients.max(of_gateways) as u64
}

/// When candidates changed: a relay that has forgotten an allocation is noticed when that is refreshed, long after. Once for
/// each relay; whoever announces candidates again and again is not idle and has no excuse.
fn awake(evidence: &Evidence<'_>, relays: u64) -> Vec<Duration> {
    let mut awake: Vec<Duration> = Vec::new();
    for (at, entry) in evidence.entries {
        let announces =
            matches!(entry, Entry::ToPortal { event, .. } if event.contains("candidates"));
        if announces && awake.last().is_none_or(|since| *at - *since >= AWAKE) {
            awake.push(*at);
        }
    }
    awake.truncate(relays as usize);
    awake
}

pub(super) fn check(evidence: &Evidence<'_>, failures: &mut Vec<Failure>) {
    let idle = evidence.expected.idle_s;
    if idle < MIN_IDLE || evidence.model.is_lossy() || !evidence.expected.probes.is_empty() {
        return;
    }
    let wires: Vec<_> = evidence
        .entries
        .iter()
        .filter_map(|(_, entry)| match entry {
            Entry::Wire(wire) if !matches!(wire.from, Component::Relay(_)) => Some(wire),
            _ => None,
        })
        .collect();
    let connections = connections(evidence.snapshot);
    let nodes = evidence.snapshot.clients.len() + evidence.snapshot.gateway_connections.len();
    let nodes = nodes as u64 + u64::from(evidence.model.rogue.is_some());
    let relays = evidence
        .snapshot
        .relays_alive
        .iter()
        .filter(|alive| **alive)
        .count() as u64;

    let ceiling = PER_SECOND * (connections + nodes) * idle;
    if wires.len() as u64 > ceiling {
        let sent = wires.len();
        failures.push(Failure::new(
            14,
            format!("{sent} datagrams in {idle} s with {connections} connections"),
        ));
    }
    let Some(start) = wires.first().map(|wire| wire.at + SETTLING) else {
        return;
    };
    let awake = awake(evidence, relays);
    let is_awake = |at: Duration| {
        awake
            .iter()
            .any(|since| at >= *since && at - *since < AWAKE)
    };
    let late: Vec<_> = wires
        .iter()
        .filter(|wire| wire.at >= start && !is_awake(wire.at))
        .collect();
    // Keep-alives and repetitions of applications, also on connections of which the model knows nothing any more, wake the
    // tunnel: that is no idle.
    if late.iter().any(|wire| is_packet(wire)) {
        return;
    }
    let late = late.len() as u64;
    let periods = idle.saturating_sub(SETTLING.as_secs()) / PERIOD + 1;
    let budget = periods * (4 * MAX_PAIRS * connections + 2 * relays * nodes)
        + EXTRA * (nodes + connections) * (1 + idle / 360);
    if late > budget {
        failures.push(Failure::new(
            14,
            format!("{late} datagrams after the first minute of {idle} s; {budget} are allowed"),
        ));
    }
}
