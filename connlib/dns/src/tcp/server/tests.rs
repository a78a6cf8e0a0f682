//! Conversations of applications with the stub resolver over TCP.

use super::super::testing::*;
use super::*;
use crate::testing::start_time;
use proptest::prelude::*;

const SENTINEL: &str = "100.100.111.1:53";
const SENTINEL_V6: &str = "[fd00:2021:1111:8000:100:100:111:0]:53";
const APP: &str = "100.64.0.1:40000";
const APP_V6: &str = "[fd00:2021:1111::1]:40000";

fn start() -> (Server, Instant) {
    let now = start_time();
    let mut server = Server::new([1; 32], now);
    server.listen_on([addr(SENTINEL), addr(SENTINEL_V6)], now);
    (server, now)
}

/// A connected application.
fn connected(server: &mut Server, local: &str, now: Instant) -> Peer {
    let mut app = Peer::connect(local, SENTINEL, now);
    exchange(&mut app, server, now);
    assert_eq!(app.state(), State::Established);
    app
}

/// Sends what is there and returns the query that arrived.
fn next_query(app: &mut Peer, server: &mut Server, now: Instant) -> Option<TcpQuery> {
    exchange(app, server, now);
    server.poll_query()
}

#[test]
fn tunnel_27_query_and_response_over_both_families() {
    for (local, sentinel) in [(APP, SENTINEL), (APP_V6, SENTINEL_V6)] {
        let (mut server, now) = start();
        let mut app = Peer::connect(local, sentinel, now);
        exchange(&mut app, &mut server, now);
        app.send(&[&query(7, 30)]);
        let asked = next_query(&mut app, &mut server, now).unwrap();
        let expected = TcpQuery {
            local: addr(sentinel),
            remote: addr(local),
            message: query(7, 30),
        };
        assert_eq!(asked, expected);
        server
            .send_response(asked.local, asked.remote, &response(7, 50), now)
            .unwrap();
        exchange(&mut app, &mut server, now);
        assert_eq!(app.message(), Some(response(7, 50)));
    }
}

#[test]
fn tunnel_27_ten_connections_per_sentinel_and_no_more() {
    let (mut server, now) = start();
    let mut apps: Vec<_> = (0..10)
        .map(|n| connected(&mut server, &format!("100.64.0.1:{}", 40_000 + n), now))
        .collect();
    let mut refused = Peer::connect("100.64.0.1:50000", SENTINEL, now);
    exchange(&mut refused, &mut server, now);
    assert_eq!(refused.state(), State::Closed);
    for (id, app) in apps.iter_mut().enumerate() {
        app.send(&[&query(id as u16, 20)]);
        let asked = next_query(app, &mut server, now).unwrap();
        server
            .send_response(asked.local, asked.remote, &response(id as u16, 20), now)
            .unwrap();
        exchange(app, &mut server, now);
        assert_eq!(app.message(), Some(response(id as u16, 20)));
    }
    // A place becomes free.
    apps[0].socket().close();
    exchange(&mut apps[0], &mut server, now);
    connected(&mut server, "100.64.0.1:50001", now);
}

#[test]
fn tunnel_27_pipelined_queries_are_split_and_taken_one_by_one() {
    let (mut server, now) = start();
    let mut app = connected(&mut server, APP, now);
    app.send(&[&query(1, 40), &query(2, 41), &query(3, 12)]);
    for (id, len) in [(1, 40), (2, 41), (3, 12)] {
        let asked = next_query(&mut app, &mut server, now).unwrap();
        assert_eq!(asked.message, query(id, len));
        assert_eq!(server.poll_query(), None, "one at a time");
        server
            .send_response(asked.local, asked.remote, &response(id, len), now)
            .unwrap();
        assert_eq!(server.poll_query(), None, "the response has not left");
        exchange(&mut app, &mut server, now);
        assert_eq!(app.message(), Some(response(id, len)));
    }
}

