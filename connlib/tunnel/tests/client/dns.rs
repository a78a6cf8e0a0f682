//! The stub resolver (tunnel 13–31).

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use connlib_dns::{DnsTransport, RecursiveError, RecursiveResponse};
use connlib_model::{Filter, IpStack};
use ip_packet::make::{self, Unreachable};
use ip_packet::{IpPacket, TcpFlags};

use crate::logs::loud;
use crate::query::{
    A, AAAA, Answer, HTTPS, MX, NOERROR, NXDOMAIN, PTR, SERVFAIL, SRV, SVCB, TXT, query, response,
    to_server,
};
use crate::world::{
    UPSTREAM, World, cidr, cidr_with, dns, dns_with, gateway_v4, internet, own, udp_to,
};

const QUAD1: SocketAddr = SocketAddr::new(IpAddr::V4(std::net::Ipv4Addr::new(1, 1, 1, 1)), 53);

#[test]
fn tunnel_13_system_resolvers_apply_when_the_interface_arrives() {
    let mut world = World::bare(0);
    world
        .client
        .set_system_resolvers(vec![QUAD1.ip()], world.now);
    world.drain();
    assert!(world.tun_configs.is_empty());
    world.set_interface(&[], None);
    assert_eq!(world.tun_configs.len(), 1);
    let of_system = world.sentinels();
    assert_eq!(of_system.len(), 1);
    assert_eq!(upstream_of_next_query(&mut world), QUAD1);

    world.set_interface(&[UPSTREAM], None);
    assert_ne!(world.sentinels(), of_system);
    assert_eq!(upstream_of_next_query(&mut world), UPSTREAM);
    world.set_interface(&[], None);
    assert_eq!(upstream_of_next_query(&mut world), QUAD1);
}

#[test]
fn tunnel_14_sentinels_are_no_servers() {
    let mut world = World::bare(0);
    let sentinels = vec![
        "100.100.111.1".parse().unwrap(),
        "fd00:2021:1111:8000:100:100:111:0".parse().unwrap(),
    ];
    world.client.set_system_resolvers(sentinels, world.now);
    world.set_interface(&[], None);
    assert!(world.sentinels().is_empty());
}

#[test]
fn tunnel_15_changed_servers_get_new_sentinels() {
    let mut world = World::new(0);
    let first = world.sentinels();
    world.set_interface(&[UPSTREAM, QUAD1], None);
    let second = world.sentinels();
    assert!(second.iter().all(|ip| !first.contains(ip)));
    let configs = world.tun_configs.len();
    world.set_interface(&[QUAD1, UPSTREAM], None);
    assert_eq!(world.tun_configs.len(), configs);
}

#[test]
fn tunnel_17_old_sentinel_is_silent() {
    let mut world = World::new(0);
    world.add(internet(1));
    let old = world.sentinels()[0];
    world.set_interface(&[QUAD1], None);
    world.send(&to_server(
        SocketAddr::new(old, 53),
        1,
        &query(1, "example.com", A),
    ));
    world.send(&udp_to(&format!("{old}:443"), 1));
    assert!(world.asked().is_empty() && world.recursive.is_empty() && world.tun.is_empty());
}

#[test]
fn tunnel_18_addresses_are_invented_once() {
    let mut world = World::new(0);
    world.add(dns(1, "example.com"));
    let v4 = ask(&mut world, "ExAmPlE.com", A);
    assert_eq!(v4.rcode, NOERROR);
    assert_eq!(v4.counts, [1, 4, 0, 0]);
    assert_eq!(v4.addresses[0].to_string(), "100.96.0.1");
    assert_eq!(v4.addresses[3].to_string(), "100.96.0.4");
    let v6 = ask(&mut world, "example.com", AAAA);
    assert_eq!(v6.addresses[0].to_string(), "fd00:2021:1111:8000::");

    world.roam();
    world.disable(&[1]);
    world.disable(&[]);
    assert_eq!(ask(&mut world, "example.com", A).addresses, v4.addresses);
    // What a new connection to the portal brings.
    world.set_interface(&[UPSTREAM], None);
    world.set_resources(&[dns(1, "example.com")]);
    assert_eq!(ask(&mut world, "example.com", A).addresses, v4.addresses);
    assert_eq!(ask(&mut world, "example.com", AAAA).addresses, v6.addresses);
}

