//! Access requests, connections and the data path (tunnel 32–39, 70, 78, 79; design row 41).

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use connlib_model::{ResourceId, ResourceStatus, SiteId};
use connlib_tunnel::segment::{ChecksumState, Coalescer, Coalescing, GsoKind, GsoMeta};
use connlib_tunnel::{FlowError, TunPacket, goodbye_packet};
use ip_packet::make::{self, Unreachable};
use ip_packet::{Ecn, IpPacket, TcpFlags};

use crate::world::{
    CLIENT_V4, CLIENT_V6, World, cidr, gateway_id, gateway_v4, internet, payloads, udp_to,
};

const HOST: &str = "10.0.0.1:80";

#[test]
fn tunnel_32_last_128_packets_arrive_in_order() {
    let mut world = with_network();
    for i in 0..200 {
        world.send(&udp_to(HOST, i));
    }
    assert_eq!(world.asked(), [1]);
    world.grant(1, 0).unwrap();
    world.run_for(Duration::from_secs(3));
    assert_eq!(payloads(&world.received(0)), (72..200).collect::<Vec<_>>());
}

#[test]
fn tunnel_32_asks_again_with_a_packet_after_two_seconds_only() {
    let mut world = with_network();
    world.send(&udp_to(HOST, 1));
    world.run_for(Duration::from_secs(60));
    assert_eq!(world.asked().len(), 1);
    world.send(&udp_to(HOST, 2));
    assert_eq!(world.asked().len(), 2);
    world.run_for(Duration::from_millis(1999));
    world.send(&udp_to(HOST, 3));
    assert_eq!(world.asked().len(), 2);
}

#[test]
fn tunnel_33_retransmitted_syn_arrives_once() {
    let mut world = with_network();
    for window in 1..=3 {
        world.send(&syn(window));
    }
    world.grant(1, 0).unwrap();
    world.run_for(Duration::from_secs(3));
    assert_eq!(world.received(0), [syn(3)]);
}

#[test]
fn tunnel_34_two_resources_of_a_site_share_the_connection() {
    let mut world = with_network();
    world.add(cidr(2, "192.168.0.0/16"));
    world.send(&udp_to(HOST, 1));
    world.send(&udp_to("192.168.0.1:80", 2));
    assert_eq!(world.asked(), [1, 2]);
    world.grant(1, 0).unwrap();
    world.grant(2, 0).unwrap();
    world.run_for(Duration::from_secs(3));
    assert_eq!(payloads(&world.received(0)), [1, 2]);
    assert_eq!(world.client.gateways().count(), 1);
}

#[test]
fn tunnel_35_answers_that_nobody_waits_for_are_ignored() {
    let mut world = with_network();
    assert_eq!(
        world.grant(9, 0),
        Err(FlowError::UnknownResource(ResourceId::from_u128(9)))
    );
    let nobody_waits = Err(FlowError::NoPendingIntent(ResourceId::from_u128(1)));
    assert_eq!(world.grant(1, 0), nobody_waits);
    world.send(&udp_to(HOST, 1));
    assert_eq!(world.grant(1, 0), Ok(()));
    assert_eq!(world.grant(1, 0), nobody_waits);
}

#[test]
fn tunnel_35_without_relay_the_packets_wait_and_a_later_one_asks() {
    let mut world = World::bare(1);
    world.set_interface(&[], None);
    world.add(cidr(1, "10.0.0.0/8"));
    world.send(&udp_to(HOST, 1));
    let flow = world.flow(1, 0, SiteId::from_u128(1));
    let now = world.now;
    assert_eq!(
        world.client.handle_flow_created(flow, now),
        Err(FlowError::NoRelays)
    );

    world.send(&udp_to(HOST, 2));
    assert_eq!(world.asked(), [1], "asked less than 2 s ago");
    world.run_for(Duration::from_secs(2));
    world.send(&udp_to(HOST, 3));
    assert_eq!(world.asked(), [1, 1]);
    world.grant(1, 0).unwrap();
    world.run_for(Duration::from_secs(3));
    assert_eq!(payloads(&world.received(0)), [1, 2, 3]);
}

#[test]
fn tunnel_37_resource_removed_while_access_is_awaited() {
    let mut world = with_network();
    world.send(&udp_to(HOST, 1));
    world.remove(1);
    assert!(world.grant(1, 0).is_err());
    world.run_for(Duration::from_secs(3));
    assert!(world.received(0).is_empty());
    assert_eq!(world.client.gateways().count(), 0);
}

