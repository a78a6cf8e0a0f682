//! The portal's production core, and the ways between it and the components.
//!
//! A way is a WebSocket: messages keep their order, and what is under way when it breaks is lost. Every message passes
//! through its serde form, since frames are JSON on the wire.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use connlib_messages::{Dialect, Key};
use portal_core::{
    ConnectionId, Location, Login, LoginParameters, Output, Portal, Request, Stored, config::Config,
};
use serde_json::{Value, json};

use crate::{
    clock::Clock,
    topology::{PortalManners, Topology},
    transition::Component,
};

/// One way, each way.
const LATENCY: Duration = Duration::from_millis(20);
/// How long a component waits before it tries again.
const RETRY: Duration = Duration::from_millis(500);
/// Reference of the join, which is the only request whose reply matters.
const JOIN: u64 = 1;

/// What a component's channel tells it.
pub(crate) enum ChannelEvent {
    /// The topic is joined.
    Connected,
    /// The connection is lost.
    Disconnected,
    /// A message.
    Message(String, Value),
}

/// What a component says of itself when it logs in.
#[derive(Clone)]
pub(crate) struct Identity {
    pub(crate) token: String,
    pub(crate) external_id: String,
    pub(crate) query: Vec<(&'static str, String)>,
    pub(crate) join_payload: Value,
    pub(crate) user_agent: &'static str,
}

/// The portal with everybody's connections.
pub(crate) struct PortalHost {
    portal: Portal,
    pub(crate) config: Config,
    manners: PortalManners,
    channels: BTreeMap<Component, Channel>,
    owners: BTreeMap<ConnectionId, (Component, u64)>,
    in_flight: BTreeMap<(Instant, u64), Flight>,
    sequence: u64,
    psk_rotation: PskRotation,
    /// Clients whose first answer got lost.
    robbed: BTreeSet<Component>,
    /// Number of clients; the misbehaving one is beyond.
    clients: usize,
}

struct Channel {
    identity: Identity,
    /// Counts connections; what belongs to an older one is dropped on arrival.
    generation: u64,
    connection: Option<ConnectionId>,
    joined: bool,
    /// Not to be reached before this instant.
    blocked_until: Option<Instant>,
    /// Nothing may overtake this.
    last_arrival: Instant,
}

struct Flight {
    component: Component,
    generation: u64,
    kind: FlightKind,
}

enum FlightKind {
    Login,
    ToPortal { event: String, payload: Value },
    ToComponent(ChannelEvent),
}

impl PortalHost {
    pub(crate) fn new(topology: &Topology, config: Config, seed: [u8; 32], clock: &Clock) -> Self {
        Self {
            portal: Portal::new(config.clone(), Stored::default(), seed, clock.portal_time()),
            config,
            manners: topology.portal.clone(),
            channels: BTreeMap::new(),
            owners: BTreeMap::new(),
            in_flight: BTreeMap::new(),
            sequence: 0,
            psk_rotation: PskRotation::default(),
            robbed: BTreeSet::new(),
            clients: topology.clients.len(),
        }
    }

    /// Puts a new configuration in force.
    pub(crate) fn reload(&mut self, change: impl FnOnce(&mut Config), clock: &Clock) {
        change(&mut self.config);
        self.portal.reload(self.config.clone(), clock.portal_time());
        self.drain(clock);
    }

    /// Opens a component's channel, or opens it anew with another identity.
    pub(crate) fn open(&mut self, component: Component, identity: Identity, clock: &Clock) {
        let old = self.channels.remove(&component);
        let channel = Channel {
            identity,
            generation: old.as_ref().map_or(0, |old| old.generation) + 1,
            connection: None,
            joined: false,
            blocked_until: old.as_ref().and_then(|old| old.blocked_until),
            last_arrival: clock.now(),
        };
        self.channels.insert(component, channel);
        if let Some(id) = old.and_then(|old| old.connection) {
            self.lose(id, clock);
        }
        self.log_in(component, clock.now());
    }

    /// Ends a component's channel for good.
    pub(crate) fn close(&mut self, component: Component, clock: &Clock) {
        if let Some(id) = self
            .channels
            .remove(&component)
            .and_then(|channel| channel.connection)
        {
            self.lose(id, clock);
        }
    }

    /// Breaks a component's connection; it can be made again after `away`.
    pub(crate) fn interrupt(&mut self, component: Component, away: Duration, clock: &Clock) {
        self.block(component, away, clock);
        let Some(channel) = self.channels.get_mut(&component) else {
            return;
        };
        channel.generation += 1;
        channel.joined = false;
        let generation = channel.generation;
        let connection = channel.connection.take();
        self.put(
            clock.now(),
            component,
            generation,
            FlightKind::ToComponent(ChannelEvent::Disconnected),
        );
        if let Some(id) = connection {
            self.lose(id, clock);
        }
        self.log_in(component, clock.now());
    }

