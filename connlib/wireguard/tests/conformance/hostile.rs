//! Replays, forgeries and garbage (snownet 5, 53, 55).

use boringtun::noise::{Tunn, TunnResult};
use boringtun::x25519;
use connlib_wireguard::{
    CookieReply, HandshakeLimiter, LimitError, MAX_DATAGRAM, OpenError, Opened, PrivateKey, Role,
};
use proptest::prelude::*;
use std::time::Instant;

use crate::world::{
    CLIENT_IP, DATA, GATEWAY_IP, INIT, RESPONSE, Raw, Side, VecSink, World, millis, secs,
};

fn captured(world: &World, kind: u8) -> Vec<u8> {
    world
        .capture
        .iter()
        .rfind(|datagram| datagram[0] == kind)
        .unwrap()
        .clone()
}

#[test]
fn snownet_53_replayed_init_gets_no_answer() {
    let (mut world, _) = World::connected(53, millis(10));
    let init = captured(&world, INIT);
    world.run_for(secs(30));
    let before = world.trace.len();

    assert_eq!(
        world.open(Side::Gateway, &init),
        Some(Err(OpenError::Replayed))
    );
    assert_eq!(world.trace.len(), before);
    world.send(Side::Gateway, 1);
    world.send(Side::Client, 2);
    world.run_for(millis(10));
    assert_eq!(
        (world.client.ids(), world.gateway.ids()),
        (vec![1], vec![2])
    );
}

#[test]
fn snownet_53_replayed_data_is_dropped() {
    let (mut world, _) = World::connected(53, millis(10));
    for (side, other) in [(Side::Client, Side::Gateway), (Side::Gateway, Side::Client)] {
        world.send(side, 1);
        world.run_for(millis(10));
        let data = captured(&world, DATA);

        assert_eq!(world.open(other, &data), Some(Err(OpenError::Replayed)));
        assert_eq!(world.end(other).ids(), [1]);
    }
}

#[test]
fn snownet_53_counters_near_the_end_do_not_reach_the_engine() {
    let (mut world, _) = World::connected(53, millis(10));
    world.send(Side::Client, 1);
    let mut data = captured(&world, DATA);

    for counter in [u64::MAX - (1 << 13), u64::MAX - 1, u64::MAX] {
        data[8..16].copy_from_slice(&counter.to_le_bytes());
        assert_eq!(
            world.open(Side::Gateway, &data),
            Some(Err(OpenError::CounterExhausted))
        );
    }
    data[8..16].copy_from_slice(&(u64::MAX - (1 << 13) - 1).to_le_bytes());
    assert_eq!(
        world.open(Side::Gateway, &data),
        Some(Err(OpenError::Undecryptable))
    );
}

#[test]
fn snownet_53_replayed_response_is_refused() {
    let (mut world, _) = World::connected(53, millis(10));
    let response = captured(&world, RESPONSE);

    assert_eq!(
        world.open(Side::Client, &response),
        Some(Err(OpenError::UnknownIndex))
    );
    assert_eq!(
        world.open(Side::Gateway, &response),
        None,
        "not even the gateway's index"
    );
}

#[test]
fn snownet_43_messages_of_an_expired_session_are_refused() {
    for (side, other) in [(Side::Client, Side::Gateway), (Side::Gateway, Side::Client)] {
        let (mut world, _) = World::connected(43, millis(10));
        world.run_for(secs(100));
        world.lose = Box::new(|record| record.kind == DATA || record.kind == INIT);
        world.send(side, 1);
        let mut data = vec![0; 64];
        data[..4].copy_from_slice(&[4, 0, 0, 0]);
        data[4..8].copy_from_slice(&world.sent(side, DATA).last().unwrap().index.to_le_bytes());
        data[8] = 99;

        assert_eq!(
            world.open(other, &data),
            Some(Err(OpenError::Undecryptable))
        );
        world.end(other).stalled = true;
        world.run_for(secs(79));
        world.run_for(millis(970));
        assert_eq!(
            world.open(other, &data),
            Some(Err(OpenError::Undecryptable))
        );
        world.run_for(millis(20));
        assert_eq!(world.open(other, &data), Some(Err(OpenError::Expired)));
    }
}

