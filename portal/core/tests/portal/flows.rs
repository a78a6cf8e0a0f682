//! From a request to an introduction.

use std::time::Duration;

use connlib_messages::{Dialect, Message as _, client as to_client, gateway as to_gateway};
use portal_core::{TimeWindow, token::TokenHash};
use serde_json::{Value, json};

use super::world::*;

// portal 89
#[test]
fn portal_89_client_hears_only_after_the_gateways_acknowledgement() {
    let mut world = World::new();
    let (gateway, _) = world.join(&gateway());
    let (client, _) = world.join(&client());
    world.create_flow(client, LAB);
    assert_eq!(
        world.got(client),
        [],
        "no reply, and nothing before the acknowledgement"
    );
    let ask = world.push_of(gateway, "authorize_flow");
    world.send(
        gateway,
        "gateway",
        "flow_authorized",
        json!({ "ref": ask["ref"] }),
    );
    assert_eq!(world.got(gateway), [Got::Ok(1)]);
    let created = world.push_of(client, "flow_created");
    assert_eq!(created["resource_id"], json!(LAB));
    assert_eq!(created["gateway_group_id"], json!(BERLIN));
    assert!(created.get("site_id").is_none());
    for member in ["client_ice_credentials", "gateway_ice_credentials"] {
        assert_eq!(created[member], ask[member]);
    }
    assert_eq!(created["preshared_key"], ask["client"]["preshared_key"]);
    assert_eq!(ask["resource"]["address"], "10.40.0.0/16");
    assert_eq!(ask["expires_at"], Value::Null);
}

#[test]
fn both_messages_have_what_any_generation_wants() {
    let mut world = World::new();
    let (gateway, _) = world.join(&gateway());
    let (client, _) = world.join(&client());
    let (ask, created) = world.flow(client, gateway, LAB);
    for member in [
        "gateway_ipv4",
        "gateway_ipv6",
        "flow_logs_ingest_token",
        "gateway_public_key",
    ] {
        assert!(created[member].is_string(), "{member}");
    }
    assert_eq!(created["use_iceless"], false);
    assert!(
        ask["flow_logs_ingest_token"]
            .as_str()
            .unwrap()
            .split('.')
            .count()
            == 3
    );
    assert!(ask["flow_id"].is_string());
    assert_eq!(ask["subject"]["actor_name"], "Jo");
    assert_eq!(ask["actor"]["id"], json!(JO.0));
    assert_eq!(ask["client"]["version"], "1.5.0");
    assert_eq!(ask["client"]["device_os_name"], "Ubuntu");
    assert!(ask["client"]["ipv4"].is_string());
    assert!(to_client::FromPortal::parse("flow_created", created).is_ok());
    assert!(to_gateway::FromPortal::parse("authorize_flow", ask).is_ok());
}

#[test]
fn newer_paths_have_the_newer_names_and_each_side_its_own() {
    let mut world = World::new();
    let v2 = |who| Who {
        dialect: Dialect::V2,
        ..who
    };
    let (gateway, _) = world.join(&v2(gateway()));
    let (client, _) = world.join(&v2(client()));
    let wish = json!({ "resource_id": LAB, "connected_gateway_ids": [] });
    world.send(client, "client", "request_authorization", wish);
    let ask = world.push_of(gateway, "create_authorization");
    world.send(
        gateway,
        "gateway",
        "authorization_created",
        json!({ "ref": ask["ref"] }),
    );
    world.got(gateway);
    world.push_of(client, "authorization_created");
    world.lose(gateway);
    world.create_flow(client, WIKI);
    let failed = world.push_of(client, "authorization_creation_failed");
    assert_eq!(failed["reason"], "offline");
}

