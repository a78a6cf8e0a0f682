//! Allocate and Refresh: C-18 to C-29, C-46, C-53.

use super::*;
use proptest::prelude::*;

const CLIENT: &str = "192.0.2.1:40000";
const CLIENT_V6: &str = "[2001:db8:2::1]:40000";

#[test]
fn relay_18_lifetimes() {
    for (asked, granted) in [
        (None, 600),
        (Some(10_000_000), 3600),
        (Some(1), 1),
        (Some(0), 600),
        (Some(u32::MAX), 3600),
    ] {
        let mut world = World::new(1);
        let (client, user) = (addr(CLIENT), world.user("salt"));
        let reply = world.ask(client, &user, dual(asked));
        assert_eq!(reply.allocated().1, granted, "{asked:?}");
    }
    let mut world = World::new(1);
    let (client, user) = (addr(CLIENT), world.user_until(UNIX_START + 100, "salt"));
    assert_eq!(world.ask(client, &user, dual(None)).allocated().1, 100);
    world.advance(secs(60));
    assert_eq!(world.refresh(client, &user, 600).refreshed(), 40);
    world.advance(secs(39));
    assert_eq!(world.server.allocation_count(), 1);
    world.advance(secs(1));
    assert_eq!(world.server.allocation_count(), 0);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn relay_19_an_allocation_ends_once(
        lifetime in 1u32..=3600,
        families in prop::sample::select(vec![vec!["V4"], vec!["V4", "V6"]]),
        client in prop::sample::select(vec![CLIENT, CLIENT_V6]),
    ) {
        let mut world = World::new(1);
        let (client, user) = (addr(client), world.user("salt"));
        let body = RequestBody::Allocate(Allocate {
            requested_transport: Some(Allocate::UDP),
            additional_family: (families.len() == 2).then_some(Family::V6),
            lifetime: Some(lifetime),
            ..Allocate::default()
        });
        prop_assert_eq!(world.ask(client, &user, body).allocated().1, lifetime);
        world.take_log();
        world.advance(secs(u64::from(lifetime) - 1));
        prop_assert!(world.take_log().is_empty());
        world.advance(secs(2));
        let freed: Vec<_> = families.iter().map(|it| format!("free 49152 {it}")).collect();
        prop_assert_eq!(world.take_log(), freed);
        world.advance(secs(10_000));
        prop_assert!(world.take_log().is_empty());
        prop_assert_eq!(world.server.poll_timeout(), None);
    }

    #[test]
    fn relay_20_refresh_counts_from_now(
        first in 2u32..=3600,
        second in 2u32..=3600,
        client in prop::sample::select(vec![CLIENT, CLIENT_V6]),
    ) {
        let mut world = World::new(1);
        let (client, user) = (addr(client), world.user("salt"));
        world.ask(client, &user, dual(Some(first))).allocated();
        world.advance(secs(u64::from(first) / 2));
        prop_assert_eq!(world.refresh(client, &user, second).refreshed(), second);
        let ends = world.now + secs(second.into());
        prop_assert_eq!(world.server.poll_timeout(), Some(ends));
        world.take_log();
        world.advance(secs(u64::from(second) - 1));
        prop_assert!(world.take_log().is_empty());
        world.advance(secs(1));
        prop_assert_eq!(world.take_log(), ["free 49152 V4", "free 49152 V6"]);
    }

    #[test]
    fn relay_21_deleted_allocations_leave_nothing_behind(
        lifetime in 1u32..=3600,
        after in 0u64..3600,
        channels in 0u16..4,
        client in prop::sample::select(vec![CLIENT, CLIENT_V6]),
    ) {
        let mut world = World::new(1);
        let (client, user) = (addr(client), world.user("salt"));
        world.ask(client, &user, dual(Some(lifetime))).allocated();
        for channel in 0..channels {
            let peer = SocketAddr::from(([203, 0, 113, 9], 9 + channel));
            world.bind(client, &user, 0x4000 + channel, peer).success();
        }
        world.advance(secs(after % u64::from(lifetime)));
        world.take_log();
        let nonce = world.nonce(client, &user);
        let body = RequestBody::Refresh(Refresh {
            lifetime: Some(0),
            ..Refresh::default()
        });
        let bytes = world.signed(&user, Some(&nonce), body);
        prop_assert_eq!(Reply(world.exchange(client, &bytes)).refreshed(), 0);
        prop_assert_eq!(world.take_log(), ["free 49152 V4", "free 49152 V6"]);
        prop_assert_eq!(world.server.poll_timeout(), None);
        world.advance(secs(10_000));
        prop_assert!(world.take_log().is_empty());
    }
}

