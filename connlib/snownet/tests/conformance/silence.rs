//! Relays that have forgotten their allocations, found out by traffic (snownet 12, 18, 19, 38).

use std::time::{Duration, Instant};

use connlib_snownet::PathKind;
use connlib_stun::Method;

use crate::relays::{failed, invalidated, longest_gap};
use crate::world::{Place, World};
use crate::{C, G};

/// From the loss of a relay's state until packets flow both ways again: 3 s of silence since the first lost packet, then
/// new allocations and checks.
const BACK_WITHIN: Duration = Duration::from_secs(4);

/// A connection by relay on which packets have flowed for a while.
fn relayed(relays: u8, client: Place, gateway: Place) -> World {
    let mut world = World::pair(relays, client, gateway);
    block_direct(&mut world);
    world.establish(C, G);
    world.run_for(Duration::from_secs(5));
    let kind = world.kind(C, G).unwrap();
    assert_ne!(kind, PathKind::PeerToPeer);
    world
}

/// Loses what travels between the two without a relay.
fn block_direct(world: &mut World) {
    let ends = [[1, 0, 0, 1], [1, 0, 0, 2]];
    world.drop = Box::new(move |wire| {
        ends.iter()
            .any(|end| wire.dst.ip() == std::net::IpAddr::from(*end))
    });
}

fn refreshes(world: &World, since: Instant) -> usize {
    let requests = world.relays.iter().flat_map(|relay| &relay.requests);
    let is_refresh = |(at, method): &&(Instant, Method)| *at >= since && *method == Method::Refresh;
    requests.filter(is_refresh).count()
}

#[test]
fn snownet_18_traffic_finds_out_that_the_relay_has_lost_its_state() {
    use Place::{Cone, Open, Symmetric};
    for relays in [1, 2] {
        for (client, gateway) in [
            (Symmetric, Symmetric),
            (Symmetric, Cone),
            (Cone, Symmetric),
            (Open, Open),
        ] {
            let mut world = relayed(relays, client, gateway);
            // Again and again, also while ICE is at another point of its rounds.
            for round in 0..4 {
                let now = world.now;
                for relay in &mut world.relays {
                    relay.forget(now);
                }
                let gap = longest_gap(&mut world, Duration::from_millis(12_300));
                assert!(
                    gap < BACK_WITHIN,
                    "{gap:?} in round {round} with {relays} relays, {client:?} and {gateway:?}"
                );
                assert_eq!(failed(&world), 0);
            }
            world.ping(C, G);
        }
    }
}

/// ICE checks the path of a one-way flow, and each answer is a sign of life.
#[test]
fn a_flow_without_answers_is_nothing_to_ask_about() {
    let mut world = relayed(1, Place::Symmetric, Place::Symmetric);
    let since = world.now;
    for number in 0..400 {
        world.send(C, G, number);
        world.run_for(Duration::from_millis(50));
    }
    assert_eq!(refreshes(&world, since), 0);
}

/// The relay is there, and answers that it still knows us: what is silent is the peer.
#[test]
fn a_silent_peer_is_asked_about_once() {
    let mut world = relayed(1, Place::Symmetric, Place::Symmetric);
    world.drop = Box::new(|wire| wire.host == G);
    let since = world.now;
    for number in 0..150 {
        world.try_send(C, G, number);
        world.run_for(Duration::from_millis(100));
    }
    assert_eq!(refreshes(&world, since), 1);
    assert!(invalidated(&world, C).is_empty());
}

/// Nobody asks twice in so short a time. When ICE is out of pairs the client does, and the connection is saved within the grace.
#[test]
fn snownet_18_the_end_of_all_pairs_asks_in_any_case() {
    let mut world = relayed(1, Place::Symmetric, Place::Symmetric);
    let since = world.now;
    world.drop = Box::new(|wire| wire.payload[0] == 0x40);
    longest_gap(&mut world, Duration::from_secs(4));
    assert_eq!(refreshes(&world, since), 2, "one of each end");
    world.drop = Box::new(|_| false);
    longest_gap(&mut world, Duration::from_secs(2));
    let now = world.now;
    world.relays[0].forget(now);
    let gap = longest_gap(&mut world, Duration::from_secs(40));
    assert!(gap < Duration::from_secs(20), "{gap:?}");
    assert!(gap > BACK_WITHIN, "{gap:?}");
    assert_eq!(failed(&world), 0);
}

#[test]
fn snownet_38_an_idle_connection_has_nothing_to_ask() {
    let mut world = relayed(2, Place::Symmetric, Place::Symmetric);
    // Until pairs that never worked are given up.
    world.run_for(Duration::from_secs(1_200));
    let since = world.now;
    world.run_for(Duration::from_secs(600));
    // Each end renews both allocations every 300 s.
    assert_eq!(refreshes(&world, since), 2 * 2 * 2);
}

/// A relay that is away for longer than one transmission takes, and nobody is told.
#[test]
fn snownet_18_a_relay_that_starts_slowly_is_found() {
    let mut world = relayed(1, Place::Symmetric, Place::Symmetric);
    for relay in &mut world.relays {
        relay.alive = false;
    }
    longest_gap(&mut world, Duration::from_millis(6_000));
    let now = world.now;
    for relay in &mut world.relays {
        relay.forget(now);
        relay.alive = true;
    }
    let gap = longest_gap(&mut world, Duration::from_secs(10));
    assert!(gap < BACK_WITHIN, "{gap:?}");
    assert_eq!(failed(&world), 0);
}

/// An outage of the network that ICE survives leaves the allocations as they were.
#[test]
fn an_outage_costs_no_allocation() {
    let mut world = relayed(1, Place::Symmetric, Place::Symmetric);
    world.drop = Box::new(|_| true);
    longest_gap(&mut world, Duration::from_secs(15));
    world.drop = Box::new(|_| false);
    let gap = longest_gap(&mut world, Duration::from_secs(30));
    assert!(gap < Duration::from_secs(1), "{gap:?}");
    for host in [C, G] {
        assert!(invalidated(&world, host).is_empty());
    }
}
