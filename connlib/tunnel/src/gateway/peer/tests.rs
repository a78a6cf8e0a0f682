//! One client, packet by packet: what passes, what is refused, and what is translated.

use std::net::SocketAddr;

use connlib_lookup::Secret;
use connlib_model::{
    Filter, GatewayCidrResource, GatewayDnsResource, GatewayInternetResource, GatewayResource,
    ResourceId,
};
use ip_packet::make::{
    TcpHeader, icmp_echo_reply, icmp_echo_request, icmpv4_message, icmpv6_message, tcp_packet,
    udp_packet,
};
use ip_packet::{IcmpErrorKind, Protocol, TcpFlags, make};
use proptest::prelude::*;

use super::super::nat::Assignment;
use super::*;

const NAMES: u128 = 1;
const NETWORK: u128 = 2;
const INTERNET: u128 = 3;

const CLIENT_V4: &str = "100.64.0.5";
const CLIENT_V6: &str = "fd00:2021:1111::5";
const PROXY_V4: &str = "100.96.0.1";
const PROXY_V6: &str = "fd00:2021:1111:8000::";
const REAL_V4: &str = "10.0.0.80";
const REAL_V6: &str = "2001:db8::80";
const GATEWAY_V4: &str = "100.64.0.1";
const GATEWAY_V6: &str = "fd00:2021:1111::1";

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn socket(address: &str, port: u16) -> SocketAddr {
    SocketAddr::new(ip(address), port)
}

fn id(number: u128) -> ResourceId {
    ResourceId::from_u128(number)
}

fn names(filters: &[Filter]) -> GatewayResource {
    GatewayResource::Dns(GatewayDnsResource {
        id: id(NAMES),
        address: "*.example.com".into(),
        name: "names".into(),
        filters: filters.to_vec(),
    })
}

fn network(address: &str, filters: &[Filter]) -> GatewayResource {
    GatewayResource::Cidr(GatewayCidrResource {
        id: id(NETWORK),
        address: address.parse().unwrap(),
        name: "network".into(),
        filters: filters.to_vec(),
    })
}

fn internet() -> GatewayResource {
    GatewayResource::Internet(GatewayInternetResource {
        id: id(INTERNET),
        filters: Vec::new(),
    })
}

/// One client, its clock, and packets through the whole decision and translation.
struct Bench {
    peer: ClientPeer,
    own: TunAddresses,
    now: Instant,
}

impl Bench {
    fn new(resources: &[GatewayResource]) -> Self {
        let addresses = |v4: &str, v6: &str| TunAddresses {
            v4: v4.parse().unwrap(),
            v6: v6.parse().unwrap(),
        };
        let mut peer = ClientPeer::new(addresses(CLIENT_V4, CLIENT_V6), Secret::from_seed([0; 32]));
        for resource in resources {
            peer.access.authorize(resource, None);
        }
        Self {
            peer,
            own: addresses(GATEWAY_V4, GATEWAY_V6),
            now: Instant::now(),
        }
    }

    /// A client with a translated name.
    fn with_name(filters: &[Filter], resolved: &[&str]) -> Self {
        let mut bench = Self::new(&[names(filters)]);
        bench.resolve(resolved);
        bench
    }

    fn resolve(&mut self, resolved: &[&str]) {
        let resolved: Vec<_> = resolved.iter().map(|address| ip(address)).collect();
        let assignment = Assignment {
            resource: id(NAMES),
            domain: &"www.example.com".parse().unwrap(),
            proxies: &[ip(PROXY_V4), ip(PROXY_V6)],
        };
        self.peer
            .names
            .assign(&assignment, Some(&resolved))
            .unwrap();
    }

    fn up(&mut self, mut packet: IpPacket) -> Result<IpPacket, Refusal> {
        let passage = self
            .peer
            .judge_from_client(packet.view(), Some(self.own), self.now)?;
        passage.apply_from_client(&mut packet.view_mut()).unwrap();
        assert!(packet.view().has_valid_checksums());
        Ok(packet)
    }

