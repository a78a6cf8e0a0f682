//! [`Engine`] of our own: Noise handshakes and sessions over the AEAD of `connlib-aead`.
//!
//! It decides nothing and reads no clock. Everything that is refused leaves the state as it was. What it takes from outside
//! without being given it are ephemeral keys, from the operating system's randomness.

mod handshake;
mod replay;
mod session;
mod symmetric;

use std::mem;
use std::sync::Arc;

use ip_packet::{MAX_IP_SIZE, PacketBatch};
use x25519_dalek::StaticSecret;
use zeroize::Zeroizing;

use self::handshake::{Initiation, Received};
use self::session::{Session, SessionKeys};
use super::{Engine, EngineConfig, EngineError, Keys, OpenJob, SealOutcome};
use crate::macs::{Cookie, Mac16};
use crate::message::{
    COOKIE_REPLY_LEN, DATA_HEADER_LEN, DATA_OVERHEAD, INIT_LEN, Inbound, KEEPALIVE_LEN,
    RESPONSE_LEN, classify, receiver_index,
};
use crate::timestamp::Timestamp;
use crate::{PeerIndex, SealSink};

pub(crate) use self::handshake::claimed_sender;

/// Sessions by local index. The initiator uses one at a time; a responder that answers more initiations than this without
/// confirmation forgets the oldest.
const SLOTS: usize = 8;

/// T14: a cookie is proven for this long.
const COOKIE_LIFETIME_SECS: u64 = 120;

/// The engine in use.
pub struct Noise {
    keys: Arc<Keys>,
    psk: Zeroizing<[u8; 32]>,
    index: PeerIndex,
    /// Lower 8 bits of the last local index: counts handshakes.
    handshakes: u8,
    /// The last two initiations, newest first.
    in_flight: [Option<Initiation>; 2],
    /// By local index.
    sessions: [Option<Box<Session>>; SLOTS],
    /// Of the last initiation that was accepted.
    last_timestamp: Option<Timestamp>,
    /// The last initiation, until a cookie came for it.
    awaits_cookie: Option<Sent>,
    cookie: Option<(Cookie, Timestamp)>,
}

/// What a cookie reply refers to.
struct Sent {
    local_index: u32,
    mac1: Mac16,
    timestamp: Timestamp,
}

impl Engine for Noise {
    fn new(config: &EngineConfig, psk: [u8; 32], index: PeerIndex) -> Self {
        Self {
            keys: Arc::clone(&config.0),
            psk: Zeroizing::new(psk),
            index,
            handshakes: 0,
            in_flight: [None, None],
            sessions: [const { None }; SLOTS],
            last_timestamp: None,
            awaits_cookie: None,
            cookie: None,
        }
    }

    #[inline]
    fn seal<B: PacketBatch, S: SealSink>(
        &mut self,
        session: u32,
        batch: &mut B,
        sink: &mut S,
    ) -> SealOutcome {
        let mut outcome = SealOutcome::default();
        let mut session = self.session(session);
        debug_assert!(session.is_some(), "sealing without a session");

        while let Some(packet) = batch.next_packet() {
            let Some(session) = session.as_mut().filter(|_| packet.len() <= MAX_IP_SIZE) else {
                outcome.dropped += 1;
                continue;
            };
            let slot = sink.reserve(packet.len() + DATA_OVERHEAD);
            if slot.len() < packet.len() + DATA_OVERHEAD {
                debug_assert!(false, "sink lent a slot that is too short");
                sink.commit(0);
                outcome.dropped += 1;
                continue;
            }

            let len = session.seal(packet, slot);
            sink.commit(len);
            outcome.sent += 1;
            outcome.bytes += packet.len() as u64;
        }

        outcome
    }

