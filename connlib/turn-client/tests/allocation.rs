//! Conformance of the allocation (connectivity spec §6, items 7–16 and 18–22).
#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod support;

use connlib_stun::{
    Class, Envelope, ErrorCode, ErrorResponse, Family, Header, Key, Method, RequestBody, Response,
    TransactionId,
};
use connlib_turn_client::{Event, FreeReason, Input};
use support::*;

#[test]
fn snownet_07_retry_ladder_then_freed_without_response() {
    let mut world = World::with_latency(only_v4(), ms(0));
    world.relay.mute = vec![Method::Binding];
    world.run(ms(8124));
    assert_eq!(world.times(Method::Binding), [0, 1000, 2500, 4750]);
    let ids: Vec<_> = world
        .relay
        .log
        .iter()
        .map(|r| r.request.transaction_id)
        .collect();
    assert!(ids.iter().all(|id| *id == ids[0]), "BINDING repeats its id");
    assert_eq!(world.free_reason(), None);
    world.run(ms(1));
    assert_eq!(world.free_reason(), Some(FreeReason::NoResponse));
    assert_eq!(world.allocation.poll_timeout(), None);
    assert_eq!(world.events, []);
}

#[test]
fn snownet_08_first_answer_decides() {
    let mut world = World::new(dual());
    world.run(ms(5));
    assert_eq!(world.allocation.active_socket(), None);
    world.run(ms(995));
    assert_eq!(world.allocation.active_socket(), Some(relay_v4()));
    let allocates = world.received(Method::Allocate);
    assert!(allocates.iter().all(|received| received.dst == relay_v4()));
    let shared: Vec<_> = world
        .allocation
        .shared_candidates()
        .map(|candidate| candidate.addr())
        .collect();
    let (v4, v6) = (relay_v4(), relay_v6());
    assert_eq!(shared, [local(v4), local(v6), mapped(v4), mapped(v6)]);
}

#[test]
fn snownet_08_dead_family_is_ignored() {
    let mut world = World::new(dual());
    world.relay.dead.insert(relay_v4());
    world.run(secs(20));
    assert_eq!(world.allocation.active_socket(), Some(relay_v6()));
    assert!(world.allocation.has_allocation());
    assert_eq!(world.invalidated(), []);
}

#[test]
fn snownet_09_first_allocate_is_signed_without_nonce() {
    let mut world = World::new(only_v4());
    world.run(secs(1));
    let allocates = world.received(Method::Allocate);
    assert_eq!(allocates.len(), 2);
    assert!(allocates[0].signed && allocates[0].nonce().is_none());
    assert_eq!(
        allocates[0].request.auth.username.as_deref(),
        Some(USERNAME)
    );
    assert_eq!(allocates[0].request.auth.realm.as_deref(), Some("firezone"));
    assert_eq!(allocates[0].request.software.as_deref(), Some("snownet"));
    let RequestBody::Allocate(allocate) = &allocates[0].request.body else {
        panic!("not an ALLOCATE")
    };
    assert_eq!(allocate.requested_transport, Some(17));
    assert_eq!(allocate.additional_family, Some(Family::V6));
    assert!(allocates[1].signed);
    assert_eq!(allocates[1].nonce(), Some("nonce-1"));
    let ids = [&allocates[0], &allocates[1]].map(|received| received.request.transaction_id);
    assert_ne!(ids[0], ids[1]);
    assert!(world.allocation.has_allocation());
}

#[test]
fn snownet_09_stale_nonce_is_replaced() {
    let mut world = World::allocated(only_v4());
    world.relay.nonce = "nonce-2".to_owned();
    world.bind(addr("198.51.100.9:1"));
    world.bind(addr("198.51.100.9:2"));
    world.run(secs(1));
    let nonces: Vec<_> = world.relay.log.iter().map(|r| r.nonce().unwrap()).collect();
    assert_eq!(nonces, ["nonce-1", "nonce-1", "nonce-2", "nonce-2"]);
    assert_eq!(world.relay.channels.len(), 2);
}

