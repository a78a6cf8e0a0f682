//! Client and gateway introduced to each other by a scripted portal, over a network without NAT.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use connlib_messages::{Dialect, Key, Message, client, gateway};
use connlib_session::{ClientSession, GatewaySession, PortalInput, PortalOutput};
use connlib_tunnel::TunPacket;
use connlib_tunnel::segment::{Coalescer, Coalescing, GsoMeta};
use ip_packet::{Ecn, IpPacket, make};
use serde_json::{Value, json};

use crate::fixtures::{
    CLIENT, CLIENT_V4, GATEWAY, HOST, NETWORK, RELAY, Sink, authorize_flow, client_init,
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
    filters: Value,
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
            filters: json!([]),
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
                let filters = self.filters.clone();
                self.tell_gateway("authorize_flow", authorize_flow("r", &key, &filters));
            }
            client::ToPortal::BroadcastIceCandidates(m) => {
                self.tell_gateway(
                    "ice_candidates",
                    json!({"client_id": CLIENT, "candidates": m.candidates}),
                );
            }
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
        self.wire.insert(key, (src.unwrap_or(own), dst, payload));
    }

    fn send_from_application(&mut self, packet: &IpPacket) {
        let mut bytes = packet.as_slice().to_vec();
        let mut sink = Sink::default();
        let packet = TunPacket {
            buf: &mut bytes,
            gso: GsoMeta::NONE,
        };
        self.client
            .tunnel_mut()
            .handle_tun(packet, self.now, &mut sink);
        for t in sink.0 {
            self.put_on_wire(self.client_socket, t.src, t.dst, t.payload);
        }
        self.drain();
    }

    fn send_from_resource(&mut self, packet: &IpPacket) {
        let mut bytes = packet.as_slice().to_vec();
        let mut sink = Sink::default();
        let packet = TunPacket {
            buf: &mut bytes,
            gso: GsoMeta::NONE,
        };
        self.gateway
            .tunnel_mut()
            .handle_tun(packet, self.now, &mut sink);
        for t in sink.0 {
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
    init["authorizations"] = json!([]);
    world.tell_gateway("init", init);
    let reply =
        make::udp_packet(HOST.parse().unwrap(), (CLIENT_V4, 40_000).into(), b"reply").unwrap();
    world.send_from_resource(&reply);
    world.run_for(Duration::from_secs(1));
    assert!(world.to_client.is_empty());
}
