//! What the portal knows of a connected component.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use connlib_messages::{ClientInterface, Dialect, Key, gateway::Device as DeviceAttributes};
use connlib_model::{ClientId, GatewayId, Resource, ResourceId, SiteId};

use crate::{
    config::PersonId,
    location::Location,
    relays::{HandedOut, Listen},
    token::{Component, TokenHash},
    version::Version,
};

/// A connected component.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) dialect: Dialect,
    pub(crate) token: TokenHash,
    /// When its token ends, Unix seconds.
    pub(crate) expires_at: Option<u64>,
    pub(crate) version: Option<Version>,
    pub(crate) remote_ip: IpAddr,
    pub(crate) location: Location,
    pub(crate) peer: Peer,
}

#[derive(Debug)]
pub(crate) enum Peer {
    Client(Box<ClientPeer>),
    Gateway(GatewayPeer),
    Relay(RelayPeer),
}

/// A component's own channel.
#[derive(Debug)]
pub(crate) enum Channel<T> {
    /// Not joined yet, or left: nothing is pushed.
    Left,
    Joined(T),
}

#[derive(Debug)]
pub(crate) struct ClientPeer {
    pub(crate) id: ClientId,
    pub(crate) person: PersonId,
    pub(crate) external_id: String,
    pub(crate) device: Endpoint,
    pub(crate) attributes: DeviceAttributes,
    pub(crate) channel: Channel<ClientView>,
}

/// What a client was told.
#[derive(Debug)]
pub(crate) struct ClientView {
    pub(crate) interface: ClientInterface,
    pub(crate) resources: BTreeMap<ResourceId, Resource>,
    pub(crate) relays: RelayView,
}

#[derive(Debug)]
pub(crate) struct GatewayPeer {
    pub(crate) id: GatewayId,
    /// As how many users it uses each relay.
    pub(crate) relay_users: usize,
    pub(crate) site: SiteId,
    pub(crate) device: Endpoint,
    pub(crate) channel: Channel<RelayView>,
}

#[derive(Debug)]
pub(crate) struct RelayPeer {
    pub(crate) listen: Listen,
    pub(crate) channel: Channel<()>,
}

/// The relays that a component was given.
#[derive(Debug, Default)]
pub(crate) struct RelayView {
    pub(crate) handed_out: HandedOut,
    /// How often it said that it has none of use.
    pub(crate) attempt: u32,
}

/// The data-plane side of a client or gateway.
#[derive(Debug, Clone)]
pub(crate) struct Endpoint {
    pub(crate) key: Key,
    pub(crate) psk_base: [u8; 32],
    pub(crate) ipv4: Ipv4Addr,
    pub(crate) ipv6: Ipv6Addr,
}

impl<T> Channel<T> {
    pub(crate) fn joined(&self) -> Option<&T> {
        match self {
            Self::Left => None,
            Self::Joined(state) => Some(state),
        }
    }

    pub(crate) fn joined_mut(&mut self) -> Option<&mut T> {
        match self {
            Self::Left => None,
            Self::Joined(state) => Some(state),
        }
    }
}

impl Connection {
    pub(crate) fn component(&self) -> Component {
        match self.peer {
            Peer::Client(_) => Component::Client,
            Peer::Gateway(_) => Component::Gateway,
            Peer::Relay(_) => Component::Relay,
        }
    }

    pub(crate) fn is_joined(&self) -> bool {
        match &self.peer {
            Peer::Client(peer) => peer.channel.joined().is_some(),
            Peer::Gateway(peer) => peer.channel.joined().is_some(),
            Peer::Relay(peer) => peer.channel.joined().is_some(),
        }
    }

    pub(crate) fn leave(&mut self) {
        match &mut self.peer {
            Peer::Client(peer) => peer.channel = Channel::Left,
            Peer::Gateway(peer) => peer.channel = Channel::Left,
            Peer::Relay(peer) => peer.channel = Channel::Left,
        }
    }

    pub(crate) fn client(&self) -> Option<&ClientPeer> {
        match &self.peer {
            Peer::Client(peer) => Some(peer),
            Peer::Gateway(_) | Peer::Relay(_) => None,
        }
    }

    pub(crate) fn gateway(&self) -> Option<&GatewayPeer> {
        match &self.peer {
            Peer::Gateway(peer) => Some(peer),
            Peer::Client(_) | Peer::Relay(_) => None,
        }
    }

    pub(crate) fn relay_view_mut(&mut self) -> Option<&mut RelayView> {
        match &mut self.peer {
            Peer::Client(peer) => peer.channel.joined_mut().map(|view| &mut view.relays),
            Peer::Gateway(peer) => peer.channel.joined_mut(),
            Peer::Relay(_) => None,
        }
    }
}
