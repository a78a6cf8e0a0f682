//! What the connections report, and what their loss means for everything above.

use std::time::Instant;

use connlib_model::{GatewayId, ResourceId, SiteId};
use connlib_snownet::Event;
use ip_packet::IpPacket;

use super::Client;
use super::gateways::Unbound;
use crate::goodbye_packet;

impl Client {
    /// Takes datagrams and events out of the node. Follows every call of the node that may have made some.
    #[inline]
    pub(super) fn drain_node(&mut self, now: Instant) {
        if self.node.has_output() {
            self.drain_node_output(now);
        }
    }

    fn drain_node_output(&mut self, now: Instant) {
        while let Some(event) = self.node.poll_event() {
            self.on_node_event(event, now);
        }
        self.drain_node_transmits();
    }

    /// Puts the node's datagrams behind those that already wait.
    pub(super) fn drain_node_transmits(&mut self) {
        while let Some(transmit) = self.node.poll_transmit() {
            self.transmits.push_back(transmit);
        }
    }

    fn on_node_event(&mut self, event: Event<GatewayId>, now: Instant) {
        match event {
            Event::NewIceCandidate { peer, sdp } => self.outbox.add_candidate(peer, sdp),
            Event::InvalidateIceCandidate { peer, sdp } => self.outbox.remove_candidate(peer, sdp),
            Event::ConnectionEstablished(gateway) => self.on_gateway_established(gateway),
            Event::ConnectionFailed(gateway) => {
                tracing::info!(%gateway, "connection failed");
                self.on_connection_failed(gateway, now);
            }
            Event::Undelivered { packet, .. } => self.route_again(packet, now),
            Event::ConnectionClosed(gateway) => {
                tracing::debug!(%gateway, "connection closed");
                self.on_gateway_lost(gateway);
            }
            Event::NoRelays => self.outbox.set_no_relays(),
        }
    }

    fn on_gateway_established(&mut self, gateway: GatewayId) {
        let Some(site) = self.gateways.on_established(gateway) else {
            return;
        };
        tracing::info!(%gateway, %site, "connected");
        self.sites.set_online(site);
        self.refresh_resource_list();
    }

    /// What waited for a working connection asks for the next one. What waited for one that never worked is lost: it would ask
    /// for ever.
    fn on_connection_failed(&mut self, gateway: GatewayId, now: Instant) {
        let was_established = self.gateways.is_peer_established(gateway);
        let held = self.nat.remove_gateway(gateway);
        self.on_gateway_lost(gateway);
        if was_established {
            for packet in held {
                self.route_again(packet, now);
            }
        }
    }

    /// Finds a way for a packet whose connection has failed. Control packets were about that connection.
    fn route_again(&mut self, packet: IpPacket, now: Instant) {
        if !packet.view().is_control() {
            self.forward(packet, now);
        }
    }

    /// Forgets everything that rests on the connection to `gateway` (tunnel spec 3.17). The next packet for any of its
    /// resources asks the portal.
    pub(super) fn on_gateway_lost(&mut self, gateway: GatewayId) {
        self.outbox.drop_candidates(gateway);
        self.nat.remove_gateway(gateway);
        let Some(removed) = self.gateways.remove(gateway) else {
            return;
        };
        self.invalidate_decisions();
        self.on_site_left(removed.site);
        self.refresh_resource_list();
    }

    /// Ends the binding of `resource`, and the connection if nothing else uses it.
    pub(super) fn unbind(&mut self, resource: ResourceId, now: Instant) {
        let outcome = self.gateways.unbind(resource);
        self.nat.remove_resource(resource);
        self.invalidate_decisions();
        self.on_unbound(outcome, now);
    }

    /// Closes the connection to a gateway that nothing is bound to any more.
    pub(super) fn on_unbound(&mut self, outcome: Unbound, now: Instant) {
        let Unbound::LastOf(gateway, site) = outcome else {
            return;
        };
        tracing::debug!(%gateway, "closing unused connection");
        self.nat.remove_gateway(gateway);
        self.node.close(gateway, Some(&goodbye_packet()), now);
        self.drain_node(now);
        self.outbox.drop_candidates(gateway);
        self.on_site_left(site);
        self.refresh_resource_list();
    }

    /// A connection to `site` is gone; unless another one is left, nothing is known about it.
    fn on_site_left(&mut self, site: SiteId) {
        if !self.gateways.is_site_established(site) {
            self.sites.set_unknown(site);
        }
    }
}