#[test]
fn tunnel_19_other_types() {
    let mut world = World::new(0);
    world.add(dns(1, "*.example.com"));
    for qtype in [HTTPS, SVCB] {
        let answer = ask(&mut world, "www.example.com", qtype);
        assert_eq!((answer.rcode, answer.counts), (NOERROR, [1, 0, 0, 0]));
    }
    assert!(is_recursed(&mut world, "www.example.com", MX));
    assert!(is_recursed(&mut world, "example.org", A));
    assert!(is_recursed(&mut world, "1.0.96.100.in-addr.arpa", PTR));

    ask(&mut world, "www.example.com", A);
    let answer = ask(&mut world, "1.0.96.100.in-addr.arpa", PTR);
    assert_eq!((answer.rcode, answer.counts[1]), (NOERROR, 1));
    for foreign in [
        "8.8.8.8.in-addr.arpa",
        "9.0.96.100.in-addr.arpa",
        "x.in-addr.arpa",
        "ip6.arpa",
    ] {
        assert!(is_recursed(&mut world, foreign, PTR), "{foreign}");
    }
}

#[test]
fn tunnel_20_canary_does_not_exist() {
    let mut world = World::new(0);
    for qtype in [A, AAAA, TXT, HTTPS] {
        let answer = ask(&mut world, "use-application-DNS.net", qtype);
        assert_eq!((answer.rcode, answer.counts[1]), (NXDOMAIN, 0));
    }
    assert!(world.recursive.is_empty());
}

#[test]
fn tunnel_21_odd_messages() {
    let mut world = World::new(0);
    let mut two_questions = query(1, "example.com", A);
    two_questions[5] = 2;
    let mut none = query(2, "example.com", A);
    none[5] = 0;
    for message in [two_questions, none] {
        send_query(&mut world, 9, &message);
        let answer = world.tun.pop().expect("an answer");
        assert_eq!(Answer::of_packet(&answer).rcode, SERVFAIL);
    }
    let a_response = response(&query(3, "example.com", A), 0);
    for message in [&a_response[..], &[], &[1, 2, 3], &[0xff; 40]] {
        send_query(&mut world, 9, message);
        assert!(
            world.tun.is_empty()
                || world
                    .tun
                    .drain(..)
                    .all(|p| Answer::of_packet(&p).rcode == SERVFAIL)
        );
    }
    assert!(world.recursive.is_empty());
}

#[test]
fn tunnel_22_system_resolver_inside_a_network_stays_on_the_host() {
    let mut world = World::bare(0);
    world
        .client
        .set_system_resolvers(vec![UPSTREAM.ip()], world.now);
    world.set_interface(&[], None);
    world.add(cidr(1, "9.9.9.0/24"));
    assert!(is_recursed(&mut world, "example.org", A));
}

#[test]
fn tunnel_22_portal_upstream_inside_a_network_is_tunnelled() {
    let mut world = tunnelled();
    let message = query(0x1234, "example.org", A);
    send_query(&mut world, 5555, &message);
    world.settle();
    let seen = world.received(0).remove(0);
    assert_eq!(seen.source(), own(UPSTREAM.ip()));
    assert_eq!(seen.destination(), UPSTREAM.ip());
    answer_upstream(&mut world, &seen, &[]);

    let answer = world.tun.remove(0);
    assert_eq!(answer.source(), world.sentinels()[0]);
    let udp = answer.as_udp().unwrap();
    assert_eq!((udp.source_port(), udp.destination_port()), (53, 5555));
    assert_eq!(Answer::of_packet(&answer).id, 0x1234);
}

