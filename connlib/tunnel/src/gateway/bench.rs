//! The gateway's decisions without connections around them, for the crate's benchmarks.

use std::net::IpAddr;
use std::time::Instant;

use connlib_lookup::Secret;
use connlib_model::{ClientId, DomainName, GatewayResource, ResourceId};
use ip_packet::PacketMut;

use super::TunAddresses;
use super::flow_cache::{Flow, FlowCache};
use super::nat::Assignment;
use super::peer::{ClientPeer, ToClient};

/// One client of a gateway.
#[derive(Debug)]
pub struct BenchPeer {
    peer: ClientPeer,
    flows: FlowCache,
}

impl BenchPeer {
    /// A client with these addresses and this access.
    pub fn new(addresses: TunAddresses, resources: &[GatewayResource]) -> Self {
        let mut peer = ClientPeer::new(addresses, Secret::from_seed([0; 32]));
        for resource in resources {
            peer.access.authorize(resource, None);
        }
        Self {
            peer,
            flows: FlowCache::default(),
        }
    }

    /// Maps the proxy addresses of a name.
    ///
    /// # Panics
    ///
    /// If an address is no proxy address.
    pub fn resolve(
        &mut self,
        resource: ResourceId,
        domain: &DomainName,
        proxies: &[IpAddr],
        resolved: &[IpAddr],
    ) {
        let assignment = Assignment {
            resource,
            domain,
            proxies,
        };
        self.peer
            .names
            .assign(&assignment, Some(resolved))
            .expect("proxy addresses");
    }

    /// Decides about a packet of the client and translates it. Returns whether it passes.
    pub fn from_client(&mut self, packet: &mut PacketMut<'_>, now: Instant) -> bool {
        self.peer
            .judge_from_client(packet.view(), None, now)
            .is_ok_and(|passage| passage.apply_from_client(packet).is_ok())
    }

    /// The same with the decision of the packet before, if it is of the same flow.
    pub fn from_client_cached(&mut self, packet: &mut PacketMut<'_>, now: Instant) -> bool {
        let flow = Flow::of(ClientId::from_u128(1), packet.view());
        if let Some(flow) = &flow
            && let Some(passage) = self.flows.get(flow, now)
        {
            return passage.apply_from_client(packet).is_ok();
        }
        let Ok(passage) = self.peer.judge_from_client(packet.view(), None, now) else {
            return false;
        };
        if let Some(flow) = flow {
            self.flows.insert(flow, now, passage);
        }
        passage.apply_from_client(packet).is_ok()
    }

    /// Decides about a packet to the client and translates it. Returns whether it passes.
    pub fn to_client(&mut self, packet: &mut PacketMut<'_>, now: Instant) -> bool {
        match self.peer.judge_to_client(packet.view(), None, now) {
            Ok(ToClient::Pass(passage)) => passage.apply_to_client(packet).is_ok(),
            Ok(ToClient::Replace(_)) => true,
            Err(_) => false,
        }
    }
}
