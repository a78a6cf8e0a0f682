//! Finding a path (snownet 25–27, 30, 31, 35, 37, 42).

use std::net::SocketAddr;
use std::time::Duration;

use connlib_snownet::{Event, PathKind, Role};
use connlib_stun::{Class, Envelope};
use ip_packet::make;

use crate::world::{Place, Wire, World, v6};
use crate::{C, G};

const DIRECT: (PathKind, PathKind) = (PathKind::PeerToPeer, PathKind::PeerToPeer);

fn settled(mut world: World) -> (PathKind, PathKind) {
    world.establish(C, G);
    // Better pairs are found within the first checks.
    world.run_for(Duration::from_secs(5));
    world.ping(C, G);
    (world.kind(C, G).unwrap(), world.kind(G, C).unwrap())
}

#[test]
fn snownet_25_hosts_without_nat_connect_directly() {
    assert_eq!(settled(World::pair(2, Place::Open, Place::Open)), DIRECT);
}

#[test]
fn snownet_25_cone_nats_connect_directly() {
    assert_eq!(settled(World::pair(2, Place::Cone, Place::Cone)), DIRECT);
    assert_eq!(settled(World::pair(1, Place::Open, Place::Cone)), DIRECT);
}

#[test]
fn snownet_25_one_symmetric_nat_connects_directly() {
    let of = |client, gateway| settled(World::pair(2, client, gateway));
    assert_eq!(of(Place::Symmetric, Place::Open), DIRECT);
    assert_eq!(of(Place::Open, Place::Symmetric), DIRECT);
}

#[test]
fn snownet_25_two_symmetric_nats_connect_relay_to_relay() {
    for relays in [1, 2] {
        let world = World::pair(relays, Place::Symmetric, Place::Symmetric);
        let (client, gateway) = settled(world);
        assert_eq!(client, PathKind::RelayToRelay);
        assert_eq!(gateway, PathKind::RelayToRelay);
    }
}

// tunnel 78: over the longest way, with the headers of both.
#[test]
fn largest_packets_pass_through_two_relays() {
    let mut world = World::pair(2, Place::Symmetric, Place::Symmetric);
    world.establish(C, G);
    world.run_for(Duration::from_secs(5));
    assert_eq!(world.kind(C, G), Some(PathKind::RelayToRelay));
    let largest = make::udp_packet(
        ([100, 64, 0, 1], 1).into(),
        ([100, 64, 0, 2], 2).into(),
        &[7; 1252],
    )
    .unwrap();
    assert_eq!(largest.as_slice().len(), 1280);

    let since = world.elapsed();
    for (from, to) in [(C, G), (G, C)] {
        world.send_packet(from, to, &largest).unwrap();
        world.run_for(Duration::from_secs(1));
        let received = world.hosts[to]
            .received
            .last()
            .map(|(_, _, bytes)| &bytes[..]);
        assert_eq!(received, Some(largest.as_slice()));
    }
    let longest = world
        .wires_since(since)
        .map(|wire| wire.payload.len())
        .max();
    assert_eq!(longest, Some(1316));
}

#[test]
fn snownet_25_families_meet_at_a_relay() {
    for (client_v4, gateway_v4) in [(true, false), (false, true)] {
        let mut world = World::new();
        world.add_relay(Some([9, 9, 9, 1].into()), Some(v6(9)));
        for (role, is_v4, last) in [(Role::Client, client_v4, 1), (Role::Gateway, gateway_v4, 2)] {
            let v4 = is_v4.then_some([1, 0, 0, last].into());
            let v6 = (!is_v4).then_some(v6(last.into()));
            world.add_host(role, v4, v6, None);
        }
        world.announce_relays();
        world.run_for(Duration::from_secs(1));
        let (client, gateway) = settled(world);
        assert_ne!(client, PathKind::PeerToPeer);
        assert_ne!(gateway, PathKind::PeerToPeer);
    }
}

#[test]
fn snownet_25_loss_and_late_candidates_are_survived() {
    for (client, gateway) in [
        (Place::Cone, Place::Cone),
        (Place::Symmetric, Place::Symmetric),
    ] {
        let mut world = World::pair(2, client, gateway);
        world.lose(0.2);
        world.signalling_delay = Duration::from_secs(3);
        world.establish(C, G);
    }
}

#[test]
fn candidates_are_signalled_best_first() {
    for seed in 1..8 {
        let mut world = World::seeded(seed);
        // Each relay discovers the host address of one family; the connection belongs to either.
        world.add_relay(Some([9, 9, 9, 1].into()), None);
        world.add_relay(None, Some(v6(9)));
        world.add_host(Role::Client, Some([1, 0, 0, 1].into()), Some(v6(1)), None);
        world.add_host(Role::Gateway, Some([1, 0, 0, 2].into()), Some(v6(2)), None);
        world.announce_relays();
        world.run_for(Duration::from_secs(1));
        world.upsert(C, G, crate::world::PSK).unwrap();
        let events = world.hosts[C].events.iter();
        let kinds: Vec<_> = events
            .filter_map(|(_, event)| match event {
                Event::NewIceCandidate { sdp, .. } => sdp.split(' ').nth(7),
                _ => None,
            })
            .collect();
        assert_eq!(kinds, ["host", "host", "relay"]);
    }
}

