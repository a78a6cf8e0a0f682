//! The open profile, and what the portal profile leaves out of it: C-5, C-39.

use std::num::NonZeroU64;

use super::*;
use connlib_stun::Indication;

const CLIENT: &str = "192.0.2.1:40000";
const PEER: &str = "203.0.113.9:9";

fn open() -> World {
    let public = PublicAddresses::Dual(PUBLIC_V4.parse().unwrap(), PUBLIC_V6.parse().unwrap());
    let mut config = Config::open(public);
    config.ports = range(2);
    config
        .static_users
        .insert("me".to_owned(), "secret".to_owned());
    World::of(config)
}

fn send(peer: &str, data: &[u8]) -> Vec<u8> {
    let indication = Indication::Send {
        peer: addr(peer),
        data: data.to_vec(),
    };
    indication.encode(TransactionId::new([1; 12])).unwrap()
}

fn data_indications(world: &mut World) -> Vec<(SocketAddr, Vec<u8>)> {
    let replies = std::mem::take(&mut world.replies);
    let indications = replies.into_iter().map(|(_, bytes)| {
        match Indication::decode(&Envelope::parse(&bytes).unwrap()).unwrap() {
            Indication::Data { peer, data } => (peer, data),
            other => panic!("{other:?}"),
        }
    });
    indications.collect()
}

#[test]
fn relay_39_portal_profile_opens_nothing() {
    let mut world = World::new(1);
    let (client, user) = (addr(CLIENT), world.user("salt"));
    assert_eq!(world.permit(client, &user, &[addr(PEER)]).code().get(), 437);
    world.allocate(client, &user);
    assert_eq!(world.permit(client, &user, &[]).code().get(), 400);
    let reply = world.permit(client, &user, &[addr(PEER), addr("127.0.0.1:1")]);
    assert_eq!(reply.code().get(), 403);
    let reply = world.permit(client, &user, &[addr(PEER), addr("203.0.113.1:0")]);
    assert_eq!(reply.success(), Success::CreatePermission);
    world.peer_sends(FIRST_PORT, addr(PEER), b"x");
    world.client_sends(client, &send(PEER, b"x"));
    assert_eq!(world.forwarded.len() + world.replies.len(), 0);
}

// relay 5: an indication is never answered; it is relayed to a permitted peer and to nobody else.
#[test]
fn relay_39_open_profile_permissions() {
    let mut world = open();
    let (client, user) = (addr(CLIENT), world.user("salt"));
    let port = world.allocate(client, &user);
    world.peer_sends(port, addr(PEER), b"early");
    world.client_sends(client, &send(PEER, b"early"));
    assert_eq!(world.forwarded.len() + world.replies.len(), 0);

    world.permit(client, &user, &[addr(PEER)]).success();
    world.advance(secs(299));
    world.peer_sends(port, addr(PEER), b"in");
    // Any port of the permitted address.
    world.peer_sends(port, addr("203.0.113.9:10"), b"");
    assert_eq!(
        data_indications(&mut world),
        [
            (addr(PEER), b"in".to_vec()),
            (addr("203.0.113.9:10"), vec![])
        ]
    );
    world.client_sends(client, &send(PEER, b"out"));
    assert_eq!(
        world.take_forwarded(),
        [(to_peer(port, addr(PEER)), b"out".to_vec())]
    );

    world.advance(secs(1));
    world.peer_sends(port, addr(PEER), b"late");
    world.client_sends(client, &send(PEER, b"late"));
    assert_eq!(world.forwarded.len() + world.replies.len(), 0);
}

/// The wide range of RFC 8656, which the portal profile refuses.
#[test]
fn relay_32_wide_numbers() {
    let mut world = open();
    let (client, user) = (addr(CLIENT), world.user("salt"));
    let port = world.allocate(client, &user);
    world.bind(client, &user, 22110, addr(PEER)).success();
    world.client_sends_data(client, 22110, b"there");
    world.peer_sends(port, addr(PEER), b"back");
    assert_eq!(
        world.take_forwarded(),
        [
            (to_peer(port, addr(PEER)), b"there".to_vec()),
            (to_client(client, 22110), b"back".to_vec())
        ]
    );
    // 0x8000 exists in no range.
    let beyond = [&[0x80, 0, 0, 6][..], b"beyond"].concat();
    world.client_sends(client, &beyond);
    assert_eq!(world.take_forwarded(), []);
}

#[test]
fn a_channel_admits_its_peer_without_a_channel_too() {
    let mut world = open();
    let (client, user) = (addr(CLIENT), world.user("salt"));
    let port = world.allocate(client, &user);
    world.bind(client, &user, 0x7FFF, addr(PEER)).success();
    world.peer_sends(port, addr(PEER), b"channel");
    world.peer_sends(port, addr("203.0.113.9:10"), b"permission");
    assert_eq!(
        world.take_forwarded(),
        [(to_client(client, 0x7FFF), b"channel".to_vec())]
    );
    assert_eq!(data_indications(&mut world).len(), 1);
    world.client_sends_data(client, 0x7FFF, b"back");
    assert_eq!(world.take_forwarded().len(), 1);
}

