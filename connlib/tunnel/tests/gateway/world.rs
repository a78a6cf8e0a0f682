//! A gateway, clients, a portal, a resolver and a network in virtual time.
//!
//! Time advances exactly to the next deadline, and the driver checks that the gateway makes progress (tunnel 73).

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use connlib_model::{
    ClientId, DomainName, Filter, GatewayCidrResource, GatewayDnsResource, GatewayId,
    GatewayInternetResource, GatewayResource, RelayId, ResourceId,
};
use connlib_snownet::{Decapsulated, Event, IceCredentials, Node, RelayConfig, Role, Transmit};
use connlib_tunnel::segment::{Coalescer, Coalescing, GsoMeta};
use connlib_tunnel::{
    AssignedIps, AuthorizeFlow, ControlEvent, DomainStatus, Gateway, GatewayEvent, NatStatus,
    ResolveError, ResolveId, TunAddresses, TunPacket, goodbye_packet,
};
use ip_packet::{Ecn, IpPacket, PacketBatch, Single, make};

pub const GATEWAY_V4: Ipv4Addr = Ipv4Addr::new(100, 64, 0, 1);
pub const GATEWAY_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x2021, 0x1111, 0, 0, 0, 0, 1);
/// Wall clock at the start, in seconds since the Unix epoch.
pub const UNIX_START: u64 = 1_700_000_000;

const GATEWAY: GatewayId = GatewayId::from_u128(0x60);
const LATENCY: Duration = Duration::from_millis(10);

pub struct World {
    pub gateway: Gateway,
    pub clients: Vec<Client>,
    pub start: Instant,
    pub now: Instant,
    pub coalescing: Coalescing,
    /// What reached the TUN device: packets and super-packets with what the device is told.
    pub tun: Vec<(GsoMeta, Vec<u8>)>,
    pub lookups: VecDeque<(ResolveId, DomainName)>,
    pub no_relays: usize,
    socket: SocketAddr,
    wire: BTreeMap<(Instant, u64), Wire>,
    sequence: u64,
}

pub struct Client {
    pub id: ClientId,
    pub node: Node<GatewayId, RelayId>,
    socket: SocketAddr,
    v4: Ipv4Addr,
    v6: Ipv6Addr,
    seed: u8,
    /// Everything the gateway sent, control packets aside.
    pub received: Vec<IpPacket>,
    pub statuses: Vec<DomainStatus>,
    pub goodbyes: usize,
    /// Whether datagrams reach this client and come from it.
    pub is_reachable: bool,
}

#[derive(Clone)]
pub struct Wire {
    pub from: SocketAddr,
    pub to: SocketAddr,
    pub payload: Vec<u8>,
    pub ecn: Ecn,
}

impl World {
    /// A gateway with interface and relay, and `clients` clients without access.
    pub fn new(clients: usize) -> Self {
        let now = Instant::now();
        let mut gateway = Gateway::new([9; 32], now, Duration::from_secs(UNIX_START));
        gateway.set_interface(TunAddresses {
            v4: GATEWAY_V4,
            v6: GATEWAY_V6,
        });
        Self {
            gateway,
            clients: (0..clients).map(|index| Client::new(index, now)).collect(),
            start: now,
            now,
            coalescing: Coalescing::OFF,
            tun: vec![],
            lookups: VecDeque::new(),
            no_relays: 0,
            socket: "198.51.100.1:52625".parse().unwrap(),
            wire: BTreeMap::new(),
            sequence: 0,
        }
    }

    /// A gateway and one connected client with access to `resource`.
    pub fn connected(resource: GatewayResource) -> Self {
        let mut world = Self::new(1);
        world.connect(0, resource);
        world
    }

    /// The portal grants access for ever; the connection is awaited.
    pub fn connect(&mut self, client: usize, resource: GatewayResource) {
        self.authorize(client, resource, None);
        self.run_for(Duration::from_secs(3));
        assert!(
            self.gateway.path(self.clients[client].id).is_some(),
            "no path to client {client}"
        );
    }

