//! Joins, frames, and the ends of sessions.

use std::time::Duration;

use connlib_messages::{Message as _, client, gateway};
use portal_core::{CloseReason, token::Holder};
use serde_json::{Value, json};

use super::world::*;

// portal 88
#[test]
fn portal_88_init_follows_the_join_reply_and_precedes_all_else() {
    let mut world = World::new();
    let (_, got) = world.join(&client());
    let payload = init(&got);
    assert_eq!(payload["resources"].as_array().unwrap().len(), 2);
    let (_, got) = world.join(&gateway());
    init(&got);
    let relay = world.connect(&Who {
        component: portal_core::token::Component::Relay,
        token: "relay",
        ..client()
    });
    let relay = relay.unwrap();
    world.send(
        relay,
        "relay",
        "phx_join",
        json!({"stamp_secret": "7d".repeat(32)}),
    );
    let got = world.got(relay);
    assert_eq!(got, [Got::Ok(1), Got::Push("init".to_owned(), json!({}))]);
}

#[test]
fn nothing_is_pushed_before_the_join() {
    let mut world = World::new();
    let id = world.connect(&client()).unwrap();
    world.reload(only_ssh);
    world.join_relay(1);
    world.pass(Duration::from_secs(5));
    assert_eq!(world.got(id), []);
}

#[test]
fn init_of_a_client_has_everything_that_any_generation_wants() {
    let mut world = World::with({
        let mut config = config();
        config.dns_servers = vec!["9.9.9.9:53".parse().unwrap()];
        config.search_domain = Some("corp.example".to_owned());
        config
    });
    let (_, got) = world.join(&client());
    let payload = init(&got);
    let interface = &payload["interface"];
    assert_eq!(
        interface["upstream_dns"],
        json!([{"protocol": "ip_port", "address": "9.9.9.9:53"}])
    );
    assert_eq!(interface["upstream_do53"], json!([{"ip": "9.9.9.9"}]));
    assert_eq!(interface["search_domain"], "corp.example");
    assert_eq!(payload["authorizations"], json!([]));
    assert_eq!(payload["relays"], json!([]));
    assert_eq!(payload["flow_logs"]["upload_interval_secs"], 0);
    assert!(
        payload["flow_logs"]["api_url"]
            .as_str()
            .unwrap()
            .starts_with("https://")
    );
    for resource in payload["resources"].as_array().unwrap() {
        assert_eq!(resource["gateway_groups"][0]["name"], "Berlin");
        assert!(
            resource.get("sites").is_none(),
            "both names would be an error"
        );
    }
    let message = client::FromPortal::parse("init", payload.clone()).unwrap();
    assert!(matches!(message, client::FromPortal::Init(init) if init.resources.len() == 2));
}

#[test]
fn init_of_a_gateway_has_everything_that_any_generation_wants() {
    let mut world = World::new();
    let (_, got) = world.join(&gateway());
    let payload = init(&got);
    let config = json!({"ipv4_masquerade_enabled": true, "ipv6_masquerade_enabled": true});
    assert_eq!(payload["config"], config);
    assert_eq!(payload["authorizations"], json!([]));
    assert!(payload["flow_logs"].is_object());
    assert!(payload["account_slug"].is_string());
    assert!(gateway::FromPortal::parse("init", payload.clone()).is_ok());
}

// portal 91
#[test]
fn portal_91_single_address_is_a_network_of_one() {
    for (single, expected) in [
        ("192.0.2.17", "192.0.2.17/32"),
        ("2001:db8::17", "2001:db8::17/128"),
    ] {
        let mut world = World::new();
        world.reload(|config| {
            let lab = config.resources.get_mut(&LAB).unwrap();
            let ip: std::net::IpAddr = single.parse().unwrap();
            lab.target = portal_core::config::Target::Cidr(ip.into());
        });
        let (_, got) = world.join(&client());
        let resources = init(&got)["resources"].as_array().unwrap().clone();
        let lab = resources
            .iter()
            .find(|resource| resource["name"] == "Lab")
            .unwrap();
        assert_eq!(lab["type"], "cidr");
        assert_eq!(lab["address"], expected);
    }
}

