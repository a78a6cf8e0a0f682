//! Clients, a gateway and a relay as state machines, connected over a network that is a queue in virtual time.
//!
//! Everything here is preparation; nothing of it is counted.

use std::collections::{BTreeMap, BTreeSet};
use std::mem;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};
use std::time::{Duration, Instant};

use connlib_model::{
    CidrResource, ClientId, GatewayCidrResource, GatewayId, GatewayResource, RelayId, Resource,
    ResourceId, Site, SiteId,
};
use connlib_stun::{channel::encode_header, relay_password};
use connlib_tunnel::segment::{Coalescer, Coalescing};
use connlib_tunnel::{
    AuthorizeFlow, Client, ClientEvent, DatagramSink, FlowCreated, Gateway, GatewayEvent,
    IceCredentials, InterfaceConfig, PathKind, RelayConfig, Transmit, TunAddresses, TunPacket,
};
use ip_packet::Ecn;
use relay_core::{
    AllocationPort, Command, Config, Forwarder, PublicAddresses, Route, Server, Train,
};

use crate::packets;

const UNIX: Duration = Duration::from_secs(1_700_000_000);
/// When the relay's credentials end: never.
const EXPIRY: u64 = 9_999_999_999;
const LATENCY: Duration = Duration::from_millis(1);
/// Paths are found and chosen by then, and clients that had to prove their address have tried again.
const SETTLE: Duration = Duration::from_secs(12);
const GATEWAY: GatewayId = GatewayId::from_u128(0x60);
const SITE: SiteId = SiteId::from_u128(1);
/// Where clients and gateway speak to the first relay; the others have the addresses behind it.
const RELAY: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(203, 0, 113, 1), 3478);
/// Allocations that one relay has room for.
const CLIENTS_PER_RELAY: usize = 16_000;
const GATEWAY_SOCKET: SocketAddr =
    SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::new(198, 51, 100, 1), 52625));

/// How clients and gateway reach each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Path {
    /// Datagrams between them arrive.
    Direct,
    /// Through the relay, to which clients speak over channels.
    ClientChannel,
    /// Through the relay, to which the gateway speaks over channels.
    GatewayChannel,
}

impl Path {
    /// Whether the network carries a datagram. Whoever speaks over channels reaches nothing but the relay's own port.
    fn permits(self, from: SocketAddr, to: SocketAddr) -> bool {
        let is_between = |a: fn(SocketAddr) -> bool, b: fn(SocketAddr) -> bool| {
            (a(from) && b(to)) || (a(to) && b(from))
        };
        let is_gateway = |socket| socket == GATEWAY_SOCKET;
        let is_client = |socket| client_of(socket).is_some();
        let is_allocation = |socket: SocketAddr| is_relays(socket) && socket.port() != RELAY.port();
        match self {
            Self::Direct => true,
            Self::ClientChannel => {
                !is_between(is_client, is_gateway) && !is_between(is_client, is_allocation)
            }
            Self::GatewayChannel => {
                !is_between(is_client, is_gateway) && !is_between(is_gateway, is_allocation)
            }
        }
    }
}

fn is_relays(socket: SocketAddr) -> bool {
    relay_at(socket).is_some()
}

/// Which relay's socket it is.
fn relay_at(socket: SocketAddr) -> Option<usize> {
    place_behind(*RELAY.ip(), socket).filter(|index| *index < 128)
}

fn relay_address(index: usize) -> Ipv4Addr {
    address_behind(*RELAY.ip(), index)
}

/// The address so many places behind the first of a kind.
fn address_behind(first: Ipv4Addr, index: usize) -> Ipv4Addr {
    Ipv4Addr::from_bits(first.to_bits() + index as u32)
}

/// How many places a socket's address lies behind the first of a kind.
fn place_behind(first: Ipv4Addr, socket: SocketAddr) -> Option<usize> {
    match socket.ip() {
        IpAddr::V4(ip) => Some(ip.to_bits().checked_sub(first.to_bits())? as usize),
        IpAddr::V6(_) => None,
    }
}

/// The system.
pub(crate) struct World {
    pub(crate) clients: Vec<Client>,
    pub(crate) gateway: Gateway,
    pub(crate) relays: Vec<Server>,
    pub(crate) now: Instant,
    path: Path,
    /// When each client wants to be woken: by client, and in order.
    deadline_of: Vec<Option<Instant>>,
    deadlines: BTreeSet<(Instant, usize)>,
    wire: BTreeMap<(Instant, u64), Datagram>,
    sequence: u64,
    coalescer: Coalescer,
}

/// A datagram on its way.
#[derive(Debug, Clone)]
pub(crate) struct Datagram {
    pub(crate) from: SocketAddr,
    pub(crate) to: SocketAddr,
    pub(crate) bytes: Vec<u8>,
}