    /// The portal grants access until the given number of seconds from the start.
    pub fn authorize(
        &mut self,
        client: usize,
        resource: GatewayResource,
        expires_after: Option<u64>,
    ) {
        self.refresh_relays();
        let now = self.now;
        let gateway_key = self.gateway.public_key();
        let host = &mut self.clients[client];
        let key = host.node.public_key();
        let ice = |name: &str| {
            let text = format!("{name}{:02x}{:02x}", gateway_key.0[0], host.seed);
            IceCredentials::new(text, "0123456789012345678901").unwrap()
        };
        let flow = AuthorizeFlow {
            client: host.id,
            client_key: key,
            preshared_key: [3; 32],
            client_ipv4: host.v4,
            client_ipv6: host.v6,
            client_ice: ice("c"),
            gateway_ice: ice("g"),
            resource,
            expires_at: expires_after.map(|seconds| Duration::from_secs(UNIX_START + seconds)),
        };
        host.node
            .upsert_connection(GATEWAY, gateway_key, [3; 32], ice("c"), ice("g"), now)
            .unwrap();
        self.gateway.authorize(flow, now).unwrap();
        self.drain();
    }

    /// The relay never answers and is given up after a while; a portal would list it again.
    pub fn refresh_relays(&mut self) {
        let (none, now) = (BTreeSet::new(), self.now);
        self.gateway.update_relays(&none, &[relay()], now);
        self.gateway.add_host_candidate(self.socket, now);
        for host in &mut self.clients {
            host.node.update_relays(&none, &[relay()], now);
            host.node.add_host_candidate(host.socket, now);
        }
        self.drain();
    }

    /// A client sends a packet to the gateway, which has received it when this returns.
    pub fn up(&mut self, client: usize, packet: &IpPacket) {
        let wire = self.sealed_by_client(client, packet);
        self.put(wire);
        self.settle();
    }

    /// What a client puts on the wire for a packet.
    pub fn sealed_by_client(&mut self, client: usize, packet: &IpPacket) -> Wire {
        let mut wire = self.forged_by_client(client, &mut Single::from(packet));
        wire.ecn = packet.ecn();
        wire
    }

    /// What a client puts on the wire for any bytes.
    pub fn forged_by_client(&mut self, client: usize, batch: &mut impl PacketBatch) -> Wire {
        let mut sink = VecDeque::new();
        let host = &mut self.clients[client];
        host.node
            .encapsulate(GATEWAY, batch, Ecn::NotEct, self.now, &mut sink)
            .unwrap();
        let transmit = sink.pop_back().expect("the connection is established");
        Wire {
            from: host.socket,
            to: transmit.dst,
            payload: transmit.payload,
            ecn: transmit.ecn,
        }
    }

    /// The TUN device delivers a packet; what results has reached the clients when this returns.
    pub fn down(&mut self, packet: &IpPacket) {
        self.down_super(packet.as_slice(), GsoMeta::NONE);
    }

    /// The same with a super-packet.
    pub fn down_super(&mut self, bytes: &[u8], gso: GsoMeta) {
        let mut bytes = bytes.to_vec();
        let mut sink = VecDeque::new();
        let packet = TunPacket {
            buf: &mut bytes,
            gso,
        };
        self.gateway.handle_tun(packet, self.now, &mut sink);
        for transmit in sink {
            self.put_on_wire(self.socket, transmit);
        }
        self.settle();
    }

    /// A client asks for the translation of a domain.
    pub fn assign(&mut self, client: usize, resource: u128, domain: &str, proxies: &[&str]) {
        let request = AssignedIps {
            resource: ResourceId::from_u128(resource),
            domain: domain.parse().unwrap(),
            proxy_ips: proxies.iter().map(|ip| ip.parse().unwrap()).collect(),
        };
        self.up(client, &request.to_packet().unwrap());
    }

    /// The resolver answers the oldest look-up.
    pub fn resolve(&mut self, result: Result<&[&str], ResolveError>) {
        let (id, _) = self.lookups.pop_front().expect("a look-up is in flight");
        let result = result.map(|list| list.iter().map(|ip| ip.parse().unwrap()).collect());
        self.gateway.handle_resolved(id, result, self.now);
        self.settle();
    }

    /// A client says goodbye.
    pub fn say_goodbye(&mut self, client: usize) {
        let now = self.now;
        self.clients[client]
            .node
            .close(GATEWAY, Some(&goodbye_packet()), now);
        self.settle();
    }

    /// Takes what reached the TUN device.
    pub fn at_site(&mut self) -> Vec<IpPacket> {
        let taken = std::mem::take(&mut self.tun);
        taken
            .iter()
            .map(|(_, bytes)| IpPacket::from_slice(bytes).unwrap())
            .collect()
    }

