//! Authentication: C-6 to C-17.

use super::*;
use proptest::prelude::*;

const CLIENT: &str = "192.0.2.1:40000";

fn refresh() -> RequestBody {
    RequestBody::Refresh(Refresh::default())
}

#[test]
fn relay_06_challenge_then_allocation() {
    let mut world = World::new(1);
    let client = addr(CLIENT);
    let request = Request {
        transaction_id: world.transaction(),
        auth: AuthAttributes::default(),
        software: None,
        body: single(None),
    };
    let challenge = Reply(world.exchange(client, &request.encode(None).unwrap())).error();
    assert_eq!(challenge.code, ErrorCode::UNAUTHORIZED);
    assert_eq!(challenge.realm.as_deref(), Some("firezone"));

    let user = world.user("salt");
    let body = RequestBody::Allocate(Allocate {
        requested_transport: Some(Allocate::UDP),
        lifetime: Some(1234),
        ..Allocate::default()
    });
    let reply = world.request(client, &user, challenge.nonce.as_deref(), body);
    assert!(reply.is_signed_by(&user));
    assert_eq!(
        reply.success(),
        Success::Allocate {
            relayed: vec![addr("198.51.100.7:49152")],
            mapped: Some(client),
            lifetime: Some(1234),
            address_error: None,
        }
    );
    assert_eq!(world.take_log(), ["bind 49152 V4"]);
    assert_eq!(world.server.poll_timeout(), Some(world.now + secs(1234)));
}

#[test]
fn relay_07_challenge_without_nonce_is_signed() {
    let mut world = World::new(1);
    let user = world.user("salt");
    let reply = world.request(addr(CLIENT), &user, None, dual(None));
    assert_eq!(reply.code(), ErrorCode::UNAUTHORIZED);
    assert!(reply.is_signed_by(&user));
    assert!(reply.0.len() <= 116, "{}", reply.0.len());
}

#[test]
fn relay_08_every_refusal_is_signed() {
    let mut world = World::new(2);
    let (client, user) = (addr(CLIENT), world.user("salt"));
    let peer = addr("203.0.113.9:9");
    // `ask` and `bind` check the signature.
    let code = |reply: Reply| reply.code().get();
    assert_eq!(code(world.refresh(client, &user, 600)), 437);
    assert_eq!(code(world.bind(client, &user, 0x4000, peer)), 437);
    assert_eq!(code(world.permit(client, &user, &[peer])), 437);
    assert_eq!(
        code(world.ask(client, &user, RequestBody::Allocate(Allocate::default()))),
        400
    );
    let tcp = Allocate {
        requested_transport: Some(6),
        ..Allocate::default()
    };
    assert_eq!(
        code(world.ask(client, &user, RequestBody::Allocate(tcp))),
        442
    );
    world.ask(client, &user, single(None)).allocated();
    assert_eq!(code(world.ask(client, &user, dual(None))), 437);
    let loopback = addr("127.0.0.1:9");
    assert_eq!(code(world.bind(client, &user, 0x4000, loopback)), 403);
    let v6 = addr("[2001:db8::9]:9");
    assert_eq!(code(world.bind(client, &user, 0x4000, v6)), 443);
    assert_eq!(code(world.bind(client, &user, 0x5000, peer)), 400);
    assert_eq!(
        code(world.bind(client, &user, 0x4000, addr("203.0.113.9:0"))),
        400
    );
    let stale = world.request(client, &user, Some("stale"), refresh());
    assert!(stale.is_signed_by(&user));
    assert_eq!(code(stale), 438);
    world.server.drain();
    let other = addr("192.0.2.2:1");
    assert_eq!(code(world.ask(other, &user, dual(None))), 508);
}

#[test]
fn relay_09_wrong_password_and_expiry() {
    let mut world = World::new(1);
    let client = addr(CLIENT);
    let mut wrong = world.user("salt");
    let nonce = world.nonce(client, &wrong);
    wrong.password.push('x');
    let reply = world.request(client, &wrong, Some(&nonce), dual(None));
    assert_eq!(reply.code(), ErrorCode::UNAUTHORIZED);
    assert!(!reply.is_signed_by(&wrong), "signed with the right key");

    // portal 86
    let expired = world.user_until(UNIX_START - 1, "salt");
    let reply = world.request(client, &expired, Some(&nonce), dual(None));
    assert_eq!(reply.code(), ErrorCode::UNAUTHORIZED);
    assert!(reply.is_signed_by(&expired));

    let last_second = world.user_until(UNIX_START, "salt");
    let reply = world.request(client, &last_second, Some(&nonce), dual(None));
    assert_eq!(reply.allocated().1, 1);
}

#[test]
fn relay_10_wrong_nonces_are_stale_never_unauthorized() {
    let mut world = World::new(1);
    let (client, user) = (addr(CLIENT), world.user("salt"));
    let of_another = world.nonce(addr("192.0.2.9:1"), &user);
    let old = world.nonce(client, &user);
    let reply = world.request(client, &user, Some(&of_another), refresh());
    assert_eq!(reply.code(), ErrorCode::STALE_NONCE);
    world.advance(secs(1200));
    let reply = world.request(client, &user, Some(&old), refresh());
    assert_eq!(reply.code(), ErrorCode::STALE_NONCE);
    let fresh = reply.error().nonce.unwrap();
    let reply = world.request(client, &user, Some(&fresh), refresh());
    assert_eq!(reply.code(), ErrorCode::ALLOCATION_MISMATCH);
}

