//! One TURN allocation with its relay's id, in the terms of the node.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use connlib_stun::ChannelNumber;
use connlib_stun::channel::{HEADER_LEN, encode_header};
use connlib_turn_client::{
    Allocation as Turn, Credentials, Event, FreeReason, Input, Server, Unwrapped,
};
use ip_packet::Ecn;
use is::Candidate;

use crate::{Id, RelayConfig, Transmit};

/// What we call ourselves in requests to relays; only their logs use it.
const SOFTWARE: &str = "snownet";

/// An allocation on one relay.
pub(super) struct Allocation<R> {
    config: RelayConfig<R>,
    turn: Turn,
}

impl<R: Id> Allocation<R> {
    /// Starts an allocation; `None` if the relay has no address.
    pub(super) fn new(config: RelayConfig<R>, seed: [u8; 32], now: Instant) -> Option<Self> {
        let server = Server::new(config.v4, config.v6)?;
        let credentials = Credentials {
            username: config.username.clone(),
            password: config.password.clone(),
            realm: config.realm.clone(),
        };
        let turn = Turn::new(server, credentials, SOFTWARE, seed, now);
        Some(Self { config, turn })
    }

    pub(super) fn id(&self) -> R {
        self.config.id
    }

    pub(super) fn config(&self) -> &RelayConfig<R> {
        &self.config
    }

    pub(super) fn sockets(&self) -> impl Iterator<Item = SocketAddr> + use<R> {
        self.turn.server().sockets()
    }

    /// All addresses of ours that this relay has discovered or lent.
    pub(super) fn candidates(&self) -> impl Iterator<Item = &Candidate> {
        self.turn
            .shared_candidates()
            .chain(self.turn.relayed_candidates())
    }

    pub(super) fn relayed_candidates(&self) -> impl Iterator<Item = &Candidate> {
        self.turn.relayed_candidates()
    }

    pub(super) fn rtt(&self) -> Option<Duration> {
        self.turn.rtt()
    }

    pub(super) fn is_suspended(&self) -> bool {
        self.turn.is_suspended()
    }

    /// Why this allocation will never work again.
    pub(super) fn free_reason(&self) -> Option<FreeReason> {
        self.turn.free_reason()
    }

    /// Takes a STUN message. Returns whether it answers a request of ours.
    pub(super) fn handle_input(
        &mut self,
        local: SocketAddr,
        from: SocketAddr,
        datagram: &[u8],
        now: Instant,
    ) -> bool {
        match self.turn.handle_input(local, from, datagram, now) {
            Input::Consumed => true,
            Input::Unknown | Input::NotStun | Input::OtherSender => false,
        }
    }

    #[inline]
    pub(super) fn decapsulate<'a>(
        &mut self,
        from: SocketAddr,
        datagram: &'a [u8],
        now: Instant,
    ) -> Option<Unwrapped<'a>> {
        self.turn.decapsulate(from, datagram, now)
    }

    /// The server socket and channel for datagrams to `peer`. Binds a channel if there is none.
    #[inline]
    pub(super) fn channel(
        &mut self,
        peer: SocketAddr,
        now: Instant,
    ) -> Option<(SocketAddr, ChannelNumber)> {
        self.turn.channel_to(peer, now)
    }

    #[inline]
    pub(super) fn expect_answer(&mut self, now: Instant) {
        self.turn.expect_answer(now);
    }

    pub(super) fn bind_channel(&mut self, peer: SocketAddr, now: Instant) {
        self.turn.bind_channel(peer, now);
    }

    pub(super) fn refresh(&mut self, now: Instant) {
        self.turn.refresh(now);
    }

    pub(super) fn release(&mut self, now: Instant) {
        self.turn.release(now);
    }

    pub(super) fn restart(&mut self, now: Instant) {
        self.turn.restart(now);
    }

    pub(super) fn handle_timeout(&mut self, now: Instant) {
        self.turn.handle_timeout(now);
    }

    pub(super) fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        self.turn.poll_timeout()
    }

    pub(super) fn poll_transmit(&mut self) -> Option<Transmit> {
        let transmit = self.turn.poll_transmit()?;
        Some(to_relay(transmit.dst, transmit.payload))
    }

    pub(super) fn poll_event(&mut self) -> Option<Event> {
        self.turn.poll_event()
    }
}

/// A channel-data message to the relay's socket `server`.
pub(super) fn channel_data(server: SocketAddr, channel: ChannelNumber, payload: &[u8]) -> Transmit {
    let mut datagram = Vec::with_capacity(HEADER_LEN + payload.len());
    // Everything sent is far below 64 KiB.
    datagram.extend_from_slice(&encode_header(channel, payload.len() as u16));
    datagram.extend_from_slice(payload);
    to_relay(server, datagram)
}

fn to_relay(dst: SocketAddr, payload: Vec<u8>) -> Transmit {
    Transmit {
        src: None,
        dst,
        payload,
        ecn: Ecn::NotEct,
    }
}
