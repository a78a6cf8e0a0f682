//! STUN (RFC 8489) and TURN (RFC 8656) messages, shared by the TURN client and the relay.
//!
//! A datagram is read in three steps, and none of them can be skipped by accident:
//!
//! 1. [`classify`] looks at the first byte: STUN, channel data or neither.
//! 2. Channel data: [`channel::ChannelData::parse`]. STUN: [`Envelope::parse`] checks header, bounds and FINGERPRINT; the
//!    resulting [`Envelope`] verifies MESSAGE-INTEGRITY over exactly the received bytes and hides everything behind it.
//! 3. [`Request::decode`], [`Response::decode`] or [`Indication::decode`] turn a checked envelope into plain values.
//!
//! Nothing here panics on any input, and memory is bounded by the size of one datagram.
#![deny(missing_docs)]

pub mod attribute;
pub mod channel;
mod codec;
mod credentials;
mod envelope;
mod error;
mod fingerprint;
mod header;
mod indication;
mod request;
mod response;

pub use channel::{ChannelNumber, ChannelRange, PacketKind, classify};
pub use credentials::{CredentialsError, DEFAULT_REALM, Key, RelayUsername, relay_password};
pub use envelope::{Attribute, Attributes, Envelope, EnvelopeError, Flaw, Integrity};
pub use error::{DecodeError, EncodeError};
pub use fingerprint::append_fingerprint;
pub use header::{Class, Header, MAGIC_COOKIE, Method, TransactionId};
pub use indication::Indication;
pub use request::{
    Allocate, AuthAttributes, ChannelBind, CreatePermission, Refresh, Request, RequestBody,
};
pub use response::{AddressError, ErrorCode, ErrorResponse, Outcome, Response, Success};

/// An IP address family as TURN attributes name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// IPv4, wire value 1.
    V4,
    /// IPv6, wire value 2.
    V6,
}
