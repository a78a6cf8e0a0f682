//! Look-ups over TCP against servers that behave well and badly.

use super::super::testing::*;
use super::super::{NoConnection, Server, TcpQuery};
use super::*;
use crate::DnsTransport;
use crate::testing::start_time;
use proptest::prelude::*;

const UPSTREAM: &str = "10.0.0.53:53";
const UPSTREAM_V6: &str = "[fd77::53]:5353";

fn start() -> (Client, Instant) {
    let now = start_time();
    let mut client = Client::new([1; 32], now);
    let sources = SourceAddresses {
        v4: Some([100, 64, 0, 1].into()),
        v6: Some("fd00:2021:1111::1".parse().unwrap()),
    };
    client.set_sources(sources, now);
    (client, now)
}

fn upstream(sockets: &[&str], now: Instant) -> Server {
    let mut server = Server::new([2; 32], now);
    server.listen_on(sockets.iter().map(|socket| addr(socket)), now);
    server
}

fn ask(client: &mut Client, number: u64, upstream: &str, message: Vec<u8>, now: Instant) {
    let transport = DnsTransport::Tcp;
    let query = RecursiveQuery {
        id: QueryId(number),
        upstream: addr(upstream),
        transport,
        message,
    };
    client.send_query(query, now);
}

fn answer(
    server: &mut Server,
    asked: &TcpQuery,
    len: usize,
    now: Instant,
) -> Result<(), NoConnection> {
    let id = u16::from_be_bytes([asked.message[0], asked.message[1]]);
    server.send_response(asked.local, asked.remote, &response(id, len), now)
}

fn result(number: u64, result: Result<Vec<u8>, RecursiveError>) -> Option<RecursiveResponse> {
    Some(RecursiveResponse {
        id: QueryId(number),
        result,
    })
}

#[test]
fn look_up_over_both_families() {
    for (server_addr, source) in [(UPSTREAM, "100.64.0.1"), (UPSTREAM_V6, "fd00:2021:1111::1")] {
        let (mut client, now) = start();
        let mut server = upstream(&[server_addr], now);
        ask(&mut client, 1, server_addr, query(0x1234, 40), now);
        exchange(&mut client, &mut server, now);
        let asked = server.poll_query().unwrap();
        assert_eq!(asked.remote.ip().to_string(), source);
        assert!(asked.remote.port() >= 49_152);
        assert_eq!(asked.message[2..], query(0x1234, 40)[2..]);
        answer(&mut server, &asked, 4096, now).unwrap();
        exchange(&mut client, &mut server, now);
        assert_eq!(
            client.poll_response(),
            result(1, Ok(response(0x1234, 4096)))
        );
    }
}

#[test]
fn tunnel_23_equal_ids_do_not_collide() {
    let (mut client, now) = start();
    let mut server = upstream(&[UPSTREAM, UPSTREAM_V6], now);
    for (number, upstream) in [
        (1, UPSTREAM),
        (2, UPSTREAM_V6),
        (3, UPSTREAM),
        (4, UPSTREAM),
    ] {
        ask(
            &mut client,
            number,
            upstream,
            query(7, 20 + number as usize),
            now,
        );
    }
    let mut answered = Vec::new();
    for _ in 0..4 {
        exchange(&mut client, &mut server, now);
        while let Some(asked) = server.poll_query() {
            answer(&mut server, &asked, asked.message.len(), now).unwrap();
        }
    }
    exchange(&mut client, &mut server, now);
    while let Some(response) = client.poll_response() {
        answered.push((response.id.0, response.result.unwrap()));
    }
    answered.sort();
    let expected: Vec<_> = (1..=4)
        .map(|number| (number, response(7, 20 + number as usize)))
        .collect();
    assert_eq!(answered, expected);
}

#[test]
fn responses_may_come_in_any_order_and_unknown_ones_are_skipped() {
    let (mut client, now) = start();
    let mut server = Peer::listen(UPSTREAM, now);
    ask(&mut client, 1, UPSTREAM, query(1, 21), now);
    ask(&mut client, 2, UPSTREAM, query(2, 22), now);
    exchange(&mut client, &mut server, now);
    let id = |message: Vec<u8>| u16::from_be_bytes([message[0], message[1]]);
    let (first, second) = (id(server.message().unwrap()), id(server.message().unwrap()));
    let unknown = (0..).find(|id| *id != first && *id != second).unwrap();
    server.send(&[
        &response(second, 32),
        &response(unknown, 30),
        &response(first, 31),
    ]);
    exchange(&mut client, &mut server, now);
    assert_eq!(client.poll_response(), result(2, Ok(response(2, 32))));
    assert_eq!(client.poll_response(), result(1, Ok(response(1, 31))));
    assert_eq!(client.poll_response(), None);
}

