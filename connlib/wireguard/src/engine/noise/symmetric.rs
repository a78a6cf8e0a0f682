//! The symmetric half of a Noise handshake: chaining key and transcript hash (Noise specification §5.2; whitepaper §5.4).

use blake2::{Blake2s256, Digest};
use chacha20poly1305::aead::AeadInPlace;
use chacha20poly1305::{ChaCha20Poly1305, KeyInit, Nonce, Tag};
use hmac::{Mac, SimpleHmac};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

const CONSTRUCTION: &[u8] = b"Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s";
const IDENTIFIER: &[u8] = b"WireGuard v1 zx2c4 Jason@zx2c4.com";

/// Tag of an encrypted field.
const TAG_LEN: usize = 16;

/// What both sides agree about so far. Zeroed when dropped.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub(super) struct Symmetric {
    chaining_key: [u8; 32],
    hash: [u8; 32],
}

/// Encrypts one field of a message: each is under a fresh key, so the nonce is always zero.
pub(super) struct FieldKey(Zeroizing<[u8; 32]>);

impl Symmetric {
    /// The state before the first message to the owner of the static key `responder`.
    pub(super) fn new(responder: &[u8; 32]) -> Self {
        let chaining_key: [u8; 32] = Blake2s256::digest(CONSTRUCTION).into();
        let mut state = Self {
            chaining_key,
            hash: chaining_key,
        };
        state.mix_hash(IDENTIFIER);
        state.mix_hash(responder);

        state
    }

    /// Everything that is sent, in order, is hashed.
    pub(super) fn mix_hash(&mut self, data: &[u8]) {
        self.hash = Blake2s256::new()
            .chain_update(self.hash)
            .chain_update(data)
            .finalize()
            .into();
    }

    /// Takes an ephemeral public key, which with a preshared key is more than hashed (Noise §9.2).
    pub(super) fn mix_ephemeral(&mut self, public: &[u8; 32]) {
        self.mix_hash(public);
        let [chaining_key] = self.expand(public);
        self.chaining_key = *chaining_key;
    }

    /// Takes a shared secret that is followed by another one.
    pub(super) fn mix_secret(&mut self, secret: &[u8; 32]) {
        let [chaining_key] = self.expand(secret);
        self.chaining_key = *chaining_key;
    }

    /// Takes a shared secret and gives the key of the field behind it.
    pub(super) fn mix_key(&mut self, secret: &[u8; 32]) -> FieldKey {
        let [chaining_key, key] = self.expand(secret);
        self.chaining_key = *chaining_key;

        FieldKey(key)
    }

    /// Takes the preshared key and gives the key of the field behind it.
    pub(super) fn mix_preshared(&mut self, psk: &[u8; 32]) -> FieldKey {
        let [chaining_key, hashed, key] = self.expand(psk);
        self.chaining_key = *chaining_key;
        self.mix_hash(hashed.as_slice());

        FieldKey(key)
    }

    /// Writes a field: `plaintext` and a tag that also covers everything before.
    pub(super) fn encrypt(&mut self, key: FieldKey, plaintext: &[u8], field: &mut [u8]) {
        let (ciphertext, tag) = field.split_at_mut(plaintext.len());
        ciphertext.copy_from_slice(plaintext);
        let computed = key
            .cipher()
            .encrypt_in_place_detached(&Nonce::default(), &self.hash, ciphertext)
            .expect("a field is short");
        tag.copy_from_slice(&computed);
        self.mix_hash(field);
    }

    /// Reads a field of `N` bytes and its tag; `None` if it, or anything before it, is not what the other side sent.
    pub(super) fn decrypt<const N: usize>(
        &mut self,
        key: FieldKey,
        field: &[u8],
    ) -> Option<[u8; N]> {
        let (ciphertext, tag) = field.split_last_chunk::<TAG_LEN>()?;
        let mut plaintext = <[u8; N]>::try_from(ciphertext).ok()?;
        key.cipher()
            .decrypt_in_place_detached(
                &Nonce::default(),
                &self.hash,
                &mut plaintext,
                Tag::from_slice(tag),
            )
            .ok()?;
        self.mix_hash(field);

        Some(plaintext)
    }

    /// The keys of both directions, that of the initiator first.
    pub(super) fn split(self) -> [Zeroizing<[u8; 32]>; 2] {
        self.expand(&[])
    }

    /// HKDF with the chaining key as salt (RFC 5869, Noise §4.3).
    fn expand<const N: usize>(&self, input: &[u8]) -> [Zeroizing<[u8; 32]>; N] {
        let secret = hmac(&self.chaining_key, &[input]);
        let mut last = Zeroizing::new([0; 32]);
        let mut number = 0;

        std::array::from_fn(|_| {
            let before: &[u8] = if number == 0 { &[] } else { last.as_slice() };
            number += 1;
            last = hmac(secret.as_slice(), &[before, &[number]]);
            last.clone()
        })
    }
}

impl FieldKey {
    fn cipher(&self) -> ChaCha20Poly1305 {
        ChaCha20Poly1305::new(self.0.as_slice().into())
    }
}

fn hmac(key: &[u8], parts: &[&[u8]]) -> Zeroizing<[u8; 32]> {
    let mut hmac =
        <SimpleHmac<Blake2s256> as Mac>::new_from_slice(key).expect("a key of any length");
    for part in parts {
        hmac.update(part);
    }

    Zeroizing::new(hmac.finalize().into_bytes().into())
}