// portal 90
#[test]
fn portal_90_credentials_are_equal_for_repeats_and_differ_for_another_key() {
    let mut world = World::new();
    let (gateway_id, _) = world.join(&gateway());
    let (client_id, _) = world.join(&client());
    let (_, first) = world.flow(client_id, gateway_id, LAB);
    let (_, other_resource) = world.flow(client_id, gateway_id, WIKI);
    let (_, repeat) = world.flow(client_id, gateway_id, LAB);
    let username = first["client_ice_credentials"]["username"]
        .as_str()
        .unwrap();
    let password = first["client_ice_credentials"]["password"]
        .as_str()
        .unwrap();
    assert_eq!((username.len(), password.len()), (4, 22));
    let secrets = [
        "client_ice_credentials",
        "gateway_ice_credentials",
        "preshared_key",
    ];
    for secret in secrets {
        assert_eq!(first[secret], repeat[secret]);
        assert_eq!(first[secret], other_resource[secret]);
    }
    world.restart();
    let (gateway_id, _) = world.join(&gateway());
    let (client_id, _) = world.join(&client());
    let (_, restarted) = world.flow(client_id, gateway_id, LAB);
    let (roamed, _) = world.join(&Who { key: 8, ..client() });
    let (_, roamed) = world.flow(roamed, gateway_id, LAB);
    for secret in secrets {
        assert_eq!(first[secret], restarted[secret]);
        assert_ne!(first[secret], roamed[secret]);
    }
}

#[test]
fn a_gateway_that_does_not_acknowledge_is_offline_after_15_seconds() {
    let mut world = World::new();
    let (gateway, _) = world.join(&gateway());
    let (client, _) = world.join(&client());
    world.create_flow(client, LAB);
    let ask = world.push_of(gateway, "authorize_flow");
    world.pass(Duration::from_millis(14_999));
    assert_eq!(world.got(client), []);
    world.pass(Duration::from_millis(1));
    let failed = world.push_of(client, "flow_creation_failed");
    assert_eq!(failed, json!({ "resource_id": LAB, "reason": "offline" }));
    world.send(
        gateway,
        "gateway",
        "flow_authorized",
        json!({ "ref": ask["ref"] }),
    );
    assert_eq!(world.got(gateway), [Got::Error(1, "invalid_ref")]);
    assert_eq!(world.got(client), [], "a later acknowledgement is ignored");
}

#[test]
fn a_repeated_request_has_one_deadline_and_one_answer() {
    let mut world = World::new();
    let (gateway, _) = world.join(&gateway());
    let (client, _) = world.join(&client());
    world.create_flow(client, LAB);
    let first = world.push_of(gateway, "authorize_flow");
    world.pass(Duration::from_secs(2));
    world.create_flow(client, LAB);
    let second = world.push_of(gateway, "authorize_flow");
    assert_eq!(first["ref"], second["ref"]);
    for _ in 0..2 {
        world.send(
            gateway,
            "gateway",
            "flow_authorized",
            json!({ "ref": first["ref"] }),
        );
        assert_eq!(world.got(gateway), [Got::Ok(1)]);
    }
    assert_eq!(world.events(client), ["flow_created"]);
    world.pass(Duration::from_secs(30));
    assert_eq!(world.got(client), [], "no failure follows the success");
}

#[test]
fn an_acknowledgement_of_nothing_or_of_anothers_is_an_invalid_ref() {
    let mut world = World::new();
    let (one, _) = world.join(&gateway());
    let (client, _) = world.join(&client());
    world.send(
        one,
        "gateway",
        "flow_authorized",
        json!({ "ref": "made up" }),
    );
    assert_eq!(world.got(one), [Got::Error(1, "invalid_ref")]);
    world.create_flow(client, LAB);
    let ask = world.push_of(one, "authorize_flow");
    let (two, _) = world.join(&Who {
        id: "gateway 2",
        key: 3,
        ..gateway()
    });
    world.send(
        two,
        "gateway",
        "flow_authorized",
        json!({ "ref": ask["ref"] }),
    );
    assert_eq!(world.got(two), [Got::Error(1, "invalid_ref")]);
    assert_eq!(world.got(client), []);
}

