//! A client, gateways, a portal and a network in virtual time.
//!
//! Time advances exactly to the next deadline, and the driver checks that the client makes progress (tunnel 73).

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use connlib_dns::RecursiveQuery;
use connlib_model::{
    CidrResource, ClientId, DnsResource, DomainName, Filter, GatewayId, InternetResource, IpStack,
    RelayId, Resource, ResourceId, ResourceStatus, ResourceView, Site, SiteId, TunConfig,
};
use connlib_snownet::{Decapsulated, Event, IceCredentials, Node, RelayConfig, Role, Transmit};
use connlib_tunnel::segment::{Coalescer, Coalescing, GsoMeta};
use connlib_tunnel::{
    AssignedIps, Client, ClientEvent, ControlEvent, DomainStatus, FlowCreated, FlowError,
    InterfaceConfig, NatStatus, TunPacket,
};
use ip_packet::{Ecn, IpPacket, Single, make};

pub const CLIENT_V4: Ipv4Addr = Ipv4Addr::new(100, 64, 0, 1);
pub const CLIENT_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x2021, 0x1111, 0, 0, 0, 0, 1);
pub const UPSTREAM: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(9, 9, 9, 9)), 53);

const CLIENT: ClientId = ClientId::from_u128(0xC);
const LATENCY: Duration = Duration::from_millis(10);
/// Most wake-ups of the client at one instant (tunnel 73).
const MAX_STEPS_AT_ONE_INSTANT: usize = 50;

pub struct World {
    pub client: Client,
    pub gateways: Vec<Gateway>,
    pub start: Instant,
    pub now: Instant,
    client_socket: SocketAddr,
    wire: BTreeMap<(Instant, u64), Wire>,
    sequence: u64,
    /// Gateways that no datagram reaches.
    pub unreachable: BTreeSet<usize>,

    pub intents: Vec<(Duration, ResourceId, Vec<GatewayId>)>,
    pub tun_configs: Vec<TunConfig>,
    pub lists: Vec<Vec<ResourceView>>,
    pub no_relays: usize,
    /// Packets that reached the TUN device, from gateways or locally made.
    pub tun: Vec<IpPacket>,
    pub recursive: VecDeque<RecursiveQuery>,
    steps: (Option<Instant>, usize),
}

pub struct Gateway {
    pub id: GatewayId,
    pub node: Node<ClientId, RelayId>,
    socket: SocketAddr,
    /// Everything the client sent, control packets aside.
    pub received: Vec<IpPacket>,
    pub assigned: Vec<(Duration, AssignedIps)>,
    pub goodbyes: usize,
    /// How requests for translations are answered.
    pub answers: Option<NatStatus>,
    pub key_seed: u8,
}

struct Wire {
    from: SocketAddr,
    to: SocketAddr,
    payload: Vec<u8>,
    ecn: Ecn,
}

impl World {
    /// A client with interface and one relay, and `gateways` gateways that can be reached directly.
    pub fn new(gateways: usize) -> Self {
        let mut world = Self::bare(gateways);
        world.set_interface(&[UPSTREAM], None);
        world.give_relay();

        world
    }

    /// The same without interface and relay.
    pub fn bare(gateways: usize) -> Self {
        let now = Instant::now();
        let client = Client::new([7; 32], now, Duration::from_secs(1_700_000_000));
        let gateways = (0..gateways)
            .map(|index| Gateway::new(index, now))
            .collect();

        Self {
            client,
            gateways,
            start: now,
            now,
            client_socket: "192.0.2.1:52625".parse().unwrap(),
            wire: BTreeMap::new(),
            sequence: 0,
            unreachable: BTreeSet::new(),
            intents: vec![],
            tun_configs: vec![],
            lists: vec![],
            no_relays: 0,
            tun: vec![],
            recursive: VecDeque::new(),
            steps: (None, 0),
        }
    }

    pub fn set_interface(&mut self, upstreams: &[SocketAddr], search_domain: Option<&str>) {
        let interface = InterfaceConfig {
            ipv4: CLIENT_V4,
            ipv6: CLIENT_V6,
            upstream_dns: upstreams.to_vec(),
            search_domain: search_domain.map(|text| text.parse().unwrap()),
        };
        self.client.set_interface(interface, self.now);
        self.drain();
    }