    fn down(&mut self, mut packet: IpPacket) -> Result<IpPacket, Refusal> {
        let packet = match self
            .peer
            .judge_to_client(packet.view(), Some(self.own), self.now)?
        {
            ToClient::Replace(other) => other,
            ToClient::Pass(passage) => {
                passage.apply_to_client(&mut packet.view_mut()).unwrap();
                packet
            }
        };
        assert!(packet.view().has_valid_checksums());
        Ok(packet)
    }

    fn down_error(&mut self, packet: IpPacket) -> Refusal {
        self.down(packet).unwrap_err()
    }
}

fn udp(from: SocketAddr, to: SocketAddr) -> IpPacket {
    udp_packet(from, to, b"12345678").unwrap()
}

fn tcp(from: SocketAddr, to: SocketAddr) -> IpPacket {
    tcp_packet(
        from,
        to,
        TcpHeader {
            flags: TcpFlags::ACK,
            ..TcpHeader::default()
        },
        b"12345678",
    )
    .unwrap()
}

fn ends(packet: &IpPacket) -> (IpAddr, Protocol, IpAddr, Protocol) {
    let view = packet.view();
    (
        view.source(),
        view.source_protocol().unwrap(),
        view.destination(),
        view.destination_protocol().unwrap(),
    )
}

/// A packet of a protocol that nobody looks into (GRE).
fn gre(from: &str, to: &str) -> IpPacket {
    let mut bytes = udp(socket(from, 1), socket(to, 1)).as_slice().to_vec();
    bytes[9] = 47;
    bytes[10..12].fill(0);
    let sum = ip_packet::checksum::of(&bytes[..20]);
    bytes[10..12].copy_from_slice(&sum.to_be_bytes());
    IpPacket::from_slice(&bytes).unwrap()
}

#[test]
fn tunnel_47_foreign_source_is_refused() {
    let mut bench = Bench::new(&[network("10.0.0.0/8", &[])]);
    for source in ["100.64.0.6", "192.168.1.1", GATEWAY_V4] {
        assert_eq!(
            bench.up(udp(socket(source, 1), socket("10.0.0.1", 1))),
            Err(Refusal::Spoofed)
        );
    }
    assert_eq!(Refusal::Spoofed.answer(), Some(Unreachable::Prohibited));
    assert!(
        bench
            .up(udp(socket(CLIENT_V4, 1), socket("10.0.0.1", 1)))
            .is_ok()
    );
}

#[test]
fn tunnel_48_other_protocols_need_an_empty_filter_list() {
    let mut bench = Bench::new(&[network("10.0.0.0/8", &[])]);
    assert!(bench.up(gre(CLIENT_V4, "10.0.0.1")).is_ok());
    assert!(bench.down(gre("10.0.0.1", CLIENT_V4)).is_ok());

    let mut bench = Bench::new(&[network(
        "10.0.0.0/8",
        &[Filter::ALL_TCP, Filter::ALL_UDP, Filter::Icmp],
    )]);
    assert_eq!(
        bench.up(gre(CLIENT_V4, "10.0.0.1")),
        Err(Refusal::Prohibited)
    );
    assert_eq!(
        bench.down_error(gre("10.0.0.1", CLIENT_V4)),
        Refusal::Prohibited
    );
}

#[test]
fn tunnel_50_kinds_of_resources_do_not_open_each_other_s_addresses() {
    let from = socket(CLIENT_V4, 5000);
    let mut by_name = Bench::with_name(&[], &[REAL_V4]);
    assert_eq!(
        by_name.up(udp(from, socket(REAL_V4, 1))),
        Err(Refusal::Prohibited)
    );
    assert!(by_name.up(udp(from, socket(PROXY_V4, 1))).is_ok());

    for resource in [network("0.0.0.0/0", &[]), internet()] {
        let mut bench = Bench::new(&[resource, names(&[Filter::Icmp])]);
        bench.resolve(&[REAL_V4]);
        assert_eq!(
            bench.up(udp(from, socket(PROXY_V4, 1))),
            Err(Refusal::Prohibited)
        );
        assert_eq!(
            bench.up(udp(from, socket("100.96.7.7", 1))),
            Err(Refusal::Unreachable)
        );
    }
}

