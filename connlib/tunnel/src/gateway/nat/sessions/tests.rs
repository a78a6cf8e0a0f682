//! Sessions in virtual time.

use std::net::SocketAddr;
use std::time::Duration;

use connlib_lookup::Secret;
use ip_packet::TcpFlags;
use ip_packet::make::{TcpHeader, tcp_packet};
use proptest::prelude::*;

use super::*;

const NONE: fn() -> TcpSignal = TcpSignal::default;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn signal(flags: TcpFlags) -> TcpSignal {
    let [a, b] = [1, 2].map(|host| SocketAddr::from(([10, 0, 0, host], 1)));
    let header = TcpHeader {
        flags,
        ..TcpHeader::default()
    };
    TcpSignal::of(tcp_packet(a, b, header, &[]).unwrap().view())
}

/// A table, its clock, and one client talking from `protocol` through proxy 100.96.0.1 to 10.0.0.1.
struct Bench {
    sessions: Sessions,
    now: Instant,
    protocol: Protocol,
}

impl Bench {
    fn new(protocol: Protocol) -> Self {
        Self {
            sessions: Sessions::new(Secret::from_seed([0; 32])),
            now: Instant::now(),
            protocol,
        }
    }

    fn wait(&mut self, duration: Duration) -> &mut Self {
        self.now += duration;
        self
    }

    fn out(&mut self, signal: TcpSignal) -> Translation {
        self.sessions
            .outgoing(
                ip("100.96.0.1"),
                self.protocol,
                Some(ip("10.0.0.1")),
                signal,
                self.now,
            )
            .unwrap()
    }

    fn back(&mut self, signal: TcpSignal) -> Incoming {
        self.sessions
            .incoming(ip("10.0.0.1"), self.protocol, signal, self.now)
    }

    fn is_alive(&mut self) -> bool {
        let found = self
            .sessions
            .of_failed_packet(ip("10.0.0.1"), self.protocol, self.now);
        let before = self.sessions.sessions.len();
        self.sessions.handle_timeout(self.now);
        let is_alive = self.sessions.sessions.len() == before && before > 0;
        assert_eq!(
            is_alive,
            matches!(found, Incoming::Session(_)),
            "look-up and timer agree"
        );
        assert!(self.sessions.poll_timeout().is_none_or(|at| at > self.now));
        is_alive
    }
}

// tunnel 57
#[test]
fn tunnel_57_round_trip_keeps_the_port_where_it_can() {
    for protocol in [
        Protocol::Tcp(5000),
        Protocol::Udp(5000),
        Protocol::IcmpEcho(5000),
    ] {
        let mut bench = Bench::new(protocol);
        assert_eq!(
            bench.out(NONE()),
            Translation {
                address: ip("10.0.0.1"),
                value: 5000
            }
        );
        let back = Translation {
            address: ip("100.96.0.1"),
            value: 5000,
        };
        assert_eq!(bench.back(NONE()), Incoming::Session(back));
    }
    let mut bench = Bench::new(Protocol::Tcp(1));
    assert_eq!(bench.back(NONE()), Incoming::Unknown);
}

// tunnel 59
#[test]
fn tunnel_59_names_that_share_an_address_get_different_ports() {
    let mut sessions = Sessions::new(Secret::from_seed([0; 32]));
    let now = Instant::now();
    let real = Some(ip("10.0.0.1"));
    let mut out = |proxy: &str, port| {
        sessions
            .outgoing(ip(proxy), Protocol::Tcp(port), real, NONE(), now)
            .unwrap()
            .value
    };
    assert_eq!(
        [
            out("100.96.0.1", 65535),
            out("100.96.0.5", 65535),
            out("100.96.0.9", 65535)
        ],
        [65535, 1, 2]
    );
    assert_eq!([out("100.96.0.1", 0), out("100.96.0.5", 0)], [0, 3]);
    assert_eq!(out("100.96.0.5", 65535), 1, "the session is found again");

    let mut back = |port| match sessions.incoming(ip("10.0.0.1"), Protocol::Tcp(port), NONE(), now)
    {
        Incoming::Session(translation) => (translation.address, translation.value),
        other => panic!("{other:?}"),
    };
    assert_eq!(back(65535), (ip("100.96.0.1"), 65535));
    assert_eq!(back(1), (ip("100.96.0.5"), 65535));
    assert_eq!(back(0), (ip("100.96.0.1"), 0));
    assert_eq!(back(3), (ip("100.96.0.5"), 0));
}

// tunnel 59
#[test]
fn tunnel_59_exhausted_values_are_an_error() {
    let mut sessions = Sessions::new(Secret::from_seed([0; 32]));
    let now = Instant::now();
    let mut out = |proxy: &str, port| {
        sessions.outgoing(
            ip(proxy),
            Protocol::Udp(port),
            Some(ip("10.0.0.1")),
            NONE(),
            now,
        )
    };
    for port in 0..=u16::MAX {
        out("100.96.0.1", port).unwrap();
    }
    assert_eq!(out("100.96.0.2", 7), Err(NoSession::Exhausted));
    assert!(out("100.96.0.1", 7).is_ok(), "running sessions go on");
}