    pub fn give_relay(&mut self) {
        self.client
            .update_relays(&BTreeSet::new(), &[relay()], self.now);
        self.client.add_host_candidate(self.client_socket, self.now);
        self.drain();
    }

    pub fn set_resources(&mut self, resources: &[Resource]) {
        self.client.set_resources(resources.to_vec(), self.now);
        self.drain();
    }

    pub fn add(&mut self, resource: Resource) {
        self.client.add_resource(resource, self.now);
        self.drain();
    }

    pub fn remove(&mut self, id: u128) {
        self.client
            .remove_resource(ResourceId::from_u128(id), self.now);
        self.drain();
    }

    pub fn disable(&mut self, ids: &[u128]) {
        let ids = ids.iter().copied().map(ResourceId::from_u128).collect();
        self.client.set_disabled_resources(ids, self.now);
        self.drain();
    }

    /// The application sends a packet.
    pub fn send(&mut self, packet: &IpPacket) {
        let mut bytes = packet.as_slice().to_vec();
        self.inject(TunPacket {
            buf: &mut bytes,
            gso: GsoMeta::NONE,
        });
    }

    /// The TUN device yields a packet or super-packet.
    pub fn inject(&mut self, packet: TunPacket<'_>) {
        let mut sink = VecDeque::new();
        self.client.handle_tun(packet, self.now, &mut sink);
        for transmit in sink {
            self.put_on_wire(self.client_socket, transmit);
        }
        self.drain();
    }

    /// The portal grants access to `resource` on a gateway, at once.
    pub fn grant(&mut self, resource: u128, gateway: usize) -> Result<(), FlowError> {
        self.refresh_relays();
        let site = SiteId::from_u128(1);
        let flow = self.flow(resource, gateway, site);
        let result = self.client.handle_flow_created(flow.clone(), self.now);
        if result.is_ok() {
            let client_key = self.client.public_key();
            let now = self.now;
            let host = &mut self.gateways[gateway];
            host.node
                .upsert_connection(
                    CLIENT,
                    client_key,
                    flow.preshared_key,
                    flow.gateway_ice,
                    flow.client_ice,
                    now,
                )
                .unwrap();
        }
        self.drain();

        result
    }

    /// The relay never answers and is given up after a while; a portal would list it again.
    fn refresh_relays(&mut self) {
        self.give_relay();
        let now = self.now;
        for host in &mut self.gateways {
            host.node.update_relays(&BTreeSet::new(), &[relay()], now);
            host.node.add_host_candidate(host.socket, now);
        }
    }

    /// The application sends `packet`, the portal grants what it asks for, and the packet's way is awaited.
    pub fn connect(&mut self, resource: u128, gateway: usize, packet: &IpPacket) {
        self.send(packet);
        self.grant(resource, gateway).unwrap();
        self.run_for(Duration::from_secs(3));
        assert_eq!(
            self.status(resource),
            ResourceStatus::Online,
            "no connection to gateway {gateway}"
        );
    }

    /// What the portal says when it grants access.
    pub fn flow(&self, resource: u128, gateway: usize, site: SiteId) -> FlowCreated {
        let key = self.client.public_key();
        let host = &self.gateways[gateway];
        let ice = |name: &str| {
            let text = format!("{name}{:02x}{:02x}", key.0[0], host.key_seed);
            IceCredentials::new(text, "0123456789012345678901").unwrap()
        };

        FlowCreated {
            resource: ResourceId::from_u128(resource),
            gateway: host.id,
            site,
            gateway_key: host.node.public_key(),
            preshared_key: [3; 32],
            client_ice: ice("c"),
            gateway_ice: ice("g"),
            gateway_ipv4: Some(gateway_v4(gateway)),
            gateway_ipv6: Some(gateway_v6(gateway)),
        }
    }

