//! Hostile and odd input never panics, and costs no memory that is not bounded.

use std::net::IpAddr;

use proptest::prelude::*;

use connlib_model::ResourceId;
use connlib_tunnel::TunPacket;
use connlib_tunnel::segment::{ChecksumState, Coalescer, Coalescing, GsoKind, GsoMeta};
use ip_packet::{Ecn, IpPacket, make};

use crate::query::{A, query, to_server};
use crate::world::{CLIENT_V4, World, cidr, dns, internet, udp_to};

fn gso() -> impl Strategy<Value = GsoMeta> {
    let kind = prop_oneof![Just(GsoKind::None), Just(GsoKind::Tcp), Just(GsoKind::Udp)];
    let checksum = prop_oneof![
        Just(ChecksumState::Complete),
        (any::<u16>(), any::<u16>())
            .prop_map(|(start, offset)| ChecksumState::Partial { start, offset }),
    ];
    (kind, any::<u16>(), checksum).prop_map(|(kind, segment_size, checksum)| GsoMeta {
        kind,
        segment_size,
        checksum,
    })
}

/// Packets of all fates, to be damaged.
fn packets(world: &World) -> Vec<IpPacket> {
    let sentinel = std::net::SocketAddr::new(world.sentinels()[0], 53);
    vec![
        udp_to("10.0.0.1:80", 1),
        udp_to("100.96.0.1:80", 2),
        udp_to("8.8.8.8:53", 3),
        to_server(sentinel, 5555, &query(1, "a.example.com", A)),
        make::tcp_packet(
            (CLIENT_V4, 5).into(),
            sentinel,
            make::TcpHeader {
                flags: ip_packet::TcpFlags::SYN,
                ..make::TcpHeader::default()
            },
            &[],
        )
        .unwrap(),
        make::icmp_echo_request(
            CLIENT_V4.into(),
            "10.0.0.1".parse().unwrap(),
            1,
            2,
            &[3; 20],
        )
        .unwrap(),
    ]
}

fn world() -> World {
    let mut world = World::new(1);
    world.set_resources(&[cidr(1, "10.0.0.0/8"), dns(2, "*.example.com"), internet(3)]);
    world.connect(1, 0, &udp_to("10.0.0.1:80", 0));

    world
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn damaged_packets_of_applications(
        damage in proptest::collection::vec((0usize..6, any::<u16>(), any::<u8>(), gso()), 1..60),
    ) {
        let mut world = world();
        let packets = packets(&world);
        for (which, at, byte, gso) in damage {
            let mut bytes = packets[which].as_slice().to_vec();
            let at = usize::from(at) % bytes.len();
            bytes[at] = byte;
            world.inject(TunPacket { buf: &mut bytes, gso });
        }
        world.settle();
    }

    #[test]
    fn random_packets_of_a_gateway(inputs in proptest::collection::vec(
        (proptest::collection::vec(any::<u8>(), 0..100), 0u8..4), 1..40,
    )) {
        let mut world = world();
        for (payload, event_type) in inputs {
            if let Ok(packet) = make::control_packet(event_type, &payload) {
                world.reply_if_connected(0, &packet);
            }
            let from_resource = "10.0.0.1".parse::<IpAddr>().unwrap();
            for (kind, code) in [(3, 13), (3, 0), (11, 0), (8, 0)] {
                let message = (kind, code, [0; 4]);
                if let Ok(packet) = make::icmpv4_message(from_resource, CLIENT_V4.into(), 20, message, &payload) {
                    world.reply_if_connected(0, &packet);
                }
            }
        }
    }

    #[test]
    fn random_datagrams(datagram in proptest::collection::vec(any::<u8>(), 0..2000), port in any::<u16>()) {
        let mut world = World::new(0);
        let mut coalescer = Coalescer::new(Coalescing::ON);
        let (local, now) = ("192.0.2.1:52625".parse().unwrap(), world.now);
        let from = std::net::SocketAddr::from(([203, 0, 113, 1], port));
        world.client.handle_network(local, from, Ecn::Ce, &datagram, now, &mut coalescer);
        prop_assert!(coalescer.is_empty());
    }
}

#[test]
fn flood_to_many_pending_resources_is_bounded_per_resource() {
    let mut world = World::new(0);
    for id in 0..20 {
        world.add(cidr(id, &format!("10.{id}.0.0/16")));
    }
    for i in 0..20_000u32 {
        world.send(&udp_to(&format!("10.{}.0.1:80", i % 20), i));
    }
    assert_eq!(world.asked().len(), 20);
    assert!((0..20).all(|id| world.client.is_access_awaited(ResourceId::from_u128(id))));
}
