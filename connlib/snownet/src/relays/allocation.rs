//! One TURN allocation with its relay's id, in the terms of ICE.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use connlib_stun::ChannelNumber;
use connlib_stun::channel::{HEADER_LEN, encode_header};
use ip_packet::Ecn;
use is::Candidate;

use super::Unwrapped;
use crate::{Id, RelayConfig, Transmit};

/// A change of our addresses.
pub(super) enum AllocationEvent {
    New(Candidate),
    Invalid(Candidate),
}

/// An allocation on one relay.
pub(super) struct Allocation<R> {
    config: RelayConfig<R>,
}

impl<R: Id> Allocation<R> {
    pub(super) fn new(config: RelayConfig<R>, _seed: [u8; 32], _now: Instant) -> Option<Self> {
        sockets(&config).next()?;
        Some(Self { config })
    }

    pub(super) fn id(&self) -> R {
        self.config.id
    }

    pub(super) fn config(&self) -> &RelayConfig<R> {
        &self.config
    }

    pub(super) fn candidates(&self) -> Vec<Candidate> {
        Vec::new()
    }

    pub(super) fn rtt(&self) -> Option<Duration> {
        None
    }

    pub(super) fn is_suspended(&self) -> bool {
        false
    }

    pub(super) fn death(&self) -> Option<&'static str> {
        None
    }

    pub(super) fn handle_input(&mut self, _local: SocketAddr, _from: SocketAddr, _datagram: &[u8], _now: Instant) -> bool {
        false
    }

    pub(super) fn decapsulate(&mut self, _from: SocketAddr, _datagram: &[u8], _now: Instant) -> Option<Unwrapped> {
        None
    }

    pub(super) fn channel(&mut self, _peer: SocketAddr, _now: Instant) -> Option<(SocketAddr, ChannelNumber)> {
        None
    }

    pub(super) fn bind_channel(&mut self, _peer: SocketAddr, _now: Instant) {}

    pub(super) fn refresh(&mut self, _now: Instant) {}

    pub(super) fn reset(&mut self, _now: Instant) {}

    pub(super) fn handle_timeout(&mut self, _now: Instant) {}

    pub(super) fn poll_timeout(&mut self) -> Option<Instant> {
        None
    }

    pub(super) fn poll_transmit(&mut self) -> Option<Transmit> {
        None
    }

    pub(super) fn poll_event(&mut self) -> Option<AllocationEvent> {
        None
    }
}

/// The relay's sockets, IPv4 first.
pub(super) fn sockets<R>(config: &RelayConfig<R>) -> impl Iterator<Item = SocketAddr> {
    let v4 = config.v4.map(SocketAddr::V4);
    v4.into_iter().chain(config.v6.map(SocketAddr::V6))
}

/// A channel-data message to the relay's socket `server`.
pub(super) fn channel_data(server: SocketAddr, channel: ChannelNumber, payload: &[u8]) -> Transmit {
    let mut datagram = Vec::with_capacity(HEADER_LEN + payload.len());
    // Everything sent is far below 64 KiB.
    datagram.extend_from_slice(&encode_header(channel, payload.len() as u16));
    datagram.extend_from_slice(payload);
    Transmit {
        src: None,
        dst: server,
        payload: datagram,
        ecn: Ecn::NotEct,
    }
}
