//! The control protocol, look-ups, and the NAT end to end.

use std::time::Duration;

use connlib_model::Filter;
use connlib_tunnel::segment::{Coalescer, Coalescing};
use connlib_tunnel::{NatStatus, ResolveError};
use ip_packet::make;

use crate::world::{World, cidr, dns};

const PROXIES: [&str; 2] = ["100.96.0.1", "fd00:2021:1111:8000::"];

fn named() -> World {
    World::connected(dns(1, "*.example.com", &[]))
}

#[test]
fn tunnel_45_requests_outside_of_access_are_inactive() {
    let mut world = named();
    world.authorize(0, cidr(2, "10.0.0.0/8", &[]), None);

    for (resource, domain) in [
        (9, "www.example.com"),
        (1, "www.example.org"),
        (2, "www.example.com"),
    ] {
        world.assign(0, resource, domain, &PROXIES);
        assert_eq!(
            world.status(0),
            Some(NatStatus::Inactive),
            "{resource} {domain}"
        );
        assert!(world.lookups.is_empty());
    }
    let packet = world.clients[0].udp_to("100.96.0.1:53", b"12345678");
    world.up(0, &packet);
    assert!(world.at_site().is_empty());
}

#[test]
fn tunnel_46_proxies_used_for_another_domain_lead_there() {
    let mut world = named();
    let packet = world.clients[0].udp_to("100.96.0.1:53", b"12345678");
    for (domain, address) in [("a.example.com", "10.0.0.1"), ("b.example.com", "10.0.0.2")] {
        world.assign(0, 1, domain, &PROXIES);
        world.resolve(Ok(&[address]));
        assert_eq!(world.status(0), Some(NatStatus::Active));
        world.up(0, &packet);
        let received = world.at_site();
        assert_eq!(received.len(), 1);
        assert_eq!(received[0].destination().to_string(), address);
    }
}

// A process that has been killed leaves its names behind; the next one numbers from the start, and its announcements are
// resolved in any order.
#[test]
fn tunnel_46_restarted_client_keeps_what_it_has_announced_itself() {
    const NAMES: [(&str, &str, &str); 2] = [
        ("c.example.com", "100.96.0.5", "10.0.0.3"),
        ("b.example.com", "100.96.0.1", "10.0.0.2"),
    ];
    let mut world = named();
    world.assign(0, 1, "a.example.com", &["100.96.0.1"]);
    world.resolve(Ok(&["10.0.0.1"]));
    let packet = world.clients[0].udp_to("100.96.0.1:53", b"12345678");
    world.up(0, &packet);
    assert_eq!(world.at_site()[0].destination().to_string(), "10.0.0.1");
    world.assign(0, 1, "slow.example.com", &["100.96.0.5"]);
    world.clients[0].statuses.clear();

    let now = world.now;
    world.clients[0].node.reset(now);
    world.connect(0, dns(1, "*.example.com", &[]));
    // Nobody waits for the answer that the old process had asked for.
    world.resolve(Ok(&["10.0.0.9"]));
    assert_eq!(world.status(0), None);

    for (domain, proxy, real) in NAMES {
        world.assign(0, 1, domain, &[proxy]);
        world.resolve(Ok(&[real]));
        assert_eq!(world.status(0), Some(NatStatus::Active));
        let packet = world.clients[0].udp_to(&format!("{proxy}:53"), b"12345678");
        world.up(0, &packet);
        assert_eq!(world.at_site()[0].destination().to_string(), real);
    }
    for (_, proxy, real) in NAMES {
        let host = &world.clients[0];
        let answer = host.udp_from(&format!("{real}:53"), b"answer");
        let translated = host.udp_from(&format!("{proxy}:53"), b"answer");
        world.down(&answer);
        assert_eq!(world.at_client(0), [translated], "{real}");
    }
    let late = world.clients[0].udp_from("10.0.0.1:53", b"late");
    world.down(&late);
    assert!(world.at_client(0).is_empty());
}

