//! Messages between portal and relay (portal protocol §5). A relay sends nothing but its join.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    Dialect, Empty, Message, MessageError, Secret,
    codec::{serde_as_event, unknown_name, write},
};

/// The topic that a relay joins.
pub const TOPIC: &str = "relay";

/// Payload of a relay's join.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Join {
    /// What TURN passwords are derived from: 64 lower-case hexadecimal digits, new with each process and equal on each
    /// of its joins.
    pub stamp_secret: Secret,
}

/// What the portal sends to a relay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FromPortal {
    /// The relay is known; whatever the payload holds is ignored.
    Init,
    /// An event that is not known; to be ignored.
    Unknown {
        /// Its name, cut to a safe length.
        event: String,
    },
}

/// What a relay sends to the portal: nothing. Exists so that channels can be typed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ToPortal {
    /// An event that is not known.
    Unknown {
        /// Its name, cut to a safe length.
        event: String,
    },
}

impl Message for FromPortal {
    fn parse(event: &str, _payload: Value) -> Result<Self, MessageError> {
        Ok(match event {
            "init" => Self::Init,
            other => Self::Unknown {
                event: unknown_name(other),
            },
        })
    }

    fn event(&self, _dialect: Dialect) -> &str {
        match self {
            Self::Init => "init",
            Self::Unknown { event } => event,
        }
    }

    fn payload(&self) -> Value {
        write(&Empty {})
    }
}

impl Message for ToPortal {
    fn parse(event: &str, _payload: Value) -> Result<Self, MessageError> {
        Ok(Self::Unknown {
            event: unknown_name(event),
        })
    }

    fn event(&self, _dialect: Dialect) -> &str {
        let Self::Unknown { event } = self;
        event
    }

    fn payload(&self) -> Value {
        write(&Empty {})
    }
}

serde_as_event!(FromPortal);
serde_as_event!(ToPortal);

#[cfg(test)]
mod tests {
    use super::*;

    // portal 84
    #[test]
    fn portal_84_init_with_any_members() {
        for payload in ["{}", r#"{"a":1}"#, "null", "[]"] {
            let json =
                format!(r#"{{"topic":"relay","event":"init","ref":null,"payload":{payload}}}"#);
            let message: FromPortal = serde_json::from_str(&json).unwrap();
            assert_eq!(message, FromPortal::Init);
        }
    }

    // portal 44
    #[test]
    fn portal_44_stamp_secret_does_not_print() {
        let join = Join {
            stamp_secret: Secret::new("7d".repeat(32)),
        };
        assert!(!format!("{join:?}").contains("7d7d"));
        assert_eq!(
            serde_json::to_value(&join).unwrap()["stamp_secret"],
            "7d".repeat(32)
        );
    }
}
