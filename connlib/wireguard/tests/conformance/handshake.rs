//! Starting, repeating and failing handshakes (snownet 46, 51, 52, 54, 60; testing LI-10).

use std::time::Duration;

use boringtun::noise::{Tunn, TunnResult};
use boringtun::x25519;
use connlib_wireguard::{Event, FailReason, PrivateKey};

use crate::world::{DATA, INIT, RESPONSE, Side, World, millis, secs};

#[test]
fn nothing_is_sent_before_a_path_exists() {
    let mut world = World::new(1, millis(10));
    assert_eq!(world.send(Side::Client, 1).buffered, 1);
    assert_eq!(world.send(Side::Gateway, 2).dropped, 1);
    world.run_for(secs(60));
    assert!(world.trace.is_empty());

    world.path_ready();
    world.run_for(millis(30));
    assert_eq!(world.gateway.ids(), [1]);
}

/// A response leaves the gateway before its own path is nominated; the packet after it must wait for the path.
#[test]
fn a_responder_answers_before_its_path_is_ready() {
    let mut world = World::new(1, millis(10));
    world.client.peer.path_ready(world.now);
    world.run_for(millis(30));

    assert!(world.client.peer.is_usable(world.now));
    assert_eq!(world.send(Side::Gateway, 1).dropped, 1);
    world.gateway.peer.path_ready(world.now);
    assert_eq!(world.send(Side::Gateway, 1).sent, 1);
}

#[test]
fn snownet_42_completed_once_per_session_on_both_sides() {
    let (world, _) = World::connected(42, millis(20));

    assert_eq!(
        world.client.events,
        [(millis(40), Event::HandshakeCompleted)]
    );
    assert_eq!(
        world.gateway.events,
        [(millis(60), Event::HandshakeCompleted)]
    );
}

#[test]
fn snownet_46_one_handshake_whatever_happens_meanwhile() {
    let mut world = World::new(46, millis(400));
    world.path_ready();
    let sealed = world.send_many(Side::Client, 0..100);
    assert_eq!(sealed.buffered, 100);
    world.run_for(millis(100));
    world.client.peer.path_changed(world.now);
    world.client.peer.rehandshake(world.now);
    world.run_for(secs(10));

    assert_eq!(world.gateway.ids(), (0..100).collect::<Vec<_>>());
    assert_eq!(world.sent(Side::Client, INIT).len(), 1);
    assert_eq!(world.client.peer.stats().handshakes, 1);
}

#[test]
fn snownet_46_the_256_oldest_packets_wait() {
    let mut world = World::new(46, millis(50));
    let sealed = world.send_many(Side::Client, 0..300);
    assert_eq!((sealed.buffered, sealed.dropped), (256, 44));
    world.connect();
    world.run_for(secs(1));

    assert_eq!(world.gateway.ids(), (0..256).collect::<Vec<_>>());
    assert_eq!(world.client.peer.stats().dropped_full, 44);
}

/// snownet 31, as far as one peer shows it.
#[test]
fn snownet_31_init_in_flight_is_repeated_over_the_new_path_once_per_second() {
    let mut world = World::new(31, millis(10));
    world.lose = Box::new(|record| record.kind == RESPONSE);
    world.path_ready();
    for _ in 0..8 {
        world.run_for(millis(250));
        world.client.peer.path_changed(world.now);
    }
    world.run_for(millis(1));

    let inits = world.inits_since(Duration::ZERO);
    assert_eq!(inits, [0, 1000, 2000].map(millis));
}

#[test]
fn snownet_31_a_new_path_is_proven_at_most_every_20_s() {
    let (mut world, _) = World::connected(31, millis(10));
    for _ in 0..60 {
        world.run_for(secs(1));
        world.client.peer.path_changed(world.now);
    }
    world.run_for(millis(1));

    let inits = world.inits_since(Duration::ZERO);
    assert_eq!(inits.len(), 4, "{inits:?}");
    assert!(inits.windows(2).all(|pair| pair[1] - pair[0] >= secs(20)));
}

#[test]
fn snownet_32_announced_again_handshakes_once_per_20_s() {
    let (mut world, _) = World::connected(32, millis(10));
    for _ in 0..30 {
        world.run_for(secs(1));
        world.client.peer.rehandshake(world.now);
        world.gateway.peer.rehandshake(world.now);
    }

    assert_eq!(world.sent(Side::Client, INIT).len(), 2);
}