#[test]
fn tunnel_57_round_trip_end_to_end() {
    let mut world = named();
    world.assign(0, 1, "www.example.com", &PROXIES);
    assert_eq!(world.lookups[0].1.to_string(), "www.example.com");
    world.resolve(Ok(&["10.0.0.80", "2001:db8::80"]));
    assert_eq!(world.status(0), Some(NatStatus::Active));

    for (proxy, real) in [
        ("100.96.0.1:53", "10.0.0.80:53"),
        ("[fd00:2021:1111:8000::]:53", "[2001:db8::80]:53"),
    ] {
        let client = &world.clients[0];
        let (request, expected) = (
            client.udp_to(proxy, b"request"),
            client.udp_to(real, b"request"),
        );
        let (answer, translated) = (
            client.udp_from(real, b"answer"),
            client.udp_from(proxy, b"answer"),
        );
        world.up(0, &request);
        assert_eq!(world.at_site(), [expected]);
        world.down(&answer);
        assert_eq!(world.at_client(0), [translated]);
    }
}

#[test]
fn tunnel_59_two_names_of_one_address_are_used_at_once() {
    let mut world = named();
    for (domain, proxy) in [
        ("a.example.com", "100.96.0.1"),
        ("b.example.com", "100.96.0.5"),
    ] {
        world.assign(0, 1, domain, &[proxy]);
        world.resolve(Ok(&["10.0.0.80"]));
        assert_eq!(world.status(0), Some(NatStatus::Active));
    }
    let mut ports = vec![];
    for proxy in ["100.96.0.1:53", "100.96.0.5:53"] {
        let request = world.clients[0].udp_to(proxy, b"request");
        world.up(0, &request);
        let at_site = world.at_site();
        assert_eq!(at_site.len(), 1, "{proxy}");
        ports.push(at_site[0].as_udp().unwrap().source_port());
    }
    assert_ne!(ports[0], ports[1]);
    for (port, proxy) in ports.into_iter().zip(["100.96.0.1:53", "100.96.0.5:53"]) {
        let expected = world.clients[0].udp_from(proxy, b"answer");
        let client = std::net::SocketAddr::new(expected.destination(), port);
        let answer = make::udp_packet("10.0.0.80:53".parse().unwrap(), client, b"answer").unwrap();
        world.down(&answer);
        assert_eq!(world.at_client(0), [expected]);
    }
}

// tunnel 86: a client of early 2025 announces eight addresses, knows no goodbye, and goes on when its access ends.
#[test]
fn client_of_the_earlier_generation() {
    let proxies: Vec<String> = (1..=4)
        .map(|i| format!("100.96.0.{i}"))
        .chain((0..4).map(|i| format!("fd00:2021:1111:8000::{i}")))
        .collect();
    let proxies: Vec<&str> = proxies.iter().map(String::as_str).collect();
    let mut world = named();
    world.assign(0, 1, "www.example.com", &proxies);
    world.resolve(Ok(&["10.0.0.1", "10.0.0.2", "2001:db8::1"]));
    assert_eq!(world.status(0), Some(NatStatus::Active));
    for (proxy, real) in [
        ("100.96.0.3:53", "10.0.0.1"),
        ("[fd00:2021:1111:8000::3]:53", "2001:db8::1"),
    ] {
        let packet = world.clients[0].udp_to(proxy, b"12345678");
        world.up(0, &packet);
        assert_eq!(world.at_site()[0].destination().to_string(), real);
    }

    let late = world.clients[0].udp_to("100.96.0.1:53", b"12345678");
    let wire = world.sealed_by_client(0, &late);
    world.gateway.reject(
        world.clients[0].id,
        connlib_model::ResourceId::from_u128(1),
        world.now,
    );
    let mut coalescer = Coalescer::new(Coalescing::OFF);
    world.deliver_to_gateway(&wire, &mut coalescer);
    assert!(coalescer.is_empty());
    world.settle();

    world.connect(0, dns(1, "*.example.com", &[]));
    world.assign(0, 1, "www.example.com", &proxies);
    world.resolve(Ok(&["10.0.0.1"]));
    world.up(0, &late);
    assert_eq!(world.at_site().len(), 1);
}

#[test]
fn tunnel_62_name_without_addresses_is_active_and_unreachable() {
    let mut world = named();
    world.assign(0, 1, "www.example.com", &PROXIES);
    world.resolve(Ok(&[]));
    assert_eq!(world.status(0), Some(NatStatus::Active));

    for (proxy, embedded) in [("100.96.0.1:53", 28), ("[fd00:2021:1111:8000::]:53", 1232)] {
        let packet = world.clients[0].udp_to(proxy, &[7; 1200]);
        world.up(0, &packet);
        assert!(world.at_site().is_empty());
        let received = world.at_client(0);
        let error = received[0].icmp_error().unwrap();
        assert!(!error.kind().is_prohibited());
        assert_eq!(
            error.embedded(),
            &packet.as_slice()[..embedded.min(packet.as_slice().len())]
        );
        assert_eq!(received[0].source(), packet.destination());
        assert_eq!(received[0].hop_limit(), 20);
    }
}

