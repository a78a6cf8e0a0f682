//! Control packets of clients, and the answers of the resolver (tunnel spec §5.7).

use std::net::IpAddr;
use std::time::Instant;

use connlib_model::ClientId;
use ip_packet::Control;

use super::access::NameAccess;
use super::names::Lookup;
use super::nat::{Assigned, Assignment};
use super::peer::ClientPeer;
use super::state::Gateway;
use super::{GatewayEvent, ResolveError, ResolveId};
use crate::p2p_control::{AssignedIps, ControlEvent, DomainStatus, NatStatus};

impl Gateway {
    /// Takes the answer to [`GatewayEvent::ResolveDns`]: all addresses of both families, in any order; none if the name
    /// does not exist.
    ///
    /// A failed look-up leaves the addresses that the name had.
    pub fn handle_resolved(
        &mut self,
        id: ResolveId,
        result: Result<Vec<IpAddr>, ResolveError>,
        now: Instant,
    ) {
        let Some(lookup) = self.lookups.finish(id) else {
            tracing::debug!("Ignoring answer to a look-up that nobody waits for any more");
            return;
        };
        self.finish_lookup(lookup, result, now);
    }

    pub(super) fn handle_control(&mut self, client: ClientId, control: Control<'_>, now: Instant) {
        match ControlEvent::decode(control) {
            Ok(ControlEvent::AssignedIps(request)) => {
                self.handle_assigned_ips(client, request, now)
            }
            Ok(ControlEvent::Goodbye) => {
                tracing::debug!(%client, "Client said goodbye");
                self.flows.invalidate();
                self.peers.remove(client);
                self.node.remove(client, now);
            }
            Ok(ControlEvent::DomainStatus(_)) => {
                tracing::debug!(%client, "Ignoring control event that only gateways send");
            }
            Err(error) => tracing::debug!(%client, %error, "Ignoring control event"),
        }
    }

    fn handle_assigned_ips(&mut self, client: ClientId, request: AssignedIps, now: Instant) {
        let Some(peer) = self.peers.get_mut(client) else {
            return;
        };
        let access = peer.access.name_access(request.resource, &request.domain);
        if access != NameAccess::Covered {
            tracing::debug!(%client, resource = %request.resource, domain = %request.domain, ?access, "Refusing to translate a name");
            let (resource, domain) = (request.resource, request.domain);
            let status = NatStatus::Inactive;
            self.send_status(
                client,
                DomainStatus {
                    resource,
                    domain,
                    status,
                },
                now,
            );
            return;
        }
        let domain = request.domain.clone();
        match self.lookups.begin(client, request, now) {
            Some(id) => {
                self.output_at = now;
                self.events
                    .push_back(GatewayEvent::ResolveDns { id, domain });
            }
            None => {
                tracing::debug!(%client, "Too many look-ups in flight");
                self.stats.dropped_lookups += 1;
            }
        }
    }

    pub(super) fn finish_lookup(
        &mut self,
        lookup: Lookup,
        result: Result<Vec<IpAddr>, ResolveError>,
        now: Instant,
    ) {
        if let Err(error) = &result {
            tracing::debug!(domain = %lookup.domain, %error, "Look-up failed");
        }
        self.flows.invalidate();
        let client = lookup.client;
        let Some(peer) = self.peers.get_mut(client) else {
            return;
        };
        let status = translate_name(peer, &lookup, result.ok().as_deref());
        let Lookup {
            resource, domain, ..
        } = lookup;
        self.send_status(
            client,
            DomainStatus {
                resource,
                domain,
                status,
            },
            now,
        );
    }

    fn send_status(&mut self, client: ClientId, status: DomainStatus, now: Instant) {
        match status.to_packet() {
            Ok(packet) => self.send(client, &packet, now),
            Err(error) => tracing::debug!(%client, %error, "Cannot build status of a domain"),
        }
    }
}

/// Maps the proxy addresses of a name to what it resolved to. Access may have ended while the look-up was in flight.
fn translate_name(
    peer: &mut ClientPeer,
    lookup: &Lookup,
    resolved: Option<&[IpAddr]>,
) -> NatStatus {
    if peer.access.name_access(lookup.resource, &lookup.domain) != NameAccess::Covered {
        return NatStatus::Inactive;
    }
    let assignment = Assignment {
        resource: lookup.resource,
        domain: &lookup.domain,
        proxies: &lookup.proxies,
    };
    tracing::debug!(domain = %lookup.domain, ?resolved, "Translating a name");
    match peer.names.assign(&assignment, resolved) {
        Ok(Assigned::Kept) => NatStatus::Active,
        Ok(Assigned::Renumbered) => {
            tracing::debug!(domain = %lookup.domain, "Client numbers its proxy addresses anew");
            let is_new = |proxy: IpAddr| lookup.proxies.contains(&proxy);
            peer.sessions
                .retain(|proxy| !is_new(proxy) && peer.names.get(proxy).is_some());
            NatStatus::Active
        }
        Err(error) => {
            tracing::debug!(domain = %lookup.domain, %error, "Refusing to translate a name");
            NatStatus::Inactive
        }
    }
}