#[test]
fn tunnel_38_gateways_of_this_session_are_preferred() {
    let mut world = World::new(2);
    world.set_resources(&[cidr(1, "10.0.0.0/8"), cidr(2, "192.168.0.0/16")]);
    world.connect(1, 0, &udp_to(HOST, 1));
    world.send(&udp_to("192.168.0.1:80", 2));
    assert_eq!(world.intents.last().unwrap().2, [gateway_id(0)]);
    world.grant(2, 1).unwrap();
    world.run_for(Duration::from_secs(3));

    // Roaming does not make the client forget.
    world.roam();
    world.send(&udp_to("192.168.0.1:80", 3));
    assert_eq!(
        world.intents.last().unwrap().2,
        [gateway_id(1), gateway_id(0)]
    );
}

#[test]
fn tunnel_39_resource_moves_to_another_gateway_while_connected() {
    let mut world = World::new(2);
    world.add(cidr(1, "10.0.0.0/8"));
    world.connect(1, 0, &udp_to(HOST, 1));
    prohibit(&mut world, 0);
    world.grant(1, 1).unwrap();
    world.run_for(Duration::from_secs(3));
    world.received(0);
    world.send(&udp_to(HOST, 2));
    world.settle();
    assert!(world.received(0).is_empty());
    assert_eq!(payloads(&world.received(1)), [2]);
    assert_eq!(world.gateways[0].goodbyes, 1);
}

#[test]
fn tunnel_70_failed_connection_unbinds_all_its_resources() {
    let mut world = with_network();
    world.add(cidr(2, "192.168.0.0/16"));
    world.connect(1, 0, &udp_to(HOST, 1));
    world.send(&udp_to("192.168.0.1:80", 2));
    world.grant(2, 0).unwrap();
    world.settle();
    world.received(0);

    world.unreachable.insert(0);
    world.run_for(Duration::from_secs(60));
    assert_eq!(world.status(1), ResourceStatus::Unknown);
    world.unreachable.clear();
    world.send(&udp_to(HOST, 3));
    world.send(&udp_to("192.168.0.1:80", 4));
    world.settle();
    assert_eq!(world.asked(), [1, 2, 1, 2]);
    assert!(world.received(0).is_empty());
}

#[test]
fn gateway_that_restarted_gets_nothing_for_resources_that_it_was_not_asked_about() {
    let mut world = with_network();
    world.add(cidr(2, "192.168.0.0/16"));
    world.connect(1, 0, &udp_to(HOST, 1));
    world.send(&udp_to("192.168.0.1:80", 2));
    world.grant(2, 0).unwrap();
    world.run_for(Duration::from_secs(1));

    world.restart_gateway(0);
    world
        .client
        .remove_resource(ResourceId::from_u128(2), world.now);
    world.add(cidr(2, "192.168.0.0/16"));
    world.send(&udp_to("192.168.0.1:80", 3));
    world.grant(2, 0).unwrap();
    world.run_for(Duration::from_secs(3));
    world.send(&udp_to(HOST, 4));
    world.settle();
    assert_eq!(payloads(&world.received(0)), [3]);
    assert_eq!(world.asked(), [1, 2, 2, 1]);
}

#[test]
fn tunnel_72_goodbye_of_the_gateway_ends_the_binding_at_once() {
    let mut world = with_network();
    world.connect(1, 0, &udp_to(HOST, 1));
    world.reply(0, &goodbye_packet());
    assert_eq!(world.status(1), ResourceStatus::Unknown);
    world.send(&udp_to(HOST, 2));
    assert_eq!(world.asked(), [1, 1]);
}

#[test]
fn tunnel_72_shutdown_says_goodbye() {
    let mut world = with_network();
    world.connect(1, 0, &udp_to(HOST, 1));
    world.client.shutdown(world.now);
    world.settle();
    assert_eq!(world.gateways[0].goodbyes, 1);
}

#[test]
fn tunnel_78_largest_packets_both_directions() {
    let mut world = with_network();
    world.connect(1, 0, &udp_to(HOST, 1));
    world.received(0);
    let there = make::udp_packet((CLIENT_V4, 1).into(), HOST.parse().unwrap(), &[7; 1252]).unwrap();
    assert_eq!(there.as_slice().len(), 1280);
    world.send(&there);
    world.settle();
    assert_eq!(world.received(0), [there]);

    let back = make::udp_packet(HOST.parse().unwrap(), (CLIENT_V4, 1).into(), &[8; 1252]).unwrap();
    world.reply(0, &back);
    assert_eq!(world.tun, [back]);
}

