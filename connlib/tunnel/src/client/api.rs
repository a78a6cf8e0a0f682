//! What goes into and comes out of the client besides packets.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use connlib_model::{DomainName, GatewayId, RelayId, ResourceId, ResourceView, SiteId, TunConfig};
use connlib_snownet::{IceCredentials, PathInfo, PublicKey};

/// Addresses and DNS servers of this client, assigned by the portal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InterfaceConfig {
    /// IPv4 address of the TUN device.
    pub ipv4: Ipv4Addr,
    /// IPv6 address of the TUN device.
    pub ipv6: Ipv6Addr,
    /// DNS servers for names that are no resources; empty: the system's resolvers.
    pub upstream_dns: Vec<SocketAddr>,
    /// Appended to single-label queries by the operating system.
    pub search_domain: Option<DomainName>,
}

/// Access to one resource, granted by the portal.
#[derive(Debug, Clone)]
pub struct FlowCreated {
    /// What may be accessed.
    pub resource: ResourceId,
    /// Through whom.
    pub gateway: GatewayId,
    /// Where the gateway is.
    pub site: SiteId,
    /// WireGuard key of the gateway.
    pub gateway_key: PublicKey,
    /// WireGuard preshared key; an existing connection keeps the one it was made with.
    pub preshared_key: [u8; 32],
    /// ICE credentials of this client towards the gateway.
    pub client_ice: IceCredentials,
    /// ICE credentials of the gateway.
    pub gateway_ice: IceCredentials,
    /// TUN address of the gateway; portals of early 2025 do not tell it.
    pub gateway_ipv4: Option<Ipv4Addr>,
    /// TUN address of the gateway; portals of early 2025 do not tell it.
    pub gateway_ipv6: Option<Ipv6Addr>,
}

/// Why a granted access could not be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FlowError {
    /// No connection can be made without a relay; the portal has to send some. Packets go on waiting for access, and ask for it
    /// again as if there had been no answer.
    #[error("no usable relay is known")]
    NoRelays,
    /// The resource is not in the list, or switched off.
    #[error("resource {0} is unknown")]
    UnknownResource(ResourceId),
    /// Nobody waits for this answer: it is late or a duplicate.
    #[error("no access to resource {0} was asked for")]
    NoPendingIntent(ResourceId),
}

/// Why the portal granted no access.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FlowFailure {
    /// No gateway of the resource's sites is online.
    Offline,
    /// The portal does not know the resource.
    NotFound,
    /// A policy forbids it.
    Forbidden,
    /// Something else.
    Other,
}

/// Something that the portal, the application or the operating system must learn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientEvent {
    /// The TUN device and the host's DNS have to be set to this.
    TunConfigUpdated(TunConfig),
    /// The list of resources or a status in it changed.
    ResourcesChanged(Vec<ResourceView>),
    /// Access to a resource is needed.
    ConnectionIntent {
        /// The resource.
        resource: ResourceId,
        /// Gateways that would be welcome, best first.
        connected_gateways: Vec<GatewayId>,
    },
    /// Candidates of ours that a gateway must drop.
    RemovedIceCandidates {
        /// The gateway to signal them to.
        gateway: GatewayId,
        /// SDP form.
        candidates: BTreeSet<String>,
    },
    /// Candidates of ours that a gateway must learn.
    AddedIceCandidates {
        /// The gateway to signal them to.
        gateway: GatewayId,
        /// SDP form.
        candidates: BTreeSet<String>,
    },
    /// The last relay is gone; the portal must send new ones.
    NoRelays,
}

/// A connection to a gateway, for status views.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GatewayView {
    /// The gateway.
    pub gateway: GatewayId,
    /// Where it is.
    pub site: SiteId,
    /// The path in use; `None` while there is none.
    pub path: Option<PathInfo<RelayId>>,
}

/// Packets that were not sent or not delivered, counted by reason. A super-packet counts once.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ClientStats {
    /// From the TUN device: not a packet that the tunnel carries (fragment, bad lengths, too large).
    pub malformed: u64,
    /// From the TUN device: source is not our address.
    pub foreign_source: u64,
    /// From the TUN device: to a multicast or broadcast address, or to ourselves.
    pub not_unicast: u64,
    /// From the TUN device: no resource covers the destination, or the protocol is unsupported.
    pub unroutable: u64,
    /// From the TUN device: refused by the resource's filters and answered with an ICMP error.
    pub refused: u64,
    /// From the TUN device: waiting for the portal or for a NAT set-up.
    pub held: u64,
    /// From a gateway: source or destination is not what the gateway may send.
    pub spoofed: u64,
    /// From a gateway: not a packet that the tunnel carries.
    pub malformed_inbound: u64,
    /// To the TUN device: lost because it was not read fast enough.
    pub overflow: u64,
}
