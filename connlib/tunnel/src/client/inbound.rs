//! The path of a datagram from the network to the TUN device (tunnel spec 3.14).
//!
//! A datagram is opened straight into the coalescer's slot, checked there, and committed or forgotten.

use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use connlib_model::GatewayId;
use connlib_snownet::{Decapsulated, Train};
use ip_packet::{Control, Ecn, PacketMut, PacketRef};

use super::Client;
use super::routing::Route;
use crate::segment::{Coalescer, Commit, FlowTag, Run, Slot};
use crate::{ControlEvent, DomainStatus};

impl Client {
    /// Takes one datagram that arrived on the socket `local` from `from` with the ECN bits `ecn`. If it carries a packet
    /// for the TUN device, `out` holds it afterwards.
    pub fn handle_network(
        &mut self,
        local: SocketAddr,
        from: SocketAddr,
        ecn: Ecn,
        datagram: &[u8],
        now: Instant,
        out: &mut Coalescer,
    ) {
        let now = self.advance_to_datagram(now);
        self.handle_run(local, from, ecn, &mut Train::single(datagram), now, out);
    }

    /// Takes datagrams that arrived together on the socket `local` from `from` with the ECN bits `ecn`, like
    /// [`handle_network`](Self::handle_network) one after the other: all of `train`, or less when `out` is full before.
    pub fn handle_train(
        &mut self,
        local: SocketAddr,
        from: SocketAddr,
        ecn: Ecn,
        train: &mut Train<'_>,
        now: Instant,
        out: &mut Coalescer,
    ) {
        let now = self.advance_to_datagram(now);
        while !train.is_empty() {
            self.handle_run(local, from, ecn, train, now, out);
            if out.is_full() {
                break;
            }
        }
    }

    /// Takes the packets at the front of a train up to the first that must be decided about, and decides.
    fn handle_run(
        &mut self,
        local: SocketAddr,
        from: SocketAddr,
        ecn: Ecn,
        train: &mut Train<'_>,
        now: Instant,
        out: &mut Coalescer,
    ) {
        let mut run = Run::new(out, self.inbound_epoch, ecn);

        match self
            .node
            .decapsulate_train(local, from, train, now, &mut run)
        {
            Ok(Decapsulated::Packet { peer, len }) => {
                let tag = run.tag(peer.as_u128());
                self.take_packet(peer, run.into_slot(), len, tag, now);
            }
            Ok(Decapsulated::Consumed) => {}
            Err(error) => tracing::trace!(%from, %error, "datagram dropped"),
        }
        self.drain_node(now);
    }

    /// Decides about the packet in `slot`, authentic from `gateway`.
    fn take_packet(
        &mut self,
        gateway: GatewayId,
        mut slot: Slot<'_>,
        len: usize,
        tag: FlowTag,
        now: Instant,
    ) {
        let stream = slot.stream(len, tag);
        if !self.accept(gateway, &mut slot.buffer()[..len], tag.ecn, now) {
            self.inbound_epoch += 1;
        } else if slot.commit_stream(len, stream) == Commit::Dropped {
            self.stats.overflow += 1;
        }
    }

    /// Whether the packet in `bytes`, authentic from `gateway`, is for the TUN device.
    fn accept(&mut self, gateway: GatewayId, bytes: &mut [u8], ecn: Ecn, now: Instant) -> bool {
        let mut packet = match PacketMut::parse(bytes) {
            Ok(packet) => packet,
            Err(error) => {
                tracing::trace!(%gateway, %error, "unusable packet from a gateway");
                self.stats.malformed_inbound += 1;
                return false;
            }
        };
        if let Some(control) = packet.as_control() {
            self.on_control(gateway, control, now);
            return false;
        }
        if !self.is_own_address(packet.destination()) || !self.may_send(gateway, packet.source()) {
            tracing::trace!(%gateway, ?packet, "packet from a source that the gateway does not serve");
            self.stats.spoofed += 1;
            return false;
        }
        self.request_access_if_prohibited(gateway, packet.view(), now);
        if self.resolver.handle_tunnel_packet(packet.view(), now) {
            self.drain_resolver(now);
            return false;
        }

        let merged = Ecn::merge(packet.ecn(), ecn);
        if merged != packet.ecn() {
            packet.set_ecn(merged);
        }

        true
    }

    /// Whether packets from `source` may come from `gateway`: a resource that is bound to it, or its own address.
    fn may_send(&mut self, gateway: GatewayId, source: IpAddr) -> bool {
        if self.inbound_sources.get(&(gateway, source)).is_some() {
            return true;
        }

        let domain = self.resolver.domain_of(source);
        let is_own = self
            .gateways
            .peer(gateway)
            .is_some_and(|peer| peer.has_address(source));
        let may_send = is_own
            || self.routing.any_covering(source, domain, |resource| {
                self.gateways.binding(resource) == Some(gateway)
            });
        if may_send {
            self.inbound_sources.insert((gateway, source), ());
        }

        may_send
    }

    /// A gateway that refuses a packet of ours has lost our authorization, or let it expire: ask for it again, at most
    /// once per interval, and keep the binding (tunnel spec 3.14; design row 41).
    fn request_access_if_prohibited(
        &mut self,
        gateway: GatewayId,
        packet: PacketRef<'_>,
        now: Instant,
    ) {
        let Some(error) = packet.icmp_error() else {
            return;
        };
        if !error.kind().is_prohibited() {
            return;
        }
        let Ok(failed) = error.failed_packet() else {
            return;
        };
        if !self.is_own_address(failed.source()) {
            return;
        }

        let domain = self.resolver.domain_of(failed.destination());
        let route = self
            .routing
            .route(failed.destination(), domain, failed.destination_protocol());
        let Route::Permitted(resource) = route else {
            return;
        };
        if self.gateways.binding(resource) == Some(gateway) {
            let ask = self.intents.renew(resource, now);
            self.request_access(resource, ask);
        }
    }

    fn on_control(&mut self, gateway: GatewayId, control: Control<'_>, now: Instant) {
        match ControlEvent::decode(control) {
            Ok(ControlEvent::DomainStatus(status)) => self.on_domain_status(gateway, &status, now),
            Ok(ControlEvent::Goodbye) => {
                tracing::debug!(%gateway, "gateway said goodbye");
                self.node.remove(gateway, now);
                self.on_gateway_lost(gateway);
            }
            Ok(ControlEvent::AssignedIps(_)) => {
                tracing::debug!(%gateway, "ignoring a control event that only clients send");
            }
            Err(error) => tracing::debug!(%gateway, %error, "ignoring a control event"),
        }
    }

    fn on_domain_status(&mut self, gateway: GatewayId, status: &DomainStatus, now: Instant) {
        let DomainStatus {
            resource,
            domain,
            status,
        } = status;
        tracing::debug!(%gateway, %resource, %domain, ?status, "translation of a domain");
        let released = self.nat.on_status(gateway, *resource, domain, *status);
        self.invalidate_decisions();
        for packet in released {
            self.seal(gateway, &packet, now);
        }
    }
}
