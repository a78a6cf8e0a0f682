//! The cipher on every processor: `ring`.

use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};

use crate::{Forged, TAG_LEN};

#[derive(Debug)]
pub(crate) struct Key(LessSafeKey);

impl Key {
    pub(crate) fn new(key: &[u8; 32]) -> Self {
        let key = UnboundKey::new(&CHACHA20_POLY1305, key).expect("32 bytes are a key");

        Self(LessSafeKey::new(key))
    }

    #[inline]
    pub(crate) fn seal(&self, counter: u64, plaintext: &[u8], out: &mut [u8]) {
        let (sealed, tag) = out[..plaintext.len() + TAG_LEN].split_at_mut(plaintext.len());
        sealed.copy_from_slice(plaintext);

        let made = self
            .0
            .seal_in_place_separate_tag(nonce(counter), Aad::empty(), sealed)
            .expect("no message is longer than 256 GiB");
        tag.copy_from_slice(made.as_ref());
    }

    #[inline]
    pub(crate) fn open(
        &self,
        counter: u64,
        sealed: &[u8],
        out: &mut [u8],
    ) -> Result<usize, Forged> {
        let (sealed, tag) = sealed.split_last_chunk::<TAG_LEN>().ok_or(Forged)?;
        let out = &mut out[..sealed.len()];
        out.copy_from_slice(sealed);

        self.0
            .open_in_place_separate_tag(nonce(counter), Aad::empty(), (*tag).into(), out, 0..)
            .map_err(|_| Forged)?;

        Ok(sealed.len())
    }
}

#[inline]
fn nonce(counter: u64) -> Nonce {
    let mut nonce = [0; NONCE_LEN];
    nonce[4..].copy_from_slice(&counter.to_le_bytes());

    Nonce::assume_unique_for_key(nonce)
}