    /// No connection can be made before `away` has passed.
    pub(crate) fn block(&mut self, component: Component, away: Duration, clock: &Clock) {
        if let Some(channel) = self.channels.get_mut(&component) {
            channel.blocked_until = Some(clock.now() + away);
        }
    }

    /// Whether a message can be sent; if so, sends it.
    pub(crate) fn send(
        &mut self,
        component: Component,
        event: &str,
        payload: Value,
        now: Instant,
    ) -> bool {
        let Some(channel) = self.channels.get(&component).filter(|c| c.joined) else {
            return false;
        };
        let generation = channel.generation;
        let kind = FlightKind::ToPortal {
            event: event.to_owned(),
            payload,
        };
        self.put(now + LATENCY, component, generation, kind);
        true
    }

    pub(crate) fn is_joined(&self, component: Component) -> bool {
        self.channels.get(&component).is_some_and(|c| c.joined)
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        let flight = self.in_flight.keys().next().map(|(at, _)| *at);
        [flight, self.portal.poll_timeout()]
            .into_iter()
            .flatten()
            .min()
    }

    /// Does what is due; the next thing that reached a component.
    pub(crate) fn poll(&mut self, clock: &Clock) -> Option<(Component, ChannelEvent)> {
        loop {
            if self
                .portal
                .poll_timeout()
                .is_some_and(|at| at <= clock.now())
            {
                self.portal.handle_timeout(clock.portal_time());
                self.drain(clock);
            }
            let entry = self.in_flight.first_entry()?;
            if entry.key().0 > clock.now() {
                return None;
            }
            let flight = entry.remove();
            let is_current = self
                .channels
                .get(&flight.component)
                .is_some_and(|channel| channel.generation == flight.generation);
            if !is_current {
                continue;
            }
            match flight.kind {
                FlightKind::Login => self.arrive_login(flight.component, clock),
                FlightKind::ToPortal { event, payload } => {
                    self.arrive_request(flight.component, event, payload, clock);
                }
                FlightKind::ToComponent(event) => {
                    if let (ChannelEvent::Connected, Some(channel)) =
                        (&event, self.channels.get_mut(&flight.component))
                    {
                        channel.joined = true;
                    }
                    return Some((flight.component, event));
                }
            }
        }
    }

    fn log_in(&mut self, component: Component, now: Instant) {
        let Some(channel) = self.channels.get(&component) else {
            return;
        };
        let start = channel.blocked_until.map_or(now, |until| until.max(now));
        let generation = channel.generation;
        self.put(start + LATENCY, component, generation, FlightKind::Login);
    }

    fn arrive_login(&mut self, component: Component, clock: &Clock) {
        let Some(channel) = self.channels.get_mut(&component) else {
            return;
        };
        if channel
            .blocked_until
            .is_some_and(|until| clock.now() < until)
        {
            return self.log_in(component, clock.now());
        }
        channel.blocked_until = None;
        let identity = channel.identity.clone();
        let generation = channel.generation;
        let topic = topic(component);
        let query = identity.query.iter().map(|(k, v)| (*k, v.as_str()));
        let login = Login {
            component: portal_component(component),
            dialect: Dialect::Unversioned,
            token: Some(identity.token),
            parameters: LoginParameters::from_query(
                query.chain([("external_id", identity.external_id.as_str())]),
            ),
            user_agent: Some(identity.user_agent.to_owned()),
            remote_ip: "198.51.100.7".parse().expect("an address"),
            location: Location::default(),
        };
        match self.portal.connect(login, clock.portal_time()) {
            Ok(id) => {
                channel.connection = Some(id);
                self.owners.insert(id, (component, generation));
                let join = Request {
                    topic: topic.to_owned(),
                    event: "phx_join".to_owned(),
                    payload: identity.join_payload,
                    reference: Some(JOIN),
                };
                self.portal.handle_request(id, join, clock.portal_time());
                self.drain(clock);
            }
            Err(error) => {
                tracing::debug!(?component, %error, "the portal refuses a login; trying again");
                self.log_in(component, clock.now() + RETRY);
            }
        }
    }

    fn arrive_request(
        &mut self,
        component: Component,
        event: String,
        payload: Value,
        clock: &Clock,
    ) {
        let connection = self.channels.get(&component).and_then(|c| c.connection);
        if let Some(id) = connection {
            let request = Request {
                topic: topic(component).to_owned(),
                event,
                payload,
                reference: None,
            };
            self.portal.handle_request(id, request, clock.portal_time());
            self.drain(clock);
        }
    }

