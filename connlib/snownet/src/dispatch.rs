//! What an inbound datagram is, and whose.
//!
//! Three stages, each with an explicit outcome:
//!
//! 1. **Relay**: datagrams whose first byte is that of STUN or channel data, from the socket of a relay. The bytes alone prove
//!    nothing, since ciphertext can start with anything, and a peer's NAT may own any port; the sender's address decides.
//! 2. **ICE**: STUN messages, found by user name (requests) or transaction id (answers). Never tried against all agents.
//! 3. **WireGuard**: by receiver index, or by static key for an initiation. Never by source address: two clients behind one NAT
//!    can use the same source port within seconds.

use std::net::SocketAddr;
use std::time::Instant;

use connlib_stun::attribute::USERNAME;
use connlib_stun::{ChannelRange, Class, Envelope, Method, PacketKind};
use connlib_wireguard::{Inbound, LimitError, OpenError, Opened};

use crate::connection::Io;
use crate::ice::Stun;
use crate::relays::Sender;
use crate::schedule::Slot;
use crate::train::{OfPeer, OnChannel};
use crate::{DecapsulateError, Decapsulated, Id, MAX_DATAGRAM_SIZE, Node, PacketSink, Train};

/// Where a datagram came in: a socket of ours, or our address on a relay.
#[derive(Debug, Clone, Copy)]
struct Arrival {
    local: SocketAddr,
    from: SocketAddr,
}

/// What a stage made of a datagram.
enum Stage {
    Done,
    Continue,
}

