//! What a node does by itself: ends connections, passes on candidates, finds other relays.

use connlib_cover::cover;
use std::time::Instant;

use super::Node;
use crate::connection::Connection;
use crate::relays::RelayEvent;
use crate::schedule::Slot;
use crate::{Event, Id};

impl<P: Id, R: Id> Node<P, R> {
    /// Everything that follows from a change of relays: candidates, dead relays, connections without relay.
    pub(crate) fn relay_changes(&mut self, now: Instant) {
        self.pass_on_candidates(now);
        if self.relays.collect_garbage() {
            self.pass_on_candidates(now);
            if self.relays.len() == 0 {
                self.events.push(Event::NoRelays);
            }
        }
        self.migrate(now);
        self.relays.drain_transmits(&mut self.transmits);
    }

    /// Hands news of our addresses to the connections that they concern: relayed ones to those on that relay, others to all.
    pub(super) fn pass_on_candidates(&mut self, now: Instant) {
        while let Some(event) = self.relays.poll_event() {
            for slot in self.table.slots() {
                self.with_slot(slot, |connection, io| match &event {
                    RelayEvent::New { relay, candidate } => {
                        let is_relayed = candidate.kind() == is::CandidateKind::Relayed;
                        if !is_relayed || connection.relay() == *relay {
                            connection.add_local_candidate(candidate, now, io);
                        }
                    }
                    RelayEvent::Invalid { candidate, .. } => {
                        connection.remove_local_candidate(candidate, now, io);
                    }
                });
            }
        }
    }

    /// Finds another relay for connections whose own is gone (snownet §3.11).
    fn migrate(&mut self, now: Instant) {
        if self.relays.take_lost() {
            cover!("turn/all-relays-lost" if self.relays.len() == 0);
            let relays = &self.relays;
            let is_orphan = |c: &&Connection<P, R>| !relays.contains(c.relay());
            self.orphans = self
                .table
                .iter()
                .filter(is_orphan)
                .map(Connection::peer)
                .collect();
        }
        for peer in self.orphans.clone() {
            let Some(relay) = self.relays.sample() else {
                return;
            };
            cover!("connection/migrated");
            self.with_peer(peer, |c, io| c.migrate(relay, now, io));
            self.orphans.remove(&peer);
        }
    }

    pub(super) fn time_out(&mut self, slot: Slot, now: Instant) {
        let outcome = self.with_slot(slot, |c, io| Some((c.peer(), c.handle_timeout(now, io)?)));
        let Some(Some((peer, failure))) = outcome else {
            return;
        };
        tracing::info!(%peer, reason = %failure, "Connection failed");
        self.totals.failed += 1;
        let Some(mut connection) = self.take_out(peer) else {
            return;
        };
        self.events.push(Event::ConnectionFailed(peer));
        // The peer may well be there and only the path is gone, for instance after a suspend of the host.
        while let Some(packet) = connection.take_waiting(now) {
            self.events.push(Event::Undelivered { peer, packet });
        }
        // A relay that started again under its old identity has forgotten our allocation. Nobody is told, and until the
        // next regular REFRESH, minutes later, every new connection would fail in the same way.
        self.relays.probe(connection.relay(), now);
        self.relays.drain_transmits(&mut self.transmits);
    }

    pub(super) fn drop_closed(&mut self, peer: P) {
        if self.take_out(peer).is_some() {
            tracing::info!(%peer, "Connection closed");
            self.events.push(Event::ConnectionClosed(peer));
        }
    }

    /// Removes a connection with everything that refers to it.
    pub(super) fn take_out(&mut self, peer: P) -> Option<Connection<P, R>> {
        let connection = self.table.remove(peer)?;
        self.orphans.remove(&peer);
        self.indices.release(connection.indices());
        self.events.forget_candidates(peer);
        self.totals.retire(&connection);
        Some(connection)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::time::Duration;

    use super::*;
    use crate::{IceCredentials, PublicKey, RelayConfig, Role};

    #[test]
    fn everything_of_a_connection_goes_with_it() {
        let now = Instant::now();
        let mut node = Node::<u32, u32>::new(Role::Gateway, [1; 32], now, Duration::ZERO);
        let relay = RelayConfig {
            id: 1,
            v4: Some("192.0.2.1:3478".parse().expect("address")),
            v6: None,
            username: String::new(),
            password: String::new(),
            realm: String::new(),
        };
        node.update_relays(&BTreeSet::new(), &[relay], now);
        let credentials = |i: u32| IceCredentials::new(format!("u{i}"), "p").expect("valid");
        for round in 0..3 {
            for peer in 0..10 {
                let key = PublicKey([peer as u8 + 1; 32]);
                let ice = credentials(round * 100 + peer);
                node.upsert_connection(peer, key, [0; 32], ice.clone(), ice, now)
                    .expect("a relay is known");
            }
            assert_eq!(node.indices.used(), 20);
        }
        node.close_all(None, now);
        assert_eq!(node.indices.used(), 0);
        assert_eq!(node.table.poll_timeout(), None);
        assert_eq!(node.stats().connections, 0);
    }
}