#[test]
fn snownet_51_retries_are_5_s_apart_with_jitter_and_end_at_20_s() {
    let mut world = World::new(51, millis(10));
    world.lose = Box::new(|record| record.kind == RESPONSE);
    world.path_ready();
    world.send(Side::Client, 1);
    world.run_for(secs(60));

    let inits = world.sent(Side::Client, INIT);
    assert_eq!(inits.len(), 4);
    for pair in inits.windows(2) {
        let gap = pair[1].at - pair[0].at;
        assert!(gap >= secs(5) && gap <= millis(5_333), "{gap:?}");
        assert_ne!(pair[0].index, pair[1].index);
    }
    assert_eq!(
        world.client.events,
        [(secs(20), Event::Failed(FailReason::AttemptsExhausted))]
    );
    assert_eq!(world.client.peer.stats().dropped_no_session, 1);
    assert_eq!(world.client.peer.poll_timeout(), None);
}

/// The other side has its full time on each path: ICE needs almost as long as an attempt to give the first one up.
#[test]
fn snownet_51_another_path_gets_its_own_20_s() {
    let mut world = World::new(51, millis(10));
    world.lose = Box::new(|record| record.kind == RESPONSE);
    world.path_ready();
    world.send(Side::Client, 1);
    world.run_for(secs(18));
    world.client.peer.path_changed(world.now);
    world.run_for(secs(60));
    assert_eq!(world.client.failures(), [secs(38)]);
    let waiting = world.client.peer.take_waiting(world.now);
    assert_eq!(waiting, None, "a minute later the packet is of no use");
}

#[test]
fn snownet_43_what_waited_in_vain_is_given_back_once() {
    let mut world = World::new(51, millis(10));
    world.lose = Box::new(|record| record.kind == RESPONSE);
    world.path_ready();
    for id in [1, 2] {
        world.send(Side::Client, id);
    }
    world.run_for(secs(21));
    assert_eq!(world.client.failures(), [secs(20)]);
    let peer = &mut world.client.peer;
    let mut given_back = 0;
    while peer.take_waiting(world.now).is_some() {
        given_back += 1;
    }
    assert_eq!(given_back, 2);
}

/// T13 holds across a failed attempt: the next one starts 5 s after the last initiation.
#[test]
fn snownet_51_a_new_attempt_keeps_its_distance() {
    let mut world = World::new(51, millis(10));
    world.lose = Box::new(|record| record.kind == RESPONSE);
    world.path_ready();
    world.run_for(secs(20));
    assert_eq!(world.client.failures(), [secs(20)]);
    let last = *world.inits_since(Duration::ZERO).last().unwrap();

    world.lose = Box::new(|_| false);
    world.send(Side::Client, 1);
    world.run_for(secs(10));
    assert_eq!(world.inits_since(secs(20)), [last + secs(5)]);
    assert_eq!(world.gateway.ids(), [1]);
}

#[test]
fn snownet_51_late_response_to_the_last_but_one_init_is_accepted_the_second_ignored() {
    // Longer than the retry interval: the response to the first initiation arrives when the second is on its way.
    let mut world = World::new(51, millis(2_800));
    world.path_ready();
    world.send(Side::Client, 7);
    world.run_for(secs(20));

    assert_eq!(world.sent(Side::Client, INIT).len(), 2);
    assert_eq!(world.sent(Side::Gateway, RESPONSE).len(), 2);
    assert_eq!(world.client.peer.stats().handshakes, 1);
    assert_eq!(
        world.client.errors.len(),
        1,
        "the second response is refused"
    );
    assert_eq!(world.gateway.ids(), [7]);

    world.send(Side::Client, 8);
    world.send(Side::Gateway, 9);
    world.run_for(secs(4));
    assert_eq!(
        (world.gateway.ids(), world.client.ids()),
        (vec![7, 8], vec![9])
    );
}

/// testing LI-10: waiting packets survive 12 s without responses.
#[test]
fn testing_li_10_responses_lost_for_12_s() {
    let mut world = World::new(10, millis(20));
    world.lose = Box::new(|record| record.kind == RESPONSE && record.at < secs(12));
    world.path_ready();
    world.send_many(Side::Client, 0..10);
    world.run_for(secs(19));

    assert_eq!(world.gateway.ids(), (0..10).collect::<Vec<_>>());
    assert!(world.client.failures().is_empty());
}

