//! The client's channel: its full state, its requests, and the differences when what it may reach changes.

use std::collections::{BTreeMap, BTreeSet};

use connlib_messages::{
    ClientInterface, FlowLogs, Message as _,
    client::{CandidatesForGateways, ConfigChanged, FromPortal, Init, ToPortal},
    gateway::{ClientCandidates, FromPortal as ToGateway},
};
use connlib_model::{ClientId, Resource, ResourceId, Site, SiteId};
use serde_json::Value;

use crate::{
    connection::{Channel, ClientPeer, ClientView, Connection, Peer, RelayView},
    output::Refusal,
    policy::{Circumstances, Verdict},
    portal::{ConnectionId, Portal, Time},
};

/// Most addressees of one candidate message; components name one.
const MAX_ADDRESSEES: usize = 100;

impl Portal {
    pub(crate) fn join_client(&mut self, id: ConnectionId, time: Time) {
        let Some(connection) = self.connections.get(&id) else {
            return;
        };
        let Some(client) = connection.client() else {
            return;
        };
        let interface = self.interface_of(client);
        let resources = self.resources_for(connection, client, time);
        let mut relays = RelayView::default();
        let entries = self.choose_relays(connection, &mut relays);
        let init = Init {
            interface: interface.clone(),
            resources: resources.values().cloned().collect(),
            relays: entries,
            authorizations: Vec::new(),
            flow_logs: Some(no_flow_logs()),
        };
        let view = ClientView {
            interface,
            resources,
            relays,
        };
        if let Some(client) = self.client_mut(id) {
            client.channel = Channel::Joined(view);
        }
        self.push(id, &FromPortal::Init(Box::new(init)));
    }

    pub(crate) fn handle_client_event(
        &mut self,
        id: ConnectionId,
        event: &str,
        payload: Value,
        time: Time,
    ) -> Option<Result<(), Refusal>> {
        let message = match ToPortal::parse(event, payload) {
            Ok(message) => message,
            Err(error) => {
                tracing::debug!(%error, "refusing a client's message");
                return Some(Err(Refusal::InvalidPayload));
            }
        };
        match message {
            ToPortal::CreateFlow(wish) => self.create_flow(id, wish, time),
            ToPortal::BroadcastIceCandidates(candidates) => {
                self.forward_to_gateways(id, candidates, ToGateway::IceCandidates);
            }
            ToPortal::BroadcastInvalidatedIceCandidates(candidates) => {
                self.forward_to_gateways(id, candidates, ToGateway::InvalidateIceCandidates);
            }
            ToPortal::NoRelays => self.answer_no_relays(id),
            // Connections without ICE are not built: the answer to the capability is `use_iceless: false`.
            ToPortal::SetSnownetCapabilities(_) => {}
            ToPortal::Unknown { event } if event == "create_log_sink" => {
                return Some(Err(Refusal::Disabled));
            }
            ToPortal::Unknown { event } => {
                tracing::debug!(event, "a client sent an unknown message");
                return Some(Err(Refusal::UnknownMessage));
            }
        }
        None
    }

    fn forward_to_gateways(
        &mut self,
        from: ConnectionId,
        message: CandidatesForGateways,
        wrap: impl Fn(ClientCandidates) -> ToGateway,
    ) {
        let Some(client) = self.connections.get(&from).and_then(Connection::client) else {
            return;
        };
        let payload = wrap(ClientCandidates {
            client_id: client.id,
            candidates: message.candidates,
        });
        for gateway in message.gateway_ids.into_iter().take(MAX_ADDRESSEES) {
            if let Some(to) = self.joined_gateway(gateway) {
                self.push(to, &payload);
            }
        }
    }

    /// The connection of a client, if it is joined.
    pub(crate) fn joined_client(&self, id: ClientId) -> Option<ConnectionId> {
        let connection = self.clients.get(&id)?;
        let joined = self.connections.get(connection)?.is_joined();
        joined.then_some(*connection)
    }

    /// Sends every joined client what changed for it. Resources in `interrupted` lost an authorization and are taken
    /// away and given back, so that clients ask for them again.
    pub(crate) fn refresh_clients(
        &mut self,
        interrupted: &BTreeSet<(ClientId, ResourceId)>,
        time: Time,
    ) {
        let ids: Vec<_> = self.clients.values().copied().collect();
        for id in ids {
            self.refresh_client(id, interrupted, time);
        }
    }

