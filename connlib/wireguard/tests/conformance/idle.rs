//! Sessions over long idle times (snownet 43–45, testing §6.3).

use std::time::Duration;

use crate::world::{INIT, Side, World, millis, secs};

const IDLE: [u64; 11] = [169, 171, 179, 180, 181, 183, 200, 479, 481, 600, 3600];
const LATENCY: [u64; 3] = [0, 150, 400];
const DATA_BEFORE: [u64; 3] = [0, 50, 119];

/// From where the idle time counts.
#[derive(Debug, Clone, Copy)]
enum IdleSince {
    Session,
    Data,
}

#[derive(Debug, Clone, Copy)]
struct Case {
    idle: Duration,
    latency: Duration,
    data_at: Duration,
    since: IdleSince,
}

fn cases() -> impl Iterator<Item = Case> {
    IDLE.into_iter().flat_map(|idle| {
        LATENCY.into_iter().flat_map(move |latency| {
            DATA_BEFORE.into_iter().flat_map(move |data| {
                [IdleSince::Session, IdleSince::Data].map(|since| Case {
                    idle: secs(idle),
                    latency: millis(latency),
                    data_at: secs(data),
                    since,
                })
            })
        })
    })
}

impl Case {
    /// A session, an exchange of data on it, and the time at which the idle time is over.
    fn begin(self) -> (World, Duration) {
        let seed =
            (self.idle.as_secs() ^ self.latency.as_millis() as u64 ^ self.data_at.as_secs()) as u8;
        let (mut world, session) = World::connected(seed, self.latency);
        world.run_until(session + self.data_at);
        world.send(Side::Client, 1);
        world.run_for(self.latency);
        world.send(Side::Gateway, 2);
        world.run_for(self.latency);
        assert_eq!(
            (world.gateway.ids(), world.client.ids()),
            (vec![1], vec![2])
        );

        let since = match self.since {
            IdleSince::Session => session,
            IdleSince::Data => world.elapsed(),
        };
        (world, since + self.idle)
    }
}

/// Every initiation between the first session and `until` renews a session aged 150–165 s.
fn assert_only_renewals(world: &World, until: Duration) {
    let renewals: Vec<_> = world
        .inits_since(Duration::ZERO)
        .into_iter()
        .filter(|at| *at < until)
        .collect();

    for pair in renewals.windows(2) {
        let age = pair[1] - pair[0] - world.latency * 2;
        assert!(
            age >= secs(150) && age <= secs(165),
            "renewed at an age of {age:?}"
        );
    }
}

#[test]
fn snownet_43_client_packet_after_idle_is_delivered_at_once() {
    for case in cases() {
        let (mut world, at) = case.begin();
        world.run_until(at);
        assert_only_renewals(&world, at);

        assert_eq!(world.send(Side::Client, 3).sent, 1, "{case:?}");
        world.run_for(case.latency);
        assert_eq!(world.gateway.ids(), [1, 3], "{case:?}");

        world.run_for(secs(5));
        assert!(
            world.inits_since(at).len() <= 1,
            "{case:?}: {:?}",
            world.inits_since(at)
        );
        assert!(world.client.failures().is_empty());
    }
}

#[test]
fn snownet_43_client_packet_after_stall_waits_one_round_trip() {
    for case in cases() {
        let (mut world, at) = case.begin();
        world.client.stalled = true;
        world.run_until(at);
        let session_age = world.now - *world.client.established.values().max().unwrap();
        let sealed = world.send(Side::Client, 3);
        world.resume(Side::Client);

        let (expected, wait) = if session_age < secs(170) {
            ((1, 0), case.latency)
        } else {
            ((0, 1), case.latency * 3)
        };
        assert_eq!((sealed.sent, sealed.buffered), expected, "{case:?}");
        world.run_for(wait);
        assert_eq!(world.gateway.ids(), [1, 3], "{case:?}");

        world.run_for(secs(5));
        assert_eq!(world.inits_since(at).len(), 1, "{case:?}");
    }
}

/// The renewals of the idle time are lost. Where the attempts run out, the connection is made again with the same keys, and the
/// application repeats its packet.
#[test]
fn snownet_43_client_packet_after_lost_renewals() {
    for case in cases() {
        let (mut world, at) = case.begin();
        world.lose = Box::new(|record| record.kind == INIT);
        world.run_until(at);
        world.lose = Box::new(|_| false);

        if !world.client.failures().is_empty() {
            world.recreate_client([9; 32]);
        }
        world.send(Side::Client, 3);
        let sent_at = world.elapsed();
        while world.gateway.ids() != [1, 3] {
            world.run_for(millis(100));
            let failed = world
                .client
                .failures()
                .last()
                .is_some_and(|failed| *failed > sent_at);
            if failed && world.gateway.ids() == [1] {
                world.recreate_client([9; 32]);
                world.send(Side::Client, 3);
                world.client.events.clear();
            }
            assert!(
                world.elapsed() - sent_at < secs(6) + case.latency * 3,
                "{case:?}: not delivered"
            );
        }

        world.run_for(secs(2));
        assert_eq!(world.gateway.ids(), [1, 3], "{case:?}: delivered twice");
        let gaps: Vec<_> = world
            .inits_since(at)
            .windows(2)
            .map(|pair| pair[1] - pair[0])
            .collect();
        assert!(gaps.len() <= 1, "{case:?}: {gaps:?}");
    }
}

#[test]
fn snownet_44_gateway_packet_after_idle_is_delivered_at_once() {
    for case in cases() {
        let (mut world, at) = case.begin();
        world.run_until(at);

        assert_eq!(world.send(Side::Gateway, 3).sent, 1, "{case:?}");
        world.run_for(case.latency);
        assert_eq!(world.client.ids(), [2, 3], "{case:?}");
    }
}

