//! The JSON envelope around every message: one object per WebSocket text frame (Phoenix serializer "V1").
//!
//! ```json
//! {"topic":"client","event":"phx_join","payload":null,"ref":0}
//! ```
//!
//! What is written always has all four members. What is read is forgiving: unknown members are ignored, `payload` and
//! `ref` may be absent, and `ref` may be a number or a string of digits. The portal refuses a frame without one of the
//! four members instead, with [`Frame::decode_strict`].

use std::fmt;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Value, json};

/// Largest text frame that either side reads. The biggest honest frame is an `init` with some thousand resources of a
/// few hundred bytes each; what is larger costs memory that nobody has a use for.
pub const MAX_FRAME_BYTES: usize = 8 * 1024 * 1024;

/// Topic of heartbeats.
pub const PHOENIX_TOPIC: &str = "phoenix";
/// Event that joins a topic.
pub const JOIN: &str = "phx_join";
/// Event that answers a request.
pub const REPLY: &str = "phx_reply";
/// Event that reports a crashed channel.
pub const ERROR: &str = "phx_error";
/// Event that reports a channel stopped on purpose.
pub const CLOSE: &str = "phx_close";
/// Event of a heartbeat.
pub const HEARTBEAT: &str = "heartbeat";
/// Event with which the portal announces that it ends the connection.
pub const DISCONNECT: &str = "disconnect";

/// One message on the wire.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct Frame {
    /// Topic the message belongs to.
    pub topic: String,
    /// Name of the message.
    pub event: String,
    /// Content; its shape depends on the event.
    #[serde(default)]
    pub payload: Value,
    /// Number of the request, echoed by its reply; absent in pushes.
    #[serde(rename = "ref", default, deserialize_with = "lenient_reference")]
    pub reference: Option<u64>,
}

/// Why a text frame is not a message.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// Not JSON, or not an object with a topic and an event.
    #[error("not a channel message: {0}")]
    Malformed(#[from] serde_json::Error),
    /// One of the four members is absent; only from [`Frame::decode_strict`].
    #[error("member `{0}` is missing")]
    MissingMember(&'static str),
    /// Larger than [`MAX_FRAME_BYTES`].
    #[error("frame of {0} bytes is too large")]
    TooLarge(usize),
}

impl Frame {
    /// Reads a frame as a component does: forgiving.
    pub fn decode(text: &str) -> Result<Self, FrameError> {
        check_size(text)?;
        Ok(serde_json::from_str(text)?)
    }

    /// Reads a frame as a portal does: `topic`, `event`, `payload` and `ref` must all be there.
    pub fn decode_strict(text: &str) -> Result<Self, FrameError> {
        check_size(text)?;
        let value: Value = serde_json::from_str(text)?;
        for member in ["topic", "event", "payload", "ref"] {
            if value.get(member).is_none() {
                return Err(FrameError::MissingMember(member));
            }
        }
        // From the text again, since a `Value` forgets that a member stood there twice.
        Ok(serde_json::from_str(text)?)
    }

    /// The text to write.
    pub fn encode(&self) -> String {
        serde_json::to_string(self).expect("strings and JSON values always serialise")
    }

    /// A request to join `topic`.
    pub fn join(topic: impl Into<String>, payload: Value, reference: u64) -> Self {
        Self::request(topic, Outgoing::new(JOIN, payload), reference)
    }

    /// A heartbeat.
    pub fn heartbeat(reference: u64) -> Self {
        Self::request(
            PHOENIX_TOPIC,
            Outgoing::new(HEARTBEAT, json!({})),
            reference,
        )
    }

    /// A message of a component, numbered `reference`.
    pub fn request(topic: impl Into<String>, message: Outgoing, reference: u64) -> Self {
        Self {
            topic: topic.into(),
            event: message.event,
            payload: message.payload,
            reference: Some(reference),
        }
    }

    /// A message of the portal that answers nothing.
    pub fn push(topic: impl Into<String>, message: Outgoing) -> Self {
        Self {
            topic: topic.into(),
            event: message.event,
            payload: message.payload,
            reference: None,
        }
    }

    /// The portal's positive answer to request `reference`.
    pub fn reply_ok(topic: impl Into<String>, reference: u64, response: Value) -> Self {
        Self::reply(topic, reference, "ok", response)
    }

    /// The portal's refusal of request `reference`.
    pub fn reply_error(topic: impl Into<String>, reference: u64, reason: &str) -> Self {
        Self::reply(topic, reference, "error", json!({ "reason": reason }))
    }

    fn reply(topic: impl Into<String>, reference: u64, status: &str, response: Value) -> Self {
        Self {
            topic: topic.into(),
            event: REPLY.to_owned(),
            payload: json!({ "status": status, "response": response }),
            reference: Some(reference),
        }
    }
}

/// Shows the envelope only: payloads carry keys, tokens and passwords.
impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Frame")
            .field("topic", &self.topic)
            .field("event", &self.event)
            .field("ref", &self.reference)
            .finish_non_exhaustive()
    }
}

