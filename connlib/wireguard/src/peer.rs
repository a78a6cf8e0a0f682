//! The peer: one role, its sessions and its timers.
//!
//! [`Peer`] is the public face; the two roles are separate machines ([`initiator`], [`responder`]) that share the parts in
//! [`Common`]: output, counters, the passive keepalive.

mod common;
mod initiator;
mod responder;
mod session;
pub mod timing;
mod train;

use std::net::IpAddr;
use std::time::Instant;

use ip_packet::PacketBatch;

use self::common::Common;
use self::initiator::Initiator;
use self::responder::Responder;
use crate::engine::{Engine, EngineConfig, Noise};
use crate::message::{Inbound, Malformed, classify};
use crate::{Datagram, PeerIndex, PrivateKey, PublicKey, SealSink, Sealed, WallClock};

pub use self::common::{Event, FailReason, OpenError, Opened, Stats};
pub use self::responder::SpareOutcome;
pub use self::train::{OpenSink, OpenedTrain};

/// Who starts handshakes. Fixed for the life of a peer (snownet §3.2): the client initiates, the gateway responds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Starts and renews sessions; never answers an initiation.
    Initiator,
    /// Answers initiations; never emits one.
    Responder,
}

/// Everything a peer is made from.
#[derive(Debug)]
pub struct PeerConfig<'a> {
    /// Who starts handshakes.
    pub role: Role,
    /// Our static key.
    pub private: &'a PrivateKey,
    /// The other side's static key.
    pub remote: PublicKey,
    /// Preshared key of the connection.
    pub psk: [u8; 32],
    /// Drawn from the node's [`IndexTable`](crate::IndexTable), to be released when the peer is dropped.
    pub indices: [PeerIndex; 2],
    /// Handshake timestamps follow it; from [`WallClock::next_connection`].
    pub clock: WallClock,
    /// Seed of the timers' jitter.
    pub seed: [u8; 32],
}

/// One WireGuard peer.
///
/// `now` never decreases; a smaller value counts as the largest seen so far. After each input the caller drains
/// [`poll_transmit`](Peer::poll_transmit) into the same outgoing queue that [`seal`](Peer::seal) writes to, before the next
/// input: then datagrams leave in the order in which their packets came.
pub struct Peer<E: Engine = Noise> {
    indices: [PeerIndex; 2],
    common: Common,
    machine: Machine<E>,
}

#[expect(
    clippy::large_enum_variant,
    reason = "a few hundred bytes; the engines' state is boxed"
)]
enum Machine<E> {
    Initiator(Initiator<E>),
    Responder(Responder<E>),
}

impl<E: Engine> Peer<E> {
    /// A peer without session and without path. Nothing is sent before [`Peer::path_ready`], except responses.
    pub fn new(config: PeerConfig<'_>, now: Instant) -> Self {
        let PeerConfig {
            role,
            private,
            remote,
            psk,
            indices,
            clock,
            seed,
        } = config;
        let engine = EngineConfig::new(private.clone(), remote);

        Self {
            indices,
            common: Common::new(seed, now),
            machine: match role {
                Role::Initiator => Machine::Initiator(Initiator::new(engine, psk, indices, clock)),
                Role::Responder => Machine::Responder(Responder::new(engine, psk, indices)),
            },
        }
    }

    /// Who starts handshakes.
    pub fn role(&self) -> Role {
        match self.machine {
            Machine::Initiator(_) => Role::Initiator,
            Machine::Responder(_) => Role::Responder,
        }
    }

    /// The indices under which received datagrams name this peer; constant for its life.
    pub fn indices(&self) -> [PeerIndex; 2] {
        self.indices
    }

    /// Seals all packets of a batch into `sink`, or lets them wait when no session is usable.
    ///
    /// An initiator keeps up to 256 packets while it makes a session, the newest out; a responder keeps up to 16 for up to 5 s
    /// if a session is about to be confirmed, and otherwise drops.
    #[inline]
    pub fn seal<B: PacketBatch, S: SealSink>(
        &mut self,
        batch: &mut B,
        now: Instant,
        sink: &mut S,
    ) -> Sealed {
        let now = self.common.advance(now);

        match &mut self.machine {
            Machine::Initiator(machine) => machine.seal(&mut self.common, batch, now, sink),
            Machine::Responder(machine) => machine.seal(&mut self.common, batch, now, sink),
        }
    }

