//! Sessions over a whole connection (snownet 43–46, 54).

use std::time::Duration;

use connlib_snownet::{Event, Role};

use crate::world::{PSK, Place, World};
use crate::{C, G};

fn inits_since(world: &World, since: Duration) -> usize {
    world
        .wires_since(since)
        .filter(|wire| wire.wireguard_type() == Some(1))
        .count()
}

fn slow(world: &mut World, latency: u64) {
    for host in [C, G] {
        let id = world.hosts[host].id;
        let link = netsim::LinkConfig {
            latency: Duration::from_millis(latency / 2),
            ..netsim::LinkConfig::default()
        };
        world.net.set_link(id, link);
    }
}

#[test]
fn snownet_43_packet_after_any_idle_time_is_delivered() {
    for latency in [0, 150, 400] {
        for idle in [169, 171, 179, 180, 181, 183, 200, 479, 481, 600, 3600] {
            let mut world = World::pair(1, Place::Open, Place::Open);
            slow(&mut world, latency);
            world.establish(C, G);
            world.run_for(Duration::from_secs(idle));
            let since = world.elapsed();
            world.send(C, G, 4711);
            world.run_until(Duration::from_millis(2 * latency + 100), |w| {
                w.received(G, C).contains(&4711)
            });
            world.run_for(Duration::from_secs(5));
            assert!(inits_since(&world, since) <= 1, "idle {idle} s");
        }
    }
}

#[test]
fn snownet_44_packet_of_the_gateway_after_any_idle_time_is_delivered() {
    for idle in [150, 179, 181, 200, 600, 3600] {
        let mut world = World::pair(1, Place::Cone, Place::Open);
        world.establish(C, G);
        world.run_for(Duration::from_secs(idle));
        assert_eq!(world.send(G, C, 4711).sent, 1, "idle {idle} s");
        world.run_for(Duration::from_millis(100));
        assert!(world.received(C, G).contains(&4711));
    }
}

#[test]
fn snownet_43_renewals_lost_while_idle_end_the_connection_and_it_can_be_made_again() {
    let mut world = World::pair(1, Place::Open, Place::Open);
    world.establish(C, G);
    world.drop = Box::new(|wire| wire.wireguard_type().is_some());
    world.run_for(Duration::from_secs(300));
    let failed = Event::ConnectionFailed(G as u32);
    assert_eq!(world.count(C, |e| *e == failed), 1);
    world.drop = Box::new(|_| false);
    world.connect(C, G);
    world.send(C, G, 4711);
    world.run_until(Duration::from_secs(2), |w| w.received(G, C).contains(&4711));
}

#[test]
fn snownet_45_both_directions_at_once_after_suspend() {
    let mut world = World::pair(1, Place::Open, Place::Open);
    world.establish(C, G);
    world.suspend(Duration::from_secs(200));
    let since = world.elapsed();
    world.send(G, C, 1);
    world.send(C, G, 2);
    world.run_for(Duration::from_secs(2));
    assert!(world.received(G, C).contains(&2));
    world.ping(C, G);
    assert_eq!(inits_since(&world, since), 1);
}

#[test]
fn snownet_46_packets_during_a_handshake_arrive_in_order() {
    let mut world = World::pair(1, Place::Open, Place::Open);
    world.establish(C, G);
    world.suspend(Duration::from_secs(200));
    for number in 0..100 {
        world.send(C, G, 1_000_000 + number);
    }
    world.upsert(C, G, PSK).unwrap();
    world.run_for(Duration::from_secs(2));
    let numbers: Vec<u32> = (1_000_000..1_000_100).collect();
    assert!(world.received(G, C).ends_with(&numbers));
}

#[test]
fn snownet_54_wrong_preshared_key_fails_and_disturbs_nobody() {
    let mut world = World::pair(1, Place::Open, Place::Open);
    let other = world.add_host_at(Role::Client, Place::Open);
    world.announce_relays();
    world.run_for(Duration::from_secs(1));
    world.establish(other, G);
    let begin = world.elapsed();
    world.upsert(G, C, PSK).unwrap();
    world.upsert(C, G, [1; 32]).unwrap();
    world.run_for(Duration::from_secs(30));
    let failed = world.times(C, |e| matches!(e, Event::ConnectionFailed(_)));
    assert_eq!(failed.len(), 1);
    // The second undecryptable answer ends it at once; the second attempt follows 5 s after the first.
    assert!(failed[0] - begin <= Duration::from_secs(6));
    world.ping(other, G);
}
