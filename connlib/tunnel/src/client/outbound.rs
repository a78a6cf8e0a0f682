//! The path of a packet from the TUN device to a gateway (tunnel spec 3.13).
//!
//! One decision per super-packet: every segment shares addresses, protocol and ports. Packets that waited, and packets of
//! the in-tunnel DNS clients, take the same path by [`Client::forward`].

use std::net::IpAddr;
use std::time::Instant;

use connlib_cover::cover;
use connlib_model::{DomainName, GatewayId, ResourceId, ranges};
use connlib_snownet::{DatagramSink, EncapsulateError};
use ip_packet::make::{self, Unreachable};
use ip_packet::{IpPacket, PacketBatch, PacketRef, Protocol, Single};

use super::Client;
use super::dns_resource_nat::Verdict;
use super::intents::Ask;
use super::routing::Route;
use crate::segment::Splitter;
use crate::{AssignedIps, TunPacket};

/// What becomes of a packet.
#[derive(Debug)]
enum Decision {
    /// It goes to this gateway.
    Seal(GatewayId),
    /// It waits for the portal.
    Ask(ResourceId),
    /// It waits for the gateway to set up the translation of its destination.
    AwaitNat(PendingNat),
    /// It is for the stub resolver.
    Resolve,
    /// The resource's filters refuse it; the application is told.
    Refuse,
    /// It vanishes.
    Drop(Reason),
}

/// Names an entry of the NAT table.
#[derive(Debug)]
struct PendingNat {
    gateway: GatewayId,
    resource: ResourceId,
    domain: DomainName,
}

#[derive(Debug, Clone, Copy)]
enum Reason {
    ForeignSource,
    NotUnicast,
    /// To a sentinel that is not in use any more.
    StaleSentinel,
    Unroutable,
}

impl Client {
    /// Takes a packet or super-packet that was read from the TUN device. What goes to a gateway at once is sealed into
    /// `sink`.
    pub fn handle_tun(
        &mut self,
        packet: TunPacket<'_>,
        now: Instant,
        sink: &mut impl DatagramSink,
    ) {
        let now = self.advance(now);
        let mut batch = match Splitter::new(packet) {
            Ok(batch) => batch,
            Err(error) => {
                tracing::trace!(%error, "unusable packet from the TUN device");
                self.stats.malformed += 1;
                return;
            }
        };

        match self.decide(batch.packet(), now) {
            Decision::Seal(gateway) => {
                let ecn = batch.packet().ecn();
                let result = self.node.encapsulate(gateway, &mut batch, ecn, now, sink);
                self.on_encapsulated(gateway, result.map(|_| ()), now);
            }
            Decision::Ask(resource) => self.for_each_segment(&mut batch, |client, packet| {
                client.ask(resource, packet, now)
            }),
            Decision::AwaitNat(nat) => self.for_each_segment(&mut batch, |client, packet| {
                client.await_nat(&nat, packet, now)
            }),
            Decision::Resolve => {
                while let Some(segment) = batch.next_packet() {
                    if let Ok(packet) = PacketRef::parse(segment) {
                        self.resolve(packet, now);
                    }
                }
            }
            Decision::Refuse => {
                if let Some(Ok(first)) = batch.next_packet().map(PacketRef::parse) {
                    self.refuse(first, now);
                    self.drain_resolver(now);
                }
            }
            Decision::Drop(reason) => self.count_drop(reason),
        }
    }

    /// Sends a packet that has no send batch at hand: one that waited, or one of the in-tunnel DNS clients.
    pub(super) fn forward(&mut self, packet: IpPacket, now: Instant) {
        match self.decide(packet.view(), now) {
            Decision::Seal(gateway) => self.seal(gateway, &packet, now),
            Decision::Ask(resource) => self.ask(resource, packet, now),
            Decision::AwaitNat(nat) => self.await_nat(&nat, packet, now),
            Decision::Resolve => self.resolve(packet.view(), now),
            Decision::Refuse => self.refuse(packet.view(), now),
            Decision::Drop(reason) => self.count_drop(reason),
        }
    }

