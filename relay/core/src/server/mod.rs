//! The relay's state machine.
//!
//! | Module | Holds |
//! |---|---|
//! | [`data`] | trains of datagrams in, routes out: the hot path |
//! | `request` | STUN messages: dispatch and replies |
//! | `auth` | long-term credentials: who is asking |
//! | `allocate` | Allocate, and ports between wish and bound socket |
//! | `refresh`, `bind` | Refresh; ChannelBind and CreatePermission |
//! | `indication` | Send and Data of the open profile |

mod allocate;
mod auth;
mod bind;
pub mod data;
mod indication;
mod refresh;
mod request;

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, VecDeque},
    time::{Duration, Instant},
};

use connlib_cover::cover;
use connlib_stun::{Family, TransactionId};
use rand::{RngCore as _, SeedableRng as _};
use rand_chacha::ChaCha20Rng;

use crate::{
    address::{AllocationPort, ClientSocket},
    allocations::{Allocation, Allocations},
    channels::{Channels, Expired},
    config::{Config, ConfigError, Profile},
    counters::Counters,
    hash::SecretHash,
    limit::RateLimiter,
    nonce::Nonces,
    policy::Policy,
    ports::FreePorts,
    secret::StampSecret,
    timers::{Timer, Timers},
};
use allocate::Pending;
pub use data::{Forwarder, Route, Train};

/// Refusals that a source may save up; see [`Config::refusals_per_second`].
const REFUSAL_BURST: u32 = 100;
/// Binding replies per second and source: a few hundred clients behind one NAT keep their mappings open.
const BINDINGS_PER_SECOND: u32 = 1000;
/// Binding replies that a source may save up.
const BINDING_BURST: u32 = 4000;
/// Longest realm that fits into its attribute.
const MAX_REALM_CHARS: usize = 127;

/// What the driver must do, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Send `bytes` to a client from the listen port.
    Send {
        /// Whom to.
        to: ClientSocket,
        /// A complete STUN message.
        bytes: Vec<u8>,
    },
    /// Bind a UDP socket to the port; report with [`Server::handle_port_bound`] or [`Server::handle_port_failed`]. The
    /// client learns of its allocation only then.
    CreateAllocation {
        /// The port.
        port: AllocationPort,
        /// The family of the socket.
        family: Family,
    },
    /// Close the socket.
    FreeAllocation {
        /// The port.
        port: AllocationPort,
        /// The family of the socket.
        family: Family,
    },
    /// For [`crate::Users`], which counts over all shards; what it wants removed goes to [`Server::evict`] of its shard.
    UserGained {
        /// Who.
        username: String,
        /// Whose socket the new allocation is for.
        client: ClientSocket,
    },
    /// The opposite.
    UserLost {
        /// Who.
        username: String,
        /// Whose socket the allocation was for.
        client: ClientSocket,
    },
}

/// A STUN and TURN server without sockets and clock. The loop that drives it:
///
/// ```text
/// loop {
///     wait for a readable socket or server.poll_timeout()
///     for each readable socket, a batch at a time:
///         listen port     → server.handle_client_input(from, train, now, &mut forwarder)
///         allocation port → server.handle_peer_input(port, from, train, now, &mut forwarder)
///         after each train: while let Some(command) = server.poll_command() { … }
///             CreateAllocation → bind, then server.handle_port_bound or handle_port_failed, at once
///     server.handle_timeout(now), and its commands
///     flush what the forwarder collected
/// }
/// ```
///
/// Datagrams of one client must be handed in in the order of their arrival: clients send data right behind the request
/// that makes it deliverable.
#[derive(Debug)]
pub struct Server {
    config: Config,
    policy: Policy,
    stamp_secret: StampSecret,
    rng: ChaCha20Rng,
    nonces: Nonces,
    clock: UnixClock,
    allocations: Allocations,
    /// Allocations whose sockets are being bound.
    pending: BTreeMap<ClientSocket, Pending>,
    channels: Channels,
    ports: FreePorts,
    timers: Timers,
    /// Deletions carried out lately, so that a replayed one does not hit the next allocation.
    deletions: VecDeque<(ClientSocket, TransactionId)>,
    refusals: RateLimiter,
    bindings: RateLimiter,
    admission: Admission,
    commands: VecDeque<Command>,
    counters: Counters,
}

/// Whether new allocations are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Admission {
    Open,
    Draining,
}

/// Wall-clock time, derived from the monotonic clock and the last known pair of both.
#[derive(Debug, Clone, Copy)]
struct UnixClock {
    at: Instant,
    unix: Duration,
}

impl UnixClock {
    /// Unix seconds.
    fn now(self, now: Instant) -> u64 {
        (self.unix + now.saturating_duration_since(self.at)).as_secs()
    }
}

