//! A client and a gateway with an established connection, direct or through a real relay, for what is measured on the
//! packet path, and compared.
//!
//! Everything arrives at once. The two ends are driven by hand, without queues in between, so that nothing but the state
//! machines is measured.

#![allow(dead_code, reason = "each user needs another part of it")]
#![allow(unreachable_pub, reason = "shared by tests")]

use std::collections::{BTreeSet, VecDeque};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4};
use std::time::{Duration, Instant};

use connlib_model::{
    CidrResource, ClientId, GatewayCidrResource, GatewayId, GatewayResource, RelayId, Resource,
    ResourceId, Site, SiteId,
};
use connlib_snownet::{DatagramSink, IceCredentials, RelayConfig};
use connlib_stun::channel::encode_header;
use connlib_stun::relay_password;
use connlib_tunnel::segment::{ChecksumState, Coalescer, Coalescing, GsoKind, GsoMeta};
use connlib_tunnel::{
    AuthorizeFlow, Client, ClientEvent, FlowCreated, Gateway, GatewayEvent, InterfaceConfig,
    TunAddresses, TunPacket,
};
use ip_packet::make::{TcpHeader, tcp_packet};
use ip_packet::{Ecn, TcpFlags};
use relay_core::{AllocationPort, Command, Config, Forwarder, PublicAddresses, Route, Server};

pub const CLIENT_V4: Ipv4Addr = Ipv4Addr::new(100, 64, 0, 5);
pub const CLIENT_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x2021, 0x1111, 0, 0, 0, 0, 5);
/// A host of the network that the client may reach.
pub const HOST_V4: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 7);

const GATEWAY_V4: Ipv4Addr = Ipv4Addr::new(100, 64, 0, 1);
const GATEWAY_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x2021, 0x1111, 0, 0, 0, 0, 1);
const RELAY: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);
const TURN_PORT: u16 = 3478;
const EXPIRY: u64 = 9_999_999_999;
const UNIX_START: Duration = Duration::from_secs(1_700_000_000);

const CLIENT: ClientId = ClientId::from_u128(0xC);
const GATEWAY: GatewayId = GatewayId::from_u128(0x60);
const NETWORK: ResourceId = ResourceId::from_u128(1);

/// Which path the connection takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// Socket to socket.
    Direct,
    /// Through the relay: nothing else gets through.
    Relayed,
}

/// The two ends, connected.
pub struct Pair {
    pub client: Client,
    pub gateway: Gateway,
    pub now: Instant,
    pub client_socket: SocketAddr,
    pub gateway_socket: SocketAddr,
    way: Way,
    relay: Server,
    wire: VecDeque<Wire>,
    tun: Coalescer,
}

struct Wire {
    from: SocketAddr,
    to: SocketAddr,
    payload: Vec<u8>,
}

impl Pair {
    /// Connects both; the client may reach 10.0.0.0/8.
    pub fn connected(way: Way) -> Self {
        let now = Instant::now();
        let mut pair = Self {
            client: Client::new([7; 32], now, UNIX_START),
            gateway: Gateway::new([9; 32], now, UNIX_START),
            now,
            client_socket: "192.0.2.1:52625".parse().unwrap(),
            gateway_socket: "198.51.100.1:52625".parse().unwrap(),
            way,
            relay: relay(now),
            wire: VecDeque::new(),
            tun: Coalescer::new(Coalescing::ON),
        };
        pair.set_up();
        pair.ask();
        pair.grant();
        pair.run_for(Duration::from_secs(5));
        let kind = pair.gateway.path(CLIENT).expect("a path").kind;
        assert_eq!(kind.is_direct(), way == Way::Direct, "{kind:?}");
        pair
    }

    /// Lets time pass, with everything that it brings.
    pub fn run_for(&mut self, duration: Duration) {
        let end = self.now + duration;
        loop {
            self.settle();
            let next = [self.client.poll_timeout(), self.gateway.poll_timeout()];
            let next = next.into_iter().chain([self.relay.poll_timeout()]);
            let Some(next) = next.flatten().min().filter(|next| *next <= end) else {
                break;
            };
            self.now = next.max(self.now);
            self.time_out();
        }
        self.now = end;
        self.time_out();
        self.settle();
    }

    /// Seals what the client's TUN device delivers.
    pub fn client_seals(&mut self, buf: &mut [u8], gso: GsoMeta, sink: &mut impl DatagramSink) {
        let packet = TunPacket { buf, gso };
        self.client.handle_tun(packet, self.now, sink);
    }

    /// Seals what the gateway's TUN device delivers.
    pub fn gateway_seals(&mut self, buf: &mut [u8], gso: GsoMeta, sink: &mut impl DatagramSink) {
        let packet = TunPacket { buf, gso };
        self.gateway.handle_tun(packet, self.now, sink);
    }

