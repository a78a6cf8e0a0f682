//! A23: every message to the portal is legal when it is sent.

use std::time::Duration;

use super::{Evidence, Failure, Memory};
use crate::{trace::Entry, transition::Component};

/// Access to one resource is asked for at most this often (tunnel §3.10).
const INTERVAL: Duration = Duration::from_secs(2);

pub(super) fn check(evidence: &Evidence<'_>, memory: &mut Memory, failures: &mut Vec<Failure>) {
    for (at, entry) in evidence.entries {
        match entry {
            Entry::ToPortal {
                from,
                event,
                resource,
                connected,
            } => {
                if !connected {
                    let text = format!("{at:?}: {from:?} sends {event} without a connection");
                    failures.push(Failure::new(23, text));
                }
                if let (Component::Client(client), Some(resource)) = (from, resource) {
                    intent(evidence, memory, *at, *client, *resource, failures);
                }
            }
            // A new channel or process starts over: what was asked on the old one is asked again.
            Entry::Restarted { client }
            | Entry::ChannelOpened {
                by: Component::Client(client),
            }
            | Entry::ChannelLost {
                of: Component::Client(client),
            } => {
                memory.intents.retain(|(of, _), _| of != client);
            }
            _ => {}
        }
    }
}

fn intent(
    evidence: &Evidence<'_>,
    memory: &mut Memory,
    at: Duration,
    client: usize,
    resource: usize,
    failures: &mut Vec<Failure>,
) {
    let model = &evidence.model.clients[client];
    if !model.active().any(|id| id == resource) {
        let text =
            format!("{at:?}: client {client} asks for resource {resource}, which is not active");
        failures.push(Failure::new(23, text));
    }
    let last = memory.intents.insert((client, resource), at);
    if last.is_some_and(|last| at - last < INTERVAL) {
        let text = format!("{at:?}: client {client} asks for resource {resource} again too soon");
        failures.push(Failure::new(23, text));
    }
}
