//! Look-ups over TCP through the tunnel: one connection per upstream, made on demand, used by all look-ups.
//!
//! Look-ups get an id of our own on the wire, so that equal ids of different askers do not collide; responses may come
//! in any order (RFC 7766 §6.2.1). A connection that fails takes its look-ups along; so does one that stays silent while
//! a look-up times out. A server that closes in an orderly way fails only what it had been sent.

mod connection;

use super::framing::MIN_MESSAGE;
use super::stack::Stack;
use crate::ports::free_port;
use crate::{QueryId, RecursiveError, RecursiveQuery, RecursiveResponse, SourceAddresses};
use connection::{Connection, Outcome};
use ip_packet::{IpPacket, PacketRef};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha20Rng;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// Time from asking to giving up.
const QUERY_TIMEOUT: Duration = Duration::from_secs(10);
/// Look-ups under way at a time, as for UDP: far more than a host asks within the time-out.
const MAX_QUERIES: usize = 1024;
/// Connections at a time: several times the upstream servers and sites that anybody configures, at 128 KiB each.
const MAX_CONNECTIONS: usize = 64;

/// DNS over TCP towards upstream servers, from the TUN address.
///
/// Driven like [`Server`](super::Server), with [`poll_response`](Self::poll_response) for the results.
pub struct Client {
    stack: Stack,
    rng: ChaCha20Rng,
    sources: SourceAddresses,
    connections: BTreeMap<SocketAddr, Connection>,
    queries: BTreeMap<QueryId, PendingQuery>,
    deadlines: BTreeSet<(Instant, QueryId)>,
    /// At most [`MAX_QUERIES`] and those refused since the last poll.
    responses: VecDeque<RecursiveResponse>,
}

/// What is known of a look-up besides the connection that it uses.
struct PendingQuery {
    upstream: SocketAddr,
    deadline: Instant,
}

impl Client {
    /// A client without addresses.
    pub fn new(seed: [u8; 32], now: Instant) -> Self {
        let mut rng = ChaCha20Rng::from_seed(seed);
        Self {
            stack: Stack::new(rng.random(), now),
            rng,
            sources: SourceAddresses::default(),
            connections: BTreeMap::new(),
            queries: BTreeMap::new(),
            deadlines: BTreeSet::new(),
            responses: VecDeque::new(),
        }
    }

    /// Sets the TUN addresses; a change fails all look-ups as [`reset`](Self::reset) does.
    pub fn set_sources(&mut self, sources: SourceAddresses, now: Instant) {
        if self.sources != sources {
            self.reset(now);
            self.sources = sources;
        }
    }

    /// Starts a look-up. Its result, also an immediate failure, comes from [`poll_response`](Self::poll_response).
    pub fn send_query(&mut self, query: RecursiveQuery, now: Instant) {
        let id = query.id;
        if let Err(error) = self.start(query, now) {
            self.responses.push_back(RecursiveResponse {
                id,
                result: Err(error),
            });
        }
        self.advance(now);
    }

    /// Whether a packet belongs to one of the connections and must be given to
    /// [`handle_packet`](Self::handle_packet).
    pub fn accepts(&self, packet: PacketRef<'_>) -> bool {
        packet.as_tcp().is_some_and(|tcp| {
            let remote = SocketAddr::new(packet.source(), tcp.source_port());
            let local = SocketAddr::new(packet.destination(), tcp.destination_port());
            self.connections
                .get(&remote)
                .is_some_and(|connection| connection.local() == local)
        })
    }

    /// Takes a packet from the tunnel; ignores it if not [accepted](Self::accepts).
    pub fn handle_packet(&mut self, packet: PacketRef<'_>, now: Instant) {
        if self.accepts(packet) {
            self.stack.receive(packet);
            self.advance(now);
        }
    }

    /// The next packet for the tunnel, to be routed like any other.
    pub fn poll_packet(&mut self) -> Option<IpPacket> {
        self.stack.next_packet()
    }

    /// The next result.
    pub fn poll_response(&mut self) -> Option<RecursiveResponse> {
        self.responses.pop_front()
    }

    /// Drops all connections and fails all look-ups with [`RecursiveError::Reset`].
    ///
    /// The servers are not told: this is called when the way to them has changed.
    pub fn reset(&mut self, now: Instant) {
        self.connections.clear();
        self.deadlines.clear();
        self.stack = Stack::new(self.rng.random(), now);
        for id in std::mem::take(&mut self.queries).into_keys() {
            self.responses.push_back(RecursiveResponse {
                id,
                result: Err(RecursiveError::Reset),
            });
        }
    }

