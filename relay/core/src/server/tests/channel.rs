//! Channels and the data path: C-30 to C-38, C-40, C-57.

use std::net::IpAddr;

use super::*;
use proptest::prelude::*;

const CLIENT: &str = "192.0.2.1:40000";
const CLIENT_V6: &str = "[2001:db8:2::1]:40000";
const PEER: &str = "203.0.113.9:9";
const PEER_V6: &str = "[2001:db8:9::9]:9";

/// A client with an allocation at the first port and a channel to the peer.
fn connected(client: &str, channel: u16, peer: &str) -> (World, SocketAddr, Credentials) {
    let mut world = World::new(1);
    let (client, user) = (addr(client), world.user("salt"));
    world.allocate(client, &user);
    world.advance(secs(1));
    world.bind(client, &user, channel, addr(peer)).success();
    (world, client, user)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn relay_30_31_ping_pong(
        channel in 0x4000u16..=0x4FFF,
        payload in prop::collection::vec(any::<u8>(), 0..2000),
        client in prop::sample::select(vec![CLIENT, CLIENT_V6]),
        peer in prop::sample::select(vec![PEER, PEER_V6]),
    ) {
        let (mut world, client, user) = connected(client, channel, peer);
        world.refresh(client, &user, 3600);
        prop_assert_eq!(world.server.poll_timeout(), Some(world.start + secs(1 + 600)));
        world.client_sends_data(client, channel, &payload);
        world.peer_sends(FIRST_PORT, addr(peer), &[7; 32]);
        prop_assert_eq!(
            world.take_forwarded(),
            [
                (to_peer(FIRST_PORT, addr(peer)), payload.clone()),
                (to_client(client, channel), vec![7; 32]),
            ]
        );
        prop_assert_eq!(world.server.counters().relayed_bytes, payload.len() as u64 + 32);
    }

    #[test]
    fn relay_32_framing(payload: Vec<u8>, trailing: Vec<u8>, cut in 1usize..5) {
        let (mut world, client, _) = connected(CLIENT, 0x4123, PEER);
        let mut bytes = channel_data(0x4123, &payload);
        let short = bytes.len() - cut;
        world.client_sends(client, &bytes[..short]);
        prop_assert_eq!(world.take_forwarded(), []);
        bytes.extend_from_slice(&trailing);
        world.client_sends(client, &bytes);
        prop_assert_eq!(world.take_forwarded(), [(to_peer(FIRST_PORT, addr(PEER)), payload)]);
    }

    #[test]
    fn relay_33_channels_expire_cool_down_and_vanish(
        channel in 0x4000u16..=0x4FFF,
        other in 1u16..=u16::MAX,
        rebound_after in 0u64..599,
        client in prop::sample::select(vec![CLIENT, CLIENT_V6]),
        peer in prop::sample::select(vec![PEER, PEER_V6]),
    ) {
        let (mut world, client, user) = connected(client, channel, peer);
        world.advance(secs(rebound_after));
        world.bind(client, &user, channel, addr(peer)).success();
        world.refresh(client, &user, 3600);
        let bound_at = world.now;
        prop_assert_eq!(world.server.poll_timeout(), Some(bound_at + secs(600)));
        world.advance(secs(599));
        world.client_sends_data(client, channel, b"x");
        prop_assert_eq!(world.take_forwarded().len(), 1);
        world.advance(secs(1));
        world.client_sends_data(client, channel, b"x");
        world.peer_sends(FIRST_PORT, addr(peer), b"x");
        prop_assert_eq!(world.take_forwarded(), []);
        prop_assert_eq!(world.server.poll_timeout(), Some(bound_at + secs(900)));
        let other = SocketAddr::from(([203, 0, 113, 10], other));
        world.advance(secs(299));
        prop_assert_eq!(world.bind(client, &user, channel, other).code().get(), 400);
        world.advance(secs(1));
        prop_assert_eq!(world.server.poll_timeout(), Some(bound_at + secs(3600)));
        world.bind(client, &user, channel, other).success();
    }

    #[test]
    fn relay_36_only_the_exact_peer_at_the_right_port(
        channel in 0x4000u16..=0x4FFF,
        wrong_port in 1u16..=u16::MAX,
        wrong_bit in 0u32..32,
        peer in prop::sample::select(vec![PEER, PEER_V6]),
    ) {
        let mut world = World::new(2);
        let (client, user) = (addr(CLIENT), world.user("a"));
        let port = world.allocate(client, &user);
        let other_user = world.user("b");
        let other = world.allocate(addr("192.0.2.2:2"), &other_user);
        let peer = addr(peer);
        world.bind(client, &user, channel, peer).success();
        let wrong_port = SocketAddr::new(peer.ip(), wrong_port);
        let wrong_ip = match peer.ip() {
            IpAddr::V4(ip) => IpAddr::from((u32::from(ip) ^ 1 << wrong_bit).to_be_bytes()),
            IpAddr::V6(ip) => IpAddr::from((u128::from(ip) ^ 1 << (wrong_bit * 4)).to_be_bytes()),
        };
        prop_assume!(wrong_port != peer);
        world.peer_sends(port, wrong_port, b"x");
        world.peer_sends(other, peer, b"x");
        world.peer_sends(port, SocketAddr::new(wrong_ip, peer.port()), b"x");
        prop_assert_eq!(world.take_forwarded(), []);
        prop_assert_eq!(world.server.counters().drops.unknown_peer, 3);
        world.peer_sends(port, peer, b"y");
        prop_assert_eq!(world.take_forwarded(), [(to_client(client, channel), b"y".to_vec())]);
    }

    /// Whatever arrives together is handled as if it had arrived one by one.
    #[test]
    fn relay_57_trains_equal_single_datagrams(
        segments in prop::collection::vec((0x4000u16..0x4004, any::<bool>()), 1..64),
        last in 0usize..100,
    ) {
        let setup = || {
            let (mut world, client, user) = connected(CLIENT, 0x4000, PEER);
            world.bind(client, &user, 0x4001, addr(PEER_V6)).success();
            (world, client)
        };
        let mut bytes = Vec::new();
        for (index, (channel, garbage)) in segments.iter().enumerate() {
            let len = if index + 1 == segments.len() { last } else { 100 };
            let mut segment = channel_data(*channel, &vec![index as u8; len]);
            if *garbage {
                segment[0] = 0xFF;
            }
            bytes.extend_from_slice(&segment);
        }
        let (mut train, client) = setup();
        train.client_sends_train(client, &bytes, 104);
        let (mut single, client) = setup();
        for datagram in bytes.chunks(104) {
            single.client_sends(client, datagram);
        }
        prop_assert_eq!(train.take_forwarded(), single.take_forwarded());
        prop_assert_eq!(train.server.counters(), single.server.counters());
    }
}

