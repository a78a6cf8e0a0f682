//! What an allocation hands to its driver.

use std::net::SocketAddr;

use is::Candidate;
use thiserror::Error;

/// A datagram to a server socket of the relay, from any local interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transmit {
    /// Server socket.
    pub dst: SocketAddr,
    /// UDP payload.
    pub payload: Vec<u8>,
}

/// News about this host's candidates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A host, server-reflexive or relayed candidate has been found.
    New(Candidate),
    /// A relayed candidate is gone. Candidates of other kinds are never invalidated.
    Invalid(Candidate),
}

/// Why an allocation is of no further use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum FreeReason {
    /// The relay refused a request as such (420).
    #[error("protocol failure")]
    Protocol,
    /// The relay never answered; STUN may be blocked.
    #[error("no response (STUN blocked?)")]
    NoResponse,
    /// The relay does not accept the credentials, or asks for another realm.
    #[error("authentication error")]
    Authentication,
    /// Its owner gave it back.
    #[error("given back")]
    Released,
}