#[test]
fn relay_21_sockets_are_freed_before_the_reply() {
    let mut world = World::new(1);
    let (client, user) = (addr(CLIENT), world.user("salt"));
    let port = AllocationPort::new(world.allocate(client, &user));
    let nonce = world.nonce(client, &user);
    let body = RequestBody::Refresh(Refresh {
        lifetime: Some(0),
        ..Refresh::default()
    });
    let bytes = world.signed(&user, Some(&nonce), body);
    let now = world.now;
    let train = Train::single(&bytes);
    world
        .server
        .handle_client_input(client, train, now, &mut Sink::default());
    for family in [Family::V4, Family::V6] {
        let free = Command::FreeAllocation { port, family };
        assert_eq!(next_but_users(&mut world), Some(free));
    }
    let reply = next_but_users(&mut world);
    let Some(Command::Send { bytes, .. }) = reply else {
        panic!("{reply:?}");
    };
    assert_eq!(Reply(bytes).refreshed(), 0);
    assert_eq!(next_but_users(&mut world), None);
}

/// The next command that is not news for other workers.
fn next_but_users(world: &mut World) -> Option<Command> {
    std::iter::from_fn(|| world.server.poll_command())
        .find(|it| !matches!(it, Command::UserGained { .. } | Command::UserLost { .. }))
}

#[test]
fn a_replayed_deletion_does_not_hit_the_next_allocation() {
    let mut world = World::new(1);
    let (client, user) = (addr(CLIENT), world.user("salt"));
    world.allocate(client, &user);
    let nonce = world.nonce(client, &user);
    let body = RequestBody::Refresh(Refresh {
        lifetime: Some(0),
        ..Refresh::default()
    });
    let deletion = world.signed(&user, Some(&nonce), body);
    world.client_sends(client, &deletion);
    world.allocate(client, &user);
    world.client_sends(client, &deletion);
    assert_eq!(world.server.allocation_count(), 1);
}

#[test]
fn relay_22_channels_go_with_their_allocation() {
    let mut world = World::new(1);
    let (client, user) = (addr(CLIENT), world.user("salt"));
    let peer = addr("203.0.113.9:9");
    world.allocate(client, &user);
    world.bind(client, &user, 0x4000, peer).success();
    assert_eq!(world.server.channel_count(), 1);
    world.refresh(client, &user, 0);
    assert_eq!(world.server.channel_count(), 0);
    world.allocate(client, &user);
    world.bind(client, &user, 0x4001, peer).success();
    world
        .bind(client, &user, 0x4000, addr("203.0.113.8:8"))
        .success();
}

#[test]
fn relay_23_second_allocate() {
    let mut world = World::new(2);
    let (client, user) = (addr(CLIENT), world.user("salt"));
    let nonce = world.nonce(client, &user);
    let bytes = world.signed(&user, Some(&nonce), dual(None));
    let first = Reply(world.exchange(client, &bytes)).allocated();
    world.advance(secs(10));
    let again = Reply(world.exchange(client, &bytes)).allocated();
    assert_eq!(again, (first.0, 590));
    assert_eq!(
        world.ask(client, &user, dual(None)).code(),
        ErrorCode::ALLOCATION_MISMATCH
    );
    assert_eq!(world.server.allocation_count(), 1);
}

#[test]
fn relay_24_any_valid_user_of_the_socket_may_delete() {
    let mut world = World::new(1);
    let client = addr(CLIENT);
    let (old, new) = (world.user("old"), world.user("new"));
    assert_eq!(
        world.refresh(client, &old, 0).code(),
        ErrorCode::ALLOCATION_MISMATCH
    );
    let bind = world.bind(client, &old, 0x4000, addr("203.0.113.9:9"));
    assert_eq!(bind.code(), ErrorCode::ALLOCATION_MISMATCH);
    assert_eq!(world.server.channel_count(), 0);
    world.allocate(client, &old);
    assert_eq!(world.refresh(client, &new, 0).refreshed(), 0);
    assert_eq!(world.server.allocation_count(), 0);
}

