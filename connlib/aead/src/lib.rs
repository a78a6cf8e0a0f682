//! ChaCha20-Poly1305 for WireGuard's data messages (RFC 8439, whitepaper §5.4.6): the nonce is a counter, there is no
//! associated data, and input and output are different buffers, so that the cipher's copy is the only one.

#![deny(missing_docs)]

use std::fmt;

use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, Tag, UnboundKey};

/// What sealing adds behind the ciphertext.
pub const TAG_LEN: usize = 16;

/// The key of one direction of one session.
///
/// The caller never seals twice with the same counter: two messages under one counter give away both.
pub struct Key(LessSafeKey);

/// The tag does not fit: damaged, forged, or sealed with another key or counter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("message is not authentic")]
pub struct Forged;

impl Key {
    /// Any 32 bytes are a key.
    pub fn new(key: &[u8; 32]) -> Self {
        let key = UnboundKey::new(&CHACHA20_POLY1305, key).expect("32 bytes are a key");

        Self(LessSafeKey::new(key))
    }

    /// Writes ciphertext and tag, `plaintext.len() + TAG_LEN` bytes, to the front of `out`.
    ///
    /// # Panics
    ///
    /// If `out` is shorter than that.
    #[inline]
    pub fn seal(&self, counter: u64, plaintext: &[u8], out: &mut [u8]) {
        let (ciphertext, tag) = out[..plaintext.len() + TAG_LEN].split_at_mut(plaintext.len());

        ciphertext.copy_from_slice(plaintext);
        let sealed = self
            .0
            .seal_in_place_separate_tag(nonce(counter), Aad::empty(), ciphertext)
            .expect("shorter than 256 GB");
        tag.copy_from_slice(sealed.as_ref());
    }

    /// Writes the plaintext, `sealed.len() - TAG_LEN` bytes, to the front of `out` and returns its length. On [`Forged`]
    /// the content of `out` is unspecified but never plaintext.
    ///
    /// # Panics
    ///
    /// If `out` is shorter than that.
    #[inline]
    pub fn open(&self, counter: u64, sealed: &[u8], out: &mut [u8]) -> Result<usize, Forged> {
        let (ciphertext, tag) = sealed.split_last_chunk::<TAG_LEN>().ok_or(Forged)?;
        let plaintext = &mut out[..ciphertext.len()];

        plaintext.copy_from_slice(ciphertext);
        self.0
            .open_in_place_separate_tag(
                nonce(counter),
                Aad::empty(),
                Tag::from(*tag),
                plaintext,
                0..,
            )
            .map_err(|_| Forged)?;

        Ok(ciphertext.len())
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key")
    }
}

/// Four zero bytes and the counter in little endian.
#[inline]
fn nonce(counter: u64) -> Nonce {
    let mut nonce = [0; 12];
    nonce[4..].copy_from_slice(&counter.to_le_bytes());

    Nonce::assume_unique_for_key(nonce)
}

#[cfg(test)]
mod tests {
    use chacha20poly1305::aead::AeadInPlace;
    use chacha20poly1305::{ChaCha20Poly1305, KeyInit};
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_the_front_of_the_output_is_written() {
        let key = Key::new(&[7; 32]);
        let mut sealed = [0xaa; 64];
        key.seal(0, &[1; 20], &mut sealed);
        assert_eq!(sealed[36..], [0xaa; 28]);

        let mut opened = [0xaa; 64];
        assert_eq!(key.open(0, &sealed[..36], &mut opened), Ok(20));
        assert_eq!(opened[..20], [1; 20]);
        assert_eq!(opened[20..], [0xaa; 44]);
    }

    #[test]
    fn shorter_than_a_tag_is_forged() {
        let key = Key::new(&[7; 32]);
        let mut sealed = [0; 16];
        key.seal(3, &[], &mut sealed);

        assert_eq!(key.open(3, &sealed, &mut []), Ok(0));
        for len in 0..16 {
            assert_eq!(key.open(3, &sealed[..len], &mut []), Err(Forged));
        }
    }

    proptest! {
        #[test]
        fn equals_another_implementation(
            key: [u8; 32],
            counter: u64,
            plaintext in proptest::collection::vec(any::<u8>(), 0..2000),
        ) {
            let mut sealed = vec![0; plaintext.len() + TAG_LEN];
            Key::new(&key).seal(counter, &plaintext, &mut sealed);

            let mut nonce = [0; 12];
            nonce[4..].copy_from_slice(&counter.to_le_bytes());
            let mut expected = plaintext;
            ChaCha20Poly1305::new(&key.into())
                .encrypt_in_place(&nonce.into(), &[], &mut expected)
                .unwrap();
            prop_assert_eq!(sealed, expected);
        }

        #[test]
        fn what_was_sealed_opens_and_nothing_else_does(
            key: [u8; 32],
            counter: u64,
            plaintext in proptest::collection::vec(any::<u8>(), 0..2000),
            flip: proptest::sample::Index,
        ) {
            let key = Key::new(&key);
            let mut sealed = vec![0; plaintext.len() + TAG_LEN];
            key.seal(counter, &plaintext, &mut sealed);
            let mut opened = vec![0; plaintext.len()];
            prop_assert_eq!(key.open(counter, &sealed, &mut opened), Ok(plaintext.len()));
            prop_assert_eq!(&opened, &plaintext);
            prop_assert_eq!(key.open(counter ^ 1, &sealed, &mut opened), Err(Forged));

            let bit = flip.index(sealed.len() * 8);
            sealed[bit / 8] ^= 1 << (bit % 8);
            prop_assert_eq!(key.open(counter, &sealed, &mut opened), Err(Forged));
            prop_assert!(plaintext.len() < 16 || opened != plaintext);
        }
    }
}