#[test]
fn snownet_09_unauthorized_with_nonce_ends_the_allocation() {
    let mut world = World::allocated(dual());
    world
        .relay
        .errors
        .push_back((Method::ChannelBind, ErrorCode::UNAUTHORIZED));
    world.bind(addr("198.51.100.9:1"));
    world.run(secs(3600));
    assert_eq!(world.methods(), [Method::ChannelBind]);
    assert_eq!(world.invalidated(), world.relay.relayed);
    assert_eq!(world.free_reason(), Some(FreeReason::Authentication));
}

#[test]
fn snownet_09_events_leave_before_the_allocation_is_freed() {
    let mut world = World::allocated(only_v4());
    world
        .relay
        .errors
        .push_back((Method::Refresh, ErrorCode::UNKNOWN_ATTRIBUTE));
    world.allocation.refresh(world.now);
    let request = world.allocation.poll_transmit().unwrap();
    let envelope = Envelope::parse(&request.payload).unwrap();
    let error = ErrorResponse::new(ErrorCode::UNKNOWN_ATTRIBUTE);
    let key = world.relay.key.clone();
    let reply = Response::error(envelope.header(), error)
        .encode(Some(&key))
        .unwrap();
    assert_eq!(world.inject(relay_v4(), &reply), Input::Consumed);
    assert_eq!(world.inject(relay_v4(), &reply), Input::Unknown, "settled");
    assert_eq!(world.free_reason(), None);
    assert!(world.allocation.poll_timeout().unwrap().0 <= world.now);
    world.drain();
    assert_eq!(world.invalidated().len(), 2);
    assert_eq!(world.free_reason(), Some(FreeReason::Protocol));
}

#[test]
fn snownet_10_foreign_realm_is_not_authenticated_to() {
    let mut world = World::new(only_v4());
    world.relay.realm = "elsewhere".to_owned();
    world.run(secs(3600));
    assert_eq!(world.methods(), [Method::Binding, Method::Allocate]);
    assert_eq!(world.free_reason(), Some(FreeReason::Authentication));
}

#[test]
fn snownet_11_bad_integrity_changes_nothing() {
    let mut world = World::new(only_v4());
    world.relay.forge = true;
    world.run(ms(800));
    assert_eq!(world.received(Method::Allocate).len(), 1);
    assert!(!world.allocation.has_allocation());
    world.relay.forge = false;
    world.run(secs(2));
    // The ladder's second transmission at 1 s, then the one with a nonce.
    assert_eq!(world.times(Method::Allocate), [30, 1030, 1050]);
    assert!(world.allocation.has_allocation());
}

/// Not only a forged challenge: neither a success nor an error that would change something.
#[test]
fn snownet_11_forged_answers_of_any_kind_change_nothing() {
    // The first forged answer to ALLOCATE is a success: the relay has it, we do not take it.
    let mut world = World::new(only_v4());
    world.run(ms(45));
    world.relay.forge = true;
    world.run(ms(900));
    assert!(world.relay.allocated && !world.allocation.has_allocation());
    assert_eq!(world.events.len(), 2, "host and reflexive address only");

    for code in [
        ErrorCode::ALLOCATION_MISMATCH,
        ErrorCode::UNAUTHORIZED,
        ErrorCode::UNKNOWN_ATTRIBUTE,
    ] {
        let mut world = World::allocated(only_v4());
        world.relay.forge = true;
        world.relay.errors.push_back((Method::ChannelBind, code));
        world.bind(addr("198.51.100.9:1"));
        world.run(ms(900));
        assert!(world.allocation.has_allocation());
        assert_eq!(world.free_reason(), None);
        world.relay.forge = false;
        world.run(secs(2));
        assert_eq!(world.times(Method::ChannelBind), [1010, 2010], "{code:?}");
        assert!(world.send(addr("198.51.100.9:1"), b"x"));
    }
}

#[test]
fn snownet_12_mismatch_on_allocate() {
    let mut world = World::new(only_v4());
    world.relay.allocated = true;
    world.run(secs(1));
    use Method::{Allocate, Binding, Refresh};
    assert_eq!(
        world.methods(),
        [Binding, Allocate, Allocate, Refresh, Allocate]
    );
    assert_eq!(world.received(Refresh)[0].lifetime(), Some(0));
    assert!(world.allocation.has_allocation());
    assert_eq!(world.invalidated(), []);
}