#[test]
fn number_of_sessions_is_bounded() {
    let mut sessions = Sessions::new(Secret::from_seed([0; 32]));
    let now = Instant::now();
    let mut out = |real: u32, port| {
        let real = IpAddr::V4((0x0a00_0000 + real).into());
        sessions.outgoing(
            ip("100.96.0.1"),
            Protocol::Tcp(port),
            Some(real),
            NONE(),
            now,
        )
    };
    // Inside tuples are the scarce ones here: one proxy address.
    for number in 0..=u16::MAX {
        out(u32::from(number), number).unwrap();
    }
    let mut second = |number: u16| {
        sessions.outgoing(
            ip("100.96.0.2"),
            Protocol::Tcp(number),
            Some(ip("10.9.9.9")),
            NONE(),
            now,
        )
    };
    for number in 0..=u16::MAX {
        second(number).unwrap();
    }
    let third = sessions.outgoing(
        ip("100.96.0.3"),
        Protocol::Tcp(1),
        Some(ip("10.8.8.8")),
        NONE(),
        now,
    );
    assert_eq!(third, Err(NoSession::Exhausted));
}

// tunnel 60
#[test]
fn tunnel_60_answered_sessions_live_for_their_protocol_s_time() {
    for (protocol, ttl) in [
        (Protocol::Tcp(1), secs(7440)),
        (Protocol::Udp(1), secs(120)),
        (Protocol::IcmpEcho(1), secs(120)),
    ] {
        for refresh_by_client in [true, false] {
            let mut bench = Bench::new(protocol);
            bench.out(NONE());
            bench.back(NONE());
            for _ in 0..3 {
                bench.wait(ttl - secs(1));
                assert!(bench.is_alive());
                if refresh_by_client {
                    bench.out(NONE());
                } else {
                    bench.back(NONE());
                }
            }
            assert!(bench.wait(ttl - Duration::from_nanos(1)).is_alive());
            assert!(!bench.wait(Duration::from_nanos(1)).is_alive());
        }
    }
}

// tunnel 60
#[test]
fn tunnel_60_unanswered_sessions_live_for_a_minute() {
    for protocol in [Protocol::Tcp(1), Protocol::Udp(1), Protocol::IcmpEcho(1)] {
        let mut bench = Bench::new(protocol);
        bench.out(NONE());
        bench.wait(secs(59)).out(NONE());
        assert!(bench.wait(secs(59)).is_alive());
        assert!(!bench.wait(secs(1)).is_alive());
    }
}

// tunnel 60
#[test]
fn tunnel_60_finished_connections_live_for_five_seconds() {
    let fin = signal(TcpFlags::FIN | TcpFlags::ACK);
    let mut bench = Bench::new(Protocol::Tcp(1));
    bench.out(NONE());
    bench.back(NONE());
    bench.out(fin);
    assert!(
        bench.wait(secs(600)).is_alive(),
        "one FIN is a half-closed connection"
    );
    bench.back(fin);
    assert!(bench.wait(secs(4)).is_alive());
    bench.out(NONE());
    assert!(bench.wait(secs(4)).is_alive());
    assert!(!bench.wait(secs(1)).is_alive());
}

// tunnel 60
#[test]
fn tunnel_60_reset_ends_at_once_but_is_translated() {
    let rst = signal(TcpFlags::RST);
    for by_client in [true, false] {
        let mut bench = Bench::new(Protocol::Tcp(1));
        bench.out(NONE());
        bench.back(NONE());
        bench.wait(secs(1));
        if by_client {
            assert_eq!(bench.out(rst).address, ip("10.0.0.1"));
        } else {
            assert!(matches!(bench.back(rst), Incoming::Session(_)));
        }
        assert_eq!(bench.sessions.poll_timeout(), Some(bench.now));
        assert!(!bench.is_alive());
        assert_eq!(bench.back(NONE()), Incoming::Expired);
    }
}

// tunnel 60
#[test]
fn tunnel_60_late_packets_are_recognised_until_the_tuple_is_used_again() {
    let mut bench = Bench::new(Protocol::Udp(1));
    bench.out(NONE());
    bench.wait(secs(60));
    assert_eq!(
        bench.back(NONE()),
        Incoming::Expired,
        "also before the timer has fired"
    );
    bench.sessions.handle_timeout(bench.now);
    assert_eq!(bench.back(NONE()), Incoming::Expired);

    bench.out(NONE());
    assert!(matches!(bench.back(NONE()), Incoming::Session(_)));
}

#[test]
fn room_of_a_burst_is_given_back() {
    let mut sessions = Sessions::new(Secret::from_seed([0; 32]));
    let now = Instant::now();
    for port in 0..10_000 {
        let real = Some(ip("10.0.0.1"));
        sessions
            .outgoing(ip("100.96.0.1"), Protocol::Udp(port), real, NONE(), now)
            .unwrap();
    }
    assert!(sessions.inside.capacity() >= 10_000);
    sessions.handle_timeout(now + secs(3600));
    for capacity in [
        sessions.sessions.capacity(),
        sessions.inside.capacity(),
        sessions.outside.capacity(),
    ] {
        assert!(capacity <= KEPT_ROOM, "{capacity}");
    }
}

