//! One connection: a path found by ICE with a WireGuard peer on top.
//!
//! ```text
//!             upsert
//!               │
//!         ┌─────▼──────┐  nomination   ┌───────────┐ 20 s no activity, ICE connected ┌──────┐
//!         │ Connecting ├──────────────►│ Connected ├────────────────────────────────►│ Idle │
//!         └─────┬──────┘               └──▲─┬──────┘◄── packet, candidate, upsert ───┴──┬───┘
//!               │                         └─┘ nomination: swaps the path (also in Idle) │
//!               └────────── failed (removed by the node in the same step) ◄─────────────┘
//! ```
//!
//! ICE chooses the path and WireGuard proves it: neither looks into the other. Whatever happens to a connection ends in
//! [`Connection::settle`], which carries checks, datagrams and findings outwards until nothing is left to do.

mod candidates;
mod info;
mod io;
mod packets;
mod path;
mod state;

use connlib_cover::cover;
pub(crate) use io::Io;
pub(crate) use path::{ChannelSink, DirectSink, Path, Route};
use state::State;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use connlib_wireguard::{
    DatagramKind, Event as WireGuardEvent, Peer, PeerConfig, PeerIndex, PrivateKey, PublicKey,
    WallClock,
};

use crate::ice::{Agent, AgentEvent, Pair, Timing};
use crate::{Event, IceCredentials, Id, Role};

/// How long a new connection waits for the peer's first candidate.
const CANDIDATE_TIMEOUT: Duration = Duration::from_secs(10);

/// How long ICE may be without a possible pair: new candidates are usually on their way after a change of relay or network.
const DISCONNECT_GRACE: Duration = Duration::from_secs(2);

/// Silence after which checks slow down. Longer than the active ICE timeout of the client (16.5 s): otherwise one packet would
/// wake the link and it would fall asleep again before a loss can be noticed.
const IDLE_AFTER: Duration = Duration::from_secs(20);

/// Most datagrams (answers to handshakes) kept until a path is nominated.
const MAX_HELD: usize = 128;

/// What a connection is made from.
pub(crate) struct NewConnection<'a, P, R> {
    pub(crate) peer: P,
    pub(crate) role: Role,
    pub(crate) remote_key: PublicKey,
    pub(crate) psk: [u8; 32],
    pub(crate) local: IceCredentials,
    pub(crate) remote: IceCredentials,
    pub(crate) relay: R,
    pub(crate) private: &'a PrivateKey,
    pub(crate) clock: WallClock,
    pub(crate) indices: [PeerIndex; 2],
    pub(crate) seed: [u8; 32],
    pub(crate) tie_breaker: u64,
}

/// Why a connection failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Failure {
    #[error("no candidate of the peer arrived")]
    NoCandidates,
    #[error("no path to the peer works")]
    IceDisconnected,
    #[error("the peer does not answer handshakes")]
    NoHandshake,
}

/// A connection to one peer.
pub(crate) struct Connection<P, R> {
    peer: P,
    role: Role,
    remote_key: PublicKey,
    local: IceCredentials,
    remote: IceCredentials,
    /// The relay whose addresses we offer. It may be gone; then another one is looked for.
    relay: R,
    agent: Agent,
    wireguard: Peer,
    state: State<R>,
    /// Since when ICE has no possible pair.
    disconnected_at: Option<Instant>,
    first_handshake_at: Option<Instant>,
    /// Whether `ConnectionEstablished` was emitted.
    is_announced: bool,
    /// When WireGuard gave up; the connection ends in the next time step, which is due at once.
    handshakes_failed_at: Option<Instant>,
    /// Guessed candidates of the peer so far.
    optimistic: usize,
    /// Packets that could not be put onto a path.
    unsent: u64,
}

