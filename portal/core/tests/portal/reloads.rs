//! What a new configuration, a restart or the clock takes away and gives.

use std::time::Duration;

use portal_core::{CloseReason, TimeWindow, config::PolicyId, token::TokenHash};
use serde_json::json;
use uuid::Uuid;

use super::world::*;

fn rejected(world: &mut World, gateway: portal_core::ConnectionId) -> serde_json::Value {
    world.push_of(gateway, "reject_access")["resource_id"].clone()
}

#[test]
fn an_unchanged_configuration_changes_nothing() {
    let mut world = World::new();
    let (gateway, _) = world.join(&gateway());
    let (client, _) = world.join(&client());
    world.flow(client, gateway, LAB);
    world.reload(|_| {});
    assert_eq!(world.got(client), []);
    assert_eq!(world.got(gateway), []);
}

#[test]
fn a_new_resource_and_policy_appear_and_vanish() {
    let mut world = World::new();
    let (client, _) = world.join(&client());
    let id = connlib_model::ResourceId::from_u128(0x99);
    let policy = PolicyId(Uuid::from_u128(0x98));
    world.reload(|config| {
        let mut resource = config.resources[&LAB].clone();
        resource.id = id;
        resource.name = "New".to_owned();
        config.resources.insert(id, resource);
    });
    assert_eq!(world.got(client), [], "nobody may reach it yet");
    world.reload(|config| {
        let mut granted = config.policies[&LAB_POLICY].clone();
        granted.resource = id;
        config.policies.insert(policy, granted);
    });
    let created = world.push_of(client, "resource_created_or_updated");
    assert_eq!(created["name"], "New");
    world.reload(|config| drop(config.policies.remove(&policy)));
    assert_eq!(world.push_of(client, "resource_deleted"), json!(id));
}

#[test]
fn new_filters_reach_client_and_gateway_without_interruption() {
    let mut world = World::new();
    let (gateway, _) = world.join(&gateway());
    let (client, _) = world.join(&client());
    world.flow(client, gateway, LAB);
    world.reload(only_ssh);
    let updated = world.push_of(gateway, "resource_updated");
    let ssh = json!([{"protocol": "tcp", "port_range_start": 22, "port_range_end": 22}]);
    assert_eq!(updated["filters"], ssh);
    assert_eq!(
        world.push_of(client, "resource_created_or_updated")["filters"],
        ssh
    );
    assert_eq!(world.records.authorizations.len(), 1);
}

#[test]
fn a_new_address_replaces_the_resource_and_ends_its_access() {
    let mut world = World::new();
    let (gateway, _) = world.join(&gateway());
    let (client, _) = world.join(&client());
    world.flow(client, gateway, LAB);
    world.flow(client, gateway, WIKI);
    world.reload(|config| {
        let target = portal_core::config::Target::Cidr("10.41.0.0/16".parse().unwrap());
        config.resources.get_mut(&LAB).unwrap().target = target;
    });
    assert_eq!(rejected(&mut world, gateway), json!(LAB));
    assert_eq!(
        world.events(client),
        ["resource_deleted", "resource_created_or_updated"]
    );
    assert_eq!(world.records.authorizations.len(), 1);
}

#[test]
fn a_removed_policy_ends_access() {
    let mut world = World::new();
    let (gateway, _) = world.join(&gateway());
    let (client, _) = world.join(&client());
    world.flow(client, gateway, LAB);
    world.reload(|config| drop(config.policies.remove(&LAB_POLICY)));
    assert_eq!(rejected(&mut world, gateway), json!(LAB));
    assert_eq!(world.push_of(client, "resource_deleted"), json!(LAB));
    assert!(world.records.authorizations.is_empty());
}

#[test]
fn a_changed_policy_interrupts_what_another_still_permits() {
    let mut world = World::new();
    world.reload(|config| {
        let other = config.policies[&LAB_POLICY].clone();
        config
            .policies
            .insert(PolicyId(Uuid::from_u128(0x90)), other);
    });
    let (gateway, _) = world.join(&gateway());
    let (client, _) = world.join(&client());
    world.flow(client, gateway, LAB);
    let used = world.records.authorizations[0].policy;
    world.reload(|config| drop(config.policies.remove(&used)));
    assert_eq!(rejected(&mut world, gateway), json!(LAB));
    assert_eq!(
        world.events(client),
        ["resource_deleted", "resource_created_or_updated"]
    );
    world.flow(client, gateway, LAB);
}

#[test]
fn a_person_who_leaves_the_group_loses_access() {
    let mut world = World::new();
    let (gateway, _) = world.join(&gateway());
    let (client, _) = world.join(&client());
    world.flow(client, gateway, LAB);
    world.reload(|config| {
        let people = &mut config.policies.get_mut(&LAB_POLICY).unwrap().people;
        people.clear();
        people.insert(EVE);
    });
    assert_eq!(rejected(&mut world, gateway), json!(LAB));
    assert_eq!(world.events(client), ["resource_deleted"]);
}

#[test]
fn a_removed_person_or_token_ends_session_and_access() {
    for remove_person in [true, false] {
        let mut world = World::new();
        let (gateway, _) = world.join(&gateway());
        let (client, _) = world.join(&client());
        world.flow(client, gateway, LAB);
        world.reload(|config| {
            if remove_person {
                config.people.remove(&JO);
            } else {
                config.tokens.remove(&TokenHash::of("jo"));
            }
        });
        assert_eq!(rejected(&mut world, gateway), json!(LAB));
        assert_eq!(
            world.got(client),
            [
                Got::Push("disconnect".to_owned(), json!({"reason": "token_expired"})),
                Got::Close(CloseReason::TokenEnded),
            ]
        );
    }
}

