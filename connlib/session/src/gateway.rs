//! The gateway's session.

use std::collections::{BTreeSet, VecDeque};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use connlib_messages::IceCredentials;
use connlib_messages::gateway::{
    AuthorizeFlow, CandidatesForClients, FlowAuthorized, FromPortal, Init, ToPortal,
};
use connlib_model::{ClientId, DomainName};
use connlib_tunnel::{
    Gateway, GatewayEvent, NoRelays, PublicKey, ResolveError, ResolveId, TunAddresses,
};
use phoenix_channel::FatalError;

use crate::held_back::HeldBack;
use crate::outgoing::Outgoing;
use crate::relays::{ListedRelays, RelayUpdate, RelayWatch};
use crate::{PortalInput, PortalOutput};

/// Something that the process or the operating system must learn.
#[derive(Debug, Clone, PartialEq)]
pub enum GatewaySessionEvent {
    /// The TUN device has to be set to these addresses; routes are the tunnel ranges.
    TunAddresses(TunAddresses),
    /// A name to resolve, A and AAAA, answered by [`Gateway::handle_resolved`].
    ResolveDns {
        /// Names the answer.
        id: ResolveId,
        /// What to resolve.
        domain: DomainName,
    },
    /// The session is over.
    Failed(FatalError),
}

/// A gateway: the tunnel's state machine and its dealings with the portal.
///
/// It is driven like a [`ClientSession`](crate::ClientSession).
pub struct GatewaySession {
    tunnel: Gateway,
    outgoing: Outgoing<ToPortal>,
    held_back: HeldBack<ClientId>,
    relays: ListedRelays,
    relay_watch: RelayWatch,
    addresses: Option<TunAddresses>,
    events: VecDeque<GatewaySessionEvent>,
    last_now: Instant,
}

impl GatewaySession {
    /// A session that is not connected yet. See [`Gateway::new`] for the parameters.
    pub fn new(seed: [u8; 32], now: Instant, unix_now: Duration) -> Self {
        Self {
            tunnel: Gateway::new(seed, now, unix_now),
            outgoing: Outgoing::new(),
            held_back: HeldBack::new(),
            relays: ListedRelays::default(),
            relay_watch: RelayWatch::default(),
            addresses: None,
            events: VecDeque::new(),
            last_now: now,
        }
    }

    /// The same session with the key pair of this seed, for one of several workers of a gateway.
    #[must_use]
    pub fn with_key_seed(mut self, key_seed: [u8; 32]) -> Self {
        self.tunnel = self.tunnel.with_key_seed(key_seed);
        self
    }

    /// The key to log in with. Changes with [`GatewaySession::reset`].
    pub fn public_key(&self) -> PublicKey {
        self.tunnel.public_key()
    }

    /// The state machine, for status views.
    pub fn tunnel(&self) -> &Gateway {
        &self.tunnel
    }

    /// The state machine, for the data path. Its events are polled by the session.
    pub fn tunnel_mut(&mut self) -> &mut Gateway {
        &mut self.tunnel
    }

    /// Takes in what happened on the channel to the portal.
    pub fn handle_portal(&mut self, input: PortalInput<FromPortal, ToPortal>, now: Instant) {
        self.last_now = self.last_now.max(now);
        match input {
            PortalInput::Connected => self.on_connected(),
            PortalInput::Message(message) => self.on_message(message, now),
            PortalInput::Unsent(message) => self.hold_back(message),
            PortalInput::Disconnected => self.on_disconnected(),
            PortalInput::Failed(error) => self.events.push_back(GatewaySessionEvent::Failed(error)),
        }
    }

    /// Takes the answer to [`GatewaySessionEvent::ResolveDns`].
    pub fn handle_resolved(
        &mut self,
        id: ResolveId,
        result: Result<Vec<IpAddr>, ResolveError>,
        now: Instant,
    ) {
        self.tunnel.handle_resolved(id, result, now);
    }

