//! Idle connections (snownet 38, design row 35).

use std::time::Duration;

use connlib_snownet::{ConnectionState, Event};

use crate::world::{Place, World};
use crate::{C, G};

fn state(world: &World, host: usize, peer: usize) -> ConnectionState {
    world.hosts[host]
        .node
        .connection_state(peer as u32)
        .unwrap()
}

#[test]
fn snownet_38_idle_after_twenty_seconds_without_packets() {
    let mut world = World::pair(1, Place::Open, Place::Open);
    world.establish(C, G);
    world.ping(C, G);
    world.run_for(Duration::from_millis(19_900));
    assert_eq!(state(&world, C, G), ConnectionState::Connected);
    world.run_for(Duration::from_millis(100));
    assert_eq!(state(&world, C, G), ConnectionState::Idle);
    assert_eq!(state(&world, G, C), ConnectionState::Idle);
}

#[test]
fn snownet_38_idle_traffic_keeps_its_budget() {
    let mut world = World::pair(2, Place::Cone, Place::Cone);
    world.establish(C, G);
    world.run_for(Duration::from_secs(100));
    let since = world.elapsed();
    let seconds = 1_000;
    world.run_for(Duration::from_secs(seconds));
    let datagrams = world.wires_since(since).count() as f64;
    let rate = datagrams / seconds as f64;
    assert!(rate <= 2.0, "{rate} datagrams per second");

    // Wakes follow from datagrams and deadlines, not from polling.
    let before = world.hosts[C].wakes;
    world.run_for(Duration::from_secs(seconds));
    let wakes = (world.hosts[C].wakes - before) as f64 / seconds as f64;
    assert!(wakes <= 2.0, "{wakes} wakes per second");
}

#[test]
fn snownet_38_one_pair_costs_four_datagrams_per_25_seconds() {
    let mut world = World::pair(1, Place::Open, Place::Open);
    world.signalling = |sdp| sdp.contains("typ host");
    world.establish(C, G);
    world.run_for(Duration::from_secs(100));
    for host in [C, G] {
        world.update_relays(host, &[0], &[]);
    }
    world.run_for(Duration::from_secs(60));
    let since = world.elapsed();
    world.run_for(Duration::from_secs(1_000));
    // Not counted: the gateway still tries the client's address on the relay that is gone.
    let checks = world
        .wires_since(since)
        .filter(|wire| wire.wireguard_type().is_none() && wire.dst.port() == 52625)
        .count();
    assert!(checks <= 4 * 1_000 / 25 + 4, "{checks}");
    assert!(checks >= 2 * 1_000 / 25, "{checks}");
}

#[test]
fn snownet_38_a_packet_restores_active_timing() {
    let mut world = World::pair(1, Place::Open, Place::Open);
    world.establish(C, G);
    world.run_for(Duration::from_secs(60));
    assert_eq!(state(&world, C, G), ConnectionState::Idle);
    world.drop = Box::new(|_| true);
    world.run_for(Duration::from_secs(3));
    let sent = world.elapsed();
    world.send(C, G, 1);
    assert_eq!(state(&world, C, G), ConnectionState::Connected);
    world.run_for(Duration::from_secs(60));
    let failed = world.times(C, |e| matches!(e, Event::ConnectionFailed(_)));
    assert_eq!(failed.len(), 1);
    let after = failed[0] - sent;
    assert!(after <= Duration::from_millis(20_000), "{after:?}");
}

#[test]
fn snownet_38_a_received_packet_wakes_too() {
    let mut world = World::pair(1, Place::Open, Place::Open);
    world.establish(C, G);
    world.run_for(Duration::from_secs(60));
    world.send(G, C, 1);
    world.run_for(Duration::from_secs(1));
    assert_eq!(state(&world, C, G), ConnectionState::Connected);
}

#[test]
fn snownet_38_a_link_without_path_does_not_fall_asleep() {
    let mut world = World::pair(1, Place::Symmetric, Place::Symmetric);
    world.establish(C, G);
    world.run_for(Duration::from_secs(1));
    // The nominated pair is gone; others, which do not work, are tried for minutes.
    world.update_relays(G, &[0], &[]);
    world.run_for(Duration::from_secs(60));
    assert_eq!(state(&world, G, C), ConnectionState::Connected);
}
