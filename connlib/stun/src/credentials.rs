//! Long-term credentials (RFC 8489 §9.2) and the relay's password scheme (relay spec §2.3, portal-protocol spec §7.3).

use std::fmt;

use base64::{Engine as _, engine::general_purpose::STANDARD_NO_PAD};
use hmac::{Hmac, Mac};
use md5::{Digest, Md5};
use sha1::Sha1;
use sha2::Sha256;
use thiserror::Error;

/// The realm of every deployment that does not configure another one; published clients refuse any other.
pub const DEFAULT_REALM: &str = "firezone";

/// Longest user name that a relay accepts.
const MAX_USERNAME_LEN: usize = 128;

/// A key for MESSAGE-INTEGRITY, prepared once so that each message costs only its own hashing.
#[derive(Clone)]
pub struct Key(Hmac<Sha1>);

impl Key {
    /// The long-term key: `MD5(username ":" realm ":" password)`.
    ///
    /// Texts are used as given; SASLprep would not change the ASCII texts of this system.
    #[must_use]
    pub fn long_term(username: &str, realm: &str, password: &str) -> Self {
        Self::from_bytes(&long_term_digest(username, realm, password))
    }

    /// A key from raw bytes; the short-term mechanism uses the password itself.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Self {
        Self(Hmac::new_from_slice(bytes).expect("HMAC accepts keys of any length"))
    }

    /// A MAC computation under this key.
    pub(crate) fn mac(&self) -> Hmac<Sha1> {
        self.0.clone()
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(..)")
    }
}

fn long_term_digest(username: &str, realm: &str, password: &str) -> [u8; 16] {
    Md5::new()
        .chain_update(username)
        .chain_update(":")
        .chain_update(realm)
        .chain_update(":")
        .chain_update(password)
        .finalize()
        .into()
}

/// The password of a relay user: `base64(SHA-256(expiry ":" stamp_secret ":" salt))`, standard alphabet, no padding.
///
/// `expiry` is in Unix seconds and `stamp_secret` is the text that the relay announced, never hex-decoded.
#[must_use]
pub fn relay_password(expiry: u64, stamp_secret: &str, salt: &str) -> String {
    let digest = Sha256::new()
        .chain_update(expiry.to_string())
        .chain_update(":")
        .chain_update(stamp_secret)
        .chain_update(":")
        .chain_update(salt)
        .finalize();
    STANDARD_NO_PAD.encode(digest)
}

/// A well-formed relay user name: `<expiry>:<salt>`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RelayUsername<'a> {
    /// Unix seconds after which the credential is void; below 2^63.
    pub expiry: u64,
    /// Free text without a colon, never empty.
    pub salt: &'a str,
}

impl<'a> RelayUsername<'a> {
    /// Parses strictly: exactly one colon, 1–20 digits without sign or leading zero, expiry below 2^63, a salt, at most
    /// 128 bytes.
    ///
    /// # Errors
    /// Anything else; the relay answers 401 without signing.
    pub fn parse(username: &'a str) -> Result<Self, CredentialsError> {
        if username.len() > MAX_USERNAME_LEN {
            return Err(CredentialsError::MalformedUsername);
        }
        let (digits, salt) = username
            .split_once(':')
            .ok_or(CredentialsError::MalformedUsername)?;
        if salt.is_empty() || salt.contains(':') {
            return Err(CredentialsError::MalformedUsername);
        }
        let expiry = parse_expiry(digits).ok_or(CredentialsError::MalformedUsername)?;
        Ok(Self { expiry, salt })
    }

    /// Whether the credential is void at `unix_now` seconds; equality is still valid.
    #[must_use]
    pub const fn is_expired(&self, unix_now: u64) -> bool {
        self.expiry < unix_now
    }

    /// The password that a relay with this stamp secret expects.
    #[must_use]
    pub fn password(&self, stamp_secret: &str) -> String {
        relay_password(self.expiry, stamp_secret, self.salt)
    }
}

impl fmt::Display for RelayUsername<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.expiry, self.salt)
    }
}

fn parse_expiry(digits: &str) -> Option<u64> {
    let canonical = matches!(digits.as_bytes(), b"0" | [b'1'..=b'9', ..])
        && digits.bytes().all(|byte| byte.is_ascii_digit());
    if !canonical {
        return None;
    }
    digits.parse().ok().filter(|expiry| *expiry < 1 << 63)
}

/// Why a credential cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum CredentialsError {
    /// The user name is not `<expiry>:<salt>`.
    #[error("user name is not of the form expiry:salt")]
    MalformedUsername,
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

    // relay 14, portal 87
    #[test]
    fn relay_14_password_vectors() {
        let shared = relay_password(
            1_685_984_278,
            "1cab293a-4032-46f4-862a-40e5d174b0d2",
            "uvdgKvS9GXYZ_vmv",
        );
        assert_eq!(shared, "6xUIoZ+QvxKhRasLifwfRkMXl+ETLJUsFkHlXjlHAkg");
        let ours = relay_password(1_767_225_600, SECRET, "Zm9vYmFyc2FsdA");
        assert_eq!(ours, "Zk4gxTOkbJAgDbuCC/GR5hYx+A9dZBiuB2slAcfHyys");
    }

    #[test]
    fn long_term_key_vector() {
        let digest = long_term_digest(
            "1767225600:Zm9vYmFyc2FsdA",
            DEFAULT_REALM,
            "Zk4gxTOkbJAgDbuCC/GR5hYx+A9dZBiuB2slAcfHyys",
        );
        let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, "6af9da1043e66abe5aa59c4cdae4faad");
    }

    // relay C-15, C-17
    #[test]
    fn relay_c15_user_names_are_parsed_strictly() {
        let long = format!("1:{}", "a".repeat(127));
        let refused = [
            "",
            ":",
            "1",
            "1:",
            ":a",
            "1:a:b",
            "+1:a",
            "-1:a",
            "01:a",
            "00:a",
            " 1:a",
            "1 :a",
            "1x:a",
            "9223372036854775808:a",
            "18446744073709551615:a",
            "100000000000000000000:a",
            long.as_str(),
        ];
        for name in refused {
            assert!(RelayUsername::parse(name).is_err(), "{name:?}");
        }
        let zero = RelayUsername::parse("0:a").unwrap();
        assert!(zero.is_expired(1) && !zero.is_expired(0));
        let far = RelayUsername::parse("9223372036854775807:a").unwrap();
        assert_eq!(far.expiry, (1 << 63) - 1);
        assert_eq!(far.to_string(), "9223372036854775807:a");
    }

    #[test]
    fn debug_output_hides_the_key() {
        assert_eq!(format!("{:?}", Key::from_bytes(b"secret")), "Key(..)");
    }
}