    /// Takes what a client received.
    pub fn at_client(&mut self, client: usize) -> Vec<IpPacket> {
        std::mem::take(&mut self.clients[client].received)
    }

    /// Takes the status of the only answer to a client's only request.
    pub fn status(&mut self, client: usize) -> Option<NatStatus> {
        let mut statuses = std::mem::take(&mut self.clients[client].statuses);
        assert!(statuses.len() <= 1);
        statuses.pop().map(|status| status.status)
    }

    /// Everything that is on its way reaches its end.
    pub fn settle(&mut self) {
        self.run_for(3 * LATENCY);
    }

    pub fn run_for(&mut self, duration: Duration) {
        let end = self.now + duration;
        loop {
            self.drain();
            let Some(next) = self.next_event().filter(|next| *next <= end) else {
                break;
            };
            self.step(next.max(self.now));
        }
        self.now = end;
        self.step(end);
        self.drain();
    }

    /// Hands all that anybody wants to say to whom it concerns.
    pub fn drain(&mut self) {
        while let Some(transmit) = self.gateway.poll_transmit() {
            self.put_on_wire(self.socket, transmit);
        }
        while let Some(event) = self.gateway.poll_event() {
            self.on_gateway_event(event);
        }
        for index in 0..self.clients.len() {
            self.drain_client(index);
        }
    }

    /// The gateway takes one datagram at once.
    pub fn deliver_to_gateway(&mut self, wire: &Wire, coalescer: &mut Coalescer) {
        self.gateway.handle_network(
            wire.to,
            wire.from,
            wire.ecn,
            &wire.payload,
            self.now,
            coalescer,
        );
    }

    fn on_gateway_event(&mut self, event: GatewayEvent) {
        match event {
            GatewayEvent::AddedIceCandidates { client, candidates } => {
                let now = self.now;
                let host = self
                    .clients
                    .iter_mut()
                    .find(|host| host.id == client)
                    .unwrap();
                for candidate in candidates {
                    host.node.add_remote_candidate(GATEWAY, &candidate, now);
                }
            }
            GatewayEvent::RemovedIceCandidates { .. } => {}
            GatewayEvent::ResolveDns { id, domain } => self.lookups.push_back((id, domain)),
            GatewayEvent::NoRelays => self.no_relays += 1,
        }
    }

    fn drain_client(&mut self, index: usize) {
        let (id, socket) = (self.clients[index].id, self.clients[index].socket);
        while let Some(transmit) = self.clients[index].node.poll_transmit() {
            self.put_on_wire(socket, transmit);
        }
        while let Some(event) = self.clients[index].node.poll_event() {
            if let Event::NewIceCandidate { sdp, .. } = event {
                self.gateway.add_ice_candidates(id, [sdp], self.now);
            }
        }
    }

    fn put_on_wire(&mut self, socket: SocketAddr, transmit: Transmit) {
        self.put(Wire {
            from: transmit.src.unwrap_or(socket),
            to: transmit.dst,
            payload: transmit.payload,
            ecn: transmit.ecn,
        });
    }

    fn put(&mut self, wire: Wire) {
        self.sequence += 1;
        self.wire.insert((self.now + LATENCY, self.sequence), wire);
    }

    fn next_event(&mut self) -> Option<Instant> {
        let gateway = self.gateway.poll_timeout();
        let wire = self.wire.keys().next().map(|(at, _)| *at);
        let clients = self
            .clients
            .iter_mut()
            .filter_map(|host| host.node.poll_timeout())
            .map(|(at, _)| at)
            .min();
        [gateway, wire, clients].into_iter().flatten().min()
    }

    fn step(&mut self, now: Instant) {
        self.now = now;
        self.gateway.handle_timeout(now);
        self.drain();
        let next = self.gateway.poll_timeout();
        assert!(next.is_none_or(|next| next > now), "tunnel 73: no progress");
        for host in &mut self.clients {
            host.node.handle_timeout(now);
        }
        while let Some(entry) = self.wire.first_entry() {
            if entry.key().0 > now {
                break;
            }
            let wire = entry.remove();
            self.deliver(&wire);
            self.drain();
        }
    }

