//! What the relay tells about itself, under the same names to whoever scrapes and to collectors (relay spec §3.6).
//!
//! Labels come from fixed sets only: nothing that a client chooses.

use crate::statistics::Statistics;

/// One metric.
pub(crate) struct Instrument {
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    pub(crate) description: &'static str,
    read: fn(&Statistics) -> Vec<Reading>,
}

/// How a metric's values follow each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Only grows while the process lives.
    Counter,
    /// Goes up and down.
    Gauge,
}

/// One value of a metric.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reading {
    pub(crate) labels: Vec<(&'static str, String)>,
    pub(crate) value: u64,
}

impl Instrument {
    /// The values of this metric, one for each combination of labels that occurred.
    pub(crate) fn read(&self, statistics: &Statistics) -> Vec<Reading> {
        (self.read)(statistics)
    }
}

/// All metrics.
pub(crate) const INSTRUMENTS: [Instrument; 14] = [
    gauge(
        "relay_active_allocations",
        "Allocations that exist",
        |statistics| single(statistics.allocations as u64),
    ),
    gauge(
        "relay_bound_channels",
        "Channels that pass on data",
        |statistics| single(statistics.channels as u64),
    ),
    counter(
        "relay_relayed_bytes_total",
        "Payload passed on, both directions, without channel headers",
        |statistics| single(statistics.relay.relayed_bytes),
    ),
    counter(
        "relay_relayed_packets_total",
        "Datagrams passed on, both directions",
        |statistics| single(statistics.relay.relayed_packets),
    ),
    counter(
        "relay_hairpinned_bytes_total",
        "Payload from one allocation of this relay to another",
        |statistics| single(statistics.relay.hairpinned_bytes),
    ),
    counter(
        "relay_rate_limited_replies_total",
        "Replies withheld because their source asked too often",
        |statistics| single(statistics.relay.rate_limited),
    ),
    counter(
        "relay_policy_refusals_total",
        "Peers refused by the peer policy",
        |statistics| single(statistics.relay.policy_refusals),
    ),
    counter(
        "relay_bind_failures_total",
        "Ports of allocations that could not be bound",
        |statistics| single(statistics.relay.bind_failures),
    ),
    counter("relay_responses_total", "Replies", responses),
    counter("relay_drops_total", "Datagrams not passed on", drops),
    counter(
        "relay_sent_datagrams_total",
        "Datagrams handed to the kernel",
        |statistics| single(statistics.io.sent.datagrams),
    ),
    counter(
        "relay_send_calls_total",
        "System calls that sent them",
        |statistics| single(statistics.io.sent.calls),
    ),
    counter(
        "relay_received_trains_total",
        "Datagrams, or trains of them that the kernel joined, taken from it",
        |statistics| single(statistics.io.received_trains),
    ),
    counter(
        "relay_receive_calls_total",
        "System calls that received them",
        |statistics| single(statistics.io.receive_calls),
    ),
];

const fn gauge(
    name: &'static str,
    description: &'static str,
    read: fn(&Statistics) -> Vec<Reading>,
) -> Instrument {
    let kind = Kind::Gauge;
    Instrument {
        name,
        kind,
        description,
        read,
    }
}

const fn counter(
    name: &'static str,
    description: &'static str,
    read: fn(&Statistics) -> Vec<Reading>,
) -> Instrument {
    let kind = Kind::Counter;
    Instrument {
        name,
        kind,
        description,
        read,
    }
}

fn single(value: u64) -> Vec<Reading> {
    let labels = Vec::new();
    vec![Reading { labels, value }]
}

fn responses(statistics: &Statistics) -> Vec<Reading> {
    let responses = &statistics.relay.responses;
    let readings = responses.iter().map(|((message, code), count)| {
        let (class, code) = match code {
            None => ("success", String::new()),
            Some(code) => ("error", code.to_string()),
        };
        let labels = vec![
            ("message_type", message.name().to_owned()),
            ("response_class", class.to_owned()),
            ("error_code", code),
        ];
        Reading {
            labels,
            value: *count,
        }
    });
    readings.collect()
}

fn drops(statistics: &Statistics) -> Vec<Reading> {
    let (drops, io) = (&statistics.relay.drops, &statistics.io);
    let reasons = [
        ("malformed", drops.malformed),
        ("no_channel", drops.no_channel),
        ("unknown_peer", drops.unknown_peer),
        ("oversized", drops.oversized),
        ("bad_source", drops.bad_source),
        ("over_limit", drops.over_limit),
        ("queue_full", io.sent.queue_full),
        ("refused", io.sent.refused),
        ("receive_buffer_full", io.receive_overruns),
        ("sibling_busy", io.sibling_busy),
    ];
    let readings = reasons.into_iter().map(|(reason, value)| Reading {
        labels: vec![("reason", reason.to_owned())],
        value,
    });
    readings.collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_tell_instruments_apart_and_say_which_ones_grow() {
        let names: BTreeSet<_> = INSTRUMENTS.iter().map(|it| it.name).collect();
        assert_eq!(names.len(), INSTRUMENTS.len());
        for instrument in &INSTRUMENTS {
            let is_counter = instrument.kind == Kind::Counter;
            assert_eq!(instrument.name.ends_with("_total"), is_counter);
        }
    }
}