/// A message of the owner, before it gets its topic and number.
#[derive(Clone, PartialEq)]
pub struct Outgoing {
    /// Name of the message.
    pub event: String,
    /// Content.
    pub payload: Value,
}

impl Outgoing {
    /// A message from its parts.
    pub fn new(event: impl Into<String>, payload: Value) -> Self {
        Self {
            event: event.into(),
            payload,
        }
    }

    /// A message from a type that serialises as `{"event": …, "payload": …}`, the shape of an adjacently tagged enum.
    /// Absent or null content becomes `{}`, because a payload must always be sent.
    pub fn from_message<T: Serialize>(message: &T) -> Result<Self, FrameError> {
        #[derive(Deserialize)]
        struct Shape {
            event: String,
            #[serde(default)]
            payload: Value,
        }
        let shape: Shape = serde_json::from_value(serde_json::to_value(message)?)?;
        let payload = match shape.payload {
            Value::Null => json!({}),
            other => other,
        };
        Ok(Self::new(shape.event, payload))
    }
}

/// Shows the name only, like [`Frame`].
impl fmt::Debug for Outgoing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outgoing")
            .field("event", &self.event)
            .finish_non_exhaustive()
    }
}

/// A message from the other side that is no control message of the channel itself.
#[derive(Clone, PartialEq)]
pub struct Message {
    /// Topic it arrived on.
    pub topic: String,
    /// Its name.
    pub event: String,
    /// Its content.
    pub payload: Value,
}

impl Message {
    /// Reads the content into a type that deserialises from `{"event": …, "payload": …}`.
    pub fn parse<T: DeserializeOwned>(self) -> Result<T, FrameError> {
        Ok(serde_json::from_value(
            json!({ "event": self.event, "payload": self.payload }),
        )?)
    }
}

/// Shows topic and name only, like [`Frame`].
impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Message")
            .field("topic", &self.topic)
            .field("event", &self.event)
            .finish_non_exhaustive()
    }
}

impl From<Frame> for Message {
    fn from(frame: Frame) -> Self {
        Self {
            topic: frame.topic,
            event: frame.event,
            payload: frame.payload,
        }
    }
}

/// Content of a `phx_reply`.
#[derive(Debug, Clone, PartialEq)]
pub enum Reply {
    /// The request was accepted; the response is unused by components.
    Ok(Value),
    /// The request was refused.
    Error(Reason),
}

impl Reply {
    /// Reads the payload of a `phx_reply`; `None` when it has no known status, or is a refusal without a reason.
    pub fn parse(payload: &Value) -> Option<Self> {
        let response = payload.get("response").unwrap_or(&Value::Null);
        match payload.get("status")?.as_str()? {
            "ok" => Some(Self::Ok(response.clone())),
            "error" => Some(Self::Error(Reason::parse(
                response.get("reason")?.as_str()?,
            ))),
            _ => None,
        }
    }
}

/// Why a request was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    /// The topic is not joined, or no longer.
    UnmatchedTopic,
    /// The component's version is not acceptable.
    InvalidVersion,
    /// The token expired between the upgrade and the join.
    TokenExpired,
    /// A feature is switched off.
    Disabled,
    /// Any other word.
    Other(String),
}

impl Reason {
    /// Reads the word of a `reason` member.
    pub fn parse(word: &str) -> Self {
        match word {
            "unmatched topic" => Self::UnmatchedTopic,
            "invalid_version" => Self::InvalidVersion,
            "token_expired" => Self::TokenExpired,
            "disabled" => Self::Disabled,
            other => Self::Other(other.to_owned()),
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::UnmatchedTopic => "unmatched topic",
            Self::InvalidVersion => "invalid_version",
            Self::TokenExpired => "token_expired",
            Self::Disabled => "disabled",
            Self::Other(word) => word,
        })
    }
}

fn check_size(text: &str) -> Result<(), FrameError> {
    match text.len() {
        len if len > MAX_FRAME_BYTES => Err(FrameError::TooLarge(len)),
        _ => Ok(()),
    }
}