#[test]
fn tunnel_51_internet_refuses_private_addresses_both_ways() {
    let mut bench = Bench::new(&[internet()]);
    assert!(
        bench
            .up(udp(socket(CLIENT_V4, 1), socket("1.1.1.1", 53)))
            .is_ok()
    );
    assert!(
        bench
            .down(udp(socket("1.1.1.1", 53), socket(CLIENT_V4, 1)))
            .is_ok()
    );
    for private in [
        "10.0.0.1",
        "192.168.0.1",
        "127.0.0.1",
        "240.0.0.1",
        "100.127.0.9",
    ] {
        assert_eq!(
            bench.up(udp(socket(CLIENT_V4, 1), socket(private, 53))),
            Err(Refusal::Unreachable)
        );
        assert!(
            bench
                .down(udp(socket(private, 53), socket(CLIENT_V4, 1)))
                .is_err()
        );
    }
    assert_eq!(
        bench.up(udp(socket(CLIENT_V4, 1), socket("224.0.0.1", 53))),
        Err(Refusal::Unsupported)
    );
    assert_eq!(
        bench.up(udp(socket(CLIENT_V4, 1), socket("255.255.255.255", 53))),
        Err(Refusal::Unsupported)
    );
}

#[test]
fn tunnel_52_clients_do_not_reach_each_other() {
    let mut bench = Bench::new(&[network("0.0.0.0/0", &[]), internet()]);
    let other = socket("100.64.0.9", 1);
    assert_eq!(
        bench.up(udp(socket(CLIENT_V4, 1), other)),
        Err(Refusal::Prohibited)
    );
    assert_eq!(
        bench.down_error(udp(other, socket(CLIENT_V4, 1))),
        Refusal::Prohibited
    );
    assert_eq!(
        bench.down_error(udp(socket(PROXY_V4, 1), socket(CLIENT_V4, 1))),
        Refusal::Prohibited
    );
}

#[test]
fn gateway_offers_its_dns_server_and_echo_only() {
    let mut bench = Bench::new(&[network("10.0.0.0/8", &[])]);
    for (client, gateway) in [(CLIENT_V4, GATEWAY_V4), (CLIENT_V6, GATEWAY_V6)] {
        let (from, dns) = (socket(client, 4000), socket(gateway, 53_535));
        let query = udp(from, dns);
        assert_eq!(bench.up(query.clone()), Ok(query));
        assert!(bench.up(tcp(from, dns)).is_ok());
        assert!(
            bench
                .up(icmp_echo_request(from.ip(), dns.ip(), 1, 1, b"").unwrap())
                .is_ok()
        );
        assert_eq!(
            bench.up(tcp(from, socket(gateway, 22))),
            Err(Refusal::Prohibited)
        );

        let answer = udp(dns, from);
        assert_eq!(bench.down(answer.clone()), Ok(answer));
    }
}

#[test]
fn tunnel_57_round_trip_through_a_name() {
    for (client, proxy, real) in [
        (CLIENT_V4, PROXY_V4, REAL_V4),
        (CLIENT_V6, PROXY_V6, REAL_V6),
    ] {
        let mut bench = Bench::with_name(&[], &[REAL_V4, REAL_V6]);
        for (make, protocol) in [
            (udp as fn(_, _) -> _, Protocol::Udp as fn(u16) -> _),
            (tcp, Protocol::Tcp),
        ] {
            let request = bench
                .up(make(socket(client, 5000), socket(proxy, 443)))
                .unwrap();
            assert_eq!(
                ends(&request),
                (ip(client), protocol(5000), ip(real), protocol(443))
            );
            let reply = bench
                .down(make(socket(real, 443), socket(client, 5000)))
                .unwrap();
            assert_eq!(
                ends(&reply),
                (ip(proxy), protocol(443), ip(client), protocol(5000))
            );
        }
        let echo = Protocol::IcmpEcho(77);
        let request = icmp_echo_request(ip(client), ip(proxy), 77, 1, b"ping").unwrap();
        assert_eq!(
            ends(&bench.up(request).unwrap()),
            (ip(client), echo, ip(real), echo)
        );
        let reply = icmp_echo_reply(ip(real), ip(client), 77, 1, b"ping").unwrap();
        assert_eq!(
            ends(&bench.down(reply).unwrap()),
            (ip(proxy), echo, ip(client), echo)
        );
    }
}