    /// Lets time pass.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.expire(now);
        self.advance(now);
    }

    /// When [`handle_timeout`](Self::handle_timeout) wants to be called.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let deadline = self.deadlines.first().map(|(deadline, _)| *deadline);
        [deadline, self.stack.next_poll()]
            .into_iter()
            .flatten()
            .min()
    }

    fn start(&mut self, query: RecursiveQuery, now: Instant) -> Result<(), RecursiveError> {
        let is_sendable = (MIN_MESSAGE..=usize::from(u16::MAX)).contains(&query.message.len());
        if !is_sendable || self.queries.contains_key(&query.id) {
            return Err(RecursiveError::MalformedQuery);
        }
        if self.queries.len() >= MAX_QUERIES {
            return Err(RecursiveError::Overloaded);
        }
        // Flow label and scope of an IPv6 address are not in a packet's header fields that are compared.
        let upstream = SocketAddr::new(query.upstream.ip(), query.upstream.port());
        if !self.connections.contains_key(&upstream) {
            let connection = self.connect(upstream)?;
            self.connections.insert(upstream, connection);
        }
        if let Some(connection) = self.connections.get_mut(&upstream) {
            connection.enqueue(query.id, query.message);
        }
        let deadline = now + QUERY_TIMEOUT;
        self.deadlines.insert((deadline, query.id));
        self.queries
            .insert(query.id, PendingQuery { upstream, deadline });
        Ok(())
    }

    fn connect(&mut self, upstream: SocketAddr) -> Result<Connection, RecursiveError> {
        let source = self
            .sources
            .towards(upstream)
            .ok_or(RecursiveError::NoSource)?;
        if self.connections.len() >= MAX_CONNECTIONS {
            self.drop_idle_connection()?;
        }
        let connections = &self.connections;
        let port = free_port(&mut self.rng, |port| {
            connections
                .values()
                .any(|connection| connection.local().port() == port)
        });
        Connection::open(&mut self.stack, SocketAddr::new(source, port), upstream)
            .ok_or(RecursiveError::ConnectionFailed)
    }

    fn drop_idle_connection(&mut self) -> Result<(), RecursiveError> {
        let idle = self
            .connections
            .iter()
            .find(|(_, connection)| connection.is_idle());
        let upstream = *idle.ok_or(RecursiveError::Overloaded)?.0;
        if let Some(connection) = self.connections.remove(&upstream) {
            connection.discard(&mut self.stack);
        }
        Ok(())
    }

    /// Lets the stack and the connections react to each other until nothing changes.
    fn advance(&mut self, now: Instant) {
        /// Enough to connect, write, read, fail and connect again.
        const MAX_ROUNDS: usize = 6;
        for _ in 0..MAX_ROUNDS {
            self.stack.poll(now);
            let upstreams: Vec<_> = self.connections.keys().copied().collect();
            let mut changed = false;
            for upstream in upstreams {
                changed |= self.advance_connection(upstream, now);
            }
            if !changed {
                break;
            }
        }
    }

    fn advance_connection(&mut self, upstream: SocketAddr, now: Instant) -> bool {
        let Some(connection) = self.connections.get_mut(&upstream) else {
            return false;
        };
        let step = connection.advance(&mut self.stack, &mut self.rng, now);
        for (id, message) in step.answered {
            self.finish(id, Ok(message));
        }
        match step.outcome {
            Outcome::Open { changed } => changed,
            Outcome::ClosedByPeer => {
                self.reconnect(upstream);
                true
            }
            Outcome::Failed => {
                self.fail_connection(upstream);
                true
            }
        }
    }

    /// Fails what was sent over a connection that the peer closed; what was not goes over a new one.
    fn reconnect(&mut self, upstream: SocketAddr) {
        let Some(connection) = self.connections.remove(&upstream) else {
            return;
        };
        let (sent, queued) = connection.discard(&mut self.stack);
        for id in sent {
            self.finish(id, Err(RecursiveError::ConnectionFailed));
        }
        if queued.is_empty() {
            return;
        }
        match self.connect(upstream) {
            Ok(mut connection) => {
                for (id, message) in queued {
                    connection.enqueue(id, message);
                }
                self.connections.insert(upstream, connection);
            }
            Err(error) => {
                for (id, _) in queued {
                    self.finish(id, Err(error.clone()));
                }
            }
        }
    }

    fn fail_connection(&mut self, upstream: SocketAddr) {
        if let Some(connection) = self.connections.remove(&upstream) {
            let (sent, queued) = connection.discard(&mut self.stack);
            for id in sent.into_iter().chain(queued.into_iter().map(|(id, _)| id)) {
                self.finish(id, Err(RecursiveError::ConnectionFailed));
            }
        }
    }

    fn expire(&mut self, now: Instant) {
        let mut silent = BTreeSet::new();
        while let Some((deadline, id)) = self.deadlines.first().copied() {
            if deadline > now {
                break;
            }
            self.deadlines.pop_first();
            let Some(query) = self.queries.get(&id) else {
                continue;
            };
            let upstream = query.upstream;
            if let Some(connection) = self.connections.get_mut(&upstream) {
                connection.forget(id);
                if !connection.was_heard_since(deadline - QUERY_TIMEOUT) {
                    silent.insert(upstream);
                }
            }
            self.finish(id, Err(RecursiveError::TimedOut));
        }
        for upstream in silent {
            self.fail_connection(upstream);
        }
    }

    fn finish(&mut self, id: QueryId, result: Result<Vec<u8>, RecursiveError>) {
        if let Some(query) = self.queries.remove(&id) {
            self.deadlines.remove(&(query.deadline, id));
            self.responses.push_back(RecursiveResponse { id, result });
        }
    }
}

#[cfg(test)]
mod tests;
