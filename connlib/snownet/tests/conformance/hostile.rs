//! Hostile input (snownet 5, 55).

use std::net::SocketAddr;
use std::time::Duration;

use proptest::prelude::*;

use crate::world::{Place, World};
use crate::{C, G};

#[derive(Debug, Clone)]
enum Sender {
    Relay,
    Peer,
    Random(SocketAddr),
}

fn sender() -> impl Strategy<Value = Sender> {
    prop_oneof![
        Just(Sender::Relay),
        Just(Sender::Peer),
        (any::<[u8; 4]>(), any::<u16>()).prop_map(|(ip, port)| Sender::Random((ip, port).into())),
        (any::<[u8; 16]>(), any::<u16>()).prop_map(|(ip, port)| Sender::Random((ip, port).into())),
    ]
}

/// Random bytes, most of them dressed up as something that we parse.
fn datagram() -> impl Strategy<Value = Vec<u8>> {
    let random = proptest::collection::vec(any::<u8>(), 0..400);
    let stun =
        (any::<[u8; 2]>(), any::<[u8; 12]>(), random.clone()).prop_map(|(kind, id, mut body)| {
            body.truncate(body.len() / 4 * 4);
            let mut message = vec![kind[0] & 3, kind[1]];
            message.extend((body.len() as u16).to_be_bytes());
            message.extend([0x21, 0x12, 0xA4, 0x42]);
            message.extend(id);
            message.extend(body);
            message
        });
    let wireguard = (1u8..=4, random.clone()).prop_map(|(kind, mut bytes)| {
        let len = match kind {
            1 => 148,
            2 => 92,
            3 => 64,
            _ => bytes.len().max(32),
        };
        bytes.resize(len, 7);
        bytes[..4].copy_from_slice(&[kind, 0, 0, 0]);
        bytes
    });
    let channel = (0x40u8..0x50, random.clone()).prop_map(|(first, bytes)| {
        let mut message = vec![first, 0];
        message.extend((bytes.len() as u16).to_be_bytes());
        message.extend(bytes);
        message
    });
    let large = (0usize..=65_535, any::<u8>()).prop_map(|(len, byte)| vec![byte; len]);
    prop_oneof![random, stun, wireguard, channel, large]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn snownet_05_hostile_datagrams_change_nothing(
        inputs in proptest::collection::vec((sender(), datagram(), 0usize..2), 1..60),
    ) {
        let mut world = World::pair(1, Place::Cone, Place::Open);
        world.establish(C, G);
        world.run_for(Duration::from_secs(5));
        let paths = [world.hosts[C].node.path(1), world.hosts[G].node.path(0)];
        let sent = world.sent.len();
        let events = [world.hosts[C].events.len(), world.hosts[G].events.len()];
        let received = [world.received(C, G).len(), world.received(G, C).len()];
        for (sender, datagram, host) in inputs {
            let path = world.hosts[host].node.path(1 - host as u32).unwrap();
            let from = match sender {
                Sender::Relay => "9.9.9.1:3478".parse().unwrap(),
                Sender::Peer => path.remote,
                Sender::Random(addr) => addr,
            };
            world.receive(host, path.local, from, &datagram);
        }
        prop_assert_eq!(world.sent.len(), sent);
        prop_assert_eq!([world.hosts[C].node.path(1), world.hosts[G].node.path(0)], paths);
        prop_assert_eq!([world.hosts[C].events.len(), world.hosts[G].events.len()], events);
        prop_assert_eq!([world.received(C, G).len(), world.received(G, C).len()], received);
        world.ping(C, G);
    }

    /// Every WireGuard message that the peer has really sent, with one bit turned, is refused and answered by nothing. (A
    /// check may be answered twice; what authenticates it is tested where it is parsed.)
    #[test]
    fn snownet_05_damaged_datagrams_change_nothing(flips in proptest::collection::vec(any::<(u16, u16)>(), 1..60)) {
        let mut world = World::pair(1, Place::Open, Place::Open);
        world.establish(C, G);
        world.run_for(Duration::from_secs(5));
        let genuine: Vec<_> = world
            .sent
            .iter()
            .filter(|wire| wire.host == C && wire.wireguard_type().is_some())
            .cloned()
            .collect();
        let sent = world.sent.len();
        let received = world.received(G, C).len();
        for (which, bit) in flips {
            let wire = &genuine[usize::from(which) % genuine.len()];
            let mut bytes = wire.payload.clone();
            let bit = usize::from(bit) % (bytes.len() * 8);
            bytes[bit / 8] ^= 1 << (bit % 8);
            world.receive(G, wire.dst, wire.src, &bytes);
        }
        prop_assert_eq!(world.sent.len(), sent);
        prop_assert_eq!(world.received(G, C).len(), received);
        world.ping(C, G);
    }
}

#[test]
fn snownet_05_candidates_of_the_peer_are_bounded() {
    let mut world = World::pair(1, Place::Open, Place::Open);
    world.establish(C, G);
    let now = world.now;
    let sdp = |i: u32| {
        format!(
            "candidate:1 1 udp 1 203.0.{}.{} 9 typ host",
            i / 256,
            i % 256
        )
    };
    for i in 0..5_000 {
        world.hosts[G].node.add_remote_candidate(0, &sdp(i), now);
        world.hosts[G].node.remove_remote_candidate(0, &sdp(i), now);
    }
    for garbage in [
        "",
        "candidate:",
        "candidate:1 1 udp",
        "\0",
        "candidate:1 1 udp 1 ::1 1 typ x",
    ] {
        world.hosts[G].node.add_remote_candidate(0, garbage, now);
    }
    world.drain(G);
    world.ping(C, G);
}

#[test]
fn snownet_05_a_peer_cannot_withdraw_our_candidates() {
    let mut world = World::pair(1, Place::Symmetric, Place::Symmetric);
    world.establish(C, G);
    world.run_for(Duration::from_secs(2));
    let local = world.hosts[G].node.path(0).unwrap().local;
    let sdp = format!(
        "candidate:1 1 udp 1 {} {} typ relay raddr 0.0.0.0 rport 0",
        local.ip(),
        local.port()
    );
    let now = world.now;
    world.hosts[G].node.remove_remote_candidate(0, &sdp, now);
    world.drain(G);
    world.ping(C, G);
    assert_eq!(world.hosts[G].node.path(0).unwrap().local, local);
}

#[test]
fn snownet_55_flood_of_initiations_is_answered_with_cookies() {
    let mut world = World::pair(1, Place::Open, Place::Open);
    world.establish(C, G);
    let init = world
        .sent
        .iter()
        .find(|wire| wire.wireguard_type() == Some(1))
        .cloned()
        .unwrap();
    world.run_for(Duration::from_secs(5));
    let since = world.elapsed();
    for _ in 0..150 {
        world.receive(G, init.dst, init.src, &init.payload);
    }
    let cookies = world
        .wires_since(since)
        .filter(|wire| wire.wireguard_type() == Some(3) && wire.dst == init.src)
        .count();
    assert_eq!(cookies, 50);
    assert_eq!(world.hosts[G].node.stats().cookies_sent, 50);
    world.ping(C, G);
    world.run_for(Duration::from_secs(180));
    world.ping(C, G);
}
