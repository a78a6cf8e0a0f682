//! What goes into the portal and comes out of it, apart from logins.

use connlib_model::{ClientId, GatewayId, ResourceId};
use serde_json::Value;

use crate::{Authorization, Device, portal::ConnectionId};

/// A frame of a component.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    /// The channel that it belongs to.
    pub topic: String,
    /// The message's name.
    pub event: String,
    /// The message's content.
    pub payload: Value,
    /// Echoed in the reply; without it there is no reply.
    pub reference: Option<u64>,
}

/// What the server has to do, in order.
#[derive(Debug, Clone, PartialEq)]
pub enum Output {
    /// Answer a request.
    Reply {
        /// To whom.
        connection: ConnectionId,
        /// The request's topic.
        topic: String,
        /// The request's number.
        reference: u64,
        /// `ok {}` or an error.
        result: Result<(), Refusal>,
    },
    /// Send a message.
    Push {
        /// To whom.
        connection: ConnectionId,
        /// The component's topic.
        topic: &'static str,
        /// The message's name in the connection's dialect.
        event: String,
        /// The message's content.
        payload: Value,
    },
    /// Close the socket once everything before is written. The connection is already forgotten here.
    Close {
        /// Whose.
        connection: ConnectionId,
        /// Why.
        reason: CloseReason,
    },
    /// Keep a record.
    Store(StoreOp),
}

/// Why the portal closes a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CloseReason {
    /// Its token ended or was taken away.
    TokenEnded,
    /// The same device connected again.
    Replaced,
    /// The portal goes away; reconnect.
    Restart,
}

/// Why a request is refused: the `reason` of an error reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// The topic is not joined, or is not this component's.
    UnmatchedTopic,
    /// No such event.
    UnknownMessage,
    /// The content of a known event cannot be used.
    InvalidPayload,
    /// An acknowledgement of nothing that waits.
    InvalidRef,
    /// The token ended between upgrade and join.
    TokenExpired,
    /// The feature does not exist here.
    Disabled,
}

impl Refusal {
    /// The word on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::UnmatchedTopic => "unmatched topic",
            Self::UnknownMessage => "unknown_message",
            Self::InvalidPayload => "invalid_payload",
            Self::InvalidRef => "invalid_ref",
            Self::TokenExpired => "token_expired",
            Self::Disabled => "disabled",
        }
    }
}

/// A change of the records that survive a restart.
#[derive(Debug, Clone, PartialEq)]
pub enum StoreOp {
    /// Insert or replace by id.
    PutDevice(Device),
    /// Insert or replace by gateway, client and resource.
    PutAuthorization(Authorization),
    /// Remove.
    RemoveAuthorization {
        /// Which gateway.
        gateway: GatewayId,
        /// Which client.
        client: ClientId,
        /// Which resource.
        resource: ResourceId,
    },
}
