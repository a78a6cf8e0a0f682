//! The examples of the protocol description: each is read, written back and read again.

#![allow(clippy::unwrap_used)]

use std::{fs, path::PathBuf};

use connlib_messages::{
    Dialect, FailureReason, Key, Message, ViolatedProperty, client, gateway, relay,
};
use connlib_model::{Filter, GatewayResource, Resource};
use serde_json::{Value, json};

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("golden")
}

fn golden(name: &str) -> Value {
    let text = fs::read_to_string(folder().join(format!("{name}.json"))).unwrap();
    serde_json::from_str(&text).unwrap()
}

fn names(prefix: &str) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(folder())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter_map(|name| name.strip_suffix(".json").map(str::to_owned))
        .filter(|name| name.starts_with(prefix))
        .collect();
    names.sort();
    assert!(!names.is_empty());
    names
}

fn read<T: Message>(frame: &Value) -> T {
    T::parse(frame["event"].as_str().unwrap(), frame["payload"].clone()).unwrap()
}

/// Every member of `expected` is in `actual`.
fn assert_contains(actual: &Value, expected: &Value, path: &str) {
    match (actual, expected) {
        (Value::Object(actual), Value::Object(expected)) => {
            for (name, value) in expected {
                let path = format!("{path}.{name}");
                let member = actual
                    .get(name)
                    .unwrap_or_else(|| panic!("{path} is missing"));
                assert_contains(member, value, &path);
            }
        }
        (Value::Array(actual), Value::Array(expected)) => {
            assert_eq!(actual.len(), expected.len(), "{path}");
            for (index, (actual, expected)) in actual.iter().zip(expected).enumerate() {
                assert_contains(actual, expected, &format!("{path}[{index}]"));
            }
        }
        (actual, expected) => assert_eq!(actual, expected, "{path}"),
    }
}

/// Reads each golden of a direction, writes it, reads it again; hands out names, golden frames and messages.
fn round_trip<T: Message + PartialEq + std::fmt::Debug>(prefix: &str) -> Vec<(String, Value, T)> {
    names(prefix)
        .into_iter()
        .map(|name| {
            let frame = golden(&name);
            let message: T = read(&frame);
            for dialect in [Dialect::Unversioned, Dialect::V2] {
                let again = T::parse(message.event(dialect), message.payload()).unwrap();
                assert_eq!(again, message, "{name}");
            }
            (name, frame, message)
        })
        .collect()
}

fn is_unknown(message: &impl std::fmt::Debug) -> bool {
    format!("{message:?}").starts_with("Unknown")
}

/// Messages of features that are not built: read and skipped.
const NOT_BUILT: [&str; 15] = [
    "client.from.client_device_access_authorized",
    "client.from.client_device_access_denied",
    "client.from.client_ice_candidate_error",
    "client.from.client_ice_candidates",
    "client.from.device_pool_domain_resolution_failed",
    "client.from.device_pool_domain_resolved",
    "client.from.reject_access",
    "client.from.resource_filters_updated",
    "client.to.new_client_ice_candidates",
    "client.to.prepare_connection",
    "client.to.resolve_device_pool_domain",
    "client.to.reuse_connection",
    "gateway.from.allow_access",
    "gateway.from.request_connection",
    "gateway.to.connection_ready",
];

/// Examples whose missing ports are written explicitly, or with names that are read but not written.
const WRITTEN_DIFFERENTLY: [&str; 7] = [
    "client.from.authorization_created",
    "client.from.init.2",
    "client.from.resource_created_or_updated",
    "client.to.invalidate_gateway_ice_candidates",
    "client.to.new_gateway_ice_candidates",
    "client.to.request_authorization",
    "gateway.from.resource_updated",
];

fn check<T: Message + PartialEq + std::fmt::Debug>(prefix: &str) {
    for (name, frame, message) in round_trip::<T>(prefix) {
        let unknown = is_unknown(&message);
        assert_eq!(unknown, NOT_BUILT.contains(&&*name), "{name}");
        let differs = WRITTEN_DIFFERENTLY.contains(&&*name) || name == "gateway.to.metrics";
        if !unknown && !differs {
            assert_contains(&message.payload(), &frame["payload"], &name);
        }
    }
}