#[test]
fn tunnel_78_larger_datagram_is_dropped() {
    let mut world = with_network();
    let mut coalescer = Coalescer::new(Coalescing::OFF);
    for len in [0, 1317, 65_507] {
        let (local, from) = (
            "192.0.2.1:1".parse().unwrap(),
            "192.0.2.2:2".parse().unwrap(),
        );
        let now = world.now;
        world
            .client
            .handle_network(local, from, Ecn::NotEct, &vec![4; len], now, &mut coalescer);
    }
    assert!(coalescer.is_empty());
}

#[test]
fn tunnel_79_multicast_broadcast_and_foreign_sources_go_nowhere() {
    let mut world = World::new(0);
    world.add(internet(1));
    for destination in [
        "224.0.0.22:1",
        "224.0.0.251:5353",
        "239.255.255.250:1900",
        "255.255.255.255:67",
        "100.64.0.1:137",
        "[ff02::2]:1",
        "[ff02::fb]:5353",
        "0.0.0.0:1",
    ] {
        world.send(&udp_to(destination, 1));
    }
    for (protocol, group) in [(2, [224, 0, 0, 22]), (103, [224, 0, 0, 13])] {
        world.send(&of_protocol(protocol, group));
    }
    let report = make::icmpv6_message(
        CLIENT_V6.into(),
        "ff02::16".parse().unwrap(),
        1,
        (143, 0, [0; 4]),
        &[],
    );
    world.send(&report.unwrap());
    let foreign =
        make::udp_packet(([192, 168, 1, 7], 5).into(), ([1, 1, 1, 1], 53).into(), &[]).unwrap();
    world.send(&foreign);
    assert!(world.asked().is_empty());
    assert_eq!(world.client.stats().foreign_source, 1);
    assert_eq!(world.client.stats().not_unicast, 11);
    assert!(world.tun.is_empty());
}

#[test]
fn sources_that_the_gateway_does_not_serve_do_not_reach_the_device() {
    let mut world = with_network();
    world.connect(1, 0, &udp_to(HOST, 1));
    let mine = |source: &str| {
        make::udp_packet(source.parse().unwrap(), (CLIENT_V4, 9).into(), &[]).unwrap()
    };
    for source in [
        "192.168.0.1:1",
        "100.64.9.9:1",
        "100.96.0.1:1",
        "9.9.9.9:53",
    ] {
        world.reply(0, &mine(source));
    }
    let to_another =
        make::udp_packet(HOST.parse().unwrap(), ([100, 64, 0, 2], 9).into(), &[]).unwrap();
    world.reply(0, &to_another);
    assert!(world.tun.is_empty());
    assert_eq!(world.client.stats().spoofed, 5);

    world.reply(0, &mine("10.7.7.7:1"));
    world.reply(0, &mine(&format!("{}:1", gateway_v4(0))));
    assert_eq!(world.tun.len(), 2);
}

#[test]
fn address_of_a_connected_gateway_is_reached_directly() {
    let mut world = with_network();
    let packet = udp_to(&format!("{}:7", gateway_v4(0)), 2);
    world.send(&packet);
    assert!(world.asked().is_empty());
    world.connect(1, 0, &udp_to(HOST, 1));
    world.received(0);
    world.send(&packet);
    world.settle();
    assert_eq!(world.received(0), [packet]);
}

#[test]
fn congestion_on_the_way_is_told_to_the_receiver() {
    let mut world = with_network();
    world.connect(1, 0, &udp_to(HOST, 1));
    let mut packet = make::udp_packet(HOST.parse().unwrap(), (CLIENT_V4, 9).into(), &[]).unwrap();
    packet.view_mut().set_ecn(Ecn::Ce);
    world.reply(0, &packet);
    assert_eq!(world.tun[0].ecn(), Ecn::Ce);
    assert!(world.tun[0].has_valid_checksums());
}

// design row 41
#[test]
fn prohibition_by_the_gateway_asks_again_and_keeps_the_binding() {
    let mut world = with_network();
    world.connect(1, 0, &udp_to(HOST, 1));
    world.received(0);
    prohibit(&mut world, 0);
    prohibit(&mut world, 0);
    assert_eq!(world.asked(), [1, 1]);
    assert_eq!(world.tun.len(), 2, "the error is delivered as well");

    world.send(&udp_to(HOST, 2));
    world.settle();
    assert_eq!(payloads(&world.received(0)), [2]);

    world.run_for(Duration::from_secs(2));
    prohibit(&mut world, 0);
    assert_eq!(world.asked(), [1, 1, 1]);
    world.grant(1, 0).unwrap();
    world.send(&udp_to(HOST, 3));
    world.settle();
    assert_eq!(payloads(&world.received(0)), [3]);
}

