//! The state machine.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::{Duration, Instant},
};

use connlib_messages::Message;
use connlib_model::{ClientId, GatewayId};
use rand::SeedableRng as _;
use rand_chacha::ChaCha20Rng;

use crate::{
    authorization::{Authorization, Authorizations},
    config::Config,
    connection::{Connection, Peer},
    device::{Device, Devices},
    flow::Flows,
    login::{ConnectError, Login},
    output::{CloseReason, Output, Refusal, Request, StoreOp},
    relay_channel::Settling,
    relays::Relays,
    token::Component,
};

/// A connected component, for as long as its socket lives. Never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(pub(crate) u64);

/// The time of an input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Time {
    /// For deadlines.
    pub now: Instant,
    /// Seconds since 1970-01-01 UTC, for expiries and time windows.
    pub unix: u64,
}

/// What was kept from earlier runs.
#[derive(Debug, Default)]
pub struct Stored {
    /// Known devices.
    pub devices: Vec<Device>,
    /// Authorizations that were in force.
    pub authorizations: Vec<Authorization>,
    /// Signs ingest tokens; random, made once.
    pub signing_key: [u8; 32],
}

/// Numbers for people who watch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stats {
    /// Joined clients.
    pub clients: usize,
    /// Joined gateways.
    pub gateways: usize,
    /// Joined relays.
    pub relays: usize,
    /// Known devices.
    pub devices: usize,
    /// Authorizations in force or not yet cleared away.
    pub authorizations: usize,
    /// Requests that wait for a gateway's acknowledgement.
    pub flows_pending: usize,
    /// Requests that a gateway acknowledged, since the start.
    pub flows_created: u64,
    /// Requests that were refused, since the start.
    pub flows_refused: u64,
    /// Connections that were refused, since the start.
    pub logins_refused: u64,
}

/// The portal of one account.
///
/// Driving loop:
///
/// ```text
/// loop {
///     while let Some(output) = portal.poll_output() { send, close or store }
///     wait for a login, a frame, a lost connection, a new configuration, or portal.poll_timeout()
///     call connect / handle_request / disconnected / reload / handle_timeout
/// }
/// ```
///
/// Outputs must be handled in order: the reply to a join comes before the `init`, and a record is stored before the
/// message that rests on it is sent.
#[derive(Debug)]
pub struct Portal {
    pub(crate) config: Config,
    pub(crate) devices: Devices,
    pub(crate) authorizations: Authorizations,
    pub(crate) relays: Relays,
    pub(crate) flows: Flows,
    pub(crate) connections: BTreeMap<ConnectionId, Connection>,
    pub(crate) clients: BTreeMap<ClientId, ConnectionId>,
    pub(crate) gateways: BTreeMap<GatewayId, ConnectionId>,
    pub(crate) settling: Option<Settling>,
    pub(crate) signing_key: [u8; 32],
    pub(crate) rng: ChaCha20Rng,
    pub(crate) stats: Stats,
    token_ends: BTreeSet<(Instant, ConnectionId)>,
    next_policy_change: Option<Instant>,
    next_connection: u64,
    outputs: VecDeque<Output>,
}

impl Portal {
    /// A portal with what it knew before. `seed` feeds everything that is drawn: device ids, their secrets, references.
    pub fn new(config: Config, stored: Stored, seed: [u8; 32], time: Time) -> Self {
        let mut portal = Self {
            config,
            devices: Devices::new(stored.devices),
            authorizations: Authorizations::new(stored.authorizations),
            relays: Relays::default(),
            flows: Flows::default(),
            connections: BTreeMap::new(),
            clients: BTreeMap::new(),
            gateways: BTreeMap::new(),
            settling: None,
            signing_key: stored.signing_key,
            rng: ChaCha20Rng::from_seed(seed),
            stats: Stats::default(),
            token_ends: BTreeSet::new(),
            next_policy_change: None,
            next_connection: 0,
            outputs: VecDeque::new(),
        };
        portal.end_stale_authorizations(time);
        portal.plan_policy_change(time);
        portal
    }

