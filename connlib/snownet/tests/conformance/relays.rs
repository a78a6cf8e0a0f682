//! Relays that come, go and restart (snownet 21, 22, 24, 34, 35, 39).

use std::time::Duration;

use connlib_snownet::{Event, PathKind, Role};
use connlib_stun::Method;

use crate::world::{PSK, Place, World, v6};
use crate::{C, G};

pub fn invalidated(world: &World, host: usize) -> Vec<String> {
    let events = world.hosts[host].events.iter();
    events
        .filter_map(|(_, event)| match event {
            Event::InvalidateIceCandidate { sdp, .. } => Some(sdp.clone()),
            _ => None,
        })
        .collect()
}

pub fn failed(world: &World) -> usize {
    [C, G]
        .map(|host| world.count(host, |e| matches!(e, Event::ConnectionFailed(_))))
        .iter()
        .sum()
}

/// Sends a packet each way every 50 ms for `duration`; returns the longest silence at either end.
pub fn longest_gap(world: &mut World, duration: Duration) -> Duration {
    let begin = world.elapsed();
    for number in 0..duration.as_millis() as u32 / 50 {
        world.try_send(C, G, number);
        world.try_send(G, C, number);
        world.run_for(Duration::from_millis(50));
    }
    let end = world.elapsed();
    let gap = |host: usize| {
        let times = world.hosts[host].received.iter().map(|(at, _, _)| *at);
        let times: Vec<_> = std::iter::once(begin)
            .chain(times.filter(|at| *at >= begin))
            .chain([end])
            .collect();
        times.windows(2).map(|w| w[1] - w[0]).max().unwrap()
    };
    gap(C).max(gap(G))
}

#[test]
fn snownet_21_restarted_relay_is_replaced_and_the_connection_moves() {
    let mut world = World::pair(1, Place::Symmetric, Place::Symmetric);
    world.establish(C, G);
    let now = world.now;
    world.relays[0].restart(now);
    for host in [C, G] {
        world.update_relays(host, &[], &[0]);
        assert!(!invalidated(&world, host).is_empty());
    }
    let gap = longest_gap(&mut world, Duration::from_secs(10));
    assert!(gap < Duration::from_secs(3), "{gap:?}");
    assert_eq!(failed(&world), 0);
}

#[test]
fn snownet_22_silent_death_is_noticed_within_a_second_of_an_update() {
    let mut world = World::pair(2, Place::Symmetric, Place::Symmetric);
    world.establish(C, G);
    world.run_for(Duration::from_secs(3));
    let relay = world.hosts[C].node.path(G as u32).unwrap().relay.unwrap();
    let dead = relay as usize - 100;
    world.relays[dead].alive = false;
    let before = invalidated(&world, C).len();
    world.update_relays(C, &[], &[]);
    world.run_for(Duration::from_millis(1_000));
    assert!(invalidated(&world, C).len() > before);
}

/// A relay that is named again although it is known is worth another try at once if it was given up for now.
#[test]
fn named_again_a_suspended_relay_is_tried_at_once() {
    let mut world = World::pair(1, Place::Open, Place::Open);
    world.relays[0].alive = false;
    world.update_relays(C, &[], &[]);
    world.run_for(Duration::from_secs(12));
    world.relays[0].alive = true;
    let since = world.now;
    world.update_relays(C, &[], &[0]);
    world.run_for(Duration::from_secs(1));
    let requests = world.relays[0].requests.iter();
    let allocates = requests.filter(|(at, method)| *at > since && *method == Method::Allocate);
    assert!(allocates.count() > 0);
    assert!(world.upsert(C, G, PSK).is_ok());
}

#[test]
fn snownet_24_traffic_of_a_removed_relay_is_swallowed() {
    let mut world = World::pair(2, Place::Open, Place::Open);
    world.establish(C, G);
    world.update_relays(C, &[0], &[]);
    let rejected = world.hosts[C].node.stats().datagrams_rejected;
    let local = "1.0.0.1:52625".parse().unwrap();
    let server = "9.9.9.1:3478".parse().unwrap();
    world.receive(C, local, server, &[0x40, 0, 0, 4, 1, 2, 3, 4]);
    let mut stun = vec![1, 1, 0, 0, 0x21, 0x12, 0xA4, 0x42];
    stun.extend([7; 12]);
    world.receive(C, local, server, &stun);
    assert_eq!(world.hosts[C].node.stats().datagrams_rejected, rejected);
}

