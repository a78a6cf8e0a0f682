//! All state of one client, and the decision about each packet (tunnel spec §5.4, §5.8).
//!
//! Decisions do not touch the packet: they say what is to be done with it. So they can be remembered for the next packet
//! of the flow, and made once for a super-packet.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use connlib_cover::cover;
use connlib_lookup::Secret;
use connlib_model::ranges;
use connlib_snownet::PublicKey;
use ip_packet::make::{self, Unreachable};
use ip_packet::{
    FamilyMismatch, IcmpErrorKind, IpPacket, PacketMut, PacketRef, UnsupportedProtocol,
};

use super::TunAddresses;
use super::access::{Access, Verdict};
use super::nat::{AddressMap, Incoming, NoSession, Sessions, TcpSignal, Translation};
use super::rules::{from_resource, towards_resource};
use crate::unix_time::UnixClock;

/// All state of one client. It outlives the client's connection.
#[derive(Debug)]
pub(super) struct ClientPeer {
    pub(super) addresses: TunAddresses,
    /// WireGuard key; `None` before the first connection.
    key: Option<PublicKey>,
    pub(super) access: Access,
    pub(super) names: AddressMap,
    pub(super) sessions: Sessions,
    /// Where the gateway's queue of deadlines has this client.
    pub(super) scheduled_at: Option<Instant>,
}

/// What becomes of a packet that may pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Passage {
    /// It passes as it is.
    Unchanged,
    /// The far end's address and the client's port are rewritten.
    Translated(Translation),
}

impl Passage {
    /// Outgoing: the real address takes the proxy's place, the mapped port the client's.
    pub(super) fn apply_from_client(
        self,
        packet: &mut PacketMut<'_>,
    ) -> Result<(), FamilyMismatch> {
        if let Self::Translated(translation) = self {
            packet.set_destination(translation.address)?;
            packet.set_source_protocol(translation.value);
        }
        Ok(())
    }

    /// Incoming: the proxy takes the real address's place, the client's port the mapped one's.
    pub(super) fn apply_to_client(self, packet: &mut PacketMut<'_>) -> Result<(), FamilyMismatch> {
        if let Self::Translated(translation) = self {
            packet.set_source(translation.address)?;
            packet.set_destination_protocol(translation.value);
        }
        Ok(())
    }
}

/// What becomes of a packet on its way to the client.
#[derive(Debug)]
pub(super) enum ToClient {
    /// It passes.
    Pass(Passage),
    /// Another packet takes its place: an ICMP error about a translated packet.
    Replace(IpPacket),
}

/// Why a packet goes no further.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    /// The source address is not the client's.
    Spoofed,
    /// No authorization permits it.
    Prohibited,
    /// It leads nowhere.
    Unreachable,
    /// Multicast, or nothing that could be translated.
    Unsupported,
    /// No NAT session is free.
    Exhausted,
    /// It belongs to a NAT session that has ended.
    Expired,
}

impl Refusal {
    /// What the client is told, if anything.
    pub(super) fn answer(self) -> Option<Unreachable> {
        match self {
            Self::Spoofed | Self::Prohibited => Some(Unreachable::Prohibited),
            Self::Unreachable => Some(Unreachable::Network),
            Self::Unsupported | Self::Exhausted | Self::Expired => None,
        }
    }
}

impl ClientPeer {
    /// A client that may reach nothing yet.
    pub(super) fn new(addresses: TunAddresses, secret: Secret) -> Self {
        Self {
            addresses,
            key: None,
            access: Access::new(secret),
            names: AddressMap::new(secret),
            sessions: Sessions::new(secret),
            scheduled_at: None,
        }
    }

    /// Takes the client's key. Returns whether it is another than before: then the client has started again or is elsewhere,
    /// and announces all its names anew.
    pub(super) fn set_key(&mut self, key: PublicKey) -> bool {
        let is_new = self.key.replace(key) != Some(key);
        if is_new {
            self.names.begin_generation();
        }
        is_new
    }