#[test]
fn tunnel_23_equal_ids_of_different_askers() {
    let mut world = tunnelled();
    for port in [5001, 5002] {
        send_query(
            &mut world,
            port,
            &query(7, &format!("p{port}.example.org"), A),
        );
    }
    world.settle();
    let seen = world.received(0);
    for packet in seen.iter().rev() {
        answer_upstream(&mut world, packet, &[]);
    }
    let ports = |packet: &IpPacket| {
        (
            packet.as_udp().unwrap().destination_port(),
            Answer::of_packet(packet).id,
        )
    };
    assert_eq!(
        world.tun.iter().map(ports).collect::<Vec<_>>(),
        [(5002, 7), (5001, 7)]
    );
}

#[test]
fn tunnel_24_first_tunnelled_query_is_answered_without_retry() {
    let mut world = World::new(1);
    world.add(cidr(1, "9.9.9.0/24"));
    send_query(&mut world, 5555, &query(1, "example.org", A));
    assert_eq!(world.asked(), [1]);
    world.grant(1, 0).unwrap();
    world.run_for(Duration::from_secs(2));
    let seen = world.received(0);
    assert_eq!(seen.len(), 1);
    answer_upstream(&mut world, &seen[0], &[]);
    assert_eq!(world.tun.len(), 1);
}

#[test]
fn tunnel_25_late_answer_and_icmp_error() {
    for seconds in [11, 61] {
        for is_error in [false, true] {
            let mut world = tunnelled();
            send_query(&mut world, 5555, &query(1, "example.org", A));
            world.settle();
            let seen = world.received(0).remove(0);
            world.run_for(Duration::from_secs(seconds));
            assert_eq!(Answer::of_packet(&world.tun.remove(0)).rcode, SERVFAIL);
            match is_error {
                false => answer_upstream(&mut world, &seen, &[]),
                true => refuse_upstream(&mut world, &seen),
            }
            assert!(world.tun.is_empty(), "after {seconds} s, error {is_error}");
        }
    }

    let mut world = tunnelled();
    send_query(&mut world, 5556, &query(2, "example.org", A));
    world.settle();
    let seen = world.received(0).remove(0);
    refuse_upstream(&mut world, &seen);
    assert_eq!(world.tun.len(), 1, "an answer, and no ICMP error beside it");
    assert_eq!(Answer::of_packet(&world.tun[0]).rcode, SERVFAIL);
    answer_upstream(&mut world, &seen, &[]);
    assert_eq!(world.tun.len(), 1, "nor the answer that comes later");
}

#[test]
fn tunnel_25_upstream_of_ipv6() {
    let mut world = World::bare(1);
    world.set_interface(&["[2620:fe::fe]:53".parse().unwrap()], None);
    world.give_relay();
    world.add(cidr(1, "2620:fe::/48"));
    world.connect(1, 0, &udp_to("[2620:fe::1]:1", 0));
    world.received(0);
    for (port, late) in [(5555, true), (5556, false)] {
        send_query(&mut world, port, &query(1, "example.org", A));
        world.settle();
        let seen = world.received(0).remove(0);
        if late {
            world.run_for(Duration::from_secs(61));
        }
        refuse_upstream(&mut world, &seen);
        answer_upstream(&mut world, &seen, &[]);
        assert_eq!(world.tun.len(), 1, "late {late}");
        assert_eq!(Answer::of_packet(&world.tun.remove(0)).rcode, SERVFAIL);
    }
}

#[test]
fn upstream_refused_by_the_filter_fails_at_once() {
    let mut world = World::new(1);
    world.add(cidr_with(1, "9.9.9.0/24", vec![Filter::Tcp(80..=80)]));
    send_query(&mut world, 5555, &query(1, "example.org", A));
    assert!(world.asked().is_empty());
    assert_eq!(Answer::of_packet(&world.tun.remove(0)).rcode, SERVFAIL);
    assert!(
        world.tun.is_empty(),
        "the application sees no ICMP error for a packet that it did not send"
    );
}