impl World {
    /// This many clients, each connected to the gateway. The first one has this many resources, one of which is
    /// where [`packets`] go.
    pub(crate) fn connected(path: Path, clients: usize, resources: usize) -> Self {
        let now = start();
        let relays = (0..clients.div_ceil(CLIENTS_PER_RELAY)).map(|index| {
            let public = PublicAddresses::new(Some(relay_address(index)), None);
            let config = Config {
                // All ends share one user.
                allocations_per_username: 0,
                ..Config::portal(public.expect("an address"))
            };
            Server::new(config, [9; 32], now, UNIX).expect("the settings are sound")
        });
        let mut gateway = Gateway::new([1; 32], now, UNIX);
        gateway.set_interface(packets::gateway_tun());
        let mut world = Self {
            clients: Vec::new(),
            gateway,
            relays: relays.collect(),
            now,
            path,
            deadline_of: Vec::new(),
            deadlines: BTreeSet::new(),
            wire: BTreeMap::new(),
            sequence: 0,
            coalescer: Coalescer::new(Coalescing::OFF),
        };
        let relay = world.relay_config(0);
        world.gateway.update_relays(&BTreeSet::new(), &[relay], now);
        world.gateway.add_host_candidate(GATEWAY_SOCKET, now);
        for index in 0..clients {
            let resources = if index == 0 { resources } else { 1 };
            world.add_client(index, resources);
        }
        world.run_for(Duration::from_millis(100));
        for index in 0..clients {
            world.ask_for_access(index);
            world.introduce(index);
        }
        world.run_for(SETTLE);
        world.check_paths();
        world
    }

    fn add_client(&mut self, index: usize, resources: usize) {
        let now = self.now;
        let mut seed = [2; 32];
        seed[..8].copy_from_slice(&(index as u64).to_le_bytes());
        let mut client = Client::new(seed, now, UNIX);
        let TunAddresses { v4, v6 } = packets::client_tun(index);
        let interface = InterfaceConfig {
            ipv4: v4,
            ipv6: v6,
            upstream_dns: Vec::new(),
            search_domain: None,
        };
        client.set_interface(interface, now);
        client.set_resources((0..resources).map(resource).collect(), now);
        client.update_relays(
            &BTreeSet::new(),
            &[self.relay_config(index / CLIENTS_PER_RELAY)],
            now,
        );
        client.add_host_candidate(client_socket(index), now);
        self.clients.push(client);
        self.deadline_of.push(None);
        self.settle(Some(index));
    }

    /// The first packet of a client does.
    fn ask_for_access(&mut self, index: usize) {
        let mut packet = packets::up(index, 1, 0);
        let packet = TunPacket {
            buf: &mut packet.bytes,
            gso: packet.gso,
        };
        self.clients[index].handle_tun(packet, self.now, &mut Sent::default());
        self.settle(Some(index));
    }

    fn check_paths(&self) {
        for client in &self.clients {
            let found = client.gateways().find_map(|view| view.path);
            let found = found.expect("a path is found");
            let expected = match self.path {
                Path::Direct => PathKind::PeerToPeer,
                Path::ClientChannel => PathKind::RelayToPeer,
                Path::GatewayChannel => PathKind::PeerToRelay,
            };
            assert_eq!(found.kind, expected);
        }
    }

    /// What the portal does when a client asks for access.
    fn introduce(&mut self, index: usize) {
        let ice = |name: &str| {
            IceCredentials::new(format!("{name}{index:06x}"), "0123456789012345678901")
                .expect("valid credentials")
        };
        let TunAddresses { v4, v6 } = packets::client_tun(index);
        let gateway_tun = packets::gateway_tun();
        let flow = AuthorizeFlow {
            client: client_id(index),
            client_key: self.clients[index].public_key(),
            preshared_key: [3; 32],
            client_ipv4: v4,
            client_ipv6: v6,
            client_ice: ice("c"),
            gateway_ice: ice("g"),
            resource: gateway_resource(),
            expires_at: None,
        };
        self.gateway
            .authorize(flow, self.now)
            .expect("a relay is known");
        let flow = FlowCreated {
            resource: ResourceId::from_u128(0),
            gateway: GATEWAY,
            site: SITE,
            gateway_key: self.gateway.public_key(),
            preshared_key: [3; 32],
            client_ice: ice("c"),
            gateway_ice: ice("g"),
            gateway_ipv4: Some(gateway_tun.v4),
            gateway_ipv6: Some(gateway_tun.v6),
        };
        self.clients[index]
            .handle_flow_created(flow, self.now)
            .expect("access was asked for");
        self.settle(Some(index));
    }