#[test]
fn tunnel_61_new_answer_moves_new_flows_only() {
    let mut bench = Bench::with_name(&[], &["10.0.0.1"]);
    let to = socket(PROXY_V4, 443);
    bench.up(tcp(socket(CLIENT_V4, 1), to)).unwrap();
    bench.resolve(&["10.0.0.2"]);

    let old = bench.up(tcp(socket(CLIENT_V4, 1), to)).unwrap();
    let new = bench.up(tcp(socket(CLIENT_V4, 2), to)).unwrap();
    assert_eq!(old.view().destination(), ip("10.0.0.1"));
    assert_eq!(new.view().destination(), ip("10.0.0.2"));
    assert!(
        bench
            .down(tcp(socket("10.0.0.1", 443), socket(CLIENT_V4, 1)))
            .is_ok()
    );
}

#[test]
fn tunnel_62_missing_family_is_unreachable() {
    let (v4, v6) = ((CLIENT_V4, PROXY_V4), (CLIENT_V6, PROXY_V6));
    for (resolved, good, bad) in [
        (&[REAL_V4][..], &[v4][..], &[v6][..]),
        (&[REAL_V6], &[v6], &[v4]),
        (&[], &[], &[v4, v6]),
    ] {
        let mut bench = Bench::with_name(&[], resolved);
        for (client, proxy) in good {
            assert!(bench.up(udp(socket(client, 1), socket(proxy, 1))).is_ok());
        }
        for (client, proxy) in bad {
            assert_eq!(
                bench.up(udp(socket(client, 1), socket(proxy, 1))),
                Err(Refusal::Unreachable)
            );
        }
    }
    assert_eq!(Refusal::Unreachable.answer(), Some(Unreachable::Network));
}

#[test]
fn tunnel_60_answer_of_an_ended_session_is_dropped() {
    let mut bench = Bench::new(&[names(&[]), network("10.0.0.0/8", &[])]);
    bench.resolve(&[REAL_V4]);
    bench
        .up(udp(socket(CLIENT_V4, 5000), socket(PROXY_V4, 53)))
        .unwrap();
    bench.now += Duration::from_secs(60);
    let late = udp(socket(REAL_V4, 53), socket(CLIENT_V4, 5000));
    assert_eq!(bench.down_error(late.clone()), Refusal::Expired);

    // Until the client talks to that address itself.
    bench
        .up(udp(socket(CLIENT_V4, 5000), socket(REAL_V4, 53)))
        .unwrap();
    assert_eq!(bench.down(late.clone()), Ok(late));
}

#[test]
fn return_traffic_is_filtered_by_source_port() {
    let filters = [Filter::Tcp(443..=443)];
    let mut bench = Bench::new(&[names(&filters), network("10.1.0.0/16", &filters)]);
    bench.resolve(&[REAL_V4]);
    bench
        .up(tcp(socket(CLIENT_V4, 1), socket(PROXY_V4, 443)))
        .unwrap();

    assert!(
        bench
            .down(tcp(socket(REAL_V4, 443), socket(CLIENT_V4, 1)))
            .is_ok()
    );
    assert_eq!(
        bench.down_error(tcp(socket(REAL_V4, 444), socket(CLIENT_V4, 1))),
        Refusal::Prohibited
    );
    assert!(
        bench
            .down(tcp(socket("10.1.0.1", 443), socket(CLIENT_V4, 9)))
            .is_ok()
    );
    assert_eq!(
        bench.down_error(tcp(socket("10.1.0.1", 22), socket(CLIENT_V4, 9))),
        Refusal::Prohibited
    );

    bench.peer.access.revoke(id(NAMES));
    assert_eq!(
        bench.down_error(tcp(socket(REAL_V4, 443), socket(CLIENT_V4, 1))),
        Refusal::Prohibited
    );
}