#[test]
fn connection_is_used_again() {
    let (mut client, now) = start();
    let mut server = upstream(&[UPSTREAM], now);
    let mut ports = BTreeSet::new();
    for number in 1..4 {
        ask(&mut client, number, UPSTREAM, query(1, 20), now);
        exchange(&mut client, &mut server, now);
        let asked = server.poll_query().unwrap();
        ports.insert(asked.remote.port());
        answer(&mut server, &asked, 20, now).unwrap();
        exchange(&mut client, &mut server, now);
        assert!(client.poll_response().is_some());
    }
    assert_eq!(ports.len(), 1);
}

#[test]
fn tunnel_28_refused_connection_fails_its_look_ups() {
    let (mut client, now) = start();
    let mut nobody = Peer::closed(now);
    ask(&mut client, 1, UPSTREAM, query(1, 20), now);
    ask(&mut client, 2, UPSTREAM, query(2, 20), now);
    exchange(&mut client, &mut nobody, now);
    assert_eq!(
        client.poll_response(),
        result(1, Err(RecursiveError::ConnectionFailed))
    );
    assert_eq!(
        client.poll_response(),
        result(2, Err(RecursiveError::ConnectionFailed))
    );
    assert_eq!(client.poll_timeout(), None);
}

#[test]
fn tunnel_28_silence_fails_after_exactly_ten_seconds() {
    let (mut client, start) = start();
    ask(&mut client, 1, UPSTREAM, query(1, 20), start);
    let end = start + secs(10);
    let mut now = start;
    while client.poll_response().is_none() {
        while client.poll_packet().is_some() {}
        let next = client.poll_timeout().unwrap();
        assert!(next > now && next <= end, "tunnel 73");
        now = next;
        client.handle_timeout(now);
    }
    assert_eq!(now, end);
    assert_eq!(client.poll_timeout(), None);
}

#[test]
fn silent_connection_is_given_up_with_its_time_out() {
    let (mut client, now) = start();
    let mut server = upstream(&[UPSTREAM], now);
    ask(&mut client, 1, UPSTREAM, query(1, 20), now);
    exchange(&mut client, &mut server, now);
    let first = server.poll_query().unwrap();
    let later = now + secs(4);
    ask(&mut client, 2, UPSTREAM, query(2, 20), later);
    client.handle_timeout(now + secs(10));
    assert_eq!(
        client.poll_response(),
        result(1, Err(RecursiveError::TimedOut))
    );
    assert_eq!(
        client.poll_response(),
        result(2, Err(RecursiveError::ConnectionFailed))
    );
    // The next one uses another connection.
    let now = now + secs(11);
    ask(&mut client, 3, UPSTREAM, query(3, 20), now);
    let mut server = upstream(&[UPSTREAM], now);
    exchange(&mut client, &mut server, now);
    assert_ne!(server.poll_query().unwrap().remote, first.remote);
}

#[test]
fn slow_name_does_not_disturb_the_others() {
    let (mut client, now) = start();
    let mut server = Peer::listen(UPSTREAM, now);
    ask(&mut client, 1, UPSTREAM, query(1, 21), now);
    exchange(&mut client, &mut server, now);
    let _slow = server.message().unwrap();
    let later = now + secs(9);
    ask(&mut client, 2, UPSTREAM, query(2, 22), later);
    ask(&mut client, 3, UPSTREAM, query(3, 23), later);
    exchange(&mut client, &mut server, later);
    let (second, third) = (server.message().unwrap(), server.message().unwrap());
    server.send(&[&response(u16::from_be_bytes([second[0], second[1]]), 22)]);
    exchange(&mut client, &mut server, later);
    assert_eq!(client.poll_response(), result(2, Ok(response(2, 22))));
    let later = now + secs(10);
    client.handle_timeout(later);
    assert_eq!(
        client.poll_response(),
        result(1, Err(RecursiveError::TimedOut))
    );
    server.send(&[&response(u16::from_be_bytes([third[0], third[1]]), 23)]);
    exchange(&mut client, &mut server, later);
    assert_eq!(client.poll_response(), result(3, Ok(response(3, 23))));
}

#[test]
fn orderly_close_fails_what_was_sent() {
    let (mut client, now) = start();
    let mut server = Peer::listen(UPSTREAM, now);
    ask(&mut client, 1, UPSTREAM, query(1, 20), now);
    exchange(&mut client, &mut server, now);
    server.socket().close();
    exchange(&mut client, &mut server, now);
    assert_eq!(
        client.poll_response(),
        result(1, Err(RecursiveError::ConnectionFailed))
    );
    let mut server = upstream(&[UPSTREAM], now);
    ask(&mut client, 2, UPSTREAM, query(2, 20), now);
    exchange(&mut client, &mut server, now);
    assert!(server.poll_query().is_some());
}

