//! Look-ups over UDP, their answers and what merely looks like one.

use super::*;
use crate::DnsTransport;
use crate::testing::start_time;
use ip_packet::make::{Unreachable, icmp_unreachable, udp_packet};

const UPSTREAM: &str = "10.0.0.53:53";
const UPSTREAM_V6: &str = "[fd77::53]:5353";

fn start() -> (Client, Instant) {
    let mut client = Client::new([1; 32]);
    let sources = SourceAddresses {
        v4: Some([100, 64, 0, 1].into()),
        v6: Some("fd00:2021:1111::1".parse().unwrap()),
    };
    client.set_sources(sources);
    (client, start_time())
}

fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn message(id: u16, text: &[u8]) -> Vec<u8> {
    [&id.to_be_bytes()[..], &[0; 10], text].concat()
}

fn ask(client: &mut Client, number: u64, upstream: &str, message: Vec<u8>, now: Instant) {
    let transport = DnsTransport::Udp;
    client.send_query(
        RecursiveQuery {
            id: QueryId(number),
            upstream: addr(upstream),
            transport,
            message,
        },
        now,
    );
}

/// Source and destination of a query.
fn ends(packet: &IpPacket) -> (SocketAddr, SocketAddr) {
    let udp = packet.as_udp().unwrap();
    (
        SocketAddr::new(packet.source(), udp.source_port()),
        SocketAddr::new(packet.destination(), udp.destination_port()),
    )
}

fn result(number: u64, result: Result<Vec<u8>, RecursiveError>) -> Option<RecursiveResponse> {
    Some(RecursiveResponse {
        id: QueryId(number),
        result,
    })
}

#[test]
fn look_up_over_both_families() {
    for (upstream, source) in [(UPSTREAM, "100.64.0.1"), (UPSTREAM_V6, "fd00:2021:1111::1")] {
        let (mut client, now) = start();
        ask(&mut client, 1, upstream, message(7, b"query"), now);
        let packet = client.poll_packet().unwrap();
        let (local, remote) = ends(&packet);
        assert_eq!(
            (local.ip().to_string().as_str(), remote),
            (source, addr(upstream))
        );
        assert!(local.port() >= 49_152);
        assert!(packet.has_valid_checksums());
        assert_eq!(packet.as_udp().unwrap().payload(), message(7, b"query"));
        let answer = udp_packet(remote, local, &message(7, b"answer")).unwrap();
        assert!(client.handle_packet(answer.view()));
        assert_eq!(client.poll_response(), result(1, Ok(message(7, b"answer"))));
        assert_eq!(client.poll_timeout(), None);
    }
}

#[test]
fn tunnel_23_equal_ids_do_not_collide() {
    let (mut client, now) = start();
    for (number, upstream) in [(1, UPSTREAM), (2, UPSTREAM), (3, UPSTREAM_V6)] {
        ask(&mut client, number, upstream, message(7, b""), now);
    }
    let packets: Vec<_> = std::iter::from_fn(|| client.poll_packet()).collect();
    for (packet, number) in packets.iter().zip([1, 2, 3]).rev() {
        let (local, remote) = ends(packet);
        let answer = message(7, format!("for {number}").as_bytes());
        assert!(client.handle_packet(udp_packet(remote, local, &answer).unwrap().view()));
        assert_eq!(client.poll_response(), result(number, Ok(answer)));
    }
}

#[test]
fn only_exact_matches_are_answers() {
    let (mut client, now) = start();
    ask(&mut client, 1, UPSTREAM, message(7, b""), now);
    let (local, remote) = ends(&client.poll_packet().unwrap());
    let other_port = SocketAddr::new(local.ip(), local.port() ^ 1);
    let other_ip = SocketAddr::new([100, 64, 0, 2].into(), local.port());
    let foreign = [
        udp_packet(remote, local, &message(8, b"")),
        udp_packet(remote, other_port, &message(7, b"")),
        udp_packet(remote, other_ip, &message(7, b"")),
        udp_packet(addr("10.0.0.54:53"), local, &message(7, b"")),
        udp_packet(addr("10.0.0.53:54"), local, &message(7, b"")),
        udp_packet(remote, local, &message(7, b"")[..11]),
    ];
    for packet in foreign {
        assert!(!client.handle_packet(packet.unwrap().view()));
        assert_eq!(client.poll_response(), None);
    }
}

