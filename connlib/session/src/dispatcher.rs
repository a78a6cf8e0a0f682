//! One portal, several workers: who gets which message, and what becomes of what they send.
//!
//! A gateway can have several workers, each a [`GatewaySession`](crate::GatewaySession) of its own with the clients that
//! fall to it. The portal sees one gateway: one connection, one key. [`Dispatcher`] stands between the two.
//!
//! * A message about one client goes to that client's worker, everything else to all. A client's worker is a function of
//!   its id: nothing is remembered, so nothing can be forgotten.
//! * Relays grant one allocation per user, so each worker logs in there as a user of its own. A portal that gives fewer
//!   users than there are workers leaves the others without clients.
//! * Each worker asks for a new connection by itself. The wishes of several for the same one are fulfilled once.

use std::num::NonZeroUsize;

use connlib_messages::gateway::{CandidatesForClients, FromPortal, Init, ToPortal};
use connlib_messages::{Relay, RelaysPresence};
use connlib_model::ClientId;
use connlib_tunnel::{PublicKey, TunAddresses};

use crate::{PortalInput, PortalOutput};

/// What a worker knew of reset and connection when it made an output. Ordered by age.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Known {
    /// How often it was reset.
    pub resets: u64,
    /// How many [`PortalInput::Connected`] it has seen.
    pub connections: u64,
}

/// Something for one worker.
#[derive(Debug, Clone, PartialEq)]
pub struct Delivery {
    /// Its number.
    pub worker: usize,
    /// What it gets.
    pub input: WorkerInput,
}

/// Something for a worker.
#[derive(Debug, Clone, PartialEq)]
pub enum WorkerInput {
    /// For its session.
    Portal(PortalInput<FromPortal, ToPortal>),
    /// Packets for these addresses belong to another worker.
    Owner {
        /// A client's addresses.
        addresses: TunAddresses,
        /// The client's worker.
        worker: usize,
    },
}

/// The state between the portal's channel and the workers.
#[derive(Debug)]
pub struct Dispatcher {
    workers: usize,
    /// Workers that have clients; `None` until relays are known.
    serving: Option<usize>,
    /// The newest that any worker has shown, or will be told.
    known: Known,
    /// The key of the newest connection.
    key: PublicKey,
    /// That connection is being made.
    is_connecting: bool,
    /// Relays were asked for, and none came yet.
    awaits_relays: bool,
}

impl Dispatcher {
    /// For workers with the numbers 0 to `workers`, before the first connection. They all have this key.
    pub fn new(workers: NonZeroUsize, key: PublicKey) -> Self {
        Self {
            workers: workers.get(),
            serving: None,
            known: Known::default(),
            key,
            is_connecting: false,
            awaits_relays: false,
        }
    }

    /// The worker of a client.
    pub fn owner(&self, client: ClientId) -> usize {
        // Fibonacci hashing: ids may be random, counted, or equal in most digits.
        let id = client.as_u128();
        let folded = (id ^ (id >> 64)) as u64;
        let hash = folded.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        hash as usize % self.serving.unwrap_or(1)
    }

    /// Takes what happened on the channel; returns what the workers get.
    pub fn handle_portal(&mut self, input: PortalInput<FromPortal, ToPortal>) -> Vec<Delivery> {
        match input {
            PortalInput::Connected => {
                self.known.connections += 1;
                self.is_connecting = false;
                self.awaits_relays = false;
                self.to_all(&PortalInput::Connected)
            }
            PortalInput::Disconnected => {
                self.awaits_relays = false;
                self.to_all(&PortalInput::Disconnected)
            }
            PortalInput::Failed(_) => self.to_all(&input),
            PortalInput::Unsent(message) => self.give_back(message),
            PortalInput::Message(message) => self.handle_message(message),
        }
    }

    /// Takes what a worker wants to happen on the channel; returns what has to, and what the other workers get.
    pub fn handle_output(
        &mut self,
        worker: usize,
        known: Known,
        output: PortalOutput<ToPortal>,
    ) -> (Option<PortalOutput<ToPortal>>, Vec<Delivery>) {
        if known.resets < self.known.resets {
            // About connections that are gone.
            return (None, vec![]);
        }
        self.known.resets = known.resets;
        match output {
            PortalOutput::Send(ToPortal::NoRelays) if self.awaits_relays => (None, vec![]),
            PortalOutput::Send(message) => {
                self.awaits_relays |= message == ToPortal::NoRelays;
                (Some(PortalOutput::Send(message)), vec![])
            }
            PortalOutput::Reconnect { public_key } => self.reconnect(worker, known, public_key),
        }
    }

    /// Fulfils the wish for a connection newer than what the worker knows, unless there is one or it is being made.
    fn reconnect(
        &mut self,
        worker: usize,
        known: Known,
        public_key: PublicKey,
    ) -> (Option<PortalOutput<ToPortal>>, Vec<Delivery>) {
        let is_newer = self.is_connecting || self.known.connections > known.connections;
        if self.key == public_key && is_newer {
            return (None, vec![]);
        }
        self.key = public_key;
        self.is_connecting = true;
        self.awaits_relays = false;
        let mut others = self.to_all(&PortalInput::Disconnected);
        others.retain(|delivery| delivery.worker != worker);
        (Some(PortalOutput::Reconnect { public_key }), others)
    }

