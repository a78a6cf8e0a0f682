//! Keepalives, dead-peer detection and rekeys under traffic (snownet 47–50).

use std::time::Duration;

use crate::world::{DATA, INIT, RESPONSE, Side, World, millis, secs};

/// snownet 47: a download runs across rekeys on a slow, reordering link.
#[test]
fn snownet_47_download_across_rekeys_never_flips_back() {
    let (mut world, _) = World::connected(47, millis(200));
    world.jitter = millis(60);
    let begin = world.elapsed();
    let step = millis(20);
    let mut id = 0;
    while world.elapsed() < begin + secs(400) {
        id += 1;
        world.send(Side::Gateway, id);
        if id % 10 == 0 {
            world.send(Side::Client, id);
        }
        world.run_for(step);
    }
    world.run_for(secs(1));

    assert_eq!(world.client.inbox.len() as u32, id, "download lost packets");
    assert_eq!(
        world.gateway.inbox.len() as u32,
        id / 10,
        "upload lost packets"
    );
    assert_eq!(world.client.peer.stats().handshakes, 4);
    for side in [Side::Client, Side::Gateway] {
        assert_sessions_follow_each_other(&world, side);
    }
}

/// Once an end sends under a new session it never sends under an older one, and it changes within two round trips.
fn assert_sessions_follow_each_other(world: &World, side: Side) {
    let data = world.sent(side, DATA);
    let mut order: Vec<u32> = data.iter().map(|record| record.index).collect();
    order.dedup();
    let mut distinct = order.clone();
    distinct.sort_unstable();
    distinct.dedup();
    assert_eq!(
        order.len(),
        distinct.len(),
        "{side:?} went back to an older session"
    );
    assert_eq!(order.len(), 4, "{side:?} did not take up every session");

    let responses = world.sent(Side::Gateway, RESPONSE);
    for (session, response) in order.iter().zip(&responses).skip(1) {
        let first = data
            .iter()
            .find(|record| record.index == *session)
            .unwrap()
            .at;
        assert!(
            first - response.at <= millis(260) * 4,
            "{side:?} was slow to change"
        );
    }
}

#[test]
fn snownet_48_upload_only_rekeys_by_t2() {
    let (mut world, _) = World::connected(48, millis(50));
    for id in 0..600 {
        world.send(Side::Client, id);
        world.run_for(secs(1));
    }

    assert_eq!(world.gateway.inbox.len(), 600);
    assert_rekey_ages(&world, secs(120), secs(122));
}

#[test]
fn snownet_48_download_only_renews_by_t17() {
    let (mut world, _) = World::connected(48, millis(50));
    for id in 0..600 {
        world.send(Side::Gateway, id);
        world.run_for(secs(1));
    }

    assert_eq!(world.client.inbox.len(), 600);
    assert_rekey_ages(&world, secs(150), secs(165));
}

#[test]
fn snownet_48_silence_renews_by_t17() {
    let (mut world, _) = World::connected(48, millis(50));
    world.run_for(secs(3600));

    assert_rekey_ages(&world, secs(150), secs(165));
    let data = world
        .trace
        .iter()
        .filter(|record| record.kind == DATA && !record.is_keepalive())
        .count();
    assert_eq!(data, 0);
}

/// One rekey per session, at the given age.
fn assert_rekey_ages(world: &World, min: Duration, max: Duration) {
    let inits = world.inits_since(Duration::ZERO);
    assert!(inits.len() >= 4, "{inits:?}");

    for pair in inits.windows(2) {
        let age = pair[1] - pair[0] - world.latency * 2;
        assert!(age >= min && age <= max, "rekey at an age of {age:?}");
    }
}

