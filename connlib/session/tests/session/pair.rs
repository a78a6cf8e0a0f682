//! Client and gateway introduced to each other by a scripted portal, over a network without NAT.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use connlib_messages::{Dialect, Key, Message, client, gateway};
use connlib_session::{ClientSession, GatewaySession, PortalInput, PortalOutput};
use connlib_tunnel::TunPacket;
use connlib_tunnel::segment::{Coalescer, Coalescing, GsoMeta};
use ip_packet::{Ecn, IpPacket, make};
use serde_json::{Value, json};

use crate::fixtures::{
    CLIENT, CLIENT_V4, GATEWAY, HOST, NETWORK, RELAY, SITE, authorize_flow, client_init,
    flow_created, gateway_init, message, network, packet, relay,
};

const LATENCY: Duration = Duration::from_millis(10);

struct World {
    client: ClientSession,
    gateway: GatewaySession,
    client_socket: SocketAddr,
    gateway_socket: SocketAddr,
    now: Instant,
    wire: BTreeMap<(Instant, u64), (SocketAddr, SocketAddr, Vec<u8>)>,
    sequence: u64,
    /// Every datagram ever sent: sender, bytes.
    sent: Vec<(SocketAddr, Vec<u8>)>,
    filters: Value,
    /// Seconds of the Unix epoch at which the portal lets access end.
    expires_at: Value,
    to_client: Vec<IpPacket>,
    to_resource: Vec<IpPacket>,
    flows: usize,
}

impl World {
    fn new() -> Self {
        let now = Instant::now();
        let unix = Duration::from_secs(1_700_000_000);
        let mut world = Self {
            client: ClientSession::new([1; 32], now, unix),
            gateway: GatewaySession::new([2; 32], now, unix),
            client_socket: "192.0.2.1:52625".parse().unwrap(),
            gateway_socket: "198.51.100.1:52625".parse().unwrap(),
            now,
            wire: BTreeMap::new(),
            sequence: 0,
            sent: vec![],
            filters: json!([]),
            expires_at: Value::Null,
            to_client: vec![],
            to_resource: vec![],
            flows: 0,
        };
        world.connect_client();
        world.gateway.handle_portal(PortalInput::Connected, now);
        world.tell_gateway("init", gateway_init(&[relay(RELAY)]));
        world
            .gateway
            .tunnel_mut()
            .add_host_candidate(world.gateway_socket, now);

        world
    }

    fn connect_client(&mut self) {
        self.client.handle_portal(PortalInput::Connected, self.now);
        self.tell_client(
            "init",
            client_init(&[network("10.40.0.0/16")], &[relay(RELAY)]),
        );
        self.client
            .tunnel_mut()
            .add_host_candidate(self.client_socket, self.now);
        self.drain();
    }

    fn tell_client(&mut self, event: &str, payload: Value) {
        let message = message::<client::FromPortal>(event, payload);
        self.client
            .handle_portal(PortalInput::Message(message), self.now);
    }

    fn tell_gateway(&mut self, event: &str, payload: Value) {
        let message = message::<gateway::FromPortal>(event, payload);
        self.gateway
            .handle_portal(PortalInput::Message(message), self.now);
    }

    fn on_client_message(&mut self, sent: &client::ToPortal) {
        match sent {
            client::ToPortal::CreateFlow(_) => {
                self.flows += 1;
                let key = Key(self.client.public_key().0).to_string();
                let mut authorization = authorize_flow("r", &key, &self.filters);
                authorization["expires_at"] = self.expires_at.clone();
                self.tell_gateway("authorize_flow", authorization);
            }
            client::ToPortal::BroadcastIceCandidates(m) => {
                self.tell_gateway(
                    "ice_candidates",
                    json!({"client_id": CLIENT, "candidates": m.candidates}),
                );
            }
            // The relay never answers and is given up now and then.
            client::ToPortal::NoRelays => self.tell_client("relays_presence", relay_is_there()),
            other => panic!("unexpected {}", other.event(Dialect::Unversioned)),
        }
    }

    fn on_gateway_message(&mut self, sent: &gateway::ToPortal) {
        match sent {
            gateway::ToPortal::FlowAuthorized(_) => {
                let key = Key(self.gateway.public_key().0).to_string();
                self.tell_client("flow_created", flow_created(&key));
            }
            gateway::ToPortal::BroadcastIceCandidates(m) => {
                self.tell_client(
                    "ice_candidates",
                    json!({"gateway_id": GATEWAY, "candidates": m.candidates}),
                );
            }
            gateway::ToPortal::NoRelays => self.tell_gateway("relays_presence", relay_is_there()),
            other => panic!("unexpected {}", other.event(Dialect::Unversioned)),
        }
    }

