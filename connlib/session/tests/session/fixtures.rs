//! Portal messages as JSON, and packets.

use std::net::{Ipv4Addr, SocketAddr};

use connlib_messages::Message;
use ip_packet::{IpPacket, make};
use serde_json::{Value, json};

pub const CLIENT_V4: Ipv4Addr = Ipv4Addr::new(100, 64, 0, 1);
pub const CLIENT_V6: &str = "fd00:2021:1111::1";
pub const GATEWAY_V4: Ipv4Addr = Ipv4Addr::new(100, 64, 1, 1);
pub const GATEWAY_V6: &str = "fd00:2021:1111::1:1";
pub const HOST: &str = "10.40.0.9:80";

pub const NETWORK: &str = "1fa27c50-88d3-4e1b-9b64-c05de3f71a88";
pub const SITE: &str = "d4b7a0c6-1e52-47f9-9c3d-8a60e2f5b744";
pub const GATEWAY: &str = "5b1f7e0a-2f0d-4d92-8a55-6f2f9f1c4e20";
pub const CLIENT: &str = "0c6f1a52-7c1e-4a53-9a6b-3d0a6d6f2b11";
pub const RELAY: &str = "7a3c5e91-0b4d-4c68-a1f2-53d9e07b6c55";
pub const OTHER_RELAY: &str = "c18e4b07-92d6-4f3a-b75e-0d61f8a24e66";

/// A message as it comes from the channel.
pub fn message<M: Message>(event: &str, payload: Value) -> M {
    M::parse(event, payload).unwrap()
}

pub fn relay(id: &str) -> Value {
    let last = if id == RELAY { 40 } else { 41 };
    json!({"id": id, "type": "turn", "addr": format!("198.51.100.{last}:3478"), "username": "1767225600:salt",
        "password": "secret", "expires_at": 1_767_225_600})
}

pub fn network(address: &str) -> Value {
    json!({"id": NETWORK, "type": "cidr", "address": address, "address_description": null, "name": "Lab net",
        "gateway_groups": [{"id": SITE, "name": "Berlin"}], "filters": []})
}

pub fn client_init(resources: &[Value], relays: &[Value]) -> Value {
    json!({"interface": {"ipv4": CLIENT_V4, "ipv6": CLIENT_V6, "upstream_dns": []},
        "resources": resources, "relays": relays})
}

pub fn gateway_init(relays: &[Value]) -> Value {
    json!({"interface": {"ipv4": GATEWAY_V4, "ipv6": GATEWAY_V6},
        "config": {"ipv4_masquerade_enabled": true, "ipv6_masquerade_enabled": true}, "relays": relays})
}

pub fn flow_created(gateway_key: &str) -> Value {
    json!({"resource_id": NETWORK, "gateway_id": GATEWAY, "gateway_group_id": SITE, "gateway_public_key": gateway_key,
        "preshared_key": "FN/5aHrOj2IPteNZQSMqSSAF/McgewztE2ILfaUlWV8=",
        "client_ice_credentials": {"username": "vg4n", "password": "shp57j6gltbmrljfbix5uk"},
        "gateway_ice_credentials": {"username": "mmal", "password": "ck7iru2pt5hgmjp4nvij7a"},
        "gateway_ipv4": GATEWAY_V4, "gateway_ipv6": GATEWAY_V6})
}

pub fn authorize_flow(reference: &str, client_key: &str, filters: &Value) -> Value {
    json!({"ref": reference, "resource": {"id": NETWORK, "type": "cidr", "address": "10.40.0.0/16", "name": "Lab net",
            "filters": filters},
        "client": {"id": CLIENT, "public_key": client_key, "preshared_key": "FN/5aHrOj2IPteNZQSMqSSAF/McgewztE2ILfaUlWV8=",
            "ipv4": CLIENT_V4, "ipv6": CLIENT_V6},
        "client_ice_credentials": {"username": "vg4n", "password": "shp57j6gltbmrljfbix5uk"},
        "gateway_ice_credentials": {"username": "mmal", "password": "ck7iru2pt5hgmjp4nvij7a"},
        "expires_at": null})
}

/// A packet of the client's application to [`HOST`].
pub fn packet(number: u32) -> IpPacket {
    let source = SocketAddr::from((CLIENT_V4, 40_000));

    make::udp_packet(source, HOST.parse().unwrap(), &number.to_be_bytes()).unwrap()
}