#[test]
fn strict_user_names_allow_nothing_but_deletion() {
    let mut world = World::with(|config| config.strict_username = true);
    let client = addr(CLIENT);
    let (old, new) = (world.user("old"), world.user("new"));
    world.allocate(client, &old);
    let reply = world.refresh(client, &new, 600);
    assert_eq!(reply.code(), ErrorCode::WRONG_CREDENTIALS);
    assert_eq!(world.refresh(client, &new, 0).refreshed(), 0);
}

/// What an Allocate with these attributes gets: families, or the error code.
fn families(
    public: PublicAddresses,
    requested: Option<Family>,
    additional: Option<Family>,
) -> Result<Vec<Family>, u16> {
    let mut world = World::with(|config| config.public = public);
    let user = world.user("salt");
    let body = RequestBody::Allocate(Allocate {
        requested_transport: Some(Allocate::UDP),
        requested_family: requested,
        additional_family: additional,
        ..Allocate::default()
    });
    let client = addr(CLIENT);
    let reply = world.ask(client, &user, body);
    match reply.response().outcome {
        Outcome::Error(error) => Err(error.code.get()),
        Outcome::Success(_) => {
            let (relayed, _) = reply.allocated();
            Ok(relayed.iter().map(|it| crate::family_of(it.ip())).collect())
        }
    }
}

#[test]
fn relay_25_families() {
    use Family::{V4, V6};
    let (v4, v6) = (PUBLIC_V4.parse().unwrap(), PUBLIC_V6.parse().unwrap());
    let wishes = [
        (None, None),
        (Some(V4), None),
        (Some(V6), None),
        (None, Some(V6)),
        (None, Some(V4)),
        (Some(V4), Some(V6)),
    ];
    let expected = [
        (
            PublicAddresses::V4(v4),
            [
                Ok(vec![V4]),
                Ok(vec![V4]),
                Err(440),
                Ok(vec![V4]),
                Err(400),
                Err(400),
            ],
        ),
        (
            PublicAddresses::V6(v6),
            [
                Err(440),
                Err(440),
                Ok(vec![V6]),
                Ok(vec![V6]),
                Err(400),
                Err(400),
            ],
        ),
        (
            PublicAddresses::Dual(v4, v6),
            [
                Ok(vec![V4]),
                Ok(vec![V4]),
                Ok(vec![V6]),
                Ok(vec![V4, V6]),
                Err(400),
                Err(400),
            ],
        ),
    ];
    for (public, row) in expected {
        for ((requested, additional), cell) in wishes.into_iter().zip(row) {
            let got = families(public, requested, additional);
            assert_eq!(got, cell, "{public:?} {requested:?} {additional:?}");
        }
    }
}

#[test]
fn relay_25_dual_stack_shares_one_port() {
    let mut world = World::new(10);
    let (client, user) = (addr(CLIENT), world.user("salt"));
    let (relayed, _) = world.ask(client, &user, dual(None)).allocated();
    let port = relayed[0].port();
    assert_eq!(
        relayed,
        [
            addr(&format!("{PUBLIC_V4}:{port}")),
            addr(&format!("[{PUBLIC_V6}]:{port}"))
        ]
    );
    assert_eq!(
        world.take_log(),
        [format!("bind {port} V4"), format!("bind {port} V6")]
    );
}

#[test]
fn partial_fulfilment_names_the_missing_family() {
    let mut world = World::with(|config| {
        config.public = PublicAddresses::V4(PUBLIC_V4.parse().unwrap());
    });
    let (client, user) = (addr(CLIENT), world.user("salt"));
    let Success::Allocate { address_error, .. } = world.ask(client, &user, dual(None)).success()
    else {
        panic!("not an Allocate");
    };
    let error = address_error.unwrap();
    assert_eq!((error.family, error.code.get()), (Family::V6, 440));
}

