//! The responding role: answers initiations, never emits one (snownet §4.4, W2).
//!
//! One engine lives as long as the peer, because it remembers the last handshake timestamp. A table mirrors its eight session
//! slots and knows ages and confirmation, which the engine does not. The session that opened data last is the one to seal under,
//! if it is confirmed and valid (snownet §4.6, trap 1, trap 2).
//!
//! A second engine exists only while the other side may hold another preshared key (snownet §3.3).

use std::time::Instant;

use ip_packet::PacketBatch;
use zeroize::Zeroizing;

use super::common::{Common, OpenError};
use super::session::Session;
use super::timing::{MAX_HELD, MAX_HOLD_TIME, WIPE_AFTER_TIME};
use super::train::{OpenSink, OpenedTrain, open_run};
use crate::engine::{Engine, EngineConfig};
use crate::message::sender_index;
use crate::queue::{Nothing, PendingPackets};
use crate::{DatagramKind, PeerIndex, SealSink, Sealed};

/// Session slots of the engine: by local index modulo 8.
const SLOTS: usize = 8;

/// What [`Peer::add_spare_psk`](super::Peer::add_spare_psk) did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SpareOutcome {
    /// The key is the one in use, or the spare already held, or the role has no spare.
    Kept,
    /// The key is now the spare; an older spare is gone.
    Added,
}

pub(super) struct Responder<E> {
    config: EngineConfig,
    indices: [PeerIndex; 2],
    main: Answering<E>,
    spare: Option<Answering<E>>,
    /// The session of the last initiation answered.
    last_answered: Option<u32>,
    /// Packets that wait for a session to be confirmed.
    held: PendingPackets,
    /// T9.
    wipe_at: Option<Instant>,
}

/// An engine with the mirror of its sessions.
struct Answering<E> {
    index: PeerIndex,
    psk: Zeroizing<[u8; 32]>,
    engine: E,
    slots: [Option<Mirror>; SLOTS],
    /// Slot that opened data last: packets are sealed under it.
    current: usize,
}

#[derive(Debug, Clone, Copy)]
struct Mirror {
    session: Session,
    confirmation: Confirmation,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Confirmation {
    /// Answered; the initiator has not used it yet, so it may not know it (T10).
    Unconfirmed,
    /// Authentic data was received under it.
    Confirmed,
}

impl<E: Engine> Responder<E> {
    pub(super) fn new(config: EngineConfig, psk: [u8; 32], indices: [PeerIndex; 2]) -> Self {
        Self {
            main: Answering::new(&config, psk, indices[0]),
            config,
            indices,
            spare: None,
            last_answered: None,
            held: PendingPackets::new(MAX_HELD),
            wipe_at: None,
        }
    }

    pub(super) fn is_usable(&self, now: Instant) -> bool {
        self.main.slots[self.main.current].is_some_and(|mirror| mirror.may_seal(now))
    }

    /// Holds `psk` as the spare unless it is known.
    pub(super) fn add_spare(&mut self, psk: [u8; 32]) -> SpareOutcome {
        if *self.main.psk == psk || self.spare.as_ref().is_some_and(|spare| *spare.psk == psk) {
            return SpareOutcome::Kept;
        }
        let [first, second] = self.indices;
        let index = if self.main.index == first {
            second
        } else {
            first
        };
        self.spare = Some(Answering::new(&self.config, psk, index));

        SpareOutcome::Added
    }

