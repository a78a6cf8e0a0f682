//! The connection layer: candidates from the portal and datagrams of strangers.

use std::{
    collections::BTreeSet,
    net::{Ipv4Addr, SocketAddr},
    time::{Duration, Instant},
};

use connlib_snownet::{IceCredentials, Node, RelayConfig, Role};

use crate::{KIB, MIB, assert_bounded, assert_levels_off};

/// A node with a connection that is being made.
fn node(role: Role, now: Instant) -> Node<u32, u32> {
    let mut node = Node::new(role, [1; 32], now, Duration::from_secs(1_700_000_000));
    let other: Node<u32, u32> = Node::new(role, [2; 32], now, Duration::ZERO);
    let relay = RelayConfig {
        id: 100,
        v4: "203.0.113.9:3478".parse().ok(),
        v6: None,
        username: "1:a".to_owned(),
        password: "p".to_owned(),
        realm: "firezone".to_owned(),
    };
    node.update_relays(&BTreeSet::new(), &[relay], now);
    node.add_host_candidate("192.0.2.1:52625".parse().unwrap(), now);
    let ice = |name| IceCredentials::new(name, "0123456789012345678901").unwrap();
    node.upsert_connection(7, other.public_key(), [3; 32], ice("a"), ice("b"), now)
        .unwrap();
    drain(&mut node);
    node
}

fn drain(node: &mut Node<u32, u32>) {
    while node.poll_transmit().is_some() {}
    while node.poll_event().is_some() {}
}

fn source(n: u32) -> SocketAddr {
    SocketAddr::new(Ipv4Addr::from(0x0B00_0000 + n).into(), 1 + n as u16 % 1000)
}

#[test]
fn candidates_from_the_portal_are_bounded() {
    let now = Instant::now();
    let mut node = node(Role::Gateway, now);
    assert_levels_off(2 * MIB, 64 * KIB, (5_000, 100_000), |n| {
        let (ip, port) = (source(n).ip(), source(n).port());
        let sdp = format!("candidate:1 1 udp 1 {ip} {port} typ host");
        node.add_remote_candidate(7, &sdp, now);
        node.add_remote_candidate(n, &sdp, now);
        if n.is_multiple_of(2) {
            node.remove_remote_candidate(7, &sdp, now);
        }
        drain(&mut node);
    });
}

#[test]
fn datagrams_of_strangers_cost_nothing() {
    let now = Instant::now();
    for role in [Role::Client, Role::Gateway] {
        let mut node = node(role, now);
        let local = "192.0.2.1:52625".parse().unwrap();
        let mut out = vec![0; 2000];
        let binding = [
            0, 1, 0, 0, 0x21, 0x12, 0xA4, 0x42, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12,
        ];
        assert_bounded(256 * KIB, 50_000, |n| {
            let mut initiation = [7; 148];
            initiation[..4].copy_from_slice(&[1, 0, 0, 0]);
            initiation[4..8].copy_from_slice(&n.to_le_bytes());
            let mut data = [7; 64];
            data[..4].copy_from_slice(&[4, 0, 0, 0]);
            data[4..8].copy_from_slice(&n.to_le_bytes());
            for datagram in [&binding[..], &initiation, &data, &[0x40, 0, 0, 0]] {
                let _ = node.decapsulate(local, source(n), datagram, now, &mut out);
            }
            drain(&mut node);
        });
    }
}
