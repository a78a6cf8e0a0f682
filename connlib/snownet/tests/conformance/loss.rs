//! Paths that break (snownet 28, 29).

use std::time::Duration;

use connlib_snownet::{Event, Role};
use netsim::{EdgeConfig, EdgeKind};

use crate::world::{Place, World, packet};
use crate::{C, G};

fn failures(world: &World, host: usize) -> Vec<Duration> {
    world.times(host, |e| matches!(e, Event::ConnectionFailed(_)))
}

#[test]
fn snownet_28_client_gives_up_after_the_ice_timeout_and_gateway_waits() {
    let mut world = World::pair(1, Place::Open, Place::Open);
    world.establish(C, G);
    world.run_for(Duration::from_secs(5));
    let cut = world.elapsed();
    world.drop = Box::new(|_| true);
    // Traffic keeps the link awake.
    for number in 0..40 {
        world.try_send(C, G, number);
        world.run_for(Duration::from_millis(500));
    }
    let failed = failures(&world, C);
    assert_eq!(failed.len(), 1);
    // A check is due every 1.5 s; the timeout of 16.5 s starts with the first unanswered one; 2 s of grace follow.
    let after = failed[0] - cut;
    assert!(after >= Duration::from_millis(18_500), "{after:?}");
    assert!(after <= Duration::from_millis(20_000), "{after:?}");

    world.run_for(Duration::from_secs(590));
    assert!(world.hosts[G].node.has_connection(C as u32));
    world.run_for(Duration::from_secs(700));
    assert_eq!(failures(&world, G).len(), 1);
}

/// A symmetric NAT that forgets its mappings shows the gateway a new address. The client need not notice; the gateway must.
#[test]
fn gateway_follows_the_client_to_a_new_mapping() {
    let mut world = World::new();
    world.add_relay(Some([9, 9, 9, 1].into()), None);
    let nat = EdgeConfig::nat(EdgeKind::Symmetric, [1, 0, 0, 1].into());
    let edge = world.net.add_edge(nat);
    let private = Some([192, 168, 0, 2].into());
    world.add_host(Role::Client, private, None, Some(edge));
    world.add_host_at(Role::Gateway, Place::Open);
    world.announce_relays();
    world.run_for(Duration::from_secs(1));
    world.establish(C, G);
    world.run_for(Duration::from_secs(5));
    let before = world.hosts[G].node.path(C as u32).unwrap();

    world.net.flush_edge(edge);
    for number in 0..20 {
        world.send(C, G, number);
        world.run_for(Duration::from_millis(500));
    }
    let after = world.hosts[G].node.path(C as u32).unwrap();
    assert_ne!(after.remote, before.remote);
    assert_eq!(failures(&world, C), []);
    world.ping(C, G);
}

/// The host slept, its peer is gone: what waits for a session is handed back with the failure, once, and only if there ever was
/// a session.
#[test]
fn snownet_28_undelivered_packets_follow_the_failure() {
    for was_established in [true, false] {
        let mut world = World::pair(1, Place::Open, Place::Open);
        if was_established {
            world.establish(C, G);
            world.drop = Box::new(|_| true);
            world.suspend(Duration::from_secs(200));
        } else {
            world.drop = Box::new(|wire| wire.wireguard_type() == Some(2));
            world.connect(C, G);
        }
        world.send(C, G, 4711);
        world.send(C, G, 4712);
        world.run_for(Duration::from_secs(60));
        let ends: Vec<_> = world.hosts[C]
            .events
            .iter()
            .map(|(_, event)| event)
            .skip_while(|event| !matches!(event, Event::ConnectionFailed(_)))
            .collect();
        let undelivered = |number| Event::Undelivered {
            peer: G as u32,
            packet: packet(number),
        };
        let failed = Event::ConnectionFailed(G as u32);
        let expected = match was_established {
            true => vec![failed, undelivered(4711), undelivered(4712)],
            false => vec![failed],
        };
        assert_eq!(ends, expected.iter().collect::<Vec<_>>());
    }
}

#[test]
fn snownet_29_a_short_disconnect_is_not_a_failure() {
    let mut world = World::pair(1, Place::Symmetric, Place::Symmetric);
    world.add_relay(Some([9, 9, 9, 77].into()), None);
    world.establish(C, G);
    for host in [C, G] {
        world.update_relays(host, &[0], &[]);
    }
    world.run_for(Duration::from_millis(1_500));
    for host in [C, G] {
        world.update_relays(host, &[], &[1]);
    }
    world.run_for(Duration::from_secs(5));
    assert_eq!(failures(&world, C), []);
    assert_eq!(failures(&world, G), []);
    world.ping(C, G);
}

#[test]
fn snownet_29_a_new_pair_within_the_grace_is_in_time() {
    let mut world = World::pair(1, Place::Open, Place::Open);
    world.add_relay(Some([9, 9, 9, 77].into()), None);
    // With relay candidates only, no pair is left once the relay is gone: the agents are disconnected.
    world.signalling = |sdp| sdp.contains("typ relay");
    world.establish(C, G);
    world.run_for(Duration::from_secs(60));
    for host in [C, G] {
        world.update_relays(host, &[0], &[]);
    }
    world.run_for(Duration::from_millis(1_500));
    for host in [C, G] {
        world.update_relays(host, &[], &[1]);
    }
    world.run_for(Duration::from_secs(10));
    assert_eq!(failures(&world, C), []);
    assert_eq!(failures(&world, G), []);
    world.ping(C, G);
}

#[test]
fn a_disconnect_without_remedy_fails_after_the_grace() {
    let mut world = World::pair(1, Place::Symmetric, Place::Symmetric);
    world.establish(C, G);
    world.run_for(Duration::from_secs(60));
    let cut = world.elapsed();
    for host in [C, G] {
        world.update_relays(host, &[0], &[]);
    }
    world.run_for(Duration::from_secs(120));
    let failed = failures(&world, C);
    assert_eq!(failed.len(), 1);
    assert!(failed[0] >= cut + Duration::from_secs(2));
}
