//! The bare cipher with the one copy that nobody can do without. It is the ground that the other cases stand on.

use std::hint::black_box;

use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};

use crate::{
    case::{BATCH, Round},
    packets::PACKET,
};

const TAG: usize = 16;

fn key() -> LessSafeKey {
    LessSafeKey::new(UnboundKey::new(&CHACHA20_POLY1305, &[5; 32]).expect("32 bytes"))
}

fn nonce(counter: usize) -> Nonce {
    let mut bytes = [0; 12];
    bytes[4..].copy_from_slice(&(counter as u64).to_le_bytes());
    Nonce::assume_unique_for_key(bytes)
}

/// Plaintext to slots of one send buffer.
pub(crate) struct CipherSeal {
    key: LessSafeKey,
    packet: Vec<u8>,
    out: Vec<u8>,
}

impl CipherSeal {
    pub(crate) fn new() -> Self {
        Self {
            key: key(),
            packet: vec![7; PACKET],
            out: vec![0; BATCH * (PACKET + TAG)],
        }
    }
}

impl Round for CipherSeal {
    fn prepare(&mut self) {}

    fn work(&mut self) {
        for (number, slot) in self.out.chunks_exact_mut(PACKET + TAG).enumerate() {
            let (body, tag) = slot.split_at_mut(PACKET);
            body.copy_from_slice(&self.packet);
            let made = self
                .key
                .seal_in_place_separate_tag(nonce(number), Aad::empty(), body);
            tag.copy_from_slice(made.expect("fits the cipher").as_ref());
        }
        black_box(&self.out);
    }
}

/// Ciphertext from slots of one receive buffer to slots of another one.
pub(crate) struct CipherOpen {
    key: LessSafeKey,
    sealed: Vec<u8>,
    out: Vec<u8>,
}

impl CipherOpen {
    pub(crate) fn new() -> Self {
        let mut seal = CipherSeal::new();
        seal.work();
        Self {
            key: key(),
            sealed: seal.out,
            out: vec![0; BATCH * (PACKET + TAG)],
        }
    }
}

impl Round for CipherOpen {
    fn prepare(&mut self) {}

    fn work(&mut self) {
        let sealed = self.sealed.chunks_exact(PACKET + TAG);
        let slots = self.out.chunks_exact_mut(PACKET + TAG);
        for (number, (sealed, slot)) in sealed.zip(slots).enumerate() {
            slot.copy_from_slice(sealed);
            let opened = self.key.open_in_place(nonce(number), Aad::empty(), slot);
            black_box(opened.expect("authentic"));
        }
    }
}
