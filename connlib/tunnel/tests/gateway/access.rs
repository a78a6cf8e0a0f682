//! Who may reach what, and when that ends.

use std::time::Duration;

use connlib_model::{Filter, ResourceId};
use connlib_tunnel::TunAddresses;
use ip_packet::IpPacket;

use crate::world::{GATEWAY_V4, UNIX_START, World, cidr, client_id, dns, internet};

const HOST: &str = "10.0.0.1:53";

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn id(number: u128) -> ResourceId {
    ResourceId::from_u128(number)
}

/// Whether a packet of the client gets to `host`.
fn reaches(world: &mut World, client: usize, host: &str) -> bool {
    let packet = world.clients[client].udp_to(host, b"12345678");
    world.up(client, &packet);
    !world.at_site().is_empty()
}

/// Whether the only thing that a client received is a refusal that makes it ask for access anew.
fn was_prohibited(received: &[IpPacket]) -> bool {
    let [packet] = received else { return false };
    packet
        .icmp_error()
        .is_some_and(|error| error.kind().is_prohibited())
}

#[test]
fn tunnel_47_foreign_source_is_refused() {
    let mut world = World::new(2);
    world.connect(0, cidr(1, "10.0.0.0/8", &[]));
    world.connect(1, cidr(1, "10.0.0.0/8", &[]));

    let of_other = world.clients[1].udp_to(HOST, b"12345678");
    world.up(0, &of_other);
    assert!(world.at_site().is_empty());
    assert!(world.at_client(1).is_empty());
    assert!(was_prohibited(&world.at_client(0)));
    assert_eq!(world.gateway.stats().spoofed, 1);
}

#[test]
fn tunnel_48_what_no_filter_permits_is_answered() {
    let mut world = World::connected(cidr(1, "10.0.0.0/8", &[Filter::Udp(53..=53)]));
    assert!(reaches(&mut world, 0, HOST));
    for refused in ["10.0.0.1:54", "11.0.0.1:53", "[2001:db8::1]:53"] {
        assert!(!reaches(&mut world, 0, refused));
        assert!(was_prohibited(&world.at_client(0)), "{refused}");
    }
}

#[test]
fn tunnel_49_update_of_filters_takes_effect_at_once() {
    let mut world = World::connected(cidr(1, "10.0.0.0/8", &[Filter::Udp(53..=53)]));
    assert!(reaches(&mut world, 0, HOST));
    world
        .gateway
        .update_resource(&cidr(1, "10.0.0.0/8", &[Filter::Icmp]), world.now);
    assert!(!reaches(&mut world, 0, HOST));
    world
        .gateway
        .update_resource(&cidr(1, "10.0.0.0/8", &[]), world.now);
    assert!(reaches(&mut world, 0, HOST));
}

#[test]
fn tunnel_49_resources_expire_one_by_one() {
    let mut world = World::new(1);
    world.authorize(0, cidr(1, "10.0.0.0/8", &[Filter::Udp(53..=53)]), Some(60));
    world.authorize(
        0,
        cidr(2, "10.0.0.0/16", &[Filter::Udp(123..=123)]),
        Some(120),
    );
    world.run_for(secs(50));
    assert!(reaches(&mut world, 0, HOST));
    world.run_for(secs(10));
    assert!(!reaches(&mut world, 0, HOST));
    assert!(reaches(&mut world, 0, "10.0.0.1:123"));
    assert_eq!(world.clients[0].goodbyes, 0);

    world.run_for(secs(60));
    assert_eq!(world.clients[0].goodbyes, 1);
    assert!(world.gateway.path(client_id(0)).is_none());
}

#[test]
fn expiry_is_exact_and_announced() {
    let mut world = World::new(1);
    world.authorize(0, cidr(1, "10.0.0.0/8", &[]), Some(30));
    world.run_for(secs(20));
    let deadline = world.start + secs(30);
    while world.now < deadline {
        let next = world
            .gateway
            .poll_timeout()
            .expect("the expiry is a deadline");
        assert!(next <= deadline);
        world.run_for(next.max(world.now) - world.now);
        assert_eq!(
            world.gateway.path(client_id(0)).is_some(),
            world.now < deadline
        );
    }
}

#[test]
fn tunnel_51_internet_leads_to_public_addresses_only() {
    let mut world = World::connected(internet(1));
    assert!(reaches(&mut world, 0, "1.1.1.1:53"));
    assert!(reaches(&mut world, 0, "[2606:4700::1111]:53"));
    for private in ["10.0.0.1:53", "[fc00::1]:53"] {
        assert!(!reaches(&mut world, 0, private));
        let received = world.at_client(0);
        let error = received[0].icmp_error().unwrap();
        assert!(!error.kind().is_prohibited(), "asking again would not help");
    }
}

#[test]
fn tunnel_52_clients_do_not_reach_each_other() {
    let mut world = World::new(2);
    world.connect(0, cidr(1, "0.0.0.0/0", &[]));
    world.connect(1, cidr(1, "0.0.0.0/0", &[]));
    assert!(!reaches(&mut world, 0, "100.64.1.6:5000"));
    assert!(was_prohibited(&world.at_client(0)));
    assert!(world.at_client(1).is_empty());
}