#[test]
fn relay_26_refresh_with_the_attributes_of_published_clients() {
    let mut world = World::new(1);
    let (client, user) = (addr(CLIENT), world.user("salt"));
    world.allocate(client, &user);
    let body = RequestBody::Refresh(Refresh {
        requested_transport: Some(Allocate::UDP),
        additional_family: Some(Family::V6),
        ..Refresh::default()
    });
    assert_eq!(world.ask(client, &user, body).refreshed(), 600);
    let body = RequestBody::Refresh(Refresh {
        requested_family: Some(Family::V6),
        ..Refresh::default()
    });
    assert_eq!(world.ask(client, &user, body).refreshed(), 600);
}

#[test]
fn refresh_of_a_family_that_is_not_allocated() {
    let mut world = World::new(1);
    let (client, user) = (addr(CLIENT), world.user("salt"));
    world.ask(client, &user, single(None));
    let body = RequestBody::Refresh(Refresh {
        requested_family: Some(Family::V6),
        ..Refresh::default()
    });
    let reply = world.ask(client, &user, body);
    assert_eq!(reply.code(), ErrorCode::PEER_FAMILY_MISMATCH);
}

#[test]
fn relay_27_full_range() {
    let mut world = World::new(2);
    let clients = ["192.0.2.1:1", "192.0.2.2:1", "192.0.2.3:1"].map(addr);
    let users = ["a", "b", "c"].map(|salt| world.user(salt));
    world.allocate(clients[0], &users[0]);
    world.allocate(clients[1], &users[1]);
    let reply = world.ask(clients[2], &users[2], dual(None));
    assert_eq!(reply.code(), ErrorCode::INSUFFICIENT_CAPACITY);
    world.refresh(clients[0], &users[0], 0);
    world.allocate(clients[2], &users[2]);
}

#[test]
fn relay_28_occupied_ports_are_passed_over() {
    let mut world = World::new(4);
    world
        .occupied
        .extend([FIRST_PORT, FIRST_PORT + 1, FIRST_PORT + 3]);
    let (client, user) = (addr(CLIENT), world.user("salt"));
    assert_eq!(world.allocate(client, &user), FIRST_PORT + 2);
    let (other, user) = (addr("192.0.2.2:1"), world.user("other"));
    let reply = world.ask(other, &user, dual(None));
    assert_eq!(reply.code(), ErrorCode::INSUFFICIENT_CAPACITY);
    world.occupied.clear();
    world.allocate(other, &user);
}

#[test]
fn relay_28_at_most_eight_ports_are_tried() {
    let mut world = World::new(100);
    world.occupied.extend(FIRST_PORT..FIRST_PORT + 100);
    let (client, user) = (addr(CLIENT), world.user("salt"));
    let reply = world.ask(client, &user, single(None));
    assert_eq!(reply.code(), ErrorCode::INSUFFICIENT_CAPACITY);
    assert_eq!(world.take_log().len(), 8);
}

#[test]
fn the_answer_waits_for_every_socket() {
    let mut world = World::new(1);
    let (client, user) = (addr(CLIENT), world.user("salt"));
    let nonce = world.nonce(client, &user);
    let bytes = world.signed(&user, Some(&nonce), dual(None));
    let mut sink = Sink::default();
    let (now, port) = (world.now, AllocationPort::new(FIRST_PORT));
    let server = &mut world.server;
    server.handle_client_input(client, Train::single(&bytes), now, &mut sink);
    for family in [Family::V4, Family::V6] {
        assert_eq!(
            server.poll_command(),
            Some(Command::CreateAllocation { port, family })
        );
    }
    // A retransmission meanwhile changes nothing.
    server.handle_client_input(client, Train::single(&bytes), now, &mut sink);
    assert_eq!(server.poll_command(), None);
    server.handle_port_bound(port, Family::V4, now);
    assert_eq!(server.poll_command(), None);
    server.handle_port_failed(port, Family::V6, now);
    let family = Family::V4;
    assert_eq!(
        server.poll_command(),
        Some(Command::FreeAllocation { port, family })
    );
    assert!(matches!(server.poll_command(), Some(Command::Send { .. })));
    assert_eq!(server.allocation_count(), 0);
    assert_eq!(server.ports.len(), 1);
}

#[test]
fn a_socket_that_fails_later_ends_its_allocation() {
    let mut world = World::new(1);
    let (client, user) = (addr(CLIENT), world.user("salt"));
    let port = AllocationPort::new(world.allocate(client, &user));
    let now = world.now;
    world.server.handle_port_failed(port, Family::V4, now);
    world.execute();
    assert_eq!(world.server.allocation_count(), 0);
    assert!(world.bound.is_empty());
}