    /// Decides about a packet that the client sent. `own` are the gateway's addresses.
    ///
    /// # Errors
    ///
    /// [`Refusal`]: the packet goes no further.
    pub(super) fn judge_from_client(
        &mut self,
        packet: PacketRef<'_>,
        own: Option<TunAddresses>,
        now: Instant,
    ) -> Result<Passage, Refusal> {
        let destination = packet.destination();
        if !is_single_host(destination) {
            return Err(Refusal::Unsupported);
        }
        if !self.addresses.contains(packet.source()) {
            cover!("acl/foreign-source-denied");
            return Err(Refusal::Spoofed);
        }
        if is_icmp_error(packet) {
            return Err(Refusal::Unsupported);
        }
        if own.is_some_and(|own| own.contains(destination)) {
            return judge_to_gateway(packet);
        }
        if ranges::is_proxy(destination) {
            return self.judge_to_name(packet, destination, now);
        }
        match self.access.judge(destination, towards_resource(packet)) {
            Verdict::Prohibited => Err(Refusal::Prohibited),
            Verdict::Unreachable => Err(Refusal::Unreachable),
            Verdict::Permitted => {
                if let Ok(protocol) = packet.source_protocol() {
                    self.sessions.contact_directly(destination, protocol);
                }
                Ok(Passage::Unchanged)
            }
        }
    }

    fn judge_to_name(
        &mut self,
        packet: PacketRef<'_>,
        proxy: IpAddr,
        now: Instant,
    ) -> Result<Passage, Refusal> {
        let entry = self.names.get(proxy).ok_or(Refusal::Unreachable)?;
        if !self
            .access
            .permits_names(entry.resources(), towards_resource(packet))
        {
            return Err(Refusal::Prohibited);
        }
        let protocol = packet.source_protocol().map_err(|_| Refusal::Unsupported)?;
        let signal = TcpSignal::of(packet);
        self.sessions
            .outgoing(proxy, protocol, entry.real(), signal, now)
            .map(Passage::Translated)
            .map_err(|error| match error {
                NoSession::Unmapped => {
                    cover!("nat/family-missing-v4" if proxy.is_ipv4());
                    cover!("nat/family-missing-v6" if proxy.is_ipv6());
                    Refusal::Unreachable
                }
                NoSession::Exhausted => Refusal::Exhausted,
            })
    }

    /// Decides about a packet from the TUN device to this client. `own` are the gateway's addresses.
    ///
    /// # Errors
    ///
    /// [`Refusal`]: the packet goes no further. Its sender is told nothing.
    pub(super) fn judge_to_client(
        &mut self,
        packet: PacketRef<'_>,
        own: Option<TunAddresses>,
        now: Instant,
    ) -> Result<ToClient, Refusal> {
        let source = packet.source();
        let is_own = own.is_some_and(|own| own.contains(source));
        if !is_own && (ranges::is_tunnel(source) || ranges::is_proxy(source)) {
            return Err(Refusal::Prohibited);
        }
        if is_icmp_error(packet) {
            return self.translate_error(packet, now);
        }
        if is_own {
            return Ok(ToClient::Pass(Passage::Unchanged));
        }
        self.judge_from_site(packet, source, now)
            .map(ToClient::Pass)
    }

    fn judge_from_site(
        &mut self,
        packet: PacketRef<'_>,
        source: IpAddr,
        now: Instant,
    ) -> Result<Passage, Refusal> {
        let incoming = match packet.destination_protocol() {
            Ok(protocol) => self
                .sessions
                .incoming(source, protocol, TcpSignal::of(packet), now),
            Err(UnsupportedProtocol::IpPayload(_)) => Incoming::Unknown,
            Err(UnsupportedProtocol::Icmpv4Type(_) | UnsupportedProtocol::Icmpv6Type(_)) => {
                return Err(Refusal::Unsupported);
            }
        };
        let is_permitted = match incoming {
            Incoming::Expired => {
                cover!("nat/expired-session-dropped");
                return Err(Refusal::Expired);
            }
            Incoming::Unknown => {
                self.access.judge(source, from_resource(packet)) == Verdict::Permitted
            }
            Incoming::Session(translation) => {
                self.names.get(translation.address).is_some_and(|entry| {
                    self.access
                        .permits_names(entry.resources(), from_resource(packet))
                })
            }
        };
        match incoming {
            _ if !is_permitted => Err(Refusal::Prohibited),
            Incoming::Session(translation) => Ok(Passage::Translated(translation)),
            Incoming::Unknown | Incoming::Expired => Ok(Passage::Unchanged),
        }
    }

