//! MAC1, MAC2 and cookies of handshake messages (whitepaper §5.3, §5.4.4, §5.4.7).
//!
//! Both MACs are the last 32 bytes of initiations and responses. MAC1 shows that the sender knows the receiver's public key,
//! MAC2 that it receives at its address: its key is a cookie that came there.

use blake2::digest::consts::U16;
use blake2::digest::{FixedOutput, KeyInit, Mac};
use blake2::{Blake2s256, Blake2sMac, Digest};
use chacha20poly1305::aead::AeadInPlace;
use chacha20poly1305::{Tag, XChaCha20Poly1305, XNonce};
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::PublicKey;
use crate::message::{COOKIE_REPLY_LEN, MAC_LEN, MACS_LEN, NONCE_LEN};

const LABEL_MAC1: &[u8; 8] = b"mac1----";
const LABEL_COOKIE: &[u8; 8] = b"cookie--";

/// A MAC or a cookie.
pub(crate) type Mac16 = [u8; MAC_LEN];

/// What a node's handshake messages are checked with, and cookie replies to it opened: derived from its public key.
#[derive(Clone)]
pub(crate) struct MacKeys {
    mac1: [u8; 32],
    cookie: [u8; 32],
}

impl MacKeys {
    /// The keys of messages *to* the owner of `receiver` and of cookie replies *from* it.
    pub(crate) fn of(receiver: &PublicKey) -> Self {
        let hash = |label: &[u8; 8]| {
            Blake2s256::new()
                .chain_update(label)
                .chain_update(receiver.0)
                .finalize()
                .into()
        };

        Self {
            mac1: hash(LABEL_MAC1),
            cookie: hash(LABEL_COOKIE),
        }
    }

    /// Fills the last 32 bytes of a handshake message; returns its MAC1.
    pub(crate) fn sign(&self, message: &mut [u8], cookie: Option<&Cookie>) -> Mac16 {
        let mac1_at = message.len() - MACS_LEN;
        let mac2_at = message.len() - MAC_LEN;

        let mac1 = mac(&self.mac1, &message[..mac1_at]);
        message[mac1_at..mac2_at].copy_from_slice(&mac1);
        let mac2 = cookie.map_or([0; MAC_LEN], |cookie| mac(&cookie.0, &message[..mac2_at]));
        message[mac2_at..].copy_from_slice(&mac2);

        mac1
    }

    /// Whether MAC1 of a handshake message fits.
    pub(crate) fn has_mac1(&self, message: &[u8]) -> bool {
        verify(&self.mac1, message, MACS_LEN)
    }

    /// Tells the sender of a handshake message, whose MAC1 it carries, a cookie. `nonce` is used for no other cookie.
    pub(crate) fn cookie_reply(
        &self,
        receiver: u32,
        mac1: &Mac16,
        cookie: &Cookie,
        nonce: [u8; NONCE_LEN],
    ) -> [u8; COOKIE_REPLY_LEN] {
        let mut reply = [0; COOKIE_REPLY_LEN];
        reply[0] = 3;
        reply[4..8].copy_from_slice(&receiver.to_le_bytes());
        reply[8..32].copy_from_slice(&nonce);
        reply[32..48].copy_from_slice(&cookie.0);
        let tag = XChaCha20Poly1305::new(&self.cookie.into())
            .encrypt_in_place_detached(&XNonce::from(nonce), mac1, &mut reply[32..48])
            .expect("16 bytes can be sealed");
        reply[48..].copy_from_slice(&tag);

        reply
    }

    /// The cookie in a reply to the message with that MAC1, if it is one.
    pub(crate) fn open_cookie_reply(
        &self,
        reply: &[u8; COOKIE_REPLY_LEN],
        mac1: &Mac16,
    ) -> Option<Cookie> {
        let nonce: &[u8; NONCE_LEN] = reply[8..].first_chunk()?;
        let mut cookie = Cookie(*reply[32..].first_chunk()?);
        XChaCha20Poly1305::new(&self.cookie.into())
            .decrypt_in_place_detached(
                XNonce::from_slice(nonce),
                mac1,
                &mut cookie.0,
                Tag::from_slice(&reply[48..]),
            )
            .ok()?;

        Some(cookie)
    }
}

