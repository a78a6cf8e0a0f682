//! Relays and who hears of them.

use std::time::Duration;

use serde_json::{Value, json};

use super::world::*;

fn ids(relays: &Value) -> Vec<String> {
    let entries = relays.as_array().unwrap();
    let mut ids: Vec<_> = entries
        .iter()
        .map(|relay| relay["id"].as_str().unwrap().to_owned())
        .collect();
    ids.dedup();
    ids
}

// portal 92
#[test]
fn portal_92_two_families_are_two_entries() {
    let mut world = World::new();
    world.join_relay(1);
    let (_, got) = world.join(&client());
    let relays = init(&got)["relays"].as_array().unwrap().clone();
    assert_eq!(relays.len(), 2);
    assert_eq!(relays[0]["addr"], "203.0.113.5:3478");
    assert_eq!(relays[1]["addr"], "[2001:db8::5]:3478");
    for relay in &relays {
        assert_eq!(relay["type"], "turn");
        assert_eq!(relay["id"], relays[0]["id"]);
        let (expiry, _) = relay["username"].as_str().unwrap().split_once(':').unwrap();
        assert_eq!(expiry.parse::<u64>().unwrap(), relay["expires_at"]);
    }
}

// portal 93
#[test]
fn portal_93_at_most_two_relays() {
    let mut world = World::new();
    for process in 1..=5 {
        world.join_relay(process);
    }
    let (_, client) = world.join(&client());
    assert_eq!(ids(&init(&client)["relays"]).len(), 2);
    let (_, gateway) = world.join(&gateway());
    assert_eq!(ids(&init(&gateway)["relays"]).len(), 2);
}

// portal 93
#[test]
fn portal_93_a_flap_inside_the_debounce_is_not_announced() {
    let mut world = World::new();
    let relay = world.join_relay(1);
    world.pass(Duration::from_secs(2));
    let (client, _) = world.join(&client());
    world.lose(relay);
    world.pass(Duration::from_millis(900));
    world.join_relay(1);
    world.pass(Duration::from_secs(10));
    assert_eq!(world.got(client), []);
}

#[test]
fn a_relay_that_is_really_gone_is_replaced() {
    let mut world = World::new();
    let relays: Vec<_> = (1..=3).map(|process| world.join_relay(process)).collect();
    world.pass(Duration::from_secs(2));
    let (client, got) = world.join(&client());
    let before = ids(&init(&got)["relays"]);
    let (gateway, _) = world.join(&gateway());
    let secret = |process: usize| format!("{process:02x}").repeat(32);
    let used = (1..=3)
        .find(|process| portal_core::derive::relay_id(&secret(*process)).to_string() == before[0]);
    world.lose(relays[used.unwrap() - 1]);
    world.pass(Duration::from_millis(999));
    assert_eq!(world.got(client), []);
    world.pass(Duration::from_millis(1));
    let presence = world.push_of(client, "relays_presence");
    assert_eq!(presence["disconnected_ids"], json!([before[0]]));
    let after = ids(&presence["connected"]);
    assert_eq!(after.len(), 2);
    assert!(!after.contains(&before[0]) && after.contains(&before[1]));
    assert!(world.events(gateway).len() <= 1);
}

#[test]
fn a_new_relay_is_announced_to_who_has_fewer_than_two() {
    let mut world = World::new();
    let (client, got) = world.join(&client());
    assert_eq!(init(&got)["relays"], json!([]));
    for (process, expected) in [(1, 1), (2, 2)] {
        world.join_relay(process);
        world.pass(Duration::from_secs(1));
        let presence = world.push_of(client, "relays_presence");
        assert_eq!(presence["disconnected_ids"], json!([]));
        assert_eq!(ids(&presence["connected"]).len(), expected);
    }
    world.join_relay(3);
    world.pass(Duration::from_secs(5));
    assert_eq!(world.got(client), [], "two are enough");
}

#[test]
fn a_restarted_relay_is_another_relay() {
    let mut world = World::new();
    let relay = world.join_relay(1);
    world.pass(Duration::from_secs(2));
    let (client, got) = world.join(&client());
    let before = ids(&init(&got)["relays"]);
    world.lose(relay);
    world.join_relay(2);
    world.pass(Duration::from_secs(1));
    let presence = world.push_of(client, "relays_presence");
    assert_eq!(presence["disconnected_ids"], json!(before));
    assert_ne!(ids(&presence["connected"]), before);
}