#[test]
fn prohibition_by_a_gateway_that_does_not_serve_the_resource_is_mere_data() {
    let mut world = with_network();
    world.add(cidr(2, "192.168.0.0/16"));
    world.connect(1, 0, &udp_to(HOST, 1));
    let refused = udp_to("192.168.0.1:80", 1);
    let error = make::icmp_unreachable(refused.view(), Unreachable::Prohibited).unwrap();
    let IpAddr::V4(own) = refused.source() else {
        panic!("IPv4")
    };
    // From an address that the gateway may use.
    let icmp = error.icmp_error().unwrap();
    let error = make::icmpv4_message(
        "10.0.0.1".parse().unwrap(),
        own.into(),
        20,
        (3, 13, [0; 4]),
        icmp.embedded(),
    )
    .unwrap();
    world.reply(0, &error);
    assert_eq!(world.tun.len(), 1);
    assert_eq!(world.asked(), [1]);
}

#[test]
fn prohibition_of_a_packet_that_is_not_ours_is_mere_data() {
    let mut world = with_network();
    world.connect(1, 0, &udp_to(HOST, 1));
    let of_another =
        make::udp_packet(([100, 64, 0, 2], 5).into(), HOST.parse().unwrap(), &[0; 8]).unwrap();
    let message = (3, 13, [0; 4]);
    let host = "10.0.0.1".parse().unwrap();
    let error =
        make::icmpv4_message(host, CLIENT_V4.into(), 20, message, of_another.as_slice()).unwrap();
    world.reply(0, &error);
    assert_eq!(world.tun.len(), 1);
    assert_eq!(world.asked(), [1]);
}

#[test]
fn super_packet_arrives_as_its_segments_whether_it_waits_or_not() {
    let mut world = with_network();
    for round in [0u32, 10] {
        let payload = (round..round + 3)
            .flat_map(u32::to_be_bytes)
            .collect::<Vec<_>>();
        let packet =
            make::udp_packet((CLIENT_V4, 40_000).into(), HOST.parse().unwrap(), &payload).unwrap();
        let mut bytes = packet.as_slice().to_vec();
        world.inject(TunPacket {
            buf: &mut bytes,
            gso: GsoMeta {
                kind: GsoKind::Udp,
                segment_size: 4,
                checksum: ChecksumState::Complete,
            },
        });
        if round == 0 {
            world.grant(1, 0).unwrap();
            world.run_for(Duration::from_secs(3));
        }
        world.settle();
        let received = world.received(0);
        assert!(received.iter().all(IpPacket::has_valid_checksums));
        assert_eq!(payloads(&received), (round..round + 3).collect::<Vec<_>>());
    }
    assert_eq!(world.asked(), [1]);
}

#[test]
fn relays_in_use_are_those_of_connections() {
    let mut world = with_network();
    assert!(world.client.relays_in_use().is_empty());
    world.connect(1, 0, &udp_to(HOST, 1));
    assert_eq!(
        world.client.relays_in_use(),
        BTreeSet::from([crate::world::relay().id])
    );
}

#[test]
fn tunnel_71_packet_after_long_idleness_arrives() {
    for minutes in [6, 12] {
        let mut world = with_network();
        world.connect(1, 0, &udp_to(HOST, 1));
        world.received(0);
        world.run_for(Duration::from_secs(minutes * 60));
        world.send(&udp_to(HOST, 2));
        world.run_for(Duration::from_secs(1));
        assert_eq!(payloads(&world.received(0)), [2]);
        assert_eq!(world.asked(), [1]);
    }
}

/// An IPv4 packet of a protocol without ports, as group management (RFC 3376) and routing speak it.
fn of_protocol(protocol: u8, destination: [u8; 4]) -> IpPacket {
    let mut bytes = [0; 28];
    (bytes[0], bytes[3], bytes[8], bytes[9]) = (0x45, 28, 1, protocol);
    bytes[12..16].copy_from_slice(&CLIENT_V4.octets());
    bytes[16..20].copy_from_slice(&destination);

    IpPacket::from_slice(&bytes).unwrap()
}

/// The gateway refuses a packet to [`HOST`].
fn prohibit(world: &mut World, gateway: usize) {
    let refused = udp_to(HOST, 1);
    let error = make::icmp_unreachable(refused.view(), Unreachable::Prohibited).unwrap();
    world.reply(gateway, &error);
}

fn with_network() -> World {
    let mut world = World::new(1);
    world.add(cidr(1, "10.0.0.0/8"));

    world
}

fn syn(window: u16) -> IpPacket {
    let header = make::TcpHeader {
        flags: TcpFlags::SYN,
        sequence: 77,
        window,
        ..make::TcpHeader::default()
    };

    make::tcp_packet(
        (CLIENT_V4, 40_000).into(),
        HOST.parse().unwrap(),
        header,
        &[],
    )
    .unwrap()
}