impl<P, R> Node<P, R>
where
    P: Id,
    R: Id,
{
    /// Takes at least the first datagram of `train`.
    #[inline]
    pub(crate) fn dispatch(
        &mut self,
        local: SocketAddr,
        from: SocketAddr,
        train: &mut Train<'_>,
        now: Instant,
        sink: &mut impl PacketSink<P>,
    ) -> Result<Decapsulated<P>, DecapsulateError> {
        let mut ahead = *train;
        let Some(datagram) = ahead.next() else {
            return Err(DecapsulateError::NotRecognised);
        };
        let arrival = Arrival { local, from };
        if datagram.len() > MAX_DATAGRAM_SIZE || datagram.len() > sink.room().len() {
            *train = ahead;
            return Err(DecapsulateError::TooLarge);
        }
        match connlib_stun::classify(datagram, ChannelRange::Strict) {
            PacketKind::Stun => {
                *train = ahead;
                match self.relay_stun(arrival, datagram, now) {
                    Stage::Done => Ok(Decapsulated::Consumed),
                    Stage::Continue => {
                        self.peer_datagrams(arrival, &mut Train::single(datagram), now, sink)
                    }
                }
            }
            PacketKind::ChannelData => {
                *train = ahead;
                self.channel_data(arrival, datagram, train, now, sink)
            }
            PacketKind::Other => self.wireguard(arrival, train, now, sink),
        }
    }

    /// Stage 1 for STUN.
    fn relay_stun(&mut self, arrival: Arrival, datagram: &[u8], now: Instant) -> Stage {
        let sender = self.relays.classify(arrival.from);
        if sender == Sender::Unknown || Envelope::parse(datagram).is_err() {
            return Stage::Continue;
        }
        if sender == Sender::FormerRelay {
            return Stage::Done;
        }
        if self
            .relays
            .handle_stun(arrival.local, arrival.from, datagram, now)
        {
            self.relay_changes(now);
        } else {
            tracing::debug!(from = %arrival.from, "Relay answers a request that we do not know");
        }
        Stage::Done
    }

    /// Stage 1 for channel data: what is inside goes on as if it had arrived on our address on the relay, together with
    /// what came behind it on the same channel.
    #[inline]
    fn channel_data<'d>(
        &mut self,
        arrival: Arrival,
        first: &'d [u8],
        train: &mut Train<'d>,
        now: Instant,
        sink: &mut impl PacketSink<P>,
    ) -> Result<Decapsulated<P>, DecapsulateError> {
        match self.relays.classify(arrival.from) {
            Sender::Relay => {}
            Sender::FormerRelay => return Ok(Decapsulated::Consumed),
            Sender::Unknown => return Err(DecapsulateError::NotRecognised),
        }
        let Some(unwrapped) = self.relays.unwrap(arrival.from, first, now) else {
            return Err(DecapsulateError::NotRecognised);
        };
        let inner = Arrival {
            local: unwrapped.relayed,
            from: unwrapped.peer,
        };
        let mut inside = OnChannel {
            first: Some(unwrapped.payload),
            train: *train,
            channel: unwrapped.channel,
        };
        let result = self.peer_datagrams(inner, &mut inside, now, sink);
        *train = inside.train;
        result
    }

    /// Stages 2 and 3.
    #[inline]
    fn peer_datagrams<'d>(
        &mut self,
        arrival: Arrival,
        train: &mut (impl Iterator<Item = &'d [u8]> + Clone),
        now: Instant,
        sink: &mut impl PacketSink<P>,
    ) -> Result<Decapsulated<P>, DecapsulateError> {
        let mut ahead = train.clone();
        let Some(datagram) = ahead.next() else {
            return Err(DecapsulateError::NotRecognised);
        };
        if let PacketKind::Stun = connlib_stun::classify(datagram, ChannelRange::Strict)
            && let Ok(envelope) = Envelope::parse(datagram)
        {
            *train = ahead;
            return self.ice(arrival, &Stun { envelope, datagram }, now);
        }
        self.wireguard(arrival, train, now, sink)
    }

    /// Stage 2.
    fn ice(
        &mut self,
        arrival: Arrival,
        message: &Stun<'_>,
        now: Instant,
    ) -> Result<Decapsulated<P>, DecapsulateError> {
        let slot = self
            .agent_of(&message.envelope)
            .ok_or(DecapsulateError::UnknownStun)?;
        let taken = self.with_slot(slot, |c, io| {
            c.handle_stun(arrival.local, arrival.from, message, now, io)
        });
        match taken {
            Some(true) => Ok(Decapsulated::Consumed),
            Some(false) | None => Err(DecapsulateError::UnknownStun),
        }
    }

    fn agent_of(&self, message: &Envelope<'_>) -> Option<Slot> {
        if message.method() != Method::Binding {
            return None;
        }
        match message.class() {
            Class::Request => {
                let username = std::str::from_utf8(message.attribute(USERNAME)?).ok()?;
                self.table.slot_by_username(username)
            }
            Class::Success | Class::Error => {
                let id = message.transaction_id();
                let peer = self.requests.sender(id.as_bytes())?;
                self.table.slot(peer)
            }
            Class::Indication => None,
        }
    }

    /// Stage 3: takes the first datagram of `train`, and those behind it that are for the same session.
    #[inline]
    fn wireguard<'d>(
        &mut self,
        arrival: Arrival,
        train: &mut (impl Iterator<Item = &'d [u8]> + Clone),
        now: Instant,
        sink: &mut impl PacketSink<P>,
    ) -> Result<Decapsulated<P>, DecapsulateError> {
        let mut ahead = train.clone();
        let first = ahead.next().unwrap_or_default();
        let slot = self.slot_of(arrival, first, now);
        let opened = slot.and_then(|slot| {
            self.with_slot(slot, |connection, io| {
                let peer = connection.peer();
                let mut sink = OfPeer { sink, peer };
                let pair = (arrival.local, arrival.from);
                (peer, connection.open_train(train, pair, now, &mut sink, io))
            })
            .ok_or(DecapsulateError::UnknownPeer)
        });
        let (peer, opened) = match opened {
            Ok(opened) => opened,
            Err(error) => {
                *train = ahead;
                return Err(error);
            }
        };
        match opened.last {
            Some(Ok(Opened::Packet { len })) => Ok(Decapsulated::Packet { peer, len }),
            Some(Ok(Opened::Keepalive | Opened::Handshake)) | None => Ok(Decapsulated::Consumed),
            Some(Err(error)) => Err(rejection(error)),
        }
    }

    /// The connection that a WireGuard datagram is for.
    #[inline]
    fn slot_of(
        &mut self,
        arrival: Arrival,
        datagram: &[u8],
        now: Instant,
    ) -> Result<Slot, DecapsulateError> {
        let inbound =
            connlib_wireguard::classify(datagram).map_err(|_| DecapsulateError::NotRecognised)?;
        if let Inbound::Init | Inbound::Response { .. } = inbound {
            self.admit_handshake(arrival, datagram, now)?;
        }
        let slot = match inbound.peer_index() {
            Some(index) => self.table.slot_by_index(index.get()),
            None => connlib_wireguard::parse_init(&self.private, datagram)
                .ok()
                .and_then(|key| self.table.slot_by_key(key)),
        };
        slot.ok_or(DecapsulateError::UnknownPeer)
    }

    /// Lets a handshake message through, or sends a cookie back the way it came.
    fn admit_handshake(
        &mut self,
        arrival: Arrival,
        datagram: &[u8],
        now: Instant,
    ) -> Result<(), DecapsulateError> {
        let Err(refusal) = self.limiter.check(datagram, arrival.from.ip(), now) else {
            return Ok(());
        };
        if let LimitError::UnderLoad(cookie) = refusal {
            self.totals.cookies_sent += 1;
            let mut io = Io {
                relays: &mut self.relays,
                requests: &mut self.requests,
                transmits: &mut self.transmits,
                events: &mut self.events,
            };
            io.send(arrival.local, arrival.from, &cookie.0, now);
        }
        Err(DecapsulateError::Rejected)
    }
}

fn rejection(error: OpenError) -> DecapsulateError {
    match error {
        OpenError::TooLarge => DecapsulateError::TooLarge,
        OpenError::Malformed
        | OpenError::UnknownIndex
        | OpenError::Expired
        | OpenError::CounterExhausted
        | OpenError::Undecryptable
        | OpenError::Replayed
        | OpenError::NotIp
        | OpenError::Refused => DecapsulateError::Rejected,
    }
}