#[test]
fn tunnel_26_long_answer_is_truncated() {
    let mut world = World::new(0);
    let message = query(1, "example.org", TXT);
    send_query(&mut world, 5555, &message);
    answer_host(&mut world, Ok(response(&message, 4096)));
    let packet = world.tun.remove(0);
    let payload = packet.as_udp().unwrap().payload();
    assert!(payload.len() <= 1212);
    let answer = Answer::of(payload);
    assert!(answer.is_truncated);
    assert_eq!(answer.counts, [1, 0, 0, 0]);
}

#[test]
fn tunnel_26_the_same_answer_over_tcp_is_complete() {
    let mut world = World::new(0);
    let message = query(1, "example.org", TXT);
    let mut tcp = Tcp::open(&mut world, 6000);
    tcp.send(&mut world, &message);
    world.run_for(Duration::from_millis(100));
    let whole = response(&message, 4096);
    answer_host(&mut world, Ok(whole.clone()));
    assert!(whole.len() > 1212);
    assert_eq!(tcp.receive_all(&mut world, whole.len()), whole);
}

#[test]
fn tunnel_27_query_over_tcp_is_answered_locally() {
    let mut world = World::new(0);
    world.add(dns(1, "example.com"));
    let mut tcp = Tcp::open(&mut world, 6000);
    let answers = tcp.ask(&mut world, &query(3, "example.com", A));
    assert_eq!(Answer::of(&answers).addresses.len(), 4);
}

#[test]
fn tunnel_27_late_answer_after_a_change_of_sentinels_is_ignored() {
    let mut world = World::new(0);
    let mut tcp = Tcp::open(&mut world, 6000);
    tcp.send(&mut world, &query(3, "example.org", A));
    world.run_for(Duration::from_millis(100));
    send_query(&mut world, 7000, &query(4, "example.org", A));
    assert_eq!(world.recursive.len(), 2);
    world.set_interface(&[QUAD1], None);
    world.tun.clear();
    while !world.recursive.is_empty() {
        answer_host(&mut world, Ok(response(&query(3, "example.org", A), 0)));
    }
    assert!(world.tun.iter().all(|packet| packet.as_udp().is_none()));
}

#[test]
fn tunnel_28_tunnelled_query_over_tcp_fails_when_the_routes_change() {
    let mut world = tunnelled();
    let mut tcp = Tcp::open(&mut world, 6000);
    tcp.send(&mut world, &query(3, "example.org", A));
    world.run_for(Duration::from_millis(100));
    let seen = world.received(0);
    assert_eq!(seen[0].destination(), UPSTREAM.ip());
    assert!(seen[0].as_tcp().expect("a TCP segment").is_initial_syn());

    world.tun.clear();
    world.add(cidr(2, "172.16.0.0/12"));
    assert_eq!(Answer::of(&tcp.receive(&mut world)).rcode, SERVFAIL);
}

#[test]
fn tunnel_28_failures_of_the_host() {
    let failures = [
        (DnsTransport::Udp, RecursiveError::TimedOut, None),
        (
            DnsTransport::Udp,
            RecursiveError::Io("no route".to_owned()),
            Some(SERVFAIL),
        ),
        (DnsTransport::Tcp, RecursiveError::TimedOut, Some(SERVFAIL)),
        (
            DnsTransport::Tcp,
            RecursiveError::ConnectionFailed,
            Some(SERVFAIL),
        ),
    ];
    for (transport, error, expected) in failures {
        let mut world = World::new(0);
        let message = query(1, "example.org", A);
        let seen = match transport {
            DnsTransport::Udp => {
                send_query(&mut world, 5555, &message);
                answer_host(&mut world, Err(error));
                world
                    .tun
                    .first()
                    .map(|packet| packet.as_udp().unwrap().payload().to_vec())
            }
            DnsTransport::Tcp => {
                let mut tcp = Tcp::open(&mut world, 6000);
                tcp.send(&mut world, &message);
                world.run_for(Duration::from_millis(100));
                answer_host(&mut world, Err(error));
                Some(tcp.receive(&mut world))
            }
        };
        assert_eq!(seen.map(|message| Answer::of(&message).rcode), expected);
    }
}