#[test]
fn flapping_relays_cannot_put_off_news_for_ever() {
    let mut world = World::new();
    let (client, _) = world.join(&client());
    world.join_relay(1);
    let mut flapping = world.join_relay(2);
    for _ in 0..10 {
        world.pass(Duration::from_millis(600));
        world.lose(flapping);
        flapping = world.join_relay(2);
    }
    assert!(!world.got(client).is_empty());
}

// portal 98
#[test]
fn portal_98_credentials_are_stable_while_the_key_is() {
    let mut world = World::new();
    world.join_relay(1);
    let relays = |world: &mut World, key| {
        let (id, got) = world.join(&Who { key, ..client() });
        let relays = init(&got)["relays"].clone();
        world.lose(id);
        relays
    };
    let first = relays(&mut world, 1);
    world.pass(Duration::from_secs(1000));
    assert_eq!(relays(&mut world, 1), first);
    let roamed = relays(&mut world, 2);
    assert_eq!(ids(&roamed), ids(&first));
    assert_ne!(roamed[0]["username"], first[0]["username"]);
    world.restart();
    world.join_relay(1);
    assert_eq!(relays(&mut world, 1), first);
}

#[test]
fn no_relays_is_answered_with_what_there_is() {
    let mut world = World::new();
    let (client, _) = world.join(&client());
    let (gateway, _) = world.join(&gateway());
    world.send(client, "client", "no_relays", json!({}));
    let empty = json!({ "disconnected_ids": [], "connected": [] });
    assert_eq!(world.push_of(client, "relays_presence"), empty);
    world.join_relay(1);
    for (id, topic) in [(client, "client"), (gateway, "gateway")] {
        world.send(id, topic, "no_relays", json!({}));
        let presence = world.push_of(id, "relays_presence");
        assert_eq!(ids(&presence["connected"]).len(), 1);
    }
    world.pass(Duration::from_secs(2));
    assert_eq!(
        world.got(client),
        [],
        "what was answered is not announced again"
    );
}

#[test]
fn a_relay_must_name_its_secret() {
    let mut world = World::new();
    let relay = world.connect(&Who {
        component: portal_core::token::Component::Relay,
        token: "relay",
        ..client()
    });
    let relay = relay.unwrap();
    for payload in [
        Value::Null,
        json!({}),
        json!({ "stamp_secret": "" }),
        json!({ "stamp_secret": 7 }),
        json!({ "stamp_secret": "x".repeat(300) }),
    ] {
        world.send(relay, "relay", "phx_join", payload);
        assert_eq!(world.got(relay), [Got::Error(1, "invalid_payload")]);
    }
    assert_eq!(world.portal.stats().relays, 0);
}

#[test]
fn a_relays_second_socket_replaces_its_first() {
    let mut world = World::new();
    let first = world.join_relay(1);
    world.join_relay(1);
    assert_eq!(
        world.got(first),
        [Got::Close(portal_core::CloseReason::Replaced)]
    );
    world.lose(first);
    assert_eq!(world.portal.stats().relays, 1);
}

#[test]
fn a_relay_that_moved_is_handed_out_anew() {
    let mut world = World::new();
    let relay = world.join_relay(1);
    world.pass(Duration::from_secs(2));
    let (client, got) = world.join(&client());
    let before = ids(&init(&got)["relays"]);
    world.lose(relay);
    let moved = Who {
        component: portal_core::token::Component::Relay,
        token: "relay",
        ..super::world::client()
    };
    let moved = world
        .connect_with(&moved, &[("ipv4", "203.0.113.99")])
        .unwrap();
    let secret = json!({ "stamp_secret": "01".repeat(32) });
    world.send(moved, "relay", "phx_join", secret);
    world.pass(Duration::from_secs(1));
    let presence = world.push_of(client, "relays_presence");
    assert_eq!(presence["disconnected_ids"], json!(before));
    assert_eq!(presence["connected"][0]["addr"], "203.0.113.99:3478");
}
