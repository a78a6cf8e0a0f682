//! TCP of a client's applications: connections that stay open, and queries to the resolver.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use ip_packet::{IpPacket, PacketRef};
use smoltcp::{iface::SocketHandle, socket::tcp::State};

use super::{
    server::{framed, take_frame},
    stack::Stack,
};
use crate::{topology::Os, trace::TcpEvent};

/// Source ports of applications; each connection gets its own.
const FIRST_PORT: u16 = 10_000;
/// Keep-alive of long-lived connections: it must wake a tunnel that slept (testing A21).
const KEEP_ALIVE: Duration = Duration::from_secs(75);
/// How long a query may take.
const QUERY_PATIENCE: Duration = Duration::from_secs(30);

/// All TCP of one client.
pub(crate) struct Tcp {
    stack: Stack,
    patience: Duration,
    next_port: u16,
    connections: BTreeMap<usize, Connection>,
    queries: BTreeMap<u64, PendingQuery>,
}

struct Connection {
    handle: SocketHandle,
    local: SocketAddr,
    remote: SocketAddr,
    keep_alive: bool,
    established: bool,
    ended: bool,
}

struct PendingQuery {
    handle: SocketHandle,
    message: Option<Vec<u8>>,
    received: Vec<u8>,
    server: SocketAddr,
    deadline: Instant,
}

/// What became of a query.
pub(crate) enum Answer {
    Response {
        query: u64,
        message: Vec<u8>,
        from: SocketAddr,
    },
    Failure {
        query: u64,
    },
}

impl Tcp {
    pub(crate) fn new(seed: u64, os: Os, now: Instant) -> Self {
        let seconds = match os {
            Os::Linux => 924,
            Os::MacOs => 450,
            Os::Windows => 90,
        };
        Self {
            stack: Stack::new(seed, now),
            // The stack counts silence between keep-alives as well.
            patience: Duration::from_secs(seconds) + KEEP_ALIVE,
            // A new process does not meet what servers remember of the last one.
            next_port: FIRST_PORT + (seed % 50) as u16 * 1_000,
            connections: BTreeMap::new(),
            queries: BTreeMap::new(),
        }
    }

    /// Opens a connection that stays open. Gives back its source port.
    pub(crate) fn open(
        &mut self,
        connection: usize,
        source: IpAddr,
        to: SocketAddr,
        keep_alive: bool,
        now: Instant,
    ) -> u16 {
        let local = SocketAddr::new(source, self.take_port());
        // The stack's patience counts silence: without keep-alives it would end an idle connection.
        let (patience, interval) = match keep_alive {
            true => (Some(self.patience), Some(KEEP_ALIVE)),
            false => (None, None),
        };
        let entry = Connection {
            handle: self.stack.connect(local, to, patience, interval),
            local,
            remote: to,
            keep_alive,
            established: false,
            ended: false,
        };
        self.connections.insert(connection, entry);
        self.stack.poll(now);
        local.port()
    }

    /// Gives up a connection that is not established, and makes it anew. Gives back its source port.
    pub(crate) fn connect_again(&mut self, connection: usize, now: Instant) -> Option<u16> {
        let entry = self.connections.get(&connection);
        let &Connection {
            handle,
            local,
            remote,
            keep_alive,
            ..
        } = entry.filter(|entry| !entry.established)?;
        self.stack.remove(handle);
        Some(self.open(connection, local.ip(), remote, keep_alive, now))
    }

    pub(crate) fn send(&mut self, connection: usize, bytes: &[u8], now: Instant) {
        if let Some(entry) = self.connections.get(&connection) {
            let _ = self.stack.socket(entry.handle).send_slice(bytes);
            self.stack.poll(now);
        }
    }

    pub(crate) fn close(&mut self, connection: usize, now: Instant) {
        if let Some(entry) = self.connections.get_mut(&connection) {
            entry.ended = true;
            self.stack.socket(entry.handle).close();
            self.stack.poll(now);
        }
    }

    /// An ICMP error came for the connection with this source port.
    pub(crate) fn abort(&mut self, port: u16, now: Instant) {
        let found = self.connections.values().find(|c| c.local.port() == port);
        if let Some(entry) = found {
            let socket = self.stack.socket(entry.handle);
            if socket.state() == State::SynSent {
                socket.abort();
                self.stack.poll(now);
            }
        }
    }

