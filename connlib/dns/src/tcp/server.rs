//! The TCP side of the stub resolver: listens on the sentinels and hands complete queries to its owner.
//!
//! A connection has at most one query under way: the next one is read when the response to the previous one has left
//! the send buffer. That bounds queries by sockets and keeps responses in order.

use super::framing::{self, MIN_MESSAGE};
use super::stack::{Stack, endpoint, socket_addr};
use ip_packet::{IpPacket, PacketRef};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha20Rng;
use smoltcp::iface::SocketHandle;
use smoltcp::socket::tcp::{Socket, State};
use std::collections::{BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::time::Instant;

/// Connections that each address serves at a time; more are refused.
const CONNECTIONS_PER_ADDRESS: usize = 10;

/// Enough to read, answer a reset, and listen again.
const MAX_ROUNDS: usize = 4;

/// A query that arrived over a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TcpQuery {
    /// The sentinel and port that were asked.
    pub local: SocketAddr,
    /// Who asks.
    pub remote: SocketAddr,
    /// The message, without its length; not yet looked into, except that it is no response.
    pub message: Vec<u8>,
}

/// The connection that a response is for is gone, or waits for another response.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("connection is gone")]
pub struct NoConnection;

/// DNS over TCP towards applications.
///
/// Driven like this, whenever a packet came, a response is there, or the time has come:
/// ```text
/// if server.accepts(packet) { server.handle_packet(packet, now) }
/// server.send_response(local, remote, &response, now)
/// server.handle_timeout(now)
/// while let Some(query) = server.poll_query() { … }
/// while let Some(packet) = server.poll_packet() { … }
/// sleep until server.poll_timeout()
/// ```
pub struct Server {
    stack: Stack,
    rng: ChaCha20Rng,
    addresses: BTreeSet<SocketAddr>,
    slots: Vec<Slot>,
    /// At most one per slot, or of a connection that has gone since.
    queries: VecDeque<TcpQuery>,
}

/// One socket and where its conversation stands.
struct Slot {
    handle: SocketHandle,
    local: SocketAddr,
    conversation: Conversation,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Conversation {
    /// The next query is awaited.
    Reading,
    /// A query was handed out.
    Waiting {
        /// The message id of the query.
        id: u16,
    },
    /// A response is in the send buffer.
    Sending,
}

/// What became of a slot when it was looked at.
#[derive(Debug, PartialEq, Eq)]
enum Progress {
    Nothing,
    /// The stack has something to do.
    Changed,
    Query(TcpQuery),
}

impl Server {
    /// A server that listens nowhere.
    pub fn new(seed: [u8; 32], now: Instant) -> Self {
        let mut rng = ChaCha20Rng::from_seed(seed);
        let stack = Stack::new(rng.random(), now);
        Self {
            stack,
            rng,
            addresses: BTreeSet::new(),
            slots: Vec::new(),
            queries: VecDeque::new(),
        }
    }

    /// Listens on exactly these sockets.
    ///
    /// Nothing happens when they are the ones of before, in whatever order; otherwise all connections and all queries
    /// that have not been answered are forgotten.
    pub fn listen_on(&mut self, sockets: impl IntoIterator<Item = SocketAddr>, now: Instant) {
        let addresses: BTreeSet<_> = sockets
            .into_iter()
            .filter(|socket| socket.port() != 0)
            .collect();
        if addresses == self.addresses {
            return;
        }
        self.queries.clear();
        self.slots.clear();
        self.stack = Stack::new(self.rng.random(), now);
        for local in &addresses {
            for _ in 0..CONNECTIONS_PER_ADDRESS {
                let handle = self.stack.add_socket();
                self.slots.push(Slot {
                    handle,
                    local: *local,
                    conversation: Conversation::Reading,
                });
            }
        }
        self.addresses = addresses;
        self.advance(now);
    }

    /// Whether a packet is TCP for one of the sockets and must be given to [`handle_packet`](Self::handle_packet).
    pub fn accepts(&self, packet: PacketRef<'_>) -> bool {
        packet.as_tcp().is_some_and(|tcp| {
            self.addresses.contains(&SocketAddr::new(
                packet.destination(),
                tcp.destination_port(),
            ))
        })
    }

    /// Takes a packet from the TUN device, at most 1280 bytes and with right checksums; ignores it if not
    /// [accepted](Self::accepts).
    pub fn handle_packet(&mut self, packet: PacketRef<'_>, now: Instant) {
        if self.accepts(packet) {
            self.stack.receive(packet);
            self.advance(now);
        }
    }