#[test]
fn snownet_49_unanswered_data_starts_a_handshake_after_15_s() {
    let (mut world, _) = World::connected(49, millis(10));
    world.lose = Box::new(|record| record.from == Side::Gateway);
    let at = world.elapsed();
    world.send(Side::Client, 1);
    world.run_for(millis(14_999));
    world.send(Side::Client, 2);
    assert_eq!(world.inits_since(at), []);

    world.run_for(millis(400));
    let inits = world.inits_since(at);
    assert_eq!(inits.len(), 1);
    let after = inits[0] - at;
    assert!(after >= secs(15) && after <= millis(15_333), "{after:?}");
}

#[test]
fn snownet_49_reply_at_14_9_s_prevents_it() {
    let (mut world, _) = World::connected(49, Duration::ZERO);
    world.run_for(secs(1));
    let at = world.elapsed();
    // The passive keepalive would answer at 10 s.
    world.lose = Box::new(|record| record.from == Side::Gateway && record.is_keepalive());
    world.send(Side::Client, 1);
    world.run_for(millis(14_900));
    world.send(Side::Gateway, 2);
    world.run_for(secs(60));

    assert_eq!(world.inits_since(at), []);
}

#[test]
fn snownet_49_sending_after_silence_is_no_reason_to_rekey() {
    let (mut world, _) = World::connected(49, millis(10));
    let at = world.elapsed();
    world.run_for(secs(60));
    world.send(Side::Client, 1);
    world.run_for(secs(30));

    assert_eq!(world.inits_since(at), []);
}

#[test]
fn snownet_50_passive_keepalive_at_exactly_10_s_in_both_roles() {
    for (sender, receiver) in [(Side::Client, Side::Gateway), (Side::Gateway, Side::Client)] {
        let (mut world, _) = World::connected(50, millis(10));
        let before = world.trace.len();
        world.send(sender, 1);
        world.run_for(secs(60));

        let answers: Vec<_> = world.trace[before..]
            .iter()
            .filter(|record| record.from == receiver)
            .collect();
        assert_eq!(answers.len(), 1, "{answers:?}");
        assert!(answers[0].is_keepalive());
        assert_eq!(
            answers[0].at,
            world.trace[before].at + millis(10) + secs(10)
        );
    }
}

#[test]
fn snownet_50_no_keepalive_if_data_was_sent() {
    for (sender, receiver) in [(Side::Client, Side::Gateway), (Side::Gateway, Side::Client)] {
        let (mut world, _) = World::connected(50, millis(10));
        let before = world.trace.len();
        world.send(sender, 1);
        world.run_for(millis(9_900));
        world.send(receiver, 2);
        world.run_for(secs(9));

        assert!(
            world.trace[before..]
                .iter()
                .all(|record| !record.is_keepalive())
        );
    }
}

/// The deadline dies with the session: data at 175 s, expiry at 180 s, nothing at 185 s.
#[test]
fn snownet_50_no_keepalive_after_expiry() {
    let (mut world, session) = World::connected(50, Duration::ZERO);
    world.lose = Box::new(|record| record.kind == INIT);
    world.run_until(session + secs(175));
    let before = world.trace.len();
    world.send(Side::Gateway, 1);
    world.run_for(secs(60));
    assert_eq!(world.client.ids(), [1]);

    assert!(
        world.trace[before..]
            .iter()
            .all(|record| !record.is_keepalive())
    );
}

/// What is owed at expiry is no deadline any more: only the erasure of the keys is left.
#[test]
fn snownet_50_keepalive_deadline_vanishes_with_the_session() {
    let mut world = World::new(50, millis(400));
    world.connect();
    world.lose = Box::new(|record| record.kind == INIT);
    // Established at 0.4 s at the gateway and at 0.8 s at the client.
    world.run_until(millis(800) + millis(169_900));
    world.send(Side::Client, 1);
    world.run_until(millis(180_390));
    assert_eq!(world.gateway.ids(), [1]);
    assert_eq!(
        world.gateway.peer.poll_timeout(),
        Some(world.start + millis(180_400))
    );

    world.run_until(millis(180_400));
    assert_eq!(
        world.gateway.peer.poll_timeout(),
        Some(world.start + millis(540_400))
    );
}
