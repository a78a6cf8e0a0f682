//! A look-up at an upstream server, and what came of it.

use std::fmt;
use std::net::SocketAddr;

/// Names a look-up between question and result. Chosen by whoever asks; unique among the look-ups under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct QueryId(pub u64);

impl fmt::Display for QueryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Transport of DNS messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DnsTransport {
    /// One datagram each way (RFC 1035 §4.2.1).
    Udp,
    /// Messages with a length in front (RFC 1035 §4.2.2, RFC 7766).
    Tcp,
}

/// A DNS message to be sent to an upstream server, verbatim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecursiveQuery {
    /// Comes back with the result.
    pub id: QueryId,
    /// The server to ask.
    pub upstream: SocketAddr,
    /// How to ask it.
    pub transport: DnsTransport,
    /// The query, without a length in front.
    pub message: Vec<u8>,
}

/// The result of a [`RecursiveQuery`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecursiveResponse {
    /// That of the query.
    pub id: QueryId,
    /// The response, without a length in front and with the id of the query's message.
    pub result: Result<Vec<u8>, RecursiveError>,
}

/// Why there is no response.
///
/// The asking application sees SERVFAIL, or over UDP nothing for a time-out of a look-up outside the tunnel.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecursiveError {
    /// The server did not answer in time.
    #[error("no response in time")]
    TimedOut,
    /// An ICMP error said that the server cannot be reached.
    #[error("server is unreachable")]
    Unreachable,
    /// The connection was refused, reset or closed early.
    #[error("connection failed")]
    ConnectionFailed,
    /// The network or the configuration changed during the look-up.
    #[error("look-up was abandoned")]
    Reset,
    /// Too many look-ups are under way.
    #[error("too many look-ups")]
    Overloaded,
    /// There is no address of our own of the server's IP version.
    #[error("no own address of the server's IP version")]
    NoSource,
    /// The query is no DNS message that can be sent over this transport.
    #[error("query is malformed")]
    MalformedQuery,
    /// A socket of the host failed; its error as text.
    #[error("{0}")]
    Io(String),
}