#[test]
fn orderly_close_moves_what_was_not_sent_to_a_new_connection() {
    let (mut client, now) = start();
    let mut server = Peer::listen(UPSTREAM, now);
    // The second does not fit into the send buffer behind the first.
    ask(&mut client, 1, UPSTREAM, query(1, 60_000), now);
    ask(&mut client, 2, UPSTREAM, query(2, 60_000), now);
    let syn = client.poll_packet().unwrap();
    server.give(syn.view(), now);
    client.give(server.take(now).unwrap().view(), now);
    while let Some(packet) = client.poll_packet() {
        // Data is lost: only the acknowledgement gets through.
        if packet.l4_payload().is_empty() {
            server.give(packet.view(), now);
        }
    }
    server.socket().close();
    let fin = server.take(now).unwrap();
    client.give(fin.view(), now);
    assert_eq!(
        client.poll_response(),
        result(1, Err(RecursiveError::ConnectionFailed))
    );
    let mut server = upstream(&[UPSTREAM], now);
    exchange(&mut client, &mut server, now);
    assert_eq!(server.poll_query().unwrap().message.len(), 60_000);
    assert_eq!(client.poll_response(), None);
}

#[test]
fn tunnel_28_reset_fails_everything_and_old_packets_are_foreign() {
    let (mut client, now) = start();
    let mut server = upstream(&[UPSTREAM], now);
    ask(&mut client, 1, UPSTREAM, query(1, 20), now);
    exchange(&mut client, &mut server, now);
    let asked = server.poll_query().unwrap();
    client.reset(now);
    assert_eq!(
        client.poll_response(),
        result(1, Err(RecursiveError::Reset))
    );
    assert_eq!((client.poll_timeout(), client.poll_packet()), (None, None));
    answer(&mut server, &asked, 20, now).unwrap();
    let late = server.poll_packet().unwrap();
    assert!(!client.accepts(late.view()));
    client.handle_packet(late.view(), now);
    assert_eq!(client.poll_response(), None);
}

#[test]
fn change_of_source_resets_and_equal_source_does_not() {
    let (mut client, now) = start();
    ask(&mut client, 1, UPSTREAM, query(1, 20), now);
    let sources = SourceAddresses {
        v4: Some([100, 64, 0, 1].into()),
        v6: Some("fd00:2021:1111::1".parse().unwrap()),
    };
    client.set_sources(sources, now);
    assert_eq!(client.poll_response(), None);
    client.set_sources(
        SourceAddresses {
            v6: None,
            ..sources
        },
        now,
    );
    assert_eq!(
        client.poll_response(),
        result(1, Err(RecursiveError::Reset))
    );
    ask(&mut client, 2, UPSTREAM_V6, query(1, 20), now);
    assert_eq!(
        client.poll_response(),
        result(2, Err(RecursiveError::NoSource))
    );
}

#[test]
fn bounds() {
    let (mut client, now) = start();
    ask(&mut client, 1, UPSTREAM, vec![0; 11], now);
    ask(&mut client, 2, UPSTREAM, vec![0; 65_536], now);
    assert_eq!(
        client.poll_response(),
        result(1, Err(RecursiveError::MalformedQuery))
    );
    assert_eq!(
        client.poll_response(),
        result(2, Err(RecursiveError::MalformedQuery))
    );
    for number in 0..MAX_QUERIES as u64 {
        ask(&mut client, 10 + number, UPSTREAM, query(1, 20), now);
    }
    assert_eq!(client.poll_response(), None);
    ask(&mut client, 5, UPSTREAM, query(1, 20), now);
    assert_eq!(
        client.poll_response(),
        result(5, Err(RecursiveError::Overloaded))
    );
    ask(&mut client, 10, UPSTREAM, query(1, 20), now);
    assert_eq!(
        client.poll_response(),
        result(10, Err(RecursiveError::MalformedQuery)),
        "id is in use"
    );
}

#[test]
fn connections_are_bounded_and_idle_ones_make_room() {
    let (mut client, now) = start();
    for number in 0..MAX_CONNECTIONS as u64 {
        ask(
            &mut client,
            number,
            &format!("10.0.1.{number}:53"),
            query(1, 20),
            now,
        );
    }
    ask(&mut client, 100, "10.0.2.1:53", query(1, 20), now);
    assert_eq!(
        client.poll_response(),
        result(100, Err(RecursiveError::Overloaded))
    );
    client.handle_timeout(now + secs(10));
    while client.poll_response().is_some() {}
    ask(
        &mut client,
        101,
        "10.0.2.1:53",
        query(1, 20),
        now + secs(10),
    );
    assert_eq!(client.poll_response(), None);
}