#[test]
fn relay_32_numbers_out_of_range() {
    let mut world = World::new(1);
    let (client, user) = (addr(CLIENT), world.user("salt"));
    world.allocate(client, &user);
    assert_eq!(
        world.bind(client, &user, 22110, addr(PEER)).code().get(),
        400
    );
    // 0x8000 exists in no range, so it cannot even be decoded.
    let nonce = world.nonce(client, &user);
    let bind = ChannelBind {
        number: Some(number(0x4000)),
        peer: Some(addr(PEER)),
    };
    let mut bytes = world.signed(&user, Some(&nonce), RequestBody::ChannelBind(bind));
    let at = bytes
        .windows(4)
        .position(|it| it == [0, 0x0C, 0, 4])
        .unwrap();
    bytes[at + 4] = 0x80;
    let reply = Reply(world.exchange(client, &bytes));
    assert_eq!(reply.code().get(), 400);
    assert!(!reply.is_signed());
}

/// The last bind counts, and time alone is enough: no timeout need have been handled.
#[test]
fn relay_33_a_busy_loop_prolongs_nothing() {
    let (mut world, client, user) = connected(CLIENT, 0x4000, PEER);
    world.refresh(client, &user, 3600);
    world.advance(secs(500));
    world.bind(client, &user, 0x4000, addr(PEER)).success();
    world.advance(secs(599));
    world.client_sends_data(client, 0x4000, b"x");
    assert_eq!(world.take_forwarded().len(), 1);
    world.now += secs(1);
    world.client_sends_data(client, 0x4000, b"x");
    assert_eq!(world.take_forwarded(), []);
}

#[test]
fn relay_34_cool_down_keeps_the_pair_together() {
    let (mut world, client, user) = connected(CLIENT, 0x4000, PEER);
    world.refresh(client, &user, 3600);
    world.advance(secs(700));
    let other = addr("203.0.113.10:10");
    assert_eq!(world.bind(client, &user, 0x4000, other).code().get(), 400);
    assert_eq!(
        world.bind(client, &user, 0x4001, addr(PEER)).code().get(),
        400
    );
    world.bind(client, &user, 0x4000, addr(PEER)).success();
    world.client_sends_data(client, 0x4000, b"out");
    world.peer_sends(FIRST_PORT, addr(PEER), b"in");
    assert_eq!(
        world.take_forwarded(),
        [
            (to_peer(FIRST_PORT, addr(PEER)), b"out".to_vec()),
            (to_client(client, 0x4000), b"in".to_vec())
        ]
    );
}

