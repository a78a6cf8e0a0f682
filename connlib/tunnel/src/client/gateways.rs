//! Which gateway serves which resource, and which gateways the portal should prefer.
//!
//! A *binding* says that the portal authorized a resource on a gateway and that the connection to that gateway has not
//! failed since. Traffic never leaves without one: after a connection is lost all its bindings go, and the next packet
//! asks the portal again (tunnel spec 3.17). Preferences are mere memory: they survive loss and roaming and let the portal
//! pick the same gateway again, which keeps TCP connections alive (tunnel spec 3.10).

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use connlib_lookup::{Secret, Table};
use connlib_model::{GatewayId, ResourceId, SiteId};
use connlib_snownet::{IceCredentials, PublicKey};

use super::FlowCreated;

/// Gateways remembered as preferences; more than any account uses at a time.
const MAX_REMEMBERED: usize = 100;

/// Resources whose last gateway is remembered. Only resources that were used count, so this is far from any real list.
const MAX_SERVED: usize = 10_000;

/// Bindings, peers and preferences.
#[derive(Debug)]
pub(crate) struct Gateways {
    bindings: Table<ResourceId, GatewayId>,
    peers: BTreeMap<GatewayId, Peer>,
    /// Who served a resource last, kept after the binding is gone.
    served_by: BTreeMap<ResourceId, GatewayId>,
    /// Every gateway of this session, most recently authorized last.
    remembered: VecDeque<GatewayId>,
}

/// A gateway that at least one resource is bound to.
#[derive(Debug, Clone)]
pub(crate) struct Peer {
    pub(crate) site: SiteId,
    identity: Identity,
    /// What is bound to it.
    resources: BTreeSet<ResourceId>,
    /// TUN addresses; portals of early 2025 do not tell them.
    ipv4: Option<Ipv4Addr>,
    ipv6: Option<Ipv6Addr>,
    /// Whether the node reported the connection as established.
    is_established: bool,
}

/// What makes a connection the same connection for the node; the preshared key does not (design row 23).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Identity {
    key: PublicKey,
    client_ice: IceCredentials,
    gateway_ice: IceCredentials,
}

/// What is left when a gateway is gone.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Removed {
    pub(crate) site: SiteId,
    pub(crate) resources: BTreeSet<ResourceId>,
}

/// The outcome of removing a resource's binding.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Unbound {
    /// The resource was not bound.
    WasNotBound,
    /// The gateway still serves other resources.
    StillUsed,
    /// That was the last resource of the gateway, which is forgotten as a peer.
    LastOf(GatewayId, SiteId),
}

impl Gateways {
    /// No gateway is known.
    pub(crate) fn new(secret: Secret) -> Self {
        Self {
            bindings: secret.table(),
            peers: BTreeMap::new(),
            served_by: BTreeMap::new(),
            remembered: VecDeque::new(),
        }
    }

    /// Binds a resource to a gateway as the portal decided. The resource must not be bound to another gateway.
    pub(crate) fn bind(&mut self, flow: &FlowCreated) {
        debug_assert!(
            self.binding(flow.resource)
                .is_none_or(|old| old == flow.gateway)
        );

        self.bindings.insert(flow.resource, flow.gateway);
        let peer = self.peers.entry(flow.gateway).or_insert_with(|| Peer {
            site: flow.site,
            identity: Identity::of(flow),
            resources: BTreeSet::new(),
            ipv4: None,
            ipv6: None,
            is_established: false,
        });
        peer.resources.insert(flow.resource);
        peer.site = flow.site;
        peer.ipv4 = flow.gateway_ipv4.or(peer.ipv4);
        peer.ipv6 = flow.gateway_ipv6.or(peer.ipv6);
        self.remember(flow.resource, flow.gateway);
    }

    /// Whether `gateway` is connected under another identity, so that the node replaces the connection.
    pub(crate) fn is_other_identity(&self, gateway: GatewayId, identity: &Identity) -> bool {
        self.peers
            .get(&gateway)
            .is_some_and(|peer| peer.identity != *identity)
    }

    /// The gateway that `resource` may be sent to.
    pub(crate) fn binding(&self, resource: ResourceId) -> Option<GatewayId> {
        self.bindings.get(&resource).copied()
    }

    /// The gateway's peer state, if any resource is bound to it.
    pub(crate) fn peer(&self, gateway: GatewayId) -> Option<&Peer> {
        self.peers.get(&gateway)
    }

    /// All peers, by ascending id.
    pub(crate) fn peers(&self) -> impl Iterator<Item = (GatewayId, &Peer)> {
        self.peers.iter().map(|(id, peer)| (*id, peer))
    }

