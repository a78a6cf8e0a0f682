use std::time::{Duration, Instant};

use ip_packet::PacketBatch;
use proptest::prelude::*;

use super::*;
use crate::queue::Outbox;
use crate::timestamp::Timestamps;
use crate::{DatagramKind, IndexTable, PrivateKey, WallClock};

struct One(Option<&'static [u8]>);

impl PacketBatch for One {
    fn next_packet(&mut self) -> Option<&[u8]> {
        self.0.take()
    }
}

/// An engine with a source of timestamps.
struct End {
    engine: Noise,
    timestamps: Timestamps,
    now: Instant,
}

impl End {
    #[allow(clippy::disallowed_methods, reason = "a test may start at any instant")]
    fn new(seed: u8, remote: u8) -> Self {
        Self::with_psk(seed, remote, [0; 32])
    }

    #[allow(clippy::disallowed_methods, reason = "a test may start at any instant")]
    fn with_psk(seed: u8, remote: u8, psk: [u8; 32]) -> Self {
        let now = Instant::now();
        let config = EngineConfig::new(
            PrivateKey::from_seed([seed; 32]),
            PrivateKey::from_seed([remote; 32]).public(),
        );
        let [index, _] = IndexTable::new([seed; 32]).allocate().unwrap();

        Self {
            engine: Noise::new(&config, psk, index),
            timestamps: Timestamps::new(WallClock::new(now, Duration::from_secs(1_700_000_000))),
            now,
        }
    }

    fn pair() -> (Self, Self) {
        (Self::new(1, 2), Self::new(2, 1))
    }

    fn init(&mut self) -> [u8; INIT_LEN] {
        self.engine.init(self.timestamps.next(self.now))
    }

    fn open(&mut self, datagram: &[u8]) -> Result<usize, EngineError> {
        let mut out = [0; 2048];
        let mut job = OpenJob::new(datagram, &mut out);
        self.engine.open(std::slice::from_mut(&mut job));

        job.result
    }

    fn seal(&mut self, session: u32, packet: &'static [u8]) -> (SealOutcome, Vec<u8>) {
        let mut outbox = Outbox::new();
        let mut sink = outbox.sink(DatagramKind::Data);
        let outcome = self.engine.seal(session, &mut One(Some(packet)), &mut sink);
        let datagram = outbox.pop().map(|datagram| datagram.bytes.to_vec());

        (outcome, datagram.unwrap_or_default())
    }
}

/// The sender's index of a handshake message.
fn sender(message: &[u8]) -> u32 {
    crate::message::sender_index(message).unwrap()
}

const PACKET: &[u8] = &{
    let mut packet = [0x45; 60];
    packet[2] = 0;
    packet[3] = 60;
    packet
};

#[test]
fn sessions_of_both_sides_fit() {
    let (mut initiator, mut responder) = End::pair();
    let init = initiator.init();
    let response = responder.engine.accept_init(&init).unwrap();
    let keepalive = initiator.engine.accept_response(&response).unwrap();
    assert_eq!(responder.open(&keepalive), Ok(0));

    let (outcome, datagram) = initiator.seal(sender(&init), PACKET);
    assert_eq!((outcome.sent, outcome.bytes), (1, 60));
    assert_eq!(responder.open(&datagram), Ok(60));
    let (_, datagram) = responder.seal(sender(&response), PACKET);
    assert_eq!(initiator.open(&datagram), Ok(60));
}

/// snownet 59, W3: the engine has no code that starts a handshake when it should seal.
#[test]
#[cfg_attr(debug_assertions, should_panic(expected = "sealing without a session"))]
fn snownet_59_sealing_without_session_aborts_a_debug_build() {
    let (outcome, datagram) = End::new(1, 2).seal(0, PACKET);

    assert_eq!((outcome.sent, outcome.dropped), (0, 1));
    assert!(datagram.is_empty());
}

/// snownet 59: the mirror and the engine must agree about the session.
#[test]
#[cfg_attr(debug_assertions, should_panic(expected = "sealing without a session"))]
fn snownet_59_sealing_under_another_session_aborts_a_debug_build() {
    let (mut initiator, mut responder) = End::pair();
    let init = initiator.init();
    let response = responder.engine.accept_init(&init).unwrap();
    initiator.engine.accept_response(&response).unwrap();

    // The same slot.
    let (outcome, _) = initiator.seal(sender(&init) + 8, PACKET);
    assert_eq!((outcome.sent, outcome.dropped), (0, 1));
}

/// snownet 59: each place takes messages of one type. What each returns is of one type because it writes no other.
#[test]
#[cfg(debug_assertions)]
#[should_panic(expected = "expects a data message")]
fn snownet_59_opening_an_initiation_as_data_aborts_a_debug_build() {
    let (mut initiator, mut responder) = End::pair();
    let init = initiator.init();
    let _ = responder.open(&init);
}

#[test]
#[cfg(debug_assertions)]
#[should_panic(expected = "expects an initiation")]
fn snownet_59_accepting_a_response_as_initiation_aborts_a_debug_build() {
    let (mut initiator, mut responder) = End::pair();
    let response = responder.engine.accept_init(&initiator.init()).unwrap();
    let _ = initiator.engine.accept_init(&response);
}

#[test]
#[cfg(debug_assertions)]
#[should_panic(expected = "expects a response")]
fn snownet_59_accepting_an_initiation_as_response_aborts_a_debug_build() {
    let (mut initiator, mut responder) = End::pair();
    let _ = responder.engine.accept_response(&initiator.init());
}

#[test]
#[cfg(debug_assertions)]
#[should_panic(expected = "expects a cookie reply")]
fn snownet_59_accepting_an_initiation_as_cookie_aborts_a_debug_build() {
    let (mut initiator, mut responder) = End::pair();
    let _ = responder.engine.accept_cookie(&initiator.init());
}

#[test]
fn clearing_forgets_sessions_but_not_timestamps() {
    let (mut initiator, mut responder) = End::pair();
    let init = initiator.init();
    let response = responder.engine.accept_init(&init).unwrap();
    let keepalive = initiator.engine.accept_response(&response).unwrap();
    responder.engine.clear();

    assert_eq!(responder.open(&keepalive), Err(EngineError::Refused));
    assert_eq!(
        responder.engine.accept_init(&init),
        Err(EngineError::Replayed)
    );
    assert!(responder.engine.accept_init(&initiator.init()).is_ok());
}

/// A session outlives the handshake that replaces it until the response arrives.
#[test]
fn clearing_keeps_the_handshake_in_flight() {
    let (mut initiator, mut responder) = End::pair();
    let response = responder.engine.accept_init(&initiator.init()).unwrap();
    initiator.engine.clear();

    assert!(initiator.engine.accept_response(&response).is_ok());
}

#[test]
fn forgetting_one_session_leaves_the_others() {
    let (mut initiator, mut responder) = End::pair();
    let [first, second] = [(), ()].map(|()| {
        let response = responder.engine.accept_init(&initiator.init()).unwrap();
        let keepalive = initiator.engine.accept_response(&response).unwrap();
        (sender(&response), keepalive)
    });
    responder.engine.forget(first.0);
    responder.engine.forget(second.0 + 8);

    assert_eq!(responder.open(&first.1), Err(EngineError::Refused));
    assert_eq!(responder.open(&second.1), Ok(0));
}

#[test]
fn snownet_51_the_last_two_initiations_are_answerable_and_one_of_them_once() {
    for answered in 0..3 {
        let (mut initiator, mut responder) = End::pair();
        let responses =
            [(), (), ()].map(|()| responder.engine.accept_init(&initiator.init()).unwrap());
        let accepted = initiator.engine.accept_response(&responses[answered]);
        assert_eq!(accepted.is_ok(), answered > 0, "initiation {answered}");

        if answered > 0 {
            for response in &responses {
                assert_eq!(
                    initiator.engine.accept_response(response),
                    Err(EngineError::Refused)
                );
            }
        }
    }
}

#[test]
fn snownet_53_an_older_initiation_is_a_replay() {
    let (mut initiator, mut responder) = End::pair();
    let [first, second] = [initiator.init(), initiator.init()];
    assert!(responder.engine.accept_init(&second).is_ok());

    for replayed in [first, second] {
        assert_eq!(
            responder.engine.accept_init(&replayed),
            Err(EngineError::Replayed)
        );
    }
}

#[test]
fn initiations_of_another_key_or_to_another_key_are_refused() {
    let mut responder = End::new(2, 1);
    for (own, remote) in [(3, 2), (1, 4)] {
        assert_eq!(
            responder.engine.accept_init(&End::new(own, remote).init()),
            Err(EngineError::Refused)
        );
    }
}

#[test]
fn snownet_54_another_preshared_key_does_not_decrypt() {
    let (mut initiator, mut responder) =
        (End::with_psk(1, 2, [1; 32]), End::with_psk(2, 1, [2; 32]));
    let response = responder.engine.accept_init(&initiator.init()).unwrap();

    assert_eq!(
        initiator.engine.accept_response(&response),
        Err(EngineError::Undecryptable)
    );
}

/// An ephemeral key of small order makes a secret that everybody knows.
#[test]
fn ephemeral_keys_of_small_order_are_refused() {
    let (mut initiator, mut responder) = End::pair();
    let keys = Arc::clone(&responder.engine.keys);
    for point in [[0; 32], {
        let mut one = [0; 32];
        one[0] = 1;
        one
    }] {
        let mut init = initiator.init();
        init[8..40].copy_from_slice(&point);
        keys.to_us.sign(&mut init, None);
        assert_eq!(
            responder.engine.accept_init(&init),
            Err(EngineError::Refused)
        );

        let mut response = responder.engine.accept_init(&initiator.init()).unwrap();
        response[12..44].copy_from_slice(&point);
        initiator.engine.keys.to_us.sign(&mut response, None);
        assert_eq!(
            initiator.engine.accept_response(&response),
            Err(EngineError::Refused)
        );
    }
}

/// MAC2 is no business of the engine: who demands it checks it (`limiter.rs`).
const NOT_COVERED: usize = 16;

#[test]
fn an_initiation_changed_anywhere_leaves_no_trace() {
    let (mut initiator, mut responder) = End::pair();
    let init = initiator.init();
    for at in 0..INIT_LEN - NOT_COVERED {
        for with_mac in [false, true] {
            let mut changed = init;
            changed[at] ^= 0x04;
            if at < 4 {
                // Another type; the caller tells them apart.
                assert_ne!(classify(&changed), Ok(Inbound::Init));
                continue;
            }
            if with_mac {
                let keys = Arc::clone(&responder.engine.keys);
                keys.to_us.sign(&mut changed, None);
            }
            let result = responder.engine.accept_init(&changed);
            // With a MAC that fits, the index of the sender and MAC1 itself are anybody's to choose.
            let is_free = with_mac && !(8..116).contains(&at);
            assert_eq!(result.is_ok() && is_free, result.is_ok(), "byte {at}");
            if result.is_ok() {
                responder = End::new(2, 1);
            }
        }
    }

    let response = responder.engine.accept_init(&init).unwrap();
    assert_eq!(
        sender(&response) & 0xff,
        1,
        "no index was spent on a forgery"
    );
    assert!(initiator.engine.accept_response(&response).is_ok());
}

#[test]
fn a_response_changed_anywhere_leaves_no_trace() {
    let (mut initiator, mut responder) = End::pair();
    let response = responder.engine.accept_init(&initiator.init()).unwrap();
    for at in 4..RESPONSE_LEN - NOT_COVERED {
        let mut changed = response;
        changed[at] ^= 0x04;
        let result = initiator.engine.accept_response(&changed);
        assert_eq!(result, Err(EngineError::Refused), "byte {at}");

        // Somebody who knows the public key makes a MAC that fits.
        if (8..60).contains(&at) {
            initiator.engine.keys.to_us.sign(&mut changed, None);
            let result = initiator.engine.accept_response(&changed);
            assert!(result.is_err(), "byte {at}");
        }
    }

    let keepalive = initiator.engine.accept_response(&response).unwrap();
    assert_eq!(responder.open(&keepalive), Ok(0));
}

mod cookies {
    use super::*;

    fn reply(end: &End, init: &[u8], cookie: &Cookie) -> [u8; COOKIE_REPLY_LEN] {
        let mac1 = crate::macs::mac1_of(init).unwrap();
        end.engine
            .keys
            .to_us
            .cookie_reply(sender(init), mac1, cookie, [7; 24])
    }

    fn cookie() -> Cookie {
        Cookie::of(&[9; 32], &[192, 0, 2, 1])
    }

    #[test]
    fn snownet_55_the_next_initiation_proves_it_for_120_s() {
        let (mut initiator, responder) = End::pair();
        let init = initiator.init();
        assert!(!cookie().proves(&init));
        let reply = reply(&responder, &init, &cookie());
        assert_eq!(initiator.engine.accept_cookie(&reply), Ok(()));

        assert!(cookie().proves(&initiator.init()));
        initiator.now += Duration::from_secs(119);
        assert!(cookie().proves(&initiator.init()));
        initiator.now += Duration::from_secs(1);
        assert!(!cookie().proves(&initiator.init()));
    }

    #[test]
    fn replies_to_anything_but_the_last_initiation_are_refused() {
        let (mut initiator, responder) = End::pair();
        let old = reply(&responder, &initiator.init(), &cookie());
        let init = initiator.init();
        assert_eq!(
            initiator.engine.accept_cookie(&old),
            Err(EngineError::Refused)
        );

        let mut forged = reply(&responder, &init, &cookie());
        forged[40] ^= 1;
        assert_eq!(
            initiator.engine.accept_cookie(&forged),
            Err(EngineError::Undecryptable)
        );
        let good = reply(&responder, &init, &cookie());
        assert_eq!(initiator.engine.accept_cookie(&good), Ok(()));
        assert_eq!(
            initiator.engine.accept_cookie(&good),
            Err(EngineError::Refused),
            "once per initiation"
        );
    }
}

mod known_answers {
    //! The messages of `snow`, an implementation of the Noise framework that knows nothing of WireGuard, byte for byte.

    use super::*;

    const PARAMS: &str = "Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s";
    const PROLOGUE: &[u8] = b"WireGuard v1 zx2c4 Jason@zx2c4.com";

    fn keys(own: [u8; 32], remote: [u8; 32]) -> Keys {
        let config = EngineConfig::new(
            PrivateKey::from_seed(own),
            PrivateKey::from_seed(remote).public(),
        );
        Arc::into_inner(config.0).unwrap()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]

        #[test]
        fn both_messages_and_the_session_keys(
            initiator: [u8; 32],
            responder: [u8; 32],
            ephemerals: [[u8; 32]; 2],
            psk: [u8; 32],
            timestamp: [u8; 12],
            indices: [u32; 2],
        ) {
            let params: snow::params::NoiseParams = PARAMS.parse().unwrap();
            let remote = PrivateKey::from_seed(responder).public();
            let builder = |key, ephemeral| snow::Builder::new(params.clone())
                .prologue(PROLOGUE).unwrap()
                .psk(2, &psk).unwrap()
                .local_private_key(key).unwrap()
                .fixed_ephemeral_key_for_testing_only(ephemeral);
            let mut foreign_initiator = builder(&initiator, &ephemerals[0])
                .remote_public_key(&remote.0).unwrap()
                .build_initiator().unwrap();
            let mut foreign_responder = builder(&responder, &ephemerals[1]).build_responder().unwrap();
            let mut expected = [0; 256];

            let [ours, theirs] = [keys(initiator, responder), keys(responder, initiator)];
            let (in_flight, init) = Initiation::new(
                &ours,
                indices[0],
                Timestamp(timestamp),
                StaticSecret::from(ephemerals[0]),
            );
            let len = foreign_initiator.write_message(&timestamp, &mut expected).unwrap();
            prop_assert_eq!(&init[8..116], &expected[..len]);
            foreign_responder.read_message(&expected[..len], &mut [0; 256]).unwrap();

            let received = Received::new(&theirs, &init).unwrap();
            prop_assert_eq!(received.timestamp.0, timestamp);
            let (response, peer_index, responder_keys) = received.respond(
                &theirs,
                &psk,
                indices[1],
                &StaticSecret::from(ephemerals[1]),
            );
            let len = foreign_responder.write_message(&[], &mut expected).unwrap();
            prop_assert_eq!(&response[12..60], &expected[..len]);
            prop_assert_eq!(peer_index, indices[0]);

            let (peer_index, initiator_keys) = in_flight.finish(&ours, &psk, &response).unwrap();
            let (to_responder, to_initiator) = foreign_responder.dangerously_get_raw_split();
            prop_assert_eq!(peer_index, indices[1]);
            prop_assert_eq!([initiator_keys.seal, responder_keys.open], [to_responder; 2]);
            prop_assert_eq!([initiator_keys.open, responder_keys.seal], [to_initiator; 2]);
        }
    }
}

/// 1000 idle clients have one engine each at a gateway, with at most two sessions.
#[test]
fn an_engine_is_small() {
    assert!(size_of::<Noise>() <= 512, "{}", size_of::<Noise>());
    assert!(size_of::<Session>() <= 1280, "{}", size_of::<Session>());
    assert!(size_of::<Keys>() <= 512, "{}", size_of::<Keys>());
}