#[test]
fn tunnel_65_failed_look_ups_are_answered_and_can_be_repeated() {
    let mut world = named();
    world.assign(0, 1, "www.example.com", &PROXIES);
    world.resolve(Err(ResolveError::Failed));
    assert_eq!(world.status(0), Some(NatStatus::Active));

    world.assign(0, 1, "www.example.com", &PROXIES);
    world.run_for(Duration::from_secs(9));
    assert_eq!(world.status(0), None);
    world.run_for(Duration::from_secs(1));
    assert_eq!(world.status(0), Some(NatStatus::Active), "timed out");
    // The resolver's own answer comes too late.
    world.resolve(Ok(&["10.0.0.1"]));
    assert_eq!(world.status(0), None);

    world.assign(0, 1, "www.example.com", &PROXIES);
    world.resolve(Ok(&["10.0.0.1"]));
    assert_eq!(world.status(0), Some(NatStatus::Active));
    let packet = world.clients[0].udp_to("100.96.0.1:53", b"12345678");
    world.up(0, &packet);
    assert_eq!(world.at_site().len(), 1);
}

#[test]
fn tunnel_65_look_up_beyond_the_limit_is_dropped_without_harm() {
    let mut world = named();
    for _ in 0..500 {
        world.assign(0, 1, "www.example.com", &PROXIES);
        world.now -= Duration::from_millis(30);
    }
    assert_eq!(world.lookups.len(), 500);
    world.assign(0, 1, "www.example.com", &PROXIES);
    assert_eq!(world.lookups.len(), 500);
    assert_eq!(world.gateway.stats().dropped_lookups, 1);

    world.resolve(Ok(&["10.0.0.1"]));
    assert_eq!(world.status(0), Some(NatStatus::Active));
}

#[test]
fn access_that_ends_during_a_look_up_makes_it_inactive() {
    let mut world = named();
    world.authorize(0, cidr(2, "10.0.0.0/8", &[]), None);
    world.assign(0, 1, "www.example.com", &PROXIES);
    world.gateway.reject(
        world.clients[0].id,
        connlib_model::ResourceId::from_u128(1),
        world.now,
    );
    world.resolve(Ok(&["10.0.0.1"]));
    assert_eq!(world.status(0), Some(NatStatus::Inactive));
}

#[test]
fn addresses_that_are_no_proxies_are_inactive() {
    let mut world = named();
    world.assign(0, 1, "www.example.com", &["100.96.0.1", "10.0.0.1"]);
    world.resolve(Ok(&["10.0.0.9"]));
    assert_eq!(world.status(0), Some(NatStatus::Inactive));
}

#[test]
fn tunnel_40_malformed_and_misdirected_control_packets_are_ignored() {
    let mut world = named();
    let status =
        br#"{"resource":"6d1f0a52-8c3e-4b7a-9f10-2c5e7d9b4a01","domain":"a.b","status":"Active"}"#;
    for (event, payload) in [
        (0, &b"{"[..]),
        (0, b""),
        (1, status),
        (77, b"x"),
        (0, &[0xff; 1000]),
    ] {
        world.up(0, &make::control_packet(event, payload).unwrap());
    }
    assert!(world.at_site().is_empty() && world.at_client(0).is_empty());
    assert_eq!(world.status(0), None);
    assert!(world.gateway.path(world.clients[0].id).is_some());
}

#[test]
fn two_resources_share_a_domain_and_each_permits_its_own() {
    let mut world = World::connected(dns(1, "www.example.com", &[Filter::Udp(53..=53)]));
    world.authorize(0, dns(2, "*.example.com", &[Filter::Udp(123..=123)]), None);
    for resource in [1, 2] {
        world.assign(0, resource, "www.example.com", &PROXIES);
        world.resolve(Ok(&["10.0.0.1"]));
    }
    for (port, arrives) in [(53, 1), (123, 1), (80, 0)] {
        let packet = world.clients[0].udp_to(&format!("100.96.0.1:{port}"), b"12345678");
        world.up(0, &packet);
        assert_eq!(world.at_site().len(), arrives, "{port}");
    }
}