    /// A packet from a gateway to the client.
    pub fn reply(&mut self, gateway: usize, packet: &IpPacket) {
        let now = self.now;
        let mut sink = VecDeque::new();
        let host = &mut self.gateways[gateway];
        host.node
            .encapsulate(
                CLIENT,
                &mut Single::from(packet),
                packet.ecn(),
                now,
                &mut sink,
            )
            .unwrap();
        let socket = host.socket;
        for transmit in sink {
            self.put_on_wire(socket, transmit);
        }
        self.run_for(2 * LATENCY);
    }

    /// Like [`World::reply`], if the gateway still knows the client.
    pub fn reply_if_connected(&mut self, gateway: usize, packet: &IpPacket) {
        if self.gateways[gateway].node.has_connection(CLIENT) {
            self.reply(gateway, packet);
        }
    }

    /// A packet that the client sent and everything that is on its way reach their ends.
    pub fn settle(&mut self) {
        self.run_for(3 * LATENCY);
    }

    pub fn run_for(&mut self, duration: Duration) {
        let end = self.now + duration;
        loop {
            self.drain();
            let next = self.next_event().filter(|next| *next <= end);
            let Some(next) = next else { break };
            self.step(next.max(self.now));
        }
        self.now = end;
        self.client.handle_timeout(end);
        self.drain();
    }

    pub fn elapsed(&self) -> Duration {
        self.now - self.start
    }

    pub fn status(&self, resource: u128) -> ResourceStatus {
        let list = self.lists.last().expect("a list was announced");
        let view = list
            .iter()
            .find(|view| view.id == ResourceId::from_u128(resource));

        view.expect("the resource is listed").status
    }

    pub fn routes(&self) -> Vec<String> {
        let config = self
            .tun_configs
            .last()
            .expect("a configuration was announced");
        let v4 = config.routes_v4.iter().map(ToString::to_string);
        let v6 = config.routes_v6.iter().map(ToString::to_string);

        v4.chain(v6).collect()
    }

    pub fn sentinels(&self) -> Vec<IpAddr> {
        let config = self
            .tun_configs
            .last()
            .expect("a configuration was announced");

        config.dns_sentinels.clone()
    }

    /// The ids of all intents so far.
    pub fn asked(&self) -> Vec<u128> {
        self.intents.iter().map(|(_, id, _)| id.as_u128()).collect()
    }

    /// Takes what gateway `index` received.
    pub fn received(&mut self, index: usize) -> Vec<IpPacket> {
        std::mem::take(&mut self.gateways[index].received)
    }

    /// Hands all that the client wants to say to whom it concerns.
    pub fn drain(&mut self) {
        while let Some(transmit) = self.client.poll_transmit() {
            self.put_on_wire(self.client_socket, transmit);
        }
        while let Some(packet) = self.client.poll_packet() {
            self.tun.push(packet);
        }
        while let Some(query) = self.client.poll_recursive_query() {
            self.recursive.push_back(query);
        }
        while let Some(event) = self.client.poll_event() {
            self.on_client_event(event);
        }
        for index in 0..self.gateways.len() {
            self.drain_gateway(index);
        }
    }

    fn on_client_event(&mut self, event: ClientEvent) {
        match event {
            ClientEvent::TunConfigUpdated(config) => self.tun_configs.push(config),
            ClientEvent::ResourcesChanged(list) => self.lists.push(list),
            ClientEvent::ConnectionIntent {
                resource,
                connected_gateways,
            } => self
                .intents
                .push((self.elapsed(), resource, connected_gateways)),
            ClientEvent::AddedIceCandidates {
                gateway,
                candidates,
            } => {
                let now = self.now;
                let host = self
                    .gateways
                    .iter_mut()
                    .find(|host| host.id == gateway)
                    .unwrap();
                for candidate in candidates {
                    host.node.add_remote_candidate(CLIENT, &candidate, now);
                }
            }
            ClientEvent::RemovedIceCandidates { .. } => {}
            ClientEvent::NoRelays => self.no_relays += 1,
        }
    }