#[test]
fn tunnel_53_init_is_authoritative() {
    let mut world = World::new(2);
    world.authorize(0, cidr(1, "10.0.0.0/8", &[]), None);
    world.authorize(0, cidr(2, "11.0.0.0/8", &[]), Some(1000));
    world.authorize(1, cidr(1, "10.0.0.0/8", &[]), None);
    world.run_for(secs(3));

    let expiry = |seconds| Some(secs(UNIX_START + seconds));
    let list = [
        (client_id(0), id(2), expiry(60)),
        (client_id(0), id(9), None),
        (client_id(7), id(1), None),
    ];
    world.gateway.reconcile(&list, world.now);
    world.settle();
    assert!(!reaches(&mut world, 0, HOST));
    assert!(reaches(&mut world, 0, "11.0.0.1:53"));
    assert_eq!(world.clients[1].goodbyes, 1, "a client that is not listed");
    world.run_for(secs(60));
    assert_eq!(world.clients[0].goodbyes, 1, "the listed expiry counts");
}

#[test]
fn tunnel_53_past_expiry_ends_access_at_once() {
    let mut world = World::connected(cidr(1, "10.0.0.0/8", &[]));
    let past = Some(secs(UNIX_START - 1));
    world
        .gateway
        .reconcile(&[(client_id(0), id(1), past)], world.now);
    world.settle();
    assert_eq!(world.clients[0].goodbyes, 1);
}

#[test]
fn tunnel_54_authorization_outlives_the_connection() {
    let mut world = World::connected(dns(1, "*.example.com", &[]));
    world.assign(0, 1, "www.example.com", &["100.96.0.1"]);
    world.resolve(Ok(&["10.0.0.1"]));

    world.clients[0].is_reachable = false;
    // A gateway waits longer than a client, whose connection it is.
    world.run_for(secs(1300));
    assert!(
        world.gateway.path(client_id(0)).is_none(),
        "the connection has failed"
    );

    world.clients[0].is_reachable = true;
    let key = world.gateway.public_key();
    world.authorize(0, cidr(2, "11.0.0.0/8", &[]), None);
    assert_eq!(world.gateway.public_key(), key);
    world.run_for(secs(5));
    assert!(
        reaches(&mut world, 0, "100.96.0.1:53"),
        "name and translation are still there"
    );
}

#[test]
fn tunnel_54_last_rejection_says_goodbye() {
    let mut world = World::connected(cidr(1, "10.0.0.0/8", &[]));
    world.authorize(0, cidr(2, "11.0.0.0/8", &[]), None);

    world.gateway.reject(client_id(0), id(1), world.now);
    world.settle();
    assert_eq!(world.clients[0].goodbyes, 0);
    world.gateway.reject(client_id(0), id(2), world.now);
    world.settle();
    assert_eq!(world.clients[0].goodbyes, 1);
    world.gateway.reject(client_id(0), id(2), world.now);

    let late = world.clients[0].udp_from(HOST, b"12345678");
    world.down(&late);
    assert!(world.at_client(0).is_empty());
    assert_eq!(world.gateway.stats().not_a_peer, 1);
}

#[test]
fn tunnel_55_authorizing_again_extends_access() {
    let mut world = World::new(1);
    let resource = cidr(1, "10.0.0.0/8", &[]);
    world.authorize(0, resource.clone(), Some(30));
    world.authorize(0, resource.clone(), Some(60));
    world.run_for(secs(45));
    assert!(reaches(&mut world, 0, HOST));
    world.authorize(0, resource, None);
    world.run_for(secs(100));
    assert!(reaches(&mut world, 0, HOST));
}

#[test]
fn tunnel_72_goodbye_of_a_client_removes_it_at_once() {
    let mut world = World::connected(cidr(1, "10.0.0.0/8", &[]));
    world.say_goodbye(0);
    assert!(world.gateway.path(client_id(0)).is_none());
    let packet = world.clients[0].udp_from(HOST, b"12345678");
    world.down(&packet);
    assert_eq!(world.gateway.stats().not_a_peer, 1);

    world.connect(0, cidr(1, "10.0.0.0/8", &[]));
    assert!(reaches(&mut world, 0, HOST));
}

#[test]
fn tunnel_72_shutdown_says_goodbye_to_everybody() {
    let mut world = World::new(2);
    world.connect(0, cidr(1, "10.0.0.0/8", &[]));
    world.connect(1, cidr(1, "10.0.0.0/8", &[]));
    world.gateway.shutdown(world.now);
    world.settle();
    assert_eq!(
        [world.clients[0].goodbyes, world.clients[1].goodbyes],
        [1, 1]
    );
}

#[test]
fn return_traffic_without_access_is_dropped() {
    let mut world = World::connected(cidr(1, "10.0.0.0/8", &[Filter::Udp(53..=53)]));
    for (source, arrives) in [("10.0.0.1:53", 1), ("10.0.0.1:54", 0), ("11.0.0.1:53", 0)] {
        let packet = world.clients[0].udp_from(source, b"12345678");
        world.down(&packet);
        assert_eq!(world.at_client(0).len(), arrives, "{source}");
    }
    assert_eq!(world.gateway.stats().filtered, 2);
}

#[test]
fn dns_server_of_the_gateway_is_reachable() {
    let mut world = World::connected(cidr(1, "10.0.0.0/8", &[]));
    let server = format!("{GATEWAY_V4}:53535");
    assert!(reaches(&mut world, 0, &server));
    let answer = world.clients[0].udp_from(&server, b"answer");
    world.down(&answer);
    assert_eq!(world.at_client(0), [answer]);

    let other = TunAddresses {
        v4: [100, 64, 0, 77].into(),
        v6: "fd00:2021:1111::77".parse().unwrap(),
    };
    world.gateway.set_interface(other);
    assert!(!reaches(&mut world, 0, &server));
}