    fn drain(&mut self) {
        loop {
            let mut is_idle = true;
            while let Some(transmit) = self.client.tunnel_mut().poll_transmit() {
                self.put_on_wire(
                    self.client_socket,
                    transmit.src,
                    transmit.dst,
                    transmit.payload,
                );
            }
            while let Some(transmit) = self.gateway.tunnel_mut().poll_transmit() {
                self.put_on_wire(
                    self.gateway_socket,
                    transmit.src,
                    transmit.dst,
                    transmit.payload,
                );
            }
            while let Some(output) = self.client.poll_portal(self.now) {
                is_idle = false;
                if let PortalOutput::Send(message) = output {
                    self.on_client_message(&message);
                }
            }
            while let Some(output) = self.gateway.poll_portal(self.now) {
                is_idle = false;
                if let PortalOutput::Send(message) = output {
                    self.on_gateway_message(&message);
                }
            }
            while self.client.poll_event().is_some() {}
            while self.gateway.poll_event().is_some() {}
            while self.client.tunnel_mut().poll_packet().is_some() {}
            if is_idle {
                return;
            }
        }
    }

    fn put_on_wire(
        &mut self,
        own: SocketAddr,
        src: Option<SocketAddr>,
        dst: SocketAddr,
        payload: Vec<u8>,
    ) {
        self.sequence += 1;
        let key = (self.now + LATENCY, self.sequence);
        self.sent.push((own, payload.clone()));
        self.wire.insert(key, (src.unwrap_or(own), dst, payload));
    }

    fn send_from_application(&mut self, packet: &IpPacket) {
        let mut bytes = packet.as_slice().to_vec();
        let mut sink = VecDeque::new();
        let packet = TunPacket {
            buf: &mut bytes,
            gso: GsoMeta::NONE,
        };
        self.client
            .tunnel_mut()
            .handle_tun(packet, self.now, &mut sink);
        for t in sink {
            self.put_on_wire(self.client_socket, t.src, t.dst, t.payload);
        }
        self.drain();
    }

    fn send_from_resource(&mut self, packet: &IpPacket) {
        let mut bytes = packet.as_slice().to_vec();
        let mut sink = VecDeque::new();
        let packet = TunPacket {
            buf: &mut bytes,
            gso: GsoMeta::NONE,
        };
        self.gateway
            .tunnel_mut()
            .handle_tun(packet, self.now, &mut sink);
        for t in sink {
            self.put_on_wire(self.gateway_socket, t.src, t.dst, t.payload);
        }
        self.drain();
    }

    fn run_for(&mut self, duration: Duration) {
        let end = self.now + duration;
        loop {
            self.drain();
            let wire = self.wire.keys().next().map(|(at, _)| *at);
            let next = [
                wire,
                self.client.poll_timeout(),
                self.gateway.poll_timeout(),
            ];
            let Some(next) = next.into_iter().flatten().min().filter(|next| *next <= end) else {
                break;
            };
            self.now = next.max(self.now);
            self.client.handle_timeout(self.now);
            self.gateway.handle_timeout(self.now);
            while let Some(entry) = self
                .wire
                .first_entry()
                .filter(|entry| entry.key().0 <= self.now)
            {
                let (from, to, payload) = entry.remove();
                self.deliver(from, to, &payload);
                self.drain();
            }
        }
        self.now = end;
    }

    /// A world in which [`packet`] 1 has got through.
    fn connected() -> Self {
        let mut world = Self::new();
        world.send_from_application(&packet(1));
        world.run_for(Duration::from_secs(2));
        assert_eq!(world.to_resource, [packet(1)]);
        world
    }

    /// Sends an application's packet and waits; whether it reached the resource.
    fn gets_through(&mut self, packet: &IpPacket) -> bool {
        self.to_resource.clear();
        self.send_from_application(packet);
        self.run_for(Duration::from_secs(2));
        self.to_resource == [packet.clone()]
    }

    fn deliver(&mut self, from: SocketAddr, to: SocketAddr, payload: &[u8]) {
        let mut out = Coalescer::new(Coalescing::OFF);
        if to == self.client_socket {
            let tunnel = self.client.tunnel_mut();
            tunnel.handle_network(to, from, Ecn::NotEct, payload, self.now, &mut out);
            let packets = out
                .drain()
                .map(|(_, bytes)| IpPacket::from_slice(bytes).unwrap());
            self.to_client.extend(packets);
        } else if to == self.gateway_socket {
            let tunnel = self.gateway.tunnel_mut();
            tunnel.handle_network(to, from, Ecn::NotEct, payload, self.now, &mut out);
            let packets = out
                .drain()
                .map(|(_, bytes)| IpPacket::from_slice(bytes).unwrap());
            self.to_resource.extend(packets);
        }
    }
}

