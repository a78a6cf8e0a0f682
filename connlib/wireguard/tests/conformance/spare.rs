//! Preshared keys that differ (snownet §3.3; snownet 32, 33).

use std::time::Duration;

use connlib_wireguard::SpareOutcome;

use crate::world::{RESPONSE, Side, World, millis, secs};

const OLD: [u8; 32] = [9; 32];
const NEW: [u8; 32] = [10; 32];

/// snownet 33: same key, same preshared key, the client lost its state: two round trips.
#[test]
fn snownet_33_client_lost_its_state() {
    let (mut world, _) = World::connected(33, millis(50));
    world.run_for(secs(40));
    world.recreate_client(OLD);
    world.send(Side::Client, 1);
    world.run_for(millis(150));
    world.send(Side::Gateway, 2);
    world.run_for(millis(50));

    assert_eq!(
        (world.gateway.ids(), world.client.ids()),
        (vec![1], vec![2])
    );
}

/// The gateway remembers the timestamp of the last initiation: that of a connection made anew must be later, even if no time
/// has passed.
#[test]
fn snownet_33_made_anew_within_one_instant() {
    let (mut world, _) = World::connected(33, Duration::ZERO);
    for id in 1..10 {
        world.recreate_client(OLD);
        world.send(Side::Client, id);
        world.run_for(Duration::ZERO);
        assert_eq!(world.gateway.ids().last(), Some(&id));
    }
    assert!(world.gateway.errors.is_empty());
    assert_eq!(world.elapsed(), Duration::ZERO);
}

#[test]
fn snownet_32_client_made_again_with_the_new_key_works_within_6_s() {
    let (mut world, _) = World::connected(32, millis(50));
    world.run_for(secs(40));
    assert_eq!(world.gateway.add_spare_psk(NEW), SpareOutcome::Added);
    world.recreate_client(NEW);
    let at = world.elapsed();
    world.send(Side::Client, 1);
    world.run_for(secs(6));
    world.send(Side::Gateway, 2);
    world.run_for(millis(50));

    assert_eq!(
        (world.gateway.ids(), world.client.ids()),
        (vec![1], vec![2])
    );
    assert!(world.gateway.inbox[0].0 - at < secs(6));
    assert!(world.client.failures().is_empty());

    // The key stays for the renewals that follow.
    world.run_for(secs(600));
    world.send(Side::Gateway, 3);
    world.run_for(millis(50));
    assert_eq!(world.client.ids(), [2, 3]);
    assert_eq!(world.inits_since(at).len(), 2 + 600 / 160);
    assert_eq!(world.gateway.add_spare_psk(OLD), SpareOutcome::Added);
    assert_eq!(world.gateway.add_spare_psk(NEW), SpareOutcome::Kept);
}

/// A second resource on the same gateway brings a new key; the client keeps its connection.
#[test]
fn snownet_32_a_kept_connection_is_not_disturbed_by_a_spare() {
    let (mut world, _) = World::connected(32, millis(50));
    world.client.add_spare_psk(NEW);
    world.gateway.add_spare_psk(NEW);
    for id in 0..400 {
        world.send(Side::Gateway, id);
        world.send(Side::Client, id);
        world.run_for(secs(1));
    }

    assert_eq!(world.gateway.inbox.len(), 400);
    assert_eq!(world.client.inbox.len(), 400);
    assert_eq!(world.client.peer.stats().handshakes, 4);
}

/// Several requests are answered at once after the client lost its connection, each with a key of its own.
#[test]
fn snownet_32_a_new_connection_takes_the_newest_key_until_it_is_used() {
    let (mut world, _) = World::connected(32, millis(50));
    for key in [[11; 32], NEW] {
        world.gateway.add_spare_psk(key);
    }
    world.recreate_client_with([11; 32], &[NEW]);
    world.send(Side::Client, 1);
    world.run_for(secs(6));
    assert_eq!(world.gateway.ids(), [1]);
}

#[test]
fn the_newest_differing_key_is_the_spare() {
    let (mut world, _) = World::connected(32, millis(50));

    assert_eq!(world.gateway.add_spare_psk(OLD), SpareOutcome::Kept);
    assert_eq!(world.gateway.add_spare_psk([11; 32]), SpareOutcome::Added);
    assert_eq!(world.gateway.add_spare_psk(NEW), SpareOutcome::Added);
    assert_eq!(world.gateway.add_spare_psk(NEW), SpareOutcome::Kept);
    world.recreate_client(NEW);
    world.send(Side::Client, 1);
    world.run_for(secs(6));
    assert_eq!(world.gateway.ids(), [1]);
}

/// A network that doubles datagrams brings the answer under the old key twice; the one under the new key is on its way.
#[test]
fn snownet_32_a_doubled_response_under_the_other_key_is_one_response() {
    let (mut world, _) = World::connected(32, millis(50));
    world.gateway.add_spare_psk(NEW);
    world.recreate_client(NEW);
    world.send(Side::Client, 1);
    world.run_for(millis(50));
    let response = world.capture.last().unwrap().clone();
    assert_eq!(response[0], RESPONSE);
    world.run_for(millis(50));
    assert_eq!(world.client.errors.len(), 1);
    world.open(Side::Client, &response);
    world.run_for(secs(6));
    assert_eq!(
        (world.client.errors.len(), world.gateway.ids()),
        (2, vec![1])
    );
    assert!(world.client.failures().is_empty());
}

/// Old packets on the way do not end a spare: only a new session does.
#[test]
fn a_spare_survives_data_of_the_old_session() {
    let (mut world, _) = World::connected(32, millis(50));
    world.gateway.add_spare_psk(NEW);
    world.send(Side::Client, 1);
    world.run_for(millis(50));
    world.recreate_client(NEW);
    world.send(Side::Client, 2);
    world.run_for(secs(6));

    assert_eq!(world.gateway.ids(), [1, 2]);
}
