//! Allocations, channels and hairpin over real sockets; C-28, C-31, C-40, C-53.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use connlib_stun::{
    AuthAttributes, Envelope, Outcome, Request, RequestBody, Response, Success, TransactionId,
};

use super::{
    client::Client,
    process::{PORTS, PUBLIC_V4, PUBLIC_V6, Relay, ports, receive, socket},
    raw::{Raw, allocate},
};

pub(crate) fn loopbacks(relay: &Relay) -> [SocketAddr; 2] {
    [
        relay.server(Ipv4Addr::LOCALHOST),
        relay.server(Ipv6Addr::LOCALHOST),
    ]
}

/// Where a peer on this host reaches a relayed address: the public ones are somebody else's.
pub(crate) fn reachable(relayed: SocketAddr) -> SocketAddr {
    match relayed {
        SocketAddr::V4(it) => (Ipv4Addr::LOCALHOST, it.port()).into(),
        SocketAddr::V6(it) => (Ipv6Addr::LOCALHOST, it.port()).into(),
    }
}

#[test]
fn relay_01_binding_over_both_families() {
    let relay = Relay::standalone(&[]);
    for (own, server) in ["127.0.0.1:0", "[::1]:0"]
        .into_iter()
        .zip(loopbacks(&relay))
    {
        let socket = socket(own);
        let request = Request {
            transaction_id: TransactionId::new([1; 12]),
            auth: AuthAttributes::default(),
            software: None,
            body: RequestBody::Binding,
        };
        socket
            .send_to(&request.encode(None).unwrap(), server)
            .unwrap();
        let (reply, from) = receive(&socket);
        assert_eq!(from, server);
        let response = Response::decode(&Envelope::parse(&reply).unwrap()).unwrap();
        let mapped = socket.local_addr().unwrap();
        assert_eq!(
            response.outcome,
            Outcome::Success(Success::Binding {
                mapped: Some(mapped)
            })
        );
    }
}

#[test]
fn relay_31_channel_data_both_ways_and_families() {
    let relay = Relay::standalone(&[]);
    for (index, server) in loopbacks(&relay).into_iter().enumerate() {
        let (mut client, relayed) = Client::allocated(server, &format!("user{index}"));
        let public = [PUBLIC_V4, PUBLIC_V6].map(|ip| ip.parse::<std::net::IpAddr>().unwrap());
        assert_eq!([relayed[0].ip(), relayed[1].ip()], public);
        for (peer, relayed) in ["127.0.0.1:0", "[::1]:0"].into_iter().zip(relayed) {
            let peer = socket(peer);
            let address = peer.local_addr().unwrap();
            for payload in [&b"hello"[..], b"", &[7; 1300], &[8; 9000]] {
                client.send(address, payload);
                assert_eq!(receive(&peer), (payload.to_vec(), reachable(relayed)));
                peer.send_to(payload, reachable(relayed)).unwrap();
                assert_eq!(client.receive(), (address, payload.to_vec()));
            }
        }
    }
    let (_, metrics) = relay.get("/metrics").unwrap();
    assert!(metrics.contains("relay_active_allocations"));
}

#[test]
fn strangers_are_not_let_in() {
    let relay = Relay::standalone(&[]);
    let (mut client, relayed) = Client::allocated(loopbacks(&relay)[0], "user");
    let (peer, stranger) = (socket("127.0.0.1:0"), socket("127.0.0.1:0"));
    client.bind(peer.local_addr().unwrap());
    stranger.send_to(b"no", reachable(relayed[0])).unwrap();
    peer.send_to(b"yes", reachable(relayed[0])).unwrap();
    assert_eq!(client.receive().1, b"yes");
}

#[test]
fn relay_40_hairpin_between_two_clients() {
    let relay = Relay::standalone(&[]);
    let [v4, v6] = loopbacks(&relay);
    let (mut a, relayed_a) = Client::allocated(v4, "a");
    let (mut b, relayed_b) = Client::allocated(v6, "b");
    for family in [0, 1] {
        a.bind(relayed_b[family]);
        b.bind(relayed_a[family]);
        a.send(relayed_b[family], b"to b");
        assert_eq!(b.receive(), (relayed_a[family], b"to b".to_vec()));
        b.send(relayed_a[family], b"to a");
        assert_eq!(a.receive(), (relayed_b[family], b"to a".to_vec()));
    }
}

#[test]
fn relay_28_occupied_ports_are_passed_over() {
    let first = ports();
    // One less than the ports that are tried for one request.
    let occupied = first + 1..first + 8;
    let _occupied: Vec<_> = occupied
        .clone()
        .map(|port| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port)).unwrap())
        .collect();
    let relay = Relay::start(first, &["--standalone", "--profile", "portal"]);
    relay.wait_for("/readyz", 200);
    let server = loopbacks(&relay)[0];
    let clients: Vec<_> = (0..PORTS - 7)
        .map(|user| Client::allocated(server, &format!("user{user}")))
        .collect();
    for (_, relayed) in &clients {
        assert!(!occupied.contains(&relayed[0].port()));
    }
    assert_eq!(relay.get("/healthz").unwrap().0, 200);
}

#[test]
fn relay_53_drain() {
    let relay = Relay::standalone(&["--drain-timeout", "60s"]);
    let (mut client, _) = Client::allocated(loopbacks(&relay)[0], "user");
    let peer = socket("127.0.0.1:0");
    client.bind(peer.local_addr().unwrap());
    relay.terminate();
    relay.wait_for("/readyz", 503);
    client.send(peer.local_addr().unwrap(), b"still there");
    assert_eq!(receive(&peer).0, b"still there");
    client.refresh();
    assert!(client.has_allocation());
    assert_eq!(relay.get("/healthz").unwrap().0, 200);
    relay.terminate();
    assert!(relay.wait().success());
}

#[test]
fn relay_53_drain_time_is_over() {
    let relay = Relay::standalone(&["--drain-timeout", "2s"]);
    let _client = Client::allocated(loopbacks(&relay)[0], "user");
    relay.terminate();
    relay.wait_for("/readyz", 503);
    let mut newcomer = Raw::new(loopbacks(&relay)[0], "newcomer");
    assert_eq!(newcomer.code(allocate()), Some(508));
    assert!(relay.wait().success());
}

#[test]
fn relay_53_nothing_to_drain() {
    let relay = Relay::standalone(&[]);
    relay.terminate();
    assert!(relay.wait().success());
}

#[test]
fn relay_53_no_drain_time() {
    let relay = Relay::standalone(&["--drain-timeout", "0s"]);
    let _client = Client::allocated(loopbacks(&relay)[0], "user");
    relay.terminate();
    assert!(relay.wait().success());
}

/// Unused ports stay closed: nothing is bound before it is allocated.
#[test]
fn sockets_exist_exactly_while_their_allocation_does() {
    let relay = Relay::standalone(&[]);
    let is_free = |port| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port)).is_ok();
    assert!((relay.lowest..relay.lowest + PORTS).all(is_free));
    let (_client, relayed) = Client::allocated(loopbacks(&relay)[0], "user");
    assert!(!is_free(relayed[0].port()));
    // The same user again: its old allocation makes room.
    let (_again, moved) = Client::allocated(loopbacks(&relay)[0], "user");
    assert_ne!(moved, relayed);
    assert!(is_free(relayed[0].port()));
}
