//! Events by name: what all message enums have in common.

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;

/// Longest event name that is kept of an unknown event; the rest is cut.
const MAX_EVENT_NAME: usize = 64;

/// The names of the five authorization messages (portal protocol §9.2). Everything else is equal in both.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Dialect {
    /// The unversioned paths: `create_flow`, `flow_created`, `authorize_flow`, …
    Unversioned,
    /// The `/v2` paths: `request_authorization`, `authorization_created`, `create_authorization`, …
    V2,
}

/// A message of one component in one direction.
pub trait Message: Sized {
    /// Reads a message. Names of both dialects are understood, whatever the path; an event that is not known is a
    /// message, not an error.
    ///
    /// # Errors
    ///
    /// When the payload of a known event cannot be used.
    fn parse(event: &str, payload: Value) -> Result<Self, MessageError>;

    /// The event's name in a dialect.
    fn event(&self, dialect: Dialect) -> &str;

    /// The payload, equal in both dialects.
    fn payload(&self) -> Value;
}

/// A known event with a payload that cannot be used. It costs this one message, never the connection.
#[derive(Debug, thiserror::Error)]
#[error("payload of '{event}' cannot be used: {source}")]
pub struct MessageError {
    /// The event's name.
    pub event: &'static str,
    /// What is wrong with it.
    pub source: serde_json::Error,
}

pub(crate) fn read<T: DeserializeOwned>(
    event: &'static str,
    payload: Value,
) -> Result<T, MessageError> {
    serde_json::from_value(payload).map_err(|source| MessageError { event, source })
}

pub(crate) fn write<T: Serialize>(payload: &T) -> Value {
    serde_json::to_value(payload).expect("payloads have text keys and numbers that JSON can hold")
}

/// The name of an unknown event, cut to a length that is safe to keep and log.
pub(crate) fn unknown_name(event: &str) -> String {
    event.chars().take(MAX_EVENT_NAME).collect()
}

/// The members of a frame that this layer reads.
#[derive(Deserialize)]
pub(crate) struct ReadEvent {
    pub(crate) event: String,
    #[serde(default)]
    pub(crate) payload: Value,
}

/// The members of a frame that this layer writes.
#[derive(Serialize)]
pub(crate) struct WriteEvent<'a> {
    pub(crate) event: &'a str,
    pub(crate) payload: Value,
}

/// Serde for a message enum: `{"event", "payload"}`, older names when writing.
macro_rules! serde_as_event {
    ($message:ty) => {
        impl<'de> serde::Deserialize<'de> for $message {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let frame =
                    <$crate::codec::ReadEvent as serde::Deserialize>::deserialize(deserializer)?;
                <$message as $crate::codec::Message>::parse(&frame.event, frame.payload)
                    .map_err(serde::de::Error::custom)
            }
        }

        impl serde::Serialize for $message {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                use $crate::codec::Message as _;
                let frame = $crate::codec::WriteEvent {
                    event: self.event($crate::codec::Dialect::Unversioned),
                    payload: self.payload(),
                };
                serde::Serialize::serialize(&frame, serializer)
            }
        }
    };
}
pub(crate) use serde_as_event;
