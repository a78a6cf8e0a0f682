//! The system under test: production cores of clients, gateways, relays and portal on a simulated network, in virtual
//! time. Only network, servers, applications and the operating system around the cores are simulated.

pub(crate) mod apply;
pub(crate) mod apps;
mod client;
mod drain;
mod gateway;
mod portal;
mod portal_config;
mod relay;
mod rogue;
mod socket;
mod step;
mod tun;
mod view;
mod wire;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};

use netsim::{
    EdgeConfig, EdgeId, EdgeKind, HostConfig, HostId, InboundRefresh, LinkConfig, Network,
};
use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha20Rng;
use serde_json::json;

use crate::{
    clock::Clock,
    dns::server::Records,
    topology::{
        Edge, Filtering, HostSpec, Topology,
        addresses::{AddressCursor, Place},
    },
    trace::Trace,
    transition::Component,
};
use client::ClientHost;
use gateway::GatewayHost;
use portal::{Identity, PortalHost};
use relay::RelayHost;
use socket::Attachment;

/// Everything that runs.
pub struct World {
    pub(crate) clock: Clock,
    /// What was seen since it was emptied last.
    pub trace: Trace,
    pub(crate) topology: Topology,
    pub(crate) clients: Vec<ClientHost>,
    pub(crate) gateways: Vec<GatewayHost>,
    pub(crate) relays: Vec<RelayHost>,
    pub(crate) portal: PortalHost,
    pub(crate) net: Network<Vec<u8>>,
    pub(crate) records: Records,
    owners: BTreeMap<HostId, Component>,
    /// Every address that anybody had at any time; others are never sent to.
    known_addresses: BTreeSet<IpAddr>,
    cursor: AddressCursor,
    rng: ChaCha20Rng,
    pub(crate) next_probe: u64,
    pub(crate) next_query: u64,
    /// Owner, source port and destination of each TCP connection.
    pub(crate) connections: Vec<Connection>,
    rogue: Option<rogue::Rogue>,
    /// Iterations at one instant.
    spin: u32,
    pub(crate) direct_blocked: bool,
}

/// A TCP connection of an application.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Connection {
    pub(crate) client: usize,
    pub(crate) source_port: u16,
    /// Messages exchanged so far; numbers the next one.
    pub(crate) exchanged: u64,
}

impl World {
    /// Starts everything and lets time pass until it has settled.
    pub fn new(topology: &Topology) -> Self {
        let clock = Clock::start();
        let mut rng = ChaCha20Rng::seed_from_u64(topology.seed);
        let config = portal_config::initial(topology);
        let mut world = Self {
            portal: PortalHost::new(topology, config, rng.random(), &clock),
            net: Network::new(rng.random()),
            records: Records::new(&topology.names),
            clock,
            trace: Trace::default(),
            topology: topology.clone(),
            clients: Vec::new(),
            gateways: Vec::new(),
            relays: Vec::new(),
            owners: BTreeMap::new(),
            known_addresses: BTreeSet::new(),
            cursor: AddressCursor::default(),
            rng,
            next_probe: 0,
            next_query: 0,
            connections: Vec::new(),
            rogue: None,
            spin: 0,
            direct_blocked: false,
        };
        for index in 0..topology.relays.len() {
            world.add_relay(index);
        }
        world.run_for(Duration::from_millis(1500));
        for index in 0..topology.gateways.len() {
            world.add_gateway(index);
        }
        for index in 0..topology.clients.len() {
            world.add_client(index);
        }
        world.block_direct(topology.block_direct);
        world.run_for(Duration::from_secs(3));
        world
    }

    /// Time since the start of the case.
    pub fn elapsed(&self) -> Duration {
        self.clock.elapsed()
    }

    pub(crate) fn add_relay(&mut self, index: usize) {
        let spec = self.topology.relays[index].clone();
        let place = self.cursor.next_place();
        let mut config = HostConfig::open(format!("relay {index}"));
        config.v4 = spec.families.has_v4().then_some(place.public_v4);
        config.v6 = spec.families.has_v6().then_some(place.v6);
        config.link = self.link(spec.latency_ms);
        self.know(place);
        let host = self.net.add_host(config);
        self.owners.insert(host, Component::Relay(index));
        let seed = self.rng.random();
        let relay = RelayHost::new(host, place, spec.families, seed, &self.clock);
        self.relays.push(relay);
        self.open_relay_channel(index);
    }

    pub(crate) fn open_relay_channel(&mut self, index: usize) {
        let relay = &self.relays[index];
        let mut query = vec![("port", relay::TURN_PORT.to_string())];
        query.extend(relay.v4.map(|ip| ("ipv4", ip.to_string())));
        query.extend(relay.v6.map(|ip| ("ipv6", ip.to_string())));
        let identity = Identity {
            token: portal_config::RELAY_TOKEN.to_owned(),
            external_id: format!("relay {index}"),
            query,
            join_payload: json!({ "stamp_secret": relay.stamp_secret() }),
            user_agent: "relay/1.5.0",
        };
        self.portal
            .open(Component::Relay(index), identity, &self.clock);
    }

