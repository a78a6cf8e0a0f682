//! Ids: one newtype per kind, so that a gateway's id cannot be handed over as a resource's.
//!
//! Each wraps a UUID, is `Copy`, and prints and (de)serialises as lower-case hyphenated text. The order is the order of
//! the 128-bit number, which is also the order of the text.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Text that is no UUID.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not a UUID like 9e0d4c1b-63a7-4f8e-b0c2-2b7f5d1a8e33")]
pub struct ParseIdError(String);

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Uuid);

        impl $name {
            /// The id with this UUID.
            pub const fn new(uuid: Uuid) -> Self {
                Self(uuid)
            }

            /// The id whose UUID is this number; mostly for tests and simulations.
            pub const fn from_u128(value: u128) -> Self {
                Self(Uuid::from_u128(value))
            }

            /// The UUID as a number.
            pub const fn as_u128(&self) -> u128 {
                self.0.as_u128()
            }

            /// The UUID.
            pub const fn uuid(&self) -> Uuid {
                self.0
            }
        }

        impl std::hash::Hash for $name {
            /// One number instead of a slice of sixteen bytes with its length: packets look ids up.
            fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
                state.write_u128(self.as_u128());
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;

            fn from_str(text: &str) -> Result<Self, ParseIdError> {
                Uuid::parse_str(text)
                    .map(Self)
                    .map_err(|_| ParseIdError(text.chars().take(64).collect()))
            }
        }

        impl From<Uuid> for $name {
            fn from(uuid: Uuid) -> Self {
                Self(uuid)
            }
        }
    };
}

id!(
    /// A client device, as the portal knows it.
    ClientId
);
id!(
    /// A gateway device.
    GatewayId
);
id!(
    /// A resource.
    ResourceId
);
id!(
    /// A relay.
    RelayId
);
id!(
    /// A site: a group of gateways that reach the same networks ("gateway group" in the older protocol).
    SiteId
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_json_round_trip() {
        let text = "9e0d4c1b-63a7-4f8e-b0c2-2b7f5d1a8e33";
        let id: ResourceId = text.parse().unwrap();
        assert_eq!(id.to_string(), text);
        assert_eq!(serde_json::to_string(&id).unwrap(), format!("\"{text}\""));
        assert_eq!(
            serde_json::from_str::<ResourceId>(&format!("\"{text}\"")).unwrap(),
            id
        );
    }

    #[test]
    fn bad_text_is_an_error_with_the_text() {
        let error = "frankfurt".parse::<SiteId>().unwrap_err();
        assert!(error.to_string().contains("frankfurt"));
    }

    #[test]
    fn order_of_ids_is_the_order_of_their_text() {
        let (a, b) = (ClientId::from_u128(0x0a), ClientId::from_u128(0x0b));
        assert!(a < b);
        assert!(a.to_string() < b.to_string());
        assert_eq!(ClientId::from_u128(7).as_u128(), 7);
    }
}