#[test]
fn snownet_24_a_peer_may_own_port_3478() {
    let mut world = World::pair(1, Place::Open, Place::Open);
    let client = world.add_host_at(Role::Client, Place::Open);
    world.hosts[client].port = 3478;
    world.announce_relays();
    world.run_for(Duration::from_secs(1));
    world.establish(client, G);
    assert_eq!(world.kind(G, client), Some(PathKind::PeerToPeer));
}

#[test]
fn snownet_34_upsert_without_relay_changes_nothing() {
    let mut world = World::pair(1, Place::Open, Place::Open);
    world.establish(C, G);
    world.update_relays(C, &[0], &[]);
    // Another key, hence a replacement.
    world.roam(G, [1, 0, 0, 99].into());
    assert!(world.upsert(C, G, PSK).is_err());
    assert!(world.hosts[C].node.has_connection(G as u32));
    assert!(world.hosts[C].node.path(G as u32).is_some());
}

#[test]
fn snownet_35_only_relay_candidates_are_invalidated() {
    let mut world = World::pair(2, Place::Cone, Place::Symmetric);
    world.establish(C, G);
    for host in [C, G] {
        world.update_relays(host, &[0], &[]);
        world.run_for(Duration::from_secs(1));
        world.update_relays(host, &[1], &[0]);
        world.run_for(Duration::from_secs(1));
    }
    let all: Vec<_> = [invalidated(&world, C), invalidated(&world, G)].concat();
    assert!(!all.is_empty());
    assert!(all.iter().all(|sdp| sdp.contains("typ relay")), "{all:?}");
}

/// Without NAT, the reflexive candidate equals the host candidate: the agent discards it.
#[test]
fn snownet_35_discarded_candidates_are_not_signalled() {
    let mut world = World::pair(2, Place::Open, Place::Open);
    world.establish(C, G);
    // The repetition takes what the agent has, not what the relays have found.
    world.upsert(C, G, PSK).unwrap();
    world.upsert(G, C, PSK).unwrap();
    for host in [C, G] {
        let signalled: Vec<_> = world.hosts[host]
            .events
            .iter()
            .filter_map(|(_, event)| match event {
                Event::NewIceCandidate { sdp, .. } => sdp.split(' ').nth(7),
                _ => None,
            })
            .collect();
        assert!(signalled.contains(&"host") && signalled.contains(&"relay"));
        assert!(!signalled.contains(&"srflx"), "{signalled:?}");
    }
}

#[test]
fn snownet_39_relayed_connection_migrates() {
    let mut world = World::pair(2, Place::Symmetric, Place::Symmetric);
    world.establish(C, G);
    world.run_for(Duration::from_secs(5));
    let relay = world.hosts[C].node.path(G as u32).unwrap().relay.unwrap();
    let used = relay as usize - 100;
    for host in [C, G] {
        world.update_relays(host, &[used], &[]);
    }
    let gap = longest_gap(&mut world, Duration::from_secs(10));
    assert!(gap < Duration::from_secs(3), "{gap:?}");
    assert_eq!(failed(&world), 0);
    let now_used = world.hosts[C].node.path(G as u32).unwrap().relay;
    assert_ne!(now_used, Some(relay));
}

#[test]
fn snownet_39_either_end_alone_recovers() {
    for told in [C, G] {
        let mut world = World::pair(2, Place::Symmetric, Place::Symmetric);
        world.establish(C, G);
        world.run_for(Duration::from_secs(5));
        let relay = world.hosts[told].node.path(1 - told as u32).unwrap().relay;
        let used = relay.unwrap() as usize - 100;
        world.update_relays(told, &[used], &[]);
        let gap = longest_gap(&mut world, Duration::from_secs(10));
        assert!(gap < Duration::from_secs(3), "{gap:?}");
        assert_eq!(failed(&world), 0);
    }
}