#[test]
fn indications_between_two_allocations() {
    let mut world = open();
    let (a, b, user) = (addr(CLIENT), addr("192.0.2.2:2"), world.user("salt"));
    let (port_a, port_b) = (world.allocate(a, &user), world.allocate(b, &user));
    let relayed = |port| format!("{PUBLIC_V4}:{port}");
    world.permit(a, &user, &[addr(&relayed(port_b))]).success();
    world.client_sends(a, &send(&relayed(port_b), b"one-sided"));
    assert_eq!(world.forwarded.len() + world.replies.len(), 0);
    world.permit(b, &user, &[addr(&relayed(port_a))]).success();
    world.client_sends(a, &send(&relayed(port_b), b"hello"));
    assert_eq!(
        data_indications(&mut world),
        [(addr(&relayed(port_a)), b"hello".to_vec())]
    );
}

/// `--max-bytes-per-second` counts what goes without a channel like what goes with one, one by one and in trains.
#[test]
fn the_limit_of_an_allocation_counts_indications() {
    let mut config = Config::open(PublicAddresses::V4(PUBLIC_V4.parse().unwrap()));
    config.max_bytes_per_second = NonZeroU64::new(10_000);
    let mut world = World::of(config);
    let (client, user) = (addr(CLIENT), world.user("salt"));
    let port = world.allocate(client, &user);
    world.permit(client, &user, &[addr(PEER)]).success();
    let indication = send(PEER, &[7; 500]);
    for _ in 0..100 {
        world.client_sends(client, &indication);
    }
    let alone = world.take_forwarded().len();
    assert!((1..100).contains(&alone), "{alone} passed");
    assert_eq!(world.server.counters().drops.over_limit, 100 - alone as u64);

    world.advance(secs(60));
    world.client_sends_train(client, &indication.repeat(100), indication.len());
    assert_eq!(world.take_forwarded().len(), alone);

    world.advance(secs(60));
    let mut sink = Sink::default();
    let train = [7; 500 * 100];
    world.server.handle_peer_input(
        AllocationPort::new(port),
        addr(PEER),
        Train::new(&train, 500),
        world.now,
        &mut sink,
    );
    world.execute();
    assert_eq!(data_indications(&mut world).len(), alone);
    let relayed = world.server.counters().relayed_bytes;
    assert_eq!(relayed, 3 * 500 * alone as u64);
}

#[test]
fn permissions_are_bounded() {
    let mut world = open();
    let (client, user) = (addr(CLIENT), world.user("salt"));
    world.allocate(client, &user);
    let peers: Vec<_> = (0..=255)
        .map(|it| SocketAddr::from(([203, 0, 113, it], 1)))
        .collect();
    world.permit(client, &user, &peers).success();
    let reply = world.permit(client, &user, &[addr("203.0.112.1:1")]);
    assert_eq!(reply.code().get(), 508);
    world.advance(secs(300));
    world
        .permit(client, &user, &[addr("203.0.112.1:1")])
        .success();
}

#[test]
fn several_allocations_and_long_term_users() {
    let mut world = open();
    let user = Credentials {
        username: "me".to_owned(),
        password: "secret".to_owned(),
    };
    world.allocate(addr(CLIENT), &user);
    world.allocate(addr("192.0.2.2:2"), &user);
    assert_eq!(world.server.allocation_count(), 2);
}

#[test]
fn quota_refuse_answers_486() {
    let public = PublicAddresses::V4(PUBLIC_V4.parse().unwrap());
    let mut config = Config::portal(public);
    config.quota = crate::Quota::Refuse;
    config.ports = range(3);
    let mut world = World::of(config);
    let user = world.user("salt");
    world.ask(addr(CLIENT), &user, single(None)).allocated();
    let other = addr("192.0.2.2:2");
    let reply = world.ask(other, &user, single(None));
    assert_eq!(reply.code(), ErrorCode::QUOTA_REACHED);
    world.refresh(addr(CLIENT), &user, 0);
    world.ask(other, &user, single(None)).allocated();
}

#[test]
fn credentials_of_the_previous_secret() {
    let previous: crate::StampSecret = "ab".repeat(32).parse().unwrap();
    let mut world = World::with(|config| config.previous_stamp_secret = Some(previous.clone()));
    let expiry = UNIX_START + 1000;
    let old = Credentials {
        username: format!("{expiry}:salt"),
        password: relay_password(expiry, previous.expose(), "salt"),
    };
    // `ask` checks that replies are signed with the user's own key.
    world.ask(addr(CLIENT), &old, dual(None)).allocated();
    let new = world.user("salt");
    world.refresh(addr(CLIENT), &new, 600).success();
    let neither = Credentials {
        password: relay_password(expiry, &"cd".repeat(32), "salt"),
        ..old
    };
    let nonce = world.nonce(addr("192.0.2.2:2"), &new);
    let reply = world.request(addr("192.0.2.2:2"), &neither, Some(&nonce), dual(None));
    assert_eq!(reply.code(), ErrorCode::UNAUTHORIZED);
}
