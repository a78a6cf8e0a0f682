//! Why access was refused (portal protocol §3.5).

use serde::{Deserialize, Deserializer, Serialize, Serializer};

macro_rules! names {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $text:literal,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name {
            $($(#[$variant_doc])* $variant,)*
            /// A word of a newer portal.
            Unknown,
        }

        impl $name {
            /// The word on the wire.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $text,)*
                    Self::Unknown => "unknown",
                }
            }
        }

        impl From<&str> for $name {
            fn from(text: &str) -> Self {
                match text {
                    $($text => Self::$variant,)*
                    _ => Self::Unknown,
                }
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let value = serde_json::Value::deserialize(deserializer)?;
                Ok(value.as_str().map_or(Self::Unknown, Self::from))
            }
        }
    };
}

names!(
    /// Why no flow was created.
    FailureReason {
        /// No such resource, or it is not for this actor.
        NotFound = "not_found",
        /// No gateway of the resource's sites is connected.
        Offline = "offline",
        /// A policy's conditions are not met.
        Forbidden = "forbidden",
        /// No gateway of a suitable version.
        VersionMismatch = "version_mismatch",
        /// The feature is switched off.
        Disabled = "disabled",
        /// Device pools: more than one device has the address.
        AmbiguousAddress = "ambiguous_address",
        /// Device pools: no address was given.
        MissingAddress = "missing_address",
        /// Device pools: the address is not usable.
        InvalidAddress = "invalid_address",
    }
);

names!(
    /// A condition of a policy that was not met.
    ViolatedProperty {
        /// The client's country.
        RemoteIpLocationRegion = "remote_ip_location_region",
        /// The client's address.
        RemoteIp = "remote_ip",
        /// How the person signed in.
        ProviderId = "provider_id",
        /// The time of day.
        CurrentUtcDatetime = "current_utc_datetime",
        /// Whether an administrator verified the device.
        ClientVerified = "client_verified",
    }
);

#[cfg(test)]
mod tests {
    use super::*;

    // portal 55
    #[test]
    fn portal_55_unknown_words_are_unknown() {
        let reason: FailureReason = serde_json::from_str("\"full_moon\"").unwrap();
        assert_eq!(reason, FailureReason::Unknown);
        assert_eq!(
            serde_json::from_str::<FailureReason>("\"offline\"").unwrap(),
            FailureReason::Offline
        );
        let properties: Vec<ViolatedProperty> =
            serde_json::from_str(r#"["client_verified","mood",7,null]"#).unwrap();
        use ViolatedProperty::{ClientVerified, Unknown};
        assert_eq!(properties, [ClientVerified, Unknown, Unknown, Unknown]);
    }
}