#[test]
fn revoked_name_is_prohibited_and_not_unreachable() {
    let mut bench = Bench::with_name(&[], &[REAL_V4]);
    bench.peer.access.revoke(id(NAMES));
    assert_eq!(
        bench.up(udp(socket(CLIENT_V4, 1), socket(PROXY_V4, 1))),
        Err(Refusal::Prohibited)
    );
}

/// An ICMP error from a router at the site about `failed`.
fn error_about(failed: &IpPacket, message: (u8, u8, [u8; 4]), embedded_len: usize) -> IpPacket {
    let embedded = &failed.as_slice()[..embedded_len.min(failed.as_slice().len())];
    let client = failed.view().source();
    match client {
        IpAddr::V4(_) => icmpv4_message(ip("10.99.0.1"), client, 64, message, embedded).unwrap(),
        IpAddr::V6(_) => {
            icmpv6_message(ip("2001:db8:99::1"), client, 64, message, embedded).unwrap()
        }
    }
}

fn sent_through_name(bench: &mut Bench, is_v4: bool) -> Vec<(Protocol, IpPacket)> {
    let (client, proxy) = if is_v4 {
        (CLIENT_V4, PROXY_V4)
    } else {
        (CLIENT_V6, PROXY_V6)
    };
    let (from, to) = (socket(client, 5000), socket(proxy, 443));
    let echo = icmp_echo_request(from.ip(), to.ip(), 5000, 1, b"ping").unwrap();
    [
        (Protocol::Tcp(5000), tcp(from, to)),
        (Protocol::Udp(5000), udp(from, to)),
        (Protocol::IcmpEcho(5000), echo),
    ]
    .map(|(protocol, packet)| (protocol, bench.up(packet).unwrap()))
    .into()
}

#[test]
fn tunnel_63_icmp_errors_are_translated() {
    use IcmpErrorKind::{
        V4FragmentationNeeded, V4TimeExceeded, V4Unreachable, V6PacketTooBig, V6TimeExceeded,
        V6Unreachable,
    };

    let v4_mtu = |mtu: u16| {
        (
            (3, 4, [0, 0, mtu.to_be_bytes()[0], mtu.to_be_bytes()[1]]),
            V4FragmentationNeeded { mtu },
        )
    };
    let v6_mtu = |mtu: u32| ((2, 0, mtu.to_be_bytes()), V6PacketTooBig { mtu });
    let v4 = [
        ((3, 0, [0; 4]), V4Unreachable { code: 0 }),
        ((3, 1, [0; 4]), V4Unreachable { code: 1 }),
        ((3, 3, [0; 4]), V4Unreachable { code: 3 }),
        v4_mtu(0),
        v4_mtu(1),
        v4_mtu(19),
        v4_mtu(1279),
        v4_mtu(u16::MAX),
        ((11, 0, [0; 4]), V4TimeExceeded { code: 0 }),
    ];
    let v6 = [
        ((1, 0, [0; 4]), V6Unreachable { code: 0 }),
        ((1, 4, [0; 4]), V6Unreachable { code: 4 }),
        v6_mtu(0),
        v6_mtu(1),
        v6_mtu(19),
        v6_mtu(1279),
        v6_mtu(u32::MAX),
        ((3, 0, [0; 4]), V6TimeExceeded { code: 0 }),
    ];
    for (is_v4, kinds) in [(true, &v4[..]), (false, &v6[..])] {
        let (client, proxy, header) = if is_v4 {
            (CLIENT_V4, PROXY_V4, 20)
        } else {
            (CLIENT_V6, PROXY_V6, 40)
        };
        // No filter permits ICMP: errors pass all the same.
        let filters = [Filter::ALL_TCP, Filter::ALL_UDP];
        let mut bench = Bench::with_name(&[], &[REAL_V4, REAL_V6]);
        let sent = sent_through_name(&mut bench, is_v4);
        bench.peer.access.authorize(&names(&filters), None);
        for (message, kind) in kinds {
            for (protocol, failed) in &sent {
                for embedded_len in [header + 8, usize::MAX] {
                    let received = bench
                        .down(error_about(failed, *message, embedded_len))
                        .unwrap();
                    let view = received.view();
                    assert_eq!((view.source(), view.destination()), (ip(proxy), ip(client)));
                    assert_eq!(view.hop_limit(), 20);
                    let error = view.icmp_error().unwrap();
                    assert_eq!(error.kind(), *kind);
                    let original = error.failed_packet().unwrap();
                    assert_eq!(
                        (original.source(), original.destination()),
                        (ip(client), ip(proxy))
                    );
                    assert_eq!(original.source_protocol(), *protocol);
                }
            }
        }
    }
}

