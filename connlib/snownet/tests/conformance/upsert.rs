//! Announcing a connection again (snownet 32, 33).

use std::collections::BTreeSet;
use std::time::Duration;

use connlib_snownet::{ConnectionState, Event, IceCredentials};

use crate::world::{PSK, Place, World};
use crate::{C, G};

const OTHER_PSK: [u8; 32] = [0x88; 32];

fn candidates(world: &World, host: usize, since: usize) -> BTreeSet<String> {
    world.hosts[host].events[since..]
        .iter()
        .filter_map(|(_, event)| match event {
            Event::NewIceCandidate { sdp, .. } => Some(sdp.clone()),
            _ => None,
        })
        .collect()
}

fn inits(world: &World, since: Duration) -> usize {
    world
        .wires_since(since)
        .filter(|wire| wire.wireguard_type() == Some(1))
        .count()
}

#[test]
fn snownet_32_equal_parameters_keep_the_connection_and_signal_everything_again() {
    let mut world = World::pair(2, Place::Cone, Place::Open);
    world.establish(C, G);
    world.run_for(Duration::from_secs(60));
    let path = world.hosts[C].node.path(G as u32).unwrap();
    let known = candidates(&world, C, 0);
    let seen = world.hosts[C].events.len();
    world.upsert(C, G, PSK).unwrap();
    assert_eq!(candidates(&world, C, seen), known);
    assert_eq!(
        world.hosts[C].node.connection_state(G as u32),
        Some(ConnectionState::Connected)
    );
    world.run_for(Duration::from_secs(5));
    assert_eq!(world.hosts[C].node.path(G as u32), Some(path));
    world.ping(C, G);
}

#[test]
fn snownet_32_one_handshake_per_twenty_seconds() {
    let mut world = World::pair(1, Place::Open, Place::Open);
    world.establish(C, G);
    world.run_for(Duration::from_secs(60));
    let since = world.elapsed();
    for _ in 0..19 {
        world.upsert(C, G, PSK).unwrap();
        world.run_for(Duration::from_secs(1));
    }
    assert_eq!(inits(&world, since), 1);
    world.run_for(Duration::from_secs(1));
    world.upsert(C, G, PSK).unwrap();
    assert_eq!(inits(&world, since), 2);
}

#[test]
fn snownet_32_other_key_replaces_without_event() {
    let mut world = World::pair(1, Place::Open, Place::Open);
    world.establish(C, G);
    let seen = world.hosts[G].events.len();
    world.roam(C, [1, 0, 0, 88].into());
    world.connect(C, G);
    world.run_for(Duration::from_secs(5));
    let ends = world.hosts[G].events[seen..]
        .iter()
        .filter(|(_, e)| matches!(e, Event::ConnectionFailed(_) | Event::ConnectionClosed(_)))
        .count();
    assert_eq!(ends, 0);
    world.ping(C, G);
}

#[test]
fn snownet_32_candidates_of_a_replaced_connection_are_not_signalled() {
    let mut world = World::pair(1, Place::Open, Place::Open);
    let key = world.hosts[G].node.public_key();
    let now = world.now;
    let credentials = |ufrag: &str| IceCredentials::new(ufrag, "password").unwrap();
    let node = &mut world.hosts[C].node;
    for ufrag in ["old1", "new2"] {
        let (local, remote) = (credentials(ufrag), credentials("peer"));
        node.upsert_connection(G as u32, key, PSK, local, remote, now)
            .unwrap();
    }
    let mut signalled = 0;
    while let Some(event) = node.poll_event() {
        assert!(matches!(event, Event::NewIceCandidate { sdp, .. } if sdp.ends_with("new2")));
        signalled += 1;
    }
    assert!(signalled > 0);
}

#[test]
fn snownet_32_other_preshared_key_keeps_the_connection() {
    let mut world = World::pair(1, Place::Open, Place::Open);
    world.establish(C, G);
    world.upsert(G, C, OTHER_PSK).unwrap();
    world.upsert(C, G, OTHER_PSK).unwrap();
    for number in 1_000_000..1_000_100 {
        world.send(C, G, number);
        world.send(G, C, number);
        world.run_for(Duration::from_millis(100));
    }
    world.run_for(Duration::from_secs(1));
    let numbers: Vec<u32> = (1_000_000..1_000_100).collect();
    assert!(world.received(G, C).ends_with(&numbers));
    assert!(world.received(C, G).ends_with(&numbers));
}

#[test]
fn snownet_32_client_made_anew_with_another_preshared_key_works_within_six_seconds() {
    let mut world = World::pair(1, Place::Open, Place::Open);
    world.establish(C, G);
    world.run_for(Duration::from_secs(30));
    let now = world.now;
    world.hosts[C].node.remove(G as u32, now);
    world.drain(C);
    world.upsert(G, C, OTHER_PSK).unwrap();
    world.upsert(C, G, OTHER_PSK).unwrap();
    world.send(C, G, 4711);
    world.run_until(Duration::from_secs(6), |w| w.received(G, C).contains(&4711));
    world.ping(C, G);
    assert_eq!(
        world.count(G, |e| matches!(e, Event::ConnectionFailed(_))),
        0
    );
}

#[test]
fn snownet_33_client_that_lost_its_state_is_back_at_once() {
    let mut world = World::pair(1, Place::Open, Place::Open);
    world.establish(C, G);
    world.run_for(Duration::from_secs(60));
    let now = world.now;
    world.hosts[C].node.remove(G as u32, now);
    world.drain(C);
    world.connect(C, G);
    world.send(C, G, 4711);
    // Signalling, two round trips for ICE and the handshake, and the packet: 40 ms each way and 20 ms of signalling.
    world.run_until(Duration::from_millis(300), |w| {
        w.received(G, C).contains(&4711)
    });
    world.ping(C, G);
}

/// The path died together with the client's state: the gateway still believes in it when the client's first handshake comes
/// another way.
#[test]
fn snownet_33_the_answer_goes_the_way_that_the_question_came() {
    let mut world = World::pair(1, Place::Open, Place::Open);
    world.establish(C, G);
    world.run_for(Duration::from_secs(60));
    let now = world.now;
    world.net.block(world.hosts[C].id, world.hosts[G].id);
    world.hosts[C].node.remove(G as u32, now);
    world.drain(C);
    world.connect(C, G);
    world.send(C, G, 4711);
    world.run_until(Duration::from_millis(1500), |w| {
        w.received(G, C).contains(&4711)
    });
    world.run_for(Duration::from_secs(2));
    world.ping(C, G);
}