#[test]
fn relay_35_conflicts_are_per_client() {
    let mut world = World::new(2);
    let clients = [addr(CLIENT), addr("192.0.2.2:2")];
    let users = ["a", "b"].map(|salt| world.user(salt));
    let ports = [0, 1].map(|it| world.allocate(clients[it], &users[it]));
    for it in [0, 1] {
        world
            .bind(clients[it], &users[it], 0x4000, addr(PEER))
            .success();
    }
    let other = addr("203.0.113.10:10");
    assert_eq!(
        world
            .bind(clients[0], &users[0], 0x4000, other)
            .code()
            .get(),
        400
    );
    assert_eq!(
        world
            .bind(clients[0], &users[0], 0x4001, addr(PEER))
            .code()
            .get(),
        400
    );
    for it in [0, 1] {
        world.client_sends_data(clients[it], 0x4000, b"x");
        world.peer_sends(ports[it], addr(PEER), b"y");
        assert_eq!(
            world.take_forwarded(),
            [
                (to_peer(ports[it], addr(PEER)), b"x".to_vec()),
                (to_client(clients[it], 0x4000), b"y".to_vec())
            ]
        );
    }
}

#[test]
fn relay_37_data_right_behind_its_bind() {
    let mut world = World::new(1);
    let (client, user) = (addr(CLIENT), world.user("salt"));
    world.allocate(client, &user);
    let nonce = world.nonce(client, &user);
    let bind = ChannelBind {
        number: Some(number(0x4000)),
        peer: Some(addr(PEER)),
    };
    let mut bytes = world.signed(&user, Some(&nonce), RequestBody::ChannelBind(bind));
    let segment_size = bytes.len();
    bytes.extend_from_slice(&channel_data(0x4000, b"at once"));
    world.client_sends_train(client, &bytes, segment_size);
    assert_eq!(
        world.take_forwarded(),
        [(to_peer(FIRST_PORT, addr(PEER)), b"at once".to_vec())]
    );
}

#[test]
fn relay_38_peer_of_the_other_family() {
    let mut world = World::new(1);
    let (client, user) = (addr(CLIENT), world.user("salt"));
    world
        .ask(client, &user, single(Some(Family::V6)))
        .allocated();
    assert_eq!(
        world.bind(client, &user, 0x4000, addr(PEER)).code().get(),
        443
    );
    assert_eq!(world.permit(client, &user, &[addr(PEER)]).code().get(), 443);
    world.bind(client, &user, 0x4000, addr(PEER_V6)).success();
}

#[test]
fn relay_40_hairpin() {
    for public in [PUBLIC_V4.to_owned(), format!("[{PUBLIC_V6}]")] {
        let mut world = World::new(2);
        let (a, b) = (addr(CLIENT), addr(CLIENT_V6));
        let (user_a, user_b) = (world.user("a"), world.user("b"));
        let (port_a, port_b) = (world.allocate(a, &user_a), world.allocate(b, &user_b));
        let relayed = |port| addr(&format!("{public}:{port}"));
        world.bind(a, &user_a, 0x4001, relayed(port_b)).success();
        world.client_sends_data(a, 0x4001, b"too early");
        assert_eq!(world.take_forwarded(), []);
        world.bind(b, &user_b, 0x4002, relayed(port_a)).success();
        world.client_sends_data(a, 0x4001, b"to b");
        world.client_sends_data(b, 0x4002, b"to a");
        assert_eq!(
            world.take_forwarded(),
            [
                (to_client(b, 0x4002), b"to b".to_vec()),
                (to_client(a, 0x4001), b"to a".to_vec())
            ]
        );
        assert_eq!(world.server.counters().hairpinned_bytes, 8);
    }
}

#[test]
fn payloads_that_cannot_be_framed_are_dropped() {
    let (mut world, _, _) = connected(CLIENT, 0x4000, PEER);
    world.peer_sends(FIRST_PORT, addr(PEER), &vec![0; 65_503]);
    world.peer_sends(FIRST_PORT, addr(PEER), &vec![0; 65_504]);
    assert_eq!(world.take_forwarded().len(), 1);
    assert_eq!(world.server.counters().drops.oversized, 1);
}

#[test]
fn as_many_channels_as_there_are_numbers() {
    let mut world = World::new(1);
    let (client, user) = (addr(CLIENT), world.user("salt"));
    world.allocate(client, &user);
    let nonce = world.nonce(client, &user);
    for channel in 0x4000..=0x4FFF {
        let bind = ChannelBind {
            number: Some(number(channel)),
            peer: Some(SocketAddr::new(addr(PEER).ip(), channel)),
        };
        let bytes = world.signed(&user, Some(&nonce), RequestBody::ChannelBind(bind));
        world.server.handle_client_input(
            client,
            Train::single(&bytes),
            world.now,
            &mut Sink::default(),
        );
    }
    world.execute();
    assert_eq!(world.server.channel_count(), 4096);
}
