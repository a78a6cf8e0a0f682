//! The client's session.

use std::collections::{BTreeSet, VecDeque};
use std::mem;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use connlib_messages::client::{
    CandidatesForGateways, CreateFlow, FlowCreated, FlowCreationFailed, FromPortal, Init, ToPortal,
};
use connlib_messages::{ClientInterface, FailureReason, IceCredentials};
use connlib_model::{DomainName, GatewayId, ResourceId, ResourceView, TunConfig};
use connlib_tunnel::{Client, ClientEvent, FlowError, FlowFailure, InterfaceConfig, PublicKey};
use phoenix_channel::FatalError;

use crate::held_back::HeldBack;
use crate::outgoing::Outgoing;
use crate::relays::{ListedRelays, RelayUpdate, RelayWatch};
use crate::{PortalInput, PortalOutput};

/// Something that the application or the operating system must learn.
#[derive(Debug, Clone, PartialEq)]
pub enum ClientSessionEvent {
    /// The TUN device and the host's DNS have to be set to this.
    TunConfigUpdated(TunConfig),
    /// The list of resources or a status in it changed.
    ResourcesChanged(Vec<ResourceView>),
    /// The session is over: without the portal there is no access.
    Failed(FatalError),
}

/// A client: the tunnel's state machine and its dealings with the portal.
///
/// # Driving loop
///
/// That of [`Client`], with [`ClientSession::poll_portal`] and [`ClientSession::poll_event`] in place of
/// [`Client::poll_event`]:
///
/// ```text
/// loop {
///     drain session.tunnel_mut().poll_transmit(), .poll_packet(), .poll_recursive_query()
///     while let Some(output) = session.poll_portal(now) { send it, or reconnect }
///     while let Some(event) = session.poll_event() { tell the application }
///
///     match wait_until(session.poll_timeout()) {
///         Portal(input)     => session.handle_portal(input, now),
///         TunRead(packet)   => session.tunnel_mut().handle_tun(…),
///         Datagram(…)       => session.tunnel_mut().handle_network(…),
///         NetworkChanged    => session.reset(now),
///         Timeout           => session.handle_timeout(now),
///     }
/// }
/// ```
#[derive(Debug)]
pub struct ClientSession {
    tunnel: Client,
    outgoing: Outgoing<ToPortal>,
    held_back: HeldBack<GatewayId>,
    relays: ListedRelays,
    relay_watch: RelayWatch,
    events: VecDeque<ClientSessionEvent>,
}

impl ClientSession {
    /// A session that is not connected yet. See [`Client::new`] for the parameters.
    pub fn new(seed: [u8; 32], now: Instant, unix_now: Duration) -> Self {
        Self {
            tunnel: Client::new(seed, now, unix_now),
            outgoing: Outgoing::new(),
            held_back: HeldBack::new(),
            relays: ListedRelays::default(),
            relay_watch: RelayWatch::default(),
            events: VecDeque::new(),
        }
    }

    /// The key to log in with. Changes with [`ClientSession::reset`].
    pub fn public_key(&self) -> PublicKey {
        self.tunnel.public_key()
    }

    /// The state machine, for status views.
    pub fn tunnel(&self) -> &Client {
        &self.tunnel
    }

    /// The state machine, for the data path. Its events are polled by the session.
    pub fn tunnel_mut(&mut self) -> &mut Client {
        &mut self.tunnel
    }

    /// Takes in what happened on the channel to the portal.
    pub fn handle_portal(&mut self, input: PortalInput<FromPortal, ToPortal>, now: Instant) {
        match input {
            PortalInput::Connected => self.on_connected(),
            PortalInput::Message(message) => self.on_message(message, now),
            PortalInput::Unsent(message) => self.hold_back(message),
            PortalInput::Disconnected => self.on_disconnected(),
            PortalInput::Failed(error) => self.push_event(ClientSessionEvent::Failed(error)),
        }
    }

    /// Sets the resolvers of the system.
    pub fn set_system_resolvers(&mut self, resolvers: Vec<IpAddr>, now: Instant) {
        self.tunnel.set_system_resolvers(resolvers, now);
    }

    /// Sets which resources the user switched off.
    pub fn set_disabled_resources(&mut self, disabled: BTreeSet<ResourceId>, now: Instant) {
        self.tunnel.set_disabled_resources(disabled, now);
    }

    /// Starts over after a change of network: new key, no connections, a new channel. See [`Client::reset`].
    pub fn reset(&mut self, now: Instant) {
        self.tunnel.reset(now);
        self.held_back.clear();
        self.relay_watch.clear();
        self.outgoing.reconnect(self.tunnel.public_key());
    }

    /// Says goodbye to every gateway. The caller sends what the tunnel's `poll_transmit` yields, then drops the session.
    pub fn shutdown(&mut self, now: Instant) {
        self.tunnel.shutdown(now);
    }

