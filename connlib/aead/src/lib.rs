//! ChaCha20-Poly1305 (RFC 8439) as WireGuard's data messages use it (whitepaper §5.4.6): the nonce is a counter, and there
//! are no associated data.
//!
//! On processors with AVX-512 and its 52-bit multiply-add the kernel of this crate does the work, elsewhere `ring`. Both
//! give the same bytes; which one it is can only be told by the time it takes.

#[cfg(target_arch = "x86_64")]
mod avx512;
mod portable;

/// Bytes that sealing adds behind the message.
pub const TAG_LEN: usize = 16;

/// A key with which messages are sealed or opened. Used for one direction of one session.
#[derive(Debug)]
pub struct Key(Backend);

#[derive(Debug)]
enum Backend {
    #[cfg(target_arch = "x86_64")]
    Avx512(avx512::Key),
    /// Boxed since it is seventeen times as large.
    Portable(Box<portable::Key>),
}

/// A message whose tag does not fit it: damaged, made with another key, or no sealed message at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("message is not authentic")]
pub struct Forged;

impl Key {
    /// Prepares a key of 32 bytes for the fastest implementation that the processor has.
    pub fn new(key: &[u8; 32]) -> Self {
        #[cfg(target_arch = "x86_64")]
        if let Some(key) = avx512::Key::new(key) {
            return Self(Backend::Avx512(key));
        }

        Self::portable(key)
    }

    /// Prepares a key for the implementation that works on every processor; for comparison.
    pub fn portable(key: &[u8; 32]) -> Self {
        Self(Backend::Portable(Box::new(portable::Key::new(key))))
    }

    /// Seals `plaintext`: writes it encrypted, followed by the tag, to the front of `out`.
    ///
    /// The nonce is `counter` in little-endian order behind four zero bytes. No counter may be used twice with a key.
    ///
    /// # Panics
    ///
    /// If `out` is shorter than `plaintext` and [`TAG_LEN`] together, or `plaintext` longer than 256 GiB.
    #[inline]
    pub fn seal(&self, counter: u64, plaintext: &[u8], out: &mut [u8]) {
        match &self.0 {
            #[cfg(target_arch = "x86_64")]
            Backend::Avx512(key) => key.seal(counter, plaintext, out),
            Backend::Portable(key) => key.seal(counter, plaintext, out),
        }
    }

    /// Opens `sealed`, which ends with its tag: writes the plaintext to the front of `out` and returns its length.
    ///
    /// # Errors
    ///
    /// [`Forged`] if the tag does not fit; `out` then holds nothing of use.
    ///
    /// # Panics
    ///
    /// If `out` is shorter than the plaintext.
    #[inline]
    pub fn open(&self, counter: u64, sealed: &[u8], out: &mut [u8]) -> Result<usize, Forged> {
        match &self.0 {
            #[cfg(target_arch = "x86_64")]
            Backend::Avx512(key) => key.open(counter, sealed, out),
            Backend::Portable(key) => key.open(counter, sealed, out),
        }
    }
}
