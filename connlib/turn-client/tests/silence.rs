//! A relay from which nothing comes back although traffic is sent through it (connectivity spec §6, items 12, 18 and 19).
#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod support;

use std::{net::SocketAddr, time::Duration};

use connlib_stun::{ErrorCode, Method};
use support::*;

/// Time between two datagrams of a busy flow.
const PACE: Duration = Duration::from_millis(100);

fn peer() -> SocketAddr {
    addr("198.51.100.9:1")
}

/// An allocation with one channel to [`peer`], on which nothing was sent.
fn with_channel() -> (World, u16) {
    let mut world = World::allocated(only_v4());
    world.bind(peer());
    world.run(secs(1));
    let (number, _) = world.binds()[0];
    world.relay.log.clear();
    (world, number)
}

/// Sends something that calls for an answer.
fn ask(world: &mut World) {
    if world.send(peer(), b"x") {
        world.allocation.expect_answer(world.now);
    }
}

/// Does so at a steady pace.
fn transfer(world: &mut World, duration: Duration) {
    let end = world.now + duration;
    while world.now < end {
        ask(world);
        world.run(PACE);
    }
}

#[test]
fn silence_under_traffic_leads_to_one_question_after_three_seconds() {
    let (mut world, _) = with_channel();
    let begin = world.elapsed();
    transfer(&mut world, secs(20));
    let asked = world.received(Method::Refresh);
    assert_eq!(asked.len(), 1);
    assert_eq!(asked[0].at, begin + secs(3) + world.latency);
    assert_eq!(asked[0].lifetime(), None, "it deletes nothing");
}

#[test]
fn whatever_comes_back_through_the_relay_is_a_sign_of_life() {
    let (mut world, number) = with_channel();
    for _ in 0..20 {
        transfer(&mut world, ms(2_900));
        assert!(world.receive(number, b"y").is_some());
    }
    assert_eq!(world.received(Method::Refresh).len(), 0);
}

#[test]
fn a_single_datagram_is_enough() {
    let (mut world, _) = with_channel();
    ask(&mut world);
    world.run(secs(20));
    assert_eq!(world.received(Method::Refresh).len(), 1);
}

#[test]
fn the_last_word_is_no_question() {
    let (mut world, number) = with_channel();
    assert!(world.receive(number, b"y").is_some());
    assert!(world.send(peer(), b"the answer"));
    world.run(secs(20));
    assert_eq!(world.received(Method::Refresh).len(), 0);
}

#[test]
fn who_sends_nothing_does_not_ask_and_does_not_wake() {
    let wakeups = |sends: bool| {
        let (mut world, number) = with_channel();
        let before = world.wakeups;
        if sends {
            ask(&mut world);
            assert!(world.receive(number, b"y").is_some());
        }
        world.run(secs(200));
        assert_eq!(world.received(Method::Refresh).len(), 0);
        world.wakeups - before
    };
    // Its keep-alives, and a datagram that was answered costs nothing more.
    assert_eq!(wakeups(false), 8);
    assert_eq!(wakeups(true), 8);
}

/// What is sent one way costs as much as the keep-alives that it takes the place of.
#[test]
fn snownet_19_a_flow_without_answers_asks_as_seldom_as_keep_alives_leave() {
    let (mut world, _) = with_channel();
    transfer(&mut world, secs(250));
    assert_eq!(world.received(Method::Refresh).len(), 10);
    assert_eq!(world.received(Method::Binding).len(), 0);
    assert!(world.allocation.has_allocation());
    assert_eq!(world.invalidated(), []);
}

#[test]
fn snownet_12_a_relay_that_has_forgotten_us_is_found_out_by_traffic() {
    let (mut world, _) = with_channel();
    let lost = world.relay.relayed.clone();
    world.relay.allocated = false;
    world.relay.channels.clear();
    world.relay.nonce = "nonce-2".to_owned();
    world.relay.relayed = vec![addr("203.0.113.1:50001")];
    transfer(&mut world, ms(3_200));
    use Method::{Allocate, ChannelBind, Refresh};
    assert_eq!(
        world.methods(),
        [Refresh, Refresh, Allocate, ChannelBind],
        "the first one lacks the new nonce"
    );
    assert_eq!(world.invalidated(), lost);
    assert!(world.send(peer(), b"through the new one"));
    world.run(secs(1));
    assert!(!world.relay.data.is_empty());
}

/// Right after a restart that was noticed comes another one: what was asked of the allocation before does not count.
#[test]
fn a_new_allocation_is_asked_about_as_soon_as_the_first() {
    let (mut world, _) = with_channel();
    for _ in 0..3 {
        world.relay.allocated = false;
        world.relay.log.clear();
        transfer(&mut world, ms(3_300));
        assert_eq!(world.received(Method::Allocate).len(), 1);
    }
}

#[test]
fn a_question_that_is_lost_is_repeated() {
    let (mut world, _) = with_channel();
    world.relay.dead.insert(relay_v4());
    transfer(&mut world, ms(5_000));
    assert_eq!(world.invalidated(), []);
    // It has started again meanwhile.
    world.relay.dead.clear();
    world.relay.allocated = false;
    transfer(&mut world, ms(1_000));
    assert_eq!(world.received(Method::Allocate).len(), 1);
    assert!(world.allocation.has_allocation());
}

/// ICE gives a path up after 16.5 s. Until then a question without answer must not end what an outage leaves intact.
#[test]
fn an_outage_that_ice_survives_costs_no_allocation() {
    let (mut world, number) = with_channel();
    world.relay.dead.insert(relay_v4());
    transfer(&mut world, secs(18));
    world.relay.dead.clear();
    assert!(world.receive(number, b"y").is_some());
    transfer(&mut world, secs(30));
    assert_eq!(world.invalidated(), []);
    assert_eq!(world.received(Method::Allocate).len(), 0);
}

#[test]
fn a_relay_that_never_answers_is_given_up_in_the_end() {
    let (mut world, _) = with_channel();
    world.relay.dead.insert(relay_v4());
    transfer(&mut world, secs(24));
    assert_eq!(world.invalidated(), world.relay.relayed);
    assert!(world.allocation.is_suspended());
}

/// A refusal is no reason to ask at once again.
#[test]
fn a_refused_question_is_not_repeated_at_once() {
    let (mut world, _) = with_channel();
    let refusal = (Method::Refresh, ErrorCode::SERVER_ERROR);
    world.relay.errors.push_back(refusal);
    transfer(&mut world, secs(20));
    assert_eq!(world.received(Method::Refresh).len(), 1);
    assert!(world.allocation.has_allocation());
}