    /// The gateway whose TUN address is `ip`.
    pub(crate) fn by_tun_address(&self, ip: IpAddr) -> Option<GatewayId> {
        self.peers
            .iter()
            .find(|(_, peer)| peer.has_address(ip))
            .map(|(id, _)| *id)
    }

    /// Whether any connected gateway serves `site`.
    pub(crate) fn is_site_established(&self, site: SiteId) -> bool {
        self.peers
            .values()
            .any(|peer| peer.site == site && peer.is_established)
    }

    /// Whether `resource` is bound to a gateway with an established connection.
    pub(crate) fn is_established(&self, resource: ResourceId) -> bool {
        self.binding(resource)
            .and_then(|gateway| self.peers.get(&gateway))
            .is_some_and(|peer| peer.is_established)
    }

    /// Whether the connection to `gateway` is up.
    pub(crate) fn is_peer_established(&self, gateway: GatewayId) -> bool {
        self.peers
            .get(&gateway)
            .is_some_and(|peer| peer.is_established)
    }

    /// Notes that the connection is up. Returns the site that is reachable now.
    pub(crate) fn on_established(&mut self, gateway: GatewayId) -> Option<SiteId> {
        let peer = self.peers.get_mut(&gateway)?;
        peer.is_established = true;

        Some(peer.site)
    }

    /// Drops the peer and all bindings to it.
    pub(crate) fn remove(&mut self, gateway: GatewayId) -> Option<Removed> {
        let peer = self.peers.remove(&gateway)?;
        for resource in &peer.resources {
            self.bindings.remove(resource);
        }

        Some(Removed {
            site: peer.site,
            resources: peer.resources,
        })
    }

    /// Drops the binding of `resource` and, if it was the last one, its gateway.
    pub(crate) fn unbind(&mut self, resource: ResourceId) -> Unbound {
        let Some(gateway) = self.bindings.remove(&resource) else {
            return Unbound::WasNotBound;
        };
        let Some(peer) = self.peers.get_mut(&gateway) else {
            return Unbound::StillUsed;
        };
        peer.resources.remove(&resource);
        if !peer.resources.is_empty() {
            return Unbound::StillUsed;
        }
        let site = peer.site;
        self.peers.remove(&gateway);

        Unbound::LastOf(gateway, site)
    }

    /// Gateways for `connected_gateway_ids`, best first: who served `resource` before, then connected ones, then by id.
    pub(crate) fn preferred(&self, resource: ResourceId) -> Vec<GatewayId> {
        let mut gateways = self.remembered.iter().copied().collect::<Vec<_>>();
        let last = self.served_by.get(&resource).copied();
        gateways.sort_by_key(|gateway| {
            let is_connected = self
                .peers
                .get(gateway)
                .is_some_and(|peer| peer.is_established);

            (last != Some(*gateway), !is_connected, *gateway)
        });

        gateways
    }

    /// Whether `resource` was served by a gateway and is not any more.
    pub(crate) fn has_lost(&self, resource: ResourceId) -> bool {
        self.served_by.contains_key(&resource) && self.binding(resource).is_none()
    }

    fn remember(&mut self, resource: ResourceId, gateway: GatewayId) {
        self.remembered.retain(|g| *g != gateway);
        if self.remembered.len() == MAX_REMEMBERED {
            self.remembered.pop_front();
        }
        self.remembered.push_back(gateway);

        if self.served_by.len() == MAX_SERVED && !self.served_by.contains_key(&resource) {
            self.served_by.pop_first();
        }
        self.served_by.insert(resource, gateway);
    }
}

impl Identity {
    pub(crate) fn of(flow: &FlowCreated) -> Self {
        Self {
            key: flow.gateway_key,
            client_ice: flow.client_ice.clone(),
            gateway_ice: flow.gateway_ice.clone(),
        }
    }
}

impl Peer {
    /// The gateway's TUN addresses, as far as they are known.
    pub(crate) fn addresses(&self) -> (Option<Ipv4Addr>, Option<Ipv6Addr>) {
        (self.ipv4, self.ipv6)
    }

