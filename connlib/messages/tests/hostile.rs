//! Whatever JSON arrives, reading it ends in a message or an error.

#![allow(clippy::unwrap_used)]

use std::fmt::Debug;

use connlib_messages::{Message, client, gateway, relay};
use proptest::prelude::*;
use serde_json::Value;

const EVENTS: [&str; 16] = [
    "init",
    "resource_created_or_updated",
    "resource_deleted",
    "config_changed",
    "relays_presence",
    "flow_created",
    "flow_creation_failed",
    "ice_candidates",
    "authorize_flow",
    "reject_access",
    "resource_updated",
    "create_flow",
    "broadcast_ice_candidates",
    "flow_authorized",
    "set_snownet_capabilities",
    "made_up",
];

const MEMBERS: [&str; 20] = [
    "interface",
    "ipv4",
    "ipv6",
    "upstream_dns",
    "resources",
    "relays",
    "id",
    "type",
    "address",
    "gateway_groups",
    "sites",
    "filters",
    "protocol",
    "candidates",
    "connected",
    "ref",
    "client",
    "public_key",
    "expires_at",
    "authorizations",
];

fn json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        prop_oneof![
            ".{0,20}",
            "dns|cidr|turn|tcp|100\\.64\\.0\\.1|10\\.0\\.0\\.0/8"
        ]
        .prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 40, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::vec((prop::sample::select(&MEMBERS[..]), inner), 0..8).prop_map(
                |members| {
                    let members = members
                        .into_iter()
                        .map(|(name, value)| (name.to_owned(), value));
                    Value::Object(members.collect())
                }
            ),
        ]
    })
}

/// What was read can be written and read; skipped messages have lost their payload.
fn check<T: Message + Debug>(event: &str, payload: &Value) {
    if let Ok(message) = T::parse(event, payload.clone()) {
        let skipped = format!("{message:?}").starts_with("Unknown");
        assert!(skipped || T::parse(event, message.payload()).is_ok());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]
    #[test]
    fn any_json_is_a_message_or_an_error(event in prop::sample::select(&EVENTS[..]), payload in json()) {
        check::<client::FromPortal>(event, &payload);
        check::<client::ToPortal>(event, &payload);
        check::<gateway::FromPortal>(event, &payload);
        check::<gateway::ToPortal>(event, &payload);
        check::<relay::FromPortal>(event, &payload);
    }

    #[test]
    fn any_bytes_as_a_frame(text in ".{0,200}") {
        let _ = serde_json::from_str::<client::FromPortal>(&text);
        let _ = serde_json::from_str::<gateway::ToPortal>(&text);
    }
}
