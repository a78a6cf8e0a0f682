//! Strangers, floods and garbage: C-1 to C-5, C-13, C-42 to C-44.

use super::*;
use connlib_stun::{Class, Method};
use proptest::prelude::*;

const CLIENT: &str = "192.0.2.1:40000";

fn binding(id: u8) -> Vec<u8> {
    let request = Request {
        transaction_id: TransactionId::new([id; 12]),
        auth: AuthAttributes::default(),
        software: None,
        body: RequestBody::Binding,
    };
    request.encode(None).unwrap()
}

/// A header of any type with nothing behind it.
fn bare(message_type: u16) -> Vec<u8> {
    let mut bytes = message_type.to_be_bytes().to_vec();
    bytes.extend_from_slice(&[0, 0, 0x21, 0x12, 0xA4, 0x42]);
    bytes.extend_from_slice(&[9; 12]);
    bytes
}

fn any_source() -> impl Strategy<Value = SocketAddr> {
    let v4 = (any::<[u8; 4]>(), 1..=u16::MAX).prop_map(SocketAddr::from);
    let v6 = (any::<[u16; 8]>(), 1..=u16::MAX).prop_map(SocketAddr::from);
    prop_oneof![v4, v6]
}

proptest! {
    #[test]
    fn relay_01_binding(source in any_source(), id: u8) {
        let mut world = World::new(1);
        let reply = Reply(world.exchange(source, &binding(id)));
        let response = reply.response();
        prop_assert_eq!(response.transaction_id, TransactionId::new([id; 12]));
        prop_assert_eq!(response.outcome, Outcome::Success(Success::Binding { mapped: Some(source) }));
        prop_assert!(!reply.is_signed());
        // C-44
        let most = if source.is_ipv4() { 32 } else { 44 };
        prop_assert!(reply.0.len() <= most);
    }

    #[test]
    fn relay_02_source_port_zero(ip: [u8; 4], bytes: Vec<u8>) {
        let mut world = World::new(1);
        world.client_sends((ip, 0).into(), &binding(1));
        world.client_sends((ip, 0).into(), &bytes);
        prop_assert_eq!(world.replies.len() + world.forwarded.len(), 0);
    }

    #[test]
    fn relay_03_garbage_gets_no_reply(first in prop_oneof![4u8..64, 80u8..], rest: Vec<u8>) {
        let mut world = World::new(1);
        world.client_sends(addr(CLIENT), &[&[first][..], &rest].concat());
        prop_assert_eq!(world.replies.len() + world.forwarded.len(), 0);
        prop_assert_eq!(world.server.counters().drops.malformed, 1);
    }

    /// A request whose header does not hold: cut anywhere, of another length than it says, with another cookie.
    #[test]
    fn relay_03_broken_headers_get_no_reply(cut in 0usize..20, extra in 1usize..64, cookie: u32) {
        let mut world = World::new(1);
        let request = binding(1);
        let mut foreign = request.clone();
        foreign[4..8].copy_from_slice(&cookie.to_be_bytes());
        let mut promising = request.clone();
        promising[2..4].copy_from_slice(&(extra as u16).to_be_bytes());
        let mut top_bits = request.clone();
        top_bits[0] |= 0xC0;
        let longer = [&request[..], &vec![0; extra]].concat();
        for bytes in [&request[..cut], &promising, &longer, &top_bits] {
            world.client_sends(addr(CLIENT), bytes);
        }
        if cookie != 0x2112_A442 {
            world.client_sends(addr(CLIENT), &foreign);
        }
        prop_assert_eq!(world.replies.len() + world.forwarded.len(), 0);
    }

    #[test]
    fn relay_04_garbage_does_not_spoil_what_follows(
        bytes in prop::collection::vec(any::<u8>(), 0..200),
        message_type in 0u16..0x4000,
        attributes in prop::collection::vec(any::<u8>(), 0..100),
    ) {
        let mut world = World::new(1);
        world.client_sends(addr(CLIENT), &bytes);
        let mut message = bare(message_type);
        message[3] = attributes.len() as u8;
        message.extend_from_slice(&attributes);
        world.client_sends(addr(CLIENT), &message);
        world.replies.clear();
        let reply = Reply(world.exchange(addr(CLIENT), &binding(1)));
        let mapped = Some(addr(CLIENT));
        prop_assert_eq!(reply.success(), Success::Binding { mapped });
    }

    #[test]
    fn relay_05_responses_and_indications_get_no_reply(
        message_type in (0u16..0x4000).prop_filter("not a request", |it| it & 0x0110 != 0),
        attributes in prop::collection::vec(any::<u8>(), 0..64),
    ) {
        let mut world = World::new(1);
        let mut message = bare(message_type);
        message[3] = attributes.len() as u8;
        message.extend_from_slice(&attributes);
        world.client_sends(addr(CLIENT), &message);
        prop_assert_eq!(world.replies.len(), 0);
    }
}

