//! A new configuration, or the passing of time, takes access away or gives it (portal protocol §7.6, §7.8).

use std::collections::BTreeSet;

use connlib_messages::gateway::{FromPortal as ToGateway, RejectAccess, ResourceUpdated};
use connlib_model::{ClientId, GatewayId, ResourceId};

use crate::{
    authorization::{Authorization, Basis},
    config::Config,
    connection::Peer,
    device::{Devices, Owner},
    output::StoreOp,
    portal::{ConnectionId, Portal, Time},
    token::Holder,
};

impl Portal {
    /// Puts a new configuration in force and tells everybody what changed for them.
    pub fn reload(&mut self, config: Config, time: Time) {
        let old = std::mem::replace(&mut self.config, config);
        self.end_sessions_without_token(time);
        let interrupted = self.end_stale_authorizations(time);
        self.forget_stale_requests();
        self.push_new_filters(&old);
        self.refresh_clients(&interrupted, time);
        self.plan_token_ends(time);
        self.plan_policy_change(time);
    }

    fn end_sessions_without_token(&mut self, time: Time) {
        let mut ended: Vec<ConnectionId> = Vec::new();
        for (id, connection) in &mut self.connections {
            let token = self.config.token(&connection.token);
            let same_holder = token.filter(|token| match (token.holder, &connection.peer) {
                (Holder::Client(person), Peer::Client(peer)) => peer.person == person,
                (Holder::Gateway(site), Peer::Gateway(peer)) => peer.site == site,
                (Holder::Relay, Peer::Relay(_)) => true,
                (Holder::Client(_) | Holder::Gateway(_) | Holder::Relay, _) => false,
            });
            match same_holder {
                Some(token) if token.expires_at.is_none_or(|end| end > time.unix) => {
                    connection.expires_at = token.expires_at;
                }
                Some(_) | None => ended.push(*id),
            }
        }
        for id in ended {
            self.end_session(id, time);
        }
    }

    /// Ends the authorizations whose ground is gone and tells their gateways. Expired ones end silently: the gateway
    /// has its own clock. Gives back what was taken from whom.
    pub(crate) fn end_stale_authorizations(
        &mut self,
        time: Time,
    ) -> BTreeSet<(ClientId, ResourceId)> {
        let (config, devices) = (&self.config, &self.devices);
        let holds = |entry: &Authorization| still_holds(entry, config, devices);
        let ended = self
            .authorizations
            .extract(|entry| entry.is_expired(time.unix) || !holds(entry));
        let mut interrupted = BTreeSet::new();
        for entry in ended {
            let (gateway, client, resource) = entry.key();
            self.store(StoreOp::RemoveAuthorization {
                gateway,
                client,
                resource,
            });
            if entry.is_expired(time.unix) {
                continue;
            }
            interrupted.insert((client, resource));
            if let Some(to) = self.joined_gateway(gateway) {
                let reject = RejectAccess {
                    client_id: client,
                    resource_id: resource,
                    flow_id: Some(entry.flow_id),
                };
                self.push(to, &ToGateway::RejectAccess(reject));
            }
            if let Some(client) = self.clients.get(&client) {
                self.flows.forget_request(*client, resource);
            }
        }
        interrupted
    }

    /// Clears away what ended by itself.
    pub(crate) fn purge_expired_authorizations(&mut self, gateway: GatewayId, time: Time) {
        let expired = self
            .authorizations
            .extract(|entry| entry.gateway == gateway && entry.is_expired(time.unix));
        for entry in expired {
            let (gateway, client, resource) = entry.key();
            self.store(StoreOp::RemoveAuthorization {
                gateway,
                client,
                resource,
            });
        }
    }

    /// Requests for resources that are gone.
    fn forget_stale_requests(&mut self) {
        let known: BTreeSet<ResourceId> = self.config.resources.keys().copied().collect();
        self.flows
            .forget_resources(|resource| !known.contains(resource));
    }

    /// Gateways take new filters in place.
    fn push_new_filters(&mut self, old: &Config) {
        let changed = self.config.resources.values().filter(|resource| {
            let before = old.resources.get(&resource.id);
            before.is_some_and(|before| {
                !before.is_replaced_by(resource)
                    && (before.filters != resource.filters || before.name != resource.name)
            })
        });
        let changed: Vec<_> = changed.map(|resource| resource.for_gateway()).collect();
        for resource in changed {
            let entries = self.authorizations.iter();
            let serving: BTreeSet<GatewayId> = entries
                .filter(|entry| entry.resource == resource.id())
                .map(|entry| entry.gateway)
                .collect();
            let update = ToGateway::ResourceUpdated(ResourceUpdated { resource });
            for gateway in serving {
                if let Some(to) = self.joined_gateway(gateway) {
                    self.push(to, &update);
                }
            }
        }
    }
}

/// Whether an authorization would still be given as it was.
fn still_holds(entry: &Authorization, config: &Config, devices: &Devices) -> bool {
    let owner = |id| {
        devices
            .get(id)
            .map(|device| (device.owner, &device.external_id))
    };
    let Some((Owner::Person(person), external_id)) = owner(entry.client.uuid()) else {
        return false;
    };
    let Some((Owner::Site(site), _)) = owner(entry.gateway.uuid()) else {
        return false;
    };
    let policy = config.policies.get(&entry.policy);
    let granted = policy.is_some_and(|policy| {
        policy.people.contains(&person)
            && (!policy.conditions.verified || config.verified_devices.contains(external_id))
    });
    let resource = config.resources.get(&entry.resource);
    granted
        && resource.is_some_and(|resource| resource.sites.contains(&site))
        && config.token(&entry.token).is_some()
        && Basis::of(config, entry.policy, entry.resource) == Some(entry.basis)
}
