//! After every input: everything that a host has to say goes where it belongs, in the order in which the runtime does it.

use connlib_dns::RecursiveError;
use connlib_messages::{Dialect, Message as _, client, gateway};

use connlib_session::{ClientSessionEvent, GatewaySessionEvent, PortalInput, PortalOutput};
use ip_packet::IpPacket;

use super::{World, client::requested_resource, portal::ChannelEvent};
use crate::dns::message::Message;
use crate::{topology::DnsAnswer, trace::Entry, transition::Component};

/// Rounds of a drain; more means that a host talks to itself for ever.
const MAX_ROUNDS: usize = 10_000;

impl World {
    /// Empties a client's outputs.
    pub(super) fn drain_client(&mut self, index: usize) {
        for round in 0.. {
            let mut idle = !self.drain_client_tunnel(index);
            idle &= !self.drain_client_portal(index);
            idle &= !self.drain_client_apps(index);
            if idle {
                break;
            }
            if round == MAX_ROUNDS {
                let at = self.elapsed();
                self.trace
                    .violation(at, 19, format!("client {index} does not come to rest"));
                break;
            }
        }
        let client = &mut self.clients[index];
        client.deadline = client.next_deadline();
    }

    fn drain_client_tunnel(&mut self, index: usize) -> bool {
        let mut any = false;
        while let Some(transmit) = self.clients[index].session.tunnel_mut().poll_transmit() {
            any = true;
            self.transmit(Component::Client(index), transmit);
        }
        while let Some(packet) = self.clients[index].session.tunnel_mut().poll_packet() {
            any = true;
            self.deliver_to_application(index, packet);
        }
        let now = self.clock.now();
        while let Some(query) = self.clients[index]
            .session
            .tunnel_mut()
            .poll_recursive_query()
        {
            any = true;
            let mut result = Err(RecursiveError::TimedOut);
            if let Some(message) = Message::parse(&query.message) {
                result = match self.records.manner(&message.question.0) {
                    DnsAnswer::Unreachable => Err(RecursiveError::Unreachable),
                    _ => self
                        .records
                        .respond(&query.message)
                        .ok_or(RecursiveError::TimedOut),
                };
                let entry = Entry::HostLookup {
                    client: index,
                    server: query.upstream,
                    question: message.question,
                };
                self.trace.push(self.clock.elapsed(), entry);
            }
            self.clients[index].look_up(query.id, result, now);
        }
        any
    }

    fn drain_client_portal(&mut self, index: usize) -> bool {
        let mut any = false;
        let (now, at) = (self.clock.now(), self.elapsed());
        let component = Component::Client(index);
        while let Some(output) = self.clients[index].session.poll_portal(now) {
            any = true;
            match output {
                PortalOutput::Send(message) => self.send_for_client(index, message),
                PortalOutput::Reconnect { .. } => {
                    let identity = self.clients[index].identity();
                    self.trace.push(at, Entry::ChannelOpened { by: component });
                    self.portal.open(component, identity, &self.clock);
                }
            }
        }
        while let Some(event) = self.clients[index].session.poll_event() {
            any = true;
            match event {
                ClientSessionEvent::TunConfigUpdated(config) => {
                    self.clients[index].config = Some(config.clone());
                    let client = index;
                    self.trace.push(at, Entry::TunConfig { client, config });
                }
                ClientSessionEvent::ResourcesChanged(list) => {
                    self.clients[index].resources = list.clone();
                    let client = index;
                    self.trace.push(at, Entry::Resources { client, list });
                }
                ClientSessionEvent::Failed(error) => {
                    self.trace
                        .violation(at, 23, format!("client {index} gave up: {error}"));
                }
            }
        }
        any
    }

    fn send_for_client(&mut self, index: usize, message: client::ToPortal) {
        let component = Component::Client(index);
        let event = message.event(Dialect::Unversioned).to_owned();
        let connected = match &message {
            client::ToPortal::BroadcastIceCandidates(to)
            | client::ToPortal::BroadcastInvalidatedIceCandidates(to) => {
                let tunnel = self.clients[index].session.tunnel();
                let mut peers = tunnel.gateways().map(|view| view.gateway);
                peers.any(|peer| to.gateway_ids.contains(&peer))
                    || event == "broadcast_invalidated_ice_candidates"
            }
            _ => true,
        };
        let entry = Entry::ToPortal {
            from: component,
            event: event.clone(),
            resource: requested_resource(&message),
            connected,
        };
        let now = self.clock.now();
        if self.portal.send(component, &event, message.payload(), now) {
            self.trace.push(self.clock.elapsed(), entry);
        } else {
            let input = PortalInput::Unsent(message);
            self.clients[index].session.handle_portal(input, now);
        }
    }

    fn drain_client_apps(&mut self, index: usize) -> bool {
        let mut any = false;
        let (now, at) = (self.clock.now(), self.elapsed());
        for entry in self.clients[index].apps.advance(now) {
            any = true;
            self.trace.push(at, entry);
        }
        while let Some(packet) = self.clients[index].apps.poll_packet() {
            any = true;
            self.application_sends(index, &packet);
        }
        any
    }

    /// A packet from an application to the client.
    pub(super) fn application_sends(&mut self, index: usize, packet: &IpPacket) {
        let now = self.clock.now();
        for transmit in self.clients[index].handle_tun(packet, now) {
            self.transmit(Component::Client(index), transmit);
        }
    }

