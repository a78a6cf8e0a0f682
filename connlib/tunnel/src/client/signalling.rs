//! What the portal and the application change (tunnel spec 2, 3.3, 3.10, 3.11, 3.17).

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use connlib_cover::cover;
use connlib_model::{GatewayId, RelayId, Resource, ResourceId, TunConfig};
use connlib_snownet::{NoRelays, RelayConfig};

use super::gateways::Identity;
use super::intents::{Ask, Held};
use super::resources::Upserted;
use super::stub_resolver::Question;
use super::{Client, FlowCreated, FlowError, FlowFailure, InterfaceConfig};
use crate::goodbye_packet;

impl Client {
    /// Sets addresses and DNS servers, replacing the former ones. Connections are untouched.
    pub fn set_interface(&mut self, interface: InterfaceConfig, now: Instant) {
        let now = self.advance(now);
        self.resolver.set_upstreams(&interface.upstream_dns);
        self.interface = Some(interface);
        self.invalidate_decisions();
        self.refresh_tun_config(now);
    }

    /// Sets the resolvers of the system, which are used when the portal names no upstreams.
    pub fn set_system_resolvers(&mut self, resolvers: Vec<IpAddr>, now: Instant) {
        let now = self.advance(now);
        self.resolver.set_system_resolvers(resolvers);
        self.refresh_tun_config(now);
    }

    /// Replaces the whole list of resources. What persists keeps its state and its flows.
    pub fn set_resources(&mut self, list: Vec<Resource>, now: Instant) {
        let now = self.advance(now);
        for id in self.resources.missing_from(&list) {
            self.resources.remove(id);
            self.deactivate(id, now);
        }
        for resource in list {
            self.upsert(resource, now);
        }
        self.on_resources_changed(now);
    }

    /// Adds a resource or updates the one with the same id.
    pub fn add_resource(&mut self, resource: Resource, now: Instant) {
        let now = self.advance(now);
        self.upsert(resource, now);
        self.on_resources_changed(now);
    }

    /// Removes a resource. Its proxy IPs stay assigned but lead nowhere.
    pub fn remove_resource(&mut self, id: ResourceId, now: Instant) {
        let now = self.advance(now);
        if self.resources.remove(id) {
            self.deactivate(id, now);
            self.on_resources_changed(now);
        }
    }

    /// Sets which resources the user switched off, known or not. All others are on.
    pub fn set_disabled_resources(&mut self, disabled: BTreeSet<ResourceId>, now: Instant) {
        let now = self.advance(now);
        for id in self.resources.set_disabled(disabled) {
            self.deactivate(id, now);
        }
        self.on_resources_changed(now);
    }

    /// Changes the set of relays: those in `remove` go, those in `add` are taken or replaced.
    pub fn update_relays(
        &mut self,
        remove: &BTreeSet<RelayId>,
        add: &[RelayConfig<RelayId>],
        now: Instant,
    ) {
        let now = self.advance(now);
        self.node.update_relays(remove, add, now);
        self.drain_node(now);
    }

    /// Adds a local socket address that relays cannot discover. Forgotten by [`Client::reset`].
    pub fn add_host_candidate(&mut self, address: SocketAddr, now: Instant) {
        let now = self.advance(now);
        self.node.add_host_candidate(address, now);
        self.drain_node(now);
    }

    /// Uses access that the portal granted.
    ///
    /// # Errors
    ///
    /// [`FlowError`]; nothing is bound then. After [`FlowError::NoRelays`] what waited is lost and the next packet asks
    /// again; the portal has to be told that there is no relay.
    pub fn handle_flow_created(
        &mut self,
        flow: FlowCreated,
        now: Instant,
    ) -> Result<(), FlowError> {
        let now = self.advance(now);
        let resource = flow.resource;
        if !self.resources.is_active(resource) {
            return Err(FlowError::UnknownResource(resource));
        }
        if !self.intents.contains(resource) {
            return Err(FlowError::NoPendingIntent(resource));
        }
        if let Err(NoRelays) = self.connect(&flow, now) {
            let queries = self.intents.take_queries(resource);
            self.refuse_queries(queries, now);
            return Err(FlowError::NoRelays);
        }
        let held = self
            .intents
            .take(resource)
            .ok_or(FlowError::NoPendingIntent(resource))?;
        self.bind(&flow, now);
        self.announce_domains_of(resource, now);
        self.release(held, flow.gateway, now);

        Ok(())
    }

    /// Takes in that the portal granted no access to `resource`.
    ///
    /// "Offline" ends the wait. Any other reason may have been remedied by the time of the next packet, which asks again.
    pub fn handle_flow_failed(&mut self, resource: ResourceId, failure: FlowFailure, now: Instant) {
        let now = self.advance(now);
        match failure {
            FlowFailure::Offline => self.on_offline(resource, now),
            FlowFailure::NotFound | FlowFailure::Forbidden | FlowFailure::Other => {
                tracing::debug!(%resource, ?failure, "access denied");
                self.intents.deny(resource);
            }
        }
    }

    /// The portal has a new connection, which does not know what the earlier one was asked: asks for all that still waits.
    pub fn ask_again(&mut self, now: Instant) {
        let now = self.advance(now);
        for resource in self.intents.ask_again(now) {
            self.request_access(resource, Ask::Now);
        }
    }