    #[inline]
    pub(super) fn seal<B: PacketBatch, S: SealSink>(
        &mut self,
        common: &mut Common,
        batch: &mut B,
        now: Instant,
        sink: &mut S,
    ) -> Sealed {
        let path_ready = common.path_ready;
        let main = &mut self.main;
        let Some(mirror) = main.slots[main.current]
            .as_mut()
            .filter(|mirror| path_ready && mirror.may_seal(now))
        else {
            return self.hold_or_drop(common, batch, now);
        };

        let outcome = main.engine.seal(mirror.session.local_index, batch, sink);
        mirror.session.sent += outcome.sent as u64;
        common.stats.dropped_oversize += outcome.dropped as u64;
        if outcome.sent > 0 {
            data_sent(common, outcome.sent, outcome.bytes);
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
        let (receiver, slot) = (first.0, first.0 as usize % SLOTS);
        let (answering, confirmation) = match self.open_answering(receiver, now) {
            Ok(found) => found,
            Err(error) => return Err(error).into(),
        };

        let opened = open_run(&mut answering.engine, common, first, train, now, sink);
        if opened.is_authentic() {
            answering.current = slot;
            if confirmation == Confirmation::Unconfirmed {
                self.confirm(common, receiver);
            }
            if !self.held.is_empty() {
                self.flush(common, now);
            }
        }

        opened
    }

    /// The engine that opens messages for the index `receiver` now, and what is known about that session.
    #[inline]
    fn open_answering(
        &mut self,
        receiver: u32,
        now: Instant,
    ) -> Result<(&mut Answering<E>, Confirmation), OpenError> {
        let answering = self.answering_of(receiver)?;
        let mirror = answering.slots[receiver as usize % SLOTS]
            .filter(|mirror| mirror.session.local_index == receiver)
            .ok_or(OpenError::UnknownIndex)?;

        if mirror.session.is_expired(now) {
            return Err(OpenError::Expired);
        }

        Ok((answering, mirror.confirmation))
    }

    /// Answers an initiation. While the last answer is unconfirmed and there is a spare, the two engines take turns: the
    /// initiator can read the answer of only one of them.
    pub(super) fn open_init(
        &mut self,
        common: &mut Common,
        datagram: &[u8],
        now: Instant,
    ) -> Result<(), OpenError> {
        let answering = match (&mut self.spare, self.last_answered) {
            (Some(spare), Some(last)) if self.main.is_unconfirmed(last) => spare,
            _ => &mut self.main,
        };

        let response = answering.engine.accept_init(datagram)?;
        let local_index = sender_index(&response).ok_or(OpenError::Malformed)?;
        answering.slots[local_index as usize % SLOTS] = Some(Mirror {
            session: Session {
                local_index,
                established_at: now,
                sent: 0,
            },
            confirmation: Confirmation::Unconfirmed,
        });

        self.last_answered = Some(local_index);
        self.wipe_at = Some(now + WIPE_AFTER_TIME);
        common.outbox.push(DatagramKind::Response, &response);
        common.stats.responses_sent += 1;
        common.settle();

        Ok(())
    }

    pub(super) fn handle_timeout(&mut self, common: &mut Common, now: Instant) {
        self.expire(common, now);

        if common.keepalive_at().is_some_and(|at| now >= at) {
            self.keepalive(common, now);
        }
        while self.held_until().is_some_and(|at| now >= at) {
            self.held.drop_oldest();
            common.stats.dropped_no_session += 1;
        }
    }

    pub(super) fn deadline(&self, common: &Common) -> Option<Instant> {
        let expiry = self
            .main
            .expires_at()
            .chain(self.spare.iter().flat_map(Answering::expires_at))
            .min();

        [
            expiry,
            common.keepalive_at(),
            self.held_until(),
            self.wipe_at,
        ]
        .into_iter()
        .flatten()
        .min()
    }

    fn held_until(&self) -> Option<Instant> {
        self.held.oldest().map(|since| since + MAX_HOLD_TIME)
    }

    /// The initiator used the session `receiver`: it stays, and so does the preshared key that it was made with.
    fn confirm(&mut self, common: &mut Common, receiver: u32) {
        if let Some(spare) = self
            .spare
            .take_if(|spare| spare.index == PeerIndex::of_receiver(receiver))
        {
            self.main = spare;
        }
        self.spare = None;

        if let Some(mirror) = &mut self.main.slots[receiver as usize % SLOTS] {
            mirror.confirmation = Confirmation::Confirmed;
        }
        common.completed();
    }

    /// A packet without usable session: worth keeping only if one is about to be confirmed.
    #[cold]
    fn hold_or_drop<B: PacketBatch>(
        &mut self,
        common: &mut Common,
        batch: &mut B,
        now: Instant,
    ) -> Sealed {
        let hold = common.path_ready && self.has_next(now);
        let mut sealed = Sealed::default();

        while let Some(packet) = batch.next_packet() {
            if packet.len() > ip_packet::MAX_IP_SIZE {
                common.stats.dropped_oversize += 1;
                sealed.dropped += 1;
            } else if !hold {
                common.stats.dropped_no_session += 1;
                sealed.dropped += 1;
            } else if self.held.push(packet, now) {
                sealed.buffered += 1;
            } else {
                common.stats.dropped_full += 1;
                sealed.dropped += 1;
            }
        }

        sealed
    }

    /// Whether a session waits for its confirmation.
    fn has_next(&self, now: Instant) -> bool {
        let spare = self.spare.iter().flat_map(|spare| &spare.slots);

        self.main.slots.iter().chain(spare).flatten().any(|mirror| {
            mirror.confirmation == Confirmation::Unconfirmed && !mirror.session.is_expired(now)
        })
    }

    fn flush(&mut self, common: &mut Common, now: Instant) {
        let main = &mut self.main;
        let Some(mirror) = main.slots[main.current]
            .as_mut()
            .filter(|mirror| mirror.may_seal(now))
        else {
            return;
        };
        let mut sink = common.outbox.sink(DatagramKind::Data);
        let outcome = main
            .engine
            .seal(mirror.session.local_index, &mut self.held, &mut sink);

        mirror.session.sent += outcome.sent as u64;
        data_sent(common, outcome.sent, outcome.bytes);
    }

    /// T7.
    fn keepalive(&mut self, common: &mut Common, now: Instant) {
        common.settle();
        let path_ready = common.path_ready;
        let main = &mut self.main;
        let Some(mirror) = main.slots[main.current]
            .as_mut()
            .filter(|mirror| path_ready && mirror.may_seal(now))
        else {
            return;
        };

        let mut sink = common.outbox.sink(DatagramKind::Keepalive);
        let outcome = main
            .engine
            .seal(mirror.session.local_index, &mut Nothing::once(), &mut sink);
        mirror.session.sent += outcome.sent as u64;
        common.stats.keepalives_sent += outcome.sent as u64;
    }

    /// T1, T9.
    fn expire(&mut self, common: &mut Common, now: Instant) {
        if self.main.slots[self.main.current].is_some_and(|mirror| mirror.session.is_expired(now)) {
            common.settle();
        }
        let wipe = self.wipe_at.take_if(|at| now >= *at).is_some();

        for answering in std::iter::once(&mut self.main).chain(&mut self.spare) {
            answering.expire(now);
            if wipe {
                answering.clear();
            }
        }
    }

    #[inline]
    fn answering_of(&mut self, receiver: u32) -> Result<&mut Answering<E>, OpenError> {
        let index = PeerIndex::of_receiver(receiver);

        std::iter::once(&mut self.main)
            .chain(&mut self.spare)
            .find(|answering| answering.index == index)
            .ok_or(OpenError::UnknownIndex)
    }
}

impl<E: Engine> Answering<E> {
    fn new(config: &EngineConfig, psk: [u8; 32], index: PeerIndex) -> Self {
        Self {
            index,
            psk: Zeroizing::new(psk),
            engine: E::new(config, psk, index),
            slots: [None; SLOTS],
            current: 0,
        }
    }

