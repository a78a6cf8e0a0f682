//! The way out of a connection: datagrams, events and relays of the node.

use std::net::SocketAddr;
use std::time::Instant;

use ip_packet::Ecn;

use super::Route;
use crate::events::Events;
use crate::relays::Relays;
use crate::requests::Requests;
use crate::transmits::Transmits;
use crate::{Id, Transmit};

/// The parts of the node that a connection writes to.
pub(crate) struct Io<'a, P, R> {
    pub(crate) relays: &'a mut Relays<R>,
    pub(crate) requests: &'a mut Requests<P>,
    pub(crate) transmits: &'a mut Transmits,
    pub(crate) events: &'a mut Events<P>,
}

impl<P, R: Id> Io<'_, P, R> {
    /// Queues one datagram from `source`: a socket of ours, or our address on a relay. Returns whether it could be sent.
    pub(crate) fn send(
        &mut self,
        source: SocketAddr,
        destination: SocketAddr,
        payload: &[u8],
        now: Instant,
    ) -> bool {
        let route = self.route(source);
        self.send_by(route, destination, payload, now)
    }

    /// What was just sent from `source` calls for an answer. Its relay, if it is an address on one, is asked if none comes.
    pub(crate) fn expect_answer(&mut self, source: SocketAddr, now: Instant) {
        if let Some(relay) = self.relays.owner_of(source) {
            self.relays.expect_answer(relay, now);
        }
    }

    /// Which way datagrams from `source` go.
    pub(super) fn route(&self, source: SocketAddr) -> Route<R> {
        match self.relays.owner_of(source) {
            Some(relay) => Route::Relayed {
                relay,
                local: source,
            },
            None => Route::Direct { local: source },
        }
    }

    /// As [`send`](Self::send), on a known route. Its relay may be gone: then the datagram is lost.
    pub(super) fn send_by(
        &mut self,
        route: Route<R>,
        destination: SocketAddr,
        payload: &[u8],
        now: Instant,
    ) -> bool {
        let transmit = match route {
            Route::Relayed { relay, .. } => self.relays.wrap(relay, destination, payload, now),
            Route::Direct { local } => Some(Transmit {
                src: Some(local),
                dst: destination,
                payload: payload.to_vec(),
                ecn: Ecn::NotEct,
            }),
        };
        // A channel that `wrap` has just asked for must be bound before it is used.
        self.relays.drain_transmits(self.transmits);
        transmit.is_some_and(|transmit| self.transmits.push(transmit))
    }
}