#[test]
fn a_withdrawn_verification_ends_access() {
    let mut world = World::with({
        let mut config = config();
        config.verified_devices.insert("jo's laptop".to_owned());
        config
            .policies
            .get_mut(&LAB_POLICY)
            .unwrap()
            .conditions
            .verified = true;
        config
    });
    let (gateway, _) = world.join(&gateway());
    let (client, _) = world.join(&client());
    world.flow(client, gateway, LAB);
    world.reload(|config| config.verified_devices.clear());
    assert_eq!(rejected(&mut world, gateway), json!(LAB));
    assert_eq!(world.push_of(client, "resource_deleted"), json!(LAB));
}

#[test]
fn new_resolvers_are_a_changed_config() {
    let mut world = World::new();
    let (client, _) = world.join(&client());
    world.reload(|config| config.dns_servers = vec!["9.9.9.9:53".parse().unwrap()]);
    let changed = world.push_of(client, "config_changed");
    assert_eq!(
        changed["interface"]["upstream_dns"][0]["address"],
        "9.9.9.9:53"
    );
}

#[test]
fn a_waiting_request_for_a_removed_resource_is_dropped() {
    let mut world = World::new();
    let (gateway, _) = world.join(&gateway());
    let (client, _) = world.join(&client());
    world.create_flow(client, LAB);
    let ask = world.push_of(gateway, "authorize_flow");
    world.reload(|config| {
        config.resources.remove(&LAB);
        config.policies.remove(&LAB_POLICY);
    });
    assert_eq!(rejected(&mut world, gateway), json!(LAB));
    world.got(client);
    world.send(
        gateway,
        "gateway",
        "flow_authorized",
        json!({ "ref": ask["ref"] }),
    );
    assert_eq!(world.got(gateway), [Got::Error(1, "invalid_ref")]);
    assert_eq!(world.got(client), []);
}

#[test]
fn a_gateway_hears_on_its_return_what_is_still_allowed() {
    let mut world = World::new();
    let (id, _) = world.join(&gateway());
    let (client, _) = world.join(&client());
    world.flow(client, id, LAB);
    world.flow(client, id, WIKI);
    world.lose(id);
    world.reload(|config| drop(config.policies.remove(&LAB_POLICY)));
    let (_, got) = world.join(&gateway());
    let listed = init(&got)["authorizations"].as_array().unwrap().clone();
    assert_eq!(listed.len(), 1);
    assert_eq!(listed[0]["resource_id"], json!(WIKI));
    assert_eq!(listed[0]["expires_at"], json!(null));
}

#[test]
fn authorizations_survive_a_restart_unless_their_ground_changed_meanwhile() {
    let mut world = World::new();
    let (id, _) = world.join(&gateway());
    let (client, _) = world.join(&client());
    world.flow(client, id, LAB);
    world.flow(client, id, WIKI);
    world.config.resources.get_mut(&LAB).unwrap().target = portal_core::config::Target::Internet;
    world.restart();
    let (_, got) = world.join(&gateway());
    let listed = init(&got)["authorizations"].as_array().unwrap().clone();
    assert_eq!(listed.len(), 1);
    assert_eq!(listed[0]["resource_id"], json!(WIKI));
    assert_eq!(world.records.authorizations.len(), 1);
}

#[test]
fn time_windows_give_and_take_at_their_edges() {
    let mut world = World::with({
        let mut config = config();
        let conditions = &mut config.policies.get_mut(&LAB_POLICY).unwrap().conditions;
        conditions.times = vec![TimeWindow::new(0..7, 13 * 60, 14 * 60, 0).unwrap()];
        config
    });
    let (gateway, _) = world.join(&gateway());
    let (client, got) = world.join(&client());
    assert_eq!(init(&got)["resources"].as_array().unwrap().len(), 1);
    world.pass(Duration::from_secs(3599));
    assert_eq!(world.got(client), []);
    world.pass(Duration::from_secs(1));
    assert_eq!(world.events(client), ["resource_created_or_updated"]);
    let (ask, _) = world.flow(client, gateway, LAB);
    assert_eq!(ask["expires_at"], NOON + 7200);
    world.pass(Duration::from_secs(3600));
    assert_eq!(world.push_of(client, "resource_deleted"), json!(LAB));
    assert_eq!(world.got(gateway), [], "the gateway has its own clock");
    assert!(world.records.authorizations.is_empty());
}

#[test]
fn expired_authorizations_are_not_listed() {
    let mut world = World::with({
        let mut config = config();
        let token = config.tokens.get_mut(&TokenHash::of("jo")).unwrap();
        token.expires_at = Some(NOON + 60);
        config
    });
    let (id, _) = world.join(&gateway());
    let (client, _) = world.join(&client());
    world.flow(client, id, LAB);
    world.lose(id);
    world.pass(Duration::from_secs(61));
    let (_, got) = world.join(&gateway());
    assert_eq!(init(&got)["authorizations"], json!([]));
    assert!(world.records.authorizations.is_empty());
}
