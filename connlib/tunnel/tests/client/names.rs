//! DNS resources and the set-up of their translation (tunnel 4, 8, 41–44, 86).

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use connlib_model::{Filter, IpStack, ResourceId};
use connlib_tunnel::NatStatus;
use ip_packet::{IpPacket, make};

use crate::dns::ask;
use crate::query::{A, HTTPS};
use crate::world::{CLIENT_V4, World, cidr, dns, dns_with, internet, payloads, udp_to};

#[test]
fn tunnel_4_exact_name_beats_the_wildcard_in_any_order() {
    for (exact, wildcard) in [(1, 2), (2, 1)] {
        let mut world = World::new(2);
        world.set_resources(&[
            dns(exact, "foo.example.com"),
            dns(wildcard, "*.example.com"),
        ]);
        let foo = resolve(&mut world, "foo.example.com");
        let bar = resolve(&mut world, "bar.example.com");
        world.send(&udp_to(&foo, 1));
        world.send(&udp_to(&bar, 2));
        assert_eq!(world.asked(), [exact, wildcard]);
    }
}

#[test]
fn tunnel_4_packets_reach_the_gateway_of_the_more_specific_pattern() {
    for (exact, wildcard) in [(1, 2), (2, 1)] {
        let mut world = World::new(2);
        world.set_resources(&[
            dns(wildcard, "*.example.com"),
            dns(exact, "foo.example.com"),
        ]);
        let foo = resolve(&mut world, "foo.example.com");
        let bar = resolve(&mut world, "bar.example.com");
        world.connect(exact, 0, &udp_to(&foo, 1));
        world.connect(wildcard, 1, &udp_to(&bar, 2));
        world.send(&udp_to(&foo, 3));
        world.settle();

        assert_eq!(payloads(&world.received(0)), [1, 3]);
        assert_eq!(payloads(&world.received(1)), [2]);
    }
}

#[test]
fn tunnel_8_proxy_ip_beats_networks_and_leads_nowhere_without_its_resource() {
    let mut world = World::new(1);
    world.set_resources(&[dns(1, "example.com"), cidr(2, "0.0.0.0/1"), internet(3)]);
    let proxy = resolve(&mut world, "example.com");
    world.send(&udp_to(&proxy, 1));
    assert_eq!(world.asked(), [1]);
    world.disable(&[1]);
    world.send(&udp_to(&proxy, 2));
    world.run_for(Duration::from_secs(3));
    world.send(&udp_to(&proxy, 3));
    assert_eq!(world.asked(), [1]);
    world.disable(&[]);
    world.send(&udp_to(&proxy, 4));
    assert_eq!(world.asked(), [1, 1]);
}

#[test]
fn tunnel_41_packets_wait_for_the_gateway() {
    let mut world = World::new(1);
    world.add(dns(1, "example.com"));
    let proxy = resolve(&mut world, "example.com");
    world.gateways[0].answers = None;
    world.connect(1, 0, &udp_to(&proxy, 0));
    for i in 1..40 {
        world.send(&udp_to(&proxy, i));
    }
    world.settle();
    assert!(world.received(0).is_empty());

    say(&mut world, "example.com", NatStatus::Active);
    assert_eq!(payloads(&world.received(0)), (8..40).collect::<Vec<_>>());
    world.send(&udp_to(&proxy, 40));
    world.settle();
    assert_eq!(payloads(&world.received(0)), [40]);
}

#[test]
fn tunnel_41_lost_messages_are_repeated_by_traffic() {
    let mut world = World::new(1);
    world.add(dns(1, "example.com"));
    let proxy = resolve(&mut world, "example.com");
    world.gateways[0].answers = None;
    world.connect(1, 0, &udp_to(&proxy, 0));
    assert_eq!(world.gateways[0].assigned.len(), 1);
    world.run_for(Duration::from_secs(10));
    assert_eq!(
        world.gateways[0].assigned.len(),
        1,
        "without traffic nobody waits"
    );

    world.gateways[0].answers = Some(NatStatus::Active);
    world.send(&udp_to(&proxy, 1));
    world.settle();
    world.settle();
    assert_eq!(world.gateways[0].assigned.len(), 2);
    assert_eq!(payloads(&world.received(0)), [0, 1]);
}

#[test]
fn assigned_ips_name_resource_domain_and_all_addresses() {
    let mut world = World::new(1);
    world.add(dns(1, "*.example.com"));
    let proxy = resolve(&mut world, "WWW.example.com");
    world.connect(1, 0, &udp_to(&proxy, 0));
    let assigned = &world.gateways[0].assigned[0].1;
    assert_eq!(assigned.resource, ResourceId::from_u128(1));
    assert_eq!(assigned.domain.as_str(), "www.example.com");
    assert_eq!(assigned.proxy_ips.len(), 8);
    assert!(assigned.proxy_ips[..4].iter().all(IpAddr::is_ipv4));
}

#[test]
fn tunnel_42_query_while_confirmed_refreshes_without_a_stall() {
    let mut world = World::new(1);
    world.add(dns(1, "example.com"));
    let proxy = resolve(&mut world, "example.com");
    world.connect(1, 0, &udp_to(&proxy, 0));
    world.received(0);
    world.gateways[0].answers = None;
    world.run_for(Duration::from_secs(5));

    assert_eq!(resolve(&mut world, "example.com"), proxy);
    world.send(&udp_to(&proxy, 1));
    world.settle();
    assert_eq!(world.gateways[0].assigned.len(), 2);
    assert_eq!(payloads(&world.received(0)), [1]);
    say(&mut world, "example.com", NatStatus::Active);
    world.send(&udp_to(&proxy, 2));
    world.settle();
    assert_eq!(payloads(&world.received(0)), [2]);
}