#[test]
fn snownet_12_deletion_of_nothing_counts_as_success() {
    let mut world = World::new(only_v4());
    world
        .relay
        .errors
        .push_back((Method::Allocate, ErrorCode::ALLOCATION_MISMATCH));
    world.run(secs(1));
    assert!(world.allocation.has_allocation());
}

#[test]
fn snownet_12_endless_mismatch_does_not_loop() {
    let mut world = World::new(only_v4());
    let mismatch = (Method::Allocate, ErrorCode::ALLOCATION_MISMATCH);
    world.relay.errors.extend(vec![mismatch; 1000]);
    world.run(secs(20));
    assert!(world.allocation.is_suspended());
    assert!(world.relay.log.len() < 12, "{:?}", world.methods());
}

#[test]
fn snownet_12_mismatch_on_refresh() {
    let mut world = World::allocated(dual());
    world.relay.allocated = false;
    world.run(secs(301));
    assert_eq!(world.received(Method::Refresh).len(), 1);
    assert_eq!(world.received(Method::Allocate).len(), 1);
    assert_eq!(world.invalidated(), world.relay.relayed);
    assert!(world.allocation.has_allocation());
}

#[test]
fn snownet_12_mismatch_on_channel_bind() {
    let mut world = World::allocated(dual());
    world.relay.allocated = false;
    let peer = addr("198.51.100.9:1");
    world.bind(peer);
    world.run(secs(1));
    use Method::{Allocate, ChannelBind};
    assert_eq!(world.methods(), [ChannelBind, Allocate, ChannelBind]);
    assert!(world.binds().iter().all(|(_, to)| *to == peer));
    assert!(world.send(peer, b"x"));
}

#[test]
fn snownet_13_unknown_attribute_is_final() {
    let mut world = World::new(only_v4());
    world
        .relay
        .errors
        .push_back((Method::Allocate, ErrorCode::UNKNOWN_ATTRIBUTE));
    world.run(secs(3600));
    assert_eq!(world.free_reason(), Some(FreeReason::Protocol));
    assert_eq!(world.received(Method::Allocate).len(), 2);
}

#[test]
fn snownet_13_quota_suspends_and_is_retried() {
    let mut world = World::new(only_v4());
    let quota = (Method::Allocate, ErrorCode::QUOTA_REACHED);
    world.relay.errors.extend([quota; 5]);
    world.bind(addr("198.51.100.9:1"));
    world.run(secs(1));
    assert!(world.allocation.is_suspended() && !world.allocation.has_allocation());
    assert_eq!(world.free_reason(), None);
    world.bind(addr("198.51.100.9:2"));

    world.run(secs(1000));
    let starts: Vec<_> = world
        .received(Method::Binding)
        .iter()
        .map(|received| received.at.as_secs())
        .collect();
    // 30, 60, 120, 240 and 300 s after each failure; from 750 s on, keep-alives of the fifth.
    assert_eq!(starts[..6], [0, 30, 90, 210, 450, 750]);
    assert!(world.allocation.has_allocation());
    assert_eq!(world.binds(), [], "buffered binds were cleared");
}

#[test]
fn snownet_13_success_resets_the_backoff() {
    let mut world = World::new(only_v4());
    let quota = (Method::Allocate, ErrorCode::QUOTA_REACHED);
    world.relay.errors.extend([quota; 3]);
    world.run(secs(300));
    assert!(world.allocation.has_allocation());
    world.relay.log.clear();
    world.relay.errors.push_back(quota);
    world.relay.allocated = false;
    world.allocation.refresh(world.now);
    world.run(secs(29));
    assert!(world.allocation.is_suspended());
    world.run(secs(2));
    assert!(world.allocation.has_allocation());
}

#[test]
fn snownet_13_suspended_allocation_restarts_on_refresh() {
    let mut world = World::new(only_v4());
    world
        .relay
        .errors
        .push_back((Method::Allocate, ErrorCode::INSUFFICIENT_CAPACITY));
    world.run(secs(5));
    assert!(world.allocation.is_suspended());
    world.allocation.refresh(world.now);
    assert!(!world.allocation.is_suspended());
    world.run(secs(1));
    assert!(world.allocation.has_allocation());
}

