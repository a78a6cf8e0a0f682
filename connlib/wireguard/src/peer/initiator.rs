//! The initiating role: starts, retries and renews sessions (snownet §4.4).
//!
//! Two engines that live as long as the peer take turns: a handshake runs on the one that does not carry the current session.
//! Each holds at most one session that this machine still uses, and a message is opened only if it names exactly that one.
//! So a late packet of the old session cannot make an engine seal under it again (snownet §4.6, trap 1). Both take their
//! handshake timestamps from one source, so that the other side sees them increase.

use std::time::Instant;

use connlib_cover::cover;
use ip_packet::PacketBatch;
use zeroize::Zeroizing;

use super::common::{Common, FailReason, OpenError};
use super::session::Session;
use super::timing::{
    HOLD_AFTER_TIME, MAX_PENDING, MAX_WAIT, PROACTIVE_INTERVAL, REKEY_AFTER_TIME,
    REKEY_ATTEMPT_TIME, REKEY_TIMEOUT, REPEAT_INTERVAL, UNANSWERED_TIMEOUT, WIPE_AFTER_TIME,
};
use super::train::{OpenSink, OpenedTrain, open_run};
use crate::engine::{Engine, EngineConfig, EngineError};
use crate::message::sender_index;
use crate::queue::{Nothing, PendingPackets};
use crate::timestamp::Timestamps;
use crate::{DatagramKind, PeerIndex, SealSink, Sealed, WallClock};

/// Which of the two engines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Slot {
    A,
    B,
}

pub(super) struct Initiator<E> {
    config: EngineConfig,
    psk: Zeroizing<[u8; 32]>,
    timestamps: Timestamps,
    a: Half<E>,
    b: Half<E>,
    /// The engine of the newest session; the other one only opens what is still on its way.
    current: Slot,
    handshake: Option<Handshake>,
    last_init_at: Option<Instant>,
    /// Last handshake started without need: to prove a path or the peer.
    last_proactive_at: Option<Instant>,
    /// T4: when data sent without any answer starts a handshake. Set by the first data sent, with its jitter.
    unanswered_until: Option<Instant>,
    /// T17: when the current session is renewed. Outlives the session, so that it fires late rather than never.
    renew_at: Option<Instant>,
    /// T9.
    wipe_at: Option<Instant>,
    pending: PendingPackets,
}

/// One engine with its only session in use.
struct Half<E> {
    index: PeerIndex,
    engine: E,
    session: Option<Session>,
}

/// A handshake in flight: one or more initiations until a response is accepted or time is up.
#[derive(Debug)]
struct Handshake {
    slot: Slot,
    /// On the present path.
    started_at: Instant,
    retry_at: Instant,
    /// Local indices of the last two initiations, newest first: those that the engine can match with a response.
    answerable: [Option<u32>; 2],
    /// The initiation whose response did not decrypt.
    refused: Option<u32>,
}

impl<E: Engine> Initiator<E> {
    pub(super) fn new(
        config: EngineConfig,
        psk: [u8; 32],
        [a, b]: [PeerIndex; 2],
        clock: WallClock,
    ) -> Self {
        let half = |index| Half {
            index,
            engine: E::new(&config, psk, index),
            session: None,
        };

        Self {
            a: half(a),
            b: half(b),
            config,
            psk: Zeroizing::new(psk),
            timestamps: Timestamps::new(clock),
            // The first handshake runs on the other one.
            current: Slot::B,
            handshake: None,
            last_init_at: None,
            last_proactive_at: None,
            unanswered_until: None,
            renew_at: None,
            wipe_at: None,
            pending: PendingPackets::new(MAX_PENDING),
        }
    }

    /// Takes a newer key as long as nothing was sent under the old one. Several requests may be answered while the path is
    /// made, each with a key of its own; the responder holds the first and the newest of them.
    pub(super) fn renew_psk(&mut self, psk: [u8; 32]) {
        if *self.psk == psk || self.last_init_at.is_some() {
            return;
        }
        *self.psk = psk;
        for half in [&mut self.a, &mut self.b] {
            half.engine = E::new(&self.config, psk, half.index);
        }
    }

    pub(super) fn is_usable(&self, now: Instant) -> bool {
        self.half(self.current)
            .session
            .as_ref()
            .is_some_and(|session| may_seal(session, now))
    }

