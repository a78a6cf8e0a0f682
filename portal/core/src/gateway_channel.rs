//! The gateway's channel: its full state and its messages.

use connlib_messages::{
    Authorization, GatewayInterface, Message as _,
    client::{FromPortal as ToClient, GatewayCandidates},
    gateway::{CandidatesForClients, Config, FromPortal, Init, ToPortal},
};
use connlib_model::GatewayId;
use serde_json::Value;

use crate::{
    client_channel::no_flow_logs,
    connection::{Channel, Connection, Peer, RelayView},
    output::Refusal,
    portal::{ConnectionId, Portal, Time},
};

/// Most addressees of one candidate message; components name one.
const MAX_ADDRESSEES: usize = 100;

impl Portal {
    pub(crate) fn join_gateway(&mut self, id: ConnectionId, time: Time) {
        let gateway = self.connections.get(&id).and_then(Connection::gateway);
        if let Some(gateway) = gateway {
            self.purge_expired_authorizations(gateway.id, time);
        }
        let Some(connection) = self.connections.get(&id) else {
            return;
        };
        let Some(gateway) = connection.gateway() else {
            return;
        };
        let mut view = RelayView::default();
        let relays = self.choose_relays(connection, &mut view);
        let authorizations = self.authorizations.of_gateway(gateway.id);
        let in_force = authorizations.map(|entry| Authorization {
            client_id: entry.client,
            resource_id: entry.resource,
            expires_at: entry.expires_at,
        });
        let init = Init {
            interface: GatewayInterface {
                ipv4: gateway.device.ipv4,
                ipv6: gateway.device.ipv6,
            },
            config: Config::default(),
            relays,
            account_slug: Some(self.config.account.slug.clone()),
            authorizations: Some(in_force.collect()),
            flow_logs: Some(no_flow_logs()),
        };
        let connection = self.connections.get_mut(&id);
        if let Some(Peer::Gateway(gateway)) = connection.map(|connection| &mut connection.peer) {
            gateway.channel = Channel::Joined(view);
        }
        self.push(id, &FromPortal::Init(Box::new(init)));
    }

    pub(crate) fn handle_gateway_event(
        &mut self,
        id: ConnectionId,
        event: &str,
        payload: Value,
        _time: Time,
    ) -> Option<Result<(), Refusal>> {
        let message = match ToPortal::parse(event, payload) {
            Ok(message) => message,
            Err(error) => {
                tracing::debug!(%error, "refusing a gateway's message");
                return Some(Err(Refusal::InvalidPayload));
            }
        };
        match message {
            ToPortal::FlowAuthorized(message) => {
                return Some(self.flow_authorized(id, &message.reference));
            }
            ToPortal::BroadcastIceCandidates(candidates) => {
                self.forward_to_clients(id, candidates, ToClient::IceCandidates);
            }
            ToPortal::BroadcastInvalidatedIceCandidates(candidates) => {
                self.forward_to_clients(id, candidates, ToClient::InvalidateIceCandidates);
            }
            ToPortal::NoRelays => self.answer_no_relays(id),
            // Connections without ICE are not built: the answer to the capability is `use_iceless: false`.
            ToPortal::SetSnownetCapabilities(_) => {}
            ToPortal::Metrics => return Some(Ok(())),
            ToPortal::Unknown { event } => {
                tracing::debug!(event, "a gateway sent an unknown message");
                return Some(Err(Refusal::UnknownMessage));
            }
        }
        None
    }

    fn forward_to_clients(
        &mut self,
        from: ConnectionId,
        message: CandidatesForClients,
        wrap: impl Fn(GatewayCandidates) -> ToClient,
    ) {
        let Some(gateway) = self.connections.get(&from).and_then(Connection::gateway) else {
            return;
        };
        let payload = wrap(GatewayCandidates {
            gateway_id: gateway.id,
            candidates: message.candidates,
        });
        for client in message.client_ids.into_iter().take(MAX_ADDRESSEES) {
            if let Some(to) = self.joined_client(client) {
                self.push(to, &payload);
            }
        }
    }

    /// The connection of a gateway, if it is joined.
    pub(crate) fn joined_gateway(&self, id: GatewayId) -> Option<ConnectionId> {
        let connection = self.gateways.get(&id)?;
        let joined = self.connections.get(connection)?.is_joined();
        joined.then_some(*connection)
    }
}