// portal 95
#[test]
fn portal_95_unknown_event_is_refused_and_the_channel_lives() {
    let mut world = World::new();
    let (id, _) = world.join(&client());
    for event in ["prepare_connection", "made_up", "authorize_flow"] {
        world.send(id, "client", event, json!({}));
        assert_eq!(world.got(id), [Got::Error(1, "unknown_message")], "{event}");
    }
    world.send(id, "client", "create_flow", json!({"resource_id": 7}));
    assert_eq!(world.got(id), [Got::Error(1, "invalid_payload")]);
    world.send(id, "client", "create_log_sink", json!({}));
    assert_eq!(world.got(id), [Got::Error(1, "disabled")]);
    world.send(id, "phoenix", "heartbeat", json!({}));
    assert_eq!(world.got(id), [Got::Ok(1)]);
    let (gateway, _) = world.join(&gateway());
    world.send(gateway, "gateway", "connection_ready", json!({}));
    assert_eq!(world.got(gateway), [Got::Error(1, "unknown_message")]);
    world.send(gateway, "gateway", "metrics", json!({"metrics": []}));
    assert_eq!(world.got(gateway), [Got::Ok(1)]);
    for id in [id, gateway] {
        let topic = if id == gateway { "gateway" } else { "client" };
        world.send(
            id,
            topic,
            "set_snownet_capabilities",
            json!({"iceless": true}),
        );
        assert_eq!(world.got(id), []);
    }
}

// portal 96
#[test]
fn portal_96_heartbeats_are_answered_before_and_after_the_join() {
    let mut world = World::new();
    let id = world.connect(&client()).unwrap();
    world.send(id, "phoenix", "heartbeat", json!({}));
    assert_eq!(world.got(id), [Got::Ok(1)]);
}

#[test]
fn topics_that_are_not_joined_are_unmatched() {
    let mut world = World::new();
    let id = world.connect(&client()).unwrap();
    let unmatched = [Got::Error(1, "unmatched topic")];
    world.send(id, "client", "no_relays", json!({}));
    assert_eq!(world.got(id), unmatched);
    world.send(id, "gateway", "phx_join", Value::Null);
    assert_eq!(world.got(id), unmatched);
    world.send(id, "phoenix", "made_up", json!({}));
    assert_eq!(world.got(id), unmatched);
    world.send(id, "client", "phx_join", Value::Null);
    assert_eq!(world.got(id).len(), 2);
    world.send(id, "client", "phx_leave", json!({}));
    assert_eq!(world.got(id), [Got::Ok(1)]);
    world.send(id, "client", "no_relays", json!({}));
    assert_eq!(world.got(id), unmatched);
}

#[test]
fn a_second_join_brings_the_full_state_again() {
    let mut world = World::new();
    let (id, first) = world.join(&client());
    world.send(id, "client", "phx_join", Value::Null);
    let again = world.got(id);
    assert_eq!(again[0], Got::Ok(1));
    assert_eq!(again[1..], first);
}

#[test]
fn a_token_that_ends_ends_its_sessions() {
    let mut world = World::with({
        let mut config = config();
        for token in config.tokens.values_mut() {
            token.expires_at = Some(NOON + 60);
        }
        config
    });
    let (client, _) = world.join(&client());
    let (gateway, _) = world.join(&gateway());
    let relay = world.join_relay(1);
    world.pass(Duration::from_millis(1500));
    world.got(client);
    world.got(gateway);
    world.got(relay);
    world.pass(Duration::from_secs(58));
    assert_eq!(world.got(client), []);
    world.pass(Duration::from_secs(2));
    let ended = [
        Got::Push("disconnect".to_owned(), json!({"reason": "token_expired"})),
        Got::Close(CloseReason::TokenEnded),
    ];
    assert_eq!(world.got(client), ended);
    assert_eq!(world.got(gateway), ended);
    assert_eq!(world.got(relay), [Got::Close(CloseReason::TokenEnded)]);
    assert!(world.connect(&super::world::client()).is_err());
}

#[test]
fn a_token_that_ends_between_upgrade_and_join_refuses_the_join() {
    let mut world = World::with({
        let mut config = config();
        config
            .tokens
            .values_mut()
            .for_each(|token| token.expires_at = Some(NOON + 1));
        config
    });
    let id = world.connect(&client()).unwrap();
    world.time.unix += 1;
    world.send(id, "client", "phx_join", Value::Null);
    assert_eq!(world.got(id), [Got::Error(1, "token_expired")]);
}

#[test]
fn a_token_of_another_holder_ends_the_session() {
    let mut world = World::new();
    let (id, _) = world.join(&client());
    world.reload(|config| {
        let hash = portal_core::token::TokenHash::of("jo");
        config.tokens.insert(hash, token_of(Holder::Client(EVE)));
    });
    assert_eq!(
        world.got(id).last(),
        Some(&Got::Close(CloseReason::TokenEnded))
    );
}