#[test]
fn snownet_14_refresh_at_half_life_once() {
    let mut world = World::new(only_v4());
    world.run(secs(1));
    let allocated_at = world.received(Method::Allocate)[1].at.as_millis() + 10;
    world.run(secs(600));
    let refreshes = world.times(Method::Refresh);
    let renewed_at = allocated_at + 300_000 + 20;
    assert_eq!(refreshes, [renewed_at - 10, renewed_at + 300_000 + 10]);
    assert!(world.allocation.has_allocation());
    assert_eq!(world.invalidated(), []);
}

#[test]
fn snownet_14_failed_refresh_invalidates_at_once() {
    let mut world = World::allocated(dual());
    world.relay.mute = vec![Method::Refresh];
    world.run(secs(310));
    assert_eq!(world.received(Method::Refresh).len(), 4);
    assert_eq!(world.invalidated(), world.relay.relayed);
    assert!(!world.allocation.has_allocation());
    assert!(world.allocation.is_suspended());
    assert_eq!(world.allocation.active_socket(), None);
}

#[test]
fn snownet_14_expiry_invalidates_both_candidates() {
    let mut world = World::allocated(dual());
    let refused = (Method::Refresh, ErrorCode::SERVER_ERROR);
    world.relay.errors.extend([refused; 100]);
    world.run(secs(598));
    assert_eq!(world.invalidated(), []);
    assert!(world.received(Method::Refresh).len() < 8);
    world.relay.allocated = false;
    world.run(secs(3));
    assert_eq!(world.invalidated(), world.relay.relayed);
    assert!(world.allocation.has_allocation(), "allocates anew");
}

#[test]
fn snownet_14_host_suspend() {
    let mut world = World::allocated(dual());
    world.relay.allocated = false;
    world.sleep(secs(3600));
    assert_eq!(world.invalidated(), world.relay.relayed);
    world.run(secs(1));
    assert!(world.allocation.has_allocation());
    assert!(world.wakeups < 10);
}

#[test]
fn snownet_15_other_family_is_never_bound() {
    for (relayed, skipped, bound) in [
        ("203.0.113.1:50000", "[2001:db8::9]:1", "198.51.100.9:1"),
        ("[2001:db8::1]:50000", "198.51.100.9:1", "[2001:db8::9]:1"),
    ] {
        let mut world = World::new(only_v4());
        world.relay.relayed = vec![addr(relayed)];
        world.bind(addr(skipped));
        world.bind(addr(bound));
        world.run(secs(1));
        assert_eq!(world.binds(), [(0x4000, addr(bound))]);
        world.bind(addr(skipped));
        assert!(!world.send(addr(skipped), b"x"));
        world.run(secs(1));
        assert_eq!(world.binds().len(), 1);
    }
}

#[test]
fn snownet_16_buffered_binds() {
    let mut world = World::new(only_v4());
    for _ in 0..3 {
        world.bind(addr("198.51.100.9:1"));
        world.bind(addr("198.51.100.9:2"));
    }
    world.run(secs(1));
    let expected = [
        (0x4000, addr("198.51.100.9:1")),
        (0x4001, addr("198.51.100.9:2")),
    ];
    assert_eq!(world.binds(), expected);
}

#[test]
fn snownet_16_repeated_binds_push_nobody_out() {
    let mut world = World::new(only_v4());
    world.bind(addr("198.51.100.9:1"));
    for _ in 0..200 {
        world.bind(addr("198.51.100.9:2"));
    }
    world.run(secs(1));
    assert_eq!(world.binds().len(), 2);
}

#[test]
fn snownet_16_buffer_is_a_ring() {
    let mut world = World::new(only_v4());
    for port in 1..=150 {
        world.bind(addr(&format!("198.51.100.9:{port}")));
    }
    world.run(secs(1));
    let ports: Vec<_> = world.binds().iter().map(|(_, peer)| peer.port()).collect();
    assert_eq!(ports, (51..=150).collect::<Vec<u16>>());
}

