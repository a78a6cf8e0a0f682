//! Sizes, order, batches and ECN.

use std::time::Duration;

use connlib_tunnel::segment::{ChecksumState, Coalescer, Coalescing, GsoKind, GsoMeta};
use ip_packet::make::{TcpHeader, tcp_packet};
use ip_packet::{Ecn, IpPacket, PacketBatch, TcpFlags};

use crate::world::{Wire, World, cidr, dns};

fn network() -> World {
    World::connected(cidr(1, "10.0.0.0/8", &[]))
}

fn segment(world: &World, sequence: u32, payload: &[u8]) -> IpPacket {
    let to = "10.0.0.1:80".parse().unwrap();
    let from =
        std::net::SocketAddr::new(world.clients[0].own(std::net::IpAddr::from([0; 4])), 5000);
    let header = TcpHeader {
        sequence,
        flags: TcpFlags::ACK,
        ..TcpHeader::default()
    };
    tcp_packet(from, to, header, payload).unwrap()
}

/// Sealed datagrams of a client, and the gateway takes them as one batch.
fn batch(world: &mut World, packets: &[IpPacket], coalescer: &mut Coalescer) {
    let wires: Vec<Wire> = packets
        .iter()
        .map(|packet| world.sealed_by_client(0, packet))
        .collect();
    for wire in &wires {
        world.deliver_to_gateway(wire, coalescer);
    }
}

#[test]
fn tunnel_78_largest_packet_passes_both_ways() {
    let mut world = network();
    let up = world.clients[0].udp_to("10.0.0.1:53", &[1; 1252]);
    assert_eq!(up.as_slice().len(), 1280);
    world.up(0, &up);
    assert_eq!(world.at_site(), [up]);
    let down = world.clients[0].udp_from("10.0.0.1:53", &[1; 1252]);
    world.down(&down);
    assert_eq!(world.at_client(0), [down]);

    let mut too_long = world.clients[0]
        .udp_from("10.0.0.1:53", &[1; 1252])
        .as_slice()
        .to_vec();
    too_long.push(0);
    too_long[2..4].copy_from_slice(&1281u16.to_be_bytes());
    too_long[24..26].copy_from_slice(&1261u16.to_be_bytes());
    world.down_super(&too_long, GsoMeta::NONE);
    assert!(world.at_client(0).is_empty());
    assert_eq!(world.gateway.stats().malformed, 1);
}

#[test]
fn tunnel_78_datagram_above_the_limit_is_dropped_and_counted() {
    let mut world = network();
    let packet = world.clients[0].udp_to("10.0.0.1:53", b"12345678");
    let mut wire = world.sealed_by_client(0, &packet);
    wire.payload.resize(1317, 0);
    let before = world.gateway.stats().rejected_datagrams;
    let mut coalescer = Coalescer::new(Coalescing::ON);
    world.deliver_to_gateway(&wire, &mut coalescer);
    assert!(coalescer.is_empty());
    assert_eq!(world.gateway.stats().rejected_datagrams, before + 1);
}

#[test]
fn segments_of_a_client_become_one_super_packet() {
    let mut world = network();
    let packets: Vec<_> = (0..20)
        .map(|i| segment(&world, i * 1000, &[i as u8; 1000]))
        .collect();
    let mut coalescer = Coalescer::new(Coalescing::ON);
    batch(&mut world, &packets, &mut coalescer);
    let items: Vec<_> = coalescer
        .drain()
        .map(|(gso, bytes)| (gso.segment_size, bytes.len()))
        .collect();
    assert_eq!(items, [(1000, 40 + 20 * 1000)]);
    assert_eq!(world.gateway.stats().from_clients, 20);
}

