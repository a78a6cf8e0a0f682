//! The session table of one client: a bidirectional map between inside and outside tuples (tunnel spec §5.5).
//!
//! * *inside*: proxy address, protocol, the client's port or echo identifier;
//! * *outside*: real address, protocol, the mapped port or identifier.
//!
//! Every session has one entry in the queue of checks, never later than its deadline. Packets only move deadlines back,
//! which costs nothing: a check that comes too early moves itself. The few packets that bring a deadline forward (FIN,
//! RST) move the check at once.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Instant;

use connlib_cover::cover;
use connlib_lookup::{Secret, Table};
use ip_packet::Protocol;
use slab::Slab;

use super::expired::ExpiredTuples;
use super::ports::Ports;
use super::session::{Sender, Session, TcpSignal};
use super::tuple::Tuple;

/// Sessions of one client: all outside values of one protocol towards two hosts.
const MAX_SESSIONS: usize = 131_072;

/// Sessions whose room is kept for later ones when the last one has ended.
const KEPT_ROOM: usize = 64;

/// The sessions of one client.
#[derive(Debug)]
pub(in super::super) struct Sessions {
    sessions: Slab<Session>,
    inside: Table<Tuple, SessionId>,
    outside: Table<Tuple, SessionId>,
    ports: Ports,
    checks: BTreeSet<(Instant, SessionId)>,
    expired: ExpiredTuples,
    secret: Secret,
}

/// The place of a session, which another one may have later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct SessionId(u32);

impl SessionId {
    fn index(self) -> usize {
        self.0 as usize
    }
}

/// What a packet's address and port or identifier become.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) struct Translation {
    /// The new address of the far end.
    pub(in super::super) address: IpAddr,
    /// The new port or identifier of the client's end.
    pub(in super::super) value: u16,
}

/// Why a packet from the client has no session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum NoSession {
    /// The proxy address stands for nothing.
    Unmapped,
    /// All outside values, or all sessions of the client, are in use.
    Exhausted,
}

/// Whether a packet from the site belongs to a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Incoming {
    /// It does.
    Session(Translation),
    /// It belongs to one that has ended.
    Expired,
    /// It does not.
    Unknown,
}

impl Sessions {
    /// No session.
    pub(in super::super) fn new(secret: Secret) -> Self {
        Self {
            sessions: Slab::new(),
            inside: secret.table(),
            outside: secret.table(),
            ports: Ports::default(),
            checks: BTreeSet::new(),
            expired: ExpiredTuples::new(secret),
            secret,
        }
    }

    /// Translates a packet that the client sends to `proxy`, beginning a session towards `real` if there is none.
    ///
    /// # Errors
    ///
    /// [`NoSession`]; nothing has changed then.
    pub(in super::super) fn outgoing(
        &mut self,
        proxy: IpAddr,
        protocol: Protocol,
        real: Option<IpAddr>,
        signal: TcpSignal,
        now: Instant,
    ) -> Result<Translation, NoSession> {
        let inside = Tuple::new(proxy, protocol);
        if let Some(id) = self.inside.get(&inside).copied()
            && let Some(session) = self.note(id, Sender::Client, signal, now)
        {
            return Ok(Translation {
                address: session.real(),
                value: session.outside.value(),
            });
        }
        let real = real.ok_or(NoSession::Unmapped)?;
        self.begin(inside, real, protocol, signal, now)
    }

    /// Looks for the session of a packet that comes from `real` to the client's `protocol`.
    pub(in super::super) fn incoming(
        &mut self,
        real: IpAddr,
        protocol: Protocol,
        signal: TcpSignal,
        now: Instant,
    ) -> Incoming {
        let outside = Tuple::new(real, protocol);
        if let Some(id) = self.outside.get(&outside).copied()
            && let Some(session) = self.note(id, Sender::Resource, signal, now)
        {
            return Incoming::Session(Translation {
                address: session.proxy(),
                value: session.inside.value(),
            });
        }
        if self.expired.contains(outside) {
            Incoming::Expired
        } else {
            Incoming::Unknown
        }
    }