fn relay_is_there() -> Value {
    json!({"disconnected_ids": [], "connected": [relay(RELAY)]})
}

#[test]
fn packets_travel_both_ways() {
    let mut world = World::new();
    world.send_from_application(&packet(1));
    world.run_for(Duration::from_secs(2));
    assert_eq!(world.to_resource, [packet(1)]);

    let reply =
        make::udp_packet(HOST.parse().unwrap(), (CLIENT_V4, 40_000).into(), b"reply").unwrap();
    world.send_from_resource(&reply);
    world.run_for(Duration::from_secs(1));
    assert_eq!(world.to_client, [reply]);
    assert_eq!(world.flows, 1);
}

#[test]
fn roaming_client_is_back_after_one_request() {
    let mut world = World::new();
    world.send_from_application(&packet(1));
    world.run_for(Duration::from_secs(2));
    world.client_socket = "192.0.2.2:40000".parse().unwrap();
    world.client.reset(world.now);
    world.connect_client();
    world.send_from_application(&packet(2));
    world.run_for(Duration::from_secs(2));
    assert_eq!(world.to_resource, [packet(1), packet(2)]);
    assert_eq!(world.flows, 2);
}

// portal 77
#[test]
fn portal_77_rejected_access_is_requested_again() {
    let mut world = World::new();
    world.send_from_application(&packet(1));
    world.run_for(Duration::from_secs(2));
    world.tell_gateway(
        "reject_access",
        json!({"client_id": CLIENT, "resource_id": NETWORK}),
    );
    world.run_for(Duration::from_secs(1));
    world.send_from_application(&packet(2));
    world.run_for(Duration::from_secs(2));
    assert_eq!(world.to_resource, [packet(1), packet(2)]);
    assert_eq!(world.flows, 2);
}

// portal 65, 82: whose user name comes first in a check, and who is controlling.
#[test]
fn each_end_takes_its_own_credentials_and_the_client_is_controlling() {
    const USERNAME: u16 = 0x0006;
    const CONTROLLED: u16 = 0x8029;
    const CONTROLLING: u16 = 0x802a;
    let world = World::connected();
    let checks_of = |socket: SocketAddr| {
        let sent = world.sent.iter().filter(move |(from, _)| *from == socket);
        let checks = sent.filter_map(|(_, bytes)| Some((attribute(bytes, USERNAME)?, bytes)));
        checks
            .filter(|(name, _)| name.contains(&b':'))
            .collect::<Vec<_>>()
    };

    for (socket, username, role, other) in [
        (world.client_socket, b"mmal:vg4n", CONTROLLING, CONTROLLED),
        (world.gateway_socket, b"vg4n:mmal", CONTROLLED, CONTROLLING),
    ] {
        // Relays are asked with user names too, but with a number in front.
        let checks = checks_of(socket);
        let checks: Vec<_> = checks
            .iter()
            .filter(|(name, _)| !name[0].is_ascii_digit())
            .collect();
        assert!(!checks.is_empty());
        for (name, bytes) in checks {
            assert_eq!(name, username);
            assert!(attribute(bytes, role).is_some() && attribute(bytes, other).is_none());
        }
    }
}

/// The value of an attribute of a STUN Binding request (RFC 8489 §14).
fn attribute(bytes: &[u8], wanted: u16) -> Option<Vec<u8>> {
    let mut rest = bytes.strip_prefix(&[0, 1])?.get(18..)?;
    while let [t1, t2, l1, l2, value @ ..] = rest {
        let len = usize::from(u16::from_be_bytes([*l1, *l2]));
        if u16::from_be_bytes([*t1, *t2]) == wanted {
            return value.get(..len).map(<[u8]>::to_vec);
        }
        rest = value.get(len.next_multiple_of(4)..)?;
    }
    None
}

#[test]
fn portal_61_another_address_under_the_same_id_asks_for_access_anew() {
    let mut world = World::connected();
    let message = message("resource_created_or_updated", network("10.50.0.0/16"));
    world
        .client
        .handle_portal(PortalInput::Message(message), world.now);
    world.run_for(Duration::from_secs(1));

    assert_eq!(
        world.client.tunnel().gateways().count(),
        0,
        "the old connection is gone"
    );
    assert!(
        !world.gets_through(&packet(2)),
        "the old address leads nowhere"
    );
    assert_eq!(world.flows, 1);
    let to_new =
        make::udp_packet((CLIENT_V4, 1).into(), ([10, 50, 0, 1], 80).into(), b"new").unwrap();
    world.send_from_application(&to_new);
    assert_eq!(world.flows, 2);
}