impl Server {
    /// A relay that serves nobody yet. `seed` determines the stamp secret (unless configured), nonces and ports.
    /// `unix_now` is the time since the Unix epoch.
    ///
    /// # Errors
    /// The settings cannot work.
    pub fn new(
        config: Config,
        seed: [u8; 32],
        now: Instant,
        unix_now: Duration,
    ) -> Result<Self, ConfigError> {
        if !(1..=MAX_REALM_CHARS).contains(&config.realm.chars().count()) {
            return Err(ConfigError::Realm);
        }
        let mut rng = ChaCha20Rng::from_seed(seed);
        let drawn = StampSecret::random(&mut rng);
        let mut nonce_key = [0; 32];
        rng.fill_bytes(&mut nonce_key);
        let hash = SecretHash::draw(&mut rng);
        let refusals = config.refusals_per_second;
        let part = |limit: u32| {
            let part = config.shard.part_of(limit as usize);
            u32::try_from(part).unwrap_or(u32::MAX)
        };
        let limiter = |rate, burst, hash| RateLimiter::new(part(rate), part(burst), hash, now);
        let (refusals, bindings) = (
            limiter(refusals, REFUSAL_BURST, hash.clone()),
            limiter(BINDINGS_PER_SECOND, BINDING_BURST, hash.clone()),
        );
        Ok(Self {
            policy: Policy::new(&config),
            stamp_secret: config.stamp_secret.clone().unwrap_or(drawn),
            nonces: Nonces::new(nonce_key, now),
            clock: UnixClock {
                at: now,
                unix: unix_now,
            },
            allocations: Allocations::new(&hash),
            pending: BTreeMap::new(),
            channels: Channels::new(&hash),
            ports: FreePorts::new(&config.ports, config.shard, config.listen_port),
            timers: Timers::default(),
            deletions: VecDeque::new(),
            refusals,
            bindings,
            admission: Admission::Open,
            commands: VecDeque::new(),
            counters: Counters::default(),
            config,
            rng,
        })
    }

    /// What the portal must know to mint credentials.
    #[must_use]
    pub fn stamp_secret(&self) -> &StampSecret {
        &self.stamp_secret
    }

    /// The settings.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Allocations at present, those included whose sockets are being bound.
    #[must_use]
    pub fn allocation_count(&self) -> usize {
        self.allocations.len() + self.pending.len()
    }

    /// Channels that relay at present.
    #[must_use]
    pub fn channel_count(&self) -> usize {
        self.channels.bound_len()
    }

    /// What happened so far.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Corrects the wall clock. It decides nothing but when credentials expire.
    pub fn set_unix_time(&mut self, unix_now: Duration, now: Instant) {
        self.clock = UnixClock {
            at: now,
            unix: unix_now,
        };
    }

    /// Refuses new allocations from now on; existing ones live on.
    pub fn drain(&mut self) {
        self.admission = Admission::Draining;
    }

    /// The next thing to do, in order.
    pub fn poll_command(&mut self) -> Option<Command> {
        self.commands.pop_front()
    }

    /// The next deadline.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.timers.next()
    }

    /// Ends whatever has reached its deadline.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some(timer) = self.timers.pop_due(now) {
            match timer {
                Timer::Channel(client, number) => match self.channels.expire(client, number) {
                    Some(Expired::CoolsDown { until }) => {
                        let port = self.allocations.get(client).map(|it| it.port.get());
                        tracing::info!(port, %number, "Channel expired");
                        self.timers.arm(timer, until);
                    }
                    Some(Expired::Gone) => {
                        if let Some(allocation) = self.allocations.get_mut(client) {
                            allocation.channels.remove(&number);
                        }
                    }
                    None => {}
                },
                Timer::Allocation(client) => {
                    cover!("relay/allocation-expired");
                    self.delete_allocation(client, "expired");
                }
            }
        }
    }

    /// Removes an allocation because its user has newer ones at other shards; without effect if it is not the user's any
    /// more.
    pub fn evict(&mut self, username: &str, client: ClientSocket) {
        let owner = self.allocations.get(client).map(|it| it.username.as_str());
        if owner == Some(username) {
            self.delete_allocation(client, "replaced");
        }
    }

    /// Tells siblings what they need for the rule of so many allocations per user.
    fn announce(&mut self, command: Command) {
        if self.config.shard.has_siblings() && self.config.allocations_per_username > 0 {
            self.commands.push_back(command);
        }
    }

    /// Removes an allocation with all that belongs to it.
    fn delete_allocation(&mut self, client: ClientSocket, reason: &'static str) {
        let Some(allocation) = self.allocations.remove(client) else {
            return;
        };
        let Allocation {
            port,
            families,
            username,
            expires_at,
            channels,
            ..
        } = allocation;
        for number in channels {
            if let Some(deadline) = self.channels.remove(client, number) {
                self.timers.disarm(Timer::Channel(client, number), deadline);
            }
        }
        self.timers.disarm(Timer::Allocation(client), expires_at);
        self.ports.put_back(port);
        for family in families.iter() {
            self.commands
                .push_back(Command::FreeAllocation { port, family });
        }
        self.announce(Command::UserLost { username, client });
        tracing::info!(%port, reason, "Allocation freed");
    }

    fn is_open_profile(&self) -> bool {
        self.config.profile == Profile::Open
    }
}
