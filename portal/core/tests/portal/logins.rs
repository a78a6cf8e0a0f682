//! Who is let in, and what devices keep.

use std::net::Ipv4Addr;

use connlib_messages::Dialect;
use portal_core::{CloseReason, ConnectError, Login, LoginParameters, token::Component};

use super::world::*;

#[test]
fn tokens_are_checked_for_kind_and_existence() {
    let mut world = World::new();
    for (component, token) in [
        (Component::Client, "berlin"),
        (Component::Client, "relay"),
        (Component::Gateway, "jo"),
        (Component::Relay, "berlin"),
        (Component::Client, "unknown"),
        (Component::Client, ""),
    ] {
        let who = Who {
            component,
            token,
            ..client()
        };
        assert_eq!(
            world.connect(&who),
            Err(ConnectError::InvalidToken),
            "{token}"
        );
    }
    let login = Login {
        component: Component::Client,
        dialect: Dialect::V2,
        token: None,
        parameters: LoginParameters::default(),
        user_agent: None,
        remote_ip: Ipv4Addr::LOCALHOST.into(),
        location: Default::default(),
    };
    assert_eq!(
        world.portal.connect(login, world.time),
        Err(ConnectError::MissingToken)
    );
    assert_eq!(world.portal.stats().logins_refused, 7);
    assert!(world.records.devices.is_empty());
}

#[test]
fn parameters_are_checked() {
    let mut world = World::new();
    let key = connlib_messages::Key([1; 32]).to_string();
    let missing_id = world.connect_with(&client(), &[("public_key", &key)]);
    assert_eq!(
        missing_id,
        Err(ConnectError::InvalidParameter("external_id"))
    );
    let missing_key = world.connect_with(&gateway(), &[("external_id", "x")]);
    assert_eq!(
        missing_key,
        Err(ConnectError::InvalidParameter("public_key"))
    );
    let relay = Who {
        component: Component::Relay,
        token: "relay",
        ..client()
    };
    assert!(world.connect_with(&relay, &[("port", "3478")]).is_err());
    assert!(
        world
            .connect_with(&relay, &[("ipv6", "2001:db8::1")])
            .is_ok()
    );
    let unnamed = [("external_id", "x"), ("public_key", &*key)];
    assert!(world.connect_with(&client(), &unnamed).is_ok());
    assert!(world.records.devices[0].name.starts_with("client"));
}

// portal 97
#[test]
fn portal_97_device_keeps_id_and_addresses_over_reconnects_and_restarts() {
    let mut world = World::new();
    let (id, first) = world.join(&client());
    let interface = init(&first)["interface"].clone();
    let ipv4: Ipv4Addr = interface["ipv4"].as_str().unwrap().parse().unwrap();
    assert!(connlib_model::ranges::TUNNEL_V4.contains(&ipv4));
    world.lose(id);
    let roamed = Who { key: 7, ..client() };
    let (_, again) = world.join(&roamed);
    assert_eq!(init(&again)["interface"], interface);
    world.restart();
    let (_, after) = world.join(&roamed);
    assert_eq!(init(&after)["interface"], interface);
    let other = Who {
        id: "jo's phone",
        ..client()
    };
    let (_, other) = world.join(&other);
    assert_ne!(init(&other)["interface"], interface);
}

#[test]
fn the_newer_connection_of_a_client_counts() {
    let mut world = World::new();
    let (older, _) = world.join(&client());
    let (newer, _) = world.join(&Who { key: 7, ..client() });
    assert_eq!(world.got(older), [Got::Close(CloseReason::Replaced)]);
    world.lose(older);
    world.reload(only_ssh);
    assert_eq!(world.events(newer), ["resource_created_or_updated"]);
    assert_eq!(world.portal.stats().clients, 1);
}

#[test]
fn a_gateway_that_lost_its_socket_is_let_in_again() {
    let mut world = World::new();
    let v2 = Who {
        dialect: Dialect::V2,
        ..gateway()
    };
    let (older, _) = world.join(&v2);
    let same_process = world.connect(&v2);
    assert!(same_process.is_ok());
    assert_eq!(world.got(older), [Got::Close(CloseReason::Replaced)]);
}

#[test]
fn another_process_with_a_connected_gateways_id_is_refused_where_that_is_not_fatal() {
    let mut world = World::new();
    world.join(&gateway());
    let intruder = Who {
        key: 9,
        dialect: Dialect::V2,
        ..gateway()
    };
    let refused = world.connect(&intruder);
    assert_eq!(refused, Err(ConnectError::GatewayAlreadyConnected));
    assert_ne!(world.records.devices[0].public_key.0, [9; 32]);
    let old_component = Who {
        key: 9,
        ..gateway()
    };
    assert!(world.connect(&old_component).is_ok());
}