    /// Opens what has arrived together at the gateway.
    pub fn gateway_opens(&mut self, train: &Train, out: &mut Coalescer) {
        let (now, to) = (self.now, self.gateway_socket);
        let mut datagrams = train.whole();
        self.gateway
            .handle_train(to, train.from, Ecn::NotEct, &mut datagrams, now, out);
        assert!(datagrams.is_empty(), "there is room for a train");
    }

    /// Opens what has arrived together at the client.
    pub fn client_opens(&mut self, train: &Train, out: &mut Coalescer) {
        let (now, to) = (self.now, self.client_socket);
        let mut datagrams = train.whole();
        self.client
            .handle_train(to, train.from, Ecn::NotEct, &mut datagrams, now, out);
        assert!(datagrams.is_empty(), "there is room for a train");
    }

    /// The same, as if each datagram had arrived by itself.
    pub fn gateway_opens_singly(&mut self, train: &Train, out: &mut Coalescer) {
        let (now, to) = (self.now, self.gateway_socket);
        for datagram in train.datagrams() {
            self.gateway
                .handle_network(to, train.from, Ecn::NotEct, datagram, now, out);
        }
    }

    /// The same, as if each datagram had arrived by itself.
    pub fn client_opens_singly(&mut self, train: &Train, out: &mut Coalescer) {
        let (now, to) = (self.now, self.client_socket);
        for datagram in train.datagrams() {
            self.client
                .handle_network(to, train.from, Ecn::NotEct, datagram, now, out);
        }
    }

    fn set_up(&mut self) {
        let (none, relays) = (BTreeSet::new(), [self.relay_config()]);
        self.client.set_interface(
            InterfaceConfig {
                ipv4: CLIENT_V4,
                ipv6: CLIENT_V6,
                upstream_dns: vec![],
                search_domain: None,
            },
            self.now,
        );
        self.client.set_resources(
            vec![Resource::Cidr(CidrResource {
                id: NETWORK,
                address: "10.0.0.0/8".parse().unwrap(),
                name: "network".to_owned(),
                address_description: None,
                sites: vec![site()],
                filters: vec![],
            })],
            self.now,
        );
        self.gateway.set_interface(TunAddresses {
            v4: GATEWAY_V4,
            v6: GATEWAY_V6,
        });
        if self.way == Way::Direct {
            self.client.add_host_candidate(self.client_socket, self.now);
            self.gateway
                .add_host_candidate(self.gateway_socket, self.now);
        }
        self.client.update_relays(&none, &relays, self.now);
        self.gateway.update_relays(&none, &relays, self.now);
        self.run_for(Duration::from_secs(1));
    }

    /// The application's first packet.
    fn ask(&mut self) {
        let to = SocketAddr::from((HOST_V4, 443));
        let packet = ip_packet::make::udp_packet((CLIENT_V4, 5000).into(), to, b"x").unwrap();
        let mut bytes = packet.as_slice().to_vec();
        let mut sink = Slots::new();
        self.client_seals(&mut bytes, GsoMeta::NONE, &mut sink);
        self.settle();
    }

    /// The portal introduces the two to each other.
    fn grant(&mut self) {
        let ice = |name: &str| IceCredentials::new(name, "0123456789012345678901").unwrap();
        let (client_ice, gateway_ice) = (ice("clnt"), ice("gate"));
        let flow = AuthorizeFlow {
            client: CLIENT,
            client_key: self.client.public_key(),
            preshared_key: [3; 32],
            client_ipv4: CLIENT_V4,
            client_ipv6: CLIENT_V6,
            client_ice: client_ice.clone(),
            gateway_ice: gateway_ice.clone(),
            resource: GatewayResource::Cidr(GatewayCidrResource {
                id: NETWORK,
                address: "10.0.0.0/8".parse().unwrap(),
                name: "network".to_owned(),
                filters: vec![],
            }),
            expires_at: None,
        };
        self.gateway.authorize(flow, self.now).unwrap();
        let created = FlowCreated {
            resource: NETWORK,
            gateway: GATEWAY,
            site: site().id,
            gateway_key: self.gateway.public_key(),
            preshared_key: [3; 32],
            client_ice,
            gateway_ice,
            gateway_ipv4: Some(GATEWAY_V4),
            gateway_ipv6: Some(GATEWAY_V6),
        };
        self.client.handle_flow_created(created, self.now).unwrap();
    }

    fn time_out(&mut self) {
        self.client.handle_timeout(self.now);
        self.gateway.handle_timeout(self.now);
        self.relay.handle_timeout(self.now);
    }

    /// Delivers until nobody has anything to say.
    fn settle(&mut self) {
        loop {
            self.drain();
            let Some(wire) = self.wire.pop_front() else {
                return;
            };
            self.deliver(&wire);
        }
    }