    /// Sends `packet` to `gateway`, whatever its destination.
    pub(super) fn seal(&mut self, gateway: GatewayId, packet: &IpPacket, now: Instant) {
        // What the node made earlier leaves earlier.
        self.drain_node_transmits();
        let result = self.node.encapsulate(
            gateway,
            &mut Single::from(packet),
            packet.ecn(),
            now,
            &mut self.transmits,
        );
        self.on_encapsulated(gateway, result.map(|_| ()), now);
    }

    /// Tells `gateway` which proxy IPs stand for `domain`.
    pub(super) fn send_assigned_ips(
        &mut self,
        gateway: GatewayId,
        resource: ResourceId,
        domain: &DomainName,
        now: Instant,
    ) {
        let proxy_ips = self
            .resolver
            .proxy_ips(domain)
            .into_iter()
            .filter(|ip| self.routing.covers(resource, *ip, Some(domain)))
            .collect::<Vec<_>>();
        let event = AssignedIps {
            resource,
            domain: domain.clone(),
            proxy_ips,
        };
        match event.to_packet() {
            Ok(packet) => self.seal(gateway, &packet, now),
            Err(error) => tracing::warn!(%domain, %error, "cannot announce a domain"),
        }
    }

    /// Asks the portal for access to `resource`, unless that was done a moment ago.
    pub(super) fn request_access(&mut self, resource: ResourceId, ask: Ask) {
        match ask {
            Ask::Now => {
                tracing::debug!(%resource, "requesting access");
                cover!("connection/intent-sent");
                cover!("connection/intent-after-loss" if self.gateways.has_lost(resource));
                self.outbox.push_intent(resource);
            }
            Ask::AlreadyAsked => cover!("connection/intent-suppressed"),
        }
    }

    fn decide(&mut self, packet: PacketRef<'_>, now: Instant) -> Decision {
        let (source, destination) = (packet.source(), packet.destination());
        if !self.is_own_address(source) {
            return Decision::Drop(Reason::ForeignSource);
        }
        let Ok(protocol) = packet.destination_protocol() else {
            return self.decide_without_protocol(destination);
        };

        match self.outbound_flows.get(&(destination, protocol)) {
            Some(gateway) => Decision::Seal(gateway),
            None => self.decide_anew(destination, protocol, now),
        }
    }

    /// Whether `ip` is an address of our TUN device.
    pub(super) fn is_own_address(&self, ip: IpAddr) -> bool {
        self.interface.as_ref().is_some_and(|interface| match ip {
            IpAddr::V4(ip) => interface.ipv4 == ip,
            IpAddr::V6(ip) => interface.ipv6 == ip,
        })
    }

    fn decide_anew(&mut self, destination: IpAddr, protocol: Protocol, now: Instant) -> Decision {
        if self.resolver.is_link_local_query(destination, protocol) {
            return Decision::Resolve;
        }
        if !is_unicast(destination) || self.is_own_address(destination) {
            return Decision::Drop(Reason::NotUnicast);
        }
        if ranges::is_sentinel(destination) {
            return self.decide_sentinel(destination);
        }
        if let Some(gateway) = self.gateways.by_tun_address(destination) {
            self.outbound_flows.insert((destination, protocol), gateway);
            return Decision::Seal(gateway);
        }

        let domain = self.resolver.domain_of(destination).cloned();
        match self.routing.route(destination, domain.as_ref(), protocol) {
            Route::Permitted(resource) => {
                self.decide_permitted(resource, destination, domain, protocol, now)
            }
            Route::Refused(_) => Decision::Refuse,
            Route::None => {
                cover!("routing/to-none");
                Decision::Drop(Reason::Unroutable)
            }
        }
    }

