//! The allocation's state and public interface.
//!
//! ```text
//! Discovering ──first BINDING success──► Allocating ──ALLOCATE ok──► Allocated
//!      ▲                                     │  ▲  437                  │
//!      │ retry, `refresh`, `restart`         │  └─────────────(re-)ALLOCATE on 437, expiry: Discovering
//!      └──────────── Suspended ◄─────────────┴───── relay dead ─────────┘
//!
//! any state ──401 with nonce, foreign realm, 420, never an answer, `release`──► Failed
//! ```
//!
//! Responses are handled in `input`, requests made in `send`, time in `timeout`.

mod input;
mod send;
mod timeout;

use std::{
    collections::VecDeque,
    net::SocketAddr,
    time::{Duration, Instant},
};

use connlib_cover::cover;
use connlib_stun::{
    ChannelNumber, ChannelRange,
    channel::{self, ChannelData},
};
use is::Candidate;
use rand::SeedableRng;
use rand_chacha::ChaCha20Rng;
use tracing::{debug, info, warn};

use crate::{
    Credentials, Event, FreeReason, Server, Transmit,
    backoff::{Backoff, SuspensionBackoff},
    candidates::Candidates,
    channels::{Bind, Channels},
    credentials::Authenticator,
    requests::{Kind, Requests},
    silence::Silence,
};

/// Peers that wait for an allocation. The oldest is forgotten first: a later datagram to it asks again.
const MAX_BUFFERED_BINDS: usize = 100;
/// Peers that the relay refused (403) and that are not asked for again.
const MAX_REFUSED_PEERS: usize = 64;
/// Silence towards the relay after which a BINDING holds the NAT's mapping (30 s in strict NATs).
pub(crate) const KEEP_ALIVE: Duration = Duration::from_secs(25);

/// One TURN allocation, seen from the client.
#[derive(Debug)]
pub struct Allocation {
    server: Server,
    auth: Authenticator,
    software: String,
    state: State,
    candidates: Candidates,
    channels: Channels,
    requests: Requests,
    buffered_binds: VecDeque<SocketAddr>,
    refused_peers: VecDeque<SocketAddr>,
    rtt: Option<Duration>,
    /// Whether the relay ever answered since construction or [`Self::restart`].
    has_answered: bool,
    /// ALLOCATEs refused with 437 in a row.
    mismatches: u8,
    suspensions: SuspensionBackoff,
    transmits: VecDeque<Transmit>,
    events: VecDeque<Event>,
    rng: ChaCha20Rng,
    last_now: Instant,
}

/// Where the allocation stands.
#[derive(Debug)]
enum State {
    /// No server socket has answered yet.
    Discovering,
    /// A server socket has answered; ALLOCATE, or the deletion before it, is in flight.
    Allocating { active: SocketAddr },
    /// Relayed addresses exist.
    Allocated(Lease),
    /// Nothing can be done right now.
    Suspended { retry_at: Instant },
    /// Nothing can be done at all; the owner drops the allocation.
    Failed {
        reason: FreeReason,
        is_noticed: bool,
    },
}

/// A granted allocation.
#[derive(Debug, Clone, Copy)]
struct Lease {
    /// Server socket that everything goes to.
    active: SocketAddr,
    /// When to renew; `None` when renewing is pointless.
    renew_at: Option<Instant>,
    expires_at: Instant,
    keep_alive_at: Instant,
    silence: Silence,
}

/// What [`Allocation::handle_input`] made of a datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Input {
    /// A response to one of our requests (or a forgery of one).
    Consumed,
    /// STUN from the relay that answers nothing we asked. To be swallowed.
    Unknown,
    /// Comes from the relay but is not STUN: may be something else.
    NotStun,
    /// Does not come from this relay.
    OtherSender,
}