/// Proves that its holder receives at an address.
#[derive(Zeroize, ZeroizeOnDrop)]
pub(crate) struct Cookie(Mac16);

impl Cookie {
    /// The cookie of an address under a secret of ours.
    pub(crate) fn of(secret: &[u8; 32], address: &[u8]) -> Self {
        Self(mac(secret, address))
    }

    /// Whether MAC2 of a handshake message fits.
    pub(crate) fn proves(&self, message: &[u8]) -> bool {
        verify(&self.0, message, MAC_LEN)
    }

    pub(crate) fn as_bytes(&self) -> &Mac16 {
        &self.0
    }
}

/// MAC1 of a handshake message.
pub(crate) fn mac1_of(message: &[u8]) -> Option<&Mac16> {
    message[..message.len().checked_sub(MAC_LEN)?].last_chunk()
}

/// Keyed BLAKE2s with 16 bytes of output.
fn mac(key: &[u8], message: &[u8]) -> Mac16 {
    keyed(key).chain_update(message).finalize_fixed().into()
}

/// Compares the MAC that begins `from_end` bytes before the end of `message`, in constant time.
fn verify(key: &[u8], message: &[u8], from_end: usize) -> bool {
    let Some((covered, rest)) = message
        .len()
        .checked_sub(from_end)
        .and_then(|at| message.split_at_checked(at))
    else {
        return false;
    };

    keyed(key)
        .chain_update(covered)
        .verify_slice(&rest[..MAC_LEN])
        .is_ok()
}

fn keyed(key: &[u8]) -> Blake2sMac<U16> {
    KeyInit::new_from_slice(key).expect("keys have 16 or 32 bytes")
}

#[cfg(test)]
mod tests {
    use super::*;

    const RECEIVER: PublicKey = PublicKey([5; 32]);

    #[test]
    fn every_byte_before_is_covered_by_mac1() {
        let keys = MacKeys::of(&RECEIVER);
        let mut message = [7; 148];
        keys.sign(&mut message, None);
        assert!(keys.has_mac1(&message));
        assert_eq!(message[132..], [0; 16]);

        for at in 0..132 {
            message[at] ^= 1;
            assert!(!keys.has_mac1(&message), "byte {at}");
            message[at] ^= 1;
        }
        assert!(!MacKeys::of(&PublicKey([6; 32])).has_mac1(&message));
        for len in 0..message.len() {
            assert!(!keys.has_mac1(&message[..len]));
        }
    }

    #[test]
    fn mac2_takes_the_right_cookie_and_covers_mac1() {
        let keys = MacKeys::of(&RECEIVER);
        let cookie = |address| Cookie::of(&[1; 32], address);
        let mut message = [7; 92];
        keys.sign(&mut message, Some(&cookie(&[10, 0, 0, 1])));

        assert!(cookie(&[10, 0, 0, 1]).proves(&message));
        assert!(!cookie(&[10, 0, 0, 2]).proves(&message));
        assert!(!Cookie::of(&[2; 32], &[10, 0, 0, 1]).proves(&message));
        message[70] ^= 1;
        assert!(!cookie(&[10, 0, 0, 1]).proves(&message));
    }

    #[test]
    fn cookie_replies_are_bound_to_receiver_and_message() {
        let keys = MacKeys::of(&RECEIVER);
        let cookie = Cookie::of(&[1; 32], &[10, 0, 0, 1]);
        let mut reply = keys.cookie_reply(0x0102_0304, &[3; 16], &cookie, [4; 24]);
        assert_eq!(reply[..8], [3, 0, 0, 0, 4, 3, 2, 1]);
        let opened = keys.open_cookie_reply(&reply, &[3; 16]).unwrap();
        assert_eq!(opened.as_bytes(), cookie.as_bytes());
        assert!(keys.open_cookie_reply(&reply, &[9; 16]).is_none());
        assert!(
            MacKeys::of(&PublicKey([6; 32]))
                .open_cookie_reply(&reply, &[3; 16])
                .is_none()
        );

        for at in 8..reply.len() {
            reply[at] ^= 1;
            assert!(
                keys.open_cookie_reply(&reply, &[3; 16]).is_none(),
                "byte {at}"
            );
            reply[at] ^= 1;
        }
    }
}
