//! The bare cipher from buffer to buffer. It is the ground that the other cases stand on.

use std::hint::black_box;

use connlib_aead::{Key, TAG_LEN};

use crate::{
    case::{BATCH, Round},
    packets::PACKET,
};

const SEALED: usize = PACKET + TAG_LEN;

fn key() -> Key {
    Key::new(&[5; 32])
}

/// Plaintext to slots of one send buffer.
pub(crate) struct CipherSeal {
    key: Key,
    packet: Vec<u8>,
    out: Vec<u8>,
}

impl CipherSeal {
    pub(crate) fn new() -> Self {
        Self {
            key: key(),
            packet: vec![7; PACKET],
            out: vec![0; BATCH * SEALED],
        }
    }
}

impl Round for CipherSeal {
    fn prepare(&mut self) {}

    fn work(&mut self) {
        for (counter, slot) in (0..).zip(self.out.chunks_exact_mut(SEALED)) {
            self.key.seal(counter, &self.packet, slot);
        }
        black_box(&self.out);
    }
}

/// Ciphertext from slots of one receive buffer to slots of another one.
pub(crate) struct CipherOpen {
    key: Key,
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
            out: vec![0; BATCH * PACKET],
        }
    }
}

impl Round for CipherOpen {
    fn prepare(&mut self) {}

    fn work(&mut self) {
        let sealed = self.sealed.chunks_exact(SEALED);
        let slots = self.out.chunks_exact_mut(PACKET);
        for (counter, (sealed, slot)) in (0..).zip(sealed.zip(slots)) {
            let opened = self.key.open(counter, sealed, slot);
            black_box(opened.expect("authentic"));
        }
    }
}