#[test]
fn tunnel_63_error_restores_the_client_s_port() {
    let mut bench = Bench::with_name(&[], &[REAL_V4]);
    let second = Assignment {
        resource: id(NAMES),
        domain: &"other.example.com".parse().unwrap(),
        proxies: &[ip("100.96.0.5")],
    };
    bench
        .peer
        .names
        .assign(&second, Some(&[ip(REAL_V4)]))
        .unwrap();
    bench
        .up(udp(socket(CLIENT_V4, 5000), socket(PROXY_V4, 1)))
        .unwrap();
    let failed = bench
        .up(udp(socket(CLIENT_V4, 5000), socket("100.96.0.5", 1)))
        .unwrap();
    assert_eq!(failed.view().source_protocol(), Ok(Protocol::Udp(5001)));

    let received = bench
        .down(error_about(&failed, (3, 3, [0; 4]), 28))
        .unwrap();
    let error = received.view().icmp_error().unwrap();
    let original = error.failed_packet().unwrap();
    assert_eq!(original.destination(), ip("100.96.0.5"));
    assert_eq!(original.source_protocol(), Protocol::Udp(5000));
}

#[test]
fn tunnel_63_error_about_a_network_passes_unmodified() {
    let mut bench = Bench::new(&[network("10.0.0.0/8", &[Filter::ALL_UDP])]);
    let failed = bench
        .up(udp(socket(CLIENT_V4, 1), socket("10.0.0.1", 1)))
        .unwrap();
    let error = error_about(&failed, (3, 1, [0; 4]), 28);
    assert_eq!(bench.down(error.clone()), Ok(error));
}

#[test]
fn tunnel_63_error_about_an_ended_session_or_a_foreign_packet_is_dropped() {
    let mut bench = Bench::with_name(&[], &[REAL_V4]);
    let failed = bench
        .up(udp(socket(CLIENT_V4, 1), socket(PROXY_V4, 1)))
        .unwrap();
    let error = error_about(&failed, (3, 1, [0; 4]), 28);
    bench.now += Duration::from_secs(60);
    assert_eq!(bench.down_error(error.clone()), Refusal::Expired);
    bench.peer.handle_timeout(bench.now);
    assert_eq!(bench.down_error(error), Refusal::Expired);

    let foreign = udp(socket("100.64.0.9", 1), socket("10.0.0.1", 1));
    let error = icmpv4_message(
        ip("10.0.0.1"),
        ip(CLIENT_V4),
        64,
        (3, 1, [0; 4]),
        foreign.as_slice(),
    )
    .unwrap();
    assert_eq!(bench.down_error(error), Refusal::Unsupported);
}

#[test]
fn tunnel_64_unsupported_packets_are_dropped_quietly() {
    let mut bench = Bench::new(&[names(&[]), network("10.0.0.0/8", &[])]);
    bench.resolve(&[REAL_V4]);
    let inner = udp(socket("10.0.0.1", 1), socket(CLIENT_V4, 1));
    for message in [
        (3, 1, [0; 4]),
        (11, 0, [0; 4]),
        (5, 0, [0; 4]),
        (12, 0, [0; 4]),
    ] {
        let error =
            icmpv4_message(ip(CLIENT_V4), ip("10.0.0.1"), 64, message, inner.as_slice()).unwrap();
        assert_eq!(bench.up(error), Err(Refusal::Unsupported));
    }
    assert_eq!(
        bench.up(gre(CLIENT_V4, PROXY_V4)),
        Err(Refusal::Unsupported)
    );
    assert_eq!(Refusal::Unsupported.answer(), None);

    // Timestamp request and redirect from the site.
    for message in [(13, 0, [0; 4]), (5, 0, [0; 4])] {
        let packet =
            icmpv4_message(ip("10.0.0.1"), ip(CLIENT_V4), 64, message, inner.as_slice()).unwrap();
        assert_eq!(bench.down_error(packet), Refusal::Unsupported);
    }
}