#[test]
fn authentic_garbage_counts_as_life_but_is_no_packet() {
    let (mut world, _) = World::connected(5, millis(10));
    let mut sink = VecSink::default();
    let now = world.now;
    let _ = world
        .client
        .peer
        .seal(&mut Raw(Some(&[0xff; 40])), now, &mut sink);

    assert_eq!(
        world.open(Side::Gateway, &sink.datagrams[0]),
        Some(Err(OpenError::NotIp))
    );
}

#[test]
fn oversized_packets_and_datagrams_are_dropped() {
    let (mut world, _) = World::connected(5, millis(10));
    let mut sink = VecSink::default();
    let now = world.now;
    let sealed = world
        .client
        .peer
        .seal(&mut Raw(Some(&[0x45; 1281])), now, &mut sink);
    assert_eq!((sealed.sent, sealed.dropped), (0, 1));

    let mut long = captured(&world, DATA);
    long.resize(MAX_DATAGRAM + 1, 0);
    assert_eq!(
        world.open(Side::Gateway, &long),
        Some(Err(OpenError::TooLarge))
    );

    let data = captured(&world, DATA);
    let result = world.gateway.peer.open(&data, CLIENT_IP, now, &mut []);
    assert_eq!(result, Err(OpenError::TooLarge), "output buffer too short");
}

fn stranger(seed: u8, remote: &PrivateKey) -> Tunn {
    let key = x25519::StaticSecret::from([seed; 32]);

    Tunn::new(
        key,
        x25519::PublicKey::from(remote.public().0),
        None,
        None,
        5,
        None,
    )
}

fn init(tunn: &mut Tunn) -> Vec<u8> {
    let mut out = [0; 148];
    let TunnResult::WriteToNetwork(init) = tunn.format_handshake_initiation(&mut out, true) else {
        panic!()
    };
    init.to_vec()
}

#[test]
fn snownet_55_more_than_100_initiations_per_second_need_a_cookie() {
    let now = Instant::now();
    let key = PrivateKey::from_seed([55; 32]);
    let mut limiter = HandshakeLimiter::new(&key, Role::Responder);
    let mut stranger = stranger(56, &key);

    let mut passed = 0;
    let mut cookies = 0;
    for _ in 0..150 {
        match limiter.check(&init(&mut stranger), CLIENT_IP, now) {
            Ok(()) => passed += 1,
            Err(LimitError::UnderLoad(CookieReply(cookie))) => {
                cookies += 1;
                assert!(matches!(
                    stranger.decapsulate(None, &cookie, &mut [0; 148]),
                    TunnResult::Done
                ));
                break;
            }
            Err(LimitError::Invalid) => panic!("valid MAC1 refused"),
        }
    }
    assert_eq!((passed, cookies), (100, 1));

    // With the cookie it passes, from the same address only.
    let proven = init(&mut stranger);
    assert_eq!(limiter.check(&proven, CLIENT_IP, now), Ok(()));
    assert!(matches!(
        limiter.check(&proven, GATEWAY_IP, now),
        Err(LimitError::UnderLoad(_))
    ));

    // Without it, none of the next 50; a second later all is well.
    let mut other = self::stranger(57, &key);
    for _ in 0..50 {
        assert!(matches!(
            limiter.check(&init(&mut other), GATEWAY_IP, now),
            Err(LimitError::UnderLoad(_))
        ));
    }
    assert_eq!(
        limiter.check(&init(&mut other), GATEWAY_IP, now + secs(1)),
        Ok(())
    );
}

#[test]
fn snownet_55_forged_mac_is_not_counted() {
    let now = Instant::now();
    let key = PrivateKey::from_seed([55; 32]);
    let mut limiter = HandshakeLimiter::new(&key, Role::Responder);
    let good = init(&mut stranger(56, &key));
    let mut forged = good.clone();
    forged[120] ^= 1;

    for _ in 0..1000 {
        assert_eq!(
            limiter.check(&forged, CLIENT_IP, now),
            Err(LimitError::Invalid)
        );
    }
    assert_eq!(limiter.check(&good, CLIENT_IP, now), Ok(()));
}

