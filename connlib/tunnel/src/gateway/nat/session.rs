//! One NAT session: what it translates, and when it ends.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use ip_packet::{PacketRef, Protocol, TcpFlags};

use super::tuple::Tuple;

/// Idle life of an answered TCP session: 2 h 4 min (RFC 5382 REQ-5), which outlasts the default keep-alive.
const TCP_TTL: Duration = Duration::from_secs(2 * 3600 + 4 * 60);
/// Idle life of an answered UDP session: 2 min (RFC 4787 REQ-5).
const UDP_TTL: Duration = Duration::from_secs(120);
/// Idle life of an answered ICMP echo session (RFC 5508 REQ-1 asks for at least 60 s).
const ICMP_TTL: Duration = Duration::from_secs(120);
/// Life of a session that nobody answers.
const UNCONFIRMED_TTL: Duration = Duration::from_secs(60);
/// Life of a TCP session that both ends have finished.
const FINISHED_TTL: Duration = Duration::from_secs(5);

/// Who sent a packet of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sender {
    Client,
    Resource,
}

/// What a packet says about the life of its TCP connection.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in super::super) struct TcpSignal {
    opens: bool,
    finishes: bool,
    resets: bool,
}

impl TcpSignal {
    /// Of a packet of any protocol.
    pub(in super::super) fn of(packet: PacketRef<'_>) -> Self {
        let Some(tcp) = packet.as_tcp() else {
            return Self::default();
        };
        Self {
            opens: tcp.is_initial_syn(),
            finishes: tcp.flags().contains(TcpFlags::FIN),
            resets: tcp.flags().contains(TcpFlags::RST),
        }
    }

    /// Whether the packet leaves the state of a connection as it is.
    pub(in super::super) fn is_none(self) -> bool {
        self == Self::default()
    }
}

/// A session of one client.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) inside: Tuple,
    pub(super) outside: Tuple,
    /// When the session is next looked at; never later than its deadline.
    pub(super) checked_at: Instant,
    last_from_client: Instant,
    /// `None` until the resource answers.
    last_from_resource: Option<Instant>,
    finished_by_client: bool,
    finished_by_resource: bool,
    reset: bool,
}

impl Session {
    pub(super) fn new(inside: Tuple, outside: Tuple, now: Instant) -> Self {
        let mut session = Self {
            inside,
            outside,
            checked_at: now,
            last_from_client: now,
            last_from_resource: None,
            finished_by_client: false,
            finished_by_resource: false,
            reset: false,
        };
        session.checked_at = session.deadline();
        session
    }

    /// The address that the client talks to.
    pub(super) fn proxy(&self) -> IpAddr {
        self.inside.address()
    }

    /// The address that it stands for.
    pub(super) fn real(&self) -> IpAddr {
        self.outside.address()
    }

    /// Notes a packet.
    pub(super) fn note(&mut self, sender: Sender, signal: TcpSignal, now: Instant) {
        match sender {
            Sender::Client => {
                if signal.opens
                    && (self.reset || self.finished_by_client || self.finished_by_resource)
                {
                    self.reopen();
                }
                self.last_from_client = now;
                self.finished_by_client |= signal.finishes;
            }
            Sender::Resource => {
                self.last_from_resource = Some(now);
                self.finished_by_resource |= signal.finishes;
            }
        }
        self.reset |= signal.resets;
    }

    /// When the session ends unless another packet is seen: the earliest of all rules.
    pub(super) fn deadline(&self) -> Instant {
        let Some(last_from_resource) = self.last_from_resource else {
            return if self.reset {
                self.last_from_client
            } else {
                self.last_from_client + self.ttl().min(UNCONFIRMED_TTL)
            };
        };
        let last = self.last_from_client.max(last_from_resource);
        if self.reset {
            last
        } else if self.finished_by_client && self.finished_by_resource {
            last + FINISHED_TTL
        } else {
            last + self.ttl()
        }
    }

    /// How long it lives without a packet.
    fn ttl(&self) -> Duration {
        match self.inside.protocol() {
            Protocol::Tcp(_) => TCP_TTL,
            Protocol::Udp(_) => UDP_TTL,
            Protocol::IcmpEcho(_) => ICMP_TTL,
        }
    }

    /// The client reuses its port for a new connection.
    fn reopen(&mut self) {
        self.last_from_resource = None;
        self.finished_by_client = false;
        self.finished_by_resource = false;
        self.reset = false;
    }
}