#[test]
fn a_request_moves_on_when_its_gateway_goes() {
    let mut world = World::new();
    let (one, _) = world.join(&gateway());
    let (client, _) = world.join(&client());
    world.create_flow(client, LAB);
    let lost = world.push_of(one, "authorize_flow");
    world.pass(Duration::from_secs(10));
    world.lose(one);
    let (two, _) = world.join(&Who {
        id: "gateway 2",
        key: 3,
        ..gateway()
    });
    world.create_flow(client, LAB);
    let ask = world.push_of(two, "authorize_flow");
    assert_ne!(ask["ref"], lost["ref"]);
    world.pass(Duration::from_secs(14));
    assert_eq!(
        world.got(client),
        [],
        "the new gateway has its own 15 seconds"
    );
    world.send(
        two,
        "gateway",
        "flow_authorized",
        json!({ "ref": ask["ref"] }),
    );
    assert_eq!(world.events(client), ["flow_created"]);
    world.pass(Duration::from_secs(30));
    assert_eq!(world.got(client), []);
}

#[test]
fn refusals_and_their_order() {
    let mut world = World::new();
    let (jo, _) = world.join(&client());
    let (eve, _) = world.join(&Who {
        token: "eve",
        id: "eve's laptop",
        ..client()
    });
    let reason = |world: &mut World, id, resource| {
        world.create_flow(id, resource);
        world.push_of(id, "flow_creation_failed")["reason"].clone()
    };
    let unknown = connlib_model::ResourceId::from_u128(0xdead);
    assert_eq!(reason(&mut world, jo, unknown), "not_found");
    assert_eq!(reason(&mut world, eve, LAB), "not_found");
    assert_eq!(reason(&mut world, jo, LAB), "offline");
    let (old_gateway, _) = world.join(&Who {
        user_agent: "Debian/12 connlib/1.2.0",
        ..gateway()
    });
    assert_eq!(reason(&mut world, jo, LAB), "version_mismatch");
    world.lose(old_gateway);
    world.join(&gateway());
    world.reload(|config| {
        let conditions = &mut config.policies.get_mut(&LAB_POLICY).unwrap().conditions;
        conditions.remote_ip = vec!["10.0.0.0/8".parse().unwrap()];
        conditions.verified = true;
    });
    world.got(jo);
    world.create_flow(jo, LAB);
    let failed = world.push_of(jo, "flow_creation_failed");
    assert_eq!(failed["reason"], "forbidden");
    assert_eq!(
        failed["violated_properties"],
        json!(["remote_ip", "client_verified"])
    );
}

#[test]
fn access_ends_with_the_earlier_of_window_and_token() {
    let evening = NOON + 5 * 3600;
    for (token_end, expected) in [(NOON + 3600, NOON + 3600), (NOON + 9 * 3600, evening)] {
        let mut world = World::with({
            let mut config = config();
            let token = config.tokens.get_mut(&TokenHash::of("jo")).unwrap();
            token.expires_at = Some(token_end);
            let policy = config.policies.get_mut(&LAB_POLICY).unwrap();
            policy.conditions.times = vec![TimeWindow::new(0..5, 9 * 60, 17 * 60, 0).unwrap()];
            config
        });
        let (gateway, _) = world.join(&gateway());
        let (client, _) = world.join(&client());
        let (ask, _) = world.flow(client, gateway, LAB);
        assert_eq!(ask["expires_at"], expected);
    }
}