    pub(crate) fn query(
        &mut self,
        number: u64,
        source: IpAddr,
        server: SocketAddr,
        message: Vec<u8>,
        now: Instant,
    ) {
        let local = SocketAddr::new(source, self.take_port());
        let handle = self
            .stack
            .connect(local, server, Some(QUERY_PATIENCE), None);
        let pending = PendingQuery {
            handle,
            message: Some(message),
            received: Vec::new(),
            server,
            deadline: now + QUERY_PATIENCE,
        };
        self.queries.insert(number, pending);
        self.stack.poll(now);
    }

    pub(crate) fn receive(&mut self, packet: PacketRef<'_>, now: Instant) {
        self.stack.receive(packet, now);
    }

    pub(crate) fn poll_packet(&mut self) -> Option<IpPacket> {
        self.stack.next_packet()
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        let queries = self.queries.values().map(|query| query.deadline).min();
        [self.stack.next_poll(), queries]
            .into_iter()
            .flatten()
            .min()
    }

    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        self.stack.poll(now);
    }

    /// What happened to connections and queries since the last call.
    pub(crate) fn advance(&mut self, now: Instant) -> (Vec<(usize, TcpEvent)>, Vec<Answer>) {
        let events = self.advance_connections();
        let answers = self.advance_queries(now);
        if !answers.is_empty() || !self.queries.is_empty() {
            self.stack.poll(now);
        }
        (events, answers)
    }

    fn advance_connections(&mut self) -> Vec<(usize, TcpEvent)> {
        let mut events = Vec::new();
        for (index, entry) in &mut self.connections {
            let socket = self.stack.socket(entry.handle);
            if !entry.established && socket.state() == State::Established {
                entry.established = true;
                events.push((*index, TcpEvent::Established));
            }
            let mut buffer = [0; 4096];
            while let Ok(len @ 1..) = socket.recv_slice(&mut buffer) {
                events.push((*index, TcpEvent::Received(buffer[..len].to_vec())));
            }
            if !entry.ended && !socket.is_open() {
                entry.ended = true;
                events.push((*index, TcpEvent::Closed));
            }
        }
        events
    }

    fn advance_queries(&mut self, now: Instant) -> Vec<Answer> {
        let mut answers = Vec::new();
        for (number, query) in &mut self.queries {
            let socket = self.stack.socket(query.handle);
            if socket.may_send()
                && let Some(message) = query.message.take()
            {
                let _ = socket.send_slice(&framed(&message));
            }
            let mut buffer = [0; 4096];
            while let Ok(len @ 1..) = socket.recv_slice(&mut buffer) {
                query.received.extend(&buffer[..len]);
            }
            if let Some(message) = take_frame(&mut query.received) {
                answers.push(Answer::Response {
                    query: *number,
                    message,
                    from: query.server,
                });
            } else if !socket.is_open() || query.deadline <= now {
                answers.push(Answer::Failure { query: *number });
            }
        }
        for answer in &answers {
            let (Answer::Response { query, .. } | Answer::Failure { query }) = answer;
            if let Some(done) = self.queries.remove(query) {
                // A goodbye in peace, so that the resolver's socket is free at once.
                self.stack.socket(done.handle).close();
            }
        }
        answers
    }

    fn take_port(&mut self) -> u16 {
        self.next_port += 1;
        self.next_port
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_is_made_anew_from_another_port_until_it_is_established() {
        let mut now = Instant::now();
        let (source, to) = (
            [100, 64, 0, 1].into(),
            SocketAddr::from(([10, 0, 0, 1], 22)),
        );
        let mut tcp = Tcp::new(1, Os::Linux, now);
        let mut server = Stack::new(2, now);
        server.listen(to);
        let first = tcp.open(0, source, to, true, now);
        let lost = tcp.poll_packet().expect("SYN");
        now += Duration::from_secs(30);
        let second = tcp.connect_again(0, now).expect("not established");
        assert_ne!(first, second);
        let again = tcp.poll_packet().expect("SYN");
        assert_ne!(again.source_protocol(), lost.source_protocol());
        assert_eq!(again.destination_protocol(), lost.destination_protocol());
        server.receive(again.view(), now);
        let answer = server.next_packet().expect("SYN-ACK");
        tcp.receive(answer.view(), now);
        assert_eq!(tcp.advance(now).0, [(0, TcpEvent::Established)]);
        assert_eq!(tcp.connect_again(0, now), None);
    }
}
