//! Errors of decoding and encoding attribute values.

use thiserror::Error;

/// A checked message whose attributes do not form the expected message.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum DecodeError {
    /// The class is not the one asked for, e.g. a request where a response is decoded.
    #[error("message has another class")]
    WrongClass,
    /// No request or response of this method exists here.
    #[error("unknown method {0:#05x}")]
    UnknownMethod(u16),
    /// A known attribute holds an impossible value.
    #[error("attribute cannot be decoded: {0}")]
    BadAttribute(String),
    /// An attribute without which the message has no meaning is absent.
    #[error("attribute {0:#06x} is missing")]
    MissingAttribute(u16),
}

/// A message that cannot be put on the wire.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum EncodeError {
    /// A text attribute is longer than RFC 8489 allows, or a number out of its range.
    #[error("attribute cannot be encoded: {0}")]
    BadAttribute(String),
    /// The message would not fit into one datagram.
    #[error("message is too long")]
    TooLong,
}