#[test]
fn tunnel_84_bad_packets_do_not_end_a_batch() {
    let mut world = network();
    let good = |world: &World, i: u32| segment(world, i * 100, &[i as u8; 100]);
    let foreign = world.clients[0].udp_to("11.0.0.1:53", b"12345678");
    let packets = [good(&world, 0), foreign, good(&world, 1)];
    let mut wires: Vec<Wire> = packets
        .iter()
        .map(|packet| world.sealed_by_client(0, packet))
        .collect();
    let mut damaged = wires[0].clone();
    damaged.payload[40] ^= 1;
    wires.insert(1, damaged);

    let mut coalescer = Coalescer::new(Coalescing::ON);
    for wire in &wires {
        world.deliver_to_gateway(wire, &mut coalescer);
    }
    let lengths: Vec<_> = coalescer.drain().map(|(_, bytes)| bytes.len()).collect();
    assert_eq!(lengths, [240]);
    world.settle();
    assert_eq!(world.at_client(0).len(), 1, "the refusal");
}

#[test]
fn garbage_from_the_network_is_counted_and_nothing_else() {
    let mut world = network();
    let from = "203.0.113.99:9".parse().unwrap();
    let mut coalescer = Coalescer::new(Coalescing::ON);
    for len in 0..1400usize {
        let payload: Vec<u8> = (0..len).map(|i| (i * 31 + len) as u8).collect();
        let wire = Wire {
            from,
            to: "198.51.100.1:52625".parse().unwrap(),
            payload,
            ecn: Ecn::NotEct,
        };
        world.deliver_to_gateway(&wire, &mut coalescer);
    }
    assert!(coalescer.is_empty());
    assert!(world.gateway.stats().rejected_datagrams > 1300);
}

#[test]
fn super_packet_from_the_site_is_translated_once_and_cut() {
    let mut world = World::connected(dns(1, "*.example.com", &[]));
    world.assign(0, 1, "www.example.com", &["100.96.0.1"]);
    world.resolve(Ok(&["10.0.0.1"]));
    let request = world.clients[0].udp_to("100.96.0.1:53", b"12345678");
    world.up(0, &request);
    world.at_site();

    let first = world.clients[0].udp_from("10.0.0.1:53", &[]);
    let payload: Vec<u8> = (0..30_000u32).map(|i| i as u8).collect();
    let mut bytes = [first.as_slice(), &payload].concat();
    let total = bytes.len() as u16;
    bytes[2..4].copy_from_slice(&total.to_be_bytes());
    bytes[24..26].copy_from_slice(&(total - 20).to_be_bytes());
    let gso = GsoMeta {
        kind: GsoKind::Udp,
        segment_size: 1200,
        checksum: ChecksumState::Partial {
            start: 20,
            offset: 6,
        },
    };
    world.down_super(&bytes, gso);

    let received = world.at_client(0);
    assert_eq!(received.len(), 25);
    for packet in &received {
        assert!(packet.has_valid_checksums());
        assert_eq!(packet.source().to_string(), "100.96.0.1");
    }
    let rejoined: Vec<u8> = received
        .iter()
        .flat_map(|packet| packet.l4_payload().to_vec())
        .collect();
    assert_eq!(rejoined, payload, "tunnel 80: in order");
}

#[test]
fn congestion_marks_cross_the_tunnel() {
    let mut world = network();
    let mut packet = world.clients[0].udp_to("10.0.0.1:53", b"12345678");
    packet.view_mut().set_ecn(Ecn::Ect0);
    let mut wire = world.sealed_by_client(0, &packet);
    assert_eq!(wire.ecn, Ecn::Ect0);
    wire.ecn = Ecn::Ce;
    let mut coalescer = Coalescer::new(Coalescing::OFF);
    world.deliver_to_gateway(&wire, &mut coalescer);
    let received: Vec<_> = coalescer
        .drain()
        .map(|(_, bytes)| IpPacket::from_slice(bytes).unwrap())
        .collect();
    assert_eq!(received[0].ecn(), Ecn::Ce);
    assert!(received[0].has_valid_checksums());
}

