//! X25519 keys of the tunnel.

use std::fmt;

use x25519_dalek as x25519;

/// A peer's static X25519 public key, 32 bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublicKey(pub [u8; 32]);

impl From<[u8; 32]> for PublicKey {
    fn from(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The first four bytes in hexadecimal: enough to tell peers apart in a log.
impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0[..4]
            .iter()
            .try_for_each(|byte| write!(f, "{byte:02x}"))?;
        f.write_str("…")
    }
}

/// Our static X25519 private key with its public key. Zeroed when dropped; never printed.
#[derive(Clone)]
pub struct PrivateKey {
    secret: x25519::StaticSecret,
    public: x25519::PublicKey,
}

impl PrivateKey {
    /// Makes the key from 32 random bytes (any bytes are valid; X25519 clamps them when used, RFC 7748 §5).
    pub fn from_seed(seed: [u8; 32]) -> Self {
        let secret = x25519::StaticSecret::from(seed);
        let public = x25519::PublicKey::from(&secret);

        Self { secret, public }
    }

    /// The public half, as signalled to the other side.
    pub fn public(&self) -> PublicKey {
        PublicKey(self.public.to_bytes())
    }

    pub(crate) fn secret(&self) -> &x25519::StaticSecret {
        &self.secret
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PrivateKey(of {})", self.public())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 7748 §6.1: Alice's key pair.
    #[test]
    fn public_key_of_the_rfc_vector() {
        let private = PrivateKey::from_seed([
            0x77, 0x07, 0x6d, 0x0a, 0x73, 0x18, 0xa5, 0x7d, 0x3c, 0x16, 0xc1, 0x72, 0x51, 0xb2,
            0x66, 0x45, 0xdf, 0x4c, 0x2f, 0x87, 0xeb, 0xc0, 0x99, 0x2a, 0xb1, 0x77, 0xfb, 0xa5,
            0x1d, 0xb9, 0x2c, 0x2a,
        ]);

        assert_eq!(
            private.public().0,
            [
                0x85, 0x20, 0xf0, 0x09, 0x89, 0x30, 0xa7, 0x54, 0x74, 0x8b, 0x7d, 0xdc, 0xb4, 0x3e,
                0xf7, 0x5a, 0x0d, 0xbf, 0x3a, 0x0d, 0x26, 0x38, 0x1a, 0xf4, 0xeb, 0xa4, 0xa9, 0x8e,
                0xaa, 0x9b, 0x4e, 0x6a
            ]
        );
    }

    #[test]
    fn debug_output_hides_the_secret() {
        let text = format!("{:?}", PrivateKey::from_seed([0xab; 32]));

        assert!(!text.contains("abab"), "{text}");
    }
}