/// Channel data, unwrapped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unwrapped<'a> {
    /// The channel that it came on.
    pub channel: ChannelNumber,
    /// Who sent it to our relayed address.
    pub peer: SocketAddr,
    /// Our relayed address of the peer's family.
    pub relayed: SocketAddr,
    /// What the peer sent: the bytes of the datagram from offset 4.
    pub payload: &'a [u8],
}

/// How to send one datagram to a peer through the relay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Framed {
    /// Server socket to send to.
    pub server: SocketAddr,
    /// Header to write in front of the payload.
    pub header: [u8; channel::HEADER_LEN],
}

impl Allocation {
    /// Starts an allocation: BINDINGs to every server socket are ready in [`Self::poll_transmit`].
    ///
    /// `software` (at most 127 characters) goes into each request, for the relay's logs. `seed` feeds transaction ids.
    #[must_use]
    pub fn new(
        server: Server,
        credentials: Credentials,
        software: &str,
        seed: [u8; 32],
        now: Instant,
    ) -> Self {
        let mut this = Self {
            server,
            auth: Authenticator::new(credentials),
            software: software.to_owned(),
            state: State::Discovering,
            candidates: Candidates::default(),
            channels: Channels::new(),
            requests: Requests::default(),
            buffered_binds: VecDeque::new(),
            refused_peers: VecDeque::new(),
            rtt: None,
            has_answered: false,
            mismatches: 0,
            suspensions: SuspensionBackoff::default(),
            transmits: VecDeque::new(),
            events: VecDeque::new(),
            rng: ChaCha20Rng::from_seed(seed),
            last_now: now,
        };
        this.discover(now);
        this
    }

    /// Starts over after a change of network: same relay and credentials, no nonce, no candidates.
    ///
    /// No event is emitted for the candidates that vanish; all connections end with the old network.
    pub fn restart(&mut self, now: Instant) {
        let now = self.advance(now);
        if let State::Failed { .. } = self.state {
            return;
        }
        self.requests.clear();
        self.channels.clear();
        self.candidates = Candidates::default();
        self.buffered_binds.clear();
        self.refused_peers.clear();
        self.transmits.clear();
        self.events.clear();
        self.auth.forget_nonce();
        self.rtt = None;
        self.has_answered = false;
        self.mismatches = 0;
        self.suspensions = SuspensionBackoff::default();
        self.discover(now);
    }

    /// Checks that the relay is still there, because the portal just mentioned relays (snownet spec §2.12).
    ///
    /// Nothing while allocating; a suspended allocation tries again; otherwise one REFRESH with a verdict after 1 s.
    pub fn refresh(&mut self, now: Instant) {
        let now = self.advance(now);
        match &self.state {
            State::Discovering | State::Allocating { .. } | State::Failed { .. } => {}
            State::Suspended { .. } => self.discover(now),
            State::Allocated(lease) => {
                let active = lease.active;
                if !self.requests.any(|kind| kind == Kind::Probe) {
                    self.request(Kind::Probe, active, Backoff::one_shot(now), now);
                }
            }
        }
    }

    /// Gives the allocation back, because the process ends: the relay need not keep it until it expires, and one that
    /// drains can end (RFC 8656 section 7.1).
    ///
    /// One REFRESH with lifetime 0, whose answer nobody waits for; nothing if there is no allocation. The caller sends what
    /// [`Self::poll_transmit`] yields.
    pub fn release(&mut self, now: Instant) {
        self.advance(now);
        let held = match self.state {
            State::Failed { .. } => return,
            State::Allocated(Lease { active, .. }) => Some(active),
            State::Discovering | State::Allocating { .. } | State::Suspended { .. } => None,
        };
        self.invalidate();
        self.buffered_binds.clear();
        if let Some(active) = held {
            let id = self.fresh_id();
            self.transmit(Kind::Deletion, active, id);
        }
        self.state = State::Failed {
            reason: FreeReason::Released,
            is_noticed: false,
        };
    }

    /// The relay's sockets.
    #[must_use]
    pub const fn server(&self) -> &Server {
        &self.server
    }

