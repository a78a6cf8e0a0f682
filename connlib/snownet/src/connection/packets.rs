//! The packet path of a connection: nothing here allocates, logs or looks at a clock while packets flow.

use std::net::SocketAddr;
use std::time::Instant;

use connlib_cover::cover;
use connlib_wireguard::{OpenSink, Opened, OpenedTrain, SealSink, Sealed};
use ip_packet::{Ecn, IpPacket, PacketBatch, Single};

use super::{ChannelSink, Connection, DirectSink, Io, Route, State};
use crate::ice::{Pair, Stun};
use crate::{DatagramSink, Encapsulated, Id, Role};

impl<P, R> Connection<P, R>
where
    P: Id,
    R: Id,
{
    /// Seals every packet of `batch` onto the path. The path is looked up once.
    pub(crate) fn encapsulate(
        &mut self,
        batch: &mut impl PacketBatch,
        ecn: Ecn,
        now: Instant,
        io: &mut Io<'_, P, R>,
        sink: &mut impl DatagramSink,
    ) -> Encapsulated {
        let woke = self.wake(now);
        cover!("connection/idle-left-by-outgoing" if woke);
        let result = match &self.state {
            State::Connecting { .. } => self.encapsulate_early(batch, now),
            State::Connected { path, .. } | State::Idle { path } => {
                let (route, remote) = (path.route, path.remote);
                match route {
                    Route::Direct { local } => {
                        self.encapsulate_direct(batch, ecn, now, sink, local, remote)
                    }
                    Route::Relayed { relay, .. } => {
                        self.encapsulate_relayed(batch, ecn, now, io, sink, relay, remote)
                    }
                }
            }
        };
        if woke {
            self.settle(now, io);
        } else {
            self.flush(now, io);
        }
        result
    }

    /// Opens WireGuard datagrams, which came on the pair `arrival`: our end and the peer's. The first of them was found to
    /// be for this connection.
    #[inline]
    pub(crate) fn open_train<'d>(
        &mut self,
        train: &mut (impl Iterator<Item = &'d [u8]> + Clone),
        arrival: Pair,
        now: Instant,
        sink: &mut impl OpenSink,
        io: &mut Io<'_, P, R>,
    ) -> OpenedTrain {
        let opened = self.wireguard.open_train(train, arrival.1.ip(), now, sink);
        if let Some(Ok(Opened::Handshake)) = opened.last {
            self.answer(arrival, now, io);
        }
        let has_packet = opened.has_packet();
        if has_packet && !self.state.is_on_path(arrival) {
            self.follow_data(arrival, now, io);
        }
        let woke = has_packet && self.wake(now);
        cover!("connection/idle-left-by-incoming" if woke);
        if woke {
            self.settle(now, io);
        } else {
            self.flush(now, io);
        }
        opened
    }

    /// Data came on another pair than our path: the peer may have left it before ICE says so, and would miss every reply.
    #[cold]
    fn follow_data(&mut self, arrival: Pair, now: Instant, io: &mut Io<'_, P, R>) {
        if let Some(path) = self.state.path() {
            self.agent.note_data(path.pair(), arrival, now);
            self.handle_agent_events(now, io);
        }
    }

    /// Takes a STUN message. Returns whether it was authentic.
    pub(crate) fn handle_stun(
        &mut self,
        local: SocketAddr,
        from: SocketAddr,
        message: &Stun<'_>,
        now: Instant,
        io: &mut Io<'_, P, R>,
    ) -> bool {
        let taken = self.agent.handle_stun(local, from, message, now);
        if taken {
            self.settle(now, io);
        }
        taken
    }

    /// Seals one last packet, if there is a path and a session.
    pub(crate) fn say_goodbye(&mut self, packet: &IpPacket, now: Instant, io: &mut Io<'_, P, R>) {
        let Some(path) = self.state.path() else {
            return;
        };
        if !self.wireguard.is_usable(now) {
            return;
        }
        let (route, remote) = (path.route, path.remote);
        let mut sink = OneDatagram::default();
        let _ = self
            .wireguard
            .seal(&mut Single::from(packet), now, &mut sink);
        if sink.len > 0 {
            io.send_by(route, remote, &sink.bytes[..sink.len], now);
        }
    }

    /// Takes out the next packet that waits for a session, for another way; none if there has never been a session.
    pub(crate) fn take_waiting(&mut self, now: Instant) -> Option<IpPacket> {
        self.first_handshake_at?;
        let packet = self.wireguard.take_waiting(now)?;
        IpPacket::from_slice(packet)
            .inspect_err(|error| tracing::debug!(%error, "Waiting packet is none"))
            .ok()
    }

    /// Before the first nomination a client keeps packets; a gateway must not, since only the client may start a session.
    fn encapsulate_early(&mut self, batch: &mut impl PacketBatch, now: Instant) -> Encapsulated {
        match self.role {
            Role::Client => self.wireguard.seal(batch, now, &mut Nowhere).into(),
            Role::Gateway => self.drop_batch(batch),
        }
    }

    #[inline]
    fn encapsulate_direct(
        &mut self,
        batch: &mut impl PacketBatch,
        ecn: Ecn,
        now: Instant,
        sink: &mut impl DatagramSink,
        local: SocketAddr,
        remote: SocketAddr,
    ) -> Encapsulated {
        let mut sink = DirectSink {
            sink,
            local,
            remote,
            ecn,
        };
        self.wireguard.seal(batch, now, &mut sink).into()
    }

    #[expect(clippy::too_many_arguments, reason = "one call of the packet path")]
    #[inline]
    fn encapsulate_relayed(
        &mut self,
        batch: &mut impl PacketBatch,
        ecn: Ecn,
        now: Instant,
        io: &mut Io<'_, P, R>,
        sink: &mut impl DatagramSink,
        relay: R,
        remote: SocketAddr,
    ) -> Encapsulated {
        let Some((server, channel)) = io.relays.channel(relay, remote, now) else {
            io.relays.drain_transmits(io.transmits);
            if !self.wireguard.is_usable(now) {
                // They wait for a session anyway, which cannot come about without a channel.
                return self.wireguard.seal(batch, now, &mut Nowhere).into();
            }
            // These packets would overtake the request for the channel, so they are lost; the next ones are not.
            return self.drop_batch(batch);
        };
        let mut sink = ChannelSink {
            sink,
            server,
            channel,
            ecn,
            reserved: 0,
        };
        self.wireguard.seal(batch, now, &mut sink).into()
    }

    fn drop_batch(&mut self, batch: &mut impl PacketBatch) -> Encapsulated {
        let mut dropped = 0;
        while batch.next_packet().is_some() {
            dropped += 1;
        }
        self.unsent += dropped as u64;
        Encapsulated {
            dropped,
            ..Encapsulated::default()
        }
    }
}

impl From<Sealed> for Encapsulated {
    fn from(sealed: Sealed) -> Self {
        Self {
            sent: sealed.sent,
            buffered: sealed.buffered,
            dropped: sealed.dropped,
        }
    }
}

/// Sink of a peer that has no session now.
struct Nowhere;

impl SealSink for Nowhere {
    fn reserve(&mut self, _len: usize) -> &mut [u8] {
        debug_assert!(false, "nothing can be sealed without a session");
        &mut []
    }

    fn commit(&mut self, _len: usize) {}
}

/// Sink for one control packet.
#[derive(Default)]
struct OneDatagram {
    bytes: Vec<u8>,
    len: usize,
}

impl SealSink for OneDatagram {
    fn reserve(&mut self, len: usize) -> &mut [u8] {
        self.bytes.resize(len, 0);
        &mut self.bytes
    }

    fn commit(&mut self, len: usize) {
        self.len = len;
    }
}