#[test]
fn portal_74_access_ends_by_the_gateways_clock() {
    let mut world = World::new();
    world.expires_at = json!(1_700_000_060);
    assert!(world.gets_through(&packet(1)));
    world.run_for(Duration::from_secs(55));
    assert!(world.gets_through(&packet(2)));
    world.run_for(Duration::from_secs(3));
    assert_eq!(world.flows, 1);

    // Nobody says a word about it; the next packet needs new access, this time without an end.
    world.expires_at = Value::Null;
    assert!(world.gets_through(&packet(3)));
    assert_eq!(world.flows, 2);
    world.run_for(Duration::from_secs(3600));
    assert!(world.gets_through(&packet(4)));
    assert_eq!(world.flows, 2);
}

#[test]
fn portal_76_another_preshared_key_keeps_the_connection() {
    let mut world = World::connected();
    let key = Key(world.client.public_key().0).to_string();
    let mut again = authorize_flow("again", &key, &json!([]));
    again["client"]["preshared_key"] = json!("AwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwM=");
    world.tell_gateway("authorize_flow", again);
    while world.gateway.poll_portal(world.now).is_some() {}

    let reply =
        make::udp_packet(HOST.parse().unwrap(), (CLIENT_V4, 40_000).into(), b"reply").unwrap();
    world.send_from_resource(&reply);
    assert!(world.gets_through(&packet(2)));
    assert_eq!(world.to_client, [reply]);
    assert_eq!(world.flows, 1);
}

// portal 77
#[test]
fn rejecting_one_resource_leaves_the_others() {
    const OTHER: &str = "2fa27c50-88d3-4e1b-9b64-c05de3f71a88";
    let mut world = World::connected();
    let key = Key(world.client.public_key().0).to_string();
    let mut other = authorize_flow("other", &key, &json!([]));
    other["resource"]["id"] = json!(OTHER);
    world.tell_gateway("authorize_flow", other);
    while world.gateway.poll_portal(world.now).is_some() {}

    let reject = |id: &str| json!({"client_id": CLIENT, "resource_id": id, "flow_id": OTHER});
    world.tell_gateway("reject_access", reject(OTHER));
    assert!(world.gets_through(&packet(2)));
    world.tell_gateway("reject_access", reject(OTHER));
    assert!(world.gets_through(&packet(3)));
    let of_another_client = json!({"client_id": SITE, "resource_id": NETWORK});
    world.tell_gateway("reject_access", of_another_client);
    assert!(world.gets_through(&packet(4)));
    assert_eq!(world.flows, 1);
}

#[test]
fn portal_78_filters_of_a_live_peer_change() {
    let mut world = World::connected();
    let updated = |id: &str, filters: Value| json!({"id": id, "type": "cidr", "address": "10.40.0.0/16", "name": "Lab net", "filters": filters});
    let tcp_only = json!([{"protocol": "tcp", "port_range_start": 80, "port_range_end": 80}]);
    world.tell_gateway("resource_updated", updated(SITE, tcp_only.clone()));
    assert!(world.gets_through(&packet(2)), "an id that nobody has");

    world.tell_gateway("resource_updated", updated(NETWORK, tcp_only));
    assert!(!world.gets_through(&packet(3)));
    world.tell_gateway("resource_updated", updated(NETWORK, json!([])));
    assert!(world.gets_through(&packet(4)));
}

// portal 79
#[test]
fn portal_79_authorizations_of_an_init_are_the_full_set() {
    let mut world = World::new();
    world.send_from_application(&packet(1));
    world.run_for(Duration::from_secs(2));
    world.tell_gateway("init", gateway_init(&[relay(RELAY)]));
    world.send_from_application(&packet(2));
    world.run_for(Duration::from_secs(1));
    assert_eq!(
        world.to_resource.len(),
        2,
        "an older portal revokes nothing"
    );

    let mut init = gateway_init(&[relay(RELAY)]);
    init["authorizations"] =
        json!([{"client_id": CLIENT, "resource_id": NETWORK, "expires_at": null}]);
    world.tell_gateway("init", init);
    assert!(world.gets_through(&packet(3)), "what is listed is kept");
    assert_eq!(world.flows, 1);

    // Listed for another client: revoked for ours.
    let mut init = gateway_init(&[relay(RELAY)]);
    init["authorizations"] =
        json!([{"client_id": SITE, "resource_id": NETWORK, "expires_at": null}]);
    world.tell_gateway("init", init);
    let reply =
        make::udp_packet(HOST.parse().unwrap(), (CLIENT_V4, 40_000).into(), b"reply").unwrap();
    world.send_from_resource(&reply);
    world.run_for(Duration::from_secs(1));
    assert!(world.to_client.is_empty());
}
