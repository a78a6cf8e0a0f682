//! The client's stub resolver: applications that ask, and upstreams that never answer.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::{Duration, Instant},
};

use connlib_dns::{DnsTransport, QueryId, RecursiveQuery, SourceAddresses, udp};
use connlib_model::{CidrResource, Resource, ResourceId, Site, SiteId};
use connlib_snownet::{DatagramSink, Transmit};
use connlib_tunnel::{Client, ClientEvent, InterfaceConfig, TunPacket, segment::GsoMeta};
use ip_packet::{Ecn, IpPacket, make};

use crate::{MIB, assert_levels_off};

const V4: Ipv4Addr = Ipv4Addr::new(100, 64, 0, 1);
const V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x2021, 0x1111, 0, 0, 0, 0, 1);

/// Where datagrams end.
struct Nowhere(Vec<u8>);

impl DatagramSink for Nowhere {
    fn reserve(&mut self, _: Option<SocketAddr>, _: SocketAddr, _: Ecn, len: usize) -> &mut [u8] {
        self.0.resize(len, 0);
        &mut self.0
    }

    fn commit(&mut self, _len: usize) {}
}

/// A query for `<n>.example.org`.
fn query(n: u32) -> Vec<u8> {
    let label = n.to_string();
    let mut message = (n as u16).to_be_bytes().to_vec();
    message.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 0, label.len() as u8]);
    message.extend(label.as_bytes());
    message.extend(b"\x07example\x03org\x00\x00\x01\x00\x01");
    message
}

fn client(now: Instant) -> (Client, IpAddr) {
    let mut client = Client::new([1; 32], now, Duration::from_secs(1_700_000_000));
    let interface = InterfaceConfig {
        ipv4: V4,
        ipv6: V6,
        upstream_dns: vec!["9.9.9.9:53".parse().unwrap()],
        search_domain: None,
    };
    client.set_interface(interface, now);
    let site = Site {
        id: SiteId::from_u128(1),
        name: "site".to_owned(),
    };
    let network = Resource::Cidr(CidrResource {
        id: ResourceId::from_u128(2),
        address: "10.0.0.0/8".parse().unwrap(),
        name: "network".to_owned(),
        address_description: None,
        sites: vec![site],
        filters: vec![],
    });
    client.set_resources(vec![network], now);
    let mut sentinel = None;
    while let Some(event) = client.poll_event() {
        if let ClientEvent::TunConfigUpdated(config) = event {
            sentinel = config.dns_sentinels.first().copied();
        }
    }
    (client, sentinel.unwrap())
}

fn send(client: &mut Client, packet: &IpPacket, now: Instant) {
    let mut bytes = packet.as_slice().to_vec();
    let packet = TunPacket {
        buf: &mut bytes,
        gso: GsoMeta::NONE,
    };
    client.handle_tun(packet, now, &mut Nowhere(Vec::new()));
    client.handle_timeout(now);
    while client.poll_packet().is_some() {}
    while client.poll_event().is_some() {}
    while client.poll_recursive_query().is_some() {}
    while let Some(Transmit { .. }) = client.poll_transmit() {}
}

#[test]
fn queries_without_answers_are_bounded() {
    let now = Instant::now();
    let (mut client, sentinel) = client(now);
    assert_levels_off(8 * MIB, MIB / 4, (5_000, 50_000), |n| {
        let from = SocketAddr::new(V4.into(), 1024 + n as u16 % 60_000);
        let to = SocketAddr::new(sentinel, 53);
        let packet = make::udp_packet(from, to, &query(n)).unwrap();
        send(&mut client, &packet, now);
    });
}

#[test]
fn packets_that_wait_for_access_are_bounded() {
    let now = Instant::now();
    let (mut client, _) = client(now);
    assert_levels_off(4 * MIB, MIB / 4, (1_000, 50_000), |n| {
        let from = SocketAddr::new(V4.into(), 1 + n as u16 % 60_000);
        let to = SocketAddr::new(Ipv4Addr::from(0x0A00_0000 + n).into(), 80);
        let packet = make::udp_packet(from, to, &[0; 1000]).unwrap();
        send(&mut client, &packet, now);
    });
}

#[test]
fn look_ups_through_the_tunnel_are_bounded() {
    let now = Instant::now();
    let mut client = udp::Client::new([1; 32]);
    client.set_sources(SourceAddresses {
        v4: Some(V4),
        v6: Some(V6),
    });
    assert_levels_off(8 * MIB, MIB / 4, (5_000, 100_000), |n| {
        let look_up = RecursiveQuery {
            id: QueryId(n.into()),
            upstream: "10.0.0.53:53".parse().unwrap(),
            transport: DnsTransport::Udp,
            message: query(n),
        };
        client.send_query(look_up, now);
        while client.poll_packet().is_some() {}
        while client.poll_response().is_some() {}
    });
}
