//! The gateway: a client that is authenticated, has access to one thing, and asks for everything else too.

use std::{
    collections::{BTreeSet, VecDeque},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::{Duration, Instant},
};

use connlib_model::{
    ClientId, GatewayDnsResource, GatewayId, GatewayResource, RelayId, ResourceId,
};
use connlib_snownet::{Event, IceCredentials, Node, RelayConfig, Role};
use connlib_tunnel::{
    AssignedIps, AuthorizeFlow, Gateway, GatewayEvent, ResolveId, TunAddresses,
    segment::{Coalescer, Coalescing},
};
use ip_packet::{Ecn, IpPacket, Single, make};

use crate::{MIB, assert_levels_off};

const CLIENT: ClientId = ClientId::from_u128(1);
const GATEWAY: GatewayId = GatewayId::from_u128(2);
const RESOURCE: ResourceId = ResourceId::from_u128(3);
const UNIX: Duration = Duration::from_secs(1_700_000_000);
const CLIENT_V4: Ipv4Addr = Ipv4Addr::new(100, 64, 0, 5);
const CLIENT_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x2021, 0x1111, 0, 0, 0, 0, 5);

/// A gateway, a client's node, and a network without delay between them.
struct World {
    gateway: Gateway,
    node: Node<GatewayId, RelayId>,
    coalescer: Coalescer,
    now: Instant,
    lookups: VecDeque<ResolveId>,
    /// Packets that reached the site.
    arrived: usize,
}

fn gateway_socket() -> SocketAddr {
    SocketAddr::from(([198, 51, 100, 1], 52625))
}

fn client_socket() -> SocketAddr {
    SocketAddr::from(([192, 0, 2, 5], 52625))
}

impl World {
    /// A client that is connected and may reach `**.example.com`.
    fn connected() -> Self {
        let now = Instant::now();
        let mut gateway = Gateway::new([9; 32], now, UNIX);
        gateway.set_interface(TunAddresses {
            v4: Ipv4Addr::new(100, 64, 0, 1),
            v6: Ipv6Addr::new(0xfd00, 0x2021, 0x1111, 0, 0, 0, 0, 1),
        });
        let mut node = Node::new(Role::Client, [5; 32], now, UNIX);
        let none = BTreeSet::new();
        gateway.update_relays(&none, &[relay()], now);
        gateway.add_host_candidate(gateway_socket(), now);
        node.update_relays(&none, &[relay()], now);
        node.add_host_candidate(client_socket(), now);
        let ice = |name| IceCredentials::new(name, "0123456789012345678901").unwrap();
        let flow = AuthorizeFlow {
            client: CLIENT,
            client_key: node.public_key(),
            preshared_key: [3; 32],
            client_ipv4: CLIENT_V4,
            client_ipv6: CLIENT_V6,
            client_ice: ice("c"),
            gateway_ice: ice("g"),
            resource: GatewayResource::Dns(GatewayDnsResource {
                id: RESOURCE,
                address: "**.example.com".to_owned(),
                name: "names".to_owned(),
                filters: vec![],
            }),
            expires_at: None,
        };
        let key = gateway.public_key();
        node.upsert_connection(GATEWAY, key, [3; 32], ice("c"), ice("g"), now)
            .unwrap();
        gateway.authorize(flow, now).unwrap();
        let mut world = Self {
            gateway,
            node,
            coalescer: Coalescer::new(Coalescing::OFF),
            now,
            lookups: VecDeque::new(),
            arrived: 0,
        };
        for _ in 0..50 {
            world.pump();
            world.now += Duration::from_millis(50);
            world.gateway.handle_timeout(world.now);
            world.node.handle_timeout(world.now);
        }
        world.pump();
        assert!(world.gateway.path(CLIENT).is_some());
        world
    }

    fn pump(&mut self) {
        loop {
            let mut is_quiet = true;
            while let Some(transmit) = self.gateway.poll_transmit() {
                is_quiet = false;
                let mut out = [0; 2000];
                if transmit.dst == client_socket() {
                    let (to, from) = (client_socket(), gateway_socket());
                    let bytes = &transmit.payload;
                    let _ = self.node.decapsulate(to, from, bytes, self.now, &mut out);
                }
            }
            while let Some(transmit) = self.node.poll_transmit() {
                is_quiet = false;
                if transmit.dst == gateway_socket() {
                    self.deliver(&transmit.payload);
                }
            }
            while let Some(event) = self.gateway.poll_event() {
                is_quiet = false;
                match event {
                    GatewayEvent::AddedIceCandidates { candidates, .. } => {
                        for sdp in candidates {
                            self.node.add_remote_candidate(GATEWAY, &sdp, self.now);
                        }
                    }
                    GatewayEvent::ResolveDns { id, .. } => self.lookups.push_back(id),
                    GatewayEvent::RemovedIceCandidates { .. } | GatewayEvent::NoRelays => {}
                }
            }
            while let Some(event) = self.node.poll_event() {
                is_quiet = false;
                if let Event::NewIceCandidate { sdp, .. } = event {
                    self.gateway.add_ice_candidates(CLIENT, [sdp], self.now);
                }
            }
            if is_quiet {
                return;
            }
        }
    }