impl<P, R> Connection<P, R>
where
    P: Id,
    R: Id,
{
    /// Makes a connection and signals its first candidates.
    pub(crate) fn new(new: NewConnection<'_, P, R>, now: Instant, io: &mut Io<'_, P, R>) -> Self {
        let wireguard = Peer::new(
            PeerConfig {
                role: match new.role {
                    Role::Client => connlib_wireguard::Role::Initiator,
                    Role::Gateway => connlib_wireguard::Role::Responder,
                },
                private: new.private,
                remote: new.remote_key,
                psk: new.psk,
                indices: new.indices,
                clock: new.clock,
                seed: new.seed,
            },
            now,
        );
        let mut connection = Self {
            peer: new.peer,
            role: new.role,
            remote_key: new.remote_key,
            agent: Agent::new(new.role, &new.local, &new.remote, new.tie_breaker),
            local: new.local,
            remote: new.remote,
            relay: new.relay,
            wireguard,
            state: State::connecting(now + CANDIDATE_TIMEOUT),
            disconnected_at: None,
            first_handshake_at: None,
            is_announced: false,
            handshakes_failed_at: None,
            optimistic: 0,
            unsent: 0,
        };
        connection.seed_candidates(io);
        connection.settle(now, io);
        connection
    }

    /// Carries everything outwards that an input has set off.
    pub(crate) fn settle(&mut self, now: Instant, io: &mut Io<'_, P, R>) {
        self.advance_agent(now, io);
        self.handle_agent_events(now, io);
        self.flush(now, io);
    }

    /// Does what is due. Returns why the connection has ended, if it has.
    pub(crate) fn handle_timeout(
        &mut self,
        now: Instant,
        io: &mut Io<'_, P, R>,
    ) -> Option<Failure> {
        self.wireguard.handle_timeout(now);
        self.settle(now, io);
        if let Some(failure) = self.failure(now) {
            return Some(failure);
        }
        if self.idle_at().is_some_and(|at| now >= at) {
            self.fall_asleep(now, io);
        }
        None
    }

    /// The earliest instant at which something is due, and what.
    pub(crate) fn deadline(&self) -> Option<(Instant, &'static str)> {
        [
            (self.agent.poll_timeout(), "ICE"),
            (self.wireguard.poll_timeout(), "WireGuard"),
            (self.state.candidate_deadline(), "first candidate"),
            (self.give_up_at(), "ICE grace"),
            (self.handshakes_failed_at, "failed handshake"),
            (self.idle_at(), "idle"),
        ]
        .into_iter()
        .filter_map(|(at, reason)| Some((at?, reason)))
        .min_by_key(|(at, _)| *at)
    }

    /// Whether an upsert with these parameters keeps this connection. The preshared key never decides (snownet §3.3).
    pub(crate) fn is_same(
        &self,
        key: PublicKey,
        local: &IceCredentials,
        remote: &IceCredentials,
    ) -> bool {
        self.remote_key == key && self.local == *local && self.remote == *remote
    }

    /// The connection was announced again: the other side may have lost its state.
    pub(crate) fn refresh(&mut self, psk: [u8; 32], now: Instant, io: &mut Io<'_, P, R>) {
        self.wake(now);
        for sdp in self.agent.local_sdps() {
            let peer = self.peer;
            io.events.push(Event::NewIceCandidate { peer, sdp });
        }
        self.wireguard.add_spare_psk(psk);
        if self.role == Role::Client {
            self.wireguard.rehandshake(now);
        }
        self.settle(now, io);
    }

    fn advance_agent(&mut self, now: Instant, io: &mut Io<'_, P, R>) {
        let mut checks = Vec::new();
        self.agent.advance(now, &mut checks);
        for check in checks {
            let is_request = io.requests.record(self.peer, &check.payload, now);
            let sent = io.send(check.source, check.destination, &check.payload, now);
            if is_request && sent {
                io.expect_answer(check.source, now);
            }
        }
    }

    fn handle_agent_events(&mut self, now: Instant, io: &mut Io<'_, P, R>) {
        while let Some(event) = self.agent.poll_event() {
            self.handle_agent_event(event, now, io);
        }
    }

    fn handle_agent_event(&mut self, event: AgentEvent, now: Instant, io: &mut Io<'_, P, R>) {
        match event {
            AgentEvent::Nominated {
                source,
                destination,
            } => self.nominate(source, destination, now, io),
            AgentEvent::Viable => {
                cover!("connection/ice-recovered" if self.disconnected_at.is_some());
                self.disconnected_at = None;
            }
            AgentEvent::Disconnected => {
                tracing::debug!(peer = %self.peer, "ICE has no possible pair left");
                if self.disconnected_at.is_none() {
                    self.disconnected_at = Some(now);
                    // It may be the relay that has forgotten us: new addresses within the grace save the connection.
                    io.relays.probe(self.relay, now);
                    io.relays.drain_transmits(io.transmits);
                }
            }
        }
    }

    fn nominate(
        &mut self,
        source: SocketAddr,
        destination: SocketAddr,
        now: Instant,
        io: &mut Io<'_, P, R>,
    ) {
        let route = io.route(source);
        let path = Path {
            route,
            remote: destination,
            since: now,
        };
        let kind = self.kind_of(&path);
        self.cover_path(&path);
        match self.state.nominate(path, now) {
            state::Nomination::Unchanged => {}
            state::Nomination::First { held } => {
                tracing::info!(peer = %self.peer, path = %kind, "Path nominated");
                self.agent.set_timing(Timing::active(self.role));
                for datagram in held {
                    io.send_by(route, destination, &datagram, now);
                }
                self.wireguard.path_ready(now);
            }
            state::Nomination::Swapped => {
                tracing::info!(peer = %self.peer, path = %kind, "Path changed");
                self.wireguard.path_changed(now);
            }
        }
    }

    /// Moves WireGuard's own datagrams onto the path, and takes note of its events, if there are any.
    #[inline]
    fn flush(&mut self, now: Instant, io: &mut Io<'_, P, R>) {
        if self.wireguard.has_output() {
            self.flush_output(None, now, io);
        }
        self.announce(io);
    }

    /// Answers a handshake message that came on the pair `arrival`.
    ///
    /// The peer may have left our path before ICE says so: then we follow. If that is not sure, the answer goes back on that
    /// pair as well, since one that goes nowhere costs the peer 5 s.
    fn answer(&mut self, arrival: Pair, now: Instant, io: &mut Io<'_, P, R>) {
        if let Some(path) = self.state.path() {
            self.agent.note_handshake(path.pair(), arrival, now);
            self.handle_agent_events(now, io);
        }
        self.flush_output(Some(arrival), now, io);
    }

    fn flush_output(&mut self, answered: Option<Pair>, now: Instant, io: &mut Io<'_, P, R>) {
        while let Some(event) = self.wireguard.poll_event() {
            match event {
                WireGuardEvent::HandshakeCompleted => {
                    self.first_handshake_at.get_or_insert(now);
                }
                WireGuardEvent::Failed(reason) => {
                    tracing::debug!(peer = %self.peer, %reason, "WireGuard gave up");
                    self.handshakes_failed_at = Some(now);
                }
            }
        }
        while let Some(datagram) = self.wireguard.poll_transmit() {
            let carries_data = datagram.kind == DatagramKind::Data;
            match &mut self.state {
                State::Connecting { held, .. } => {
                    if held.len() < MAX_HELD {
                        held.push(datagram.bytes.to_vec());
                    }
                }
                State::Connected { path, .. } | State::Idle { path } => {
                    if let Some(pair) = answered
                        && datagram.kind == DatagramKind::Response
                        && path.pair() != pair
                    {
                        io.send(pair.0, pair.1, datagram.bytes, now);
                    }
                    let sent = io.send_by(path.route, path.remote, datagram.bytes, now);
                    self.unsent += u64::from(carries_data && !sent);
                }
            }
        }
    }

    #[inline]
    fn announce(&mut self, io: &mut Io<'_, P, R>) {
        let is_up =
            !self.is_announced && self.first_handshake_at.is_some() && self.state.path().is_some();
        if is_up {
            self.is_announced = true;
            io.events.push(Event::ConnectionEstablished(self.peer));
        }
    }

    fn failure(&self, now: Instant) -> Option<Failure> {
        let is_over = |deadline: Option<Instant>| deadline.is_some_and(|at| now >= at);
        if is_over(self.handshakes_failed_at) {
            cover!("connection/handshakes-failed");
            Some(Failure::NoHandshake)
        } else if is_over(self.state.candidate_deadline()) {
            cover!("connection/no-candidates");
            Some(Failure::NoCandidates)
        } else if is_over(self.give_up_at()) {
            cover!("connection/ice-failed");
            Some(Failure::IceDisconnected)
        } else {
            None
        }
    }

    fn give_up_at(&self) -> Option<Instant> {
        self.disconnected_at.map(|at| at + DISCONNECT_GRACE)
    }

    /// When checks slow down: only a link that ICE considers connected may, because a sleeping one notices nothing.
    fn idle_at(&self) -> Option<Instant> {
        let State::Connected { last_activity, .. } = &self.state else {
            return None;
        };
        self.agent
            .is_connected()
            .then_some(*last_activity + IDLE_AFTER)
    }

    fn fall_asleep(&mut self, now: Instant, io: &mut Io<'_, P, R>) {
        if self.state.fall_asleep() {
            cover!("connection/idle-entered");
            tracing::debug!(peer = %self.peer, "Connection is idle");
            self.agent.set_timing(Timing::idle(self.role));
            self.settle(now, io);
        }
    }

    /// Notes activity. Returns whether the connection was idle; the caller then settles it.
    #[inline]
    pub(crate) fn wake(&mut self, now: Instant) -> bool {
        let woke = self.state.wake(now);
        if woke {
            tracing::debug!(peer = %self.peer, "Connection is active again");
            self.agent.set_timing(Timing::active(self.role));
        }
        woke
    }
}
