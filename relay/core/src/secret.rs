//! The stamp secret: what the passwords of all users derive from (relay spec §2.3).

use std::{fmt, fmt::Write as _, str::FromStr};

use rand::RngCore;
use thiserror::Error;
use zeroize::Zeroize as _;

/// 64 lower-case hexadecimal digits, used as text. Hidden in `Debug`, wiped when it is dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct StampSecret(String);

impl StampSecret {
    const DIGITS: usize = 64;

    /// Draws a fresh one.
    #[must_use]
    pub fn random(rng: &mut impl RngCore) -> Self {
        let mut bytes = [0; Self::DIGITS / 2];
        rng.fill_bytes(&mut bytes);
        Self(bytes.iter().fold(String::new(), |mut text, byte| {
            write!(text, "{byte:02x}").expect("writing to a string succeeds");
            text
        }))
    }

    /// The secret itself; for the portal and for computing, never for logs.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl FromStr for StampSecret {
    type Err = InvalidStampSecret;

    /// White space around the secret, as left by editors, does not count.
    fn from_str(text: &str) -> Result<Self, InvalidStampSecret> {
        let text = text.trim();
        let is_hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        if text.len() == Self::DIGITS && text.bytes().all(is_hex) {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidStampSecret)
        }
    }
}

impl Drop for StampSecret {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl fmt::Debug for StampSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StampSecret(…)")
    }
}

/// A text that is not a stamp secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("a stamp secret has exactly 64 lower-case hexadecimal digits")]
pub struct InvalidStampSecret;

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng as _;
    use rand_chacha::ChaCha20Rng;

    #[test]
    fn drawn_secrets_parse_and_hide() {
        let secret = StampSecret::random(&mut ChaCha20Rng::from_seed([1; 32]));
        assert_eq!(
            format!(" {}\n", secret.expose()).parse(),
            Ok(secret.clone())
        );
        assert!(!format!("{secret:?}").contains(secret.expose()));
        assert!("AB".repeat(32).parse::<StampSecret>().is_err());
        assert!("ab".repeat(31).parse::<StampSecret>().is_err());
    }
}
