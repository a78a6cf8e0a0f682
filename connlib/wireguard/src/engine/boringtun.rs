//! [`Engine`] on `boringtun`'s `Tunn` (snownet §4.6).
//!
//! `Tunn::update_timers` is never called: all time stamps inside stay zero, nothing expires, and the session that opened data
//! last is the one that seals. The traps of that are closed by the caller's mirror of the sessions; this file only checks, in
//! debug builds, that every output is of the type that its call site expects (snownet 59).

use ::boringtun::noise::errors::WireGuardError;
use ::boringtun::noise::{Tunn, TunnResult};
use ::boringtun::x25519;
use ip_packet::{MAX_IP_SIZE, PacketBatch};

use super::{Engine, EngineConfig, EngineError, OpenJob, SealOutcome};
use crate::message::{DATA_OVERHEAD, INIT_LEN, Inbound, KEEPALIVE_LEN, RESPONSE_LEN, classify};
use crate::{PeerIndex, SealSink};

/// The engine in use: one `Tunn`, boxed because it is 11 kB large.
pub struct Boringtun {
    tunn: Box<Tunn>,
    config: EngineConfig,
}

impl Engine for Boringtun {
    fn new(config: &EngineConfig, psk: [u8; 32], index: PeerIndex) -> Self {
        let tunn = Tunn::new(
            config.private.secret().clone(),
            x25519::PublicKey::from(config.remote.0),
            Some(psk),
            None,
            index.get(),
            Some(config.limiter.clone()),
        );

        Self {
            tunn: Box::new(tunn),
            config: config.clone(),
        }
    }

    #[inline]
    fn seal<B: PacketBatch, S: SealSink>(
        &mut self,
        peer_index: u32,
        batch: &mut B,
        sink: &mut S,
    ) -> SealOutcome {
        let mut outcome = SealOutcome::default();

        while let Some(packet) = batch.next_packet() {
            if packet.len() > MAX_IP_SIZE {
                outcome.dropped += 1;
                continue;
            }
            let slot = sink.reserve(packet.len() + DATA_OVERHEAD);

            match seal_one(&mut self.tunn, peer_index, packet, slot) {
                Some(len) => {
                    sink.commit(len);
                    outcome.sent += 1;
                    outcome.bytes += packet.len() as u64;
                }
                None => {
                    sink.commit(0);
                    outcome.dropped += 1;
                }
            }
        }

        outcome
    }

    #[inline]
    fn open(&mut self, jobs: &mut [OpenJob<'_>]) {
        for job in jobs {
            job.result = open_one(&mut self.tunn, job.datagram, job.out);
        }
    }

    fn init(&mut self) -> [u8; INIT_LEN] {
        let mut out = [0; INIT_LEN];
        // Never without force: that does nothing while a stale handshake is pending (trap 4).
        let result = self.tunn.format_handshake_initiation(&mut out, true);
        debug_assert!(
            matches!(&result, TunnResult::WriteToNetwork(bytes) if classify(bytes) == Ok(Inbound::Init)),
            "engine made {result:?} instead of an initiation"
        );

        out
    }

    fn accept_init(&mut self, datagram: &[u8]) -> Result<[u8; RESPONSE_LEN], EngineError> {
        let mut out = [0; RESPONSE_LEN];

        match self.tunn.decapsulate(None, datagram, &mut out) {
            TunnResult::WriteToNetwork(bytes)
                if matches!(classify(bytes), Ok(Inbound::Response { .. })) =>
            {
                Ok(out)
            }
            other => Err(refusal(other, "response")),
        }
    }

    fn accept_response(&mut self, datagram: &[u8]) -> Result<[u8; KEEPALIVE_LEN], EngineError> {
        let mut out = [0; KEEPALIVE_LEN];

        match self.tunn.decapsulate(None, datagram, &mut out) {
            TunnResult::WriteToNetwork(bytes)
                if matches!(classify(bytes), Ok(Inbound::Data { .. })) =>
            {
                Ok(out)
            }
            other => Err(refusal(other, "keepalive")),
        }
    }

    fn accept_cookie(&mut self, datagram: &[u8]) -> Result<(), EngineError> {
        match self.tunn.decapsulate(None, datagram, &mut []) {
            TunnResult::Done => Ok(()),
            other => Err(refusal(other, "nothing")),
        }
    }

    fn clear(&mut self) {
        let EngineConfig {
            private, limiter, ..
        } = &self.config;

        // Setting the same key again drops the sessions and nothing else.
        self.tunn.set_static_private(
            private.secret().clone(),
            *private.x25519_public(),
            Some(limiter.clone()),
        );
    }
}

#[inline]
fn seal_one(tunn: &mut Tunn, peer_index: u32, packet: &[u8], slot: &mut [u8]) -> Option<usize> {
    if slot.len() < packet.len() + DATA_OVERHEAD {
        debug_assert!(false, "sink lent a slot that is too short");
        return None;
    }

    match tunn.encapsulate(packet, slot) {
        TunnResult::WriteToNetwork(datagram) if datagram[0] == 4 => {
            debug_assert_eq!(
                classify(datagram),
                Ok(Inbound::Data {
                    receiver: peer_index
                })
            );
            Some(datagram.len())
        }
        other => {
            refusal(other, "data message");
            None
        }
    }
}

#[inline]
fn open_one(tunn: &mut Tunn, datagram: &[u8], out: &mut [u8]) -> Result<usize, EngineError> {
    match tunn.decapsulate(None, datagram, out) {
        TunnResult::WriteToTunnelV4(packet, _) | TunnResult::WriteToTunnelV6(packet, _) => {
            Ok(packet.len())
        }
        TunnResult::Done => Ok(0),
        // The datagram parsed, so this is about the packet inside.
        TunnResult::Err(WireGuardError::InvalidPacket) => Err(EngineError::NotIp),
        other => Err(refusal(other, "packet")),
    }
}

/// Translates a refusal; anything but an error is the engine acting on its own, which must not happen (trap 3).
#[cold]
fn refusal(result: TunnResult<'_>, expected: &str) -> EngineError {
    let TunnResult::Err(error) = result else {
        debug_assert!(false, "engine made {result:?} instead of a {expected}");
        return EngineError::Refused;
    };

    match error {
        WireGuardError::InvalidAeadTag => EngineError::Undecryptable,
        WireGuardError::WrongTai64nTimestamp
        | WireGuardError::InvalidCounter
        | WireGuardError::DuplicateCounter => EngineError::Replayed,
        WireGuardError::DestinationBufferTooSmall
        | WireGuardError::IncorrectPacketLength
        | WireGuardError::UnexpectedPacket
        | WireGuardError::WrongPacketType
        | WireGuardError::WrongIndex
        | WireGuardError::WrongKey
        | WireGuardError::InvalidTai64nTimestamp
        | WireGuardError::InvalidMac
        | WireGuardError::InvalidPacket
        | WireGuardError::NoCurrentSession
        | WireGuardError::LockFailed
        | WireGuardError::ConnectionExpired
        | WireGuardError::UnderLoad => EngineError::Refused,
    }
}

#[cfg(test)]
mod tests {
    use ip_packet::PacketBatch;