    fn handle_message(&mut self, message: FromPortal) -> Vec<Delivery> {
        match message {
            FromPortal::Init(init) => self.init(&init),
            FromPortal::RelaysPresence(presence) => self.relays_presence(&presence),
            FromPortal::AuthorizeFlow(flow) => {
                let owner = self.owner(flow.client.id);
                let addresses = TunAddresses {
                    v4: flow.client.ipv4,
                    v6: flow.client.ipv6,
                };
                let input = |worker| match worker == owner {
                    true => portal(FromPortal::AuthorizeFlow(flow.clone())),
                    false => WorkerInput::Owner {
                        addresses,
                        worker: owner,
                    },
                };
                self.each(input)
            }
            FromPortal::RejectAccess(reject) => {
                self.to_owner(reject.client_id, FromPortal::RejectAccess(reject))
            }
            FromPortal::IceCandidates(candidates) => {
                self.to_owner(candidates.client_id, FromPortal::IceCandidates(candidates))
            }
            FromPortal::InvalidateIceCandidates(candidates) => self.to_owner(
                candidates.client_id,
                FromPortal::InvalidateIceCandidates(candidates),
            ),
            message @ (FromPortal::ResourceUpdated(_) | FromPortal::Unknown { .. }) => {
                self.to_all(&PortalInput::Message(message))
            }
        }
    }

    fn init(&mut self, init: &Init) -> Vec<Delivery> {
        self.learn_users(&init.relays);
        self.each(|worker| {
            let init = Init {
                relays: self.relays_of(worker, &init.relays),
                ..init.clone()
            };
            portal(FromPortal::Init(Box::new(init)))
        })
    }

    fn relays_presence(&mut self, presence: &RelaysPresence) -> Vec<Delivery> {
        self.learn_users(&presence.connected);
        self.awaits_relays &= presence.connected.is_empty();
        self.each(|worker| {
            portal(FromPortal::RelaysPresence(RelaysPresence {
                disconnected_ids: presence.disconnected_ids.clone(),
                connected: self.relays_of(worker, &presence.connected),
            }))
        })
    }

    /// The first relays decide how many workers have clients, for good: their clients must stay theirs.
    fn learn_users(&mut self, relays: &[Relay]) {
        if self.serving.is_some() {
            return;
        }
        let users = |relay: &Relay| 1 + relay.further_users.len();
        let Some(users) = relays.iter().map(users).min() else {
            return;
        };
        let serving = self.workers.min(users);
        self.serving = Some(serving);
        if serving < self.workers {
            tracing::info!(
                workers = self.workers,
                serving,
                "The portal lets this gateway have fewer allocations on relays than it has workers; the others stay idle"
            );
        }
    }

    /// Each relay with the credentials of one worker. A portal that has become stingy makes workers share the last ones.
    fn relays_of(&self, worker: usize, relays: &[Relay]) -> Vec<Relay> {
        if worker >= self.serving.unwrap_or(1) {
            return vec![];
        }
        let with_own_user = |relay: &Relay| {
            let mut relay = relay.clone();
            let mut users = std::mem::take(&mut relay.further_users);
            users.truncate(worker);
            if let Some(user) = users.pop() {
                relay.username = user.username;
                relay.password = user.password;
            }
            relay
        };
        relays.iter().map(with_own_user).collect()
    }

    /// A message could not be sent: candidates wait with their client's worker.
    fn give_back(&self, message: ToPortal) -> Vec<Delivery> {
        let split = |sent: CandidatesForClients, wrap: fn(CandidatesForClients) -> ToPortal| {
            let CandidatesForClients {
                client_ids,
                candidates,
            } = sent;
            let to_owner = |client| Delivery {
                worker: self.owner(client),
                input: WorkerInput::Portal(PortalInput::Unsent(wrap(CandidatesForClients {
                    client_ids: vec![client],
                    candidates: candidates.clone(),
                }))),
            };
            client_ids.into_iter().map(to_owner).collect()
        };
        match message {
            ToPortal::BroadcastIceCandidates(sent) => split(sent, ToPortal::BroadcastIceCandidates),
            ToPortal::BroadcastInvalidatedIceCandidates(sent) => {
                split(sent, ToPortal::BroadcastInvalidatedIceCandidates)
            }
            // Void without the connection that they were for.
            ToPortal::FlowAuthorized(_)
            | ToPortal::NoRelays
            | ToPortal::SetSnownetCapabilities(_)
            | ToPortal::Metrics
            | ToPortal::Unknown { .. } => vec![],
        }
    }

    fn to_owner(&self, client: ClientId, message: FromPortal) -> Vec<Delivery> {
        vec![Delivery {
            worker: self.owner(client),
            input: portal(message),
        }]
    }

    fn to_all(&self, input: &PortalInput<FromPortal, ToPortal>) -> Vec<Delivery> {
        self.each(|_| WorkerInput::Portal(input.clone()))
    }

    fn each(&self, input: impl Fn(usize) -> WorkerInput) -> Vec<Delivery> {
        let deliver = |worker| Delivery {
            worker,
            input: input(worker),
        };
        (0..self.workers).map(deliver).collect()
    }
}

fn portal(message: FromPortal) -> WorkerInput {
    WorkerInput::Portal(PortalInput::Message(message))
}