    fn drain(&mut self) {
        while let Some(transmit) = self.client.poll_transmit() {
            self.wire.push_back(Wire {
                from: self.client_socket,
                to: transmit.dst,
                payload: transmit.payload,
            });
        }
        while let Some(transmit) = self.gateway.poll_transmit() {
            self.wire.push_back(Wire {
                from: self.gateway_socket,
                to: transmit.dst,
                payload: transmit.payload,
            });
        }
        while let Some(event) = self.client.poll_event() {
            if let ClientEvent::AddedIceCandidates { candidates, .. } = event {
                self.gateway
                    .add_ice_candidates(CLIENT, candidates, self.now);
            }
        }
        while let Some(event) = self.gateway.poll_event() {
            if let GatewayEvent::AddedIceCandidates { candidates, .. } = event {
                let candidates = candidates.into_iter().collect();
                self.client
                    .add_ice_candidates(GATEWAY, candidates, self.now);
            }
        }
        self.drain_relay();
    }

    fn drain_relay(&mut self) {
        while let Some(command) = self.relay.poll_command() {
            match command {
                Command::Send { to, bytes } => self.wire.push_back(Wire {
                    from: (RELAY, TURN_PORT).into(),
                    to: to.address(),
                    payload: bytes,
                }),
                Command::CreateAllocation { port, family } => {
                    self.relay.handle_port_bound(port, family, self.now);
                }
                Command::FreeAllocation { .. }
                | Command::UserGained { .. }
                | Command::UserLost { .. } => {}
            }
        }
    }

    fn deliver(&mut self, wire: &Wire) {
        let (now, ecn) = (self.now, Ecn::NotEct);
        if wire.to.ip() == RELAY {
            self.deliver_to_relay(wire);
        } else if self.way == Way::Relayed && wire.from.ip() != RELAY {
            // A firewall between the two.
        } else if wire.to == self.client_socket {
            self.client
                .handle_network(wire.to, wire.from, ecn, &wire.payload, now, &mut self.tun);
        } else if wire.to == self.gateway_socket {
            self.gateway
                .handle_network(wire.to, wire.from, ecn, &wire.payload, now, &mut self.tun);
        }
        self.tun.drain().for_each(drop);
    }

    fn deliver_to_relay(&mut self, wire: &Wire) {
        let mut forwarded = Forwarded::default();
        let train = relay_core::Train::single(&wire.payload);
        if wire.to.port() == TURN_PORT {
            self.relay
                .handle_client_input(wire.from, train, self.now, &mut forwarded);
        } else {
            let port = AllocationPort::new(wire.to.port());
            self.relay
                .handle_peer_input(port, wire.from, train, self.now, &mut forwarded);
        }
        self.wire.extend(forwarded.0);
    }

    fn relay_config(&self) -> RelayConfig<RelayId> {
        RelayConfig {
            id: RelayId::from_u128(1),
            v4: Some(SocketAddrV4::new(RELAY, TURN_PORT)),
            v6: None,
            username: format!("{EXPIRY}:salt"),
            password: relay_password(EXPIRY, self.relay.stamp_secret().expose(), "salt"),
            realm: "firezone".to_owned(),
        }
    }

    /// What the other end receives of the datagrams that `from` has sealed.
    pub fn train(&mut self, from: SocketAddr, sealed: &Slots) -> Train {
        let mut train = Train {
            from,
            bytes: Vec::new(),
            ends: Vec::new(),
        };
        for datagram in sealed.datagrams() {
            let mut wire = Wire {
                from,
                to: sealed.to.expect("something was sealed"),
                payload: datagram.to_vec(),
            };
            while wire.to.ip() == RELAY {
                self.deliver_to_relay(&wire);
                wire = self.wire.pop_back().expect("the relay forwards");
            }
            train.from = wire.from;
            train.bytes.extend_from_slice(&wire.payload);
            train.ends.push(train.bytes.len());
        }
        train
    }
}

/// Datagrams on arrival, one behind the other, as in a GRO buffer: all of one length.
pub struct Train {
    pub from: SocketAddr,
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Train {
    pub fn datagrams(&self) -> impl Iterator<Item = &[u8]> {
        pieces(&self.bytes, &self.ends)
    }

    pub fn whole(&self) -> connlib_tunnel::Train<'_> {
        connlib_tunnel::Train::new(&self.bytes, self.ends.first().copied().unwrap_or(1))
    }

    /// The same with each datagram replaced by what `change` makes of it.
    pub fn changed(&self, mut change: impl FnMut(usize, &[u8]) -> Vec<Vec<u8>>) -> Self {
        let mut changed = Self {
            from: self.from,
            bytes: Vec::new(),
            ends: Vec::new(),
        };
        for (index, datagram) in self.datagrams().enumerate() {
            for datagram in change(index, datagram) {
                changed.bytes.extend(datagram);
                changed.ends.push(changed.bytes.len());
            }
        }
        changed
    }
}