#[test]
fn tunnel_27_message_in_many_segments() {
    let (mut server, now) = start();
    let mut app = connected(&mut server, APP, now);
    let bytes = framed(&query(9, 33));
    for (sent, byte) in bytes.iter().enumerate() {
        assert_eq!(server.poll_query(), None, "after {sent} bytes");
        app.send_raw(&[*byte]);
        exchange(&mut app, &mut server, now);
    }
    assert_eq!(
        server.poll_query().map(|asked| asked.message),
        Some(query(9, 33))
    );
}

#[test]
fn largest_messages_pass_both_ways() {
    let (mut server, now) = start();
    let mut app = connected(&mut server, APP, now);
    app.send(&[&query(5, 65_535)]);
    let asked = next_query(&mut app, &mut server, now).unwrap();
    assert_eq!(asked.message, query(5, 65_535));
    server
        .send_response(asked.local, asked.remote, &response(5, 65_535), now)
        .unwrap();
    exchange(&mut app, &mut server, now);
    assert_eq!(app.message(), Some(response(5, 65_535)));
}

#[test]
fn lost_packets_are_sent_again() {
    let (mut server, start) = start();
    let mut app = connected(&mut server, APP, start);
    app.send(&[&query(5, 5000)]);
    lossy_exchange(&mut app, &mut server, start, |number| number % 3 == 0);
    let now = start + secs(5);
    run_until(&mut app, &mut server, start, now);
    let asked = server.poll_query().unwrap();
    server
        .send_response(asked.local, asked.remote, &response(5, 9000), now)
        .unwrap();
    lossy_exchange(&mut app, &mut server, now, |number| number % 3 == 0);
    run_until(&mut app, &mut server, now, now + secs(5));
    assert_eq!(app.message(), Some(response(5, 9000)));
}

#[test]
fn tunnel_27_half_closed_client_gets_its_response() {
    let (mut server, now) = start();
    let mut app = connected(&mut server, APP, now);
    app.send(&[&query(1, 20), &query(2, 20)]);
    app.socket().close();
    for id in [1, 2] {
        let asked = next_query(&mut app, &mut server, now).unwrap();
        server
            .send_response(asked.local, asked.remote, &response(id, 20), now)
            .unwrap();
        exchange(&mut app, &mut server, now);
        assert_eq!(app.message(), Some(response(id, 20)));
    }
    assert_eq!(app.state(), State::TimeWait);
    connected(&mut server, APP, now + secs(11));
}

#[test]
fn half_closed_in_the_middle_of_a_message() {
    let (mut server, now) = start();
    let mut app = connected(&mut server, APP, now);
    app.send_raw(&[0, 40, 1, 2, 3]);
    app.socket().close();
    exchange(&mut app, &mut server, now);
    assert_eq!(server.poll_query(), None);
    assert_eq!(app.state(), State::TimeWait);
}

#[test]
fn tunnel_27_response_for_a_reset_connection_is_void() {
    let (mut server, now) = start();
    let mut app = connected(&mut server, APP, now);
    app.send(&[&query(1, 20)]);
    let asked = next_query(&mut app, &mut server, now).unwrap();
    app.socket().abort();
    exchange(&mut app, &mut server, now);
    let late = server.send_response(asked.local, asked.remote, &response(1, 20), now);
    assert_eq!(late, Err(NoConnection));

    // Not even to a new connection from the same port, which asks something else.
    let mut app = connected(&mut server, APP, now);
    app.send(&[&query(2, 20)]);
    let asked = next_query(&mut app, &mut server, now).unwrap();
    assert_eq!(
        server.send_response(asked.local, asked.remote, &response(1, 20), now),
        Err(NoConnection)
    );
    server
        .send_response(asked.local, asked.remote, &response(2, 20), now)
        .unwrap();
    assert_eq!(
        server.send_response(asked.local, asked.remote, &response(2, 20), now),
        Err(NoConnection)
    );
}

#[test]
fn tunnel_21_what_is_no_query_aborts_the_connection() {
    for bytes in [framed(&response(1, 20)), vec![0, 11], vec![0, 0]] {
        let (mut server, now) = start();
        let mut app = connected(&mut server, APP, now);
        app.send_raw(&bytes);
        exchange(&mut app, &mut server, now);
        assert_eq!(app.state(), State::Closed);
        assert_eq!(server.poll_query(), None);
        connected(&mut server, APP, now);
    }
}