#[test]
fn candidates_are_forwarded_to_who_is_there() {
    let mut world = World::new();
    let (gateway, _) = world.join(&gateway());
    let (client, _) = world.join(&client());
    let (ask, created) = world.flow(client, gateway, LAB);
    let (client_id, gateway_id) = (&ask["client"]["id"], &created["gateway_id"]);
    let line = "candidate:842163049 1 udp 2130706175 192.0.2.44 52625 typ host";
    let nobody = "c18e4b07-92d6-4f3a-b75e-0d61f8a24e66";
    for (event, forwarded) in [
        ("broadcast_ice_candidates", "ice_candidates"),
        (
            "broadcast_invalidated_ice_candidates",
            "invalidate_ice_candidates",
        ),
    ] {
        let message = json!({ "gateway_ids": [nobody, gateway_id], "candidates": [line] });
        world.send(client, "client", event, message);
        let got = world.push_of(gateway, forwarded);
        assert_eq!(got, json!({ "client_id": client_id, "candidates": [line] }));
        let message = json!({ "client_ids": [client_id, nobody], "candidates": [line] });
        world.send(gateway, "gateway", event, message);
        let got = world.push_of(client, forwarded);
        assert_eq!(
            got,
            json!({ "gateway_id": gateway_id, "candidates": [line] })
        );
    }
    for (event, forwarded) in [
        ("new_gateway_ice_candidates", "ice_candidates"),
        (
            "invalidate_gateway_ice_candidates",
            "invalidate_ice_candidates",
        ),
    ] {
        let message = json!({ "gateway_id": gateway_id, "candidates": [line] });
        world.send(client, "client", event, message);
        world.push_of(gateway, forwarded);
    }
    world.lose(gateway);
    let message = json!({ "gateway_ids": [gateway_id], "candidates": [line] });
    world.send(client, "client", "broadcast_ice_candidates", message);
    assert_eq!(world.got(client), []);
}

// portal 94
#[test]
fn portal_94_a_gateway_in_use_is_chosen_again() {
    let mut world = World::new();
    let mut ids = Vec::new();
    for index in 0..4 {
        let name = format!("gateway {index}");
        ids.push(
            world
                .join(&Who {
                    id: &name,
                    key: 20 + index,
                    ..gateway()
                })
                .0,
        );
    }
    let (client, _) = world.join(&client());
    world.create_flow(client, LAB);
    let first = ids
        .iter()
        .copied()
        .find(|id| !world.got(*id).is_empty())
        .unwrap();
    let in_use = world.records.authorizations[0].gateway;
    for _ in 0..20 {
        let wish = json!({ "resource_id": WIKI, "connected_gateway_ids": [in_use] });
        world.send(client, "client", "create_flow", wish);
        assert_eq!(world.events(first), ["authorize_flow"]);
    }
}

#[test]
fn one_client_cannot_pile_up_requests() {
    let mut world = World::with({
        let mut config = config();
        for index in 0..600 {
            let id = connlib_model::ResourceId::from_u128(0x1000 + index);
            let mut resource = config.resources[&LAB].clone();
            resource.id = id;
            config.resources.insert(id, resource);
            let policy = portal_core::config::PolicyId(uuid::Uuid::from_u128(0x2000 + index));
            let mut granted = config.policies[&LAB_POLICY].clone();
            granted.resource = id;
            config.policies.insert(policy, granted);
        }
        config
    });
    world.join(&gateway());
    let (client, _) = world.join(&client());
    for index in 0..600 {
        world.create_flow(client, connlib_model::ResourceId::from_u128(0x1000 + index));
    }
    assert_eq!(world.portal.stats().flows_pending, 256);
    world.pass(Duration::from_secs(15));
    assert_eq!(world.portal.stats().flows_pending, 0);
}

#[test]
fn a_client_that_left_its_channel_hears_nothing() {
    let mut world = World::new();
    let (gateway, _) = world.join(&gateway());
    let (client, _) = world.join(&client());
    world.create_flow(client, LAB);
    let ask = world.push_of(gateway, "authorize_flow");
    world.send(client, "client", "phx_leave", json!({}));
    assert_eq!(world.got(client), [Got::Ok(1)]);
    world.send(
        gateway,
        "gateway",
        "flow_authorized",
        json!({ "ref": ask["ref"] }),
    );
    assert_eq!(world.got(gateway), [Got::Ok(1)]);
    assert_eq!(world.got(client), []);
}
