//! Resources, routes and status (tunnel 5–11, 16, 66).

use std::collections::VecDeque;
use std::time::Duration;

use connlib_model::{Filter, ResourceStatus};
use connlib_tunnel::FlowFailure;

use crate::dns::ask;
use crate::query::A;
use crate::world::{World, cidr, cidr_with, dns, internet, payloads, udp_to};
use connlib_model::ResourceId;

#[test]
fn tunnel_5_network_is_a_route_while_a_resource_has_it() {
    let mut world = World::new(0);
    let has_route = |world: &World| world.routes().contains(&"10.0.0.0/8".to_owned());
    world.add(cidr(1, "10.0.0.0/8"));
    assert!(has_route(&world));
    world.add(cidr(2, "10.0.0.0/8"));
    world.remove(1);
    assert!(has_route(&world));
    world.remove(2);
    assert!(!has_route(&world));
}

#[test]
fn tunnel_6_same_id_with_another_address_replaces_the_resource() {
    let mut world = World::new(1);
    world.add(cidr(1, "10.0.0.0/8"));
    world.connect(1, 0, &udp_to("10.0.0.1:80", 1));
    world.received(0);

    world.add(cidr(1, "192.168.0.0/16"));
    assert!(!world.routes().contains(&"10.0.0.0/8".to_owned()));
    assert_eq!(world.lists.last().unwrap().len(), 1);
    world.send(&udp_to("10.0.0.1:80", 2));
    world.send(&udp_to("192.168.0.1:80", 3));
    world.settle();
    assert!(world.received(0).is_empty());
    assert_eq!(world.asked(), [1, 1]);

    world.add(dns(1, "example.com"));
    assert!(!world.routes().contains(&"192.168.0.0/16".to_owned()));
}

#[test]
fn tunnel_6_same_id_with_another_kind_or_pattern_forgets_the_old_one() {
    let mut world = World::new(1);
    world.add(dns(1, "*.example.com"));
    let proxy = format!("{}:80", ask(&mut world, "www.example.com", A).addresses[0]);
    world.connect(1, 0, &udp_to(&proxy, 1));
    world.received(0);

    world.add(dns(1, "*.example.org"));
    world.send(&udp_to(&proxy, 2));
    assert_eq!(world.asked(), [1], "the old pattern is gone");
    assert_eq!(ask(&mut world, "www.example.org", A).addresses.len(), 4);

    world.add(cidr(1, "10.0.0.0/8"));
    assert_eq!(world.lists.last().unwrap().len(), 1);
    world.send(&udp_to(&proxy, 3));
    assert_eq!(world.asked(), [1], "and so is the old kind");
    world.send(&udp_to("10.0.0.1:80", 4));
    assert_eq!(world.asked(), [1, 1]);
    world.settle();
    assert!(world.received(0).is_empty());
}

#[test]
fn tunnel_9_same_list_leaves_a_pending_request_alone() {
    let mut world = World::new(1);
    let list = [cidr(1, "10.0.0.0/8"), dns(2, "example.com")];
    world.set_resources(&list);
    world.send(&udp_to("10.0.0.1:80", 1));
    world.set_resources(&list);
    world.grant(1, 0).unwrap();
    world.run_for(Duration::from_secs(3));
    assert_eq!(payloads(&world.received(0)), [1]);
    assert_eq!(world.asked(), [1]);
}

#[test]
fn tunnel_7_other_resources_do_not_move_a_network_whose_connection_was_lost() {
    let mut world = World::new(2);
    world.add(cidr(1, "10.0.0.0/8"));
    world.connect(1, 0, &udp_to("10.0.0.1:80", 1));
    world.add(cidr(2, "10.0.0.0/8"));
    world.unreachable.insert(0);
    world.run_for(Duration::from_secs(60));

    world.add(dns(3, "example.com"));
    world.send(&udp_to("10.0.0.1:80", 2));
    assert_eq!(
        world.asked(),
        [1, 1],
        "only a change of networks decides anew"
    );
    world.add(cidr(4, "192.168.0.0/16"));
    world.send(&udp_to("10.0.0.1:80", 3));
    assert_eq!(world.asked(), [1, 1, 2]);
}