#[test]
fn tunnel_27_listening_again_on_the_same_addresses_changes_nothing() {
    let (mut server, now) = start();
    let mut app = connected(&mut server, APP, now);
    app.send(&[&query(1, 20)]);
    exchange(&mut app, &mut server, now);
    server.listen_on([addr(SENTINEL_V6), addr(SENTINEL)], now);
    let asked = server.poll_query().unwrap();
    server
        .send_response(asked.local, asked.remote, &response(1, 20), now)
        .unwrap();
    exchange(&mut app, &mut server, now);
    assert_eq!(app.message(), Some(response(1, 20)));
}

#[test]
fn tunnel_27_change_of_sentinels_forgets_everything() {
    let (mut server, now) = start();
    let mut app = connected(&mut server, APP, now);
    app.send(&[&query(1, 20)]);
    let asked = next_query(&mut app, &mut server, now).unwrap();
    let mut other = connected(&mut server, "100.64.0.1:40001", now);
    other.send(&[&query(2, 20)]);
    exchange(&mut other, &mut server, now);

    server.listen_on([addr("100.100.111.2:53")], now);
    assert_eq!(server.poll_query(), None);
    assert_eq!(
        server.send_response(asked.local, asked.remote, &response(1, 20), now),
        Err(NoConnection)
    );
    app.send(&[&query(3, 20)]);
    let packet = app.take(now).unwrap();
    assert!(!server.accepts(packet.view()));
    let mut app = Peer::connect(APP, "100.100.111.2:53", now);
    exchange(&mut app, &mut server, now);
    assert_eq!(app.state(), State::Established);
}

#[test]
fn only_tcp_to_a_listening_socket_is_accepted() {
    let (server, _) = start();
    let tcp = |to: &str| {
        let header = ip_packet::make::TcpHeader::default();
        ip_packet::make::tcp_packet(addr(APP), addr(to), header, b"").unwrap()
    };
    assert!(server.accepts(tcp(SENTINEL).view()));
    assert!(!server.accepts(tcp("100.100.111.1:443").view()));
    assert!(!server.accepts(tcp("100.100.111.2:53").view()));
    let udp = ip_packet::make::udp_packet(addr(APP), addr(SENTINEL), b"").unwrap();
    assert!(!server.accepts(udp.view()));
}

#[test]
fn silent_connections_are_dropped_after_thirty_seconds() {
    let (mut server, now) = start();
    let mut app = connected(&mut server, APP, now);
    let deadline = server.poll_timeout().unwrap();
    assert_eq!(deadline, now + secs(30));
    server.handle_timeout(deadline - std::time::Duration::from_micros(1));
    assert!(server.poll_packet().is_none());
    server.handle_timeout(deadline);
    exchange(&mut app, &mut server, deadline);
    assert_eq!(app.state(), State::Closed);
    assert_eq!(server.poll_timeout(), None, "tunnel 73");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_packet_panics(packets in proptest::collection::vec((any::<(u32, u32, u8)>(), 1..4u16, proptest::collection::vec(any::<u8>(), 0..40)), 0..40)) {
        let (mut server, mut now) = start();
        for ((sequence, acknowledgement, flags), port, payload) in packets {
            let header = ip_packet::make::TcpHeader {
                // Small numbers meet more often.
                sequence: sequence % 64,
                acknowledgement,
                flags: ip_packet::TcpFlags::from_bits(flags),
                ..Default::default()
            };
            let from = SocketAddr::new([100, 64, 0, 1].into(), port);
            let packet = ip_packet::make::tcp_packet(from, addr(SENTINEL), header, &payload).unwrap();
            server.handle_packet(packet.view(), now);
            while let Some(packet) = server.poll_packet() {
                prop_assert!(packet.has_valid_checksums());
                prop_assert_eq!(packet.source(), addr(SENTINEL).ip());
            }
            server.handle_timeout(now);
            prop_assert!(server.poll_timeout().is_none_or(|next| next > now));
            now += std::time::Duration::from_millis(u64::from(flags));
        }
    }
}