    /// A component asks to be let in. On success its socket is upgraded and frames of it may follow.
    ///
    /// # Errors
    ///
    /// Names the HTTP answer.
    pub fn connect(&mut self, login: Login, time: Time) -> Result<ConnectionId, ConnectError> {
        let connection = self.admit(login, time);
        if connection.is_err() {
            self.stats.logins_refused += 1;
        }
        connection
    }

    /// A frame of a component.
    pub fn handle_request(&mut self, id: ConnectionId, request: Request, time: Time) {
        let Some(connection) = self.connections.get(&id) else {
            return;
        };
        let topic = connection.component().topic();
        let result = match (request.topic.as_str(), request.event.as_str()) {
            ("phoenix", "heartbeat") => Some(Ok(())),
            (own, "phx_join") if own == topic => {
                return self.handle_join(id, request, time);
            }
            (own, "phx_leave") if own == topic => {
                self.leave_channel(id, time);
                Some(Ok(()))
            }
            (own, event) if own == topic && connection.is_joined() => {
                let component = connection.component();
                self.dispatch(id, component, event, request.payload, time)
            }
            _ => Some(Err(Refusal::UnmatchedTopic)),
        };
        if let Some(result) = result {
            self.reply(id, request.topic, request.reference, result);
        }
    }

    /// A socket is gone.
    pub fn disconnected(&mut self, id: ConnectionId, time: Time) {
        self.forget(id, time);
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, time: Time) {
        while let Some((_, id)) = self.token_ends.first().filter(|(at, _)| *at <= time.now) {
            let id = *id;
            self.end_session(id, time);
        }
        self.expire_flows(time);
        self.settle_relays(time);
        if self.next_policy_change.is_some_and(|at| at <= time.now) {
            self.end_stale_authorizations(time);
            self.refresh_clients(&BTreeSet::new(), time);
            self.plan_policy_change(time);
        }
    }

