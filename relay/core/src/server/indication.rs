//! Send and Data indications: datagrams without a channel (RFC 8656 §11). Open profile only; elsewhere they are dropped.

use std::time::Instant;

use connlib_stun::{Envelope, Indication, Method, TransactionId, attribute};
use rand::Rng as _;

use crate::{
    address::{AllocationPort, ClientSocket, PeerSocket},
    server::{Command, Forwarder, Route, Server, Train, data::Tally},
};

/// Largest payload of a Data indication: leaves room for the header and both attributes in any datagram.
const MAX_DATA: usize = 65_000;

impl Server {
    /// A Send indication of a client whose allocation has a permission for the peer; anything else is dropped.
    pub(super) fn handle_indication(
        &mut self,
        client: ClientSocket,
        envelope: &Envelope<'_>,
        now: Instant,
        tally: &mut Tally,
        out: &mut impl Forwarder,
    ) {
        if !self.is_open_profile() || envelope.method() != Method::Send {
            self.counters.drops.malformed += 1;
            return;
        }
        let Ok(Indication::Send { peer, .. }) = Indication::decode(envelope) else {
            self.counters.drops.malformed += 1;
            return;
        };
        let peer = PeerSocket::new(peer);
        let Some(port) = self.permitted_port(client, peer, now) else {
            self.counters.drops.no_channel += 1;
            return;
        };
        let data = envelope.attribute(attribute::DATA).unwrap_or_default();
        if tally.admits(data) {
            self.forward_send((port, peer), data, now, tally, out);
        }
    }

    /// A datagram from somebody whom no channel is bound to: a Data indication if there is a permission.
    pub(super) fn handle_unbound_peer(
        &mut self,
        port: AllocationPort,
        peer: PeerSocket,
        train: Train<'_>,
        now: Instant,
    ) {
        let client = self.allocations.client_of(port);
        match client.filter(|client| self.permitted_port(*client, peer, now).is_some()) {
            Some(client) => {
                let mut tally = self.tally(client, now);
                for payload in train.datagrams() {
                    if tally.admits(payload) {
                        self.indicate(client, peer, payload, &mut tally);
                    }
                }
                self.add(tally);
            }
            None => self.counters.drops.unknown_peer += train.datagrams().count() as u64,
        }
    }

    /// The client's allocation, if it may exchange datagrams with the peer without a channel.
    fn permitted_port(
        &self,
        client: ClientSocket,
        peer: PeerSocket,
        now: Instant,
    ) -> Option<AllocationPort> {
        let allocation = self.allocations.get(client)?;
        let peer = self.policy.own().canonical(peer);
        let until = allocation.permissions.get(&peer.ip())?;
        let permitted =
            *until > now && allocation.families.contains(peer.family()) && self.policy.allows(peer);
        permitted.then_some(allocation.port)
    }

    /// Sends a datagram on; to an allocation of ours by the short way.
    fn forward_send(
        &mut self,
        (port, peer): (AllocationPort, PeerSocket),
        data: &[u8],
        now: Instant,
        tally: &mut Tally,
        out: &mut impl Forwarder,
    ) {
        let peer = self.policy.own().canonical(peer);
        if !self.policy.own().is_allocation(peer.address()) {
            tally.count(data);
            out.forward(Route::ToPeer { port, peer }, data);
            return;
        }
        if let Some(relayed) = self.policy.own().relayed(peer.family(), port.get()) {
            let port = AllocationPort::new(peer.port());
            tally.count_hairpinned(data);
            if self.config.shard.owns(peer.port()) {
                self.handle_peer_input(port, relayed, Train::single(data), now, out);
            } else {
                let from = PeerSocket::new(relayed);
                out.forward(Route::ToSibling { port, from }, data);
            }
        }
    }

    fn indicate(
        &mut self,
        client: ClientSocket,
        peer: PeerSocket,
        payload: &[u8],
        tally: &mut Tally,
    ) {
        if payload.len() > MAX_DATA {
            self.counters.drops.oversized += 1;
            return;
        }
        let indication = Indication::Data {
            peer: peer.address(),
            data: payload.to_vec(),
        };
        match indication.encode(TransactionId::new(self.rng.random())) {
            Ok(bytes) => {
                tally.count(payload);
                self.commands.push_back(Command::Send { to: client, bytes });
            }
            Err(error) => tracing::error!(%error, "A Data indication cannot be encoded"),
        }
    }
}
