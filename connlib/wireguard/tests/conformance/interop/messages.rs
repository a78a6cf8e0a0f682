//! Single messages between our peer and `boringtun`: every byte counts, cookies, every length, replays.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Instant;

use boringtun::noise::rate_limiter::RateLimiter;
use boringtun::noise::{Tunn, TunnResult};
use boringtun::x25519;
use connlib_wireguard::{
    CookieReply, HANDSHAKES_PER_SECOND, HandshakeLimiter, IndexTable, LimitError, OpenError,
    Opened, Peer, PeerConfig, PrivateKey, Role, WallClock,
};

use super::{Link, OURS, PSK, THEIRS};
use crate::world::{CLIENT_IP, Raw, UNIX, VecSink, secs};

/// MAC2 is covered by nothing as long as nobody demands a cookie.
const MAC2: usize = 16;

fn tunn(psk: Option<[u8; 32]>) -> Tunn {
    let remote = PrivateKey::from_seed(OURS).public();
    let own = x25519::StaticSecret::from(THEIRS);
    let limiter = RateLimiter::new(&x25519::PublicKey::from(&own), u64::MAX);

    Tunn::new(
        own,
        x25519::PublicKey::from(remote.0),
        psk,
        None,
        99,
        Some(Arc::new(limiter)),
    )
}

fn peer(role: Role, psk: [u8; 32], now: Instant) -> Peer {
    let private = PrivateKey::from_seed(OURS);
    let config = PeerConfig {
        role,
        private: &private,
        remote: PrivateKey::from_seed(THEIRS).public(),
        psk,
        indices: IndexTable::new([4; 32]).allocate().unwrap(),
        clock: WallClock::new(now, UNIX),
        seed: [5; 32],
    };
    let mut peer = Peer::new(config, now);
    peer.path_ready(now);

    peer
}

fn transmit(peer: &mut Peer) -> Option<Vec<u8>> {
    peer.poll_transmit().map(|datagram| datagram.bytes.to_vec())
}

fn open(peer: &mut Peer, datagram: &[u8], now: Instant) -> Result<Opened, OpenError> {
    peer.open(datagram, CLIENT_IP, now, &mut [0; 2048])
}

/// What the tunnel answers to a datagram, or whether it took it.
fn feed(tunn: &mut Tunn, datagram: &[u8]) -> Result<Option<Vec<u8>>, ()> {
    match tunn.decapsulate(Some(CLIENT_IP), datagram, &mut [0; 2048]) {
        TunnResult::WriteToNetwork(answer) => Ok(Some(answer.to_vec())),
        TunnResult::Done | TunnResult::WriteToTunnelV4(..) | TunnResult::WriteToTunnelV6(..) => {
            Ok(None)
        }
        TunnResult::Err(_) => Err(()),
    }
}

fn their_init(tunn: &mut Tunn) -> Vec<u8> {
    match tunn.format_handshake_initiation(&mut [0; 148], true) {
        TunnResult::WriteToNetwork(init) => init.to_vec(),
        other => panic!("{other:?}"),
    }
}

/// All changes of one bit per byte, in the bytes that something covers.
fn changed(message: &[u8]) -> impl Iterator<Item = (usize, Vec<u8>)> {
    (0..message.len() - MAC2).map(|at| {
        let mut changed = message.to_vec();
        changed[at] ^= 1 << (at % 8);
        (at, changed)
    })
}

#[test]
fn snownet_58_their_handshake_with_any_byte_changed_is_refused() {
    let now = Instant::now();
    let (mut peer, mut tunn) = (peer(Role::Responder, PSK, now), tunn(Some(PSK)));
    let init = their_init(&mut tunn);
    for (at, forged) in changed(&init) {
        assert!(open(&mut peer, &forged, now).is_err(), "byte {at}");
        assert_eq!(transmit(&mut peer), None, "byte {at}");
    }
    assert_eq!(open(&mut peer, &init, now), Ok(Opened::Handshake));
    let response = transmit(&mut peer).unwrap();
    for (at, forged) in changed(&response) {
        assert_eq!(feed(&mut tunn, &forged), Err(()), "byte {at}");
    }

    let keepalive = feed(&mut tunn, &response).unwrap().unwrap();
    assert_eq!(open(&mut peer, &keepalive, now), Ok(Opened::Keepalive));
    assert!(peer.is_usable(now));
}

#[test]
fn snownet_58_our_handshake_with_any_byte_changed_is_refused() {
    let now = Instant::now();
    let (mut peer, mut tunn) = (peer(Role::Initiator, PSK, now), tunn(Some(PSK)));
    let init = transmit(&mut peer).unwrap();
    for (at, forged) in changed(&init) {
        assert_eq!(feed(&mut tunn, &forged), Err(()), "byte {at}");
    }
    let response = feed(&mut tunn, &init).unwrap().unwrap();
    for (at, forged) in changed(&response) {
        assert!(open(&mut peer, &forged, now).is_err(), "byte {at}");
    }

    assert_eq!(open(&mut peer, &response, now), Ok(Opened::Handshake));
    let keepalive = transmit(&mut peer).unwrap();
    assert_eq!(feed(&mut tunn, &keepalive), Ok(None));
    for (at, forged) in changed(&[keepalive.clone(), vec![0; MAC2]].concat()).skip(4) {
        assert_eq!(feed(&mut tunn, &forged[..32]), Err(()), "byte {at}");
    }
}