#[test]
fn tunnel_71_idle_connection_still_carries_packets() {
    for minutes in [6, 12] {
        let mut world = network();
        for _ in 0..minutes {
            world.run_for(Duration::from_secs(60));
            world.refresh_relays();
        }
        let packet = world.clients[0].udp_to("10.0.0.1:53", b"12345678");
        world.up(0, &packet);
        assert_eq!(world.at_site().len(), 1, "{minutes} minutes");
        let answer = world.clients[0].udp_from("10.0.0.1:53", b"12345678");
        world.down(&answer);
        assert_eq!(world.at_client(0).len(), 1, "{minutes} minutes");
    }
}

#[test]
fn packets_to_nobody_are_ignored() {
    let mut world = World::new(1);
    let packet = world.clients[0].udp_from("10.0.0.1:53", b"12345678");
    world.down(&packet);
    assert_eq!(world.gateway.stats().not_a_peer, 1);
}

#[test]
fn tunnel_84_expired_session_in_a_batch_stops_nothing_else() {
    let mut world = World::connected(dns(1, "*.example.com", &[]));
    world.assign(0, 1, "www.example.com", &["100.96.0.1"]);
    world.resolve(Ok(&["10.0.0.1"]));
    let request = world.clients[0].udp_to("100.96.0.1:53", b"12345678");
    world.up(0, &request);
    world.run_for(Duration::from_secs(60));
    let answer = world.clients[0].udp_from("10.0.0.1:53", b"12345678");
    world.down(&answer);
    assert!(world.at_client(0).is_empty());
    assert_eq!(world.gateway.stats().expired_sessions, 1);
    world.up(0, &request);
    world.down(&answer);
    assert_eq!(world.at_client(0).len(), 1);
}

/// Bytes that no honest client would seal.
struct Forged<'a>(Option<&'a [u8]>);

impl PacketBatch for Forged<'_> {
    fn next_packet(&mut self) -> Option<&[u8]> {
        self.0.take()
    }
}

#[test]
fn authentic_garbage_is_counted_and_nothing_else() {
    let mut world = network();
    let honest = world.clients[0].udp_to("10.0.0.1:53", &[7; 1000]);
    let mut seed = 1u32;
    for _ in 0..3_000 {
        let mut random = || {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            seed >> 8
        };
        let mut bytes = honest.as_slice().to_vec();
        for _ in 0..random() % 6 + 1 {
            let at = random() as usize % 48;
            bytes[at] = random() as u8;
        }
        if random() % 3 == 0 {
            bytes.truncate(random() as usize % 1100 + 1);
        }
        let wire = world.forged_by_client(0, &mut Forged(Some(&bytes)));
        let mut coalescer = Coalescer::new(Coalescing::ON);
        world.deliver_to_gateway(&wire, &mut coalescer);
        for (_, bytes) in coalescer.drain() {
            let packet = IpPacket::from_slice(bytes).unwrap();
            assert_eq!(packet.source(), honest.source());
            assert!(packet.destination().to_string().starts_with("10."));
        }
    }
    let stats = world.gateway.stats();
    // The engine itself drops what is no IP packet at all.
    assert!(
        stats.malformed > 0 && stats.rejected_datagrams > 0,
        "{stats:?}"
    );
    assert!(stats.spoofed > 0 && stats.prohibited > 0, "{stats:?}");

    world.up(0, &honest);
    assert_eq!(world.at_site(), [honest]);
}

#[test]
fn tunnel_69_direct_connection_survives_without_relays() {
    let mut world = network();
    let relays = world.gateway.relays_in_use();
    assert_eq!(relays.len(), 1);
    world.gateway.update_relays(&relays, &[], world.now);
    world.run_for(Duration::from_secs(30));

    let packet = world.clients[0].udp_to("10.0.0.1:53", b"12345678");
    world.up(0, &packet);
    assert_eq!(world.at_site().len(), 1);
    world.refresh_relays();
    world.up(0, &packet);
    assert_eq!(world.at_site().len(), 1);
}