    fn add_gateway(&mut self, index: usize) {
        let spec = self.topology.gateways[index].host.clone();
        let attachment = self.attach(&spec, Component::Gateway(index));
        let seed = self.rng.random();
        let gateway = GatewayHost::new(index, &self.topology, attachment, seed, &self.clock);
        let identity = gateway.identity();
        self.gateways.push(gateway);
        self.portal
            .open(Component::Gateway(index), identity, &self.clock);
    }

    fn add_client(&mut self, index: usize) {
        let spec = self.topology.clients[index].clone();
        let attachment = self.attach(&spec.host, Component::Client(index));
        let seed = self.rng.random();
        let mut client = ClientHost::new(index, &spec, attachment, seed, &self.clock);
        client.apply_settings(self.clock.now());
        let identity = client.identity();
        self.clients.push(client);
        self.portal
            .open(Component::Client(index), identity, &self.clock);
        self.drain_client(index);
    }

    /// Puts a new host on the network.
    fn attach(&mut self, spec: &HostSpec, owner: Component) -> Attachment {
        let place = self.cursor.next_place();
        let edge = self.add_edge(spec, place);
        let mut config = HostConfig::open(format!("{owner:?}"));
        config.link = self.link(spec.latency_ms);
        let host = self.net.add_host(config);
        self.owners.insert(host, owner);
        let attachment = Attachment {
            host,
            edge,
            place,
            families: spec.families,
            is_behind_nat: is_nat(spec.edge),
            port: Attachment::first_port(),
        };
        self.move_to(&attachment);
        attachment
    }

    /// Gives a host the addresses of its place.
    pub(crate) fn move_to(&mut self, attachment: &Attachment) {
        self.know(attachment.place);
        let own_v4 = match attachment.is_behind_nat {
            true => attachment.place.private_v4,
            false => attachment.place.public_v4,
        };
        self.net.move_host(
            attachment.host,
            attachment.families.has_v4().then_some(own_v4),
            attachment.families.has_v6().then_some(attachment.place.v6),
            attachment.edge,
        );
    }

    pub(crate) fn add_edge(&mut self, spec: &HostSpec, place: Place) -> Option<EdgeId> {
        let filtering = |filtering| match filtering {
            Filtering::Open => netsim::Filtering::Open,
            Filtering::Address => netsim::Filtering::AddressRestricted,
            Filtering::Port => netsim::Filtering::PortRestricted,
        };
        let kind = match spec.edge {
            Edge::Open => return None,
            Edge::Firewall(rule) => EdgeKind::Firewall(filtering(rule)),
            Edge::Cone(rule) => EdgeKind::Cone(filtering(rule)),
            Edge::Symmetric => EdgeKind::Symmetric,
        };
        Some(self.net.add_edge(EdgeConfig {
            kind,
            public_v4: is_nat(spec.edge).then_some(place.public_v4),
            idle_expiry: Duration::from_secs(spec.expiry_s),
            inbound_refresh: match spec.inbound_refresh {
                true => InboundRefresh::Yes,
                false => InboundRefresh::No,
            },
        }))
    }

    pub(crate) fn block_direct(&mut self, blocked: bool) {
        self.direct_blocked = blocked;
        for client in &self.clients {
            for gateway in &self.gateways {
                let (a, b) = (client.attachment.host, gateway.attachment.host);
                match blocked {
                    true => self.net.block(a, b),
                    false => self.net.unblock(a, b),
                }
            }
        }
    }

    pub(crate) fn draw_seed(&mut self) -> [u8; 32] {
        self.rng.random()
    }

    fn link(&self, latency_ms: u64) -> LinkConfig {
        LinkConfig {
            latency: Duration::from_millis(latency_ms),
            loss: f64::from(self.topology.loss) / 100.0,
            reordered: f64::from(self.topology.reordered) / 100.0,
            duplicated: f64::from(self.topology.duplicated) / 100.0,
            ..LinkConfig::default()
        }
    }

    pub(crate) fn know(&mut self, place: Place) {
        self.known_addresses.extend([
            IpAddr::V4(place.public_v4),
            IpAddr::V4(place.private_v4),
            IpAddr::V6(place.v6),
        ]);
    }
}

/// The number in a packet's payload, if it is a probe or the answer to one.
pub(crate) fn probe_number(packet: &ip_packet::IpPacket) -> Option<u64> {
    apps::probe::number_of(packet.view())
}

/// Whether an edge translates.
pub(crate) fn is_nat(edge: Edge) -> bool {
    matches!(edge, Edge::Cone(_) | Edge::Symmetric)
}