    /// The next query. A connection's next one is read only when its response has been sent and has left.
    pub fn poll_query(&mut self) -> Option<TcpQuery> {
        self.queries.pop_front()
    }

    /// Sends a response over the connection that asked.
    ///
    /// # Errors
    /// [`NoConnection`] when it does not wait for this response (any more); the response is void then.
    pub fn send_response(
        &mut self,
        local: SocketAddr,
        remote: SocketAddr,
        message: &[u8],
        now: Instant,
    ) -> Result<(), NoConnection> {
        if message.len() < MIN_MESSAGE {
            return Err(NoConnection);
        }
        let waiting = Conversation::Waiting {
            id: framing::message_id(message),
        };
        let stack = &mut self.stack;
        let slot = self
            .slots
            .iter_mut()
            .find(|slot| {
                slot.local == local
                    && slot.conversation == waiting
                    && slot.remote(stack) == Some(remote)
            })
            .ok_or(NoConnection)?;
        slot.conversation = Conversation::Sending;
        let socket = self.stack.socket(slot.handle);
        let written = framing::write_message(socket, message);
        if written.is_err() {
            socket.abort();
        }
        self.advance(now);
        written.map_err(|_| NoConnection)
    }

    /// The next packet for the TUN device.
    pub fn poll_packet(&mut self) -> Option<IpPacket> {
        self.stack.next_packet()
    }

    /// Lets time pass.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.advance(now);
    }

    /// When [`handle_timeout`](Self::handle_timeout) wants to be called.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.stack.next_poll()
    }

    /// Lets the stack and the conversations react to each other until nothing changes.
    fn advance(&mut self, now: Instant) {
        for _ in 0..MAX_ROUNDS {
            self.stack.poll(now);
            let mut changed = false;
            for slot in &mut self.slots {
                match slot.advance(&mut self.stack) {
                    Progress::Nothing => {}
                    Progress::Changed => changed = true,
                    Progress::Query(query) => {
                        self.queries.push_back(query);
                        changed = true;
                    }
                }
            }
            if !changed {
                break;
            }
        }
    }
}

impl Slot {
    fn remote(&self, stack: &mut Stack) -> Option<SocketAddr> {
        stack.socket(self.handle).remote_endpoint().map(socket_addr)
    }

    fn advance(&mut self, stack: &mut Stack) -> Progress {
        let socket = stack.socket(self.handle);
        match socket.state() {
            // A reset is still to be sent as long as there is a peer.
            State::Closed if socket.remote_endpoint().is_some() => Progress::Nothing,
            State::Closed | State::TimeWait => self.listen(socket),
            State::Established | State::CloseWait => self.converse(socket),
            State::Listen
            | State::SynSent
            | State::SynReceived
            | State::FinWait1
            | State::FinWait2
            | State::Closing
            | State::LastAck => Progress::Nothing,
        }
    }

    fn listen(&mut self, socket: &mut Socket<'_>) -> Progress {
        self.conversation = Conversation::Reading;
        match socket.listen(endpoint(self.local)) {
            Ok(()) => Progress::Changed,
            Err(error) => {
                tracing::debug!(%error, "Cannot listen");
                Progress::Nothing
            }
        }
    }

    fn converse(&mut self, socket: &mut Socket<'_>) -> Progress {
        if self.conversation == Conversation::Sending && socket.send_queue() == 0 {
            self.conversation = Conversation::Reading;
        }
        if self.conversation != Conversation::Reading {
            return Progress::Nothing;
        }
        match framing::read_message(socket) {
            Ok(Some(message)) if !framing::is_response(&message) => self.query(socket, message),
            // Nothing useful can follow.
            Ok(Some(_)) | Err(framing::BrokenStream) => {
                socket.abort();
                Progress::Changed
            }
            // The peer has said all that it had to say, and has its answers.
            Ok(None) if socket.state() == State::CloseWait => {
                socket.close();
                Progress::Changed
            }
            Ok(None) => Progress::Nothing,
        }
    }

    fn query(&mut self, socket: &Socket<'_>, message: Vec<u8>) -> Progress {
        let Some(remote) = socket.remote_endpoint().map(socket_addr) else {
            return Progress::Nothing;
        };
        self.conversation = Conversation::Waiting {
            id: framing::message_id(&message),
        };
        Progress::Query(TcpQuery {
            local: self.local,
            remote,
            message,
        })
    }
}

#[cfg(test)]
mod tests;