    /// Looks for the session that an ICMP error is about, without counting as a packet of it.
    pub(in super::super) fn of_failed_packet(
        &self,
        real: IpAddr,
        protocol: Protocol,
        now: Instant,
    ) -> Incoming {
        let outside = Tuple::new(real, protocol);
        let session = self
            .outside
            .get(&outside)
            .and_then(|id| self.sessions.get(id.index()));
        match session {
            Some(session) if session.deadline() > now => Incoming::Session(Translation {
                address: session.proxy(),
                value: session.inside.value(),
            }),
            Some(_) => Incoming::Expired,
            None if self.expired.contains(outside) => Incoming::Expired,
            None => Incoming::Unknown,
        }
    }

    /// Notes that the client talks to `real` itself, without a session: answers are no late packets of an ended one.
    pub(in super::super) fn contact_directly(&mut self, real: IpAddr, protocol: Protocol) {
        if !self.expired.is_empty() {
            self.expired.remove(Tuple::new(real, protocol));
        }
    }

    /// Ends every session whose time is over at `now`.
    pub(in super::super) fn handle_timeout(&mut self, now: Instant) {
        while let Some((at, id)) = self.checks.first().copied()
            && at <= now
        {
            let deadline = self.sessions[id.index()].deadline();
            if deadline <= now {
                self.end(id);
            } else {
                self.schedule(id, deadline);
            }
        }
    }

    /// When [`handle_timeout`](Self::handle_timeout) must be called next.
    pub(in super::super) fn poll_timeout(&self) -> Option<Instant> {
        self.checks.first().map(|(at, _)| *at)
    }

    /// Ends every session whose proxy address does not mean any more what it meant.
    pub(in super::super) fn retain(&mut self, mut is_kept: impl FnMut(IpAddr) -> bool) {
        let ended: Vec<_> = self
            .sessions
            .iter()
            .filter(|(_, session)| !is_kept(session.proxy()))
            .map(|(index, _)| SessionId(index as u32))
            .collect();
        for id in ended {
            self.end(id);
        }
    }

    /// Notes a packet of a session, which ends now if its time is over.
    fn note(
        &mut self,
        id: SessionId,
        sender: Sender,
        signal: TcpSignal,
        now: Instant,
    ) -> Option<&Session> {
        let session = self.sessions.get_mut(id.index())?;
        if session.deadline() <= now {
            self.end(id);
            return None;
        }
        session.note(sender, signal, now);
        let deadline = session.deadline();
        if deadline < session.checked_at {
            self.schedule(id, deadline);
        }
        self.sessions.get(id.index())
    }

    fn begin(
        &mut self,
        inside: Tuple,
        real: IpAddr,
        protocol: Protocol,
        signal: TcpSignal,
        now: Instant,
    ) -> Result<Translation, NoSession> {
        if self.sessions.len() >= MAX_SESSIONS {
            return Err(NoSession::Exhausted);
        }
        let wanted = Tuple::new(real, protocol);
        let outside = self.ports.allocate(wanted).ok_or(NoSession::Exhausted)?;
        self.expired.remove(outside);
        cover!("nat/v4-to-v4" if real.is_ipv4());
        cover!("nat/v6-to-v6" if real.is_ipv6());
        cover!("nat/port-remapped" if outside != wanted);

        let mut session = Session::new(inside, outside, now);
        session.note(Sender::Client, signal, now);
        session.checked_at = session.deadline();
        tracing::debug!(proxy = %session.proxy(), %real, %protocol, mapped = outside.value(), "New NAT session");

        let checked_at = session.checked_at;
        let id = SessionId(self.sessions.insert(session) as u32);
        self.checks.insert((checked_at, id));
        self.inside.insert(inside, id);
        self.outside.insert(outside, id);
        Ok(Translation {
            address: real,
            value: outside.value(),
        })
    }

    fn schedule(&mut self, id: SessionId, at: Instant) {
        let session = &mut self.sessions[id.index()];
        self.checks.remove(&(session.checked_at, id));
        session.checked_at = at;
        self.checks.insert((at, id));
    }

    fn end(&mut self, id: SessionId) {
        let session = self.sessions.remove(id.index());
        self.checks.remove(&(session.checked_at, id));
        self.inside.remove(&session.inside);
        self.outside.remove(&session.outside);
        self.ports.release(session.outside);
        self.expired.insert(session.outside);
        if self.sessions.is_empty() && self.sessions.capacity() > KEPT_ROOM {
            self.sessions = Slab::new();
            self.inside = self.secret.table();
            self.outside = self.secret.table();
        }
        cover!("nat/session-expired");
        tracing::debug!(proxy = %session.proxy(), real = %session.real(), "NAT session ended");
    }
}

#[cfg(test)]
mod tests;
