//! Ends (snownet 40, 41).

use std::time::Duration;

use connlib_snownet::{Event, Role};

use crate::world::{Place, World, packet};
use crate::{C, G};

#[test]
fn snownet_40_goodbye_arrives_and_ends_the_connection_at_once() {
    let mut world = World::pair(1, Place::Open, Place::Open);
    world.establish(C, G);
    let now = world.now;
    world.hosts[G].node.close(C as u32, Some(&packet(99)), now);
    world.drain(G);
    assert!(!world.hosts[G].node.has_connection(C as u32));
    assert_eq!(
        world.count(G, |e| *e == Event::ConnectionClosed(C as u32)),
        1
    );
    world.run_for(Duration::from_secs(1));
    assert!(world.received(C, G).contains(&99));

    // The layer above understands the packet.
    let now = world.now;
    world.hosts[C].node.remove(G as u32, now);
    world.drain(C);
    let silent_since = world.elapsed() + Duration::from_secs(1);
    world.run_for(Duration::from_secs(20));
    let to_peer = world
        .wires_since(silent_since)
        .filter(|wire| wire.dst.port() == 52625)
        .count();
    assert_eq!(to_peer, 0);
}

#[test]
fn snownet_40_lost_goodbye_is_a_dead_peer() {
    let mut world = World::pair(1, Place::Open, Place::Open);
    world.establish(C, G);
    world.run_for(Duration::from_secs(2));
    world.drop = Box::new(|_| true);
    let now = world.now;
    world.hosts[G].node.close(C as u32, Some(&packet(99)), now);
    world.drain(G);
    world.drop = Box::new(|_| false);
    let closed = world.elapsed();
    world.run_for(Duration::from_secs(60));
    assert!(!world.received(C, G).contains(&99));
    let failed = world.times(C, |e| *e == Event::ConnectionFailed(G as u32));
    assert_eq!(failed.len(), 1);
    // ICE times out 16.5 s after the first unanswered check, and 2 s of grace follow (snownet 28).
    let after = failed[0] - closed;
    assert!(
        after >= Duration::from_millis(18_500) && after <= Duration::from_secs(20),
        "{after:?}"
    );
}

#[test]
fn snownet_40_goodbye_leaves_through_a_relay_too() {
    let mut world = World::pair(1, Place::Symmetric, Place::Symmetric);
    world.establish(C, G);
    let now = world.now;
    world.hosts[C].node.close_all(Some(&packet(99)), now);
    world.drain(C);
    world.run_for(Duration::from_secs(1));
    assert!(world.received(G, C).contains(&99));
}

#[test]
fn snownet_40_shutdown_says_goodbye_and_then_gives_the_allocations_back() {
    let mut world = World::pair(1, Place::Symmetric, Place::Symmetric);
    world.establish(C, G);
    assert_eq!(world.relays[0].allocations(), 2);
    let now = world.now;
    world.hosts[C].node.shutdown(Some(&packet(99)), now);
    world.drain(C);
    world.run_for(Duration::from_secs(1));
    assert!(world.received(G, C).contains(&99));
    assert_eq!(world.relays[0].allocations(), 1);
}

#[test]
fn snownet_40_closing_while_connecting_sends_nothing() {
    let mut world = World::pair(1, Place::Open, Place::Open);
    world.connect(C, G);
    let sent = world.sent.len();
    let now = world.now;
    world.hosts[C].node.close(G as u32, Some(&packet(1)), now);
    world.drain(C);
    assert_eq!(world.sent.len(), sent);
    assert!(!world.hosts[C].node.has_connection(G as u32));
}

#[test]
fn snownet_41_reset_changes_the_key_and_allocates_again() {
    let mut world = World::pair(2, Place::Symmetric, Place::Symmetric);
    let second = world.add_host_at(Role::Gateway, Place::Open);
    world.announce_relays();
    world.run_for(Duration::from_secs(1));
    world.establish(C, G);
    world.establish(C, second);
    let key = world.hosts[C].node.public_key();
    let allocated = world.elapsed();

    world.roam(C, [1, 0, 0, 66].into());
    assert_ne!(world.hosts[C].node.public_key(), key);
    for peer in [G, second] {
        let closed = Event::ConnectionClosed(peer as u32);
        assert_eq!(world.count(C, |e| *e == closed), 1);
        assert!(!world.hosts[C].node.has_connection(peer as u32));
    }
    world.run_for(Duration::from_secs(1));
    let allocations = world.relays.iter().all(|relay| {
        relay.requests.iter().any(|(at, method)| {
            *method == connlib_stun::Method::Allocate && *at - world.start > allocated
        })
    });
    assert!(allocations);

    world.connect(C, G);
    let established = Event::ConnectionEstablished(G as u32);
    world.run_until(Duration::from_secs(10), |w| {
        w.count(C, |e| *e == established) == 2
    });
    world.ping(C, G);
}

#[test]
fn snownet_41_nothing_of_the_old_network_is_sent_after_a_reset() {
    let mut world = World::pair(1, Place::Open, Place::Open);
    world.establish(C, G);
    let path = world.hosts[C].node.path(G as u32).unwrap();
    let now = world.now + Duration::from_secs(2);
    let node = &mut world.hosts[C].node;
    node.handle_timeout(now);
    node.reset(now);
    let mut sent = 0;
    while let Some(transmit) = node.poll_transmit() {
        assert_ne!(transmit.dst, path.remote);
        sent += 1;
    }
    assert!(sent > 0, "relays are asked anew");
}