#[test]
fn tunnel_7_identical_networks() {
    let mut world = World::new(2);
    world.set_resources(&[cidr(1, "10.0.0.0/8"), cidr(2, "10.0.0.0/8")]);
    world.send(&udp_to("10.0.0.1:80", 1));
    assert_eq!(world.asked(), [2]);

    let mut world = World::new(2);
    world.add(cidr(1, "10.0.0.0/8"));
    world.connect(1, 0, &udp_to("10.0.0.1:80", 1));
    world.add(cidr(2, "10.0.0.0/8"));
    world.add(dns(3, "example.com"));
    world.send(&udp_to("10.0.0.1:80", 2));
    world.settle();
    assert_eq!(payloads(&world.received(0)), [1, 2]);

    world.unreachable.insert(0);
    world.run_for(Duration::from_secs(60));
    world.add(cidr(4, "192.168.0.0/16"));
    world.send(&udp_to("10.0.0.1:80", 3));
    assert_eq!(world.asked(), [1, 2]);
}

#[test]
fn tunnel_9_same_list_again_changes_nothing() {
    let mut world = World::new(1);
    let list = [cidr(1, "10.0.0.0/8"), dns(2, "example.com"), internet(3)];
    world.set_resources(&list);
    world.connect(1, 0, &udp_to("10.0.0.1:80", 1));
    let (lists, configs) = (world.lists.len(), world.tun_configs.len());

    world.set_resources(&list);
    world.send(&udp_to("10.0.0.1:80", 2));
    world.settle();
    assert_eq!(
        (world.lists.len(), world.tun_configs.len()),
        (lists, configs)
    );
    assert_eq!(payloads(&world.received(0)), [1, 2]);
    assert_eq!(world.asked(), [1]);
}

#[test]
fn tunnel_10_disabling_moves_routes_only_on_change() {
    let mut world = World::new(1);
    world.set_resources(&[cidr(1, "10.0.0.0/8"), cidr(2, "192.168.0.0/16")]);
    let configs = world.tun_configs.len();
    world.disable(&[99]);
    assert_eq!(world.tun_configs.len(), configs);

    world.disable(&[1]);
    world.disable(&[1, 99]);
    assert_eq!(world.tun_configs.len(), configs + 1);
    world.send(&udp_to("10.0.0.1:80", 1));
    assert!(world.asked().is_empty());

    world.disable(&[]);
    assert_eq!(world.tun_configs.len(), configs + 2);
    world.send(&udp_to("10.0.0.1:80", 1));
    assert_eq!(world.asked(), [1]);
}

#[test]
fn tunnel_10_disabling_ends_the_connection_with_a_goodbye() {
    let mut world = World::new(1);
    world.add(cidr(1, "10.0.0.0/8"));
    world.connect(1, 0, &udp_to("10.0.0.1:80", 1));
    world.disable(&[1]);
    world.settle();
    assert_eq!(world.gateways[0].goodbyes, 1);
    assert_eq!(world.status(1), ResourceStatus::Unknown);
}

#[test]
fn access_to_a_resource_that_is_gone_is_not_requested() {
    let mut world = World::new(0);
    world.add(cidr(1, "10.0.0.0/8"));
    let now = world.now;
    let mut bytes = udp_to("10.0.0.1:80", 1).as_slice().to_vec();
    let packet = connlib_tunnel::TunPacket {
        buf: &mut bytes,
        gso: connlib_tunnel::segment::GsoMeta::NONE,
    };
    world.client.handle_tun(packet, now, &mut VecDeque::new());
    world.remove(1);
    assert!(world.asked().is_empty());
}

#[test]
fn tunnel_10_fifty_changes_are_one_pending_update() {
    let mut world = World::new(0);
    let before = world.tun_configs.len();
    for i in 0..50 {
        let now = world.now;
        world
            .client
            .add_resource(cidr(i, &format!("10.{i}.0.0/16")), now);
    }
    world.drain();
    assert_eq!(world.tun_configs.len(), before + 1);
    assert_eq!(world.lists.last().unwrap().len(), 50);
}