// tunnel 86: a gateway of early 2025 says inactive when a look-up fails.
#[test]
fn tunnel_43_inactive_is_retried_by_its_own_query_only() {
    let mut world = World::new(1);
    world.add(dns(1, "*.example.com"));
    let proxy = resolve(&mut world, "a.example.com");
    world.gateways[0].answers = Some(NatStatus::Inactive);
    world.connect(1, 0, &udp_to(&proxy, 0));
    assert_eq!(world.gateways[0].assigned.len(), 1);
    world.run_for(Duration::from_secs(5));

    resolve(&mut world, "b.example.com");
    world.send(&udp_to(&proxy, 1));
    world.settle();
    let of_a = |world: &World| {
        let all = world.gateways[0].assigned.iter();
        all.filter(|(_, event)| event.domain.as_str() == "a.example.com")
            .count()
    };
    assert_eq!(of_a(&world), 1);
    assert_eq!(
        payloads(&world.received(0)),
        [1],
        "the gateway answers for itself"
    );

    ask(&mut world, "a.example.com", HTTPS);
    world.settle();
    assert_eq!(of_a(&world), 2);
}

#[test]
fn tunnel_44_resources_that_share_a_domain_are_set_up_separately() {
    let mut world = World::new(2);
    let web = vec![Filter::Udp(80..=80)];
    let api = vec![Filter::Udp(443..=443)];
    world.set_resources(&[
        dns_with(1, "example.com", web, IpStack::Dual),
        dns_with(2, "example.com", api, IpStack::Dual),
    ]);
    let proxy = resolve(&mut world, "example.com");
    let ip = proxy.parse::<SocketAddr>().unwrap().ip();
    world.connect(1, 0, &udp_to(&format!("{ip}:80"), 1));
    world.connect(2, 1, &udp_to(&format!("{ip}:443"), 2));

    for (gateway, resource, expected) in [(0, 1, 1), (1, 2, 2)] {
        let assigned = &world.gateways[gateway].assigned;
        assert_eq!(assigned.len(), 1);
        assert_eq!(assigned[0].1.resource, ResourceId::from_u128(resource));
        assert_eq!(payloads(&world.received(gateway)), [expected]);
    }
}

#[test]
fn domain_resolved_after_the_connection_is_announced_at_once() {
    let mut world = World::new(1);
    world.add(dns(1, "*.example.com"));
    let first = resolve(&mut world, "a.example.com");
    world.connect(1, 0, &udp_to(&first, 0));
    world.received(0);
    let second = resolve(&mut world, "b.example.com");
    world.send(&udp_to(&second, 1));
    world.settle();
    world.settle();
    assert_eq!(world.gateways[0].assigned.len(), 2);
    assert_eq!(payloads(&world.received(0)), [1]);
    assert_eq!(world.asked(), [1]);
}

#[test]
fn disabled_resource_is_set_up_anew() {
    let mut world = World::new(1);
    world.set_resources(&[dns(1, "example.com"), cidr(2, "10.0.0.0/8")]);
    let proxy = resolve(&mut world, "example.com");
    world.connect(1, 0, &udp_to(&proxy, 0));
    world.connect(2, 0, &udp_to("10.0.0.1:1", 1));
    world.received(0);

    world.disable(&[1]);
    world.reply(0, &from(&proxy));
    assert!(
        world
            .tun
            .iter()
            .all(|packet| packet.l4_payload() != b"hello"),
        "no source without its resource"
    );
    world.disable(&[]);
    world.send(&udp_to(&proxy, 2));
    assert_eq!(world.asked(), [1, 2, 1]);
    world.grant(1, 0).unwrap();
    world.settle();
    world.settle();
    assert_eq!(world.gateways[0].assigned.len(), 2);
    assert_eq!(payloads(&world.received(0)), [2]);
}

#[test]
fn reply_of_a_name_reaches_the_application() {
    let mut world = World::new(1);
    world.add(dns(1, "example.com"));
    let proxy = resolve(&mut world, "example.com");
    world.connect(1, 0, &udp_to(&proxy, 0));
    world.tun.clear();
    world.reply(0, &from(&proxy));
    assert_eq!(world.tun, [from(&proxy)]);
    world.reply(0, &from("100.96.0.77:80"));
    assert_eq!(world.tun.len(), 1);
}

#[test]
fn refused_port_of_a_name_is_answered_locally() {
    let mut world = World::new(1);
    world.add(dns_with(
        1,
        "example.com",
        vec![Filter::Tcp(443..=443)],
        IpStack::Dual,
    ));
    let proxy = resolve(&mut world, "example.com");
    world.tun.clear();
    world.send(&udp_to(&proxy, 1));
    assert!(world.asked().is_empty());
    assert!(
        world.tun[0]
            .icmp_error()
            .expect("an ICMP error")
            .kind()
            .is_prohibited()
    );
}

fn say(world: &mut World, domain: &str, status: NatStatus) {
    world.say_status(0, ResourceId::from_u128(1), domain.parse().unwrap(), status);
    world.settle();
    world.settle();
}

/// The first IPv4 address that stands for `name`, port 80.
fn resolve(world: &mut World, name: &str) -> String {
    let answer = ask(world, name, A);

    format!("{}:80", answer.addresses[0])
}

fn from(source: &str) -> IpPacket {
    make::udp_packet(
        source.parse().unwrap(),
        (CLIENT_V4, 40_000).into(),
        b"hello",
    )
    .unwrap()
}