    /// Whether this allocation is for exactly these sockets and credentials.
    #[must_use]
    pub fn matches(&self, server: &Server, credentials: &Credentials) -> bool {
        self.server == *server && self.auth.credentials() == credentials
    }

    /// Smoothed round-trip time; `None` until the relay has answered.
    #[must_use]
    pub const fn rtt(&self) -> Option<Duration> {
        self.rtt
    }

    /// Whether any relayed address exists.
    #[must_use]
    pub const fn has_allocation(&self) -> bool {
        matches!(self.state, State::Allocated(_))
    }

    /// Whether the relay is of no use for now: nothing is under way until a retry, a `refresh` or a `restart`.
    #[must_use]
    pub const fn is_suspended(&self) -> bool {
        matches!(self.state, State::Suspended { .. } | State::Failed { .. })
    }

    /// Why the allocation can be dropped; `None` while it is of use or something is still to be polled.
    #[must_use]
    pub fn free_reason(&self) -> Option<FreeReason> {
        match self.state {
            State::Failed { reason, .. } if self.events.is_empty() && self.transmits.is_empty() => {
                Some(reason)
            }
            _ => None,
        }
    }

    /// The server socket in use.
    #[must_use]
    pub const fn active_socket(&self) -> Option<SocketAddr> {
        match &self.state {
            State::Allocating { active } | State::Allocated(Lease { active, .. }) => Some(*active),
            State::Discovering | State::Suspended { .. } | State::Failed { .. } => None,
        }
    }

    /// Host and server-reflexive candidates, of use to every connection.
    pub fn shared_candidates(&self) -> impl Iterator<Item = &Candidate> {
        self.candidates.shared()
    }

    /// Relayed candidates, of use to connections of this relay.
    pub fn relayed_candidates(&self) -> impl Iterator<Item = &Candidate> {
        self.candidates.relayed()
    }

    /// Whether `address` is one of our relayed addresses.
    #[must_use]
    pub fn owns_relayed(&self, address: SocketAddr) -> bool {
        self.candidates.relayed_for(address) == Some(address)
    }

