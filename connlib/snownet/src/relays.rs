//! The node's relays: one TURN allocation each, and the addresses that they lend or discover.
//!
//! Allocations live as long as the session, even without a connection that needs them: they also tell us our host and
//! server-reflexive addresses. Each connection is bound to one relay, sampled here.

mod allocation;
mod sampling;
mod servers;

pub(crate) use servers::Sender;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::time::Instant;

use connlib_cover::cover;
use connlib_stun::ChannelNumber;
use connlib_turn_client::{Event as TurnEvent, Unwrapped};
use is::{Candidate, CandidateKind};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha20Rng;

use crate::transmits::Transmits;
use crate::{Id, RelayConfig, Transmit};
use allocation::Allocation;
use servers::Servers;

/// Something that connections must know about a relay.
#[derive(Debug)]
pub(crate) enum RelayEvent<R> {
    /// An address of ours has become known.
    New { relay: R, candidate: Candidate },
    /// An address of ours on this relay is gone.
    Invalid { relay: R, candidate: Candidate },
}

/// All relays of the node.
pub(crate) struct Relays<R> {
    allocations: BTreeMap<R, Allocation<R>>,
    servers: Servers<R>,
    /// Our addresses on relays. A handful: a list is the fastest map.
    relayed: Vec<(SocketAddr, R)>,
    hosts: BTreeSet<SocketAddr>,
    events: VecDeque<RelayEvent<R>>,
    /// A relay is gone since this was last asked for.
    has_lost: bool,
    rng: ChaCha20Rng,
}