    fn decide_permitted(
        &mut self,
        resource: ResourceId,
        destination: IpAddr,
        domain: Option<DomainName>,
        protocol: Protocol,
        now: Instant,
    ) -> Decision {
        let Some(gateway) = self.gateways.binding(resource) else {
            return Decision::Ask(resource);
        };
        let verdict = match &domain {
            Some(domain) => self.nat.on_packet(gateway, resource, domain, now),
            None => Verdict::Pass,
        };

        let (Verdict::PassForNow { resend } | Verdict::Hold { resend }) = verdict else {
            self.outbound_flows.insert((destination, protocol), gateway);
            return Decision::Seal(gateway);
        };
        let domain = domain.expect("only packets for a domain wait for a NAT set-up");
        if resend {
            cover!("dns/nat-setup-repeated");
            self.send_assigned_ips(gateway, resource, &domain, now);
        }

        match verdict {
            Verdict::Hold { .. } => Decision::AwaitNat(PendingNat {
                gateway,
                resource,
                domain,
            }),
            Verdict::Pass | Verdict::PassForNow { .. } => Decision::Seal(gateway),
        }
    }

    /// Packets without ports cannot be routed by port: only the resolver's address range and multicast are told apart.
    fn decide_without_protocol(&self, destination: IpAddr) -> Decision {
        if !is_unicast(destination) || self.is_own_address(destination) {
            return Decision::Drop(Reason::NotUnicast);
        }
        if ranges::is_sentinel(destination) {
            return Decision::Drop(Reason::StaleSentinel);
        }

        Decision::Drop(Reason::Unroutable)
    }

    fn decide_sentinel(&self, destination: IpAddr) -> Decision {
        if self.resolver.is_mapped(destination) {
            return Decision::Resolve;
        }

        // An application holds on to a sentinel of an earlier mapping; its packets must not wake the internet resource.
        Decision::Drop(Reason::StaleSentinel)
    }

    fn ask(&mut self, resource: ResourceId, packet: IpPacket, now: Instant) {
        self.stats.held += 1;
        let ask = self.intents.hold_packet(resource, packet, now);
        self.request_access(resource, ask);
    }

    fn await_nat(&mut self, nat: &PendingNat, packet: IpPacket, now: Instant) {
        self.stats.held += 1;
        if let Some(packet) = self
            .nat
            .hold(nat.gateway, nat.resource, &nat.domain, packet)
        {
            self.seal(nat.gateway, &packet, now);
        }
    }

    /// Tells the sender of `packet` that it is not permitted (tunnel spec 3.16).
    fn refuse(&mut self, packet: PacketRef<'_>, now: Instant) {
        self.stats.refused += 1;
        cover!("acl/refused-by-client");
        let Ok(error) = make::icmp_unreachable(packet, Unreachable::Prohibited) else {
            return;
        };
        if !self.resolver.handle_tunnel_packet(error.view(), now) {
            self.push_local(error);
        }
    }

    fn on_encapsulated(
        &mut self,
        gateway: GatewayId,
        result: Result<(), EncapsulateError>,
        now: Instant,
    ) {
        if let Err(EncapsulateError::UnknownPeer) = result {
            tracing::debug!(%gateway, "binding without connection");
            self.on_gateway_lost(gateway);
        }
        self.drain_node(now);
    }

    fn for_each_segment(
        &mut self,
        batch: &mut Splitter<'_>,
        mut action: impl FnMut(&mut Self, IpPacket),
    ) {
        while let Some(segment) = batch.next_packet() {
            if let Ok(packet) = IpPacket::from_slice(segment) {
                action(self, packet);
            }
        }
    }

    fn count_drop(&mut self, reason: Reason) {
        match reason {
            Reason::ForeignSource => self.stats.foreign_source += 1,
            Reason::NotUnicast => self.stats.not_unicast += 1,
            Reason::StaleSentinel | Reason::Unroutable => self.stats.unroutable += 1,
        }
    }
}

/// Whether `ip` names one host.
fn is_unicast(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => !ip.is_multicast() && !ip.is_broadcast() && !ip.is_unspecified(),
        IpAddr::V6(ip) => !ip.is_multicast() && !ip.is_unspecified(),
    }
}