    /// The earliest deadline.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let token_end = self.token_ends.first().map(|(at, _)| *at);
        let settling = self.settling.as_ref().map(Settling::due);
        let flow = self.flows.next_deadline();
        [token_end, settling, flow, self.next_policy_change]
            .into_iter()
            .flatten()
            .min()
    }

    /// The next thing to do for the server.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// Numbers for people who watch.
    pub fn stats(&self) -> Stats {
        let joined = |component| {
            let connections = self.connections.values();
            connections
                .filter(|connection| connection.component() == component && connection.is_joined())
                .count()
        };
        Stats {
            clients: joined(Component::Client),
            gateways: joined(Component::Gateway),
            relays: self.relays.len(),
            devices: self.devices.len(),
            authorizations: self.authorizations.len(),
            flows_pending: self.flows.waiting(),
            ..self.stats
        }
    }

    fn handle_join(&mut self, id: ConnectionId, request: Request, time: Time) {
        let Some(connection) = self.connections.get(&id) else {
            return;
        };
        let Request {
            topic,
            reference,
            payload,
            ..
        } = request;
        if connection.expires_at.is_some_and(|end| end <= time.unix) {
            return self.reply(id, topic, reference, Err(Refusal::TokenExpired));
        }
        match connection.peer {
            Peer::Client(_) => {
                self.reply(id, topic, reference, Ok(()));
                self.join_client(id, time);
            }
            Peer::Gateway(_) => {
                self.reply(id, topic, reference, Ok(()));
                self.join_gateway(id, time);
            }
            Peer::Relay(_) => self.join_relay(id, (topic, reference, payload), time),
        }
    }

    fn dispatch(
        &mut self,
        id: ConnectionId,
        component: Component,
        event: &str,
        payload: serde_json::Value,
        time: Time,
    ) -> Option<Result<(), Refusal>> {
        match component {
            Component::Client => self.handle_client_event(id, event, payload, time),
            Component::Gateway => self.handle_gateway_event(id, event, payload, time),
            Component::Relay => Some(Err(Refusal::UnknownMessage)),
        }
    }

    fn leave_channel(&mut self, id: ConnectionId, time: Time) {
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.leave();
            self.relay_left(id, time);
        }
    }

    /// A token ended or was taken away: tells the component, unless it is a relay, and closes.
    pub(crate) fn end_session(&mut self, id: ConnectionId, time: Time) {
        let Some(connection) = self.connections.get(&id) else {
            self.token_ends.retain(|(_, other)| *other != id);
            return;
        };
        let component = connection.component();
        if component != Component::Relay {
            let topic = component.topic();
            self.outputs.push_back(Output::Push {
                connection: id,
                topic,
                event: "disconnect".to_owned(),
                payload: serde_json::json!({ "reason": "token_expired" }),
            });
        }
        self.close(id, CloseReason::TokenEnded, time);
    }

    pub(crate) fn close(&mut self, connection: ConnectionId, reason: CloseReason, time: Time) {
        self.outputs.push_back(Output::Close { connection, reason });
        self.forget(connection, time);
    }

    fn forget(&mut self, id: ConnectionId, time: Time) {
        let Some(connection) = self.connections.remove(&id) else {
            return;
        };
        if connection.expires_at.is_some() {
            self.token_ends.retain(|(_, other)| *other != id);
        }
        match connection.peer {
            // A newer connection of the same device is only noted once this one is forgotten.
            Peer::Client(peer) => {
                self.clients.remove(&peer.id);
                self.flows.forget_client(id);
            }
            Peer::Gateway(peer) => {
                self.gateways.remove(&peer.id);
            }
            Peer::Relay(_) => self.relay_left(id, time),
        }
    }

    pub(crate) fn next_id(&mut self) -> ConnectionId {
        let id = ConnectionId(self.next_connection);
        self.next_connection += 1;
        id
    }

    /// Arms the timer of a connection.
    pub(crate) fn plan_token_end(&mut self, id: ConnectionId, end: u64, time: Time) {
        self.token_ends.insert((time.at_unix(end), id));
    }

    /// Arms the timers of connections anew, after tokens changed.
    pub(crate) fn plan_token_ends(&mut self, time: Time) {
        let ends = self.connections.iter().filter_map(|(id, connection)| {
            let end = connection.expires_at?;
            Some((time.at_unix(end), *id))
        });
        self.token_ends = ends.collect();
    }

    /// Arms the timer for the next start or end of a time window.
    pub(crate) fn plan_policy_change(&mut self, time: Time) {
        let policies = self.config.policies.values();
        let next = policies
            .filter_map(|policy| policy.conditions.next_change(time.unix))
            .min();
        self.next_policy_change = next.map(|unix| time.at_unix(unix));
    }

    pub(crate) fn reply(
        &mut self,
        connection: ConnectionId,
        topic: String,
        reference: Option<u64>,
        result: Result<(), Refusal>,
    ) {
        if let Some(reference) = reference {
            self.outputs.push_back(Output::Reply {
                connection,
                topic,
                reference,
                result,
            });
        }
    }

    /// Sends a message to a component that is joined.
    pub(crate) fn push(&mut self, id: ConnectionId, message: &impl Message) {
        let connection = self.connections.get(&id);
        let Some(connection) = connection.filter(|connection| connection.is_joined()) else {
            return;
        };
        self.outputs.push_back(Output::Push {
            connection: id,
            topic: connection.component().topic(),
            event: message.event(connection.dialect).to_owned(),
            payload: message.payload(),
        });
    }

    pub(crate) fn store(&mut self, op: StoreOp) {
        self.outputs.push_back(Output::Store(op));
    }
}

impl ConnectionId {
    /// The number, for logs.
    pub const fn number(self) -> u64 {
        self.0
    }
}

impl Time {
    /// The instant of a wall-clock time; what is past is now.
    pub(crate) fn at_unix(&self, unix: u64) -> Instant {
        /// Keeps the sum in range.
        const LONGEST: u64 = 100 * 365 * 86_400;
        let ahead = unix.saturating_sub(self.unix).min(LONGEST);
        self.now + Duration::from_secs(ahead)
    }
}