    fn deliver(&mut self, wire: &Wire) {
        let is_lost =
            |host: &Client| !host.is_reachable && [wire.to, wire.from].contains(&host.socket);
        if self.clients.iter().any(is_lost) {
            return;
        }
        if wire.to == self.socket {
            let mut coalescer = Coalescer::new(self.coalescing);
            self.deliver_to_gateway(wire, &mut coalescer);
            let packets = coalescer.drain().map(|(gso, bytes)| (gso, bytes.to_vec()));
            self.tun.extend(packets);
        } else if let Some(index) = self.clients.iter().position(|host| host.socket == wire.to) {
            self.deliver_to_client(index, wire);
        }
    }

    fn deliver_to_client(&mut self, index: usize, wire: &Wire) {
        let mut out = [0; 2000];
        let host = &mut self.clients[index];
        let result = host
            .node
            .decapsulate(wire.to, wire.from, &wire.payload, self.now, &mut out);
        let Ok(Decapsulated::Packet { len, .. }) = result else {
            return;
        };
        let packet = IpPacket::from_slice(&out[..len]).unwrap();
        match packet.as_control().map(ControlEvent::decode) {
            None => host.received.push(packet),
            Some(Ok(ControlEvent::DomainStatus(status))) => host.statuses.push(status),
            Some(Ok(ControlEvent::Goodbye)) => {
                host.goodbyes += 1;
                host.node.remove(GATEWAY, self.now);
            }
            Some(other) => panic!("gateways do not send {other:?}"),
        }
    }
}

impl Client {
    fn new(index: usize, now: Instant) -> Self {
        let number = 5 + index as u8;
        Self {
            id: client_id(index),
            node: Node::new(
                Role::Client,
                [number; 32],
                now,
                Duration::from_secs(UNIX_START),
            ),
            socket: SocketAddr::from(([192, 0, 2, number], 52625)),
            v4: Ipv4Addr::new(100, 64, 1, number),
            v6: Ipv6Addr::new(0xfd00, 0x2021, 0x1111, 0, 0, 0, 1, u16::from(number)),
            seed: number,
            received: vec![],
            statuses: vec![],
            goodbyes: 0,
            is_reachable: true,
        }
    }

    /// Our TUN address of the family of `ip`.
    pub fn own(&self, ip: IpAddr) -> IpAddr {
        match ip {
            IpAddr::V4(_) => self.v4.into(),
            IpAddr::V6(_) => self.v6.into(),
        }
    }

    /// A UDP packet of an application of the client, from port 5000.
    pub fn udp_to(&self, destination: &str, payload: &[u8]) -> IpPacket {
        let destination = destination.parse::<SocketAddr>().unwrap();
        let source = SocketAddr::new(self.own(destination.ip()), 5000);
        make::udp_packet(source, destination, payload).unwrap()
    }

    /// A UDP packet from a host to port 5000 of the client.
    pub fn udp_from(&self, source: &str, payload: &[u8]) -> IpPacket {
        let source = source.parse::<SocketAddr>().unwrap();
        let destination = SocketAddr::new(self.own(source.ip()), 5000);
        make::udp_packet(source, destination, payload).unwrap()
    }
}

pub fn client_id(index: usize) -> ClientId {
    ClientId::from_u128(0xC0 + index as u128)
}

/// A relay that never answers: enough to be allowed to connect.
pub fn relay() -> RelayConfig<RelayId> {
    RelayConfig {
        id: RelayId::from_u128(1),
        v4: Some("203.0.113.1:3478".parse().unwrap()),
        v6: None,
        username: "1:a".to_owned(),
        password: "secret".to_owned(),
        realm: "firezone".to_owned(),
    }
}

pub fn cidr(id: u128, address: &str, filters: &[Filter]) -> GatewayResource {
    GatewayResource::Cidr(GatewayCidrResource {
        id: ResourceId::from_u128(id),
        address: address.parse().unwrap(),
        name: format!("network {id}"),
        filters: filters.to_vec(),
    })
}

pub fn dns(id: u128, pattern: &str, filters: &[Filter]) -> GatewayResource {
    GatewayResource::Dns(GatewayDnsResource {
        id: ResourceId::from_u128(id),
        address: pattern.to_owned(),
        name: format!("names {id}"),
        filters: filters.to_vec(),
    })
}

pub fn internet(id: u128) -> GatewayResource {
    GatewayResource::Internet(GatewayInternetResource {
        id: ResourceId::from_u128(id),
        filters: vec![],
    })
}
