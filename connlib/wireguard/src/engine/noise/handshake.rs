//! The two messages of a handshake (whitepaper §5.4.2, §5.4.3): Noise IKpsk2.
//!
//! Nothing here changes a state in place: a message that is refused leaves no trace. The MACs at the end of each message are
//! not looked at. Ephemeral keys come from the caller, so that tests can compare every byte.

use subtle::ConstantTimeEq;
use x25519_dalek::{PublicKey as Point, SharedSecret, StaticSecret};

use super::session::SessionKeys;
use super::symmetric::{FieldKey, Symmetric};
use crate::engine::{EngineError, Keys};
use crate::message::{INIT_LEN, RESPONSE_LEN, TIMESTAMP_LEN};
use crate::timestamp::Timestamp;
use crate::{PrivateKey, PublicKey};

/// An initiation of ours that may still be answered. Zeroed when dropped.
pub(super) struct Initiation {
    pub(super) local_index: u32,
    state: Symmetric,
    ephemeral: StaticSecret,
}

/// An initiation of the configured peer, authentic but not yet known to be new.
pub(super) struct Received {
    pub(super) timestamp: Timestamp,
    peer_index: u32,
    state: Symmetric,
    ephemeral: Point,
}

impl Initiation {
    /// Makes an initiation, all but its MACs.
    pub(super) fn new(
        keys: &Keys,
        local_index: u32,
        timestamp: Timestamp,
        ephemeral: StaticSecret,
    ) -> (Self, [u8; INIT_LEN]) {
        let mut message = [0; INIT_LEN];
        let mut state = Symmetric::new(&keys.remote.0);
        message[0] = 1;
        message[4..8].copy_from_slice(&local_index.to_le_bytes());

        let public = Point::from(&ephemeral);
        message[8..40].copy_from_slice(public.as_bytes());
        state.mix_ephemeral(public.as_bytes());

        let secret = ephemeral.diffie_hellman(&Point::from(keys.remote.0));
        let key = state.mix_key(secret.as_bytes());
        let sender = keys.private.public();
        state.encrypt(key, &sender.0, &mut message[40..88]);

        let key = state.mix_key(&keys.static_secret);
        state.encrypt(key, &timestamp.0, &mut message[88..116]);

        let initiation = Self {
            local_index,
            state,
            ephemeral,
        };

        (initiation, message)
    }

    /// Reads the response to this initiation: the index of its sender and the keys of the new session.
    pub(super) fn finish(
        &self,
        keys: &Keys,
        psk: &[u8; 32],
        response: &[u8; RESPONSE_LEN],
    ) -> Result<(u32, SessionKeys), EngineError> {
        let mut state = self.state.clone();
        let public = field(response, 12);
        state.mix_ephemeral(&public);

        let public = Point::from(public);
        state.mix_secret(contributory(self.ephemeral.diffie_hellman(&public))?.as_bytes());
        state.mix_secret(contributory(keys.private.secret().diffie_hellman(&public))?.as_bytes());
        let key = state.mix_preshared(psk);
        let [] = state
            .decrypt(key, &response[44..60])
            .ok_or(EngineError::Undecryptable)?;

        let [seal, open] = state.split();
        let session = SessionKeys {
            seal: *seal,
            open: *open,
        };

        Ok((u32::from_le_bytes(field(response, 4)), session))
    }
}

impl Received {
    /// Reads an initiation.
    pub(super) fn new(keys: &Keys, init: &[u8; INIT_LEN]) -> Result<Self, EngineError> {
        let mut state = Symmetric::new(&keys.private.public().0);
        let (sender, ephemeral) = read_static(&mut state, &keys.private, init)?;
        if !bool::from(sender.0.ct_eq(&keys.remote.0)) {
            return Err(EngineError::Refused);
        }

        let key = state.mix_key(&keys.static_secret);
        let timestamp: [u8; TIMESTAMP_LEN] = state
            .decrypt(key, &init[88..116])
            .ok_or(EngineError::Undecryptable)?;

        Ok(Self {
            timestamp: Timestamp(timestamp),
            peer_index: u32::from_le_bytes(field(init, 4)),
            state,
            ephemeral,
        })
    }

    /// Makes the response, all but its MACs: the index of the other side and the keys of the new session.
    pub(super) fn respond(
        self,
        keys: &Keys,
        psk: &[u8; 32],
        local_index: u32,
        ephemeral: &StaticSecret,
    ) -> ([u8; RESPONSE_LEN], u32, SessionKeys) {
        let mut message = [0; RESPONSE_LEN];
        let mut state = self.state;
        message[0] = 2;
        message[4..8].copy_from_slice(&local_index.to_le_bytes());
        message[8..12].copy_from_slice(&self.peer_index.to_le_bytes());

        let public = Point::from(ephemeral);
        message[12..44].copy_from_slice(public.as_bytes());
        state.mix_ephemeral(public.as_bytes());

        state.mix_secret(ephemeral.diffie_hellman(&self.ephemeral).as_bytes());
        let remote = Point::from(keys.remote.0);
        state.mix_secret(ephemeral.diffie_hellman(&remote).as_bytes());
        let key = state.mix_preshared(psk);
        state.encrypt(key, &[], &mut message[44..60]);

        let [open, seal] = state.split();
        let session = SessionKeys {
            seal: *seal,
            open: *open,
        };

        (message, self.peer_index, session)
    }
}

/// The static key that the sender of an initiation claims, which costs one X25519 operation.
pub(crate) fn claimed_sender(
    private: &PrivateKey,
    init: &[u8; INIT_LEN],
) -> Result<PublicKey, EngineError> {
    let mut state = Symmetric::new(&private.public().0);

    read_static(&mut state, private, init).map(|(sender, _)| sender)
}

fn read_static(
    state: &mut Symmetric,
    private: &PrivateKey,
    init: &[u8; INIT_LEN],
) -> Result<(PublicKey, Point), EngineError> {
    let public = field(init, 8);
    state.mix_ephemeral(&public);

    let ephemeral = Point::from(public);
    let secret = contributory(private.secret().diffie_hellman(&ephemeral))?;
    let key: FieldKey = state.mix_key(secret.as_bytes());
    let sender = state
        .decrypt(key, &init[40..88])
        .ok_or(EngineError::Undecryptable)?;

    Ok((PublicKey(sender), ephemeral))
}

/// Refuses the secret that everybody knows: that of a public key of small order (RFC 7748 §6.1).
fn contributory(secret: SharedSecret) -> Result<SharedSecret, EngineError> {
    if secret.was_contributory() {
        Ok(secret)
    } else {
        Err(EngineError::Refused)
    }
}

/// The `N` bytes at `at` of a message, whose length is known.
fn field<const N: usize, const LEN: usize>(message: &[u8; LEN], at: usize) -> [u8; N] {
    std::array::from_fn(|i| message[at + i])
}
