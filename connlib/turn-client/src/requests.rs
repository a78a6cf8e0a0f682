//! Requests in flight (snownet spec §2.3, §2.4).
//!
//! One logical request may be sent several times, each time under its own transaction id when it is authenticated. A
//! response to *any* attempt settles the request: a slow ALLOCATE response must not be discarded, or the retry earns 437.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    time::{Duration, Instant},
};

use connlib_stun::{ChannelNumber, Method, TransactionId};

use crate::{
    backoff::{Backoff, Verdict},
    credentials::NonceGeneration,
};

/// What a request is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// BINDING to find a server socket that answers.
    Discovery,
    /// BINDING that holds the NAT's mapping and notices a dead relay.
    KeepAlive,
    /// ALLOCATE.
    Allocate,
    /// REFRESH that prolongs the allocation.
    Renewal,
    /// REFRESH that asks whether the relay is still there: one transmission.
    Probe,
    /// REFRESH that asks the same because nothing comes back from the relay.
    Inquiry,
    /// REFRESH with lifetime 0, for an allocation that only the relay knows about.
    Deletion,
    /// CHANNEL-BIND.
    ChannelBind {
        number: ChannelNumber,
        peer: SocketAddr,
    },
}

impl Kind {
    /// Method that the response must have.
    pub(crate) fn method(self) -> Method {
        match self {
            Self::Discovery | Self::KeepAlive => Method::Binding,
            Self::Allocate => Method::Allocate,
            Self::Renewal | Self::Probe | Self::Inquiry | Self::Deletion => Method::Refresh,
            Self::ChannelBind { .. } => Method::ChannelBind,
        }
    }

    /// Whether requests carry credentials and responses must be signed.
    pub(crate) fn is_authenticated(self) -> bool {
        self.method() != Method::Binding
    }
}

/// One logical request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pending {
    pub(crate) kind: Kind,
    pub(crate) dst: SocketAddr,
    pub(crate) backoff: Backoff,
    /// How often the relay asked for another nonce.
    pub(crate) challenges: u8,
    latest: TransactionId,
}

/// One transmission of a request.
#[derive(Debug, Clone, Copy)]
struct Attempt {
    request: u64,
    sent_at: Instant,
    generation: NonceGeneration,
}

/// A response's view of the request that it answers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Answered {
    pub(crate) request: u64,
    pub(crate) kind: Kind,
    pub(crate) dst: SocketAddr,
    pub(crate) rtt: Duration,
    /// Under which nonce the answered attempt was sent.
    pub(crate) generation: NonceGeneration,
    /// Whether no later attempt has been sent.
    pub(crate) is_latest: bool,
}

/// All requests in flight, in the order in which they were made.
#[derive(Debug, Default)]
pub(crate) struct Requests {
    /// Bounded by the channel numbers plus a handful: at most one request per purpose and number.
    pending: BTreeMap<u64, Pending>,
    attempts: BTreeMap<TransactionId, Attempt>,
    next: u64,
}

impl Requests {
    /// Registers a new request with its first attempt.
    pub(crate) fn insert(
        &mut self,
        kind: Kind,
        dst: SocketAddr,
        backoff: Backoff,
        id: TransactionId,
        generation: NonceGeneration,
        now: Instant,
    ) {
        let request = self.next;
        self.next += 1;
        self.pending.insert(
            request,
            Pending {
                kind,
                dst,
                backoff,
                challenges: 0,
                latest: id,
            },
        );
        self.add_attempt(request, id, generation, now);
    }

    /// Registers a further attempt; repeating an id keeps the time of its first transmission.
    pub(crate) fn add_attempt(
        &mut self,
        request: u64,
        id: TransactionId,
        generation: NonceGeneration,
        now: Instant,
    ) {
        if let Some(pending) = self.pending.get_mut(&request) {
            pending.latest = id;
            self.attempts.entry(id).or_insert(Attempt {
                request,
                sent_at: now,
                generation,
            });
        }
    }

    /// The request that a response with this id answers.
    pub(crate) fn find(&self, id: TransactionId, now: Instant) -> Option<Answered> {
        let attempt = self.attempts.get(&id)?;
        let pending = self.pending.get(&attempt.request)?;
        Some(Answered {
            request: attempt.request,
            kind: pending.kind,
            dst: pending.dst,
            rtt: now.saturating_duration_since(attempt.sent_at),
            generation: attempt.generation,
            is_latest: pending.latest == id,
        })
    }

    /// Forgets one attempt; its request stays in flight.
    pub(crate) fn forget_attempt(&mut self, id: TransactionId) {
        self.attempts.remove(&id);
    }

    /// Gives a challenged request its full budget again; returns how often it has been challenged.
    pub(crate) fn restart(&mut self, request: u64, now: Instant) -> Option<u8> {
        let pending = self.pending.get_mut(&request)?;
        pending.backoff = pending.backoff.restarted(now);
        pending.challenges = pending.challenges.saturating_add(1);
        Some(pending.challenges)
    }

    /// The request is answered or dead: forgets it with all its attempts.
    pub(crate) fn settle(&mut self, request: u64) {
        self.pending.remove(&request);
        self.attempts
            .retain(|_, attempt| attempt.request != request);
    }

    pub(crate) fn clear(&mut self) {
        self.pending.clear();
        self.attempts.clear();
    }

    /// One request whose trigger has been reached, its schedule already advanced.
    pub(crate) fn take_due(&mut self, now: Instant) -> Option<(u64, Pending, Verdict)> {
        self.pending
            .iter_mut()
            .find_map(|(request, pending)| match pending.backoff.advance(now) {
                Verdict::Wait => None,
                verdict @ (Verdict::Resend | Verdict::Dead) => Some((*request, *pending, verdict)),
            })
    }

    /// The transaction id last used for this request.
    pub(crate) fn latest(&self, request: u64) -> Option<TransactionId> {
        self.pending.get(&request).map(|pending| pending.latest)
    }

    pub(crate) fn get(&self, request: u64) -> Option<Pending> {
        self.pending.get(&request).copied()
    }

    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        let triggers = self
            .pending
            .values()
            .map(|pending| pending.backoff.deadline());
        triggers.min()
    }

    pub(crate) fn any(&self, matches: impl Fn(Kind) -> bool) -> bool {
        self.pending.values().any(|pending| matches(pending.kind))
    }

    /// Peers whose CHANNEL-BIND is in flight, oldest first.
    pub(crate) fn binding_peers(&self) -> impl Iterator<Item = SocketAddr> {
        self.pending
            .values()
            .filter_map(|pending| match pending.kind {
                Kind::ChannelBind { peer, .. } => Some(peer),
                _ => None,
            })
    }
}
