//! The cipher on processors with AVX-512: a message is encrypted up to 24 blocks at a time and authenticated 16 at a time,
//! from where it lies to where it goes.

mod bytes;
mod chacha20;
mod poly1305;

use core::arch::x86_64::__m512i;

use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use self::chacha20::{BLOCK_LEN, NARROW, Stream, WIDE};
use self::poly1305::Poly1305;
use crate::{Forged, TAG_LEN};

/// Longest message: the block counter has 32 bits, and block 0 is the authenticator's key (RFC 8439 §2.8).
const MAX_LEN: usize = (u32::MAX as usize) * BLOCK_LEN;

/// A key on a processor that was found to have what this module needs.
pub(crate) struct Key(Zeroizing<[u32; 8]>);

impl Key {
    /// `None` if the processor lacks an instruction.
    pub(crate) fn new(key: &[u8; 32]) -> Option<Self> {
        let available = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx512ifma");
        let (words, _) = key.as_chunks::<4>();

        available.then(|| {
            Self(Zeroizing::new(core::array::from_fn(|i| {
                u32::from_le_bytes(words[i])
            })))
        })
    }

    #[inline]
    pub(crate) fn seal(&self, counter: u64, plaintext: &[u8], out: &mut [u8]) {
        // SAFETY: a key is made only where the processor has these instructions.
        unsafe { self.seal_avx512(counter, plaintext, out) }
    }

    #[inline]
    pub(crate) fn open(
        &self,
        counter: u64,
        sealed: &[u8],
        out: &mut [u8],
    ) -> Result<usize, Forged> {
        // SAFETY: a key is made only where the processor has these instructions.
        unsafe { self.open_avx512(counter, sealed, out) }
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512ifma")]
    fn seal_avx512(&self, counter: u64, plaintext: &[u8], out: &mut [u8]) {
        let (sealed, tag) = out[..plaintext.len() + TAG_LEN].split_at_mut(plaintext.len());
        let mut poly = self.apply_key_stream(counter, plaintext, sealed);

        poly.update_padded(sealed);
        tag.copy_from_slice(&finish(poly, sealed.len()));
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512ifma")]
    fn open_avx512(&self, counter: u64, sealed: &[u8], out: &mut [u8]) -> Result<usize, Forged> {
        let (sealed, tag) = sealed.split_last_chunk::<TAG_LEN>().ok_or(Forged)?;
        let out = &mut out[..sealed.len()];
        let mut poly = self.apply_key_stream(counter, sealed, out);

        poly.update_padded(sealed);
        if !bool::from(finish(poly, sealed.len()).ct_eq(tag)) {
            out.fill(0);
            return Err(Forged);
        }

        Ok(out.len())
    }

    /// Encrypts or decrypts `from` into `to`, which is as long, and returns the authenticator of the message
    /// (RFC 8439 §2.6, §2.8).
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512ifma")]
    fn apply_key_stream(&self, nonce: u64, from: &[u8], to: &mut [u8]) -> Poly1305 {
        assert!(from.len() <= MAX_LEN, "no message is longer than 256 GiB");
        let stream = Stream {
            key: &self.0,
            nonce,
        };
        let mut text = Text { from, to, done: 0 };

        // Block 0 is the authenticator's. What a tunnel carries fits the first call.
        let (poly, mut next) = match from.len().div_ceil(BLOCK_LEN) {
            0..NARROW => {
                let blocks = stream.narrow(0);
                text.apply(&blocks[1..]);
                (authenticator(blocks[0]), NARROW)
            }
            WIDE.. if from.len().div_ceil(BLOCK_LEN) < WIDE + NARROW => {
                let (wide, narrow) = stream.both(0);
                text.apply(&wide[1..]);
                text.apply(&narrow);
                (authenticator(wide[0]), WIDE + NARROW)
            }
            NARROW.. => {
                let blocks = stream.wide(0);
                text.apply(&blocks[1..]);
                (authenticator(blocks[0]), WIDE)
            }
        };
        while !text.is_done() {
            text.apply(&stream.wide(next as u32));
            next += WIDE;
        }

        poly
    }
}

/// Key and state are secret.
impl core::fmt::Debug for Key {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Key(avx512)")
    }
}

/// A message on its way through the cipher.
struct Text<'t> {
    from: &'t [u8],
    /// As long as `from`.
    to: &'t mut [u8],
    done: usize,
}

impl Text<'_> {
    fn is_done(&self) -> bool {
        self.done == self.from.len()
    }

    /// Applies the next blocks of the key stream; what exceeds the message is not used.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    fn apply(&mut self, key_stream: &[__m512i]) {
        let (from, to) = (&self.from[self.done..], &mut self.to[self.done..]);
        let (whole_from, rest_from) = from.as_chunks::<BLOCK_LEN>();
        let (whole_to, rest_to) = to.as_chunks_mut::<BLOCK_LEN>();

        for ((key, from), to) in key_stream.iter().zip(whole_from).zip(&mut *whole_to) {
            bytes::xor(*key, from, to);
        }
        self.done += whole_from.len().min(key_stream.len()) * BLOCK_LEN;

        if let Some(key) = key_stream.get(whole_from.len()) {
            bytes::xor_partial(*key, rest_from, rest_to);
            self.done += rest_from.len();
        }
    }
}

/// The authenticator whose key is the first half of block 0.
#[inline]
#[target_feature(enable = "avx512f")]
fn authenticator(block: __m512i) -> Poly1305 {
    Poly1305::new(bytes::first_half(block))
}

/// Tag of a message of `len` bytes without associated data (RFC 8439 §2.8).
#[inline]
fn finish(mut poly: Poly1305, len: usize) -> [u8; TAG_LEN] {
    poly.update(&((len as u128) << 64).to_le_bytes());

    poly.finish()
}
