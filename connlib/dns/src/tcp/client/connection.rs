//! One connection to an upstream server and the look-ups that use it.

use crate::QueryId;
use crate::tcp::framing;
use crate::tcp::stack::Stack;
use rand::Rng;
use rand_chacha::ChaCha20Rng;
use smoltcp::iface::SocketHandle;
use smoltcp::socket::tcp::{Socket, State};
use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::time::Instant;

pub(super) struct Connection {
    handle: SocketHandle,
    local: SocketAddr,
    /// Not yet written, in order.
    queued: VecDeque<(QueryId, Vec<u8>)>,
    /// Written and unanswered, by the id on the wire.
    sent: BTreeMap<u16, Sent>,
    /// When the server last answered.
    heard: Option<Instant>,
}

struct Sent {
    id: QueryId,
    /// The message id that the asker chose.
    message_id: u16,
}

/// What came of looking at a connection.
pub(super) struct Step {
    /// Responses, with the ids that the askers chose.
    pub(super) answered: Vec<(QueryId, Vec<u8>)>,
    pub(super) outcome: Outcome,
}

pub(super) enum Outcome {
    Open {
        /// The stack has something to do.
        changed: bool,
    },
    /// The server will not answer any more over this connection.
    ClosedByPeer,
    /// The server refused, reset or does not react.
    Failed,
}

impl Connection {
    pub(super) fn open(stack: &mut Stack, local: SocketAddr, upstream: SocketAddr) -> Option<Self> {
        let handle = stack.add_socket();
        if !stack.connect(handle, local, upstream) {
            stack.remove_socket(handle);
            return None;
        }
        Some(Self {
            handle,
            local,
            queued: VecDeque::new(),
            sent: BTreeMap::new(),
            heard: None,
        })
    }

    pub(super) fn local(&self) -> SocketAddr {
        self.local
    }

    pub(super) fn is_idle(&self) -> bool {
        self.queued.is_empty() && self.sent.is_empty()
    }

    pub(super) fn was_heard_since(&self, time: Instant) -> bool {
        self.heard.is_some_and(|heard| heard >= time)
    }

    pub(super) fn enqueue(&mut self, id: QueryId, message: Vec<u8>) {
        self.queued.push_back((id, message));
    }

    /// Nobody waits for this look-up any more.
    pub(super) fn forget(&mut self, id: QueryId) {
        self.queued.retain(|(queued, _)| *queued != id);
        self.sent.retain(|_, sent| sent.id != id);
    }

    /// Gives up the socket; returns the look-ups that were sent and those that were not.
    pub(super) fn discard(self, stack: &mut Stack) -> (Vec<QueryId>, VecDeque<(QueryId, Vec<u8>)>) {
        stack.remove_socket(self.handle);
        (
            self.sent.into_values().map(|sent| sent.id).collect(),
            self.queued,
        )
    }

    pub(super) fn advance(
        &mut self,
        stack: &mut Stack,
        rng: &mut ChaCha20Rng,
        now: Instant,
    ) -> Step {
        let socket = stack.socket(self.handle);
        let mut answered = Vec::new();
        let outcome = match socket.state() {
            State::Established => match self.exchange(socket, rng, now, &mut answered) {
                Ok(changed) => Outcome::Open { changed },
                Err(framing::BrokenStream) => Outcome::Failed,
            },
            State::CloseWait => match self.read(socket, now, &mut answered) {
                Ok(_) => Outcome::ClosedByPeer,
                Err(framing::BrokenStream) => Outcome::Failed,
            },
            State::Closed | State::TimeWait => Outcome::Failed,
            State::Listen
            | State::SynSent
            | State::SynReceived
            | State::FinWait1
            | State::FinWait2
            | State::Closing
            | State::LastAck => Outcome::Open { changed: false },
        };
        Step { answered, outcome }
    }

    fn exchange(
        &mut self,
        socket: &mut Socket<'_>,
        rng: &mut ChaCha20Rng,
        now: Instant,
        answered: &mut Vec<(QueryId, Vec<u8>)>,
    ) -> Result<bool, framing::BrokenStream> {
        let read = self.read(socket, now, answered)?;
        let written = self.write(socket, rng)?;
        Ok(read || written)
    }

    fn read(
        &mut self,
        socket: &mut Socket<'_>,
        now: Instant,
        answered: &mut Vec<(QueryId, Vec<u8>)>,
    ) -> Result<bool, framing::BrokenStream> {
        let mut changed = false;
        while let Some(mut message) = framing::read_message(socket)? {
            changed = true;
            self.heard = Some(now);
            if !framing::is_response(&message) {
                return Err(framing::BrokenStream);
            }
            // Late answers have nobody who waits for them.
            if let Some(sent) = self.sent.remove(&framing::message_id(&message)) {
                message[..2].copy_from_slice(&sent.message_id.to_be_bytes());
                answered.push((sent.id, message));
            }
        }
        Ok(changed)
    }

    fn write(
        &mut self,
        socket: &mut Socket<'_>,
        rng: &mut ChaCha20Rng,
    ) -> Result<bool, framing::BrokenStream> {
        let mut changed = false;
        while let Some((_, message)) = self.queued.front()
            && framing::has_room(socket, message.len())
        {
            let Some((id, mut message)) = self.queued.pop_front() else {
                break;
            };
            let message_id = framing::message_id(&message);
            let wire_id = self.free_wire_id(rng);
            message[..2].copy_from_slice(&wire_id.to_be_bytes());
            framing::write_message(socket, &message)?;
            self.sent.insert(wire_id, Sent { id, message_id });
            changed = true;
        }
        Ok(changed)
    }

    /// Ends because look-ups are bounded far below the number of ids.
    fn free_wire_id(&self, rng: &mut ChaCha20Rng) -> u16 {
        loop {
            let id = rng.random();
            if !self.sent.contains_key(&id) {
                return id;
            }
        }
    }
}