/// A loaded gateway answers with a cookie: the client's retry proves it.
#[test]
fn snownet_55_client_returns_the_cookie_in_its_retry() {
    let mut world = World::new(55, millis(10));
    world.lose = Box::new(|record| record.from == Side::Gateway);
    world.path_ready();
    let first = captured(&world, INIT);
    let gateway_key = world.gateway.private.clone();
    let mut loaded = HandshakeLimiter::new(&gateway_key, Role::Responder);
    let cookie = loop {
        match loaded.check(&first, CLIENT_IP, world.now) {
            Ok(()) => {}
            Err(LimitError::UnderLoad(CookieReply(cookie))) => break cookie,
            Err(LimitError::Invalid) => panic!(),
        }
    };

    assert_eq!(
        world.open(Side::Client, &cookie),
        Some(Ok(Opened::Handshake))
    );
    let now = world.now;
    world.run_for(secs(4));
    assert!(
        world.inits_since(millis(1)).is_empty(),
        "a cookie starts nothing by itself"
    );
    world.run_for(secs(2));
    let retry = captured(&world, INIT);
    assert_ne!(first, retry);
    assert_eq!(
        loaded.check(&retry, CLIENT_IP, now),
        Ok(()),
        "the retry carries the cookie"
    );
    assert!(matches!(
        loaded.check(&retry, GATEWAY_IP, now),
        Err(LimitError::UnderLoad(_))
    ));
}

/// W2: whoever knows both public keys can claim to be the peer; that costs one initiation per 5 s at most.
#[test]
fn forged_initiations_cannot_make_a_client_flood() {
    let (mut world, _) = World::connected(5, millis(10));
    let at = world.elapsed();
    let mut gateway = Tunn::new(
        x25519::StaticSecret::from([5 ^ 0x22; 32]),
        x25519::PublicKey::from(world.client.private.public().0),
        None,
        None,
        3,
        None,
    );
    for _ in 0..200 {
        let forged = init(&mut gateway);
        world.open(Side::Client, &forged);
        world.run_for(millis(100));
    }

    let inits = world.inits_since(at);
    assert!(inits.len() <= 4, "{inits:?}");
    assert!(inits.windows(2).all(|pair| pair[1] - pair[0] >= secs(5)));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// snownet 5: anything may arrive at any time; nothing panics, nothing is sent, and the session lives on.
    #[test]
    fn snownet_5_hostile_datagrams(
        datagrams in proptest::collection::vec((0u8..6, any::<bool>(), proptest::collection::vec(any::<u8>(), 4..1500)), 0..20),
    ) {
        let (mut world, _) = World::connected(5, millis(10));
        let indices = [world.client.peer.indices(), world.gateway.peer.indices()];
        let before = world.trace.len();
        for (kind, to_client, mut datagram) in datagrams {
            let side = if to_client { Side::Client } else { Side::Gateway };
            datagram[..4].copy_from_slice(&[kind, 0, 0, 0]);
            if datagram.len() > 12 {
                let index = indices[usize::from(!to_client)][0].get() << 8 | 1;
                let at = if kind == RESPONSE { 8 } else { 4 };
                datagram[at..at + 4].copy_from_slice(&index.to_le_bytes());
            }
            match kind {
                INIT => datagram.resize(148, 0),
                RESPONSE => datagram.resize(92, 0),
                3 => datagram.resize(64, 0),
                _ => {}
            }
            let ip = if to_client { GATEWAY_IP } else { CLIENT_IP };
            let now = world.now;
            let result = world.end(side).peer.open(&datagram, ip, now, &mut [0; 2048]);
            // Straight to the peer: only an initiation at the client is taken at its word (snownet W2).
            prop_assert!(result.is_err() || kind == INIT && to_client);
        }
        world.run_for(millis(1));
        prop_assert!(world.trace[before..].iter().all(|record| record.kind == INIT && record.from == Side::Client));
        world.run_for(secs(1));
        world.send(Side::Client, 1);
        world.send(Side::Gateway, 2);
        world.run_for(millis(10));
        prop_assert_eq!((world.gateway.ids(), world.client.ids()), (vec![1], vec![2]));
    }
}