#[test]
fn snownet_18_relay_without_our_state_recovers() {
    let mut world = World::allocated(only_v4());
    let peer = addr("198.51.100.9:1");
    world.bind(peer);
    world.run(secs(1));
    // The relay forgets everything but keeps running.
    world.relay.allocated = false;
    world.relay.channels.clear();
    world.allocation.refresh(world.now);
    world.run(secs(1));
    assert!(world.allocation.has_allocation());
    assert!(!world.send(peer, b"lost"), "asks for a channel");
    assert!(world.send(peer, b"arrives"));
    world.run(secs(1));
    assert_eq!(world.relay.data.len(), 1);
}

#[test]
fn snownet_19_keep_alive_when_silent() {
    let mut world = World::allocated(only_v4());
    world.run(secs(101));
    assert_eq!(world.received(Method::Binding).len(), 4);
    assert_eq!(world.methods().len(), 4);
}

#[test]
fn snownet_19_no_keep_alive_while_data_flows() {
    let mut world = World::allocated(only_v4());
    let peer = addr("198.51.100.9:1");
    world.bind(peer);
    for _ in 0..10 {
        world.run(secs(10));
        assert!(world.send(peer, b"x"));
    }
    assert_eq!(world.received(Method::Binding).len(), 0);
    let last = world.elapsed();
    world.run(secs(26));
    assert_eq!(world.received(Method::Binding).len(), 1);
    assert_eq!(
        world.received(Method::Binding)[0].at,
        last + secs(25) + ms(10)
    );
}

#[test]
fn snownet_19_unanswered_keep_alive_is_a_dead_relay() {
    let mut world = World::allocated(dual());
    world.relay.dead.extend([relay_v4(), relay_v6()]);
    world.run(secs(25 + 9));
    assert_eq!(world.invalidated(), world.relay.relayed);
    assert!(world.allocation.is_suspended());
    world.run(secs(30 + 9));
    assert!(world.allocation.is_suspended());
    assert_eq!(world.free_reason(), None, "it has answered once");
    world.relay.dead.clear();
    world.relay.allocated = false;
    world.run(secs(60));
    assert!(world.allocation.has_allocation());
}

/// An allocation belongs to the address that the relay sees; behind another one it is lost, five minutes before its refresh
/// would tell (snownet 12, 19).
#[test]
fn snownet_19_keep_alive_notices_another_mapping() {
    let mut world = World::allocated(only_v4());
    let lost = world.relay.relayed.clone();
    let moved = addr("198.51.100.2:40001");
    world.relay.remap(moved);
    world.relay.relayed = vec![addr("203.0.113.1:50001")];
    world.run(secs(26));
    use Method::{Allocate, Binding, Refresh};
    assert_eq!(world.methods(), [Binding, Refresh, Allocate]);
    assert_eq!(world.invalidated(), lost);
    let relayed: Vec<_> = world.allocation.relayed_candidates().collect();
    assert_eq!(relayed.len(), 1);
    assert_eq!(relayed[0].addr(), addr("203.0.113.1:50001"));
    assert!(
        world
            .events
            .iter()
            .any(|event| matches!(event, Event::New(candidate) if candidate.addr() == moved))
    );
}

/// After a suspend of the host, data that is sent before anything else must not put off what tells that the mapping is gone.
#[test]
fn snownet_19_data_does_not_defer_an_overdue_keep_alive() {
    let mut world = World::allocated(only_v4());
    let peer = addr("198.51.100.9:1");
    world.bind(peer);
    world.run(secs(1));
    world.relay.log.clear();
    world.relay.remap(addr("198.51.100.2:40001"));
    world.now += secs(120);
    assert!(world.send(peer, b"into the void"));
    world.run(secs(1));
    use Method::{Allocate, Binding, ChannelBind, Refresh};
    assert_eq!(
        world.methods(),
        [Binding, Refresh, Allocate],
        "{ChannelBind:?} comes with the next use"
    );
    assert!(world.allocation.has_allocation());
}

#[test]
fn snownet_20_late_response_to_an_earlier_attempt() {
    let mut world = World::new(only_v4());
    world.run(ms(45));
    world.extra_latency = secs(2);
    world.run(secs(3));
    let allocates = world.received(Method::Allocate).len();
    assert!(allocates >= 3, "first try, with nonce, at least one retry");
    assert!(world.allocation.has_allocation());
    world.run(secs(3));
    assert_eq!(
        world.received(Method::Refresh).len(),
        0,
        "no 437 was acted on"
    );
    assert_eq!(world.invalidated(), []);
}

