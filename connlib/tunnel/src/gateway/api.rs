//! What goes into and comes out of the gateway besides packets.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use connlib_model::{ClientId, DomainName, GatewayResource};
use connlib_snownet::{IceCredentials, PublicKey};

/// A client's access to one resource, as told by the portal.
#[derive(Debug, Clone)]
pub struct AuthorizeFlow {
    /// Who may access.
    pub client: ClientId,
    /// WireGuard key of the client.
    pub client_key: PublicKey,
    /// WireGuard preshared key of the connection.
    pub preshared_key: [u8; 32],
    /// TUN address of the client.
    pub client_ipv4: Ipv4Addr,
    /// TUN address of the client.
    pub client_ipv6: Ipv6Addr,
    /// ICE credentials of the client.
    pub client_ice: IceCredentials,
    /// ICE credentials of this gateway towards the client.
    pub gateway_ice: IceCredentials,
    /// What may be accessed.
    pub resource: GatewayResource,
    /// When access ends, as time since the Unix epoch; `None` for never.
    pub expires_at: Option<Duration>,
}

/// Something that the portal, the resolver or the operator must learn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GatewayEvent {
    /// Candidates of ours that a client must learn.
    AddedIceCandidates {
        /// The client to signal them to.
        client: ClientId,
        /// SDP form.
        candidates: BTreeSet<String>,
    },
    /// Candidates of ours that a client must drop.
    RemovedIceCandidates {
        /// The client to signal them to.
        client: ClientId,
        /// SDP form.
        candidates: BTreeSet<String>,
    },
    /// A name to resolve, A and AAAA, answered by [`handle_resolved`](crate::Gateway::handle_resolved).
    ResolveDns {
        /// Names the answer.
        id: ResolveId,
        /// What to resolve.
        domain: DomainName,
    },
    /// The last relay is gone; the portal must send new ones.
    NoRelays,
}

/// Names one look-up between [`GatewayEvent::ResolveDns`] and its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ResolveId(pub(super) u64);

/// Why a look-up yielded no answer. A name that does not exist is not an error but an empty list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ResolveError {
    /// No name server answered in time.
    #[error("no name server answered in time")]
    TimedOut,
    /// Name servers answered with failures only.
    #[error("name servers answered with failures")]
    Failed,
}

/// The addresses of a TUN device, assigned by the portal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TunAddresses {
    /// IPv4 address of the TUN device.
    pub v4: Ipv4Addr,
    /// IPv6 address of the TUN device.
    pub v6: Ipv6Addr,
}

impl TunAddresses {
    /// Whether `address` is one of the two.
    pub(super) fn contains(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(v4) => v4 == self.v4,
            IpAddr::V6(v6) => v6 == self.v6,
        }
    }
}

/// Counters of packets that went no further, by the decision that stopped them, and of what was passed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct GatewayStats {
    /// Packets passed from clients to the TUN device.
    pub from_clients: u64,
    /// Super-packets passed from the TUN device to clients.
    pub to_clients: u64,
    /// Datagrams that the connections refused: unknown sender, too large, replayed, not authentic.
    pub rejected_datagrams: u64,
    /// Packets that were no valid IP packets, fragments included.
    pub malformed: u64,
    /// Packets from a client with a source address that is not the client's.
    pub spoofed: u64,
    /// Packets of clients that no authorization permits.
    pub prohibited: u64,
    /// Packets of clients to names without address or to addresses that lead nowhere.
    pub unreachable: u64,
    /// Packets to clients that no authorization permits.
    pub filtered: u64,
    /// Packets from the TUN device to no known client.
    pub not_a_peer: u64,
    /// Packets that cannot be translated, and multicast.
    pub unsupported: u64,
    /// Packets to clients that belong to an expired NAT session.
    pub expired_sessions: u64,
    /// Packets of clients that found no free NAT session.
    pub nat_exhausted: u64,
    /// Packets that could not be sealed: no connection, or none established yet.
    pub not_connected: u64,
    /// Packets lost because the caller did not drain the coalescer.
    pub overflow: u64,
    /// Requests for a look-up that were dropped because too many are in flight.
    pub dropped_lookups: u64,
}
