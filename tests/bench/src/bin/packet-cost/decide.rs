//! Decisions without the cipher: the client's route, the gateway's filter and NAT.

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Instant;

use connlib_model::{Filter, GatewayDnsResource, GatewayResource, ResourceId};
use connlib_tunnel::TunPacket;
use connlib_tunnel::bench::BenchPeer;
use connlib_tunnel::segment::GsoMeta;
use ip_packet::make::{TcpHeader, tcp_packet};
use ip_packet::{IpPacket, PacketMut, TcpFlags};

use crate::{
    case::Round,
    packets,
    world::{Path, Sent, World},
};

/// A packet that no resource covers.
pub(crate) struct Route {
    world: World,
    packet: Vec<u8>,
    sink: Sent,
}

impl Route {
    pub(crate) fn new(resources: usize) -> Self {
        let source = SocketAddr::from((packets::client_tun(0).v4, 5000));
        let packet = tcp_packet(
            source,
            ([203, 0, 113, 1], 443).into(),
            TcpHeader::default(),
            &[],
        );
        Self {
            world: World::connected(Path::Direct, 1, resources),
            packet: packet.expect("fits a packet").as_slice().to_vec(),
            sink: Sent::default(),
        }
    }
}

impl Round for Route {
    fn prepare(&mut self) {
        let client = &mut self.world.clients[0];
        while client.poll_packet().is_some() {}
    }

    fn work(&mut self) {
        let packet = TunPacket {
            buf: &mut self.packet,
            gso: GsoMeta::NONE,
        };
        self.world.clients[0].handle_tun(packet, self.world.now, &mut self.sink);
    }
}

const PROXY_START: u32 = 0x6460_0001;
const REAL_START: u32 = 0x0a00_0001;
const SESSIONS_PER_NAME: u32 = 1_000;
/// Sessions that take turns, so that no cache of the last one helps.
const TURNS: u32 = 256;

/// A packet of one of many sessions over DNS resources.
pub(crate) struct Translate {
    peer: BenchPeer,
    direction: Direction,
    templates: Vec<IpPacket>,
    at: usize,
    buffer: Vec<u8>,
    now: Instant,
}

#[derive(Debug, Clone, Copy)]
enum Direction {
    FromClient,
    ToClient,
}

impl Translate {
    pub(crate) fn from_client(sessions: u32) -> Self {
        Self::new(Direction::FromClient, sessions)
    }

    pub(crate) fn to_client(sessions: u32) -> Self {
        Self::new(Direction::ToClient, sessions)
    }

    fn new(direction: Direction, sessions: u32) -> Self {
        let names = 0..sessions.div_ceil(SESSIONS_PER_NAME);
        let resources: Vec<_> = names.clone().map(resource).collect();
        let mut peer = BenchPeer::new(packets::client_tun(0), &resources);
        for name in names {
            let id = resources[name as usize].id();
            let domain = format!("www.site{name}.example.com").parse();
            let first = name * SESSIONS_PER_NAME;
            let (proxy, real): (IpAddr, IpAddr) = (proxy(first).into(), real(first).into());
            peer.resolve(id, &domain.expect("a name"), &[proxy], &[real]);
        }
        let pick = |turn: u32| turn.wrapping_mul(2_654_435_761) % sessions;
        let make = match direction {
            Direction::FromClient => from_client,
            Direction::ToClient => to_client,
        };
        let (now, mut buffer) = (Instant::now(), vec![0; packets::PACKET]);
        for session in 0..sessions {
            let (up, down) = (from_client(session), to_client(session));
            pass(&mut peer, Direction::FromClient, &up, &mut buffer, now);
            pass(&mut peer, Direction::ToClient, &down, &mut buffer, now);
        }
        Self {
            peer,
            direction,
            templates: (0..TURNS).map(|turn| make(pick(turn))).collect(),
            at: 0,
            buffer,
            now,
        }
    }
}

impl Round for Translate {
    fn prepare(&mut self) {
        self.at = (self.at + 1) % self.templates.len();
    }

    fn work(&mut self) {
        let template = &self.templates[self.at];
        let (peer, buffer) = (&mut self.peer, &mut self.buffer);
        pass(peer, self.direction, template, buffer, self.now);
    }
}

/// A name of its own for every so many sessions.
fn resource(name: u32) -> GatewayResource {
    GatewayResource::Dns(GatewayDnsResource {
        id: ResourceId::from_u128(u128::from(name)),
        address: format!("*.site{name}.example.com"),
        name: "names".to_owned(),
        filters: vec![Filter::Tcp(443..=443)],
    })
}

fn pass(
    peer: &mut BenchPeer,
    direction: Direction,
    template: &IpPacket,
    buffer: &mut [u8],
    now: Instant,
) {
    let len = template.as_slice().len();
    buffer[..len].copy_from_slice(template.as_slice());
    let mut packet = PacketMut::with_layout(&mut buffer[..len], template.layout());
    let passed = match direction {
        Direction::FromClient => peer.from_client(&mut packet, now),
        Direction::ToClient => peer.to_client(&mut packet, now),
    };
    assert!(black_box(passed));
}

fn proxy(session: u32) -> Ipv4Addr {
    (PROXY_START + session / SESSIONS_PER_NAME).into()
}

fn real(session: u32) -> Ipv4Addr {
    (REAL_START + session / SESSIONS_PER_NAME).into()
}

fn port(session: u32) -> u16 {
    10_000 + (session % SESSIONS_PER_NAME) as u16
}

fn from_client(session: u32) -> IpPacket {
    let client = packets::client_tun(0).v4;
    packet((client, port(session)).into(), (proxy(session), 443).into())
}

fn to_client(session: u32) -> IpPacket {
    let client = packets::client_tun(0).v4;
    packet((real(session), 443).into(), (client, port(session)).into())
}

fn packet(source: SocketAddr, destination: SocketAddr) -> IpPacket {
    let header = TcpHeader {
        flags: TcpFlags::ACK,
        ..TcpHeader::default()
    };
    tcp_packet(source, destination, header, &[]).expect("fits a packet")
}