/// Also testing LI-6.
#[test]
fn snownet_44_gateway_packet_without_session_is_dropped_and_counted() {
    for case in cases() {
        let (mut world, at) = case.begin();
        world.lose = Box::new(|record| record.kind == INIT);
        world.run_until(at);
        world.lose = Box::new(|_| false);
        let age = world.now - *world.gateway.established.values().max().unwrap();
        let sealed = world.send(Side::Gateway, 3);

        if age < secs(180) {
            assert_eq!(sealed.sent, 1, "{case:?}");
            continue;
        }
        assert_eq!(
            (sealed.sent, sealed.buffered, sealed.dropped),
            (0, 0, 1),
            "{case:?}"
        );
        assert_eq!(world.gateway.peer.stats().dropped_no_session, 1);

        world.recreate_client([9; 32]);
        world.send(Side::Client, 4);
        world.run_for(case.latency * 3);
        world.send(Side::Gateway, 5);
        world.run_for(case.latency);
        assert_eq!(
            (world.gateway.ids(), world.client.ids()),
            (vec![1, 4], vec![2, 5]),
            "{case:?}"
        );
    }
}

#[test]
fn snownet_45_both_ends_speak_at_once_after_expiry() {
    for latency in LATENCY {
        let (mut world, _) = World::connected(45, millis(latency));
        world.client.stalled = true;
        world.run_for(secs(200));
        let at = world.elapsed();

        assert_eq!(world.send(Side::Gateway, 1).dropped, 1);
        assert_eq!(world.send(Side::Client, 2).buffered, 1);
        world.resume(Side::Client);
        world.run_for(millis(latency) * 3);
        assert_eq!(world.gateway.ids(), [2]);

        world.send(Side::Gateway, 3);
        world.send(Side::Client, 4);
        world.run_for(secs(30));
        assert_eq!(
            (world.gateway.ids(), world.client.ids()),
            (vec![2, 4], vec![3])
        );
        assert_eq!(world.inits_since(at).len(), 1);
        assert_eq!(world.client.peer.stats().handshakes, 2);
        assert_eq!(world.gateway.peer.stats().handshakes, 2);
    }
}

/// testing LI-3, LI-4: delivered exactly once within 3 RTT + 1 s, driven and stalled.
#[test]
fn testing_li_3_idle_times() {
    let idle = [
        115, 119, 121, 150, 164, 166, 170, 174, 176, 179, 180, 181, 185, 200, 300, 360, 540, 541,
        600, 720,
    ];
    for (idle, stalled) in idle
        .into_iter()
        .flat_map(|idle| [(idle, false), (idle, true)])
    {
        let latency = millis(100);
        let (mut world, session) = World::connected(idle as u8, latency);
        world.client.stalled = stalled;
        world.run_until(session + secs(idle));

        world.send(Side::Client, 1);
        world.resume(Side::Client);
        world.run_for(latency * 6 + secs(1));
        assert_eq!(world.gateway.ids(), [1], "idle {idle} s, stalled {stalled}");
    }
}

/// testing LI-5
#[test]
fn testing_li_5_initiations_over_half_an_hour() {
    let (mut world, _) = World::connected(5, millis(50));
    for id in 0..4 {
        world.run_for(secs(420));
        world.send(Side::Client, id);
    }
    world.run_for(secs(120));

    assert_eq!(world.gateway.ids(), [0, 1, 2, 3]);
    for pair in world.inits_since(Duration::ZERO).windows(2) {
        assert!(pair[1] - pair[0] >= secs(115));
    }
}

/// snownet 6: after an hour of suspend nothing loops and the next packet recovers.
#[test]
fn snownet_6_one_hour_in_one_step() {
    let (mut world, _) = World::connected(6, millis(30));
    world.client.stalled = true;
    world.gateway.stalled = true;
    world.run_for(secs(3600));
    assert!(!world.client.peer.is_usable(world.now), "session is gone");
    assert!(!world.gateway.peer.is_usable(world.now), "session is gone");
    world.resume(Side::Client);
    world.resume(Side::Gateway);
    world.run_for(Duration::ZERO);

    world.send(Side::Client, 1);
    world.run_for(millis(90));
    assert_eq!(world.gateway.ids(), [1]);
}

/// snownet 4: equal seeds and scripts give equal decisions.
#[test]
fn snownet_4_determinism() {
    let run = |seed| {
        let (mut world, _) = World::connected(seed, millis(70));
        world.jitter = millis(20);
        for id in 0..40 {
            world.run_for(secs(u64::from(id) * 7 % 23));
            world.send(
                if id % 3 == 0 {
                    Side::Gateway
                } else {
                    Side::Client
                },
                id,
            );
        }
        world.run_for(secs(1000));
        world.trace
    };

    assert_eq!(run(1), run(1));
    assert_ne!(run(1), run(2));
}

/// W1 at the gateway: the packet is its first input after the stall, no timer ran.
#[test]
fn snownet_44_stalled_gateway_does_not_seal_under_an_expired_session() {
    for (stall, sent) in [(179, 1), (180, 0), (200, 0), (3600, 0)] {
        let (mut world, _) = World::connected(44, Duration::ZERO);
        world.lose = Box::new(|record| record.kind == INIT);
        world.gateway.stalled = true;
        world.run_for(secs(stall));

        let sealed = world.send(Side::Gateway, 1);
        assert_eq!(
            (sealed.sent, sealed.dropped),
            (sent, 1 - sent),
            "stalled for {stall} s"
        );
    }
}
