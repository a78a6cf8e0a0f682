//! The misbehaving client: a raw connectivity node that logs in like anybody else and then seals what it likes
//! (testing T9). Without it a check that moves from the gateway to the client would be missed.

use std::{
    collections::VecDeque,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Instant,
};

use connlib_messages::{
    Key, Message as _, REALM, Relay,
    client::{CandidatesForGateways, CreateFlow, FlowCreated, FromPortal, Init, ToPortal},
};
use connlib_model::{DomainName, GatewayId, RelayId};
use connlib_snownet::{Decapsulated, Event, IceCredentials, Node, PublicKey, RelayConfig, Role};
use connlib_tunnel::AssignedIps;
use ip_packet::{Ecn, IpPacket, Single, make};
use serde_json::Value;

use super::{
    World, apps::probe, portal::ChannelEvent, portal::Identity, portal_config, socket::Attachment,
};
use crate::{
    topology::{HostSpec, ids},
    transition::{Component, Protocol, RogueAct},
};

/// Largest plaintext of a datagram.
const BUFFER: usize = 2048;

/// The misbehaving client.
pub(crate) struct Rogue {
    node: Node<GatewayId, RelayId>,
    pub(super) attachment: Attachment,
    addresses: Option<(Ipv4Addr, Ipv6Addr)>,
    /// Whom it talks to.
    gateway: Option<GatewayId>,
    pub(super) deadline: Option<Instant>,
}

impl World {
    /// The component of the misbehaving client: the one behind the last.
    pub(super) fn rogue_component(&self) -> Component {
        Component::Client(self.clients.len())
    }

    pub(super) fn rogue_acts(&mut self, act: &RogueAct) {
        let now = self.clock.now();
        match act {
            RogueAct::Connect { resource } => {
                self.start_rogue();
                let client = self.clients.len();
                let grant = |config: &mut _| portal_config::grant(config, client, *resource);
                self.portal.reload(grant, &self.clock);
                self.run_for(std::time::Duration::from_secs(1));
                let flow = ToPortal::CreateFlow(CreateFlow {
                    resource_id: ids::resource(*resource),
                    connected_gateway_ids: vec![],
                });
                self.send_for_rogue(&flow);
                self.run_for(std::time::Duration::from_secs(3));
            }
            RogueAct::Send { to, how, source } => {
                let number = self.next_probe;
                self.next_probe += 1;
                let own = self.rogue.as_ref().and_then(|rogue| rogue.own(*to));
                let packet = source
                    .or(own)
                    .and_then(|source| probe::packet(number, source, *to, *how));
                self.seal_for_rogue(packet, now);
            }
            RogueAct::Announce {
                resource,
                name,
                addresses,
            } => {
                let event = DomainName::new(name).ok().map(|domain| AssignedIps {
                    resource: ids::resource(*resource),
                    domain,
                    proxy_ips: addresses.clone(),
                });
                let packet = event.and_then(|event| event.to_packet().ok());
                self.seal_for_rogue(packet, now);
            }
            RogueAct::IcmpError { about } => {
                let packet = self.rogue.as_ref().and_then(|rogue| rogue.lie(*about));
                self.seal_for_rogue(packet, now);
            }
            RogueAct::Garbage => self.seal_for_rogue(garbage(), now),
        }
    }

    fn start_rogue(&mut self) {
        if self.rogue.is_some() {
            return;
        }
        let component = self.rogue_component();
        let attachment = self.attach(&HostSpec::default(), component);
        let seed = self.draw_seed();
        let (now, unix) = (self.clock.now(), self.clock.unix());
        let node = Node::new(Role::Client, seed, now, unix);
        let key = Key(node.public_key().0).to_string();
        let identity = Identity {
            token: portal_config::client_token(self.clients.len()),
            external_id: "rogue".to_owned(),
            query: vec![("public_key", key), ("name", "rogue".to_owned())],
            join_payload: Value::Null,
            user_agent: "Ubuntu/24.04 connlib/1.5.0 (x86_64)",
        };
        self.rogue = Some(Rogue {
            node,
            attachment,
            addresses: None,
            gateway: None,
            deadline: None,
        });
        self.portal.open(component, identity, &self.clock);
        self.run_for(std::time::Duration::from_secs(2));
    }

    fn send_for_rogue(&mut self, message: &ToPortal) {
        let component = self.rogue_component();
        let event = message.event(connlib_messages::Dialect::Unversioned);
        let (payload, now) = (message.payload(), self.clock.now());
        self.portal.send(component, event, payload, now);
    }

    fn seal_for_rogue(&mut self, packet: Option<IpPacket>, now: Instant) {
        let (Some(rogue), Some(packet)) = (&mut self.rogue, packet) else {
            return;
        };
        let Some(gateway) = rogue.gateway else { return };
        let mut sink = VecDeque::new();
        let _ = rogue.node.encapsulate(
            gateway,
            &mut Single::from(&packet),
            Ecn::NotEct,
            now,
            &mut sink,
        );
        let component = self.rogue_component();
        for transmit in sink {
            self.transmit(component, transmit);
        }
        self.drain_rogue();
    }