    /// Takes channel data apart. `None`: not from our server socket, not channel data, or a channel that is not bound.
    #[inline]
    pub fn decapsulate<'a>(
        &mut self,
        from: SocketAddr,
        datagram: &'a [u8],
        now: Instant,
    ) -> Option<Unwrapped<'a>> {
        let State::Allocated(lease) = &mut self.state else {
            return None;
        };
        if lease.active != from {
            return None;
        }
        let data = ChannelData::parse(datagram, ChannelRange::Wide).ok()?;
        let peer = self.channels.for_receiving(data.number, now)?;
        lease.silence.heard();
        Some(Unwrapped {
            channel: data.number,
            peer,
            relayed: self.candidates.relayed_for(peer)?,
            payload: data.payload,
        })
    }

    /// How to send `payload_len` bytes to `peer` now; see [`Self::channel_to`] for a whole batch.
    #[inline]
    pub fn encode_channel_header(
        &mut self,
        peer: SocketAddr,
        payload_len: u16,
        now: Instant,
    ) -> Option<Framed> {
        let (server, number) = self.channel_to(peer, now)?;
        Some(Framed {
            server,
            header: channel::encode_header(number, payload_len),
        })
    }

    /// Server socket and channel that datagrams to `peer` use now: one look-up per batch, then
    /// [`channel::encode_header`] for each datagram.
    ///
    /// `None`: there is no channel; the datagrams are to be dropped. A channel is then being bound where that is possible.
    /// Sending defers the keep-alive, unless that is overdue.
    #[inline]
    pub fn channel_to(
        &mut self,
        peer: SocketAddr,
        now: Instant,
    ) -> Option<(SocketAddr, ChannelNumber)> {
        if let State::Allocated(lease) = &mut self.state
            && let Some(number) = self.channels.for_sending(peer, now)
        {
            // One that is overdue (the host was suspended) still has to tell whether the NAT's mapping persists.
            if now < lease.keep_alive_at {
                lease.keep_alive_at = now + KEEP_ALIVE;
            }
            return Some((lease.active, number));
        }
        self.bind_channel(peer, now);
        None
    }

    /// Notes that what is sent through the relay now calls for an answer through it: a check, or packets of a connection whose
    /// path is checked. If nothing at all comes back, the relay is asked whether it still has our allocation.
    ///
    /// Not for answers: whoever has the last word would wait for another one.
    #[inline]
    pub fn expect_answer(&mut self, now: Instant) {
        if let State::Allocated(lease) = &mut self.state {
            lease.silence.sent(now);
        }
    }

    /// Makes sure that `peer` gets a channel: now, or once there is an allocation.
    pub fn bind_channel(&mut self, peer: SocketAddr, now: Instant) {
        let now = self.advance(now);
        match self.state {
            State::Suspended { .. } | State::Failed { .. } => {}
            State::Discovering | State::Allocating { .. } => self.buffer_bind(peer),
            State::Allocated(Lease { active, .. }) => self.bind_now(peer, active, now),
        }
    }

    /// The next datagram for the relay.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        self.transmits.pop_front()
    }

    /// The next change of candidates.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Drops everything that only made sense with the allocation; host and server-reflexive candidates stay.
    fn invalidate(&mut self) {
        let gone = self.candidates.take_relayed();
        self.events.extend(gone.into_iter().map(Event::Invalid));
        let unfinished: Vec<_> = self.requests.binding_peers().collect();
        self.requests.clear();
        self.transmits.clear();
        self.channels.clear();
        self.refused_peers.clear();
        for peer in unfinished {
            self.buffer_bind(peer);
        }
    }

    fn suspend(&mut self, now: Instant) {
        let delay = self.suspensions.next_delay();
        debug!(server = ?self.server, ?delay, "Allocation is suspended");
        self.state = State::Suspended {
            retry_at: now + delay,
        };
    }

    fn fail(&mut self, reason: FreeReason) {
        info!(server = ?self.server, %reason, "Relay is of no use");
        self.invalidate();
        self.buffered_binds.clear();
        self.state = State::Failed {
            reason,
            is_noticed: false,
        };
    }

    /// Sends BINDINGs to every server socket; the first answer chooses the socket.
    fn discover(&mut self, now: Instant) {
        self.requests.clear();
        self.state = State::Discovering;
        for server in self.server.sockets() {
            self.request(Kind::Discovery, server, Backoff::ladder(now), now);
        }
    }

    fn buffer_bind(&mut self, peer: SocketAddr) {
        if self.buffered_binds.contains(&peer) {
            return;
        }
        if self.buffered_binds.len() == MAX_BUFFERED_BINDS {
            self.buffered_binds.pop_front();
        }
        cover!("turn/bind-buffered");
        self.buffered_binds.push_back(peer);
    }

    fn bind_now(&mut self, peer: SocketAddr, active: SocketAddr, now: Instant) {
        if self.candidates.relayed_for(peer).is_none() || self.refused_peers.contains(&peer) {
            return;
        }
        match self.channels.bind(peer, now) {
            Bind::NotNeeded => {}
            Bind::Exhausted => warn!(server = ?self.server, "No channel number is free"),
            Bind::Request(number) => {
                let kind = Kind::ChannelBind { number, peer };
                self.request(kind, active, Backoff::ladder(now), now);
            }
        }
    }

    /// Remembers that the relay refuses a peer; the oldest refusal is forgotten first.
    fn refuse(&mut self, peer: SocketAddr) {
        if self.refused_peers.len() == MAX_REFUSED_PEERS {
            self.refused_peers.pop_front();
        }
        self.refused_peers.push_back(peer);
    }

    /// Time never runs backwards.
    fn advance(&mut self, now: Instant) -> Instant {
        self.last_now = self.last_now.max(now);
        self.last_now
    }
}