    fn drain_gateway(&mut self, index: usize) {
        let socket = self.gateways[index].socket;
        while let Some(transmit) = self.gateways[index].node.poll_transmit() {
            self.put_on_wire(socket, transmit);
        }
        while let Some(event) = self.gateways[index].node.poll_event() {
            if let Event::NewIceCandidate { sdp, .. } = event {
                let id = self.gateways[index].id;
                self.client.add_ice_candidates(id, vec![sdp], self.now);
            }
        }
    }

    fn put_on_wire(&mut self, socket: SocketAddr, transmit: Transmit) {
        self.sequence += 1;
        let wire = Wire {
            from: transmit.src.unwrap_or(socket),
            to: transmit.dst,
            payload: transmit.payload,
            ecn: transmit.ecn,
        };
        self.wire.insert((self.now + LATENCY, self.sequence), wire);
    }

    fn next_event(&mut self) -> Option<Instant> {
        let client = self.client.poll_timeout();
        let wire = self.wire.keys().next().map(|(at, _)| *at);
        let gateways = self
            .gateways
            .iter_mut()
            .filter_map(|host| host.node.poll_timeout())
            .map(|(at, _)| at)
            .min();

        [client, wire, gateways].into_iter().flatten().min()
    }

    fn step(&mut self, now: Instant) {
        self.now = now;
        self.check_progress();
        self.client.handle_timeout(now);
        for host in &mut self.gateways {
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

    fn check_progress(&mut self) {
        let (at, count) = self.steps;
        self.steps = if at == Some(self.now) {
            (at, count + 1)
        } else {
            (Some(self.now), 0)
        };
        assert!(
            self.steps.1 < MAX_STEPS_AT_ONE_INSTANT,
            "tunnel 73: no progress"
        );
    }

    fn deliver(&mut self, wire: &Wire) {
        let is_lost = self.unreachable.iter().any(|index| {
            let socket = self.gateways[*index].socket;
            wire.to == socket || wire.from == socket
        });
        if is_lost {
            return;
        }
        if wire.to == self.client_socket {
            let mut coalescer = Coalescer::new(Coalescing::OFF);
            self.client.handle_network(
                wire.to,
                wire.from,
                wire.ecn,
                &wire.payload,
                self.now,
                &mut coalescer,
            );
            for (_, bytes) in coalescer.drain() {
                self.tun.push(IpPacket::from_slice(bytes).unwrap());
            }
        } else if let Some(index) = self.gateways.iter().position(|host| host.socket == wire.to) {
            self.deliver_to_gateway(index, wire);
        }
    }

    fn deliver_to_gateway(&mut self, index: usize, wire: &Wire) {
        let mut out = [0; 2000];
        let now = self.now;
        let result =
            self.gateways[index]
                .node
                .decapsulate(wire.to, wire.from, &wire.payload, now, &mut out);
        let Ok(Decapsulated::Packet { len, .. }) = result else {
            return;
        };
        let packet = IpPacket::from_slice(&out[..len]).unwrap();
        match packet.as_control().map(ControlEvent::decode) {
            None => self.gateways[index].received.push(packet),
            Some(Ok(ControlEvent::AssignedIps(event))) => self.on_assigned_ips(index, event),
            Some(Ok(ControlEvent::Goodbye)) => {
                self.gateways[index].goodbyes += 1;
                self.gateways[index].node.remove(CLIENT, now);
            }
            Some(other) => panic!("clients do not send {other:?}"),
        }
    }

    fn on_assigned_ips(&mut self, index: usize, event: AssignedIps) {
        let at = self.elapsed();
        self.gateways[index].assigned.push((at, event.clone()));
        if let Some(status) = self.gateways[index].answers {
            self.say_status(index, event.resource, event.domain, status);
        }
    }

    /// A gateway says what became of a request for a translation.
    pub fn say_status(
        &mut self,
        index: usize,
        resource: ResourceId,
        domain: DomainName,
        status: NatStatus,
    ) {
        let packet = DomainStatus {
            resource,
            domain,
            status,
        }
        .to_packet()
        .unwrap();
        let mut sink = VecDeque::new();
        let now = self.now;
        let host = &mut self.gateways[index];
        host.node
            .encapsulate(
                CLIENT,
                &mut Single::from(&packet),
                Ecn::NotEct,
                now,
                &mut sink,
            )
            .unwrap();
        let socket = host.socket;
        for transmit in sink {
            self.put_on_wire(socket, transmit);
        }
    }

    /// The gateway process restarts: new key, no state.
    pub fn restart_gateway(&mut self, index: usize) {
        let seed = self.gateways[index].key_seed + 100;
        self.gateways[index] = Gateway::seeded(index, seed, self.now);
    }

    /// The client's network changes.
    pub fn roam(&mut self) {
        let port = self.client_socket.port() + 1;
        self.client_socket.set_port(port);
        self.client.reset(self.now);
        self.drain();
        self.give_relay();
    }
}

impl Gateway {
    fn new(index: usize, now: Instant) -> Self {
        Self::seeded(index, 10 + index as u8, now)
    }

    fn seeded(index: usize, seed: u8, now: Instant) -> Self {
        let mut node = Node::new(
            Role::Gateway,
            [seed; 32],
            now,
            Duration::from_secs(1_700_000_000),
        );
        let socket = SocketAddr::from(([198, 51, 100, 1 + index as u8], 52625));
        node.update_relays(&BTreeSet::new(), &[relay()], now);
        node.add_host_candidate(socket, now);

        Self {
            id: gateway_id(index),
            node,
            socket,
            received: vec![],
            assigned: vec![],
            goodbyes: 0,
            answers: Some(NatStatus::Active),
            key_seed: seed,
        }
    }
}

pub fn gateway_id(index: usize) -> GatewayId {
    GatewayId::from_u128(0x60 + index as u128)
}

pub fn gateway_v4(index: usize) -> Ipv4Addr {
    Ipv4Addr::new(100, 64, 1, index as u8)
}

pub fn gateway_v6(index: usize) -> Ipv6Addr {
    Ipv6Addr::new(0xfd00, 0x2021, 0x1111, 0, 0, 0, 1, index as u16)
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

pub fn site(id: u128) -> Site {
    Site {
        id: SiteId::from_u128(id),
        name: format!("site {id}"),
    }
}

pub fn cidr(id: u128, address: &str) -> Resource {
    cidr_with(id, address, vec![])
}

pub fn cidr_with(id: u128, address: &str, filters: Vec<Filter>) -> Resource {
    Resource::Cidr(CidrResource {
        id: ResourceId::from_u128(id),
        address: address.parse().unwrap(),
        name: format!("network {id}"),
        address_description: None,
        sites: vec![site(1)],
        filters,
    })
}

pub fn dns(id: u128, pattern: &str) -> Resource {
    dns_with(id, pattern, vec![], IpStack::Dual)
}

pub fn dns_with(id: u128, pattern: &str, filters: Vec<Filter>, ip_stack: IpStack) -> Resource {
    Resource::Dns(DnsResource {
        id: ResourceId::from_u128(id),
        address: pattern.to_owned(),
        name: format!("names {id}"),
        address_description: None,
        sites: vec![site(1)],
        filters,
        ip_stack,
    })
}

pub fn internet(id: u128) -> Resource {
    Resource::Internet(InternetResource {
        id: ResourceId::from_u128(id),
        name: "Internet Resource".to_owned(),
        sites: vec![site(1)],
    })
}

/// A UDP packet of the application with `payload` to tell it apart.
pub fn udp_to(destination: &str, payload: u32) -> IpPacket {
    let destination = destination.parse::<SocketAddr>().unwrap();
    let source = own(destination.ip());

    make::udp_packet(
        SocketAddr::new(source, 40_000),
        destination,
        &payload.to_be_bytes(),
    )
    .unwrap()
}

/// Our TUN address of the family of `ip`.
pub fn own(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(_) => CLIENT_V4.into(),
        IpAddr::V6(_) => CLIENT_V6.into(),
    }
}

/// The payloads of [`udp_to`] packets.
pub fn payloads(packets: &[IpPacket]) -> Vec<u32> {
    packets
        .iter()
        .map(|packet| u32::from_be_bytes(packet.l4_payload().try_into().unwrap()))
        .collect()
}
