//! Two servers behind one address, with a driver that carries what crosses: C-60.

use super::*;
use crate::{Holder, Shard, Users};

const A: &str = "192.0.2.1:40000";
const B: &str = "192.0.2.2:40000";

/// Two shards; the first serves client A, the second client B.
struct Pair {
    worlds: [World; 2],
    users: Users,
}

impl Pair {
    fn new() -> Self {
        let world = |index| {
            World::with(|config| {
                config.ports = range(8);
                config.shard = Shard::new(index, 2).unwrap();
                config.stamp_secret = Some("ab".repeat(32).parse().unwrap());
            })
        };
        Self {
            worlds: [world(0), world(1)],
            users: Users::default(),
        }
    }

    /// Carries what the log tells about users to the registry, and evictions back.
    fn settle(&mut self) {
        for index in 0..2 {
            for line in self.worlds[index].take_log() {
                let words: Vec<_> = line.split(' ').collect();
                let [what @ ("gained" | "lost"), username, client] = words[..] else {
                    continue;
                };
                let holder = Holder {
                    shard: index as u16,
                    client: ClientSocket::new(addr(client)),
                };
                match what {
                    "gained" => {
                        if let Some(oldest) = self.users.gained(username, holder, 1) {
                            let world = &mut self.worlds[usize::from(oldest.shard)];
                            world.server.evict(username, oldest.client);
                            world.execute();
                        }
                    }
                    _ => self.users.lost(username, holder),
                }
            }
        }
    }
}

#[test]
fn relay_60_ports_of_shards_are_disjoint() {
    let mut pair = Pair::new();
    let ports = pair.worlds.each_mut().map(|world| {
        let ports: Vec<_> = (0..4)
            .map(|index| {
                let user = world.user(&format!("user{index}"));
                world.allocate(addr(&format!("192.0.2.9:{}", 1000 + index)), &user)
            })
            .collect();
        let one_too_many = world.user("another");
        let reply = world.ask(addr("192.0.2.9:1"), &one_too_many, dual(None));
        assert_eq!(reply.code(), ErrorCode::INSUFFICIENT_CAPACITY);
        ports
    });
    assert!(ports[0].iter().all(|port| !ports[1].contains(port)));
}

#[test]
fn relay_60_one_allocation_per_user_over_shards() {
    let mut pair = Pair::new();
    let user = pair.worlds[0].user("salt");
    pair.worlds[0].allocate(addr(A), &user);
    pair.settle();
    pair.worlds[1].allocate(addr(B), &user);
    pair.settle();
    let counts = pair
        .worlds
        .each_ref()
        .map(|it| it.server.allocation_count());
    assert_eq!(counts, [0, 1]);
    // An eviction that comes late does not hit another user's allocation.
    let stranger = pair.worlds[0].user("stranger");
    pair.worlds[0].allocate(addr(A), &stranger);
    pair.worlds[0]
        .server
        .evict(&user.username, ClientSocket::new(addr(A)));
    assert_eq!(pair.worlds[0].server.allocation_count(), 1);
}

#[test]
fn relay_60_hairpin_between_shards() {
    let mut pair = Pair::new();
    let clients = [addr(A), addr(B)];
    let users = [0, 1].map(|index| pair.worlds[index].user(&format!("user{index}")));
    let ports = [0, 1].map(|index| pair.worlds[index].allocate(clients[index], &users[index]));
    let relayed = ports.map(|port| addr(&format!("{PUBLIC_V4}:{port}")));
    for index in [0, 1] {
        let other = relayed[1 - index];
        pair.worlds[index]
            .bind(clients[index], &users[index], 0x4000, other)
            .success();
    }
    pair.worlds[0].client_sends_data(clients[0], 0x4000, b"across");
    let crossing = Route::ToSibling {
        port: AllocationPort::new(ports[1]),
        from: PeerSocket::new(relayed[0]),
    };
    assert_eq!(
        pair.worlds[0].take_forwarded(),
        [(crossing, b"across".to_vec())]
    );
    pair.worlds[1].peer_sends(ports[1], relayed[0], b"across");
    assert_eq!(
        pair.worlds[1].take_forwarded(),
        [(to_client(clients[1], 0x4000), b"across".to_vec())]
    );
    // Each datagram counts as relayed once.
    let relayed = pair
        .worlds
        .each_ref()
        .map(|it| it.server.counters().relayed_packets);
    assert_eq!(relayed, [0, 1]);
}
