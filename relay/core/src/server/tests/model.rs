//! Random operations against a naive model: C-47. The invariants are checked behind every step by the world itself.

use std::collections::BTreeMap;

use super::*;
use proptest::prelude::*;

const CLIENTS: usize = 8;
const PEERS: usize = 4;
const PORTS: u16 = 16;

#[derive(Debug, Clone)]
enum Step {
    Allocate(usize),
    Refresh(usize, u32),
    Bind(usize, u16, usize),
    FromClient(usize, u16),
    FromPeer(usize, usize),
    Wait(u64),
    Garbage(usize, Vec<u8>),
}

fn step() -> impl Strategy<Value = Step> {
    let lifetime = prop_oneof![Just(0u32), 1u32..4000];
    prop_oneof![
        (0..CLIENTS).prop_map(Step::Allocate),
        (0..CLIENTS, lifetime).prop_map(|(client, lifetime)| Step::Refresh(client, lifetime)),
        (0..CLIENTS, 0x4000u16..0x4004, 0..PEERS).prop_map(|(c, n, p)| Step::Bind(c, n, p)),
        (0..CLIENTS, 0x4000u16..0x4004).prop_map(|(client, n)| Step::FromClient(client, n)),
        (0..CLIENTS, 0..PEERS).prop_map(|(client, peer)| Step::FromPeer(client, peer)),
        (1u64..700).prop_map(Step::Wait),
        (0..CLIENTS, prop::collection::vec(any::<u8>(), 0..60))
            .prop_map(|(c, b)| Step::Garbage(c, b)),
    ]
}

/// What a relay is, without tables or timers.
#[derive(Default)]
struct Model {
    allocations: BTreeMap<usize, ModelAllocation>,
    now: u64,
}

struct ModelAllocation {
    port: u16,
    expires: u64,
    /// Number → (peer, second of the last bind).
    channels: BTreeMap<u16, (usize, u64)>,
}

impl Model {
    fn expire(&mut self) {
        let now = self.now;
        self.allocations.retain(|_, it| it.expires > now);
        for allocation in self.allocations.values_mut() {
            allocation
                .channels
                .retain(|_, (_, bound)| *bound + 900 > now);
        }
    }

    /// The error code, if any.
    fn bind(&mut self, client: usize, number: u16, peer: usize) -> Option<u16> {
        let now = self.now;
        let Some(allocation) = self.allocations.get_mut(&client) else {
            return Some(437);
        };
        let conflict = allocation
            .channels
            .iter()
            .any(|(n, (p, _))| (*n == number) != (*p == peer));
        if conflict {
            return Some(400);
        }
        allocation.channels.insert(number, (peer, now));
        None
    }
}

fn client(index: usize) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, 1], 1000 + index as u16))
}

fn peer(index: usize) -> SocketAddr {
    match index % 2 {
        0 => SocketAddr::from(([203, 0, 113, 1], 1 + index as u16)),
        _ => SocketAddr::from(([0x2001, 0xdb8, 9, 0, 0, 0, 0, 1], 1 + index as u16)),
    }
}

fn code(reply: &Reply) -> Option<u16> {
    match reply.response().outcome {
        Outcome::Error(error) => Some(error.code.get()),
        Outcome::Success(_) => None,
    }
}

fn perform(world: &mut World, model: &mut Model, step: Step) {
    match step {
        Step::Allocate(index) => {
            let user = world.user(&format!("user{index}"));
            let reply = world.ask(client(index), &user, dual(None));
            if model.allocations.contains_key(&index) {
                assert_eq!(code(&reply), Some(437));
                return;
            }
            let (relayed, lifetime) = reply.allocated();
            let allocation = ModelAllocation {
                port: relayed[0].port(),
                expires: model.now + u64::from(lifetime),
                channels: BTreeMap::new(),
            };
            assert!(
                model
                    .allocations
                    .values()
                    .all(|it| it.port != allocation.port)
            );
            model.allocations.insert(index, allocation);
        }
        Step::Refresh(index, lifetime) => {
            let user = world.user(&format!("user{index}"));
            let reply = world.refresh(client(index), &user, lifetime);
            match model.allocations.get_mut(&index) {
                None => assert_eq!(code(&reply), Some(437)),
                Some(_) if lifetime == 0 => {
                    assert_eq!(reply.refreshed(), 0);
                    model.allocations.remove(&index);
                }
                Some(allocation) => {
                    let granted = lifetime.min(3600);
                    assert_eq!(reply.refreshed(), granted);
                    allocation.expires = model.now + u64::from(granted);
                }
            }
        }
        Step::Bind(index, number, to) => {
            let user = world.user(&format!("user{index}"));
            let reply = world.bind(client(index), &user, number, peer(to));
            assert_eq!(code(&reply), model.bind(index, number, to));
        }
        Step::FromClient(index, number) => {
            world.client_sends_data(client(index), number, b"data");
            let expected = model.allocations.get(&index).and_then(|allocation| {
                let (to, bound) = allocation.channels.get(&number)?;
                (bound + 600 > model.now).then(|| to_peer(allocation.port, peer(*to)))
            });
            let got: Vec<_> = world
                .take_forwarded()
                .into_iter()
                .map(|(to, _)| to)
                .collect();
            assert_eq!(got, expected.into_iter().collect::<Vec<_>>());
        }
        Step::FromPeer(index, from) => {
            let Some(allocation) = model.allocations.get(&index) else {
                return;
            };
            world.peer_sends(allocation.port, peer(from), b"data");
            let bound = |it: &(&u16, &(usize, u64))| it.1.0 == from && it.1.1 + 600 > model.now;
            let expected = allocation.channels.iter().find(bound);
            let expected = expected.map(|(number, _)| to_client(client(index), *number));
            let got: Vec<_> = world
                .take_forwarded()
                .into_iter()
                .map(|(to, _)| to)
                .collect();
            assert_eq!(got, expected.into_iter().collect::<Vec<_>>());
        }
        Step::Wait(seconds) => {
            model.now += seconds;
            world.advance(secs(seconds));
        }
        Step::Garbage(index, bytes) => {
            // Replies to well-formed headers are possible and of no interest here.
            world.client_sends(client(index), &bytes);
            world.replies.clear();
            assert_eq!(world.take_forwarded().len(), 0);
        }
    }
}

/// Few in every run; at night PROPTEST_CASES=10000.
fn cases() -> u32 {
    let wish = std::env::var("PROPTEST_CASES").ok();
    wish.and_then(|wish| wish.parse().ok()).unwrap_or(128)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(cases()))]

    #[test]
    fn relay_47_agrees_with_a_naive_model(steps in prop::collection::vec(step(), 1..80)) {
        let mut world = World::new(PORTS);
        let mut model = Model::default();
        for step in steps {
            perform(&mut world, &mut model, step);
            model.expire();
            prop_assert_eq!(world.server.allocation_count(), model.allocations.len());
        }
    }
}