    fn deliver(&mut self, bytes: &[u8]) {
        let (to, from, now) = (gateway_socket(), client_socket(), self.now);
        self.gateway
            .handle_network(to, from, Ecn::NotEct, bytes, now, &mut self.coalescer);
        self.arrived += self.coalescer.drain().count();
    }

    fn send(&mut self, packet: &IpPacket) {
        let mut sink = VecDeque::new();
        let mut batch = Single::from(packet);
        self.node
            .encapsulate(GATEWAY, &mut batch, Ecn::NotEct, self.now, &mut sink)
            .unwrap();
        for transmit in sink {
            self.deliver(&transmit.payload);
        }
        self.pump();
    }

    /// Asks for the translation of the name and proxy addresses of this number.
    fn assign(&mut self, n: u32) {
        let request = AssignedIps {
            resource: RESOURCE,
            domain: format!("{n}.example.com").parse().unwrap(),
            proxy_ips: vec![proxy_v4(n).into(), proxy_v6(n).into()],
        };
        self.send(&request.to_packet().unwrap());
    }

    /// The resolver answers the oldest look-up with host `host` of a network.
    fn resolve(&mut self, host: u8) {
        let Some(id) = self.lookups.pop_front() else {
            return;
        };
        let addresses: Vec<IpAddr> = vec![[10, 0, 0, host].into(), Ipv6Addr::LOCALHOST.into()];
        self.gateway.handle_resolved(id, Ok(addresses), self.now);
        self.pump();
    }
}

fn proxy_v4(n: u32) -> Ipv4Addr {
    Ipv4Addr::from(0x6460_0001 + n)
}

fn proxy_v6(n: u32) -> Ipv6Addr {
    let base = Ipv6Addr::new(0xfd00, 0x2021, 0x1111, 0x8000, 0, 0, 0, 0);
    Ipv6Addr::from(u128::from(base) + u128::from(n))
}

fn relay() -> RelayConfig<RelayId> {
    RelayConfig {
        id: RelayId::from_u128(9),
        v4: "203.0.113.1:3478".parse().ok(),
        v6: None,
        username: "1:a".to_owned(),
        password: "p".to_owned(),
        realm: "firezone".to_owned(),
    }
}

/// A resolver that never answers.
#[test]
fn requests_for_translation_are_bounded() {
    let mut world = World::connected();
    assert_levels_off(2 * MIB, MIB / 4, (2_000, 20_000), |n| {
        world.assign(n);
        world.now += Duration::from_millis(1);
        // What the driver holds is the driver's business; the gateway's own share is measured.
        world.lookups.clear();
    });
}

/// Control packets of any kind and content.
#[test]
fn control_packets_cost_nothing() {
    let mut world = World::connected();
    assert_levels_off(MIB, MIB / 8, (1_000, 20_000), |n| {
        let payload = format!(r#"{{"resource":"{n}","domain":"{n}","status":"Active"}}"#);
        // Not 2: that is a goodbye.
        let kind = [0, 1, 3, 255][n as usize % 4];
        let packet = make::control_packet(kind, payload.as_bytes()).unwrap();
        world.send(&packet);
    });
}

/// One name after another is resolved and translated.
#[test]
fn translations_are_bounded() {
    let mut world = World::connected();
    let mut active = 0;
    assert_levels_off(96 * MIB, MIB, (70_000, 10_000), |n| {
        world.assign(n);
        active += usize::from(!world.lookups.is_empty());
        world.resolve(1);
    });
    assert!(active > 60_000, "{active}");
}

/// One flow after another through the NAT.
#[test]
fn nat_sessions_are_bounded() {
    let mut world = World::connected();
    // Several hosts, since one of them has no more than 65535 ports.
    for n in 0..4 {
        world.assign(n);
        world.resolve(n as u8);
    }
    assert_levels_off(128 * MIB, MIB, (140_000, 20_000), |n| {
        let from = SocketAddr::new(CLIENT_V4.into(), 1 + (n % 60_000) as u16);
        let to = SocketAddr::new(proxy_v4(n / 60_000).into(), 80);
        world.send(&make::udp_packet(from, to, b"x").unwrap());
    });
    assert!(world.arrived > 120_000, "{}", world.arrived);
}
