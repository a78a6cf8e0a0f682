//! WireGuard keys as they travel: base64 of exactly 32 bytes (portal protocol §2).

use std::{fmt, str::FromStr};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A public key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(pub [u8; 32]);

/// A preshared key; prints as `…`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct PresharedKey(pub [u8; 32]);

/// Text that is no key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Not standard base64 with padding.
    #[error("key is not base64 (standard alphabet, padded)")]
    NotBase64,
    /// Base64 of a wrong length.
    #[error("key has {0} bytes instead of 32")]
    WrongLength(usize),
}

fn decode(text: &str) -> Result<[u8; 32], KeyError> {
    let bytes = STANDARD.decode(text).map_err(|_| KeyError::NotBase64)?;
    <[u8; 32]>::try_from(&*bytes).map_err(|_| KeyError::WrongLength(bytes.len()))
}

impl fmt::Display for Key {
    /// Base64, 44 characters.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&STANDARD.encode(self.0))
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Key {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        decode(text).map(Self)
    }
}

impl PresharedKey {
    /// Base64 for the wire; never for logs.
    pub fn expose(&self) -> String {
        STANDARD.encode(self.0)
    }
}

impl fmt::Debug for PresharedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}

impl FromStr for PresharedKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        decode(text).map(Self)
    }
}

impl Serialize for Key {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

impl Serialize for PresharedKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.expose())
    }
}

impl<'de> Deserialize<'de> for PresharedKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ONES: &str = "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=";

    // portal 45
    #[test]
    fn portal_45_exactly_32_bytes() {
        assert_eq!(ONES.parse(), Ok(Key([1; 32])));
        assert_eq!(Key([1; 32]).to_string(), ONES);
        let short = STANDARD.encode([1; 31]);
        let long = STANDARD.encode([1; 33]);
        assert_eq!(short.parse::<Key>(), Err(KeyError::WrongLength(31)));
        assert_eq!(long.parse::<PresharedKey>(), Err(KeyError::WrongLength(33)));
        assert_eq!("".parse::<Key>(), Err(KeyError::WrongLength(0)));
        let unpadded = ONES.trim_end_matches('=');
        assert_eq!(unpadded.parse::<Key>(), Err(KeyError::NotBase64));
        assert_eq!(
            ONES.replace('A', "-").parse::<Key>(),
            Err(KeyError::NotBase64)
        );
        assert!(serde_json::from_str::<Key>("12").is_err());
        assert!(serde_json::from_str::<Key>("null").is_err());
    }

    // portal 44
    #[test]
    fn portal_44_preshared_keys_do_not_print() {
        let key: PresharedKey = ONES.parse().unwrap();
        assert_eq!(format!("{key:?}"), "…");
        assert_eq!(serde_json::to_string(&key).unwrap(), format!("\"{ONES}\""));
    }

    proptest! {
        #[test]
        fn any_text_is_a_key_or_an_error(text in "[A-Za-z0-9+/=]{0,60}|.{0,60}") {
            if let Ok(key) = text.parse::<Key>() {
                prop_assert_eq!(key.to_string().parse(), Ok(key));
            }
        }
    }
}