// tunnel 68
#[test]
fn tunnel_28_reset_fails_a_tunnelled_look_up_over_tcp() {
    let mut world = tunnelled();
    let mut tcp = Tcp::open(&mut world, 6000);
    tcp.send(&mut world, &query(3, "example.org", A));
    world.run_for(Duration::from_millis(100));
    world.received(0);

    world.tun.clear();
    world.roam();
    world.roam();
    assert_eq!(Answer::of(&tcp.receive(&mut world)).rcode, SERVFAIL);
}

// tunnel 68
#[test]
fn tunnel_28_reset_forgets_look_ups_of_the_host_and_fails_those_of_the_tunnel() {
    let mut world = World::new(0);
    send_query(&mut world, 5555, &query(1, "example.org", A));
    world.roam();
    answer_host(&mut world, Ok(response(&query(1, "example.org", A), 0)));
    assert!(world.tun.is_empty());

    let mut world = tunnelled();
    send_query(&mut world, 5555, &query(1, "example.org", A));
    world.roam();
    assert_eq!(Answer::of_packet(&world.tun.remove(0)).rcode, SERVFAIL);
}

#[test]
fn tunnel_29_other_packets_to_a_sentinel_are_dropped() {
    let mut world = World::bare(0);
    world.set_interface(&[UPSTREAM, "[2620:fe::fe]:53".parse().unwrap()], None);
    world.give_relay();
    world.add(internet(1));
    let sentinels = world.sentinels();
    assert!(sentinels[0].is_ipv4() && sentinels[1].is_ipv6());
    for sentinel in sentinels {
        let server = |port| SocketAddr::new(sentinel, port);
        let ping = make::icmp_echo_request(own(sentinel), sentinel, 1, 1, &[]).unwrap();
        let https = make::tcp_packet(
            SocketAddr::new(own(sentinel), 1),
            server(443),
            make::TcpHeader {
                flags: TcpFlags::SYN,
                ..make::TcpHeader::default()
            },
            &[],
        )
        .unwrap();
        for packet in [ping, https, udp_to(&server(123).to_string(), 1)] {
            assert_eq!(loud(|| world.send(&packet)), [], "{packet:?}");
        }
    }
    assert!(world.tun.is_empty() && world.asked().is_empty() && world.recursive.is_empty());
}

#[test]
fn tunnel_30_srv_and_txt_are_asked_in_the_site() {
    for qtype in [SRV, TXT] {
        let mut world = World::new(1);
        world.add(dns(1, "**.example.com"));
        let message = query(5, "_ldap._tcp.example.com", qtype);
        send_query(&mut world, 5555, &message);
        assert_eq!(world.asked(), [1]);
        assert!(world.recursive.is_empty());
        world.grant(1, 0).unwrap();
        world.run_for(Duration::from_secs(2));

        let seen = world.received(0).remove(0);
        assert_eq!(seen.destination(), IpAddr::V4(gateway_v4(0)));
        assert_eq!(seen.as_udp().unwrap().destination_port(), 53535);
        answer_upstream(&mut world, &seen, &[]);
        let answer = world.tun.remove(0);
        assert_eq!(answer.source(), world.sentinels()[0]);
        assert_eq!(Answer::of_packet(&answer).id, 5);

        // Authorized by now: no detour.
        send_query(&mut world, 5556, &message);
        world.settle();
        assert_eq!(world.received(0).len(), 1);
        assert_eq!(world.asked(), [1]);
    }
}

// tunnel 86: portals of early 2025 do not tell the gateway's addresses.
#[test]
fn tunnel_30_gateway_without_known_address_leaves_the_query_to_the_upstream() {
    let mut world = World::new(1);
    world.add(dns(1, "*.example.com"));
    send_query(&mut world, 5555, &query(5, "a.example.com", TXT));
    let mut flow = world.flow(1, 0, connlib_model::SiteId::from_u128(1));
    (flow.gateway_ipv4, flow.gateway_ipv6) = (None, None);
    let now = world.now;
    world.client.handle_flow_created(flow, now).unwrap();
    world.drain();
    assert_eq!(world.recursive.len(), 1);
    assert_eq!(world.recursive[0].upstream, UPSTREAM);
}