    /// Relates an ICMP error to the flow that it is about. Errors are not filtered.
    fn translate_error(&self, packet: PacketRef<'_>, now: Instant) -> Result<ToClient, Refusal> {
        let client = packet.destination();
        let error = packet.icmp_error().ok_or(Refusal::Unsupported)?;
        let failed = error.failed_packet().map_err(|_| Refusal::Unsupported)?;
        if failed.source() != client {
            return Err(Refusal::Unsupported);
        }
        let session =
            self.sessions
                .of_failed_packet(failed.destination(), failed.source_protocol(), now);
        match session {
            Incoming::Unknown => Ok(ToClient::Pass(Passage::Unchanged)),
            Incoming::Expired => Err(Refusal::Expired),
            Incoming::Session(Translation { address, value }) => {
                cover_translated_error(error.kind());
                make::translated_icmp_error(&error, address, client, value)
                    .map(ToClient::Replace)
                    .map_err(|_| Refusal::Unsupported)
            }
        }
    }

    /// Ends the NAT sessions whose time is over.
    pub(super) fn handle_timeout(&mut self, now: Instant) {
        self.sessions.handle_timeout(now);
    }

    /// When something of this client ends next: a NAT session or an authorization.
    pub(super) fn poll_timeout(&self, clock: UnixClock) -> Option<Instant> {
        let expiry = self
            .access
            .next_expiry()
            .and_then(|expiry: Duration| clock.instant_of(expiry));
        [expiry, self.sessions.poll_timeout()]
            .into_iter()
            .flatten()
            .min()
    }
}

/// Counts a translated error by its kind; nothing but in the simulation.
fn cover_translated_error(kind: IcmpErrorKind) {
    match kind {
        IcmpErrorKind::V4Unreachable { .. } | IcmpErrorKind::V6Unreachable { .. } => {
            cover!("nat/error-translated-unreachable");
        }
        IcmpErrorKind::V4FragmentationNeeded { .. } | IcmpErrorKind::V6PacketTooBig { .. } => {
            cover!("nat/error-translated-too-big");
        }
        IcmpErrorKind::V4TimeExceeded { .. } | IcmpErrorKind::V6TimeExceeded { .. } => {
            cover!("nat/error-translated-time-exceeded");
        }
    }
}

/// The gateway itself offers its DNS server and answers to echo requests, nothing else.
fn judge_to_gateway(packet: PacketRef<'_>) -> Result<Passage, Refusal> {
    use connlib_model::FilterProtocol::{Icmp, Other, Tcp, Udp};

    match towards_resource(packet) {
        Tcp(ranges::GATEWAY_DNS_PORT) | Udp(ranges::GATEWAY_DNS_PORT) => Ok(Passage::Unchanged),
        Icmp if packet.source_protocol().is_ok() => Ok(Passage::Unchanged),
        Tcp(_) | Udp(_) | Icmp | Other => Err(Refusal::Prohibited),
    }
}

/// Whether the address is that of one host and not a group or nobody.
fn is_single_host(address: IpAddr) -> bool {
    let is_broadcast = matches!(address, IpAddr::V4(v4) if v4.is_broadcast());
    !address.is_multicast() && !address.is_unspecified() && !is_broadcast
}

/// Whether the packet is any ICMP error or redirect (RFC 1122 §3.2.2, RFC 4443 §2.1).
fn is_icmp_error(packet: PacketRef<'_>) -> bool {
    match (packet.as_icmpv4(), packet.as_icmpv6()) {
        (Some(icmp), _) => matches!(icmp.icmp_type(), 3 | 4 | 5 | 11 | 12),
        (_, Some(icmp)) => icmp.icmp_type() < 128 || icmp.icmp_type() == 137,
        (None, None) => false,
    }
}

#[cfg(test)]
mod tests;