    fn relay_config(&self, index: usize) -> RelayConfig<RelayId> {
        let secret = self.relays[index].stamp_secret();
        RelayConfig {
            id: RelayId::from_u128(1 + index as u128),
            v4: Some(SocketAddrV4::new(relay_address(index), RELAY.port())),
            v6: None,
            username: format!("{EXPIRY}:salt"),
            password: relay_password(EXPIRY, secret.expose(), "salt"),
            realm: "firezone".to_owned(),
        }
    }

    /// Lets time pass, exactly from deadline to deadline.
    fn run_for(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            let wire = self.wire.first_key_value().map(|((at, _), _)| *at);
            let client = self.deadlines.first().map(|(at, _)| *at);
            let next = wire
                .into_iter()
                .chain(client)
                .chain(self.gateway.poll_timeout())
                .chain(self.relays.iter().filter_map(Server::poll_timeout))
                .min();
            let Some(next) = next.filter(|next| *next <= end) else {
                break;
            };
            self.now = next.max(self.now);
            let due = self.deadlines.range(..=(self.now, usize::MAX));
            for (_, index) in due.copied().collect::<Vec<_>>() {
                self.clients[index].handle_timeout(self.now);
                self.settle(Some(index));
            }
            self.gateway.handle_timeout(self.now);
            for relay in &mut self.relays {
                relay.handle_timeout(self.now);
            }
            self.settle(None);
            while let Some(entry) = self.wire.first_entry()
                && entry.key().0 <= self.now
            {
                let datagram = entry.remove();
                self.deliver(&datagram);
            }
        }
        self.now = end;
    }

    /// Carries out what the gateway and this client, which were given something, want done.
    fn settle(&mut self, client: Option<usize>) {
        if let Some(index) = client {
            self.drain_client(index);
        }
        while let Some(event) = self.gateway.poll_event() {
            if let GatewayEvent::AddedIceCandidates { client, candidates } = event {
                let index = client.as_u128() as usize;
                let candidates = candidates.into_iter().collect();
                self.clients[index].add_ice_candidates(GATEWAY, candidates, self.now);
                self.drain_client(index);
            }
        }
        while let Some(transmit) = self.gateway.poll_transmit() {
            self.put_on_wire(GATEWAY_SOCKET, transmit);
        }
    }

    fn drain_client(&mut self, index: usize) {
        let client = &mut self.clients[index];
        while client.poll_packet().is_some() {}
        while let Some(event) = client.poll_event() {
            if let ClientEvent::AddedIceCandidates { candidates, .. } = event {
                self.gateway
                    .add_ice_candidates(client_id(index), candidates, self.now);
            }
        }
        while let Some(transmit) = self.clients[index].poll_transmit() {
            self.put_on_wire(client_socket(index), transmit);
        }
        let deadline = self.clients[index].poll_timeout();
        let former = mem::replace(&mut self.deadline_of[index], deadline);
        self.deadlines
            .extend(deadline.map(|deadline| (deadline, index)));
        if let Some(former) = former.filter(|former| Some(*former) != deadline) {
            self.deadlines.remove(&(former, index));
        }
    }

    fn put_on_wire(&mut self, own: SocketAddr, transmit: Transmit) {
        let datagram = Datagram {
            from: transmit.src.unwrap_or(own),
            to: transmit.dst,
            bytes: transmit.payload,
        };
        self.send(datagram);
    }

    fn send(&mut self, datagram: Datagram) {
        if !self.path.permits(datagram.from, datagram.to) {
            return;
        }
        self.sequence += 1;
        self.wire
            .insert((self.now + LATENCY, self.sequence), datagram);
    }

    /// Hands a datagram to whom it is addressed.
    fn deliver(&mut self, datagram: &Datagram) {
        let Datagram { from, to, bytes } = datagram;
        if is_relays(*to) {
            for datagram in self.relay(datagram) {
                self.send(datagram);
            }
        } else if *to == GATEWAY_SOCKET {
            self.gateway.handle_network(
                *to,
                *from,
                Ecn::NotEct,
                bytes,
                self.now,
                &mut self.coalescer,
            );
        } else if let Some(index) = client_of(*to) {
            self.clients[index].handle_network(
                *to,
                *from,
                Ecn::NotEct,
                bytes,
                self.now,
                &mut self.coalescer,
            );
        }
        self.coalescer.drain().for_each(drop);
        self.settle(client_of(*to));
    }

    /// What the relay makes of a datagram.
    pub(crate) fn relay(&mut self, datagram: &Datagram) -> Vec<Datagram> {
        let index = relay_at(datagram.to).expect("it is addressed to a relay");
        let (relay, own) = (&mut self.relays[index], relay_address(index));
        let mut forwarded = Forwarded {
            own,
            datagrams: Vec::new(),
        };
        let train = Train::single(&datagram.bytes);
        if datagram.to.port() == RELAY.port() {
            relay.handle_client_input(datagram.from, train, self.now, &mut forwarded);
        } else {
            let port = AllocationPort::new(datagram.to.port());
            relay.handle_peer_input(port, datagram.from, train, self.now, &mut forwarded);
        }
        while let Some(command) = relay.poll_command() {
            match command {
                Command::Send { to, bytes } => forwarded.datagrams.push(Datagram {
                    from: (own, RELAY.port()).into(),
                    to: to.address(),
                    bytes,
                }),
                Command::CreateAllocation { port, family } => {
                    relay.handle_port_bound(port, family, self.now);
                }
                // There is one worker.
                Command::FreeAllocation { .. }
                | Command::UserGained { .. }
                | Command::UserLost { .. } => {}
            }
        }
        forwarded.datagrams
    }
}