proptest! {
    #[test]
    fn relay_10_garbage_nonces_are_stale(nonce in "\\PC{0,40}") {
        let mut world = World::new(1);
        let user = world.user("salt");
        let reply = world.request(addr(CLIENT), &user, Some(&nonce), refresh());
        prop_assert_eq!(reply.code(), ErrorCode::STALE_NONCE);
    }
}

#[test]
fn relay_11_one_nonce_per_client_and_window() {
    let mut world = World::new(1);
    let user = world.user("salt");
    let (a, b) = (addr(CLIENT), addr("192.0.2.1:40001"));
    let nonce = world.nonce(a, &user);
    world.advance(secs(300));
    assert_eq!(world.nonce(a, &user), nonce);
    assert_ne!(world.nonce(b, &user), nonce);
}

#[test]
fn relay_12_one_nonce_serves_any_number_of_requests() {
    let mut world = World::new(1);
    let (client, user) = (addr(CLIENT), world.user("salt"));
    world.allocate(client, &user);
    let nonce = world.nonce(client, &user);
    for _ in 0..12_000 {
        let reply = world.request(client, &user, Some(&nonce), refresh());
        assert_eq!(reply.refreshed(), 600);
    }
}

#[test]
fn relay_14_signed_refresh_vector() {
    const SECRET: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";
    const HEX: &str = "000400442112a442000102030405060708090a0b00060019313736373232353630303a5a6d3976596d46\
                       7963324673644100000000140008666972657a6f6e65000800149c74205c6a00faf7a6b327383c784b7f3f004421";
    let bytes: Vec<u8> = (0..HEX.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&HEX[at..at + 2], 16).unwrap())
        .collect();
    let mut world = World::with(|config| config.stamp_secret = Some(SECRET.parse().unwrap()));
    let user = world.user_until(1_767_225_600, "Zm9vYmFyc2FsdA");
    assert_eq!(user.password, "Zk4gxTOkbJAgDbuCC/GR5hYx+A9dZBiuB2slAcfHyys");
    let envelope = Envelope::parse(&bytes).unwrap();
    assert_eq!(envelope.verify_integrity(&user.key()), Integrity::Valid);
    assert_eq!(
        Reply(world.exchange(addr(CLIENT), &bytes)).code(),
        ErrorCode::UNAUTHORIZED
    );
    for bit in 0..bytes.len() * 8 {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        let valid = Envelope::parse(&flipped)
            .is_ok_and(|envelope| envelope.verify_integrity(&user.key()) == Integrity::Valid);
        assert!(!valid, "bit {bit}");
    }
}

// portal 86
// portal 83: what the join carries is drawn by each process.
#[test]
fn stamp_secrets_are_64_hex_digits_and_another_for_each_process() {
    let secret = |seed: u8| {
        let config = Config::portal(PublicAddresses::V4(PUBLIC_V4.parse().unwrap()));
        let now = World::new(1).now;
        let server = Server::new(config, [seed; 32], now, secs(UNIX_START)).unwrap();
        server.stamp_secret().expose().to_owned()
    };
    let hex = |c: char| c.is_ascii_digit() || ('a'..='f').contains(&c);
    assert!(secret(1).len() == 64 && secret(1).chars().all(hex));
    assert_ne!(secret(1), secret(2));
}

#[test]
fn relay_15_malformed_user_names_are_refused_unsigned() {
    let mut world = World::new(1);
    let client = addr(CLIENT);
    let nonce = {
        let user = world.user("s");
        world.nonce(client, &user)
    };
    for username in [
        "nocolon",
        "soon:a",
        "1:a:b",
        "99999999999:",
        "+99999999999:a",
        "099999999999:a",
    ] {
        let user = Credentials {
            username: username.to_owned(),
            password: "x".to_owned(),
        };
        let reply = world.request(client, &user, Some(&nonce), dual(None));
        assert_eq!(reply.code(), ErrorCode::UNAUTHORIZED, "{username}");
        assert!(!reply.is_signed(), "{username}");
    }
    let mut foreign = world.user("s");
    foreign.password = relay_password(UNIX_START + 100_000, "another secret", "s");
    let reply = world.request(client, &foreign, Some(&nonce), dual(None));
    assert_eq!(reply.code(), ErrorCode::UNAUTHORIZED);
}

#[test]
fn relay_16_what_follows_the_signature_has_no_effect() {
    let mut world = World::new(1);
    let (client, user) = (addr(CLIENT), world.user("salt"));
    world.allocate(client, &user);
    let nonce = world.nonce(client, &user);
    let mut bytes = world.signed(&user, Some(&nonce), refresh());
    // LIFETIME 0, counted by the header.
    bytes.extend_from_slice(&[0x00, 0x0D, 0, 4, 0, 0, 0, 0]);
    let length = (bytes.len() - 20) as u16;
    bytes[2..4].copy_from_slice(&length.to_be_bytes());
    assert_eq!(Reply(world.exchange(client, &bytes)).refreshed(), 600);
    assert_eq!(world.server.allocation_count(), 1);
}

#[test]
fn relay_17_huge_expiries_do_not_overflow() {
    let mut world = World::new(1);
    let client = addr(CLIENT);
    let nonce = {
        let user = world.user("s");
        world.nonce(client, &user)
    };
    for (expiry, granted) in [
        (u64::MAX, None),
        (1 << 63, None),
        (0, None),
        ((1 << 63) - 1, Some(600)),
    ] {
        let user = world.user_until(expiry, "s");
        let reply = world.request(client, &user, Some(&nonce), dual(None));
        match granted {
            Some(lifetime) => assert_eq!(reply.allocated().1, lifetime),
            None => assert_eq!(reply.code(), ErrorCode::UNAUTHORIZED, "{expiry}"),
        }
    }
}