// tunnel 61
#[test]
fn tunnel_61_running_session_keeps_its_address() {
    let mut sessions = Sessions::new(Secret::from_seed([0; 32]));
    let now = Instant::now();
    let mut out = |port, real: &str| {
        sessions
            .outgoing(
                ip("100.96.0.1"),
                Protocol::Tcp(port),
                Some(ip(real)),
                NONE(),
                now,
            )
            .unwrap()
            .address
    };
    assert_eq!(out(1, "10.0.0.1"), ip("10.0.0.1"));
    assert_eq!(out(1, "10.0.0.2"), ip("10.0.0.1"));
    assert_eq!(out(2, "10.0.0.2"), ip("10.0.0.2"));
    let gone = sessions.outgoing(ip("100.96.0.1"), Protocol::Tcp(1), None, NONE(), now);
    assert_eq!(gone.unwrap().address, ip("10.0.0.1"));
    let new = sessions.outgoing(ip("100.96.0.1"), Protocol::Tcp(3), None, NONE(), now);
    assert_eq!(new, Err(NoSession::Unmapped));
}

#[test]
fn new_connection_from_the_same_port_begins_a_new_life() {
    let fin = signal(TcpFlags::FIN | TcpFlags::ACK);
    let mut bench = Bench::new(Protocol::Tcp(1));
    bench.out(NONE());
    bench.back(NONE());
    bench.out(fin);
    bench.back(fin);
    bench.wait(secs(2)).out(signal(TcpFlags::SYN));
    bench.back(signal(TcpFlags::SYN | TcpFlags::ACK));
    assert!(bench.wait(secs(7000)).is_alive());
}

#[test]
fn sessions_of_proxies_that_are_gone_end() {
    let mut bench = Bench::new(Protocol::Udp(1));
    bench.out(NONE());
    bench.sessions.retain(|proxy| proxy == ip("100.96.0.1"));
    assert!(bench.is_alive());
    bench.sessions.retain(|proxy| proxy != ip("100.96.0.1"));
    assert_eq!(bench.back(NONE()), Incoming::Expired);
    assert_eq!(bench.sessions.poll_timeout(), None);
}

#[derive(Debug, Clone)]
enum Step {
    Out {
        proxy: u8,
        port: u16,
        real: u8,
        flags: u8,
    },
    Back {
        real: u8,
        port: u16,
        flags: u8,
    },
    Wait(u64),
}

fn any_step() -> impl Strategy<Value = Step> {
    let flags = || prop_oneof![3 => Just(0x10u8), 1 => any::<u8>()];
    prop_oneof![
        4 => (0u8..4, 0u16..3, 0u8..2, flags()).prop_map(|(proxy, port, real, flags)| Step::Out { proxy, port, real, flags }),
        3 => (0u8..2, 0u16..6, flags()).prop_map(|(real, port, flags)| Step::Back { real, port, flags }),
        2 => (1u64..100).prop_map(Step::Wait),
    ]
}

proptest! {
    /// The table stays a bijection, and the timer always moves on.
    #[test]
    fn invariants_hold(steps in proptest::collection::vec(any_step(), 0..150)) {
        let mut table = Sessions::new(Secret::from_seed([0; 32]));
        let mut now = Instant::now();
        for step in steps {
            match step {
                Step::Out { proxy, port, real, flags } => {
                    let proxy = IpAddr::from([100, 96, 0, proxy]);
                    let real = IpAddr::from([10, 0, 0, real]);
                    let signal = signal(TcpFlags::from_bits(flags));
                    let out = table.outgoing(proxy, Protocol::Tcp(port), Some(real), signal, now).unwrap();
                    if signal.is_none() {
                        let back = table.of_failed_packet(out.address, Protocol::Tcp(out.value), now);
                        prop_assert_eq!(back, Incoming::Session(Translation { address: proxy, value: port }));
                    }
                }
                Step::Back { real, port, flags } => {
                    let signal = signal(TcpFlags::from_bits(flags));
                    table.incoming(IpAddr::from([10, 0, 0, real]), Protocol::Tcp(port), signal, now);
                }
                Step::Wait(seconds) => {
                    now += secs(seconds);
                    table.handle_timeout(now);
                    prop_assert!(table.poll_timeout().is_none_or(|at| at > now));
                }
            }
            prop_assert_eq!(table.inside.len(), table.sessions.len());
            prop_assert_eq!(table.outside.len(), table.sessions.len());
            prop_assert_eq!(table.checks.len(), table.sessions.len());
            for session in table.sessions.iter().map(|(_, session)| session) {
                prop_assert!(session.checked_at <= session.deadline());
            }
        }
    }
}