/// No preshared key is one of zeros (whitepaper §5.2).
#[test]
fn snownet_58_without_a_preshared_key() {
    let now = Instant::now();
    let (mut peer, mut tunn) = (peer(Role::Initiator, [0; 32], now), tunn(None));
    let response = feed(&mut tunn, &transmit(&mut peer).unwrap())
        .unwrap()
        .unwrap();

    assert_eq!(open(&mut peer, &response, now), Ok(Opened::Handshake));
    assert_eq!(feed(&mut tunn, &transmit(&mut peer).unwrap()), Ok(None));
}

#[test]
fn snownet_58_another_preshared_key_is_noticed_by_both() {
    let now = Instant::now();
    let mut ours = peer(Role::Initiator, [1; 32], now);
    let mut theirs = tunn(Some(PSK));
    let response = feed(&mut theirs, &transmit(&mut ours).unwrap())
        .unwrap()
        .unwrap();
    assert_eq!(
        open(&mut ours, &response, now),
        Err(OpenError::Undecryptable)
    );

    let mut ours = peer(Role::Responder, [1; 32], now);
    let init = their_init(&mut theirs);
    assert_eq!(open(&mut ours, &init, now), Ok(Opened::Handshake));
    assert_eq!(feed(&mut theirs, &transmit(&mut ours).unwrap()), Err(()));
}

/// snownet 55, with a loaded foreign gateway.
#[test]
fn snownet_58_our_client_returns_a_foreign_cookie() {
    let start = Instant::now();
    let public = x25519::PublicKey::from(PrivateKey::from_seed(THEIRS).public().0);
    let loaded = RateLimiter::new(&public, 0);
    for address in [
        IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(Ipv6Addr::LOCALHOST),
    ] {
        let mut peer = peer(Role::Initiator, PSK, start);
        let init = transmit(&mut peer).unwrap();
        let mut out = [0; 64];
        let Err(TunnResult::WriteToNetwork(cookie)) =
            loaded.verify_packet(Some(address), &init, &mut out)
        else {
            panic!("a cookie is demanded")
        };
        for (at, forged) in changed(&[&*cookie, &[0; MAC2]].concat()) {
            assert!(open(&mut peer, &forged[..64], start).is_err(), "byte {at}");
        }
        assert_eq!(open(&mut peer, cookie, start), Ok(Opened::Handshake));

        peer.handle_timeout(start + secs(6));
        let retry = transmit(&mut peer).unwrap();
        assert!(
            loaded
                .verify_packet(Some(address), &retry, &mut out)
                .is_ok()
        );
        assert!(
            loaded
                .verify_packet(Some(CLIENT_IP), &retry, &mut out)
                .is_err()
        );
    }
}

/// snownet 55, with a foreign client.
#[test]
fn snownet_58_a_foreign_client_returns_our_cookie() {
    let now = Instant::now();
    let mut tunn = tunn(Some(PSK));
    let mut limiter = HandshakeLimiter::new(&PrivateKey::from_seed(OURS), Role::Responder);
    for _ in 0..HANDSHAKES_PER_SECOND {
        let init = their_init(&mut tunn);
        assert_eq!(limiter.check(&init, CLIENT_IP, now), Ok(()));
    }
    let refused = limiter.check(&their_init(&mut tunn), CLIENT_IP, now);
    let Err(LimitError::UnderLoad(CookieReply(cookie))) = refused else {
        panic!("{refused:?}")
    };
    for at in 4..cookie.len() {
        let mut forged = cookie;
        forged[at] ^= 1;
        assert_eq!(feed(&mut tunn, &forged), Err(()), "byte {at}");
    }
    assert_eq!(feed(&mut tunn, &cookie), Ok(None));

    let proven = their_init(&mut tunn);
    assert_eq!(limiter.check(&proven, CLIENT_IP, now), Ok(()));
    for at in proven.len() - MAC2..proven.len() {
        let mut forged = proven.clone();
        forged[at] ^= 1;
        assert!(
            matches!(
                limiter.check(&forged, CLIENT_IP, now),
                Err(LimitError::UnderLoad(_))
            ),
            "byte {at}"
        );
    }
}

#[test]
fn snownet_58_packets_of_every_length() {
    for role in [Role::Initiator, Role::Responder] {
        let mut link = Link::new(role);
        if role == Role::Responder {
            link.send_theirs(&Link::bytes(0));
        }
        for len in 20..=1280u16 {
            let mut packet = vec![len as u8; usize::from(len)];
            packet[0] = 0x45;
            packet[2..4].copy_from_slice(&len.to_be_bytes());
            link.send_theirs(&packet);
            assert_eq!(link.ours.last(), Some(&packet));

            let mut sink = VecSink::default();
            let sealed = link.peer.seal(&mut Raw(Some(&packet)), link.now, &mut sink);
            assert_eq!(sealed.sent, 1);
            assert_eq!(sink.datagrams[0].len(), packet.len() + 32);
            link.deliver_to_tunn(&sink.datagrams[0]);
            assert_eq!(link.theirs.last(), Some(&packet));
        }
    }
}

/// Datagrams may overtake each other by thousands; each is taken once.
#[test]
fn snownet_58_their_packets_reordered_and_repeated() {
    let mut link = Link::new(Role::Initiator);
    let mut datagrams: Vec<_> = (0..8_000)
        .map(|id| {
            let mut out = [0; 2048];
            match link.tunn.encapsulate(&Link::bytes(id), &mut out) {
                TunnResult::WriteToNetwork(datagram) => datagram.to_vec(),
                other => panic!("{other:?}"),
            }
        })
        .collect();
    datagrams.reverse();
    for datagram in &datagrams {
        assert!(matches!(
            open(&mut link.peer, datagram, link.now),
            Ok(Opened::Packet { .. })
        ));
    }

    for datagram in &datagrams {
        assert_eq!(
            open(&mut link.peer, datagram, link.now),
            Err(OpenError::Replayed)
        );
    }
}