    /// Whether `ip` is the gateway's own TUN address.
    pub(crate) fn has_address(&self, ip: IpAddr) -> bool {
        match ip {
            IpAddr::V4(ip) => self.ipv4 == Some(ip),
            IpAddr::V6(ip) => self.ipv6 == Some(ip),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const R1: ResourceId = ResourceId::from_u128(1);
    const R2: ResourceId = ResourceId::from_u128(2);
    const G1: GatewayId = GatewayId::from_u128(11);
    const G2: GatewayId = GatewayId::from_u128(12);
    const G3: GatewayId = GatewayId::from_u128(13);
    const SITE: SiteId = SiteId::from_u128(21);

    // tunnel 38
    #[test]
    fn tunnel_38_preference_is_former_gateway_then_connected_then_id() {
        let mut gateways = Gateways::new(Secret::from_seed([0; 32]));
        bind(&mut gateways, R1, G1);
        bind(&mut gateways, R1, G3);
        bind(&mut gateways, R2, G2);
        gateways.on_established(G3);

        assert_eq!(gateways.preferred(R2), [G2, G3, G1]);
        assert_eq!(gateways.preferred(ResourceId::from_u128(99)), [G3, G1, G2]);
    }

    #[test]
    fn preferences_survive_the_loss_of_the_connection() {
        let mut gateways = Gateways::new(Secret::from_seed([0; 32]));
        bind(&mut gateways, R1, G1);
        gateways.remove(G1);
        assert_eq!(gateways.preferred(R1), [G1]);
        assert_eq!(gateways.binding(R1), None);
    }

    // tunnel 39
    #[test]
    fn tunnel_39_resource_moves_to_another_gateway() {
        let mut gateways = Gateways::new(Secret::from_seed([0; 32]));
        bind(&mut gateways, R1, G1);
        assert_eq!(gateways.unbind(R1), Unbound::LastOf(G1, SITE));
        bind(&mut gateways, R1, G2);
        assert_eq!(gateways.binding(R1), Some(G2));
        assert!(gateways.peer(G1).is_none());
        assert_eq!(gateways.preferred(R1), [G2, G1]);
    }

    #[test]
    fn other_key_is_another_identity() {
        let mut gateways = Gateways::new(Secret::from_seed([0; 32]));
        bind(&mut gateways, R1, G1);
        let mut flow = flow(R1, G1);
        assert!(!gateways.is_other_identity(G1, &Identity::of(&flow)));
        flow.preshared_key = [9; 32];
        assert!(!gateways.is_other_identity(G1, &Identity::of(&flow)));
        flow.gateway_key = PublicKey([9; 32]);
        assert!(gateways.is_other_identity(G1, &Identity::of(&flow)));
        assert!(!gateways.is_other_identity(G2, &Identity::of(&flow)));
    }

    // tunnel 70
    #[test]
    fn tunnel_70_lost_gateway_unbinds_all_its_resources() {
        let mut gateways = Gateways::new(Secret::from_seed([0; 32]));
        bind(&mut gateways, R1, G1);
        bind(&mut gateways, R2, G1);
        let removed = gateways.remove(G1);
        assert_eq!(
            removed,
            Some(Removed {
                site: SITE,
                resources: BTreeSet::from([R1, R2])
            })
        );
        assert_eq!((gateways.binding(R1), gateways.binding(R2)), (None, None));
    }

    #[test]
    fn gateway_stays_while_another_resource_uses_it() {
        let mut gateways = Gateways::new(Secret::from_seed([0; 32]));
        bind(&mut gateways, R1, G1);
        bind(&mut gateways, R2, G1);
        assert_eq!(gateways.unbind(R1), Unbound::StillUsed);
        assert_eq!(gateways.unbind(R2), Unbound::LastOf(G1, SITE));
    }

    #[test]
    fn memory_of_gateways_is_bounded() {
        let mut gateways = Gateways::new(Secret::from_seed([0; 32]));
        for id in 0..1000 {
            bind(&mut gateways, R1, GatewayId::from_u128(id));
        }
        assert_eq!(gateways.preferred(R1).len(), MAX_REMEMBERED);
        assert_eq!(gateways.preferred(R1)[0], GatewayId::from_u128(999));
    }

    fn bind(gateways: &mut Gateways, resource: ResourceId, gateway: GatewayId) {
        if gateways.binding(resource).is_some_and(|old| old != gateway) {
            gateways.unbind(resource);
        }
        gateways.bind(&flow(resource, gateway));
    }

    fn flow(resource: ResourceId, gateway: GatewayId) -> FlowCreated {
        let ice = IceCredentials::new("abcd", "0123456789012345678901").expect("valid");

        FlowCreated {
            resource,
            gateway,
            site: SITE,
            gateway_key: PublicKey([1; 32]),
            preshared_key: [2; 32],
            client_ice: ice.clone(),
            gateway_ice: ice,
            gateway_ipv4: None,
            gateway_ipv6: None,
        }
    }
}
