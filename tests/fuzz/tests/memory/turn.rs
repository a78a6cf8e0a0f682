//! The TURN client: peers that never were, and a relay that is not the relay.

use std::{
    net::{Ipv4Addr, SocketAddr},
    time::{Duration, Instant},
};

use connlib_stun::{Class, Method};
use connlib_stun::{ErrorCode, ErrorResponse, Header, Response, TransactionId};
use connlib_turn_client::{Allocation, Credentials, Server};

use crate::{KIB, assert_bounded};

fn allocation(now: Instant) -> Allocation {
    let credentials = Credentials {
        username: "1:a".to_owned(),
        password: "p".to_owned(),
        realm: "firezone".to_owned(),
    };
    let server = Server::new("203.0.113.1:3478".parse().ok(), None).unwrap();
    Allocation::new(server, credentials, "test", [1; 32], now)
}

#[test]
fn peers_and_forged_answers_cost_nothing() {
    let mut now = Instant::now();
    let mut allocation = allocation(now);
    let server = "203.0.113.1:3478".parse().unwrap();
    let local = "192.168.1.2:52625".parse().unwrap();
    assert_bounded(64 * KIB, 100_000, |n| {
        let peer = SocketAddr::new(Ipv4Addr::from(n).into(), 1 + n as u16 % 1000);
        allocation.bind_channel(peer, now);
        allocation.encode_channel_header(peer, 4, now);
        let mut id = [9; 12];
        id[8..].copy_from_slice(&n.to_be_bytes());
        let header = Header {
            class: Class::Request,
            method: Method::Allocate,
            transaction_id: TransactionId::new(id),
        };
        let error = ErrorResponse {
            nonce: Some(n.to_string()),
            ..ErrorResponse::new(ErrorCode::UNAUTHORIZED)
        };
        let forged = Response::error(header, error).encode(None).unwrap();
        allocation.handle_input(local, server, &forged, now);
        if n.is_multiple_of(100) {
            now += Duration::from_millis(10);
            allocation.handle_timeout(now);
        }
        while allocation.poll_transmit().is_some() {}
        while allocation.poll_event().is_some() {}
    });
}