#[test]
fn unknown_methods_are_refused() {
    let mut world = World::new(1);
    let reply = world.exchange(addr(CLIENT), &bare(0x020F));
    let envelope = Envelope::parse(&reply).unwrap();
    assert_eq!(envelope.class(), Class::Error);
    assert!(matches!(envelope.method(), Method::Other(_)));
    // C-44: 400 has at most twice the size of the smallest request.
    assert!(reply.len() <= 40, "{}", reply.len());
}

#[test]
fn broken_requests_are_refused_unsigned() {
    let mut world = World::new(1);
    let mut overrun = bare(0x0003);
    overrun[3] = 4;
    overrun.extend_from_slice(&[0, 6, 0, 200]);
    let reply = Reply(world.exchange(addr(CLIENT), &overrun));
    assert!(!reply.is_signed());
    let response = reply.error();
    assert_eq!(response.code, ErrorCode::BAD_REQUEST);
    assert_eq!(response.nonce, None);
}

#[test]
fn binding_with_an_unknown_attribute() {
    let mut world = World::new(1);
    let mut bytes = binding(1);
    bytes[3] = 4;
    bytes.extend_from_slice(&[0x7F, 0xFE, 0, 0]);
    let error = Reply(world.exchange(addr(CLIENT), &bytes)).error();
    assert_eq!(error.code, ErrorCode::UNKNOWN_ATTRIBUTE);
    assert_eq!(error.unknown_attributes, [0x7FFE]);
}

#[test]
fn relay_13_challenges_cost_no_memory() {
    let mut world = World::new(1);
    let request = bare(0x0004);
    for source in 0..100_000u32 {
        let source = SocketAddr::from((source.to_be_bytes(), 1000));
        world.server.handle_client_input(
            source,
            Train::single(&request),
            world.now,
            &mut Sink::default(),
        );
        while world.server.poll_command().is_some() {}
    }
    assert_eq!(world.server.allocation_count(), 0);
    assert_eq!(world.server.timers.len(), 0);
    assert!(world.server.deletions.is_empty());
    // Labels only, not sources.
    assert!(world.server.counters().responses.len() <= 2);
}

#[test]
fn relay_42_own_allocations_are_no_clients() {
    let mut world = World::new(10);
    for ip in [PUBLIC_V4.to_owned(), format!("[{PUBLIC_V6}]")] {
        world.client_sends(addr(&format!("{ip}:{FIRST_PORT}")), &binding(1));
        assert_eq!(world.replies.len(), 0);
        // Something else on this host may be a client.
        world.exchange(addr(&format!("{ip}:1000")), &binding(1));
    }
    assert_eq!(world.server.counters().drops.bad_source, 2);
}

#[test]
fn relay_43_floods_are_limited_per_source() {
    let mut world = World::new(1);
    let flood = bare(0x0004);
    for second in 0..10 {
        for port in 1..=1000 {
            world.client_sends(addr(&format!("192.0.2.1:{port}")), &flood);
        }
        let allowed = if second == 0 { 100 } else { 20 };
        assert_eq!(world.replies.len(), allowed, "second {second}");
        world.replies.clear();
        world.exchange(addr(&format!("192.0.2.{}:1", second + 2)), &flood);
        world.advance(secs(1));
    }
    // Whoever signs is answered still.
    let user = world.user("salt");
    world.nonce(addr("192.0.2.1:5"), &user);
}

#[test]
fn relay_43_wrong_passwords_are_limited_too() {
    let mut world = World::new(1);
    let mut user = world.user("salt");
    user.password.push('x');
    let bytes = world.signed(&user, None, dual(None));
    for _ in 0..1000 {
        world.client_sends(addr(CLIENT), &bytes);
    }
    assert_eq!(world.replies.len(), 100);
}

#[test]
fn relay_43_many_clients_behind_one_address_keep_their_mappings() {
    let mut world = World::new(1);
    for _ in 0..10 {
        for port in 1..=600 {
            world.exchange(addr(&format!("192.0.2.1:{port}")), &binding(1));
        }
        world.advance(secs(25));
    }
}

#[test]
fn relay_44_unsigned_replies_are_small() {
    let mut world = World::new(1);
    let reply = world.exchange(addr(CLIENT), &bare(0x0004));
    assert!(reply.len() <= 92, "{}", reply.len());
    let envelope = Envelope::parse(&reply).unwrap();
    assert_eq!(envelope.attribute(connlib_stun::attribute::SOFTWARE), None);
}

#[test]
fn challenges_for_named_users_only() {
    let mut world = World::with(|config| config.challenge_only_with_username = true);
    world.client_sends(addr(CLIENT), &bare(0x0004));
    assert_eq!(world.replies.len(), 0);
    let user = world.user("salt");
    world.nonce(addr(CLIENT), &user);
}
