//! Change of network, lost relays, order of time (tunnel 66–69, 73).

use std::collections::BTreeSet;
use std::time::Duration;

use connlib_model::ResourceStatus;
use connlib_tunnel::ClientEvent;

use crate::dns::ask;
use crate::query::A;
use crate::world::{World, cidr, dns, payloads, relay, udp_to};

#[test]
fn tunnel_67_traffic_resumes_after_one_intent() {
    let mut world = World::new(1);
    world.set_resources(&[cidr(1, "10.0.0.0/8"), dns(2, "example.com")]);
    let proxies = ask(&mut world, "example.com", A).addresses;
    let sentinels = world.sentinels();
    world.connect(1, 0, &udp_to("10.0.0.1:1", 1));
    world.received(0);
    let key = world.client.public_key();

    world.roam();
    assert_ne!(world.client.public_key(), key);
    assert_eq!(world.status(1), ResourceStatus::Unknown);
    assert_eq!(ask(&mut world, "example.com", A).addresses, proxies);
    assert_eq!(world.sentinels(), sentinels);

    world.send(&udp_to("10.0.0.1:1", 2));
    world.settle();
    assert!(
        world.received(0).is_empty(),
        "nothing goes out under an old binding"
    );
    assert_eq!(world.asked(), [1, 1]);
    world.grant(1, 0).unwrap();
    world.run_for(Duration::from_secs(3));
    assert_eq!(payloads(&world.received(0)), [2]);
}

#[test]
fn tunnel_67_each_resource_asks_once() {
    let mut world = World::new(1);
    world.set_resources(&[cidr(1, "10.0.0.0/8"), cidr(2, "192.168.0.0/16")]);
    world.connect(1, 0, &udp_to("10.0.0.1:1", 1));
    world.send(&udp_to("192.168.0.1:1", 2));
    world.grant(2, 0).unwrap();
    world.run_for(Duration::from_secs(3));
    world.received(0);

    world.roam();
    for number in 3..6 {
        world.send(&udp_to("10.0.0.1:1", number));
        world.send(&udp_to("192.168.0.1:1", number + 10));
    }
    assert_eq!(world.asked(), [1, 2, 1, 2]);
    world.grant(1, 0).unwrap();
    world.run_for(Duration::from_secs(3));
    assert_eq!(payloads(&world.received(0)), [3, 4, 5]);
    world.grant(2, 0).unwrap();
    world.run_for(Duration::from_secs(1));
    assert_eq!(payloads(&world.received(0)), [13, 14, 15]);
}

#[test]
fn tunnel_68_reset_while_an_answer_is_awaited() {
    let mut world = World::new(1);
    world.add(cidr(1, "10.0.0.0/8"));
    world.send(&udp_to("10.0.0.1:1", 1));
    world.roam();
    world.roam();
    world.client.ask_again(world.now);
    world.send(&udp_to("10.0.0.1:1", 2));
    assert_eq!(
        world.asked(),
        [1, 1],
        "the old request died with the old channel"
    );
    world.grant(1, 0).unwrap();
    world.run_for(Duration::from_secs(3));
    assert_eq!(payloads(&world.received(0)), [1, 2]);
}

#[test]
fn tunnel_68_reset_while_a_translation_is_set_up() {
    let mut world = World::new(1);
    world.add(dns(1, "example.com"));
    let ip = ask(&mut world, "example.com", A).addresses[0];
    world.gateways[0].answers = None;
    world.connect(1, 0, &udp_to(&format!("{ip}:1"), 1));
    world.roam();
    world.gateways[0].answers = Some(connlib_tunnel::NatStatus::Active);
    world.send(&udp_to(&format!("{ip}:1"), 2));
    world.grant(1, 0).unwrap();
    world.run_for(Duration::from_secs(3));
    assert_eq!(payloads(&world.received(0)), [2]);
}

#[test]
fn tunnel_69_loss_of_all_relays_is_reported_and_resources_stay() {
    let mut world = World::new(1);
    world.add(cidr(1, "10.0.0.0/8"));
    world.connect(1, 0, &udp_to("10.0.0.1:1", 1));
    world.received(0);
    let lists = world.lists.len();
    let now = world.now;
    world
        .client
        .update_relays(&BTreeSet::from([relay().id]), &[], now);
    world.run_for(Duration::from_secs(1));
    assert_eq!(world.lists.len(), lists);
    world.send(&udp_to("10.0.0.1:1", 2));
    world.settle();
    assert_eq!(
        payloads(&world.received(0)),
        [2],
        "a direct path needs no relay"
    );
}

#[test]
fn tunnel_67_roaming_through_a_place_without_network() {
    let mut world = World::new(1);
    world.add(cidr(1, "10.0.0.0/8"));
    world.connect(1, 0, &udp_to("10.0.0.1:1", 1));
    world.received(0);

    // No family works: neither host candidate nor relay, and the portal cannot be asked.
    let now = world.now;
    world.client.reset(now);
    world
        .client
        .update_relays(&BTreeSet::from([relay().id]), &[], now);
    world.drain();
    world.send(&udp_to("10.0.0.1:1", 2));
    world.run_for(Duration::from_secs(30));
    assert!(world.received(0).is_empty());

    world.roam();
    world.send(&udp_to("10.0.0.1:1", 3));
    assert_eq!(
        world.asked(),
        [1, 1, 1],
        "what was asked before went nowhere"
    );
    world.grant(1, 0).unwrap();
    world.run_for(Duration::from_secs(3));
    assert_eq!(payloads(&world.received(0)), [2, 3]);
}

#[test]
fn tunnel_73_no_deadline_from_before_a_reset_is_left() {
    let mut world = World::new(1);
    world.set_resources(&[cidr(1, "10.0.0.0/8"), dns(2, "example.com")]);
    world.connect(1, 0, &udp_to("10.0.0.1:1", 1));
    let now = world.now;
    world
        .client
        .update_relays(&BTreeSet::from([relay().id]), &[], now);
    world.client.reset(now);
    world.drain();
    world.client.handle_timeout(now);
    world.drain();
    assert_eq!(
        world.client.poll_timeout(),
        None,
        "nothing is left to wait for"
    );
}

#[test]
fn tunnel_73_time_never_goes_backwards() {
    let mut world = World::new(1);
    world.add(cidr(1, "10.0.0.0/8"));
    let later = world.now + Duration::from_secs(10);
    world.client.handle_timeout(later);
    world.client.handle_timeout(world.now);
    assert_eq!(world.client.last_now(), later);
}

#[test]
fn tunnel_73_pending_output_is_due_now() {
    let mut world = World::new(0);
    let now = world.now;
    world.client.add_resource(cidr(1, "10.0.0.0/8"), now);
    assert_eq!(world.client.poll_timeout(), Some(now));
    while let Some(event) = world.client.poll_event() {
        assert!(!matches!(event, ClientEvent::ConnectionIntent { .. }));
    }
    while world.client.poll_transmit().is_some() {}
    world.client.handle_timeout(now);
    assert!(world.client.poll_timeout().is_none_or(|next| next > now));
}
