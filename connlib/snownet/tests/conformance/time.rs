//! Interface and time (snownet 1–4, 6).

use std::time::Duration;

use connlib_snownet::{ConnectionState, Event, Role};

use crate::world::{PSK, Place, World};
use crate::{C, G};

/// A busy and an idle pair for two hours.
fn two_hours(tick: Option<Duration>) -> World {
    let mut world = World::pair(2, Place::Cone, Place::Open);
    world.tick = tick;
    let idle_client = world.add_host_at(Role::Client, Place::Cone);
    world.announce_relays();
    world.run_for(Duration::from_secs(1));
    world.establish(C, G);
    world.establish(idle_client, G);
    for number in 0..1440 {
        world.send(C, G, number);
        world.run_for(Duration::from_secs(5));
    }
    world
}

#[test]
fn snownet_01_exact_deadlines_and_ticking_look_the_same() {
    let exact = two_hours(None);
    let ticking = two_hours(Some(Duration::from_millis(100)));
    for (a, b) in exact.hosts.iter().zip(&ticking.hosts) {
        assert_eq!(a.events, b.events);
        assert_eq!(a.received, b.received);
    }
    assert_eq!(exact.trace(), ticking.trace());
}

#[test]
fn snownet_03_queued_output_is_due_now() {
    let mut world = World::pair(1, Place::Open, Place::Open);
    let (client_ice, gateway_ice) = world.credentials(C, G);
    let key = world.hosts[G].node.public_key();
    let now = world.now;
    let node = &mut world.hosts[C].node;
    node.upsert_connection(G as u32, key, PSK, client_ice, gateway_ice, now)
        .unwrap();
    let (at, reason) = node.poll_timeout().unwrap();
    assert!(at <= now, "{reason}");
    assert!(matches!(
        node.poll_event(),
        Some(Event::NewIceCandidate { .. })
    ));
    world.drain(C);
    assert!(world.hosts[C].node.poll_timeout().unwrap().0 > now);

    let candidate = "candidate:1 1 udp 2113929471 1.0.0.2 52625 typ host";
    let node = &mut world.hosts[C].node;
    node.add_remote_candidate(G as u32, candidate, now);
    let (at, reason) = node.poll_timeout().unwrap();
    assert!(at <= now, "{reason}");
    assert!(node.poll_transmit().is_some());
}

#[test]
fn snownet_04_equal_inputs_give_equal_decisions() {
    let run = || {
        let mut world = World::pair(3, Place::Symmetric, Place::Cone);
        world.establish(C, G);
        world.run_for(Duration::from_secs(200));
        world.ping(C, G);
        let events: Vec<_> = world.hosts.iter().map(|h| h.events.clone()).collect();
        (world.trace(), events)
    };
    assert_eq!(run(), run());
}

#[test]
fn snownet_06_a_jump_of_an_hour_is_survived() {
    for place in [Place::Open, Place::Cone, Place::Symmetric] {
        let mut world = World::pair(2, place, place);
        world.establish(C, G);
        world.suspend(Duration::from_secs(3600));
        world.run_for(Duration::from_secs(10));
        assert_eq!(
            world.hosts[C].node.connection_state(G as u32),
            Some(ConnectionState::Connected),
        );
        world.ping(C, G);
    }
}

#[test]
fn earlier_instants_count_as_the_latest_one() {
    let mut world = World::pair(1, Place::Open, Place::Open);
    world.establish(C, G);
    let past = world.start;
    world.hosts[C].node.handle_timeout(past);
    world.ping(C, G);
}