    /// Starts over after a change of network: new key, no connections, a new channel. Authorizations stay.
    pub fn reset(&mut self, now: Instant) {
        self.tunnel.reset(now);
        self.after_reset();
    }

    /// [`GatewaySession::reset`] to the key pair of this seed.
    pub fn reset_with_key_seed(&mut self, key_seed: [u8; 32], now: Instant) {
        self.tunnel.reset_with_key_seed(key_seed, now);
        self.after_reset();
    }

    fn after_reset(&mut self) {
        self.held_back.clear();
        self.relay_watch.clear();
        self.outgoing.reconnect(self.tunnel.public_key());
    }

    /// Says goodbye to every client. The caller sends what the tunnel's `poll_transmit` yields, then drops the session.
    pub fn shutdown(&mut self, now: Instant) {
        self.tunnel.shutdown(now);
    }

    /// Does everything that is due at `now`.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.last_now = self.last_now.max(now);
        self.tunnel.handle_timeout(now);
        self.clear_watch_if_relays_are_known();
        if self.relay_watch.handle_timeout(now) {
            tracing::info!("no relay is known; reconnecting the portal");
            self.on_disconnected();
            self.outgoing.reconnect(self.tunnel.public_key());
        }
    }

    /// When [`GatewaySession::handle_timeout`] must be called next, or a poll function if that instant is not in the
    /// future.
    pub fn poll_timeout(&mut self) -> Option<Instant> {
        if !self.outgoing.is_empty() || !self.events.is_empty() {
            return Some(self.last_now);
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

    /// The next event. Call it after [`GatewaySession::poll_portal`].
    pub fn poll_event(&mut self) -> Option<GatewaySessionEvent> {
        self.events.pop_front()
    }

    fn on_connected(&mut self) {
        self.outgoing.on_connected();
        for (client, change) in self.held_back.take() {
            if !change.removed.is_empty() {
                self.outgoing
                    .send(removed_candidates(client, change.removed));
            }
            if !change.added.is_empty() {
                self.outgoing.send(added_candidates(client, change.added));
            }
        }
    }

    fn on_disconnected(&mut self) {
        for message in self.outgoing.on_disconnected() {
            self.hold_back(message);
        }
    }

    fn on_message(&mut self, message: FromPortal, now: Instant) {
        match message {
            FromPortal::Init(init) => self.on_init(*init, now),
            FromPortal::RelaysPresence(presence) => {
                let update = self.relays.on_presence(&presence);
                self.update_relays(update, now);
            }
            FromPortal::AuthorizeFlow(flow) => self.on_authorize_flow(*flow, now),
            FromPortal::RejectAccess(reject) => {
                self.tunnel
                    .reject(reject.client_id, reject.resource_id, now)
            }
            FromPortal::ResourceUpdated(updated) => {
                self.tunnel.update_resource(&updated.resource, now)
            }
            FromPortal::IceCandidates(message) => {
                self.tunnel
                    .add_ice_candidates(message.client_id, message.candidates, now);
            }
            FromPortal::InvalidateIceCandidates(message) => {
                self.tunnel
                    .remove_ice_candidates(message.client_id, message.candidates, now);
            }
            FromPortal::Unknown { event } => {
                tracing::debug!(%event, "ignoring a message of the portal")
            }
        }
    }

    fn on_init(&mut self, init: Init, now: Instant) {
        let addresses = TunAddresses {
            v4: init.interface.ipv4,
            v6: init.interface.ipv6,
        };
        self.tunnel.set_interface(addresses);
        if self.addresses.replace(addresses) != Some(addresses) {
            self.events
                .push_back(GatewaySessionEvent::TunAddresses(addresses));
        }

        // An older portal does not list authorizations and revokes nothing by that.
        if let Some(authorizations) = init.authorizations {
            let list = authorizations
                .iter()
                .map(|a| {
                    (
                        a.client_id,
                        a.resource_id,
                        a.expires_at.map(Duration::from_secs),
                    )
                })
                .collect::<Vec<_>>();
            self.tunnel.reconcile(&list, now);
        }

        let update = self
            .relays
            .on_init(&init.relays, &self.tunnel.relays_in_use());
        self.update_relays(update, now);
        self.outgoing.on_init();
    }

    /// Applies an authorization and only then acknowledges it: the acknowledgement releases the client, whose candidates
    /// must not arrive before the connection exists.
    fn on_authorize_flow(&mut self, flow: AuthorizeFlow, now: Instant) {
        let reference = flow.reference.clone();
        let Some(flow) = authorization(flow) else {
            tracing::warn!("the portal sent unusable ICE credentials");
            return;
        };
        let (client, resource) = (flow.client, flow.resource.id());
        match self.tunnel.authorize(flow, now) {
            Ok(()) => self.send(ToPortal::FlowAuthorized(FlowAuthorized { reference })),
            Err(NoRelays) => {
                tracing::debug!(%client, %resource, "no relay for an authorization");
                self.request_relays(now);
            }
        }
    }

    /// Keeps what must not get lost until the portal is back. An acknowledgement is void by then: the client asks again.
    fn hold_back(&mut self, message: ToPortal) {
        match message {
            ToPortal::BroadcastIceCandidates(CandidatesForClients {
                client_ids,
                candidates,
            }) => {
                for client in client_ids {
                    self.held_back.add(client, candidates.clone());
                }
            }
            ToPortal::BroadcastInvalidatedIceCandidates(CandidatesForClients {
                client_ids,
                candidates,
            }) => {
                for client in client_ids {
                    self.held_back.remove(client, candidates.clone());
                }
            }
            ToPortal::FlowAuthorized(_)
            | ToPortal::NoRelays
            | ToPortal::SetSnownetCapabilities(_)
            | ToPortal::Metrics
            | ToPortal::Unknown { .. } => {}
        }
    }

    fn send(&mut self, message: ToPortal) {
        if self.outgoing.is_connected() {
            self.outgoing.send(message);
        } else {
            self.hold_back(message);
        }
    }

    fn drain_tunnel(&mut self, now: Instant) {
        self.last_now = self.last_now.max(now);
        while let Some(event) = self.tunnel.poll_event() {
            match event {
                GatewayEvent::AddedIceCandidates { client, candidates } => {
                    self.send(added_candidates(client, candidates));
                }
                GatewayEvent::RemovedIceCandidates { client, candidates } => {
                    self.send(removed_candidates(client, candidates));
                }
                GatewayEvent::ResolveDns { id, domain } => self
                    .events
                    .push_back(GatewaySessionEvent::ResolveDns { id, domain }),
                GatewayEvent::NoRelays => self.request_relays(now),
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

fn authorization(flow: AuthorizeFlow) -> Option<connlib_tunnel::AuthorizeFlow> {
    Some(connlib_tunnel::AuthorizeFlow {
        client: flow.client.id,
        client_key: PublicKey(flow.client.public_key.0),
        preshared_key: flow.client.preshared_key.0,
        client_ipv4: flow.client.ipv4,
        client_ipv6: flow.client.ipv6,
        client_ice: ice_credentials(&flow.client_ice_credentials)?,
        gateway_ice: ice_credentials(&flow.gateway_ice_credentials)?,
        resource: flow.resource,
        expires_at: flow.expires_at.map(Duration::from_secs),
    })
}

fn ice_credentials(credentials: &IceCredentials) -> Option<connlib_tunnel::IceCredentials> {
    connlib_tunnel::IceCredentials::new(credentials.username.clone(), credentials.password.expose())
        .ok()
}

fn added_candidates(client: ClientId, candidates: BTreeSet<String>) -> ToPortal {
    ToPortal::BroadcastIceCandidates(CandidatesForClients {
        client_ids: vec![client],
        candidates: candidates.into_iter().collect(),
    })
}

fn removed_candidates(client: ClientId, candidates: BTreeSet<String>) -> ToPortal {
    ToPortal::BroadcastInvalidatedIceCandidates(CandidatesForClients {
        client_ids: vec![client],
        candidates: candidates.into_iter().collect(),
    })
}