impl<R: Id> Relays<R> {
    pub(crate) fn new(seed: [u8; 32]) -> Self {
        Self {
            allocations: BTreeMap::new(),
            servers: Servers::new(),
            relayed: Vec::new(),
            hosts: BTreeSet::new(),
            events: VecDeque::new(),
            has_lost: false,
            rng: ChaCha20Rng::from_seed(seed),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.allocations.len()
    }

    pub(crate) fn contains(&self, relay: R) -> bool {
        self.allocations.contains_key(&relay)
    }

    /// Whether a relay is gone since the last call: connections may be without one.
    pub(crate) fn take_lost(&mut self) -> bool {
        std::mem::take(&mut self.has_lost)
    }

    /// Chooses a relay for a connection: any of those that answer about as fast as the fastest ones (snownet §2.11). Before
    /// the first answer, any that is not suspended.
    pub(crate) fn sample(&mut self) -> Option<R> {
        let usable = || self.allocations.values().filter(|a| !a.is_suspended());
        let rtts = usable().filter_map(Allocation::rtt).collect();
        let good: Vec<R> = match sampling::threshold(rtts) {
            Some(max) => usable()
                .filter(|a| a.rtt().is_some_and(|rtt| rtt <= max))
                .map(Allocation::id)
                .collect(),
            None => usable().map(Allocation::id).collect(),
        };
        let count = good.len();
        (count > 0).then(|| good[self.rng.random_range(0..count)])
    }

    /// Everything a connection through `relay` can offer its peer: all host and reflexive addresses, and those on `relay`.
    /// Best first.
    pub(crate) fn candidates_for(&self, relay: R) -> Vec<Candidate> {
        let mut candidates: Vec<Candidate> = self.hosts.iter().filter_map(host).collect();
        for allocation in self.allocations.values() {
            for candidate in allocation.candidates() {
                let is_ours = allocation.id() == relay;
                let is_known = candidates
                    .iter()
                    .any(|c| c.addr() == candidate.addr() && c.kind() == candidate.kind());
                if !is_known && (is_ours || !is_relayed(candidate)) {
                    candidates.push(candidate.clone());
                }
            }
        }
        candidates.sort_by_key(|c| (std::cmp::Reverse(c.prio()), c.addr()));
        candidates
    }

    /// Adds a socket address that the caller knows by itself. `None` if it is known or unusable.
    pub(crate) fn add_host(&mut self, addr: SocketAddr) -> Option<Candidate> {
        let candidate = host(&addr)?;
        self.hosts.insert(addr).then_some(candidate)
    }

    /// The relay on which `addr` is an address of ours.
    #[inline]
    pub(crate) fn owner_of(&self, addr: SocketAddr) -> Option<R> {
        self.relayed
            .iter()
            .find(|(relayed, _)| *relayed == addr)
            .map(|(_, relay)| *relay)
    }

    /// What the sender of a datagram is, judged by its address.
    #[inline]
    pub(crate) fn classify(&self, from: SocketAddr) -> Sender {
        self.servers.classify(from)
    }

    /// Takes a STUN message from a relay's socket. Returns whether any allocation was waiting for it.
    pub(crate) fn handle_stun(
        &mut self,
        local: SocketAddr,
        from: SocketAddr,
        datagram: &[u8],
        now: Instant,
    ) -> bool {
        let relays: Vec<R> = self.servers.at(from).collect();
        let taken = relays.iter().any(|relay| {
            self.allocations
                .get_mut(relay)
                .is_some_and(|a| a.handle_input(local, from, datagram, now))
        });
        self.collect_events();
        taken
    }

    /// Reads a channel-data message from a relay's socket.
    #[inline]
    pub(crate) fn unwrap<'a>(
        &mut self,
        from: SocketAddr,
        datagram: &'a [u8],
        now: Instant,
    ) -> Option<Unwrapped<'a>> {
        let allocations = &mut self.allocations;
        self.servers.at(from).find_map(|relay| {
            allocations
                .get_mut(&relay)?
                .decapsulate(from, datagram, now)
        })
    }

    /// The channel through `relay` to `peer`, and the relay's socket, for packets. Counts as use of the channel; asks for one if
    /// there is none.
    #[inline]
    pub(crate) fn channel(
        &mut self,
        relay: R,
        peer: SocketAddr,
        now: Instant,
    ) -> Option<(SocketAddr, ChannelNumber)> {
        let allocation = self.allocations.get_mut(&relay)?;
        let channel = allocation.channel(peer, now)?;
        // Even where packets go one way, ICE checks their path.
        allocation.expect_answer(now);
        Some(channel)
    }

    /// What was just sent through `relay` calls for an answer; without any, the relay is asked about the allocation.
    pub(crate) fn expect_answer(&mut self, relay: R, now: Instant) {
        if let Some(allocation) = self.allocations.get_mut(&relay) {
            allocation.expect_answer(now);
        }
    }

    /// Asks `relay` for a channel to `peer`, unless there is one or one is being made.
    pub(crate) fn bind_channel(&mut self, relay: R, peer: SocketAddr, now: Instant) {
        if let Some(allocation) = self.allocations.get_mut(&relay) {
            allocation.bind_channel(peer, now);
        }
    }

    /// Wraps one datagram for `peer` behind `relay`. Asks for a channel if there is none; `None` if none can be had now.
    pub(crate) fn wrap(
        &mut self,
        relay: R,
        peer: SocketAddr,
        payload: &[u8],
        now: Instant,
    ) -> Option<Transmit> {
        let allocation = self.allocations.get_mut(&relay)?;
        // A channel that was just asked for can be used behind the request.
        let (server, channel) = allocation
            .channel(peer, now)
            .or_else(|| allocation.channel(peer, now))?;
        Some(allocation::channel_data(server, channel, payload))
    }

    /// Takes the portal's changes (snownet §2.12). Other relays are asked whether they are still there.
    pub(crate) fn update(&mut self, remove: &BTreeSet<R>, add: &[RelayConfig<R>], now: Instant) {
        for relay in remove {
            if !self.drop_relay(*relay) {
                tracing::debug!(%relay, "Cannot remove unknown relay");
            }
        }
        for config in add {
            self.upsert(config, now);
        }
        let mentioned: BTreeSet<R> = add.iter().map(|config| config.id).collect();
        for allocation in self.allocations.values_mut() {
            if !mentioned.contains(&allocation.id()) {
                allocation.refresh(now);
            }
        }
        self.collect_events();
    }

    /// Asks a relay whether it still has our allocation; at most one such question is under way.
    pub(crate) fn probe(&mut self, relay: R, now: Instant) {
        if let Some(allocation) = self.allocations.get_mut(&relay) {
            allocation.refresh(now);
        }
    }

    /// Starts every allocation over with the same credentials. Addresses of ours are gone without event.
    pub(crate) fn reset(&mut self, now: Instant) {
        for allocation in self.allocations.values_mut() {
            allocation.restart(now);
        }
        self.collect_events();
        self.events.clear();
        self.relayed.clear();
        self.hosts.clear();
    }

    /// Gives every allocation back, because the process ends.
    pub(crate) fn release(&mut self, now: Instant) {
        for allocation in self.allocations.values_mut() {
            allocation.release(now);
        }
    }

    /// Does what is due.
    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        for allocation in self.allocations.values_mut() {
            allocation.handle_timeout(now);
        }
        self.collect_events();
    }

    /// Drops allocations that will never work again. Returns whether any was dropped.
    pub(crate) fn collect_garbage(&mut self) -> bool {
        let dead: Vec<_> = self
            .allocations
            .values()
            .filter_map(|a| Some((a.id(), a.free_reason()?)))
            .collect();
        for (relay, reason) in &dead {
            tracing::info!(%relay, %reason, "Relay is unusable");
            cover!("turn/allocation-freed");
            self.drop_relay(*relay);
        }
        !dead.is_empty()
    }

    pub(crate) fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        self.allocations
            .values()
            .filter_map(Allocation::poll_timeout)
            .min_by_key(|(at, _)| *at)
    }

    /// The next news for connections.
    ///
    /// An address counts as ours exactly as long as connections may use it: from the moment they are told of it until they are
    /// told of its end.
    pub(crate) fn poll_event(&mut self) -> Option<RelayEvent<R>> {
        let event = self.events.pop_front()?;
        match &event {
            RelayEvent::New { relay, candidate } if is_relayed(candidate) => {
                self.relayed.push((candidate.addr(), *relay));
            }
            RelayEvent::New { .. } => {}
            RelayEvent::Invalid { relay, candidate } => {
                let entry = (candidate.addr(), *relay);
                self.relayed.retain(|known| *known != entry);
            }
        }
        Some(event)
    }

    /// Moves every request to a relay behind what is queued.
    pub(crate) fn drain_transmits(&mut self, transmits: &mut Transmits) {
        for allocation in self.allocations.values_mut() {
            while let Some(transmit) = allocation.poll_transmit() {
                transmits.push(transmit);
            }
        }
    }

    fn upsert(&mut self, config: &RelayConfig<R>, now: Instant) {
        if let Some(existing) = self.allocations.get_mut(&config.id) {
            if existing.config() == config {
                tracing::debug!(relay = %config.id, "Relay is known");
                if existing.is_suspended() {
                    existing.refresh(now);
                }
                return;
            }
            tracing::info!(relay = %config.id, "Replacing relay");
            cover!("turn/relay-credentials-changed");
            self.drop_relay(config.id);
        }
        let Some(allocation) = Allocation::new(config.clone(), self.rng.random(), now) else {
            tracing::warn!(relay = %config.id, "Relay has no address");
            return;
        };
        self.servers.insert(config.id, allocation.sockets());
        self.allocations.insert(config.id, allocation);
    }

    fn drop_relay(&mut self, relay: R) -> bool {
        let Some(allocation) = self.allocations.remove(&relay) else {
            return false;
        };
        self.has_lost = true;
        self.servers.retire(relay);
        let lost = allocation.relayed_candidates().cloned();
        self.events
            .extend(lost.map(|candidate| RelayEvent::Invalid { relay, candidate }));
        true
    }

    fn collect_events(&mut self) {
        for allocation in self.allocations.values_mut() {
            let relay = allocation.id();
            while let Some(event) = allocation.poll_event() {
                self.events.push_back(match event {
                    TurnEvent::New(candidate) => RelayEvent::New { relay, candidate },
                    TurnEvent::Invalid(candidate) => RelayEvent::Invalid { relay, candidate },
                });
            }
        }
    }
}

fn is_relayed(candidate: &Candidate) -> bool {
    candidate.kind() == CandidateKind::Relayed
}

fn host(addr: &SocketAddr) -> Option<Candidate> {
    Candidate::host(*addr, "udp")
        .inspect_err(|error| tracing::debug!(%addr, %error, "Unusable host address"))
        .ok()
}