    /// Whether `local_index` is a session of this engine that the initiator has not used.
    fn is_unconfirmed(&self, local_index: u32) -> bool {
        self.index == PeerIndex::of_receiver(local_index)
            && self.slots[local_index as usize % SLOTS].is_some_and(|mirror| {
                mirror.session.local_index == local_index
                    && mirror.confirmation == Confirmation::Unconfirmed
            })
    }

    fn expires_at(&self) -> impl Iterator<Item = Instant> {
        self.slots
            .iter()
            .flatten()
            .map(|mirror| mirror.session.expires_at())
    }

    /// Erases expired sessions.
    fn expire(&mut self, now: Instant) {
        for slot in &mut self.slots {
            if let Some(mirror) = slot.take_if(|mirror| mirror.session.is_expired(now)) {
                self.engine.forget(mirror.session.local_index);
            }
        }
    }

    fn clear(&mut self) {
        self.slots = [None; SLOTS];
        self.engine.clear();
    }
}

impl Mirror {
    #[inline]
    fn may_seal(&self, now: Instant) -> bool {
        self.confirmation == Confirmation::Confirmed
            && !self.session.is_expired(now)
            && !self.session.is_exhausted()
    }
}

#[inline]
fn data_sent(common: &mut Common, packets: usize, bytes: u64) {
    common.stats.tx_packets += packets as u64;
    common.stats.tx_bytes += bytes;
    common.settle();
}