#[test]
fn relay_29_one_allocation_per_user() {
    let mut world = World::new(4);
    let (old, new, user) = (addr(CLIENT), addr("192.0.2.1:50000"), world.user("salt"));
    let first = world.allocate(old, &user);
    world
        .bind(old, &user, 0x4000, addr("203.0.113.9:9"))
        .success();
    world.take_log();
    let second = world.allocate(new, &user);
    assert_eq!(
        world.take_log(),
        [
            format!("free {first} V4"),
            format!("free {first} V6"),
            format!("bind {second} V4"),
            format!("bind {second} V6")
        ]
    );
    assert_eq!(world.server.channel_count(), 0);
    assert_eq!(
        world.refresh(old, &user, 600).code(),
        ErrorCode::ALLOCATION_MISMATCH
    );
}

#[test]
fn relay_46_wishes_for_ports() {
    let mut world = World::new(2);
    let (client, user) = (addr(CLIENT), world.user("salt"));
    let wish = |even_port, reservation_token| {
        RequestBody::Allocate(Allocate {
            requested_transport: Some(Allocate::UDP),
            even_port,
            reservation_token,
            dont_fragment: true,
            ..Allocate::default()
        })
    };
    for body in [wish(Some(true), None), wish(None, Some(1))] {
        let reply = world.ask(client, &user, body);
        assert_eq!(reply.code(), ErrorCode::INSUFFICIENT_CAPACITY);
    }
    let (relayed, _) = world
        .ask(client, &user, wish(Some(false), None))
        .allocated();
    assert_eq!(relayed[0].port(), FIRST_PORT);
    let (other, user) = (addr("192.0.2.2:1"), world.user("other"));
    let reply = world.ask(other, &user, wish(Some(false), None));
    assert_eq!(reply.code(), ErrorCode::INSUFFICIENT_CAPACITY);
}

#[test]
fn relay_46_unknown_attributes_are_listed() {
    let mut world = World::new(1);
    let (client, user) = (addr(CLIENT), world.user("salt"));
    let nonce = world.nonce(client, &user);
    let signed = world.signed(&user, Some(&nonce), dual(None));
    // Insert the attribute in front of the signature, then sign again.
    let mut bytes = signed[..signed.len() - 24].to_vec();
    bytes.extend_from_slice(&[0x7F, 0xFE, 0, 0]);
    let bytes = sign(bytes, &user);
    let reply = Reply(world.exchange(client, &bytes));
    assert!(reply.is_signed_by(&user));
    assert_eq!(reply.code(), ErrorCode::UNKNOWN_ATTRIBUTE);
    assert_eq!(reply.error().unknown_attributes, [0x7FFE]);
}

/// Appends MESSAGE-INTEGRITY to a message that the codec cannot build.
fn sign(mut bytes: Vec<u8>, user: &Credentials) -> Vec<u8> {
    use hmac::Mac as _;
    let length = (bytes.len() - 20 + 24) as u16;
    bytes[2..4].copy_from_slice(&length.to_be_bytes());
    let text = format!("{}:firezone:{}", user.username, user.password);
    let key = md5::Digest::finalize(<md5::Md5 as md5::Digest>::new_with_prefix(text));
    let mac = hmac::Hmac::<sha1::Sha1>::new_from_slice(&key).unwrap();
    let mac = mac.chain_update(&bytes).finalize().into_bytes();
    bytes.extend_from_slice(&[0x00, 0x08, 0, 20]);
    bytes.extend_from_slice(&mac);
    bytes
}

#[test]
fn relay_53_draining_serves_what_exists() {
    let mut world = World::new(2);
    let (client, user) = (addr(CLIENT), world.user("salt"));
    world.allocate(client, &user);
    world.server.drain();
    assert_eq!(world.refresh(client, &user, 600).refreshed(), 600);
    world
        .bind(client, &user, 0x4000, addr("203.0.113.9:9"))
        .success();
    let (other, stranger) = (addr("192.0.2.2:1"), world.user("other"));
    let reply = world.ask(other, &stranger, dual(None));
    assert_eq!(reply.code(), ErrorCode::INSUFFICIENT_CAPACITY);
}