#[test]
fn tunnel_30_held_queries_fail_when_the_resource_goes() {
    let mut world = World::new(1);
    world.add(dns(1, "*.example.com"));
    send_query(&mut world, 5555, &query(5, "a.example.com", TXT));
    world.remove(1);
    assert_eq!(Answer::of_packet(&world.tun.remove(0)).rcode, SERVFAIL);
}

#[test]
fn tunnel_31_restricted_stack_answers_the_other_family_empty() {
    let mut world = World::new(1);
    world.add(dns_with(1, "example.com", vec![], IpStack::Ipv4Only));
    assert_eq!(ask(&mut world, "example.com", A).addresses.len(), 4);
    let empty = ask(&mut world, "example.com", AAAA);
    assert_eq!((empty.rcode, empty.counts), (NOERROR, [1, 0, 0, 0]));

    world.add(dns_with(1, "example.com", vec![], IpStack::Ipv6Only));
    assert_eq!(ask(&mut world, "example.com", A).addresses.len(), 0);
    let v6 = ask(&mut world, "example.com", AAAA).addresses;
    assert_eq!(v6.len(), 4);

    world.connect(1, 0, &udp_to(&format!("[{}]:80", v6[0]), 1));
    let assigned = &world.gateways[0].assigned[0].1;
    assert_eq!(assigned.proxy_ips, v6);
}

#[test]
fn link_local_queries_are_answered_for_resources_only() {
    let mut world = World::new(0);
    world.add(dns(1, "nas"));
    let group = "224.0.0.252:5355".parse().unwrap();
    for name in ["printer", "use-application-dns.net"] {
        world.send(&to_server(group, 5555, &query(1, name, A)));
    }
    assert!(world.tun.is_empty() && world.recursive.is_empty());

    world.send(&to_server(group, 5555, &query(2, "nas", A)));
    let answer = world.tun.remove(0);
    assert_eq!(answer.source(), world.sentinels()[0]);
    assert_eq!(answer.as_udp().unwrap().source_port(), 5355);
    assert_eq!(Answer::of_packet(&answer).addresses.len(), 4);
}

/// A world whose upstream lies in a network that is connected.
fn tunnelled() -> World {
    let mut world = World::new(1);
    world.add(cidr(1, "9.9.9.0/24"));
    world.connect(1, 0, &udp_to("9.9.9.1:1", 0));
    world.received(0);

    world
}

/// Sends a query to the first sentinel.
fn send_query(world: &mut World, port: u16, message: &[u8]) {
    let sentinel = SocketAddr::new(world.sentinels()[0], 53);
    world.send(&to_server(sentinel, port, message));
}

/// A query that is answered locally.
pub fn ask(world: &mut World, name: &str, qtype: u16) -> Answer {
    world.tun.clear();
    send_query(world, 5353, &query(42, name, qtype));
    let packet = world.tun.pop().expect("a local answer");
    assert!(packet.has_valid_checksums());
    let answer = Answer::of_packet(&packet);
    assert_eq!(answer.id, 42);
    assert_eq!(
        packet.as_udp().unwrap().payload()[2..4].first(),
        Some(&0x81),
        "QR and RD"
    );
    assert_eq!(packet.as_udp().unwrap().payload()[3] & 0x80, 0x80, "RA");

    answer
}

fn is_recursed(world: &mut World, name: &str, qtype: u16) -> bool {
    world.recursive.clear();
    send_query(world, 5353, &query(43, name, qtype));

    world.recursive.len() == 1 && world.recursive[0].message == query(43, name, qtype)
}

fn upstream_of_next_query(world: &mut World) -> SocketAddr {
    assert!(is_recursed(world, "example.org", A));

    world.recursive[0].upstream
}

/// The host's sockets have a result for the oldest look-up.
fn answer_host(world: &mut World, result: Result<Vec<u8>, RecursiveError>) {
    let query = world.recursive.pop_front().expect("a look-up");
    let response = RecursiveResponse {
        id: query.id,
        result,
    };
    let now = world.now;
    world.client.handle_recursive_response(response, now);
    world.drain();
}