#[test]
fn snownet_39_direct_connection_is_not_disturbed() {
    let mut world = World::pair(2, Place::Open, Place::Open);
    world.establish(C, G);
    world.run_for(Duration::from_secs(5));
    let before = world.hosts[C].node.path(G as u32).unwrap();
    for host in [C, G] {
        world.update_relays(host, &[0, 1], &[]);
    }
    let gap = longest_gap(&mut world, Duration::from_secs(10));
    assert!(gap < Duration::from_millis(100), "{gap:?}");
    assert_eq!(world.hosts[C].node.path(G as u32), Some(before));
}

#[test]
fn snownet_39_migration_is_tried_again_when_a_relay_appears() {
    let mut world = World::pair(1, Place::Open, Place::Open);
    world.establish(C, G);
    world.run_for(Duration::from_secs(5));
    for host in [C, G] {
        world.update_relays(host, &[0], &[]);
    }
    world.run_for(Duration::from_secs(30));
    world.add_relay(Some([9, 9, 9, 50].into()), None);
    let relayed = |world: &World, host| {
        world.count(
            host,
            |e| matches!(e, Event::NewIceCandidate { sdp, .. } if sdp.contains("9.9.9.50")),
        )
    };
    for host in [C, G] {
        assert_eq!(relayed(&world, host), 0);
        world.update_relays(host, &[], &[1]);
    }
    world.run_for(Duration::from_secs(2));
    assert_eq!(relayed(&world, C), 1);
    assert_eq!(relayed(&world, G), 1);
}

#[test]
fn snownet_23_far_relay_is_not_chosen() {
    let mut world = World::new();
    for last in 1..=3 {
        world.add_relay(Some([9, 9, 9, last].into()), None);
    }
    let far = world.relays[2].host;
    world.net.set_link(
        far,
        netsim::LinkConfig {
            latency: Duration::from_millis(300),
            ..netsim::LinkConfig::default()
        },
    );
    world.add_host_at(Role::Client, Place::Symmetric);
    world.add_host_at(Role::Gateway, Place::Symmetric);
    world.announce_relays();
    world.run_for(Duration::from_secs(3));
    for _ in 0..20 {
        world.connect(C, G);
        world.run_for(Duration::from_millis(200));
        let now = world.now;
        for (host, peer) in [(C, G as u32), (G, C as u32)] {
            let far = world.count(host, |e| {
                matches!(e, Event::NewIceCandidate { sdp, .. }
                    if sdp.contains("9.9.9.3") && sdp.contains("typ relay"))
            });
            assert_eq!(far, 0);
            world.hosts[host].node.remove(peer, now);
            world.drain(host);
        }
    }
}

/// The bound relay is the one whose candidate is signalled first, before anything has travelled.
#[test]
fn snownet_23_every_near_relay_is_chosen_and_the_far_one_never_is() {
    let mut world = World::new();
    for last in 1..=4 {
        world.add_relay(Some([9, 9, 9, last].into()), None);
    }
    let link = |latency| netsim::LinkConfig {
        latency: Duration::from_millis(latency),
        ..netsim::LinkConfig::default()
    };
    world.net.set_link(world.relays[3].host, link(200));
    world.add_host_at(Role::Client, Place::Symmetric);
    world.add_host_at(Role::Gateway, Place::Symmetric);
    world.announce_relays();
    world.run_for(Duration::from_secs(3));

    let mut draws = [0; 4];
    for _ in 0..1000 {
        let seen = world.hosts[C].events.len();
        world.upsert(C, G, PSK).unwrap();
        let (_, relayed) = world.hosts[C].events[seen..]
            .iter()
            .find(|(_, e)| matches!(e, Event::NewIceCandidate { sdp, .. } if sdp.contains("typ relay")))
            .unwrap();
        let Event::NewIceCandidate { sdp, .. } = relayed else {
            unreachable!()
        };
        let relay = (1..=4).find(|last| sdp.contains(&format!(" 9.9.9.{last} ")));
        draws[relay.unwrap() - 1] += 1;
        let now = world.now;
        world.hosts[C].node.remove(G as u32, now);
        world.drain(C);
    }
    assert_eq!(draws[3], 0);
    // A third each; a fair draw leaves this range less than once in 10^9 seeds.
    assert!(
        draws[..3].iter().all(|n| (240..=430).contains(n)),
        "{draws:?}"
    );
}

