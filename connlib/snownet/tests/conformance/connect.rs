//! Finding a path (snownet 25–30, 36, 42).

use std::time::Duration;

use connlib_snownet::{ConnectionState, PathKind, Role};

use crate::world::{Place, World};

const C: usize = 0;
const G: usize = 1;

fn kinds(client: Place, gateway: Place) -> (PathKind, PathKind) {
    let mut world = World::pair(2, client, gateway);
    world.establish(C, G);
    // Better pairs are found within the first checks.
    world.run_for(Duration::from_secs(5));
    world.ping(C, G);
    (world.kind(C, G).unwrap(), world.kind(G, C).unwrap())
}

#[test]
fn snownet_25_hosts_without_nat_connect_directly() {
    let direct = (PathKind::PeerToPeer, PathKind::PeerToPeer);
    assert_eq!(kinds(Place::Open, Place::Open), direct);
}

#[test]
fn snownet_25_cone_nats_connect_directly() {
    let direct = (PathKind::PeerToPeer, PathKind::PeerToPeer);
    assert_eq!(kinds(Place::Cone, Place::Cone), direct);
}

#[test]
fn snownet_25_one_symmetric_nat_connects() {
    let direct = (PathKind::PeerToPeer, PathKind::PeerToPeer);
    assert_eq!(kinds(Place::Symmetric, Place::Open), direct);
    assert_eq!(kinds(Place::Open, Place::Symmetric), direct);
}

#[test]
fn snownet_25_two_symmetric_nats_connect_relay_to_relay() {
    let (client, gateway) = kinds(Place::Symmetric, Place::Symmetric);
    assert_eq!(client, PathKind::RelayToRelay);
    assert_eq!(gateway, PathKind::RelayToRelay);
}

#[test]
fn snownet_42_established_once() {
    let mut world = World::pair(1, Place::Open, Place::Open);
    world.establish(C, G);
    world.run_for(Duration::from_secs(600));
    for (host, peer) in [(C, G), (G, C)] {
        let event = connlib_snownet::Event::ConnectionEstablished(peer as u32);
        assert_eq!(world.count(host, |e| *e == event), 1);
    }
    assert_eq!(
        world.hosts[C].node.connection_state(1),
        Some(ConnectionState::Idle)
    );
    let _ = Role::Client;
}