// portal 46, portal 52
#[test]
fn every_example_is_understood_or_skipped() {
    check::<client::FromPortal>("client.from.");
    check::<client::ToPortal>("client.to.");
    check::<gateway::FromPortal>("gateway.from.");
    check::<gateway::ToPortal>("gateway.to.");
    check::<relay::FromPortal>("relay.from.");
}

/// Adds members that nobody knows to every object of `value`.
fn add_unknown_members(value: &mut Value) {
    match value {
        Value::Object(members) => {
            members.values_mut().for_each(add_unknown_members);
            members.insert("zz_of_tomorrow".to_owned(), json!({"a": [1, null]}));
            members.insert("a_flag".to_owned(), json!(true));
        }
        Value::Array(entries) => entries.iter_mut().for_each(add_unknown_members),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn check_unknown_members<T: Message + PartialEq + std::fmt::Debug>(prefix: &str) {
    for name in names(prefix) {
        let frame = golden(&name);
        let message: T = read(&frame);
        if is_unknown(&message) {
            continue;
        }
        let mut extended = frame.clone();
        add_unknown_members(&mut extended["payload"]);
        assert_eq!(read::<T>(&extended), message, "{name}");
    }
}

#[test]
fn portal_46_unknown_members_are_ignored_at_every_level() {
    check_unknown_members::<client::FromPortal>("client.from.");
    check_unknown_members::<client::ToPortal>("client.to.");
    check_unknown_members::<gateway::FromPortal>("gateway.from.");
    check_unknown_members::<gateway::ToPortal>("gateway.to.");
    check_unknown_members::<relay::FromPortal>("relay.from.");
}

#[test]
fn portal_52_site_of_a_flow_under_both_names() {
    let mut frame = golden("client.from.flow_created");
    let old: client::FromPortal = read(&frame);
    let payload = frame["payload"].as_object_mut().unwrap();
    let site = payload.remove("gateway_group_id").unwrap();
    assert!(client::FromPortal::parse("flow_created", Value::Object(payload.clone())).is_err());
    payload.insert("site_id".to_owned(), site);
    assert_eq!(read::<client::FromPortal>(&frame), old);
}

#[test]
fn sent_messages_are_written_exactly_as_in_the_examples() {
    for name in [
        "client.to.create_flow",
        "client.to.create_flow.2",
        "client.to.broadcast_ice_candidates",
        "client.to.broadcast_invalidated_ice_candidates",
    ] {
        let frame = golden(name);
        let written = serde_json::to_value(read::<client::ToPortal>(&frame)).unwrap();
        assert_eq!(written["event"], frame["event"]);
        assert_eq!(written["payload"], frame["payload"]);
    }
    for name in [
        "gateway.to.flow_authorized",
        "gateway.to.broadcast_ice_candidates",
        "gateway.to.broadcast_invalidated_ice_candidates",
        "gateway.to.no_relays",
    ] {
        let frame = golden(name);
        let written = serde_json::to_value(read::<gateway::ToPortal>(&frame)).unwrap();
        assert_eq!(written["event"], frame["event"]);
        assert_eq!(written["payload"], frame["payload"]);
    }
    let join: relay::Join =
        serde_json::from_value(golden("relay.to.join")["payload"].clone()).unwrap();
    assert_eq!(
        serde_json::to_value(&join).unwrap(),
        golden("relay.to.join")["payload"]
    );
}

#[test]
fn both_names_of_each_renamed_message_are_equal() {
    let renamed: [(&str, &str); 3] = [
        ("client.from.flow_created", "authorization_created"),
        (
            "client.from.flow_creation_failed",
            "authorization_creation_failed",
        ),
        ("client.to.create_flow", "request_authorization"),
    ];
    for (name, new) in renamed {
        let mut frame = golden(name);
        if name.contains(".from.") {
            let old: client::FromPortal = read(&frame);
            assert_eq!(old.event(Dialect::V2), new);
            frame["event"] = json!(new);
            assert_eq!(read::<client::FromPortal>(&frame), old);
        } else {
            let old: client::ToPortal = read(&frame);
            assert_eq!(old.event(Dialect::V2), new);
            frame["event"] = json!(new);
            assert_eq!(read::<client::ToPortal>(&frame), old);
        }
    }
    let authorize: gateway::FromPortal = read(&golden("gateway.from.authorize_flow"));
    assert_eq!(authorize.event(Dialect::V2), "create_authorization");
    let authorized: gateway::ToPortal = read(&golden("gateway.to.flow_authorized"));
    assert_eq!(authorized.event(Dialect::V2), "authorization_created");
    let newer: gateway::ToPortal = read(&golden("gateway.to.authorization_created"));
    assert!(matches!(newer, gateway::ToPortal::FlowAuthorized(_)));
}

#[test]
fn init_of_both_generations() {
    let client::FromPortal::Init(old) = read(&golden("client.from.init")) else {
        panic!("not init");
    };
    assert_eq!(old.interface.upstream_dns().len(), 2);
    assert_eq!(old.resources.len(), 1);
    assert_eq!(
        old.relays[0].v4,
        Some("198.51.100.40:3478".parse().unwrap())
    );
    let client::FromPortal::Init(new) = read(&golden("client.from.init.2")) else {
        panic!("not init");
    };
    assert_eq!(new.interface.search_domain.as_deref(), Some("corp.example"));
    assert!(new.flow_logs.is_some());

    let gateway::FromPortal::Init(old) = read(&golden("gateway.from.init")) else {
        panic!("not init");
    };
    assert_eq!(old.authorizations, None);
    let gateway::FromPortal::Init(new) = read(&golden("gateway.from.init.2")) else {
        panic!("not init");
    };
    assert_eq!(new.authorizations.unwrap().len(), 1);
}

// portal 81
#[test]
fn portal_81_gateway_init_without_relays_or_config() {
    let frame = json!({"event": "init", "payload": {"interface": {"ipv4": "100.64.0.1", "ipv6": "fd00:2021:1111::1"}}});
    let gateway::FromPortal::Init(init) = read(&frame) else {
        panic!("not init");
    };
    assert!(init.relays.is_empty());
    assert!(init.config.ipv4_masquerade_enabled);
}

#[test]
fn authorize_flow_is_read_completely() {
    let gateway::FromPortal::AuthorizeFlow(flow) = read(&golden("gateway.from.authorize_flow"))
    else {
        panic!("not authorize_flow");
    };
    assert_eq!(flow.reference, "SFMyNTY.opaque-value-signed-by-the-portal");
    assert_eq!(flow.client.public_key, Key([1; 32]));
    assert_eq!(flow.expires_at, Some(1_767_225_600));
    assert_eq!(flow.client_ice_credentials.username, "vg4n");
    let GatewayResource::Cidr(cidr) = flow.resource else {
        panic!("not a network");
    };
    assert_eq!(cidr.filters, [Filter::Tcp(22..=22), Filter::Icmp]);
}

// portal 74
#[test]
fn portal_74_expiry_null_or_absent_is_unlimited() {
    let mut frame = golden("gateway.from.authorize_flow");
    frame["payload"]["expires_at"] = Value::Null;
    let gateway::FromPortal::AuthorizeFlow(null) = read(&frame) else {
        panic!("not authorize_flow");
    };
    assert_eq!(null.expires_at, None);
    frame["payload"]
        .as_object_mut()
        .unwrap()
        .remove("expires_at");
    let gateway::FromPortal::AuthorizeFlow(absent) = read(&frame) else {
        panic!("not authorize_flow");
    };
    assert_eq!(absent.expires_at, None);
}

// portal 60
#[test]
fn portal_60_resource_deleted_takes_a_bare_string() {
    let message: client::FromPortal = read(&golden("client.from.resource_deleted"));
    assert!(matches!(message, client::FromPortal::ResourceDeleted(_)));
    assert!(message.payload().is_string());
    assert!(client::FromPortal::parse("resource_deleted", json!({"id": "x"})).is_err());
}

// portal 77
#[test]
fn portal_77_flow_id_is_optional() {
    let mut frame = golden("gateway.from.reject_access");
    let with: gateway::FromPortal = read(&frame);
    frame["payload"].as_object_mut().unwrap().remove("flow_id");
    let without: gateway::FromPortal = read(&frame);
    let pair = |message| match message {
        gateway::FromPortal::RejectAccess(reject) => (reject.client_id, reject.resource_id),
        other => panic!("{other:?}"),
    };
    assert_eq!(pair(with), pair(without));
}

// portal 55
#[test]
fn portal_55_failure_with_and_without_properties() {
    let client::FromPortal::FlowCreationFailed(failed) =
        read(&golden("client.from.flow_creation_failed"))
    else {
        panic!("not flow_creation_failed");
    };
    use ViolatedProperty::{ClientVerified, CurrentUtcDatetime};
    assert_eq!(failed.reason, FailureReason::Forbidden);
    assert_eq!(
        failed.violated_properties,
        [CurrentUtcDatetime, ClientVerified]
    );
    let client::FromPortal::FlowCreationFailed(newer) =
        read(&golden("client.from.authorization_creation_failed"))
    else {
        panic!("not flow_creation_failed");
    };
    assert_eq!(newer.reason, FailureReason::VersionMismatch);
}

// portal 50, portal 52
#[test]
fn portal_50_52_resource_lists() {
    let init = |resources: Value| {
        let mut frame = golden("client.from.init");
        frame["payload"]["resources"] = resources;
        match read::<client::FromPortal>(&frame) {
            client::FromPortal::Init(init) => init.resources,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(init(golden("resources")).len(), 4);
    let newer = init(golden("resources.newer"));
    assert_eq!(newer.len(), 1);
    assert!(matches!(&newer[0], Resource::Dns(dns) if dns.sites[0].name == "Berlin"));
    assert_eq!(init(Value::Null).len(), 0);
}

// portal 47
#[test]
fn portal_47_relay_list() {
    let mut frame = golden("client.from.init");
    frame["payload"]["relays"] = golden("relays");
    let client::FromPortal::Init(init) = read(&frame) else {
        panic!("not init");
    };
    assert_eq!(init.relays.len(), 1);
    assert!(init.relays[0].v4.is_some() && init.relays[0].v6.is_some());
    let written = client::FromPortal::Init(init).payload();
    let entries = written["relays"].as_array().unwrap();
    assert_eq!(entries[..], golden("relays").as_array().unwrap()[..2]);
}

// portal 45
#[test]
fn portal_45_bad_key_costs_the_message_and_nothing_else() {
    let mut frame = golden("client.from.flow_created");
    frame["payload"]["gateway_public_key"] = json!("AQEB");
    let event = frame["event"].as_str().unwrap();
    let error = client::FromPortal::parse(event, frame["payload"].clone()).unwrap_err();
    assert_eq!(error.event, "flow_created");
}

// portal 44
#[test]
fn portal_44_no_secret_in_debug_output() {
    let flow: client::FromPortal = read(&golden("client.from.flow_created"));
    let init: client::FromPortal = read(&golden("client.from.init"));
    let authorize: gateway::FromPortal = read(&golden("gateway.from.create_authorization"));
    let printed = format!("{flow:?} {init:?} {authorize:?}");
    for secret in [
        "FN/5aHrOj2IPteNZQSMqSSAF",
        "shp57j6gltbmrljfbix5uk",
        "vcr4su/27b6d9SQeIFiS2ZZxc0iRVeKXNDnautNGhTM",
        "eyJhbGciOiJIUzI1NiJ9",
    ] {
        assert!(!printed.contains(secret), "{secret}");
    }
}