    /// Does everything that is due at `now`.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.tunnel.handle_timeout(now);
        self.clear_watch_if_relays_are_known();
        if self.relay_watch.handle_timeout(now) {
            tracing::info!("no relay is known; reconnecting the portal");
            self.on_disconnected();
            self.outgoing.reconnect(self.tunnel.public_key());
        }
    }

    /// When [`ClientSession::handle_timeout`] must be called next, or a poll function if that instant is not in the
    /// future.
    pub fn poll_timeout(&mut self) -> Option<Instant> {
        if !self.outgoing.is_empty() || !self.events.is_empty() {
            return Some(self.tunnel.last_now());
        }

        [self.tunnel.poll_timeout(), self.relay_watch.poll_timeout()]
            .into_iter()
            .flatten()
            .min()
    }

    /// The next thing to do on the channel to the portal.
    pub fn poll_portal(&mut self, now: Instant) -> Option<PortalOutput<ToPortal>> {
        self.drain_tunnel(now);

        self.outgoing.pop()
    }

    /// The next event. Call it after [`ClientSession::poll_portal`].
    pub fn poll_event(&mut self) -> Option<ClientSessionEvent> {
        self.events.pop_front()
    }

    fn on_connected(&mut self) {
        self.outgoing.on_connected();
        for (gateway, change) in self.held_back.take() {
            if !change.removed.is_empty() {
                self.outgoing
                    .send(removed_candidates(gateway, change.removed));
            }
            if !change.added.is_empty() {
                self.outgoing.send(added_candidates(gateway, change.added));
            }
        }
    }

    fn on_disconnected(&mut self) {
        for message in self.outgoing.on_disconnected() {
            self.hold_back(message);
        }
    }

    /// Queues an event in place of an older one of its kind: only the newest state counts.
    fn push_event(&mut self, event: ClientSessionEvent) {
        self.events
            .retain(|old| mem::discriminant(old) != mem::discriminant(&event));
        self.events.push_back(event);
    }

    fn on_message(&mut self, message: FromPortal, now: Instant) {
        match message {
            FromPortal::Init(init) => self.on_init(*init, now),
            FromPortal::ResourceCreatedOrUpdated(resource) => {
                self.tunnel.add_resource(resource, now)
            }
            FromPortal::ResourceDeleted(id) => self.tunnel.remove_resource(id, now),
            FromPortal::ConfigChanged(config) => {
                self.tunnel.set_interface(interface(config.interface), now)
            }
            FromPortal::RelaysPresence(presence) => {
                let update = self.relays.on_presence(&presence);
                self.update_relays(update, now);
            }
            FromPortal::FlowCreated(flow) => self.on_flow_created(*flow, now),
            FromPortal::FlowCreationFailed(failed) => self.on_flow_creation_failed(&failed, now),
            FromPortal::IceCandidates(message) => {
                self.tunnel
                    .add_ice_candidates(message.gateway_id, message.candidates, now);
            }
            FromPortal::InvalidateIceCandidates(message) => {
                self.tunnel
                    .remove_ice_candidates(message.gateway_id, message.candidates, now);
            }
            FromPortal::Unknown { event } => {
                tracing::debug!(%event, "ignoring a message of the portal")
            }
        }
    }

    fn on_init(&mut self, init: Init, now: Instant) {
        self.tunnel.set_interface(interface(init.interface), now);
        self.tunnel.set_resources(init.resources, now);
        let update = self
            .relays
            .on_init(&init.relays, &self.tunnel.relays_in_use());
        self.update_relays(update, now);

        self.outgoing.on_init();
        // What was asked over an earlier connection will not be answered.
        self.tunnel.ask_again(now);
        self.drain_tunnel(now);
    }

    fn on_flow_created(&mut self, flow: FlowCreated, now: Instant) {
        let (Some(client_ice), Some(gateway_ice)) = (
            ice_credentials(&flow.client_ice_credentials),
            ice_credentials(&flow.gateway_ice_credentials),
        ) else {
            tracing::warn!(resource = %flow.resource_id, "the portal sent unusable ICE credentials");
            return;
        };
        let flow = connlib_tunnel::FlowCreated {
            resource: flow.resource_id,
            gateway: flow.gateway_id,
            site: flow.site_id,
            gateway_key: PublicKey(flow.gateway_public_key.0),
            preshared_key: flow.preshared_key.0,
            client_ice,
            gateway_ice,
            gateway_ipv4: flow.gateway_ipv4,
            gateway_ipv6: flow.gateway_ipv6,
        };

        match self.tunnel.handle_flow_created(flow, now) {
            Ok(()) => {}
            Err(FlowError::NoRelays) => self.request_relays(now),
            Err(error @ FlowError::UnknownResource(_)) => {
                tracing::warn!(%error, "ignoring granted access")
            }
            Err(error @ FlowError::NoPendingIntent(_)) => {
                tracing::debug!(%error, "ignoring granted access")
            }
        }
    }

    fn on_flow_creation_failed(&mut self, failed: &FlowCreationFailed, now: Instant) {
        if !failed.violated_properties.is_empty() {
            tracing::debug!(
                resource = %failed.resource_id,
                violated = ?failed.violated_properties,
                "a policy forbids access"
            );
        }
        self.tunnel
            .handle_flow_failed(failed.resource_id, failure(failed.reason), now);
    }

    /// Keeps what must not get lost until the portal is back.
    fn hold_back(&mut self, message: ToPortal) {
        match message {
            ToPortal::BroadcastIceCandidates(CandidatesForGateways {
                gateway_ids,
                candidates,
            }) => {
                for gateway in gateway_ids {
                    self.held_back.add(gateway, candidates.clone());
                }
            }
            ToPortal::BroadcastInvalidatedIceCandidates(CandidatesForGateways {
                gateway_ids,
                candidates,
            }) => {
                for gateway in gateway_ids {
                    self.held_back.remove(gateway, candidates.clone());
                }
            }
            // After the next `init`, the tunnel asks again for what it still waits for; relays are listed there anyway.
            ToPortal::CreateFlow(_)
            | ToPortal::NoRelays
            | ToPortal::SetSnownetCapabilities(_)
            | ToPortal::Unknown { .. } => {}
        }
    }

    /// Sends a message, or keeps it until that is possible.
    fn send(&mut self, message: ToPortal) {
        let may_send = match message {
            // Access is asked for after the portal's list of resources is known.
            ToPortal::CreateFlow(_) => self.outgoing.is_up(),
            _ => self.outgoing.is_connected(),
        };
        if may_send {
            self.outgoing.send(message);
        } else {
            self.hold_back(message);
        }
    }

    fn drain_tunnel(&mut self, now: Instant) {
        while let Some(event) = self.tunnel.poll_event() {
            match event {
                ClientEvent::TunConfigUpdated(config) => {
                    self.push_event(ClientSessionEvent::TunConfigUpdated(config));
                }
                ClientEvent::ResourcesChanged(list) => {
                    self.push_event(ClientSessionEvent::ResourcesChanged(list));
                }
                ClientEvent::ConnectionIntent {
                    resource,
                    connected_gateways,
                } => self.send(create_flow(resource, connected_gateways)),
                ClientEvent::AddedIceCandidates {
                    gateway,
                    candidates,
                } => {
                    self.send(added_candidates(gateway, candidates));
                }
                ClientEvent::RemovedIceCandidates {
                    gateway,
                    candidates,
                } => {
                    self.send(removed_candidates(gateway, candidates));
                }
                ClientEvent::NoRelays => self.request_relays(now),
            }
        }
        self.retire_relays(now);
    }

    fn request_relays(&mut self, now: Instant) {
        if self.relay_watch.on_needed(now) {
            tracing::info!("no relay is known; asking the portal");
            self.send(ToPortal::NoRelays);
        }
    }

    fn update_relays(&mut self, update: RelayUpdate, now: Instant) {
        self.tunnel.update_relays(&update.remove, &update.add, now);
        self.clear_watch_if_relays_are_known();
    }

    fn clear_watch_if_relays_are_known(&mut self) {
        if self.relay_watch.poll_timeout().is_some() && self.tunnel.node_stats().relays > 0 {
            self.relay_watch.clear();
        }
    }

    fn retire_relays(&mut self, now: Instant) {
        if !self.relays.is_retiring_any() {
            return;
        }
        let unused = self.relays.retire(&self.tunnel.relays_in_use());
        if !unused.is_empty() {
            self.tunnel.update_relays(&unused, &[], now);
        }
    }
}