/// A number, a string of digits, or nothing; whatever else is there counts as nothing.
fn lenient_reference<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    Ok(match Value::deserialize(deserializer)? {
        Value::Number(number) => number.as_u64(),
        Value::String(text) => text.parse().ok(),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn portal_19_every_member_is_written_in_the_usual_order() {
        assert_eq!(
            Frame::join("gateway", Value::Null, 0).encode(),
            r#"{"topic":"gateway","event":"phx_join","payload":null,"ref":0}"#
        );
        assert_eq!(
            Frame::heartbeat(12).encode(),
            r#"{"topic":"phoenix","event":"heartbeat","payload":{},"ref":12}"#
        );
        assert_eq!(
            Frame::push("client", Outgoing::new("init", json!({}))).encode(),
            r#"{"topic":"client","event":"init","payload":{},"ref":null}"#
        );
    }

    #[test]
    fn portal_96_replies_echo_the_number() {
        assert_eq!(
            Frame::reply_ok("phoenix", 12, json!({})).encode(),
            r#"{"topic":"phoenix","event":"phx_reply","payload":{"response":{},"status":"ok"},"ref":12}"#
        );
        let refusal = Frame::reply_error("client", 9, "unmatched topic");
        assert_eq!(
            Reply::parse(&refusal.payload),
            Some(Reply::Error(Reason::UnmatchedTopic))
        );
    }

    #[test]
    fn portal_18_a_reference_may_be_a_string_of_digits() {
        for (text, expected) in [
            (
                r#"{"topic":"t","event":"e","payload":1,"ref":"12"}"#,
                Some(12),
            ),
            (
                r#"{"topic":"t","event":"e","payload":1,"ref":12}"#,
                Some(12),
            ),
            (r#"{"topic":"t","event":"e","payload":1,"ref":"x"}"#, None),
            (r#"{"topic":"t","event":"e","payload":1,"ref":-1}"#, None),
            (r#"{"topic":"t","event":"e"}"#, None),
        ] {
            assert_eq!(Frame::decode(text).unwrap().reference, expected, "{text}");
        }
    }

    #[test]
    fn unknown_members_are_ignored() {
        let frame = Frame::decode(
            r#"{"topic":"t","event":"e","payload":{},"ref":null,"join_ref":4,"x":[]}"#,
        )
        .unwrap();
        assert_eq!(frame, Frame::push("t", Outgoing::new("e", json!({}))));
    }

    #[test]
    fn a_portal_insists_on_all_four_members() {
        let missing = Frame::decode_strict(r#"{"topic":"t","event":"e","ref":1}"#);
        assert!(matches!(missing, Err(FrameError::MissingMember("payload"))));
        assert!(Frame::decode_strict("[]").is_err());
        assert!(
            Frame::decode_strict(r#"{"topic":"t","event":"e","payload":null,"ref":null}"#).is_ok()
        );
    }

    #[test]
    fn a_member_that_stands_there_twice_is_refused_by_both_sides() {
        let text = r#"{"topic":"a","topic":"b","event":"e","payload":null,"ref":null}"#;
        assert!(Frame::decode(text).is_err());
        assert!(Frame::decode_strict(text).is_err());
    }

    #[test]
    fn oversized_text_is_refused_before_it_is_parsed() {
        let text = " ".repeat(MAX_FRAME_BYTES + 1);
        assert!(matches!(Frame::decode(&text), Err(FrameError::TooLarge(_))));
    }

    #[test]
    fn typed_messages_pass_through_the_event_and_payload_members() {
        #[derive(Serialize, Deserialize, Debug, PartialEq)]
        #[serde(tag = "event", content = "payload", rename_all = "snake_case")]
        enum Typed {
            NoRelays,
            CreateFlow { resource_id: u32 },
        }
        let empty = Outgoing::from_message(&Typed::NoRelays).unwrap();
        assert_eq!(empty, Outgoing::new("no_relays", json!({})));
        let full = Outgoing::from_message(&Typed::CreateFlow { resource_id: 7 }).unwrap();
        let message = Message::from(Frame::push("client", full));
        assert_eq!(
            message.parse::<Typed>().unwrap(),
            Typed::CreateFlow { resource_id: 7 }
        );
    }

    #[test]
    fn portal_44_debug_output_shows_no_payload() {
        let frame = Frame::push(
            "client",
            Outgoing::new("init", json!({"password": "hunter2"})),
        );
        assert!(!format!("{frame:?}").contains("hunter2"));
        assert!(!format!("{:?}", Message::from(frame)).contains("hunter2"));
    }

    proptest! {
        #[test]
        fn decoding_never_panics(text in ".{0,200}") {
            let _ = Frame::decode(&text);
            let _ = Frame::decode_strict(&text);
        }

        #[test]
        fn what_is_written_is_read_back(topic in ".{0,20}", event in ".{0,20}", reference in any::<Option<u64>>()) {
            let frame = Frame { topic, event, payload: json!({"a": [1, null]}), reference };
            prop_assert_eq!(Frame::decode_strict(&frame.encode()).unwrap(), frame);
        }

        /// Found by fuzzing: a number with many digits came back as its neighbour.
        #[test]
        fn numbers_are_read_back_exactly(number in proptest::num::f64::NORMAL) {
            let frame = Frame::push("client", Outgoing::new("init", json!(number)));
            prop_assert_eq!(Frame::decode(&frame.encode()).unwrap(), frame);
        }
    }
}