    /// Adds candidates of a gateway, in SDP form. Unknown gateways and unparsable candidates are ignored.
    pub fn add_ice_candidates(
        &mut self,
        gateway: GatewayId,
        candidates: Vec<String>,
        now: Instant,
    ) {
        let now = self.advance(now);
        for candidate in candidates {
            self.node.add_remote_candidate(gateway, &candidate, now);
        }
        self.drain_node(now);
    }

    /// Drops candidates that a gateway has invalidated, in SDP form.
    pub fn remove_ice_candidates(
        &mut self,
        gateway: GatewayId,
        candidates: Vec<String>,
        now: Instant,
    ) {
        let now = self.advance(now);
        for candidate in candidates {
            self.node.remove_remote_candidate(gateway, &candidate, now);
        }
        self.drain_node(now);
    }

    /// Starts over after a change of network: new key, no connections. Resources, proxy IPs, sentinels, routes and pending
    /// intents persist. The caller rebinds its sockets, reconnects the portal with the new [`Client::public_key`] and calls
    /// [`Client::ask_again`] then.
    pub fn reset(&mut self, now: Instant) {
        let now = self.advance(now);
        self.transmits.clear();
        self.node.reset(now);
        self.drain_node(now);
        self.resolver.reset(now);
        self.drain_resolver(now);
    }

    /// Says goodbye to every gateway and gives allocations on relays back. The caller sends what [`Client::poll_transmit`] yields and then drops the client.
    pub fn shutdown(&mut self, now: Instant) {
        let now = self.advance(now);
        self.node.shutdown(Some(&goodbye_packet()), now);
        self.drain_node(now);
    }

    fn upsert(&mut self, resource: Resource, now: Instant) {
        let id = resource.id();
        match self.resources.upsert(resource) {
            Upserted::Unchanged | Upserted::ViewOnly => {}
            Upserted::Added => tracing::info!(resource = %id, "resource added"),
            Upserted::Replaced => {
                tracing::info!(resource = %id, "resource replaced");
                self.deactivate(id, now);
            }
        }
    }

    /// Ends everything that rests on `id` being there. Its proxy IPs stay assigned: applications cache addresses.
    fn deactivate(&mut self, id: ResourceId, now: Instant) {
        self.outbox.drop_intent(id);
        if let Some(held) = self.intents.take(id) {
            self.refuse_queries(held.queries, now);
        }
        self.unbind(id, now);
    }

    fn on_resources_changed(&mut self, now: Instant) {
        let gateways = &self.gateways;
        self.routing
            .rebuild(self.resources.active(), |id| gateways.is_established(id));
        self.invalidate_decisions();
        self.refresh_resource_list();
        self.refresh_tun_config(now);
    }

    /// Announces the TUN configuration if it differs from the last one (tunnel spec 3.5).
    fn refresh_tun_config(&mut self, now: Instant) {
        let Some(interface) = &self.interface else {
            return;
        };
        let (routes_v4, routes_v6) = self.routing.networks();
        let config = TunConfig {
            ipv4: interface.ipv4,
            ipv6: interface.ipv6,
            dns_sentinels: self.resolver.sentinels(),
            search_domain: interface.search_domain.clone(),
            routes_v4,
            routes_v6,
        };
        if self.outbox.tun_config.set(config) {
            self.resolver
                .on_config_changed(interface.ipv4, interface.ipv6, now);
            self.drain_resolver(now);
        }
    }

    /// Makes the connection, or makes sure that the existing one is the right one.
    fn connect(&mut self, flow: &FlowCreated, now: Instant) -> Result<(), NoRelays> {
        self.node.upsert_connection(
            flow.gateway,
            flow.gateway_key,
            flow.preshared_key,
            flow.client_ice.clone(),
            flow.gateway_ice.clone(),
            now,
        )?;
        let identity = Identity::of(flow);
        if self.gateways.is_other_identity(flow.gateway, &identity) {
            // A gateway with a new key has lost all authorizations and translations.
            self.on_gateway_lost(flow.gateway);
        }
        self.drain_node(now);

        Ok(())
    }

    fn bind(&mut self, flow: &FlowCreated, now: Instant) {
        let resource = flow.resource;
        if self
            .gateways
            .binding(resource)
            .is_some_and(|old| old != flow.gateway)
        {
            self.unbind(resource, now);
        }
        self.gateways.bind(flow);
        self.invalidate_decisions();
    }

    /// Sends what waited for the access, in order.
    fn release(&mut self, held: Held<Question>, gateway: GatewayId, now: Instant) {
        cover!("connection/setup-buffer-flushed" if !held.packets.is_empty());
        for packet in held.packets {
            self.forward(packet, now);
        }
        for query in held.queries {
            self.ask_site(query, gateway, now);
        }
    }

    fn on_offline(&mut self, resource: ResourceId, now: Instant) {
        let Some(known) = self.resources.get(resource) else {
            return;
        };
        tracing::info!(%resource, "no gateway is online");
        let sites = known.sites().iter().map(|site| site.id).collect::<Vec<_>>();

        self.deactivate(resource, now);
        for site in sites {
            if !self.gateways.is_site_established(site) {
                self.sites.set_offline(site, now);
            }
        }
        self.refresh_resource_list();
    }
}
