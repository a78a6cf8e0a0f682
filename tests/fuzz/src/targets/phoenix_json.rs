//! What the portal says, and what is said to it: any text as a frame, any JSON as the payload of any message.
//!
//! Oracle: what is understood and written again is understood as the same; an event that is not known is a message, not an
//! error.

use connlib_messages::{Dialect, Message, client, gateway, relay};
use phoenix_channel::{Frame, Reply};
use serde_json::Value;

use crate::input::Input;

/// Events with a meaning, in either direction.
const EVENTS: [&str; 30] = [
    "init",
    "resource_created_or_updated",
    "resource_deleted",
    "config_changed",
    "relays_presence",
    "flow_created",
    "flow_creation_failed",
    "authorization_created",
    "authorization_creation_failed",
    "ice_candidates",
    "invalidate_ice_candidates",
    "authorize_flow",
    "create_authorization",
    "flow_authorized",
    "reject_access",
    "resource_updated",
    "access_authorization_expiry_updated",
    "create_flow",
    "request_authorization",
    "broadcast_ice_candidates",
    "broadcast_invalidated_ice_candidates",
    "new_gateway_ice_candidates",
    "invalidate_gateway_ice_candidates",
    "new_client_ice_candidates",
    "invalidate_client_ice_candidates",
    "set_snownet_capabilities",
    "no_relays",
    "phx_reply",
    "disconnect",
    "made_up",
];

/// Runs one input.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let choice = usize::from(input.u8());
    let text = String::from_utf8_lossy(input.rest());
    match EVENTS.get(choice) {
        None => frame(&text),
        Some(event) => {
            if let Ok(payload) = serde_json::from_str(&text) {
                message(event, payload);
            }
        }
    }
}

/// The shapes of the protocol.
pub fn seeds() -> Vec<Vec<u8>> {
    let frames = [
        r#"{"topic":"client","event":"phx_join","payload":null,"ref":0}"#,
        r#"{"topic":"client","event":"phx_reply","payload":{"status":"ok","response":{}},"ref":"7"}"#,
        r#"{"topic":"client","event":"phx_reply","payload":{"status":"error","response":{"reason":"unmatched topic"}},"ref":7}"#,
        r#"{"topic":"phoenix","event":"heartbeat","payload":{},"ref":null}"#,
    ];
    let payloads = PAYLOADS.iter().map(|(event, payload)| {
        let index = EVENTS.iter().position(|it| it == event).unwrap_or(0);
        [&[index as u8][..], payload.as_bytes()].concat()
    });
    let frames = frames.iter().map(|it| [&[255][..], it.as_bytes()].concat());
    frames.chain(payloads).collect()
}

fn frame(text: &str) {
    let strict = Frame::decode_strict(text);
    let Ok(frame) = Frame::decode(text) else {
        assert!(strict.is_err(), "strict is stricter");
        return;
    };
    if let Ok(strict) = strict {
        assert!(strict == frame);
    }
    let again = Frame::decode_strict(&frame.encode()).expect("it was written here");
    assert!(again == frame);
    let _ = Reply::parse(&frame.payload);
    message(&frame.event, frame.payload);
}

fn message(event: &str, payload: Value) {
    as_message::<client::FromPortal>(event, &payload);
    as_message::<client::ToPortal>(event, &payload);
    as_message::<gateway::FromPortal>(event, &payload);
    as_message::<gateway::ToPortal>(event, &payload);
    as_message::<relay::FromPortal>(event, &payload);
    as_message::<relay::ToPortal>(event, &payload);
    let join = serde_json::from_value::<relay::Join>(payload.clone());
    let _ = join.map(|it| serde_json::to_value(it).expect("it was read"));
}

fn as_message<M: Message + PartialEq + std::fmt::Debug>(event: &str, payload: &Value) {
    let message = match M::parse(event, payload.clone()) {
        Ok(message) => message,
        Err(error) => {
            assert!(
                EVENTS.contains(&error.event),
                "unknown events are no errors"
            );
            return;
        }
    };
    // A name that is known with a content that is not cannot be sent on.
    if format!("{message:?}").starts_with("Unknown") {
        return;
    }
    for dialect in [Dialect::Unversioned, Dialect::V2] {
        let again = M::parse(message.event(dialect), message.payload());
        assert_eq!(again.ok().as_ref(), Some(&message));
    }
}

