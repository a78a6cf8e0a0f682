//! Whatever components send, in whatever order, the portal neither panics nor forgets its deadlines.

use std::time::Duration;

use connlib_messages::Dialect;
use portal_core::{ConnectionId, token::Component};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::world::*;

#[derive(Debug, Clone)]
enum Step {
    Connect(u8, Component, Dialect),
    Send(u8, &'static str, &'static str, u8),
    Lose(u8),
    Pass(u16),
    Reload(u8),
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    use Component::{Client, Gateway, Relay};
    let component = prop_oneof![Just(Client), Just(Gateway), Just(Relay)];
    let dialect = prop_oneof![Just(Dialect::Unversioned), Just(Dialect::V2)];
    let topic = prop_oneof![
        4 => Just("client"), 4 => Just("gateway"), 2 => Just("relay"), 1 => Just("phoenix"), 1 => Just("x")
    ];
    let events = [
        "phx_join",
        "phx_join",
        "phx_leave",
        "heartbeat",
        "create_flow",
        "create_flow",
        "flow_authorized",
        "broadcast_ice_candidates",
        "no_relays",
        "made_up",
    ];
    prop_oneof![
        3 => (0u8..8, component, dialect).prop_map(|(who, c, d)| Step::Connect(who, c, d)),
        12 => (0u8..8, topic, prop::sample::select(events.to_vec()), 0u8..6)
            .prop_map(|(who, topic, event, payload)| Step::Send(who, topic, event, payload)),
        1 => (0u8..8).prop_map(Step::Lose),
        2 => (0u16..40_000).prop_map(Step::Pass),
        1 => (0u8..6).prop_map(Step::Reload),
        1 => Just(Step::Restart),
    ]
}

fn payload(choice: u8) -> Value {
    match choice {
        0 => Value::Null,
        1 => json!({ "resource_id": LAB, "connected_gateway_ids": [] }),
        2 => json!({ "resource_id": WIKI, "connected_gateway_ids": ["x", 7] }),
        3 => json!({ "stamp_secret": "ab".repeat(32), "ref": "x" }),
        4 => json!({ "gateway_ids": [], "client_ids": [7], "candidates": ["x"] }),
        _ => json!([1, 2, 3]),
    }
}

fn change(choice: u8, config: &mut portal_core::config::Config) {
    match choice {
        0 => drop(config.policies.remove(&LAB_POLICY)),
        1 => drop(config.people.remove(&JO)),
        2 => only_ssh(config),
        3 => config.dns_servers.push("9.9.9.9:53".parse().unwrap()),
        4 => config
            .tokens
            .values_mut()
            .for_each(|token| token.expires_at = Some(NOON + 30)),
        _ => *config = super::world::config(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    #[test]
    fn any_sequence_of_inputs(steps in prop::collection::vec(step(), 1..120)) {
        let mut world = World::new();
        let mut connections: Vec<Option<ConnectionId>> = vec![None; 8];
        for step in steps {
            match step {
                Step::Connect(who, component, dialect) => {
                    let token = match component {
                        Component::Client => "jo",
                        Component::Gateway => "berlin",
                        Component::Relay => "relay",
                    };
                    let id = format!("device {}", who % 3);
                    let login = Who { component, dialect, token, id: &id, key: who, ..client() };
                    if let Ok(id) = world.connect(&login) {
                        connections[usize::from(who)] = Some(id);
                    }
                }
                Step::Send(who, topic, event, choice) => {
                    if let Some(id) = connections[usize::from(who)] {
                        world.send(id, topic, event, payload(choice));
                    }
                }
                Step::Lose(who) => {
                    if let Some(id) = connections[usize::from(who)].take() {
                        world.lose(id);
                    }
                }
                Step::Pass(millis) => world.pass(Duration::from_millis(millis.into())),
                Step::Reload(choice) => world.reload(|config| change(choice, config)),
                Step::Restart => {
                    world.restart();
                    connections.fill(None);
                }
            }
            let stats = world.portal.stats();
            prop_assert_eq!(stats.authorizations, world.records.authorizations.len());
            prop_assert_eq!(stats.devices, world.records.devices.len());
        }
        for id in connections.into_iter().flatten() {
            world.lose(id);
        }
        world.pass(Duration::from_secs(60));
        prop_assert_eq!(world.portal.stats().flows_pending, 0);
        prop_assert_eq!(world.portal.poll_timeout(), None, "nobody is there and nothing is planned");
    }
}