/// snownet 52: an initiator that never confirms. The eighth answer lands in the engine's slot of the current session.
#[test]
fn snownet_52_nothing_is_sealed_under_an_unconfirmed_session() {
    for inits in 1..=20 {
        let (mut world, _) = World::connected(52, Duration::ZERO);
        let mut stranger = foreign_client(&world);
        let mut out = [0; 2048];
        let mut responses = Vec::new();
        for _ in 0..inits {
            let TunnResult::WriteToNetwork(init) =
                stranger.format_handshake_initiation(&mut out, true)
            else {
                panic!()
            };
            let init = init.to_vec();
            world.open(Side::Gateway, &init);
            responses.push(world.capture.last().unwrap().clone());
        }
        world.lose = Box::new(|_| true);
        let before = world.trace.len();
        let sealed = world.send(Side::Gateway, 1);

        // Up to the seventh, the confirmed session of before is still there.
        let expected = if inits < 8 { (1, 0) } else { (0, 1) };
        assert_eq!(
            (sealed.sent, sealed.buffered),
            expected,
            "after {inits} initiations"
        );
        assert_eq!(world.trace.len() - before, sealed.sent);

        // The confirmed one works, and takes the held packet along.
        let TunnResult::WriteToNetwork(keepalive) =
            stranger.decapsulate(None, responses.last().unwrap(), &mut out)
        else {
            panic!()
        };
        let keepalive = keepalive.to_vec();
        world.lose = Box::new(|_| false);
        world.open(Side::Gateway, &keepalive);
        world.send(Side::Gateway, 2);
        let data: Vec<_> = world
            .capture
            .iter()
            .rev()
            .take(1 + sealed.buffered)
            .cloned()
            .collect();
        for datagram in data {
            assert!(matches!(
                stranger.decapsulate(None, &datagram, &mut out),
                TunnResult::WriteToTunnelV4(..)
            ));
        }
    }
}

/// A plain engine with the client's keys.
fn foreign_client(world: &World) -> Tunn {
    let seed = [52 ^ 0x11; 32];
    assert_eq!(
        PrivateKey::from_seed(seed).public(),
        world.client.private.public()
    );

    Tunn::new(
        x25519::StaticSecret::from(seed),
        x25519::PublicKey::from(world.client.remote.0),
        Some([9; 32]),
        None,
        0x0077_7777,
        None,
    )
}

#[test]
fn snownet_54_wrong_preshared_key_fails_at_the_second_response() {
    let mut world = World::with_psks(54, millis(10), [[1; 32], [2; 32]]);
    world.path_ready();
    world.send(Side::Client, 1);
    world.run_for(secs(30));

    let [(at, Event::Failed(FailReason::KeysDiffer))] = world.client.events[..] else {
        panic!("{:?}", world.client.events)
    };
    assert!(at >= secs(5) && at <= millis(5_400), "{at:?}");
    assert!(world.gateway.ids().is_empty());
    assert!(world.gateway.events.is_empty());
}

#[test]
fn snownet_54_wrong_static_key_fails_at_20_s() {
    let mut world = World::new(54, millis(10));
    world.gateway.remote = PrivateKey::from_seed([77; 32]).public();
    world.path_ready();
    world.run_for(secs(30));

    assert_eq!(world.client.failures(), [secs(20)]);
    assert!(world.sent(Side::Gateway, RESPONSE).is_empty());
}

#[test]
fn snownet_60_gateway_packet_before_confirmation_is_held() {
    let mut world = World::new(60, millis(100));
    world.path_ready();
    world.run_for(millis(150));
    let sealed = world.send_many(Side::Gateway, 0..20);
    assert_eq!((sealed.sent, sealed.buffered, sealed.dropped), (0, 16, 4));
    world.run_for(secs(1));

    assert_eq!(world.client.ids(), (0..16).collect::<Vec<_>>());
}

#[test]
fn snownet_60_held_packets_are_dropped_after_5_s() {
    let mut world = World::new(60, millis(10));
    world.lose = Box::new(|record| record.kind == RESPONSE);
    world.path_ready();
    world.run_for(millis(10));
    assert_eq!(world.send(Side::Gateway, 1).buffered, 1);
    world.run_for(millis(4_999));
    assert_eq!(world.gateway.peer.stats().dropped_no_session, 0);
    world.run_for(millis(1));
    assert_eq!(world.gateway.peer.stats().dropped_no_session, 1);
    assert!(world.sent(Side::Gateway, DATA).is_empty());
}

#[test]
fn snownet_60_gateway_packet_without_any_session_is_dropped() {
    let mut world = World::new(60, millis(10));
    world.gateway.peer.path_ready(world.now);

    assert_eq!(world.send(Side::Gateway, 1).dropped, 1);
    assert_eq!(world.gateway.peer.stats().dropped_no_session, 1);
}