    /// Takes one WireGuard datagram that was found to be for this peer: by index, or for an initiation by
    /// [`parse_init`](crate::parse_init). Handshake messages have passed
    /// [`HandshakeLimiter::check`](crate::HandshakeLimiter::check).
    ///
    /// `out` takes the packet of a data message and holds at least the datagram's length less 16 bytes.
    #[inline]
    pub fn open(
        &mut self,
        datagram: &[u8],
        from: IpAddr,
        now: Instant,
        out: &mut [u8],
    ) -> Result<Opened, OpenError> {
        self.open_train(&mut std::iter::once(datagram), from, now, &mut Whole(out))
            .last
            .expect("a sink that takes nothing leaves what there is")
    }

    /// Takes datagrams from the front of `train`, which arrived together, like [`open`](Peer::open) one after the other:
    /// data messages of one session as long as `sink` takes their packets, or one datagram that is something else.
    /// What is left is to be handed over again, once it is known whose it is.
    #[inline]
    pub fn open_train<'d, S: OpenSink>(
        &mut self,
        train: &mut (impl Iterator<Item = &'d [u8]> + Clone),
        from: IpAddr,
        now: Instant,
        sink: &mut S,
    ) -> OpenedTrain {
        let now = self.common.advance(now);
        let Some(first) = train.next() else {
            return OpenedTrain::default();
        };

        let opened = match classify(first) {
            Ok(Inbound::Data { receiver }) => self.open_data((receiver, first), train, now, sink),
            other => self.open_control(other, first, from, now).into(),
        };
        if matches!(opened.last, Some(Err(_))) {
            self.common.stats.rejected += 1;
        }

        opened
    }

    /// A path to the peer was chosen for the first time: an initiator starts its first handshake.
    pub fn path_ready(&mut self, now: Instant) {
        let now = self.common.advance(now);
        self.common.path_ready = true;

        if let Machine::Initiator(machine) = &mut self.machine {
            machine.path_ready(&mut self.common, now);
        }
    }

    /// The path to the peer changed: an initiator proves the new one by a handshake, at most one per 20 s; one in flight is
    /// repeated at once, at most once per second (snownet §3.8), and has its full time on the new path.
    pub fn path_changed(&mut self, now: Instant) {
        let now = self.common.advance(now);

        if let Machine::Initiator(machine) = &mut self.machine {
            machine.path_changed(&mut self.common, now);
        }
    }

    /// The other side may have lost its sessions (the connection was announced anew): an initiator starts a handshake, at most
    /// one per 20 s and not while one is in flight (snownet §3.3).
    pub fn rehandshake(&mut self, now: Instant) {
        let now = self.common.advance(now);

        if let Machine::Initiator(machine) = &mut self.machine {
            machine.rehandshake(&mut self.common, now);
        }
    }

    /// The connection was announced with `psk`. A responder keeps its own key and holds the newest other one as a spare; an
    /// initiator keeps the key that it used first (snownet §3.3).
    pub fn add_spare_psk(&mut self, psk: [u8; 32]) -> SpareOutcome {
        match &mut self.machine {
            Machine::Initiator(machine) => {
                machine.renew_psk(psk);
                SpareOutcome::Kept
            }
            Machine::Responder(machine) => machine.add_spare(psk),
        }
    }