    use super::*;
    use crate::queue::Outbox;
    use crate::{DatagramKind, HandshakeLimiter, IndexTable, PrivateKey, Role};

    struct One(Option<&'static [u8]>);

    impl PacketBatch for One {
        fn next_packet(&mut self) -> Option<&[u8]> {
            self.0.take()
        }
    }

    fn engine(seed: u8, remote: u8) -> Boringtun {
        let private = PrivateKey::from_seed([seed; 32]);
        let limiter = HandshakeLimiter::new(&private, Role::Responder);
        let config = EngineConfig::new(
            private,
            PrivateKey::from_seed([remote; 32]).public(),
            &limiter,
        );
        let [index, _] = IndexTable::new([seed; 32]).allocate().unwrap();

        Boringtun::new(&config, [0; 32], index)
    }

    /// snownet 59, W3: asked to seal without a session, the engine would start a handshake of its own.
    #[test]
    #[cfg_attr(debug_assertions, should_panic(expected = "instead of a data message"))]
    fn snownet_59_sealing_without_session_aborts_a_debug_build() {
        let mut outbox = Outbox::new();
        let outcome = engine(1, 2).seal(
            0,
            &mut One(Some(&[0x45; 200])),
            &mut outbox.sink(DatagramKind::Data),
        );

        assert_eq!((outcome.sent, outcome.dropped), (0, 1));
        assert!(outbox.is_empty());
    }

    /// snownet 59: the mirror and the engine must agree about the session.
    #[test]
    #[cfg(debug_assertions)]
    #[should_panic(expected = "assertion")]
    fn snownet_59_sealing_under_another_session_aborts_a_debug_build() {
        let (mut initiator, mut responder) = (engine(1, 2), engine(2, 1));
        let response = responder.accept_init(&initiator.init()).unwrap();
        initiator.accept_response(&response).unwrap();
        let mut outbox = Outbox::new();

        initiator.seal(
            0xdead_beef,
            &mut One(Some(&[0x45; 200])),
            &mut outbox.sink(DatagramKind::Data),
        );
    }

    /// snownet 59: each place takes messages of one type; on another one the engine would act on its own.
    #[test]
    #[cfg(debug_assertions)]
    #[should_panic(expected = "instead of a packet")]
    fn snownet_59_opening_an_initiation_as_data_aborts_a_debug_build() {
        let (mut initiator, mut responder) = (engine(1, 2), engine(2, 1));
        let init = initiator.init();
        let mut out = [0; 200];
        let mut job = OpenJob::new(&init, &mut out);
        responder.open(std::slice::from_mut(&mut job));
    }

    #[test]
    #[cfg(debug_assertions)]
    #[should_panic(expected = "instead of a response")]
    fn snownet_59_accepting_a_response_as_initiation_aborts_a_debug_build() {
        let (mut initiator, mut responder) = (engine(1, 2), engine(2, 1));
        let response = responder.accept_init(&initiator.init()).unwrap();
        let _ = initiator.accept_init(&response);
    }

    #[test]
    fn clearing_forgets_sessions_but_not_timestamps() {
        let (mut initiator, mut responder) = (engine(1, 2), engine(2, 1));
        let init = initiator.init();
        let response = responder.accept_init(&init).unwrap();
        let keepalive = initiator.accept_response(&response).unwrap();
        responder.clear();

        let mut out = [0; 64];
        let mut job = OpenJob::new(&keepalive, &mut out);
        responder.open(std::slice::from_mut(&mut job));
        assert_eq!(job.result, Err(EngineError::Refused));
        assert_eq!(responder.accept_init(&init), Err(EngineError::Replayed));
        assert!(responder.accept_init(&initiator.init()).is_ok());
    }

    /// A session outlives the handshake that replaces it until the response arrives.
    #[test]
    fn clearing_keeps_the_handshake_in_flight() {
        let (mut initiator, mut responder) = (engine(1, 2), engine(2, 1));
        let response = responder.accept_init(&initiator.init()).unwrap();
        initiator.clear();

        assert!(initiator.accept_response(&response).is_ok());
    }
}