#[test]
fn equal_seeds_make_equal_packets() {
    let packets = || {
        let now = start_time();
        let mut client = Client::new([9; 32], now);
        client.set_sources(
            SourceAddresses {
                v4: Some([100, 64, 0, 1].into()),
                v6: None,
            },
            now,
        );
        ask(&mut client, 1, UPSTREAM, query(1, 20), now);
        std::iter::from_fn(move || client.poll_packet()).collect::<Vec<_>>()
    };
    assert_eq!(packets(), packets());
    assert_eq!(packets().len(), 1);
}

/// What a hostile peer changes in a segment.
#[derive(Debug, Clone)]
enum Twist {
    Sequence(i8),
    Acknowledgement(i8),
    Flags(u8),
    Window(u16),
    Options(Vec<u8>),
    Repeat,
    Drop,
}

fn twist() -> impl Strategy<Value = Twist> {
    prop_oneof![
        any::<i8>().prop_map(Twist::Sequence),
        any::<i8>().prop_map(Twist::Acknowledgement),
        any::<u8>().prop_map(Twist::Flags),
        prop_oneof![any::<u16>(), Just(0), Just(1)].prop_map(Twist::Window),
        proptest::collection::vec(prop_oneof![0..9u8, any::<u8>()], 0..4).prop_map(|words| {
            Twist::Options(
                words
                    .into_iter()
                    .flat_map(|byte| [byte, 4, byte, 2])
                    .collect(),
            )
        }),
        Just(Twist::Repeat),
        Just(Twist::Drop),
    ]
}

/// The segment as the hostile peer sends it.
fn twisted(packet: &IpPacket, twist: &Twist) -> Vec<IpPacket> {
    use ip_packet::{TcpFlags, make};
    let tcp = packet.as_tcp().unwrap();
    let mut header = make::TcpHeader {
        sequence: tcp.sequence(),
        acknowledgement: tcp.acknowledgement(),
        flags: tcp.flags(),
        window: tcp.window(),
        options: tcp.options(),
    };
    match twist {
        Twist::Sequence(by) => {
            header.sequence = header.sequence.wrapping_add_signed(i32::from(*by))
        }
        Twist::Acknowledgement(by) => {
            header.acknowledgement = header.acknowledgement.wrapping_add_signed(i32::from(*by));
        }
        Twist::Flags(bits) => header.flags = TcpFlags::from_bits(*bits),
        Twist::Window(window) => header.window = *window,
        Twist::Options(options) => header.options = options,
        Twist::Repeat => return vec![packet.clone(), packet.clone()],
        Twist::Drop => return Vec::new(),
    }
    let source = SocketAddr::new(packet.source(), tcp.source_port());
    let destination = SocketAddr::new(packet.destination(), tcp.destination_port());
    // More options than the segment has room for: nothing arrives.
    make::tcp_packet(source, destination, header, tcp.payload())
        .into_iter()
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn hostile_peers_cause_no_panic_and_every_look_up_ends(
        twists in proptest::collection::vec((twist(), any::<bool>()), 0..40),
        len in 12..5000usize,
    ) {
        let (mut client, mut now) = start();
        let end = now + secs(40);
        let mut server = upstream(&[UPSTREAM], now);
        for number in 0..3 {
            ask(&mut client, number, UPSTREAM, query(number as u16, len), now);
        }
        let mut twists = twists.into_iter();
        let mut deliver = |packet: IpPacket, to: &mut dyn FnMut(PacketRef<'_>)| {
            let (twist, and_original) = twists.next().unwrap_or((Twist::Drop, true));
            for twisted in twisted(&packet, &twist) {
                to(twisted.view());
            }
            if and_original {
                to(packet.view());
            }
        };
        let mut results = 0;
        while now < end {
            let mut is_quiet = true;
            while let Some(packet) = client.poll_packet() {
                is_quiet = false;
                deliver(packet, &mut |packet| server.handle_packet(packet, now));
            }
            while let Some(asked) = server.poll_query() {
                let _ = answer(&mut server, &asked, len, now);
            }
            while let Some(packet) = server.poll_packet() {
                is_quiet = false;
                deliver(packet, &mut |packet| client.handle_packet(packet, now));
            }
            results += std::iter::from_fn(|| client.poll_response()).count();
            if is_quiet {
                let next = [client.poll_timeout(), server.poll_timeout()].into_iter().flatten().min();
                now = next.unwrap_or(end).max(now);
                client.handle_timeout(now);
                server.handle_timeout(now);
            }
        }
        prop_assert_eq!(results, 3);
    }
}