#[test]
fn snownet_20_late_challenge_to_an_earlier_attempt() {
    let mut world = World::new(only_v4());
    world.run(ms(25));
    // The answers to the first ALLOCATE (at 30 ms) and to its repetition (at 1030 ms), both without nonce, arrive at 1140
    // and 1160 ms; the answer to the third, which has a nonce, takes until after that.
    world.extra_latency = ms(1100);
    world.run(ms(1000));
    world.extra_latency = ms(120);
    world.run(ms(75));
    world.extra_latency = ms(500);
    world.run(secs(5));
    assert!(world.allocation.has_allocation());
    let with_nonce = world.received(Method::Allocate);
    let with_nonce = with_nonce.iter().filter(|r| r.nonce().is_some()).count();
    assert_eq!(with_nonce, 1);
}

#[test]
fn snownet_21_replacement_is_recognised() {
    let world = World::allocated(dual());
    let same = connlib_turn_client::Credentials {
        username: USERNAME.to_owned(),
        password: PASSWORD.to_owned(),
        realm: "firezone".to_owned(),
    };
    let mut other = same.clone();
    other.password.push('!');
    assert!(world.allocation.matches(&dual(), &same));
    assert!(!world.allocation.matches(&dual(), &other));
    assert!(!world.allocation.matches(&only_v4(), &same));
    assert!(!format!("{other:?}").contains("password!"));
}

#[test]
fn snownet_22_silent_death_is_found_within_a_second_of_refresh() {
    let mut world = World::allocated(dual());
    world.relay.dead.extend([relay_v4(), relay_v6()]);
    world.allocation.refresh(world.now);
    world.run(ms(999));
    assert_eq!(world.invalidated(), []);
    world.run(ms(1));
    assert_eq!(world.invalidated(), world.relay.relayed);
    assert_eq!(world.relay.log.len(), 0);
}

#[test]
fn probe_of_a_living_relay_is_one_message() {
    let mut world = World::allocated(only_v4());
    world.allocation.refresh(world.now);
    world.allocation.refresh(world.now);
    world.run(secs(5));
    assert_eq!(world.methods(), [Method::Refresh]);
    assert_eq!(world.received(Method::Refresh)[0].lifetime(), None);
    // Only data defers the keep-alive: without it, the NAT's mapping is not known to be used both ways.
    world.run(secs(20));
    assert_eq!(world.methods(), [Method::Refresh, Method::Binding]);
}

#[test]
fn restart_begins_without_nonce_and_candidates() {
    let mut world = World::allocated(dual());
    world.relay.allocated = false;
    world.allocation.restart(world.now);
    assert_eq!(world.allocation.shared_candidates().count(), 0);
    assert_eq!(world.allocation.relayed_candidates().count(), 0);
    assert_eq!(world.allocation.rtt(), None);
    world.run(secs(1));
    assert!(world.allocation.has_allocation());
    assert_eq!(world.received(Method::Allocate)[0].nonce(), None);
    assert_eq!(world.invalidated(), []);
}

#[test]
fn candidates_are_reported_once() {
    let mut world = World::new(dual());
    world.run(secs(200));
    let news = world.events.iter().map(|event| match event {
        Event::New(candidate) => (candidate.kind().to_string(), candidate.addr()),
        Event::Invalid(_) => panic!("nothing is invalid"),
    });
    let news: Vec<_> = news.collect();
    let (v4, v6) = (relay_v4(), relay_v6());
    let mut expected = vec![
        ("host".to_owned(), local(v4)),
        ("srflx".to_owned(), mapped(v4)),
        ("host".to_owned(), local(v6)),
        ("srflx".to_owned(), mapped(v6)),
    ];
    expected.extend(world.relay.relayed.iter().map(|a| ("relay".to_owned(), *a)));
    assert_eq!(news, expected);
    assert!(world.allocation.owns_relayed(world.relay.relayed[1]));
    assert!(!world.allocation.owns_relayed(v4));
}