#[test]
fn snownet_26_only_the_client_nominates() {
    const USE_CANDIDATE: u16 = 0x0025;
    let mut world = World::pair(2, Place::Cone, Place::Symmetric);
    world.establish(C, G);
    world.run_for(Duration::from_secs(60));
    let nominations = |host| {
        world
            .sent
            .iter()
            .filter(|wire| wire.host == host)
            .filter_map(|wire| match wire.payload.first()? {
                64..=79 => wire.payload.get(4..),
                _ => Some(&wire.payload),
            })
            .filter_map(|bytes| Envelope::parse(bytes).ok())
            .filter(|message| message.class() == Class::Request)
            .filter(|message| message.attribute(USE_CANDIDATE).is_some())
            .count()
    };
    assert!(nominations(C) > 0);
    assert_eq!(nominations(G), 0);
}

#[test]
fn snownet_27_no_candidate_fails_after_ten_seconds() {
    let mut world = World::pair(1, Place::Open, Place::Open);
    world.signalling = |_| false;
    let begin = world.elapsed();
    world.connect(C, G);
    world.run_for(Duration::from_secs(60));
    for (host, peer) in [(C, G), (G, C)] {
        let failed = Event::ConnectionFailed(peer as u32);
        assert_eq!(
            world.times(host, |e| *e == failed),
            [begin + Duration::from_secs(10)]
        );
        assert!(!world.hosts[host].node.has_connection(peer as u32));
    }
}

#[test]
fn snownet_27_a_candidate_cancels_the_wait() {
    let mut world = World::pair(1, Place::Open, Place::Open);
    world.signalling = |_| false;
    world.connect(C, G);
    let unreachable = "candidate:1 1 udp 2113929471 203.0.113.99 9 typ host";
    let now = world.now;
    for (host, peer) in [(C, G), (G, C)] {
        let node = &mut world.hosts[host].node;
        node.add_remote_candidate(peer as u32, unreachable, now);
        world.drain(host);
    }
    world.run_for(Duration::from_secs(15));
    assert!(world.hosts[C].node.has_connection(G as u32));
    assert!(world.hosts[G].node.has_connection(C as u32));
}

#[test]
fn snownet_30_remote_candidates_before_local_ones() {
    let mut world = World::pair(2, Place::Open, Place::Cone);
    world.establish(C, G);
    // Faster than any answer of a relay.
    world.signalling_delay = Duration::from_millis(1);
    world.roam(C, [1, 0, 0, 77].into());
    world.connect(C, G);
    let established = Event::ConnectionEstablished(G as u32);
    world.run_until(Duration::from_secs(5), |w| {
        w.count(C, |e| *e == established) == 2
    });
    world.ping(C, G);
}

#[test]
fn snownet_31_late_candidates_upgrade_to_a_direct_path() {
    for idle in [0, 60] {
        let mut world = World::pair(2, Place::Open, Place::Open);
        world.signalling = |sdp| sdp.contains("typ relay");
        world.establish(C, G);
        world.run_for(Duration::from_secs(5 + idle));
        assert_ne!(world.kind(C, G), Some(PathKind::PeerToPeer));
        world.signalling = |_| true;
        let since = world.elapsed();
        world.connect(C, G);
        world.run_for(Duration::from_secs(3));
        let handshakes = world
            .wires_since(since)
            .filter(|wire| wire.wireguard_type() == Some(1))
            .count();
        assert!(
            handshakes <= 1,
            "announcement and new path share one handshake"
        );
        assert_eq!(world.kind(C, G), Some(PathKind::PeerToPeer));
        assert_eq!(world.kind(G, C), Some(PathKind::PeerToPeer));
        world.ping(C, G);
        assert_eq!(
            world.count(C, |e| matches!(e, Event::ConnectionFailed(_))),
            0
        );
    }
}

#[test]
fn snownet_31_initiation_in_flight_is_repeated_on_the_new_path() {
    let mut world = World::pair(1, Place::Open, Place::Open);
    world.signalling = |sdp| sdp.contains("typ relay");
    world.establish(C, G);
    world.run_for(Duration::from_secs(60));
    // The relayed path loses handshakes from now on.
    world.drop = Box::new(|wire| wire.wireguard_type() == Some(1) && wire.dst.port() != 52625);
    let since = world.elapsed();
    world.connect(C, G);
    world.run_for(Duration::from_secs(2));
    world.signalling = |_| true;
    let direct_since = world.elapsed();
    for host in [C, G] {
        world.upsert(host, 1 - host, crate::world::PSK).unwrap();
    }
    world.run_for(Duration::from_secs(2));
    assert_eq!(world.kind(C, G), Some(PathKind::PeerToPeer));
    let inits: Vec<_> = world
        .wires_since(since)
        .filter(|wire| wire.wireguard_type() == Some(1))
        .collect();
    let direct = inits.iter().find(|wire| wire.dst.port() == 52625).unwrap();
    let nominated = world.hosts[C].node.path(1).unwrap().since - world.start;
    assert!(nominated >= direct_since);
    assert!(direct.at - nominated <= Duration::from_secs(1));
}