#[test]
fn tunnel_11_invalid_pattern_does_not_affect_the_others() {
    let mut world = World::new(0);
    world.set_resources(&[dns(1, "a**b.example.com"), cidr(2, "10.0.0.0/8")]);
    assert_eq!(world.lists.last().unwrap().len(), 2);
    world.send(&udp_to("10.0.0.1:80", 1));
    assert_eq!(world.asked(), [2]);
}

#[test]
fn tunnel_16_address_or_search_domain_alone_is_an_update() {
    let mut world = World::new(0);
    let before = world.tun_configs.len();
    world.set_interface(&[crate::world::UPSTREAM], None);
    assert_eq!(world.tun_configs.len(), before);
    world.set_interface(&[crate::world::UPSTREAM], Some("corp.example"));
    assert_eq!(world.tun_configs.len(), before + 1);

    let mut interface = connlib_tunnel::InterfaceConfig {
        ipv4: [100, 64, 0, 9].into(),
        ipv6: crate::world::CLIENT_V6,
        upstream_dns: vec![crate::world::UPSTREAM],
        search_domain: Some("corp.example".parse().unwrap()),
    };
    let now = world.now;
    world.client.set_interface(interface.clone(), now);
    world.drain();
    assert_eq!(world.tun_configs.len(), before + 2);

    interface.ipv4 = crate::world::CLIENT_V4;
    world.client.set_interface(interface, now);
    world.drain();
    assert_eq!(world.tun_configs.len(), before + 3);
}

#[test]
fn tunnel_36_offline_is_shown_and_decays() {
    let mut world = World::new(1);
    world.add(cidr(1, "10.0.0.0/8"));
    world.send(&udp_to("10.0.0.1:80", 1));
    let now = world.now;
    world
        .client
        .handle_flow_failed(ResourceId::from_u128(1), FlowFailure::Offline, now);
    world.drain();
    assert_eq!(world.status(1), ResourceStatus::Offline);

    // tunnel 66: a quiescent client wakes for it.
    world.run_for(Duration::from_millis(299_999));
    assert_eq!(world.status(1), ResourceStatus::Offline);
    world.run_for(Duration::from_millis(1));
    assert_eq!(world.status(1), ResourceStatus::Unknown);

    // The pending packet is gone and the next one asks at once.
    world.send(&udp_to("10.0.0.1:80", 2));
    assert_eq!(world.asked(), [1, 1]);
    world.grant(1, 0).unwrap();
    world.run_for(Duration::from_secs(3));
    assert_eq!(payloads(&world.received(0)), [2]);
}

#[test]
fn tunnel_36_other_denials_let_traffic_ask_again_after_two_seconds() {
    for failure in [
        FlowFailure::Forbidden,
        FlowFailure::NotFound,
        FlowFailure::Other,
    ] {
        let mut world = World::new(1);
        world.add(cidr(1, "10.0.0.0/8"));
        world.send(&udp_to("10.0.0.1:80", 1));
        let now = world.now;
        world
            .client
            .handle_flow_failed(ResourceId::from_u128(1), failure, now);
        world.send(&udp_to("10.0.0.1:80", 2));
        assert_eq!(world.asked(), [1]);
        world.run_for(Duration::from_secs(2));
        world.send(&udp_to("10.0.0.1:80", 3));
        assert_eq!(world.asked(), [1, 1]);
        assert_eq!(world.status(1), ResourceStatus::Unknown);
    }
}

#[test]
fn refused_by_filter_is_answered_locally_and_asks_nobody() {
    let mut world = World::new(1);
    world.add(cidr_with(1, "10.0.0.0/8", vec![Filter::Tcp(80..=80)]));
    world.send(&udp_to("10.0.0.1:53", 1));
    assert!(world.asked().is_empty());
    let error = world.tun.pop().expect("an ICMP error");
    assert_eq!(error.source().to_string(), "10.0.0.1");
    let icmp = error.icmp_error().expect("an ICMP error");
    assert!(icmp.kind().is_prohibited());
    assert_eq!(
        icmp.failed_packet().unwrap().destination().to_string(),
        "10.0.0.1"
    );
}