    fn lose(&mut self, id: ConnectionId, clock: &Clock) {
        self.owners.remove(&id);
        self.portal.disconnected(id, clock.portal_time());
        self.drain(clock);
    }

    fn drain(&mut self, clock: &Clock) {
        while let Some(output) = self.portal.poll_output() {
            match output {
                Output::Reply {
                    connection,
                    reference: JOIN,
                    result,
                    ..
                } => {
                    if let Err(refusal) = result {
                        tracing::error!(?refusal, "the portal refuses to let a component join");
                    }
                    self.tell(connection, ChannelEvent::Connected, clock);
                }
                Output::Reply { .. } | Output::Store(_) => {}
                Output::Push {
                    connection,
                    event,
                    payload,
                    ..
                } => self.tell(connection, ChannelEvent::Message(event, payload), clock),
                Output::Close { connection, .. } => self.closed_by_portal(connection, clock),
            }
        }
    }

    fn closed_by_portal(&mut self, id: ConnectionId, clock: &Clock) {
        let Some((component, generation)) = self.owners.remove(&id) else {
            return;
        };
        let Some(channel) = self.channels.get_mut(&component) else {
            return;
        };
        if channel.generation == generation {
            channel.connection = None;
            channel.joined = false;
            channel.generation += 1;
            let generation = channel.generation;
            let event = FlightKind::ToComponent(ChannelEvent::Disconnected);
            self.put(clock.now() + LATENCY, component, generation, event);
            self.log_in(component, clock.now() + RETRY);
        }
    }

    fn tell(&mut self, id: ConnectionId, mut event: ChannelEvent, clock: &Clock) {
        let Some((component, generation)) = self.owners.get(&id).copied() else {
            return;
        };
        let mut delay = LATENCY;
        let mut copies = 1;
        if let ChannelEvent::Message(name, payload) = &mut event {
            if self.manners.rotate_psk {
                self.psk_rotation.apply(name, payload);
            }
            if name == "flow_created" || name == "flow_creation_failed" {
                delay += Duration::from_millis(self.manners.answer_delay_ms);
                copies += usize::from(self.manners.doubled);
                let is_robbed = self.manners.loses_first
                    && matches!(component, Component::Client(index) if index < self.clients)
                    && self.robbed.insert(component);
                if is_robbed {
                    return;
                }
            }
        }
        let Some(channel) = self.channels.get_mut(&component) else {
            return;
        };
        let at = (clock.now() + delay).max(channel.last_arrival);
        channel.last_arrival = at;
        if let (2, ChannelEvent::Message(name, payload)) = (copies, &event) {
            let copy = ChannelEvent::Message(name.clone(), payload.clone());
            self.put(at, component, generation, FlightKind::ToComponent(copy));
        }
        self.put(at, component, generation, FlightKind::ToComponent(event));
    }

    fn put(&mut self, at: Instant, component: Component, generation: u64, kind: FlightKind) {
        self.sequence += 1;
        let flight = Flight {
            component,
            generation,
            kind,
        };
        self.in_flight.insert((at, self.sequence), flight);
    }
}

/// A preshared key per request instead of per pair, as portals of early 2025 make it.
#[derive(Default)]
struct PskRotation {
    requests: u8,
    /// Number of the newest request for each pair and resource.
    newest: BTreeMap<(String, String), u8>,
}

impl PskRotation {
    /// The gateway is asked first, the client told second; both get the key of the request.
    fn apply(&mut self, event: &str, payload: &mut Value) {
        let (key, resource) = match event {
            "authorize_flow" => ("/client/preshared_key", "/resource/id"),
            "flow_created" => ("/preshared_key", "/resource_id"),
            _ => return,
        };
        let text = |pointer| payload.pointer(pointer).and_then(Value::as_str);
        let (Some(pair), Some(resource)) = (text(key), text(resource)) else {
            return;
        };
        let Ok(mut new) = pair.parse::<Key>() else {
            return;
        };
        let request = (pair.to_owned(), resource.to_owned());
        if event == "authorize_flow" {
            self.requests = self.requests.wrapping_add(1);
            self.newest.insert(request.clone(), self.requests);
        }
        new.0[0] = self.newest.get(&request).copied().unwrap_or_default();
        if let Some(slot) = payload.pointer_mut(key) {
            *slot = json!(new.to_string());
        }
    }
}

fn topic(component: Component) -> &'static str {
    portal_component(component).topic()
}

fn portal_component(component: Component) -> portal_core::token::Component {
    match component {
        Component::Client(_) => portal_core::token::Component::Client,
        Component::Gateway(_) => portal_core::token::Component::Gateway,
        Component::Relay(_) => portal_core::token::Component::Relay,
    }
}