    fn refresh_client(
        &mut self,
        id: ConnectionId,
        interrupted: &BTreeSet<(ClientId, ResourceId)>,
        time: Time,
    ) {
        let Some(connection) = self.connections.get(&id) else {
            return;
        };
        let Some(client) = connection.client() else {
            return;
        };
        let Some(view) = client.channel.joined() else {
            return;
        };
        let interface = self.interface_of(client);
        let resources = self.resources_for(connection, client, time);
        let is_interrupted = |resource: &ResourceId| interrupted.contains(&(client.id, *resource));
        let mut messages = Vec::new();
        if interface != view.interface {
            messages.push(FromPortal::ConfigChanged(ConfigChanged {
                interface: interface.clone(),
            }));
        }
        messages.extend(changes(&view.resources, &resources, is_interrupted));
        if let Some(view) = self
            .client_mut(id)
            .and_then(|client| client.channel.joined_mut())
        {
            view.interface = interface;
            view.resources = resources;
        }
        for message in &messages {
            self.push(id, message);
        }
    }

    fn client_mut(&mut self, id: ConnectionId) -> Option<&mut ClientPeer> {
        match &mut self.connections.get_mut(&id)?.peer {
            Peer::Client(client) => Some(client),
            Peer::Gateway(_) | Peer::Relay(_) => None,
        }
    }

    fn interface_of(&self, client: &ClientPeer) -> ClientInterface {
        ClientInterface::new(
            client.device.ipv4,
            client.device.ipv6,
            &self.config.dns_servers,
            self.config.search_domain.clone(),
        )
    }

    /// What the client may reach now: resources with a site and a policy whose conditions hold.
    fn resources_for(
        &self,
        connection: &Connection,
        client: &ClientPeer,
        time: Time,
    ) -> BTreeMap<ResourceId, Resource> {
        let circumstances = self.circumstances(connection, client, time);
        let policies = self.config.policies.values();
        let granted = policies.filter(|policy| {
            policy.people.contains(&client.person)
                && matches!(
                    policy.conditions.evaluate(&circumstances),
                    Verdict::Granted(_)
                )
        });
        let resources = granted.filter_map(|policy| self.config.resources.get(&policy.resource));
        resources
            .filter(|resource| !resource.sites.is_empty())
            .map(|resource| (resource.id, self.config.for_client(resource)))
            .collect()
    }

    pub(crate) fn circumstances<'a>(
        &self,
        connection: &'a Connection,
        client: &ClientPeer,
        time: Time,
    ) -> Circumstances<'a> {
        Circumstances {
            remote_ip: connection.remote_ip,
            region: connection.location.region.as_deref(),
            verified: self.config.verified_devices.contains(&client.external_id),
            unix: time.unix,
        }
    }
}

/// Uploads are off.
pub(crate) fn no_flow_logs() -> FlowLogs {
    FlowLogs {
        api_url: "https://flow-logs.invalid/".to_owned(),
        upload_interval_secs: 0,
        upload_batch_size: 0,
    }
}

/// The messages that turn what a client knows into what it should know: removals first.
fn changes(
    old: &BTreeMap<ResourceId, Resource>,
    new: &BTreeMap<ResourceId, Resource>,
    interrupted: impl Fn(&ResourceId) -> bool,
) -> Vec<FromPortal> {
    let goes = |id: &&ResourceId| match (old.get(id), new.get(id)) {
        (Some(old), Some(new)) => interrupted(id) || is_replaced(old, new),
        (Some(_), None) => true,
        (None, _) => false,
    };
    let gone: BTreeSet<_> = old.keys().filter(goes).copied().collect();
    let comes = new
        .iter()
        .filter(|(id, resource)| gone.contains(id) || old.get(id) != Some(resource));
    let created = comes.map(|(_, resource)| FromPortal::ResourceCreatedOrUpdated(resource.clone()));
    let deleted = gone.iter().map(|id| FromPortal::ResourceDeleted(*id));
    deleted.chain(created).collect()
}

/// Whether the same id now means something else to reach.
fn is_replaced(old: &Resource, new: &Resource) -> bool {
    let sites = |resource: &Resource| -> BTreeSet<SiteId> {
        resource.sites().iter().map(|site: &Site| site.id).collect()
    };
    old.kind() != new.kind()
        || old.address_string() != new.address_string()
        || sites(old) != sites(new)
}