#[test]
fn rtt_is_smoothed() {
    let mut world = World::new(only_v4());
    world.run(secs(1));
    assert_eq!(world.allocation.rtt(), Some(ms(20)));
    world.extra_latency = ms(80);
    world.allocation.refresh(world.now);
    world.run(secs(1));
    assert_eq!(world.allocation.rtt(), Some(ms(30)));
}

#[test]
fn strangers_are_told_apart() {
    let mut world = World::allocated(only_v4());
    let header = Header {
        class: Class::Request,
        method: Method::Binding,
        transaction_id: TransactionId::new([1; 12]),
    };
    let error = ErrorResponse::new(ErrorCode::BAD_REQUEST);
    let stun = Response::error(header, error).encode(None).unwrap();
    assert_eq!(world.inject(relay_v6(), &stun), Input::OtherSender);
    assert_eq!(world.inject(relay_v4(), &stun), Input::Unknown);
    assert_eq!(world.inject(relay_v4(), b"\x00abc"), Input::NotStun);
}

#[test]
fn response_from_the_other_socket_of_the_relay_is_not_taken() {
    let mut world = World::allocated(dual());
    world.allocation.refresh(world.now);
    let request = world.allocation.poll_transmit().unwrap();
    let header = Envelope::parse(&request.payload).unwrap().header();
    let error = ErrorResponse::new(ErrorCode::ALLOCATION_MISMATCH);
    let key = world.relay.key.clone();
    let reply = Response::error(header, error).encode(Some(&key)).unwrap();
    assert_eq!(world.inject(relay_v6(), &reply), Input::Unknown);
    assert!(world.allocation.has_allocation());
    assert_eq!(world.inject(relay_v4(), &reply), Input::Consumed);
    assert!(!world.allocation.has_allocation());
}

#[test]
fn endless_stale_nonces_do_not_loop() {
    let mut world = World::allocated(only_v4());
    let stale = (Method::Refresh, ErrorCode::STALE_NONCE);
    world.relay.errors.extend([stale; 1000]);
    world.allocation.refresh(world.now);
    world.run(secs(20));
    assert!(world.relay.log.len() < 10);
}

#[test]
fn equal_seed_and_input_give_equal_output() {
    let trace = |_| {
        let mut world = World::new(dual());
        world.bind(addr("198.51.100.9:1"));
        world.run(secs(2000));
        let log = world.relay.log.into_iter();
        log.map(|received| (received.at, received.dst, received.request))
            .collect::<Vec<_>>()
    };
    assert_eq!(trace(1), trace(2));
}

#[test]
fn credentials_that_do_not_fit_are_a_protocol_failure() {
    let credentials = connlib_turn_client::Credentials {
        username: "x".repeat(1000),
        password: String::new(),
        realm: "firezone".to_owned(),
    };
    let mut world = World::new(only_v4());
    world.relay.key = Key::long_term(&credentials.username, "firezone", "");
    world.allocation =
        connlib_turn_client::Allocation::new(only_v4(), credentials, "snownet", [0; 32], world.now);
    world.run(secs(10));
    assert_eq!(world.free_reason(), Some(FreeReason::Protocol));
}

#[test]
fn released_allocation_is_deleted_on_the_relay_and_stays_silent() {
    let mut world = World::allocated(dual());
    let before = world.received(Method::Refresh).len();
    world.allocation.release(world.now);
    world.drain();
    world.run(secs(120));
    let lifetimes: Vec<_> = world.received(Method::Refresh)[before..]
        .iter()
        .map(|received| received.lifetime())
        .collect();
    assert_eq!(lifetimes, [Some(0)]);
    assert_eq!(world.free_reason(), Some(FreeReason::Released));
    assert_eq!(world.allocation.poll_timeout(), None);
}

#[test]
fn release_while_allocating_sends_nothing() {
    let mut world = World::with_latency(only_v4(), ms(0));
    world.relay.mute = vec![Method::Binding];
    world.run(ms(10));
    world.allocation.release(world.now);
    world.drain();
    world.run(secs(60));
    assert_eq!(world.methods(), [Method::Binding]);
    assert_eq!(world.free_reason(), Some(FreeReason::Released));
}