/// What the relay passes on.
struct Forwarded {
    own: Ipv4Addr,
    datagrams: Vec<Datagram>,
}

impl Forwarder for Forwarded {
    fn forward(&mut self, route: Route, payload: &[u8]) {
        self.datagrams.push(match route {
            Route::ToPeer { port, peer } => Datagram {
                from: (self.own, port.get()).into(),
                to: peer.address(),
                bytes: payload.to_vec(),
            },
            Route::ToClient { client, number } => Datagram {
                from: (self.own, RELAY.port()).into(),
                to: client.address(),
                bytes: [&encode_header(number, payload.len() as u16)[..], payload].concat(),
            },
            // There is one worker.
            Route::ToSibling { .. } => return,
        });
    }
}

/// Sealed datagrams, kept.
#[derive(Default)]
pub(crate) struct Sent(pub(crate) Vec<Transmit>);

impl DatagramSink for Sent {
    fn reserve(
        &mut self,
        src: Option<SocketAddr>,
        dst: SocketAddr,
        ecn: Ecn,
        len: usize,
    ) -> &mut [u8] {
        self.0.push(Transmit {
            src,
            dst,
            payload: vec![0; len],
            ecn,
        });
        let last = self.0.last_mut().expect("just pushed");
        &mut last.payload
    }

    fn commit(&mut self, len: usize) {
        match len {
            0 => drop(self.0.pop()),
            len => {
                if let Some(last) = self.0.last_mut() {
                    last.payload.truncate(len);
                }
            }
        }
    }
}

impl Sent {
    /// As they appear on the wire when `own` sends them.
    pub(crate) fn datagrams(self, own: SocketAddr) -> Vec<Datagram> {
        let sent = self.0.into_iter();
        sent.map(|transmit| Datagram {
            from: transmit.src.unwrap_or(own),
            to: transmit.dst,
            bytes: transmit.payload,
        })
        .collect()
    }
}

/// The gateway's socket.
pub(crate) fn gateway_socket() -> SocketAddr {
    GATEWAY_SOCKET
}

/// The first client's address; the others follow.
const FIRST_CLIENT: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);

/// A client's socket.
pub(crate) fn client_socket(index: usize) -> SocketAddr {
    (address_behind(FIRST_CLIENT, index), 52625).into()
}

/// Whose socket it is, if it is a client's.
fn client_of(socket: SocketAddr) -> Option<usize> {
    let is_client = socket != GATEWAY_SOCKET && !is_relays(socket);
    place_behind(FIRST_CLIENT, socket).filter(|_| is_client)
}

fn client_id(index: usize) -> ClientId {
    ClientId::from_u128(index as u128)
}

fn resource(index: usize) -> Resource {
    // Number 0 is the one that packets go to; the others are its neighbours, of several sizes.
    let address = match index {
        0 => packets::NETWORK.to_owned(),
        index => format!(
            "{}/{}",
            Ipv4Addr::from(0x0b00_0000 + ((index as u32) << 8)),
            [24, 28, 32][index % 3]
        ),
    };
    Resource::Cidr(CidrResource {
        id: ResourceId::from_u128(index as u128),
        address: address.parse().expect("a network"),
        name: format!("network {index}"),
        address_description: None,
        sites: vec![Site {
            id: SITE,
            name: "Office".to_owned(),
        }],
        filters: Vec::new(),
    })
}

fn gateway_resource() -> GatewayResource {
    GatewayResource::Cidr(GatewayCidrResource {
        id: ResourceId::from_u128(0),
        address: packets::NETWORK.parse().expect("a network"),
        name: "network 0".to_owned(),
        filters: Vec::new(),
    })
}

/// Virtual time begins anywhere.
fn start() -> Instant {
    Instant::now()
}