fn pieces<'a>(bytes: &'a [u8], ends: &'a [usize]) -> impl Iterator<Item = &'a [u8]> {
    let starts = std::iter::once(0).chain(ends.iter().copied());
    starts.zip(ends).map(|(start, end)| &bytes[start..*end])
}

/// A TCP stream as a TUN device hands it over: super-packets with growing sequence numbers.
pub struct Stream {
    template: Vec<u8>,
    bytes: Vec<u8>,
    gso: GsoMeta,
}

impl Stream {
    pub const HEADER: usize = 40;

    /// From the client to the host behind the gateway, `packets` of `size` bytes at a time.
    pub fn to_host(packets: usize, size: usize) -> Self {
        Self::new(
            (CLIENT_V4, 5000).into(),
            (HOST_V4, 443).into(),
            packets,
            size,
        )
    }

    /// From the host behind the gateway to the client.
    pub fn to_client(packets: usize, size: usize) -> Self {
        Self::new(
            (HOST_V4, 443).into(),
            (CLIENT_V4, 5000).into(),
            packets,
            size,
        )
    }

    fn new(from: SocketAddr, to: SocketAddr, packets: usize, size: usize) -> Self {
        let header = TcpHeader {
            flags: TcpFlags::ACK,
            ..TcpHeader::default()
        };
        let packet = tcp_packet(from, to, header, &[]).unwrap();
        let mut template = packet.as_slice().to_vec();
        template.resize(Self::HEADER + packets * (size - Self::HEADER), 7);
        let length = u16::try_from(template.len()).unwrap();
        template[2..4].copy_from_slice(&length.to_be_bytes());
        Self {
            bytes: template.clone(),
            template,
            gso: GsoMeta {
                kind: GsoKind::Tcp,
                segment_size: (size - Self::HEADER) as u16,
                checksum: ChecksumState::Partial {
                    start: 20,
                    offset: 16,
                },
            },
        }
    }

    /// The next super-packet, in memory that it may be cut apart in.
    pub fn next_super_packet(&mut self) -> (&mut [u8], GsoMeta) {
        let payload = (self.template.len() - Self::HEADER) as u32;
        let sequence = u32::from_be_bytes(self.template[24..28].try_into().unwrap());
        let next = sequence.wrapping_add(payload);
        self.template[24..28].copy_from_slice(&next.to_be_bytes());
        self.bytes.copy_from_slice(&self.template);
        (&mut self.bytes, self.gso)
    }
}

#[derive(Default)]
struct Forwarded(Vec<Wire>);

impl Forwarder for Forwarded {
    fn forward(&mut self, route: Route, payload: &[u8]) {
        self.0.push(match route {
            Route::ToPeer { port, peer } => Wire {
                from: (RELAY, port.get()).into(),
                to: peer.address(),
                payload: payload.to_vec(),
            },
            Route::ToClient { client, number } => Wire {
                from: (RELAY, TURN_PORT).into(),
                to: client.address(),
                payload: [&encode_header(number, payload.len() as u16), payload].concat(),
            },
            Route::ToSibling { .. } => unreachable!("the relay has one worker"),
        });
    }
}

/// A send buffer of fixed size: datagrams one behind the other, as a GSO queue keeps them.
pub struct Slots {
    bytes: Vec<u8>,
    ends: Vec<usize>,
    pub to: Option<SocketAddr>,
}

impl Slots {
    pub fn new() -> Self {
        Self {
            bytes: vec![0; 80_000],
            ends: Vec::with_capacity(64),
            to: None,
        }
    }

    pub fn clear(&mut self) {
        self.ends.clear();
    }

    pub fn len(&self) -> usize {
        self.ends.len()
    }

    pub fn datagrams(&self) -> impl Iterator<Item = &[u8]> {
        pieces(&self.bytes, &self.ends)
    }

    fn end(&self) -> usize {
        self.ends.last().copied().unwrap_or(0)
    }
}

impl DatagramSink for Slots {
    fn reserve(&mut self, _: Option<SocketAddr>, to: SocketAddr, _: Ecn, len: usize) -> &mut [u8] {
        self.to = Some(to);
        let start = self.end();
        &mut self.bytes[start..start + len]
    }

    fn commit(&mut self, len: usize) {
        if len > 0 {
            self.ends.push(self.end() + len);
        }
    }
}

fn site() -> Site {
    Site {
        id: SiteId::from_u128(1),
        name: "site".to_owned(),
    }
}

fn relay(now: Instant) -> Server {
    let public = PublicAddresses::new(Some(RELAY), None).unwrap();
    let config = Config {
        // Both ends share one user.
        allocations_per_username: 0,
        ..Config::portal(public)
    };
    Server::new(config, [5; 32], now, UNIX_START).unwrap()
}