#[test]
fn tunnel_25_time_out_after_exactly_ten_seconds_and_late_answers_are_swallowed() {
    let (mut client, now) = start();
    ask(&mut client, 1, UPSTREAM, message(7, b""), now);
    let (local, remote) = ends(&client.poll_packet().unwrap());
    let deadline = now + Duration::from_secs(10);
    assert_eq!(client.poll_timeout(), Some(deadline));
    client.handle_timeout(deadline - Duration::from_nanos(1));
    assert_eq!(client.poll_response(), None);
    client.handle_timeout(deadline);
    assert_eq!(
        client.poll_response(),
        result(1, Err(RecursiveError::TimedOut))
    );
    assert_eq!(client.poll_timeout(), None, "tunnel 73");
    let late = udp_packet(remote, local, &message(7, b"late")).unwrap();
    assert!(client.handle_packet(late.view()));
    assert_eq!(client.poll_response(), None);
}

#[test]
fn tunnel_25_icmp_error_fails_the_look_up() {
    for upstream in [UPSTREAM, UPSTREAM_V6] {
        let (mut client, now) = start();
        ask(&mut client, 1, upstream, message(7, b""), now);
        let query = client.poll_packet().unwrap();
        let error = icmp_unreachable(query.view(), Unreachable::Prohibited).unwrap();
        assert!(client.handle_packet(error.view()));
        assert_eq!(
            client.poll_response(),
            result(1, Err(RecursiveError::Unreachable))
        );
        assert!(client.handle_packet(error.view()), "again");
        assert_eq!(
            (client.poll_response(), client.poll_timeout()),
            (None, None)
        );
    }
}

#[test]
fn icmp_errors_about_other_packets_are_foreign() {
    let (mut client, now) = start();
    ask(&mut client, 1, UPSTREAM, message(7, b""), now);
    let (local, remote) = ends(&client.poll_packet().unwrap());
    let others = [
        udp_packet(SocketAddr::new(local.ip(), local.port() ^ 1), remote, b""),
        udp_packet(local, addr("10.0.0.54:53"), b""),
        ip_packet::make::tcp_packet(local, remote, Default::default(), b""),
    ];
    for other in others {
        let error = icmp_unreachable(other.unwrap().view(), Unreachable::Network).unwrap();
        assert!(!client.handle_packet(error.view()));
    }
    assert_eq!(client.poll_response(), None);
}

#[test]
fn reset_fails_everything_and_swallows_what_comes_later() {
    let (mut client, now) = start();
    ask(&mut client, 1, UPSTREAM, message(7, b""), now);
    let (local, remote) = ends(&client.poll_packet().unwrap());
    ask(&mut client, 2, UPSTREAM, message(8, b""), now);
    client.reset();
    assert_eq!((client.poll_packet(), client.poll_timeout()), (None, None));
    let mut failed: Vec<_> = std::iter::from_fn(|| client.poll_response())
        .map(|response| response.id.0)
        .collect();
    failed.sort_unstable();
    assert_eq!(failed, [1, 2]);
    assert!(client.handle_packet(udp_packet(remote, local, &message(7, b"")).unwrap().view()));
    assert_eq!(client.poll_response(), None);
}

#[test]
fn table_is_bounded_and_finished_look_ups_make_room() {
    let (mut client, now) = start();
    for number in 0..MAX_QUERIES as u64 {
        ask(&mut client, number, UPSTREAM, message(7, b""), now);
    }
    ask(&mut client, 5000, UPSTREAM, message(7, b""), now);
    assert_eq!(
        client.poll_response(),
        result(5000, Err(RecursiveError::Overloaded))
    );
    client.handle_timeout(now + QUERY_TIMEOUT);
    while client.poll_response().is_some() {}
    for number in 0..2 * MAX_QUERIES as u64 {
        ask(&mut client, 6000 + number, UPSTREAM, message(7, b""), now);
        client.handle_timeout(now + QUERY_TIMEOUT);
        assert_eq!(
            client.poll_response(),
            result(6000 + number, Err(RecursiveError::TimedOut))
        );
        assert!(client.lookups.len() <= MAX_QUERIES && client.order.len() <= MAX_QUERIES);
    }
}

#[test]
fn what_cannot_be_sent_fails_at_once() {
    let (mut client, now) = start();
    ask(&mut client, 1, UPSTREAM, vec![0; 11], now);
    ask(&mut client, 2, UPSTREAM, vec![0; 1253], now);
    client.set_sources(SourceAddresses::default());
    ask(&mut client, 3, UPSTREAM, message(7, b""), now);
    assert_eq!(
        client.poll_response(),
        result(1, Err(RecursiveError::MalformedQuery))
    );
    assert_eq!(
        client.poll_response(),
        result(2, Err(RecursiveError::MalformedQuery))
    );
    assert_eq!(
        client.poll_response(),
        result(3, Err(RecursiveError::NoSource))
    );
    assert_eq!((client.poll_packet(), client.poll_timeout()), (None, None));
}