#[test]
fn snownet_36_forwarded_port_behind_a_symmetric_nat_is_tried() {
    let mut world = World::pair(1, Place::Symmetric, Place::Symmetric);
    world.establish(C, G);
    // The NAT shows the relay another port than the one that the gateway listens on.
    let guess: SocketAddr = "1.0.0.2:52625".parse().unwrap();
    assert!(
        world
            .sent
            .iter()
            .any(|wire| wire.host == C && wire.dst == guess)
    );
}

#[test]
fn snownet_37_source_address_does_not_choose_the_peer() {
    let mut world = World::pair(1, Place::Open, Place::Open);
    let other = world.add_host_at(Role::Client, Place::Open);
    world.announce_relays();
    world.run_for(Duration::from_secs(1));
    world.establish(C, G);
    world.establish(other, G);
    world.run_for(Duration::from_secs(2));

    let first = world.hosts[G].node.path(C as u32).unwrap();
    world.send(other, G, 4242);
    let stolen = world.sent.last().cloned().unwrap();
    assert_eq!(stolen.host, other);
    world.receive(G, first.local, first.remote, &stolen.payload);
    assert!(world.received(G, other).contains(&4242));
    assert!(!world.received(G, C).contains(&4242));
}

#[test]
fn snownet_42_established_once() {
    let mut world = World::pair(1, Place::Open, Place::Open);
    world.establish(C, G);
    world.run_for(Duration::from_secs(600));
    for (host, peer) in [(C, G), (G, C)] {
        let event = Event::ConnectionEstablished(peer as u32);
        assert_eq!(world.count(host, |e| *e == event), 1);
    }
}

#[test]
fn snownet_42_answer_to_an_early_initiation_waits_for_the_gateways_nomination() {
    let mut world = World::pair(1, Place::Open, Place::Open);
    // The gateway cannot nominate before its own checks arrive.
    let is_check = |wire: &Wire| wire.payload.starts_with(&[0, 1]) && wire.payload.len() > 60;
    world.drop = Box::new(move |wire| {
        let inner = wire.payload.get(4..).unwrap_or_default();
        let relayed = wire.payload[0] == 0x40 && inner.starts_with(&[0, 1]);
        wire.host == G && (is_check(wire) || relayed)
    });
    world.connect(C, G);
    world.run_for(Duration::from_secs(2));
    let has_path = |world: &World, host: usize, peer| world.hosts[host].node.path(peer).is_some();
    assert!(has_path(&world, C, G as u32));
    assert!(!has_path(&world, G, C as u32));
    world.drop = Box::new(|_| false);
    world.run_until(Duration::from_secs(2), |w| has_path(w, G, C as u32));
    let inits = |world: &World| {
        let types = world.sent.iter().map(Wire::wireguard_type);
        types.filter(|kind| *kind == Some(1)).count()
    };
    assert_eq!(inits(&world), 1);
    world.run_until(Duration::from_millis(50), |w| w.is_established(C, G));
    assert_eq!(inits(&world), 1);
    world.ping(C, G);
    world.run_for(Duration::from_secs(300));
    for (host, peer) in [(C, G), (G, C)] {
        let event = Event::ConnectionEstablished(peer as u32);
        assert_eq!(world.count(host, |e| *e == event), 1);
    }
}

#[test]
fn early_packets_of_the_client_are_kept_and_those_of_the_gateway_are_not() {
    let mut world = World::pair(1, Place::Open, Place::Open);
    world.connect(C, G);
    for number in 0..300 {
        world.send(C, G, number);
    }
    assert_eq!(world.send(G, C, 1).dropped, 1);
    world.run_for(Duration::from_secs(3));
    let kept: Vec<u32> = (0..256).collect();
    assert_eq!(world.received(G, C), kept);
    assert_eq!(world.received(C, G), [0; 0]);
}

#[test]
fn direct_datagrams_name_their_source_and_relayed_ones_do_not() {
    let mut world = World::pair(1, Place::Open, Place::Open);
    let extra: SocketAddr = "1.0.0.1:52625".parse().unwrap();
    let now = world.now;
    world.hosts[C].node.add_host_candidate(extra, now);
    world.establish(C, G);
    let path = world.hosts[C].node.path(G as u32).unwrap();
    assert_eq!(path.local, extra);
    assert_eq!(path.relay, None);
}
