//! What a script expects beyond the model.

use std::time::Duration;

use anyhow::{Result, bail, ensure};
use connlib_tunnel::PathKind;
use serde::{Deserialize, Serialize};

use crate::{
    case::{Case, answered_probes},
    trace::{Entry, TcpEvent},
    transition::Component,
};

/// An expectation beyond the model. What is counted is counted over the step before, recovery included.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Expect {
    /// All connections of a client have a path without a relay.
    Direct {
        /// Which client.
        client: usize,
    },
    /// All connections of a client have a path through a relay.
    Relayed {
        /// Which client.
        client: usize,
    },
    /// All connections of a client go straight to an address that the gateway has on its relay.
    RelayedByGateway {
        /// Which client.
        client: usize,
    },
    /// A client has this many connections.
    Connections {
        /// Which client.
        client: usize,
        /// How many.
        count: usize,
    },
    /// Every packet and connection of the step before was answered this soon.
    AnsweredWithin {
        /// Milliseconds.
        ms: u64,
    },
    /// A component sent this many messages of a kind to the portal.
    Messages {
        /// Who.
        from: Component,
        /// The message's name.
        event: String,
        /// How many.
        count: usize,
    },
    /// A client or gateway opened this many new channels to the portal by itself.
    NewChannels {
        /// Who.
        of: Component,
        /// How many.
        count: usize,
    },
    /// A client had its TUN device set up this many times.
    TunConfigs {
        /// Which client.
        client: usize,
        /// How many.
        count: usize,
    },
}

impl Expect {
    /// Compares with what was seen last and with the system as it is.
    ///
    /// # Errors
    ///
    /// It does not hold.
    pub fn check(&self, case: &Case) -> Result<()> {
        match self {
            Self::Direct { client } => has_paths(case, *client, PathKind::is_direct),
            Self::Relayed { client } => has_paths(case, *client, |path| !path.is_direct()),
            Self::RelayedByGateway { client } => {
                has_paths(case, *client, |path| path == PathKind::PeerToRelay)
            }
            Self::Connections { client, count } => {
                let is = case.world.snapshot().clients[*client].connections;
                expect_count(is, *count)
            }
            Self::AnsweredWithin { ms } => answered_within(case, Duration::from_millis(*ms)),
            Self::Messages { from, event, count } => {
                let is_meant = |entry: &Entry| matches!(entry, Entry::ToPortal { from: by, event: name, .. } if by == from && name == event);
                expect_count(count_entries(case, is_meant), *count)
            }
            Self::NewChannels { of, count } => {
                let is_meant =
                    |entry: &Entry| matches!(entry, Entry::ChannelOpened { by } if by == of);
                expect_count(count_entries(case, is_meant), *count)
            }
            Self::TunConfigs { client, count } => {
                let is_meant = |entry: &Entry| matches!(entry, Entry::TunConfig { client: of, .. } if of == client);
                expect_count(count_entries(case, is_meant), *count)
            }
        }
    }
}

fn has_paths(case: &Case, client: usize, is_meant: impl Fn(PathKind) -> bool) -> Result<()> {
    let paths = case.world.paths(client);
    let ok = paths.iter().all(|(path, _)| is_meant(*path));
    ensure!(ok && !paths.is_empty(), "paths are {paths:?}");
    Ok(())
}

fn count_entries(case: &Case, is_meant: impl Fn(&Entry) -> bool) -> usize {
    let entries = case.last.entries.iter();
    entries.filter(|(_, entry)| is_meant(entry)).count()
}

fn expect_count(is: usize, expected: usize) -> Result<()> {
    ensure!(is == expected, "there are {is}");
    Ok(())
}

fn answered_within(case: &Case, limit: Duration) -> Result<()> {
    let entries = &case.last.entries;
    let expected = &case.last.expected;
    let probes = expected.probes.iter().map(|probe| probe.number);
    let probes: Vec<u64> = probes.collect();
    let connections: Vec<usize> = expected
        .opened
        .iter()
        .map(|(connection, _, _)| *connection)
        .chain(expected.used.iter().copied())
        .collect();
    ensure!(
        !(probes.is_empty() && connections.is_empty()),
        "nothing was to be answered"
    );
    for probe in probes {
        let sent = entries.iter().find(
            |(_, entry)| matches!(entry, Entry::Request { probe: number, .. } if *number == probe),
        );
        let Some((sent, _)) = sent else {
            bail!("probe {probe} was not sent");
        };
        let in_time: Vec<_> = entries
            .iter()
            .take_while(|(at, _)| *at <= *sent + limit)
            .cloned()
            .collect();
        let answered = answered_probes(&in_time).contains(&probe);
        ensure!(answered, "probe {probe} is not answered in time");
    }
    for connection in connections {
        let first = entries.iter().find_map(|(at, entry)| match entry {
            Entry::Tcp {
                connection: of,
                event: TcpEvent::Established | TcpEvent::Received(_),
            } if *of == connection => Some(*at - case.last.start),
            _ => None,
        });
        let in_time = first.is_some_and(|after| after <= limit);
        ensure!(
            in_time,
            "connection {connection} is answered after {first:?}"
        );
    }
    Ok(())
}