// tunnel 62: payload sizes of 5.6
#[test]
fn refusals_carry_the_start_of_the_packet() {
    let v4 = udp_packet(socket(CLIENT_V4, 1), socket(PROXY_V4, 1), &[7; 1000]).unwrap();
    let v6 = udp_packet(socket(CLIENT_V6, 1), socket(PROXY_V6, 1), &[7; 1200]).unwrap();
    for (packet, embedded) in [(v4, 28), (v6, 1232)] {
        let answer = make::icmp_unreachable(packet.view(), Unreachable::Network).unwrap();
        let view = answer.view();
        assert_eq!(view.source(), packet.view().destination());
        assert_eq!(view.icmp_error().unwrap().embedded().len(), embedded);
    }
}

/// A packet of any kind between any of the interesting addresses.
fn any_packet() -> impl Strategy<Value = Vec<u8>> {
    let address = || {
        proptest::sample::select(vec![
            CLIENT_V4,
            "100.64.0.9",
            PROXY_V4,
            "100.96.9.9",
            "100.100.111.1",
            REAL_V4,
            GATEWAY_V4,
            "1.1.1.1",
            "10.0.0.81",
            "224.0.0.1",
            "0.0.0.0",
            "255.255.255.255",
            "127.0.0.1",
        ])
    };
    let damage = proptest::collection::vec((0usize..60, any::<u8>()), 0..3);
    (address(), address(), 0u8..4, any::<u16>(), damage).prop_map(
        |(from, to, kind, port, damage)| {
            let (source, destination) = (socket(from, port), socket(to, 443));
            let packet = match kind {
                0 => udp(source, destination),
                1 => tcp(source, destination),
                2 => icmp_echo_request(source.ip(), destination.ip(), port, 1, b"ping").unwrap(),
                _ => icmpv4_message(
                    source.ip(),
                    destination.ip(),
                    64,
                    (3, 1, [0; 4]),
                    udp(destination, source).as_slice(),
                )
                .unwrap(),
            };
            let mut bytes = packet.as_slice().to_vec();
            for (at, byte) in damage {
                if let Some(target) = bytes.get_mut(at) {
                    *target = byte;
                }
            }
            bytes
        },
    )
}

proptest! {
    /// Whatever is sent: what passes comes from the client and leaves the tunnel, or the other way round.
    #[test]
    fn nothing_passes_that_must_not(packets in proptest::collection::vec((any_packet(), any::<bool>()), 1..60)) {
        let mut bench = Bench::new(&[names(&[]), network("10.0.0.80/31", &[])]);
        bench.resolve(&[REAL_V4]);
        for (mut bytes, is_up) in packets {
            let Ok(mut packet) = PacketMut::parse(&mut bytes) else { continue };
            if is_up {
                let Ok(passage) = bench.peer.judge_from_client(packet.view(), Some(bench.own), bench.now) else { continue };
                passage.apply_from_client(&mut packet).unwrap();
                let destination = packet.destination();
                prop_assert!(bench.peer.addresses.contains(packet.source()));
                prop_assert!(!ranges::is_proxy(destination));
                prop_assert!(!ranges::is_tunnel(destination) || bench.own.contains(destination));
                prop_assert!(bench.own.contains(destination) || [ip(REAL_V4), ip("10.0.0.81")].contains(&destination));
            } else if bench.peer.addresses.contains(packet.destination()) {
                let Ok(decision) = bench.peer.judge_to_client(packet.view(), Some(bench.own), bench.now) else { continue };
                let ToClient::Pass(passage) = decision else { continue };
                passage.apply_to_client(&mut packet).unwrap();
                let source = packet.source();
                prop_assert!(!ranges::is_tunnel(source) || bench.own.contains(source));
                prop_assert!(!ranges::is_proxy(source) || source == ip(PROXY_V4));
            }
        }
    }
}
