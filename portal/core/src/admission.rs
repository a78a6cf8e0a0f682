//! Who is let in, and as which device (portal protocol §1.12, §7.7, §7.8).

use connlib_messages::{Dialect, Key};
use connlib_model::{ClientId, GatewayId, SiteId};

use crate::{
    config::PersonId,
    connection::{Channel, ClientPeer, Connection, Endpoint, GatewayPeer, Peer, RelayPeer},
    device::{Arrival, Device, Full, Owner},
    login::{ConnectError, Login},
    output::{CloseReason, StoreOp},
    portal::{ConnectionId, Portal, Time},
    token::{Holder, TokenHash},
    version::{Version, operating_system},
};

impl Portal {
    pub(crate) fn admit(&mut self, login: Login, time: Time) -> Result<ConnectionId, ConnectError> {
        let token = login.token.as_deref().ok_or(ConnectError::MissingToken)?;
        let hash = TokenHash::of(token);
        let token = self.config.token(&hash).ok_or(ConnectError::InvalidToken)?;
        let expired = token.expires_at.is_some_and(|end| end <= time.unix);
        if expired || token.holder.component() != login.component {
            return Err(ConnectError::InvalidToken);
        }
        let (holder, expires_at) = (token.holder, token.expires_at);
        let peer = match holder {
            Holder::Client(person) => self.admit_client(&login, person, time)?,
            Holder::Gateway(site) => self.admit_gateway(&login, site, time)?,
            Holder::Relay => Peer::Relay(RelayPeer {
                listen: login.parameters.listen()?,
                channel: Channel::Left,
            }),
        };
        let id = self.next_id();
        match &peer {
            Peer::Client(peer) => drop(self.clients.insert(peer.id, id)),
            Peer::Gateway(peer) => drop(self.gateways.insert(peer.id, id)),
            Peer::Relay(_) => {}
        }
        if let Some(end) = expires_at {
            self.plan_token_end(id, end, time);
        }
        let user_agent = login.user_agent.as_deref().unwrap_or_default();
        let connection = Connection {
            dialect: login.dialect,
            token: hash,
            expires_at,
            version: Version::from_user_agent(user_agent),
            remote_ip: login.remote_ip,
            location: login.location,
            peer,
        };
        self.connections.insert(id, connection);
        Ok(id)
    }

    fn admit_client(
        &mut self,
        login: &Login,
        person: PersonId,
        time: Time,
    ) -> Result<Peer, ConnectError> {
        let external_id = login.parameters.external_id()?;
        let device = self.arrive(login, Owner::Person(person), &external_id, time)?;
        let id = ClientId::new(device.id);
        if let Some(older) = self.clients.get(&id).copied() {
            self.replace(older, device.public_key, time);
        }
        let user_agent = login.user_agent.as_deref().unwrap_or_default();
        let system = operating_system(user_agent);
        let mut attributes = login.parameters.device.clone();
        attributes.version = Version::from_user_agent(user_agent).map(|v| v.to_string());
        attributes.device_os_name = system.map(|(name, _)| name.to_owned());
        attributes.device_os_version = system.map(|(_, version)| version.to_owned());
        Ok(Peer::Client(Box::new(ClientPeer {
            id,
            person,
            external_id,
            device: Endpoint::from(&device),
            attributes,
            channel: Channel::Left,
        })))
    }

    fn admit_gateway(
        &mut self,
        login: &Login,
        site: SiteId,
        time: Time,
    ) -> Result<Peer, ConnectError> {
        let external_id = login.parameters.external_id()?;
        let key = login.parameters.public_key()?;
        let relay_users = login.parameters.relay_users()?;
        let known = self.devices.find(Owner::Site(site), &external_id);
        let older = known.and_then(|device| {
            let id = self.gateways.get(&GatewayId::new(device.id))?;
            Some((*id, device.public_key == key))
        });
        if let Some((older, same_process)) = older {
            // Old components take a 409 as fatal, so there the newer one wins.
            if !same_process && login.dialect == Dialect::V2 {
                return Err(ConnectError::GatewayAlreadyConnected);
            }
            self.replace(older, key, time);
        }
        let device = self.arrive(login, Owner::Site(site), &external_id, time)?;
        Ok(Peer::Gateway(GatewayPeer {
            id: GatewayId::new(device.id),
            relay_users,
            site,
            device: Endpoint::from(&device),
            channel: Channel::Left,
        }))
    }

    fn arrive(
        &mut self,
        login: &Login,
        owner: Owner,
        external_id: &str,
        time: Time,
    ) -> Result<Device, ConnectError> {
        let fallback = format!("{} {:.8}", login.component, external_id);
        let arrival = Arrival {
            owner,
            external_id: external_id.to_owned(),
            name: login.parameters.name(&fallback),
            public_key: login.parameters.public_key()?,
            unix: time.unix,
        };
        let device = self.devices.upsert(arrival, &mut self.rng);
        let device = device.map_err(|Full| ConnectError::LimitsExceeded)?.clone();
        self.store(StoreOp::PutDevice(device.clone()));
        Ok(device)
    }

    /// The device of an older connection is here again: the newer connection counts.
    fn replace(&mut self, older: ConnectionId, new_key: Key, time: Time) {
        let other_process = self.connections.get(&older).is_some_and(|connection| {
            let device = match &connection.peer {
                Peer::Client(peer) => Some(&peer.device),
                Peer::Gateway(peer) => Some(&peer.device),
                Peer::Relay(_) => None,
            };
            device.is_some_and(|device| device.key != new_key)
        });
        if other_process {
            tracing::info!(
                "a device connected again with a new key; its older connection is closed"
            );
        }
        self.close(older, CloseReason::Replaced, time);
    }
}

impl From<&Device> for Endpoint {
    fn from(device: &Device) -> Self {
        Self {
            key: device.public_key,
            psk_base: device.psk_base,
            ipv4: device.ipv4,
            ipv6: device.ipv6,
        }
    }
}
