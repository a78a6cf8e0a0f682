//! Tokens: what a client, gateway or relay shows to be let in.
//!
//! A token is opaque to its holder. Here it is `<kind>.<secret>`, and only its SHA-256 is ever stored: the secret has 256
//! bits of randomness, so a plain hash cannot be turned back.

use std::{fmt, str::FromStr};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use connlib_messages::Secret;
use connlib_model::SiteId;
use sha2::{Digest as _, Sha256};

use crate::config::PersonId;

/// The three kinds of program that connect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Component {
    /// A person's or service's device.
    Client,
    /// Serves the resources of a site.
    Gateway,
    /// STUN/TURN server.
    Relay,
}

impl Component {
    /// The topic that it joins; also its token's first part and its path's first segment.
    pub const fn topic(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Gateway => "gateway",
            Self::Relay => "relay",
        }
    }
}

impl FromStr for Component {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "client" => Ok(Self::Client),
            "gateway" => Ok(Self::Gateway),
            "relay" => Ok(Self::Relay),
            other => Err(format!("'{other}' is not client, gateway or relay")),
        }
    }
}

impl fmt::Display for Component {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.topic())
    }
}

/// SHA-256 of a token's text; the only form in which tokens are stored.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TokenHash([u8; 32]);

impl TokenHash {
    /// The hash of a token. Whitespace anywhere in it is ignored, as it comes from line breaks of whoever copied it.
    pub fn of(token: &str) -> Self {
        let bare: String = token.split_whitespace().collect();
        Self(Sha256::digest(bare).into())
    }
}

impl fmt::Display for TokenHash {
    /// 64 lower-case hexadecimal digits.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for TokenHash {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let error = || "a token hash has 64 hexadecimal digits".to_owned();
        if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(error());
        }
        let mut bytes = [0; 32];
        for (byte, digits) in bytes.iter_mut().zip(text.as_bytes().chunks(2)) {
            let digits = str::from_utf8(digits).map_err(|_| error())?;
            *byte = u8::from_str_radix(digits, 16).map_err(|_| error())?;
        }
        Ok(Self(bytes))
    }
}

/// A new token's text.
pub fn generate(component: Component, random: [u8; 32]) -> Secret {
    Secret::from(format!("{component}.{}", URL_SAFE_NO_PAD.encode(random)))
}

/// A token that the configuration knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// For people; shown in logs.
    pub name: String,
    /// Who may use it.
    pub holder: Holder,
    /// When it ends, Unix seconds; `None` is never.
    pub expires_at: Option<u64>,
}

/// Who a token belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holder {
    /// Devices of a person.
    Client(PersonId),
    /// Gateways of a site.
    Gateway(SiteId),
    /// Relays.
    Relay,
}

impl Holder {
    /// Which kind of program it lets in.
    pub const fn component(self) -> Component {
        match self {
            Self::Client(_) => Component::Client,
            Self::Gateway(_) => Component::Gateway,
            Self::Relay => Component::Relay,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hash_ignores_whitespace_and_round_trips() {
        let token = generate(Component::Gateway, [7; 32]);
        let hash = TokenHash::of(token.expose());
        assert_eq!(TokenHash::of(&format!(" {}\n", token.expose())), hash);
        assert_eq!(hash.to_string().parse(), Ok(hash));
        assert_eq!(hash.to_string().to_uppercase().parse(), Ok(hash));
        assert_ne!(TokenHash::of("other"), hash);
    }

    #[test]
    fn token_starts_with_its_kind_and_does_not_print() {
        let token = generate(Component::Client, [0xff; 32]);
        assert!(token.expose().starts_with("client."));
        assert_eq!(token.expose().len(), "client.".len() + 43);
        assert_eq!(format!("{token:?}"), "…");
    }

    #[test]
    fn bad_hashes_are_errors() {
        for bad in ["", "abc", &"g".repeat(64), &"é".repeat(32)] {
            assert!(bad.parse::<TokenHash>().is_err());
        }
    }
}