    #[inline]
    pub(super) fn seal<B: PacketBatch, S: SealSink>(
        &mut self,
        common: &mut Common,
        batch: &mut B,
        now: Instant,
        sink: &mut S,
    ) -> Sealed {
        let half = self.half_mut(self.current);
        let Some(session) = half
            .session
            .as_mut()
            .filter(|session| may_seal(session, now))
        else {
            return self.wait(common, batch, now);
        };

        let outcome = half.engine.seal(session.local_index, batch, sink);
        session.sent += outcome.sent as u64;
        let rekey = session.age(now) >= REKEY_AFTER_TIME || session.wants_rekey_by_count();

        common.stats.dropped_oversize += outcome.dropped as u64;
        if outcome.sent > 0 {
            self.data_sent(common, outcome.sent, outcome.bytes, now);
            if rekey {
                cover!("connection/rekeyed-by-age");
                self.start(common, now);
            }
        }

        Sealed {
            sent: outcome.sent,
            buffered: 0,
            dropped: outcome.dropped,
        }
    }

    #[inline]
    pub(super) fn open_data<'d, S: OpenSink>(
        &mut self,
        common: &mut Common,
        first: (u32, &'d [u8]),
        train: &mut (impl Iterator<Item = &'d [u8]> + Clone),
        now: Instant,
        sink: &mut S,
    ) -> OpenedTrain {
        let half = match self.open_half(first.0, now) {
            Ok(half) => half,
            Err(error) => return Err(error).into(),
        };
        let opened = open_run(&mut half.engine, common, first, train, now, sink);
        if opened.is_authentic() {
            self.unanswered_until = None;
        }

        opened
    }

    /// The engine that opens messages for the index `receiver` now.
    #[inline]
    fn open_half(&mut self, receiver: u32, now: Instant) -> Result<&mut Half<E>, OpenError> {
        let half = self.half_of(receiver)?;
        let session = half
            .session
            .filter(|session| session.local_index == receiver)
            .ok_or(OpenError::UnknownIndex)?;

        if session.is_expired(now) {
            return Err(OpenError::Expired);
        }

        Ok(half)
    }

    /// Accepts a response if it answers the handshake in flight, and only one: an engine would take a second response too and
    /// switch to its session.
    pub(super) fn open_response(
        &mut self,
        common: &mut Common,
        receiver: u32,
        datagram: &[u8],
        now: Instant,
    ) -> Result<(), OpenError> {
        let handshake = self.handshake.as_mut().ok_or(OpenError::UnknownIndex)?;
        if !handshake.answerable.contains(&Some(receiver)) {
            return Err(OpenError::UnknownIndex);
        }
        let slot = handshake.slot;

        match self.half_mut(slot).engine.accept_response(datagram) {
            Ok(keepalive) => {
                let session = Session {
                    local_index: receiver,
                    established_at: now,
                    sent: 1,
                };
                self.establish(common, slot, session, &keepalive, now);
                Ok(())
            }
            Err(error) => {
                if error == EngineError::Undecryptable {
                    self.bad_response(common, receiver);
                }
                Err(error.into())
            }
        }
    }

    /// A cookie makes the next initiation pass a loaded responder; it starts nothing by itself.
    pub(super) fn open_cookie(&mut self, receiver: u32, datagram: &[u8]) -> Result<(), OpenError> {
        let handshake = self.handshake.as_ref().ok_or(OpenError::UnknownIndex)?;
        if !handshake.answerable.contains(&Some(receiver)) {
            return Err(OpenError::UnknownIndex);
        }
        let slot = handshake.slot;

        Ok(self.half_mut(slot).engine.accept_cookie(datagram)?)
    }

    /// W2: an initiation from the other side is not answered; it says that the other side wants a session. At most one start
    /// per 5 s, because whoever knows both public keys can make one.
    pub(super) fn foreign_init(&mut self, common: &mut Common, now: Instant) {
        if self.may_send_init(now) {
            self.start(common, now);
        }
    }

    pub(super) fn path_ready(&mut self, common: &mut Common, now: Instant) {
        self.last_proactive_at = Some(now);
        self.start(common, now);
    }

    pub(super) fn path_changed(&mut self, common: &mut Common, now: Instant) {
        if self.handshake.is_none() {
            self.rehandshake(common, now);
            return;
        }

        // The one in flight went over the old path; on the new one the other side has not had its time to answer.
        if let Some(handshake) = &mut self.handshake {
            handshake.started_at = now;
        }
        if self
            .last_init_at
            .is_none_or(|at| now.saturating_duration_since(at) >= REPEAT_INTERVAL)
        {
            self.send_init(common, now);
        }
    }

    pub(super) fn rehandshake(&mut self, common: &mut Common, now: Instant) {
        let debounced = self
            .last_proactive_at
            .is_some_and(|at| now.saturating_duration_since(at) < PROACTIVE_INTERVAL);

        if debounced || self.handshake.is_some() || !common.path_ready {
            return;
        }
        self.last_proactive_at = Some(now);
        self.start(common, now);
    }

    /// Expiry first, then what needs a session, then handshakes: after a suspend all are due at once.
    pub(super) fn handle_timeout(&mut self, common: &mut Common, now: Instant) {
        self.expire(common, now);

        if common.keepalive_at().is_some_and(|at| now >= at) {
            self.keepalive(common, now);
        }
        if self.handshake.is_some() {
            self.retry(common, now);
        } else if self.start_at().is_some_and(|at| now >= at) {
            cover!("connection/renewed-by-age" if self.renew_at.is_some_and(|at| now >= at));
            self.unanswered_until = None;
            self.start(common, now);
        }
    }

    pub(super) fn deadline(&self, common: &Common) -> Option<Instant> {
        let handshake = match &self.handshake {
            Some(handshake) => Some(handshake.retry_at.min(handshake.gives_up_at())),
            None => self.start_at(),
        };

        [
            handshake,
            common.keepalive_at(),
            self.a.expires_at(),
            self.b.expires_at(),
            self.wipe_at,
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// T4 or T17, whichever is first; only meaningful without a handshake in flight.
    fn start_at(&self) -> Option<Instant> {
        [self.unanswered_until, self.renew_at]
            .into_iter()
            .flatten()
            .min()
    }

    /// T13.
    fn may_send_init(&self, now: Instant) -> bool {
        self.last_init_at.is_none_or(|at| now >= at + REKEY_TIMEOUT)
    }

    /// Starts a handshake on the engine that does not carry the current session. Does nothing without a path, or while one is
    /// in flight (W4).
    fn start(&mut self, common: &mut Common, now: Instant) {
        if self.handshake.is_some() || !common.path_ready {
            return;
        }
        self.renew_at = None;
        self.handshake = Some(Handshake {
            slot: self.current.other(),
            started_at: now,
            retry_at: self
                .last_init_at
                .map_or(now, |at| now.max(at + REKEY_TIMEOUT)),
            answerable: [None; 2],
            refused: None,
        });
        self.retry(common, now);
    }

    /// T5, T6.
    fn retry(&mut self, common: &mut Common, now: Instant) {
        let Some(handshake) = &self.handshake else {
            return;
        };

        if now >= handshake.gives_up_at() {
            self.fail(common, FailReason::AttemptsExhausted);
        } else if now >= handshake.retry_at {
            self.send_init(common, now);
        }
    }

    fn send_init(&mut self, common: &mut Common, now: Instant) {
        let Some(handshake) = &mut self.handshake else {
            return;
        };
        let half = match handshake.slot {
            Slot::A => &mut self.a,
            Slot::B => &mut self.b,
        };
        let init = half.engine.init(self.timestamps.next(now));

        handshake.answerable = [sender_index(&init), handshake.answerable[0]];
        handshake.retry_at = now + REKEY_TIMEOUT + common.jitter();
        self.last_init_at = Some(now);
        common.outbox.push(DatagramKind::Init, &init);
        common.stats.inits_sent += 1;
        common.settle();
    }

    fn establish(
        &mut self,
        common: &mut Common,
        slot: Slot,
        session: Session,
        keepalive: &[u8],
        now: Instant,
    ) {
        let half = self.half_mut(slot);
        if let Some(old) = half.session.replace(session) {
            half.engine.forget(old.local_index);
        }
        self.current = slot;
        self.handshake = None;
        self.unanswered_until = None;
        self.renew_at = Some(now + common.renewal_age());
        self.wipe_at = Some(now + WIPE_AFTER_TIME);
        common.completed();

        // T11: the first message under the session confirms it to the other side; waiting data does that as well.
        if self.pending.is_empty() {
            common.outbox.push(DatagramKind::Keepalive, keepalive);
            common.stats.keepalives_sent += 1;
            common.settle();
        } else {
            self.flush(common, now);
        }
    }

    fn flush(&mut self, common: &mut Common, now: Instant) {
        let half = match self.current {
            Slot::A => &mut self.a,
            Slot::B => &mut self.b,
        };
        let Some(session) = half.session.as_mut() else {
            return;
        };
        let mut sink = common.outbox.sink(DatagramKind::Data);
        let outcome = half
            .engine
            .seal(session.local_index, &mut self.pending, &mut sink);

        session.sent += outcome.sent as u64;
        self.data_sent(common, outcome.sent, outcome.bytes, now);
    }

    /// When the responses to two initiations do not decrypt, the keys differ and retrying cannot help. One initiation may
    /// well have several responses: the network doubles datagrams, and a responder with a spare key answers under that too.
    fn bad_response(&mut self, common: &mut Common, initiation: u32) {
        let Some(handshake) = &mut self.handshake else {
            return;
        };
        let first = *handshake.refused.get_or_insert(initiation);

        if first != initiation {
            self.fail(common, FailReason::KeysDiffer);
        }
    }

    fn fail(&mut self, common: &mut Common, reason: FailReason) {
        tracing::debug!(%reason, "Handshake failed");

        self.handshake = None;
        self.unanswered_until = None;
        common.stats.dropped_no_session += self.pending.len() as u64;
        common.failed(reason);
    }

    pub(super) fn take_waiting(&mut self, now: Instant) -> Option<&[u8]> {
        while self
            .pending
            .oldest()
            .is_some_and(|since| now.saturating_duration_since(since) > MAX_WAIT)
        {
            self.pending.drop_oldest();
        }

        self.pending.next_packet()
    }

    /// W5: packets wait for the session that is being made.
    #[cold]
    fn wait<B: PacketBatch>(&mut self, common: &mut Common, batch: &mut B, now: Instant) -> Sealed {
        let mut sealed = Sealed::default();

        while let Some(packet) = batch.next_packet() {
            if packet.len() > ip_packet::MAX_IP_SIZE {
                common.stats.dropped_oversize += 1;
                sealed.dropped += 1;
            } else if self.pending.push(packet, now) {
                sealed.buffered += 1;
            } else {
                common.stats.dropped_full += 1;
                sealed.dropped += 1;
            }
        }
        if sealed.buffered > 0 {
            // The first session has a renewal or a wipe ahead of it from then on.
            cover!("connection/rekeyed-after-expiry" if self.wipe_at.is_some() && self.handshake.is_none());
            self.start(common, now);
        }

        sealed
    }

    #[inline]
    fn data_sent(&mut self, common: &mut Common, packets: usize, bytes: u64, now: Instant) {
        common.stats.tx_packets += packets as u64;
        common.stats.tx_bytes += bytes;
        common.settle();
        if self.unanswered_until.is_none() {
            self.unanswered_until = Some(now + UNANSWERED_TIMEOUT + common.jitter());
        }
    }

    /// T7; a keepalive never creates a session (W7).
    fn keepalive(&mut self, common: &mut Common, now: Instant) {
        common.settle();
        let half = self.half_mut(self.current);
        let Some(session) = half
            .session
            .as_mut()
            .filter(|session| may_seal(session, now))
        else {
            return;
        };

        let mut sink = common.outbox.sink(DatagramKind::Keepalive);
        let outcome = half
            .engine
            .seal(session.local_index, &mut Nothing::once(), &mut sink);
        session.sent += outcome.sent as u64;
        common.stats.keepalives_sent += outcome.sent as u64;
    }

    /// T1, T9: erases what is too old.
    fn expire(&mut self, common: &mut Common, now: Instant) {
        if self
            .half(self.current)
            .expires_at()
            .is_some_and(|at| now >= at)
        {
            cover!("connection/session-expired");
            common.settle();
        }
        for half in [&mut self.a, &mut self.b] {
            if half.expires_at().is_some_and(|at| now >= at) {
                half.clear();
            }
        }
        if self.wipe_at.is_some_and(|at| now >= at) {
            self.wipe_at = None;
            self.a.clear();
            self.b.clear();
        }
    }

    fn half(&self, slot: Slot) -> &Half<E> {
        match slot {
            Slot::A => &self.a,
            Slot::B => &self.b,
        }
    }

    fn half_mut(&mut self, slot: Slot) -> &mut Half<E> {
        match slot {
            Slot::A => &mut self.a,
            Slot::B => &mut self.b,
        }
    }

    #[inline]
    fn half_of(&mut self, receiver: u32) -> Result<&mut Half<E>, OpenError> {
        let index = PeerIndex::of_receiver(receiver);

        [&mut self.a, &mut self.b]
            .into_iter()
            .find(|half| half.index == index)
            .ok_or(OpenError::UnknownIndex)
    }
}

impl<E: Engine> Half<E> {
    fn expires_at(&self) -> Option<Instant> {
        self.session.as_ref().map(Session::expires_at)
    }

    fn clear(&mut self) {
        self.session = None;
        self.engine.clear();
    }
}

/// Whether an initiator may still send under `session` (T15, T16).
#[inline]
fn may_seal(session: &Session, now: Instant) -> bool {
    session.age(now) < HOLD_AFTER_TIME && !session.is_exhausted()
}

impl Handshake {
    fn gives_up_at(&self) -> Instant {
        self.started_at + REKEY_ATTEMPT_TIME
    }
}

impl Slot {
    fn other(self) -> Self {
        match self {
            Slot::A => Slot::B,
            Slot::B => Slot::A,
        }
    }
}