/// One payload for each message that has one.
const PAYLOADS: [(&str, &str); 12] = [
    (
        "init",
        r#"{"interface":{"ipv4":"100.64.0.1","ipv6":"fd00:2021:1111::1","upstream_dns":[{"protocol":"ip_port","address":"1.1.1.1:53"}],"search_domain":"corp.example"},"resources":[{"id":"6d1f0a52-8c3e-4b7a-9f10-2c5e7d9b4a01","type":"cidr","name":"n","address":"10.0.0.0/8","address_description":null,"gateway_groups":[{"id":"6d1f0a52-8c3e-4b7a-9f10-2c5e7d9b4a02","name":"s"}],"filters":[{"protocol":"tcp","port_range_start":80,"port_range_end":90}]}],"relays":[{"id":"7f1d0c1e-52a5-4f0b-9c7b-1d6a6f3c2b10","type":"turn","addr":"198.51.100.7:3478","username":"1767225600:a","password":"p","expires_at":1767225600}]}"#,
    ),
    (
        "resource_created_or_updated",
        r#"{"id":"6d1f0a52-8c3e-4b7a-9f10-2c5e7d9b4a01","type":"dns","name":"n","address":"**.corp.example","address_description":"d","gateway_groups":[{"id":"6d1f0a52-8c3e-4b7a-9f10-2c5e7d9b4a02","name":"s"}],"ip_stack":"dual"}"#,
    ),
    (
        "resource_deleted",
        r#""6d1f0a52-8c3e-4b7a-9f10-2c5e7d9b4a01""#,
    ),
    (
        "config_changed",
        r#"{"interface":{"ipv4":"100.64.0.1","ipv6":"fd00:2021:1111::1","upstream_do53":[{"ip":"1.1.1.1"}]}}"#,
    ),
    (
        "relays_presence",
        r#"{"disconnected_ids":["7f1d0c1e-52a5-4f0b-9c7b-1d6a6f3c2b10"],"connected":[{"id":"7f1d0c1e-52a5-4f0b-9c7b-1d6a6f3c2b10","type":"turn","addr":"[2001:db8::7]:3478","username":"1:a","password":"p","expires_at":1}]}"#,
    ),
    (
        "flow_created",
        r#"{"resource_id":"6d1f0a52-8c3e-4b7a-9f10-2c5e7d9b4a01","gateway_id":"6d1f0a52-8c3e-4b7a-9f10-2c5e7d9b4a03","gateway_group_id":"6d1f0a52-8c3e-4b7a-9f10-2c5e7d9b4a02","gateway_public_key":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=","preshared_key":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=","client_ice_credentials":{"username":"aaaa","password":"bbbbbbbbbbbbbbbbbbbbbb"},"gateway_ice_credentials":{"username":"cccc","password":"dddddddddddddddddddddd"},"gateway_ipv4":"100.64.0.2"}"#,
    ),
    (
        "flow_creation_failed",
        r#"{"resource_id":"6d1f0a52-8c3e-4b7a-9f10-2c5e7d9b4a01","reason":"forbidden","violated_properties":["remote_ip_location_region"]}"#,
    ),
    (
        "ice_candidates",
        r#"{"gateway_id":"6d1f0a52-8c3e-4b7a-9f10-2c5e7d9b4a03","client_id":"6d1f0a52-8c3e-4b7a-9f10-2c5e7d9b4a04","candidates":["candidate:1 1 udp 1 203.0.113.1 9 typ host"]}"#,
    ),
    (
        "authorize_flow",
        r#"{"ref":"r","client":{"id":"6d1f0a52-8c3e-4b7a-9f10-2c5e7d9b4a04","public_key":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=","preshared_key":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=","ipv4":"100.64.0.1","ipv6":"fd00:2021:1111::1"},"resource":{"id":"6d1f0a52-8c3e-4b7a-9f10-2c5e7d9b4a01","type":"internet"},"gateway_ice_credentials":{"username":"cccc","password":"dddddddddddddddddddddd"},"client_ice_credentials":{"username":"aaaa","password":"bbbbbbbbbbbbbbbbbbbbbb"},"expires_at":1767225600}"#,
    ),
    (
        "reject_access",
        r#"{"client_id":"6d1f0a52-8c3e-4b7a-9f10-2c5e7d9b4a04","resource_id":"6d1f0a52-8c3e-4b7a-9f10-2c5e7d9b4a01"}"#,
    ),
    (
        "create_flow",
        r#"{"resource_id":"6d1f0a52-8c3e-4b7a-9f10-2c5e7d9b4a01","connected_gateway_ids":[]}"#,
    ),
    ("flow_authorized", r#"{"ref":"r"}"#),
];