    pub(super) fn drain_rogue(&mut self) {
        let component = self.rogue_component();
        while let Some(transmit) = self.rogue_output(|rogue| rogue.node.poll_transmit()) {
            self.transmit(component, transmit);
        }
        while let Some(event) = self.rogue_output(|rogue| rogue.node.poll_event()) {
            if let Event::NewIceCandidate { peer, sdp } = event {
                let message = ToPortal::BroadcastIceCandidates(CandidatesForGateways {
                    gateway_ids: vec![peer],
                    candidates: vec![sdp],
                });
                self.send_for_rogue(&message);
            }
        }
        if let Some(rogue) = &mut self.rogue {
            rogue.deadline = rogue.node.poll_timeout().map(|(at, _)| at);
        }
    }

    fn rogue_output<T>(&mut self, poll: impl FnOnce(&mut Rogue) -> Option<T>) -> Option<T> {
        self.rogue.as_mut().and_then(poll)
    }

    pub(super) fn rogue_from_portal(&mut self, event: ChannelEvent) {
        let now = self.clock.now();
        let (Some(rogue), ChannelEvent::Message(event, payload)) = (&mut self.rogue, event) else {
            return;
        };
        match FromPortal::parse(&event, payload) {
            Ok(FromPortal::Init(init)) => rogue.on_init(&init, now),
            Ok(FromPortal::FlowCreated(flow)) => rogue.on_flow(&flow, now),
            Ok(FromPortal::IceCandidates(message)) => {
                for sdp in message.candidates {
                    let gateway = message.gateway_id;
                    rogue.node.add_remote_candidate(gateway, &sdp, now);
                }
            }
            Ok(_) | Err(_) => {}
        }
        self.drain_rogue();
    }

    pub(super) fn rogue_receives(&mut self, local: SocketAddr, from: SocketAddr, datagram: &[u8]) {
        let now = self.clock.now();
        let Some(rogue) = &mut self.rogue else { return };
        let mut out = [0; BUFFER];
        let result = rogue.node.decapsulate(local, from, datagram, now, &mut out);
        if let Ok(Decapsulated::Packet { len, .. }) = result {
            tracing::debug!(len, "the rogue got a packet");
        }
        self.drain_rogue();
    }

    pub(super) fn wake_rogue(&mut self) {
        let now = self.clock.now();
        if let Some(rogue) = &mut self.rogue
            && rogue.deadline.is_some_and(|at| at <= now)
        {
            rogue.node.handle_timeout(now);
            self.drain_rogue();
        }
    }
}

impl Rogue {
    fn own(&self, other: IpAddr) -> Option<IpAddr> {
        let (v4, v6) = self.addresses?;
        Some(match other {
            IpAddr::V4(_) => v4.into(),
            IpAddr::V6(_) => v6.into(),
        })
    }

    fn on_init(&mut self, init: &Init, now: Instant) {
        self.addresses = Some((init.interface.ipv4, init.interface.ipv6));
        let relays: Vec<_> = init.relays.iter().map(relay).collect();
        self.node.update_relays(&Default::default(), &relays, now);
    }

    fn on_flow(&mut self, flow: &FlowCreated, now: Instant) {
        let ice = |credentials: &connlib_messages::IceCredentials| {
            let password = credentials.password.expose();
            IceCredentials::new(credentials.username.clone(), password).ok()
        };
        let (Some(own), Some(other)) = (
            ice(&flow.client_ice_credentials),
            ice(&flow.gateway_ice_credentials),
        ) else {
            return;
        };
        self.gateway = Some(flow.gateway_id);
        let key = PublicKey(flow.gateway_public_key.0);
        let psk = flow.preshared_key.0;
        let _ = self
            .node
            .upsert_connection(flow.gateway_id, key, psk, own, other, now);
    }

    /// "The host that you talk to is unreachable", about a packet that nobody sent.
    fn lie(&self, about: Ipv4Addr) -> Option<IpPacket> {
        let own = self.own(about.into())?;
        let never_sent = probe::packet(u64::MAX, about.into(), own, Protocol::Udp(9))?;
        let bytes = never_sent.as_slice();
        make::icmpv4_message(own, about.into(), 64, (3, 1, [0; 4]), &bytes[..28]).ok()
    }
}

fn relay(relay: &Relay) -> RelayConfig<RelayId> {
    RelayConfig {
        id: relay.id,
        v4: relay.v4,
        v6: relay.v6,
        username: relay.username.clone(),
        password: relay.password.expose().to_owned(),
        realm: REALM.to_owned(),
    }
}

/// A packet of a protocol that nobody speaks, to nowhere.
fn garbage() -> Option<IpPacket> {
    let mut bytes = [0; 60];
    bytes[0] = 0x45;
    bytes[3] = 60;
    bytes[8] = 64;
    bytes[9] = 253;
    bytes[12..20].copy_from_slice(&[10, 9, 9, 9, 10, 1, 0, 1]);
    IpPacket::from_slice(&bytes).ok()
}