    /// A packet from the client to the applications.
    pub(super) fn deliver_to_application(&mut self, index: usize, packet: IpPacket) {
        let (now, at) = (self.clock.now(), self.elapsed());
        if let Some(entry) = self.clients[index].apps.receive(packet, now) {
            self.trace.push(at, entry);
        }
    }

    /// A packet from a gateway to what is behind it.
    pub(super) fn deliver_to_server(&mut self, index: usize, packet: IpPacket) {
        let (now, at) = (self.clock.now(), self.elapsed());
        let gateway = &mut self.gateways[index];
        gateway.servers.handle(&packet, &self.records, now);
        let gateway = index;
        self.trace.push(at, Entry::Arrival { gateway, packet });
    }

    /// Empties a gateway's outputs.
    pub(super) fn drain_gateway(&mut self, index: usize) {
        for round in 0.. {
            let mut idle = !self.drain_gateway_tunnel(index);
            idle &= !self.drain_gateway_portal(index);
            if idle {
                break;
            }
            if round == MAX_ROUNDS {
                let at = self.elapsed();
                self.trace
                    .violation(at, 19, format!("gateway {index} does not come to rest"));
                break;
            }
        }
        let gateway = &mut self.gateways[index];
        gateway.deadline = gateway.next_deadline();
    }

    fn drain_gateway_tunnel(&mut self, index: usize) -> bool {
        let mut any = false;
        let component = Component::Gateway(index);
        while let Some(transmit) = self.gateways[index].session.tunnel_mut().poll_transmit() {
            any = true;
            self.transmit(component, transmit);
        }
        let now = self.clock.now();
        while let Some(packet) = self.gateways[index].servers.poll_packet() {
            any = true;
            if !self.gateways[index].running {
                continue;
            }
            for transmit in self.gateways[index].handle_tun(&packet, now) {
                self.transmit(component, transmit);
            }
        }
        any
    }

    fn drain_gateway_portal(&mut self, index: usize) -> bool {
        let mut any = false;
        let now = self.clock.now();
        let component = Component::Gateway(index);
        while let Some(output) = self.gateways[index].session.poll_portal(now) {
            any = true;
            match output {
                PortalOutput::Send(message) => self.send_for_gateway(index, message),
                PortalOutput::Reconnect { .. } => {
                    let identity = self.gateways[index].identity();
                    let at = self.clock.elapsed();
                    self.trace.push(at, Entry::ChannelOpened { by: component });
                    self.portal.open(component, identity, &self.clock);
                }
            }
        }
        while let Some(event) = self.gateways[index].session.poll_event() {
            any = true;
            match event {
                GatewaySessionEvent::ResolveDns { id, domain } => {
                    self.gateways[index].look_up(id, domain, now);
                }
                GatewaySessionEvent::TunAddresses(_) => {}
                GatewaySessionEvent::Failed(error) => {
                    let at = self.elapsed();
                    self.trace
                        .violation(at, 23, format!("gateway {index} gave up: {error}"));
                }
            }
        }
        any
    }

    fn send_for_gateway(&mut self, index: usize, message: gateway::ToPortal) {
        let component = Component::Gateway(index);
        let event = message.event(Dialect::Unversioned).to_owned();
        let now = self.clock.now();
        if self.portal.send(component, &event, message.payload(), now) {
            let entry = Entry::ToPortal {
                from: component,
                event,
                resource: None,
                connected: true,
            };
            self.trace.push(self.clock.elapsed(), entry);
        } else {
            let input = PortalInput::Unsent(message);
            self.gateways[index].session.handle_portal(input, now);
        }
    }

    /// Something reached a component from the portal.
    pub(super) fn deliver_from_portal(&mut self, component: Component, event: ChannelEvent) {
        match component {
            rogue if rogue == self.rogue_component() => self.rogue_from_portal(event),
            Component::Client(index) => {
                if self.clients[index].stalled {
                    return;
                }
                if matches!(event, ChannelEvent::Disconnected) {
                    let at = self.clock.elapsed();
                    self.trace.push(at, Entry::ChannelLost { of: component });
                }
                if let Some(input) = translate(event) {
                    let now = self.clock.now();
                    self.clients[index].session.handle_portal(input, now);
                    self.drain_client(index);
                }
            }
            Component::Gateway(index) => {
                if !self.gateways[index].running {
                    return;
                }
                if let Some(input) = translate(event) {
                    let now = self.clock.now();
                    self.gateways[index].session.handle_portal(input, now);
                    self.drain_gateway(index);
                }
            }
            Component::Relay(_) => {}
        }
    }
}

/// As the runtime's channel task does it.
fn translate<M: connlib_messages::Message, S>(event: ChannelEvent) -> Option<PortalInput<M, S>> {
    match event {
        ChannelEvent::Connected => Some(PortalInput::Connected),
        ChannelEvent::Disconnected => Some(PortalInput::Disconnected),
        ChannelEvent::Message(event, payload) => match M::parse(&event, payload) {
            Ok(message) => Some(PortalInput::Message(message)),
            Err(error) => {
                tracing::error!(%error, "a message of the portal cannot be read");
                None
            }
        },
    }
}
