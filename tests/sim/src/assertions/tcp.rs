//! A21: connections are established, live on and carry bytes; those to unreachable hosts are not.

use super::{Evidence, Failure};
use crate::trace::{Entry, TcpEvent};

pub(super) fn check(evidence: &Evidence<'_>, failures: &mut Vec<Failure>) {
    let events = |connection: usize| {
        evidence
            .entries
            .iter()
            .filter_map(move |(_, entry)| match entry {
                Entry::Tcp {
                    connection: of,
                    event,
                } if *of == connection => Some(event),
                _ => None,
            })
    };
    // With loss, a system may run out of the patience that it has (testing §5.2): its own attempts are bounded (§5.3).
    let is_impatient = |connection: usize| {
        evidence.model.is_lossy() && events(connection).any(|event| *event == TcpEvent::Closed)
    };
    let mut fail = |text: String| failures.push(Failure::new(21, text));
    for (connection, _, must) in &evidence.expected.opened {
        let is_established = events(*connection).any(|event| *event == TcpEvent::Established);
        if is_established != *must {
            fail(format!(
                "connection {connection}: established {is_established}"
            ));
        }
    }
    for connection in &evidence.expected.used {
        let bytes = events(*connection).any(|event| matches!(event, TcpEvent::Received(_)));
        if !bytes && !is_impatient(*connection) {
            fail(format!("connection {connection} carries no bytes"));
        }
    }
    for connection in 0..evidence.model.connections.len() {
        let is_closed = events(connection).any(|event| *event == TcpEvent::Closed);
        if evidence.model.is_open(connection) && is_closed && !is_impatient(connection) {
            fail(format!("connection {connection} ended"));
        }
    }
}