    /// Next datagram for the peer, in order: handshakes, keepalives, packets that waited.
    pub fn poll_transmit(&mut self) -> Option<Datagram<'_>> {
        self.common.outbox.pop()
    }

    /// Whether [`poll_transmit`](Peer::poll_transmit) or [`poll_event`](Peer::poll_event) has something. Cheap enough for every
    /// packet.
    #[inline]
    pub fn has_output(&self) -> bool {
        self.common.has_output()
    }

    /// Takes out the oldest packet that waits for a session and is young enough to be of use; older ones are dropped. Of use to
    /// the owner of a peer that is given up: the packet may take another way.
    pub fn take_waiting(&mut self, now: Instant) -> Option<&[u8]> {
        let now = self.common.advance(now);

        match &mut self.machine {
            Machine::Initiator(machine) => machine.take_waiting(now),
            // Packets of a responder wait for half a round trip only.
            Machine::Responder(_) => None,
        }
    }

    /// Next event.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.common.poll_event()
    }

    /// Does what is due at `now`.
    pub fn handle_timeout(&mut self, now: Instant) {
        let now = self.common.advance(now);

        match &mut self.machine {
            Machine::Initiator(machine) => machine.handle_timeout(&mut self.common, now),
            Machine::Responder(machine) => machine.handle_timeout(&mut self.common, now),
        }
    }

    /// When [`Peer::handle_timeout`] has something to do; an instant already reached while output is pending.
    pub fn poll_timeout(&self) -> Option<Instant> {
        if self.common.has_output() {
            return Some(self.common.now());
        }

        match &self.machine {
            Machine::Initiator(machine) => machine.deadline(&self.common),
            Machine::Responder(machine) => machine.deadline(&self.common),
        }
    }

    /// Whether a packet sealed at `now` would leave at once.
    pub fn is_usable(&self, now: Instant) -> bool {
        match &self.machine {
            Machine::Initiator(machine) => machine.is_usable(now),
            Machine::Responder(machine) => machine.is_usable(now),
        }
    }

    /// Counters since the peer was made.
    pub fn stats(&self) -> Stats {
        Stats {
            dropped_outbox: self.common.outbox.overflowed(),
            ..self.common.stats
        }
    }

    #[cold]
    fn open_control(
        &mut self,
        inbound: Result<Inbound, Malformed>,
        datagram: &[u8],
        from: IpAddr,
        now: Instant,
    ) -> Result<Opened, OpenError> {
        match inbound.map_err(|_| OpenError::Malformed)? {
            Inbound::Init => self.open_init(datagram, from, now),
            Inbound::Response { receiver } => self.open_response(receiver, datagram, now),
            Inbound::Cookie { receiver } => self.open_cookie(receiver, datagram),
            Inbound::Data { .. } => Err(OpenError::Refused),
        }
    }

    #[inline]
    fn open_data<'d, S: OpenSink>(
        &mut self,
        first: (u32, &'d [u8]),
        train: &mut (impl Iterator<Item = &'d [u8]> + Clone),
        now: Instant,
        sink: &mut S,
    ) -> OpenedTrain {
        match &mut self.machine {
            Machine::Initiator(machine) => {
                machine.open_data(&mut self.common, first, train, now, sink)
            }
            Machine::Responder(machine) => {
                machine.open_data(&mut self.common, first, train, now, sink)
            }
        }
    }

    fn open_init(
        &mut self,
        datagram: &[u8],
        from: IpAddr,
        now: Instant,
    ) -> Result<Opened, OpenError> {
        tracing::debug!(%from, "Received handshake initiation");

        match &mut self.machine {
            Machine::Initiator(machine) => machine.foreign_init(&mut self.common, now),
            Machine::Responder(machine) => machine.open_init(&mut self.common, datagram, now)?,
        }

        Ok(Opened::Handshake)
    }

    fn open_response(
        &mut self,
        receiver: u32,
        datagram: &[u8],
        now: Instant,
    ) -> Result<Opened, OpenError> {
        match &mut self.machine {
            Machine::Initiator(machine) => {
                machine.open_response(&mut self.common, receiver, datagram, now)?
            }
            Machine::Responder(_) => return Err(OpenError::UnknownIndex),
        }

        Ok(Opened::Handshake)
    }

    fn open_cookie(&mut self, receiver: u32, datagram: &[u8]) -> Result<Opened, OpenError> {
        match &mut self.machine {
            Machine::Initiator(machine) => machine.open_cookie(receiver, datagram)?,
            Machine::Responder(_) => return Err(OpenError::UnknownIndex),
        }

        Ok(Opened::Handshake)
    }
}

/// Room for one packet, which the caller takes.
struct Whole<'a>(&'a mut [u8]);

impl OpenSink for Whole<'_> {
    #[inline]
    fn room(&mut self) -> &mut [u8] {
        self.0
    }

    #[inline]
    fn take(&mut self, _len: usize) -> bool {
        false
    }
}

impl<E: Engine> std::fmt::Debug for Peer<E> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Peer")
            .field("role", &self.role())
            .field("indices", &self.indices)
            .field("stats", &self.stats())
            .finish_non_exhaustive()
    }
}
