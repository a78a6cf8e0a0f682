//! Random walks: whatever happens to two nodes, their relays and their network, they neither spin nor panic, report each end
//! once, and are connected again soon after the trouble is over and the portal has introduced them anew.

use std::collections::BTreeSet;
use std::time::Duration;

use connlib_snownet::Event;
use proptest::prelude::*;

use crate::world::{PSK, Place, World};
use crate::{C, G};

#[derive(Debug, Clone)]
enum Step {
    Run(u32),
    Suspend(u32),
    Send { from_client: bool },
    Announce { other_psk: bool },
    RemoveRelay { host: usize, relay: usize },
    AddRelay { host: usize, relay: usize },
    SetRelayAlive { relay: usize, alive: bool },
    RestartRelay { relay: usize },
    Blackout(bool),
    Lose(bool),
    Roam,
    Close { host: usize },
    ForgetPeer { host: usize },
}

fn step() -> impl Strategy<Value = Step> {
    let host = 0usize..2;
    let relay = 0usize..2;
    prop_oneof![
        4 => (1u32..30_000).prop_map(Step::Run),
        1 => (1u32..400).prop_map(Step::Suspend),
        4 => any::<bool>().prop_map(|from_client| Step::Send { from_client }),
        2 => any::<bool>().prop_map(|other_psk| Step::Announce { other_psk }),
        1 => (host.clone(), relay.clone()).prop_map(|(host, relay)| Step::RemoveRelay { host, relay }),
        1 => (host.clone(), relay.clone()).prop_map(|(host, relay)| Step::AddRelay { host, relay }),
        1 => (relay.clone(), any::<bool>()).prop_map(|(relay, alive)| Step::SetRelayAlive { relay, alive }),
        1 => relay.prop_map(|relay| Step::RestartRelay { relay }),
        1 => any::<bool>().prop_map(Step::Blackout),
        1 => any::<bool>().prop_map(Step::Lose),
        1 => Just(Step::Roam),
        1 => host.clone().prop_map(|host| Step::Close { host }),
        1 => host.prop_map(|host| Step::ForgetPeer { host }),
    ]
}

fn place() -> impl Strategy<Value = Place> {
    prop_oneof![Just(Place::Open), Just(Place::Cone), Just(Place::Symmetric)]
}

fn take(world: &mut World, step: &Step, roamed: &mut u8) {
    match *step {
        Step::Run(ms) => world.run_for(Duration::from_millis(ms.into())),
        Step::Suspend(secs) => world.suspend(Duration::from_secs(secs.into())),
        Step::Send { from_client } => {
            let (from, to) = if from_client { (C, G) } else { (G, C) };
            world.try_send(from, to, 7);
        }
        Step::Announce { other_psk } => {
            let psk = if other_psk { [3; 32] } else { PSK };
            let _ = world.upsert(G, C, psk);
            let _ = world.upsert(C, G, psk);
        }
        Step::RemoveRelay { host, relay } => world.update_relays(host, &[relay], &[]),
        Step::AddRelay { host, relay } => world.update_relays(host, &[], &[relay]),
        Step::SetRelayAlive { relay, alive } => world.relays[relay].alive = alive,
        Step::RestartRelay { relay } => {
            let now = world.now;
            world.relays[relay].restart(now);
        }
        Step::Blackout(on) => world.drop = Box::new(move |_| on),
        Step::Lose(on) => world.lose(if on { 0.3 } else { 0.0 }),
        Step::Roam => {
            *roamed += 1;
            world.roam(C, [2, 0, 0, *roamed].into());
        }
        Step::Close { host } => {
            let now = world.now;
            world.hosts[host].node.close(1 - host as u32, None, now);
            world.drain(host);
        }
        Step::ForgetPeer { host } => {
            let now = world.now;
            world.hosts[host].node.remove(1 - host as u32, now);
            world.drain(host);
        }
    }
}

/// A connection is established at most once, and ends at most once after it was announced.
fn check_events(world: &World, announced: usize) {
    for host in [C, G] {
        let count = |matches: fn(&Event<u32>) -> bool| world.count(host, matches);
        let ends = count(|e| matches!(e, Event::ConnectionFailed(_) | Event::ConnectionClosed(_)));
        assert!(ends <= announced, "{ends} ends of {announced} connections");
        let established = count(|e| matches!(e, Event::ConnectionEstablished(_)));
        assert!(established <= announced);
    }
}

fn recover(world: &mut World) {
    world.drop = Box::new(|_| false);
    world.lose(0.0);
    for relay in &mut world.relays {
        relay.alive = true;
    }
    world.announce_relays();
    world.run_for(Duration::from_secs(5));
    // What the layers above do: packets go on, a connection that has ended is announced again, relays are asked for when none
    // is left. Whatever is still broken ends within the limits of ICE (18.5 s) and WireGuard (15 s and 20 s).
    for number in 1_000_000..1_000_120 {
        let is_gone = |host: usize| !world.hosts[host].node.has_connection(1 - host as u32);
        if is_gone(C) || is_gone(G) || number == 1_000_000 {
            let has_relay =
                [(G, C), (C, G)].map(|(host, peer)| world.upsert(host, peer, PSK).is_ok());
            if has_relay != [true, true] {
                world.announce_relays();
            }
        }
        if [C, G]
            .iter()
            .any(|host| world.hosts[*host].node.stats().relays == 0)
        {
            world.announce_relays();
        }
        world.try_send(C, G, number);
        world.try_send(G, C, number);
        world.run_for(Duration::from_secs(1));
        if world.received(G, C).contains(&number) && world.received(C, G).contains(&number) {
            return;
        }
    }
    panic!("not connected again");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn trouble_passes(
        (client, gateway) in (place(), place()),
        steps in proptest::collection::vec(step(), 1..40),
    ) {
        let mut world = World::pair(2, client, gateway);
        world.establish(C, G);
        let mut roamed = 0;
        for step in &steps {
            take(&mut world, step, &mut roamed);
        }
        let announcements = steps.iter().filter(|s| matches!(s, Step::Announce { .. })).count();
        check_events(&world, announcements + 1);
        recover(&mut world);
        let known: BTreeSet<_> = [C, G].into_iter().collect();
        prop_assert!(known.iter().all(|host| world.hosts[*host].node.has_connection(1 - *host as u32)));
    }
}

/// A channel that was used again late is bound again within the same time step.
#[test]
fn snownet_02_channel_used_after_a_long_sleep() {
    let mut world = World::pair(2, Place::Cone, Place::Open);
    world.establish(C, G);
    world.run_for(Duration::from_millis(2_970));
    world.suspend(Duration::from_secs(292));
    world.run_for(Duration::from_millis(4_330));
    world.suspend(Duration::from_secs(300));
    world.run_for(Duration::from_secs(60));
    recover(&mut world);
}