fn interface(interface: ClientInterface) -> InterfaceConfig {
    InterfaceConfig {
        ipv4: interface.ipv4,
        ipv6: interface.ipv6,
        upstream_dns: interface.upstream_dns(),
        search_domain: interface.search_domain.and_then(|text| {
            DomainName::new(&text)
                .inspect_err(|error| tracing::warn!(%error, "ignoring the search domain"))
                .ok()
        }),
    }
}

fn ice_credentials(credentials: &IceCredentials) -> Option<connlib_tunnel::IceCredentials> {
    connlib_tunnel::IceCredentials::new(credentials.username.clone(), credentials.password.expose())
        .ok()
}

fn failure(reason: FailureReason) -> FlowFailure {
    match reason {
        FailureReason::Offline => FlowFailure::Offline,
        FailureReason::NotFound => FlowFailure::NotFound,
        FailureReason::Forbidden => FlowFailure::Forbidden,
        _ => FlowFailure::Other,
    }
}

fn create_flow(resource: ResourceId, connected_gateways: Vec<GatewayId>) -> ToPortal {
    ToPortal::CreateFlow(CreateFlow {
        resource_id: resource,
        connected_gateway_ids: connected_gateways,
    })
}

fn added_candidates(gateway: GatewayId, candidates: BTreeSet<String>) -> ToPortal {
    ToPortal::BroadcastIceCandidates(CandidatesForGateways {
        gateway_ids: vec![gateway],
        candidates: candidates.into_iter().collect(),
    })
}

fn removed_candidates(gateway: GatewayId, candidates: BTreeSet<String>) -> ToPortal {
    ToPortal::BroadcastInvalidatedIceCandidates(CandidatesForGateways {
        gateway_ids: vec![gateway],
        candidates: candidates.into_iter().collect(),
    })
}
