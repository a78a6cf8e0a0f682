//! What a gateway and a client are told of each other (portal protocol §3.5, §4.3, §7.2, §9.5).
//!
//! Both messages carry every member that some generation of components asks for.

use connlib_messages::{
    Secret,
    client::FlowCreated,
    gateway::{Actor, AuthorizeFlow, Client, FlowAttribution, Subject},
};
use connlib_model::ResourceId;
use uuid::Uuid;

use crate::{
    authorization::{Authorization, Basis, Key},
    connection::{ClientPeer, GatewayPeer},
    derive::{FAR_FUTURE, ice_credentials, id_from_name, preshared_key},
    flow::Grant,
    ingest::{self, Claims, Role},
    portal::{ConnectionId, Portal, Time},
};

impl Portal {
    /// What the gateway and the client will be told of each other.
    pub(crate) fn introduce(
        &self,
        id: ConnectionId,
        resource: ResourceId,
        grant: &Grant,
        reference: String,
        time: Time,
    ) -> Option<(Authorization, AuthorizeFlow, FlowCreated)> {
        let connection = self.connections.get(&id)?;
        let client = connection.client()?;
        let gateway = self.connections.get(&grant.gateway.connection)?.gateway()?;
        let resource = self.config.resources.get(&resource)?;
        let key = (gateway.id, client.id, resource.id);
        let authorization = Authorization {
            gateway: gateway.id,
            client: client.id,
            resource: resource.id,
            flow_id: self.flow_id(&key, grant),
            policy: grant.policy,
            token: connection.token,
            basis: Basis::of(&self.config, grant.policy, resource.id)?,
            expires_at: grant.expires_at,
        };
        let ice = ice_credentials(client.id, client.device.key, gateway.id, gateway.device.key);
        let psk = preshared_key(
            (client.id, client.device.key, &client.device.psk_base),
            (gateway.id, gateway.device.key, &gateway.device.psk_base),
        );
        let ask = AuthorizeFlow {
            reference,
            client: Client {
                id: client.id,
                public_key: client.device.key,
                preshared_key: psk,
                ipv4: client.device.ipv4,
                ipv6: client.device.ipv6,
                device: client.attributes.clone(),
            },
            client_ice_credentials: ice.client.clone(),
            gateway_ice_credentials: ice.gateway.clone(),
            resource: resource.for_gateway(),
            expires_at: grant.expires_at,
            attribution: self.attribution(client, gateway, &authorization, time),
            use_iceless: false,
        };
        let answer = FlowCreated {
            resource_id: resource.id,
            gateway_id: gateway.id,
            site_id: gateway.site,
            gateway_public_key: gateway.device.key,
            preshared_key: psk,
            client_ice_credentials: ice.client,
            gateway_ice_credentials: ice.gateway,
            gateway_ipv4: Some(gateway.device.ipv4),
            gateway_ipv6: Some(gateway.device.ipv6),
            use_iceless: false,
            flow_logs_ingest_token: Some(self.ingest_token(
                Role::Initiator,
                client,
                gateway,
                &authorization,
                time,
            )),
        };
        Some((authorization, ask, answer))
    }

    /// A repeated authorization on the same ground is the same flow.
    fn flow_id(&self, key: &Key, grant: &Grant) -> Uuid {
        let same = |entry: &&Authorization| {
            entry.policy == grant.policy && entry.expires_at == grant.expires_at
        };
        let known = self.authorizations.get(key).filter(same);
        known.map_or_else(
            || {
                let text = format!("{:?}|{:?}|{:?}", key, grant.policy, grant.expires_at);
                id_from_name("flow", &text)
            },
            |entry| entry.flow_id,
        )
    }

    fn attribution(
        &self,
        client: &ClientPeer,
        gateway: &GatewayPeer,
        authorization: &Authorization,
        time: Time,
    ) -> FlowAttribution {
        let person = self.config.people.get(&client.person);
        let actor_name = person.map(|person| person.name.clone());
        FlowAttribution {
            flow_id: Some(authorization.flow_id),
            actor: Some(Actor {
                id: client.person.0,
            }),
            subject: actor_name.map(|actor_name| Subject { actor_name }),
            flow_logs_ingest_token: Some(self.ingest_token(
                Role::Responder,
                client,
                gateway,
                authorization,
                time,
            )),
        }
    }

    fn ingest_token(
        &self,
        role: Role,
        client: &ClientPeer,
        gateway: &GatewayPeer,
        authorization: &Authorization,
        time: Time,
    ) -> Secret {
        let person = self.config.people.get(&client.person);
        let resource = self.config.resources.get(&authorization.resource);
        let expires_at = authorization.expires_at.unwrap_or(FAR_FUTURE);
        let claims = Claims {
            account_id: self.config.account.id.to_string(),
            iat: time.unix,
            exp: ingest::token_end(expires_at),
            uploads_enabled: false,
            role,
            initiator_device_id: client.id.to_string(),
            responder_device_id: gateway.id.to_string(),
            policy_authorization_id: authorization.flow_id.to_string(),
            policy_id: authorization.policy.0.to_string(),
            resource_id: authorization.resource.to_string(),
            resource_name: resource.map(|r| r.name.clone()).unwrap_or_default(),
            resource_address: resource.and_then(|r| r.address()),
            initiator_actor_id: client.person.0.to_string(),
            initiator_actor_name: person.map(|p| p.name.clone()).unwrap_or_default(),
            initiator_actor_email: person.and_then(|p| p.email.clone()),
            initiator_client_version: client.attributes.version.clone(),
            authorized_at: time.unix,
            authorization_expires_at: expires_at,
        };
        ingest::sign(&claims, &self.signing_key)
    }
}