    #[inline]
    fn open(&mut self, jobs: &mut [OpenJob<'_>]) {
        for job in jobs {
            job.result = self.open_one(job.datagram, job.out);
        }
    }

    fn init(&mut self, timestamp: Timestamp) -> [u8; INIT_LEN] {
        let local_index = self.next_index();
        let (initiation, mut init) =
            Initiation::new(&self.keys, local_index, timestamp, StaticSecret::random());
        let cookie = self.cookie.as_ref().and_then(|(cookie, since)| {
            (timestamp.seconds_since(since) < COOKIE_LIFETIME_SECS).then_some(cookie)
        });

        self.awaits_cookie = Some(Sent {
            local_index,
            mac1: self.keys.to_remote.sign(&mut init, cookie),
            timestamp,
        });
        let [newest, _] = mem::take(&mut self.in_flight);
        self.in_flight = [Some(initiation), newest];

        init
    }

    fn accept_init(&mut self, datagram: &[u8]) -> Result<[u8; RESPONSE_LEN], EngineError> {
        debug_assert_eq!(
            classify(datagram),
            Ok(Inbound::Init),
            "expects an initiation"
        );
        let init: &[u8; INIT_LEN] = datagram.try_into().map_err(|_| EngineError::Refused)?;
        if !self.keys.to_us.has_mac1(init) {
            return Err(EngineError::Refused);
        }
        let received = Received::new(&self.keys, init)?;
        if self
            .last_timestamp
            .is_some_and(|last| received.timestamp <= last)
        {
            return Err(EngineError::Replayed);
        }

        self.last_timestamp = Some(received.timestamp);
        let local_index = self.next_index();
        let (mut response, peer_index, keys) =
            received.respond(&self.keys, &self.psk, local_index, &StaticSecret::random());
        self.keys.to_remote.sign(&mut response, None);
        self.store(local_index, peer_index, &keys);

        Ok(response)
    }

    fn accept_response(&mut self, datagram: &[u8]) -> Result<[u8; KEEPALIVE_LEN], EngineError> {
        debug_assert!(
            matches!(classify(datagram), Ok(Inbound::Response { .. })),
            "expects a response"
        );
        let response: &[u8; RESPONSE_LEN] =
            datagram.try_into().map_err(|_| EngineError::Refused)?;
        if !self.keys.to_us.has_mac1(response) {
            return Err(EngineError::Refused);
        }
        let local_index =
            u32::from_le_bytes([response[8], response[9], response[10], response[11]]);
        let initiation = self
            .in_flight
            .iter()
            .flatten()
            .find(|initiation| initiation.local_index == local_index)
            .ok_or(EngineError::Refused)?;
        let (peer_index, keys) = initiation.finish(&self.keys, &self.psk, response)?;

        // One session per handshake: the other initiation has had its time.
        self.in_flight = [None, None];

        Ok(self.store(local_index, peer_index, &keys).keepalive())
    }

    fn accept_cookie(&mut self, datagram: &[u8]) -> Result<(), EngineError> {
        debug_assert!(
            matches!(classify(datagram), Ok(Inbound::Cookie { .. })),
            "expects a cookie reply"
        );
        let reply: &[u8; COOKIE_REPLY_LEN] =
            datagram.try_into().map_err(|_| EngineError::Refused)?;
        let sent = self
            .awaits_cookie
            .take_if(|sent| receiver_index(reply) == Some(sent.local_index))
            .ok_or(EngineError::Refused)?;

        match self.keys.to_remote.open_cookie_reply(reply, &sent.mac1) {
            Some(cookie) => {
                self.cookie = Some((cookie, sent.timestamp));
                Ok(())
            }
            None => {
                self.awaits_cookie = Some(sent);
                Err(EngineError::Undecryptable)
            }
        }
    }

    fn forget(&mut self, session: u32) {
        self.sessions[slot(session)].take_if(|found| found.local_index == session);
    }

    fn clear(&mut self) {
        self.sessions = [const { None }; SLOTS];
    }
}

impl Noise {
    #[inline]
    fn session(&mut self, local_index: u32) -> Option<&mut Session> {
        self.sessions[slot(local_index)]
            .as_deref_mut()
            .filter(|session| session.local_index == local_index)
    }

    #[inline]
    fn open_one(&mut self, datagram: &[u8], out: &mut [u8]) -> Result<usize, EngineError> {
        debug_assert!(
            matches!(classify(datagram), Ok(Inbound::Data { .. })),
            "expects a data message"
        );
        debug_assert!(out.len() >= datagram.len() - DATA_HEADER_LEN);
        let receiver = receiver_index(datagram).ok_or(EngineError::Refused)?;

        self.session(receiver)
            .ok_or(EngineError::Refused)?
            .open(datagram, out)
    }

    fn next_index(&mut self) -> u32 {
        self.handshakes = self.handshakes.wrapping_add(1);

        self.index.get() << 8 | u32::from(self.handshakes)
    }

    fn store(&mut self, local_index: u32, peer_index: u32, keys: &SessionKeys) -> &mut Session {
        self.sessions[slot(local_index)].insert(Box::new(Session::new(
            local_index,
            peer_index,
            keys,
        )))
    }
}

#[inline]
fn slot(local_index: u32) -> usize {
    local_index as usize % SLOTS
}

#[cfg(test)]
mod tests;