/// §3.4: host and reflexive addresses concern every connection, relayed ones only those on that relay.
#[test]
fn news_of_another_relay_reach_connections_unless_relayed() {
    let mut world = World::new();
    world.add_relay(Some([9, 9, 9, 1].into()), None);
    world.add_host(Role::Client, Some([1, 0, 0, 1].into()), Some(v6(1)), None);
    world.add_host(Role::Gateway, Some([1, 0, 0, 2].into()), Some(v6(2)), None);
    world.announce_relays();
    world.run_for(Duration::from_secs(1));
    world.establish(C, G);
    let seen = world.hosts[C].events.len();

    world.add_relay(None, Some(v6(9)));
    world.update_relays(C, &[], &[1]);
    world.run_for(Duration::from_secs(1));
    let news: Vec<_> = world.hosts[C].events[seen..]
        .iter()
        .filter_map(|(_, event)| match event {
            Event::NewIceCandidate { sdp, .. } => Some(sdp),
            _ => None,
        })
        .collect();
    let host = format!("{} 52625 typ host", v6(1));
    assert!(news.iter().any(|sdp| sdp.contains(&host)), "{news:?}");
    assert!(
        !news.iter().any(|sdp| sdp.contains("typ relay")),
        "{news:?}"
    );
}

#[test]
fn snownet_13_full_relay_is_not_chosen() {
    let mut world = World::new();
    world.add_relay(Some([9, 9, 9, 1].into()), None);
    world.add_relay(Some([9, 9, 9, 2].into()), None);
    world.relays[0].refuse_allocations();
    world.add_host_at(Role::Client, Place::Symmetric);
    world.add_host_at(Role::Gateway, Place::Symmetric);
    world.announce_relays();
    world.run_for(Duration::from_secs(1));
    for _ in 0..10 {
        world.establish(C, G);
        let path = world.hosts[C].node.path(G as u32).unwrap();
        assert_eq!(path.relay, Some(101));
        let now = world.now;
        for (host, peer) in [(C, G as u32), (G, C as u32)] {
            world.hosts[host].node.remove(peer, now);
            world.drain(host);
            world.hosts[host].events.clear();
        }
    }
    // The update makes the full one try again, in vain.
    world.update_relays(C, &[1], &[]);
    world.run_for(Duration::from_secs(1));
    assert!(world.upsert(C, G, PSK).is_err());
}

#[test]
fn snownet_17_a_check_leaves_right_behind_the_request_for_its_channel() {
    let mut world = World::pair(1, Place::Symmetric, Place::Symmetric);
    world.establish(C, G);
    let is_bind = |payload: &[u8]| payload.starts_with(&[0, 9]);
    let binds = world.sent.windows(2).filter(|w| is_bind(&w[0].payload));
    let followed = binds
        .filter(|w| w[1].payload[0] == 0x40 && w[1].at == w[0].at)
        .count();
    assert!(followed > 0);
}

#[test]
fn snownet_07_no_relays_is_reported_when_the_last_one_dies() {
    let mut world = World::new();
    for last in 1..=2 {
        let relay = world.add_relay(Some([9, 9, 9, last].into()), None);
        world.relays[relay].alive = false;
    }
    world.add_host_at(Role::Client, Place::Open);
    world.update_relays(C, &[], &[0]);
    world.run_for(Duration::from_secs(3));
    world.update_relays(C, &[], &[1]);
    world.run_for(Duration::from_secs(60));
    // The first is given up 8.125 s after its first request, which is no news: there is another one.
    let at = world.times(C, |e| *e == Event::NoRelays);
    assert_eq!(at, [Duration::from_millis(3_000 + 8_125)]);
}