/// The server that got `seen` through the tunnel answers.
fn answer_upstream(world: &mut World, seen: &IpPacket, extra: &[u8]) {
    let udp = seen.as_udp().expect("a UDP query");
    let mut message = response(udp.payload(), 0);
    message.extend_from_slice(extra);
    let packet = make::udp_packet(
        SocketAddr::new(seen.destination(), udp.destination_port()),
        SocketAddr::new(seen.source(), udp.source_port()),
        &message,
    )
    .unwrap();
    world.reply(0, &packet);
}

/// A router on the way says that the query's server cannot be reached.
fn refuse_upstream(world: &mut World, seen: &IpPacket) {
    let error = make::icmp_unreachable(seen.view(), Unreachable::Network).unwrap();
    world.reply(0, &error);
}

/// The application's end of a TCP connection to the first sentinel; no loss, no reordering.
struct Tcp {
    local: SocketAddr,
    remote: SocketAddr,
    sequence: u32,
    acknowledged: u32,
}

impl Tcp {
    fn open(world: &mut World, port: u16) -> Self {
        world.tun.clear();
        let remote = SocketAddr::new(world.sentinels()[0], 53);
        let mut tcp = Self {
            local: SocketAddr::new(own(remote.ip()), port),
            remote,
            sequence: 1000,
            acknowledged: 0,
        };
        tcp.segment(world, TcpFlags::SYN, &[]);
        world.run_for(Duration::from_millis(10));
        let reply = world.tun.remove(0);
        let header = reply.as_tcp().expect("a TCP segment");
        assert!(header.flags().contains(TcpFlags::SYN | TcpFlags::ACK));
        tcp.acknowledged = header.sequence().wrapping_add(1);
        tcp.sequence += 1;
        tcp.segment(world, TcpFlags::ACK, &[]);
        world.tun.clear();

        tcp
    }

    fn ask(&mut self, world: &mut World, message: &[u8]) -> Vec<u8> {
        self.send(world, message);

        self.receive(world)
    }

    fn send(&mut self, world: &mut World, message: &[u8]) {
        let mut bytes = (message.len() as u16).to_be_bytes().to_vec();
        bytes.extend_from_slice(message);
        self.segment(world, TcpFlags::ACK | TcpFlags::PSH, &bytes);
        self.sequence += bytes.len() as u32;
    }

    fn receive(&mut self, world: &mut World) -> Vec<u8> {
        world.run_for(Duration::from_millis(50));
        let stream = world
            .tun
            .drain(..)
            .filter_map(|packet| Some(packet.as_tcp()?.payload().to_vec()))
            .collect::<Vec<_>>()
            .concat();
        let len = usize::from(u16::from_be_bytes([stream[0], stream[1]]));

        stream[2..2 + len].to_vec()
    }

    /// A message that fills several segments, which are acknowledged one by one.
    fn receive_all(&mut self, world: &mut World, len: usize) -> Vec<u8> {
        let mut stream = Vec::new();
        for _ in 0..20 {
            world.run_for(Duration::from_millis(50));
            for packet in std::mem::take(&mut world.tun) {
                let segment = packet.as_tcp().expect("a TCP segment");
                if segment.sequence() == self.acknowledged {
                    self.acknowledged += segment.payload().len() as u32;
                    stream.extend_from_slice(segment.payload());
                }
            }
            self.segment(world, TcpFlags::ACK, &[]);
        }
        assert_eq!(stream[..2], (len as u16).to_be_bytes());

        stream[2..].to_vec()
    }

    fn segment(&self, world: &mut World, flags: TcpFlags, payload: &[u8]) {
        let header = make::TcpHeader {
            sequence: self.sequence,
            acknowledgement: self.acknowledged,
            flags,
            window: 60_000,
            options: &[],
        };
        let packet = make::tcp_packet(self.local, self.remote, header, payload).unwrap();
        world.send(&packet);
    }
}
