//! The outside of WireGuard messages: types, lengths, indices (whitepaper §5.4).

use crate::engine::claimed_sender;
use crate::{PeerIndex, PrivateKey, PublicKey};

/// Length of a handshake initiation (type 1).
pub const INIT_LEN: usize = 148;
/// Length of a handshake response (type 2).
pub const RESPONSE_LEN: usize = 92;
/// Length of a cookie reply (type 3).
pub const COOKIE_REPLY_LEN: usize = 64;
/// What a data message (type 4) adds to its packet: 16 bytes of header, 16 of tag.
pub const DATA_OVERHEAD: usize = DATA_HEADER_LEN + 16;
/// Length of a data message without content.
pub const KEEPALIVE_LEN: usize = DATA_OVERHEAD;
/// Largest datagram: the largest IP packet of the tunnel, sealed. Longer ones are dropped unread.
pub const MAX_DATAGRAM: usize = ip_packet::MAX_IP_SIZE + DATA_OVERHEAD;

/// Type, receiver index and counter of a data message.
pub(crate) const DATA_HEADER_LEN: usize = 16;
/// A handshake timestamp.
pub(crate) const TIMESTAMP_LEN: usize = 12;
/// MAC1, MAC2, and a cookie.
pub(crate) const MAC_LEN: usize = 16;
/// MAC1 and MAC2, at the end of initiations and responses.
pub(crate) const MACS_LEN: usize = 2 * MAC_LEN;
/// The nonce of a cookie reply.
pub(crate) const NONCE_LEN: usize = 24;

/// Reject-After-Messages: counters from here on are neither sent nor accepted (whitepaper §6.1). Also keeps the engine's
/// replay window away from the end of its counter's range.
pub const REJECT_AFTER_MESSAGES: u64 = u64::MAX - (1 << 13);

/// A WireGuard datagram by type, with the index that finds its peer. Nothing is verified yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Inbound {
    /// Handshake initiation; the peer is found by [`parse_init`].
    Init,
    /// Handshake response to an initiation of ours.
    Response {
        /// Our index, as sent in the initiation.
        receiver: u32,
    },
    /// Cookie reply to a handshake message of ours.
    Cookie {
        /// Our index, as sent in the handshake message.
        receiver: u32,
    },
    /// Sealed packet or keepalive.
    Data {
        /// Our index of the session.
        receiver: u32,
    },
}

impl Inbound {
    /// The engine that this datagram is for; `None` for an initiation.
    pub fn peer_index(&self) -> Option<PeerIndex> {
        match self {
            Inbound::Init => None,
            Inbound::Response { receiver }
            | Inbound::Cookie { receiver }
            | Inbound::Data { receiver } => Some(PeerIndex::of_receiver(*receiver)),
        }
    }
}

/// The datagram is no WireGuard message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a WireGuard message")]
pub struct Malformed;

/// Tells the type of a datagram from its first four bytes and its length.
#[inline]
pub fn classify(datagram: &[u8]) -> Result<Inbound, Malformed> {
    let kind = read_u32(datagram, 0).ok_or(Malformed)?;

    match (kind, datagram.len()) {
        (1, INIT_LEN) => Ok(Inbound::Init),
        (2, RESPONSE_LEN) => Ok(Inbound::Response {
            receiver: read_u32(datagram, 8).ok_or(Malformed)?,
        }),
        (3, COOKIE_REPLY_LEN) => Ok(Inbound::Cookie {
            receiver: read_u32(datagram, 4).ok_or(Malformed)?,
        }),
        (4, KEEPALIVE_LEN..) => Ok(Inbound::Data {
            receiver: read_u32(datagram, 4).ok_or(Malformed)?,
        }),
        _ => Err(Malformed),
    }
}

/// Why the sender of an initiation could not be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ParseInitError {
    /// The datagram is no handshake initiation.
    #[error("not a handshake initiation")]
    NotAnInit,
    /// The initiation is for another static key, or damaged.
    #[error("handshake initiation does not decrypt with our key")]
    Undecryptable,
}

/// Reads the sender's static key from an initiation: one X25519 operation, so check the [`HandshakeLimiter`] first.
///
/// The key is *claimed*, not proven: anybody who knows both public keys can make such an initiation. The peer's engine decides.
///
/// [`HandshakeLimiter`]: crate::HandshakeLimiter
pub fn parse_init(private: &PrivateKey, datagram: &[u8]) -> Result<PublicKey, ParseInitError> {
    let init = match classify(datagram) {
        Ok(Inbound::Init) => datagram.first_chunk().ok_or(ParseInitError::NotAnInit)?,
        Ok(_) | Err(Malformed) => return Err(ParseInitError::NotAnInit),
    };

    claimed_sender(private, init).map_err(|_| ParseInitError::Undecryptable)
}

/// The sender's index in an initiation or a response.
pub(crate) fn sender_index(handshake: &[u8]) -> Option<u32> {
    read_u32(handshake, 4)
}

/// The receiver's index in a cookie reply or a data message.
#[inline]
pub(crate) fn receiver_index(message: &[u8]) -> Option<u32> {
    read_u32(message, 4)
}

/// The counter of a data message.
#[inline]
pub(crate) fn counter(data: &[u8]) -> Option<u64> {
    Some(u64::from_le_bytes(*data.get(8..)?.first_chunk()?))
}

#[inline]
fn read_u32(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn message(kind: u8, len: usize) -> Vec<u8> {
        let mut bytes: Vec<u8> = (0..len).map(|i| i as u8).collect();
        bytes[..4].copy_from_slice(&[kind, 0, 0, 0]);
        bytes
    }

    #[test]
    fn types_and_lengths_must_match() {
        assert_eq!(classify(&message(1, 148)), Ok(Inbound::Init));
        assert_eq!(
            classify(&message(2, 92)),
            Ok(Inbound::Response {
                receiver: 0x0b0a_0908
            })
        );
        assert_eq!(
            classify(&message(3, 64)),
            Ok(Inbound::Cookie {
                receiver: 0x0706_0504
            })
        );
        assert_eq!(
            classify(&message(4, 32)),
            Ok(Inbound::Data {
                receiver: 0x0706_0504
            })
        );
        assert_eq!(
            classify(&message(4, 1312)),
            Ok(Inbound::Data {
                receiver: 0x0706_0504
            })
        );

        for (kind, len) in [
            (0, 148),
            (1, 147),
            (1, 149),
            (2, 91),
            (3, 65),
            (4, 31),
            (5, 64),
        ] {
            assert_eq!(
                classify(&message(kind, len)),
                Err(Malformed),
                "type {kind}, {len} bytes"
            );
        }
    }

    #[test]
    fn reserved_bytes_must_be_zero() {
        let mut bytes = message(4, 64);
        bytes[2] = 1;

        assert_eq!(classify(&bytes), Err(Malformed));
    }

    #[test]
    fn receiver_index_names_the_engine() {
        assert_eq!(
            Inbound::Data {
                receiver: 0xabcd_ef12
            }
            .peer_index()
            .map(PeerIndex::get),
            Some(0x00ab_cdef)
        );
        assert_eq!(Inbound::Init.peer_index(), None);
    }

    proptest! {
        /// snownet 5
        #[test]
        fn hostile_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), kind in 0u8..6) {
            let mut bytes = bytes;
            if bytes.len() >= 4 {
                bytes[..4].copy_from_slice(&[kind, 0, 0, 0]);
            }
            let _ = classify(&bytes);
            let _ = parse_init(&PrivateKey::from_seed([3; 32]), &bytes);
        }
    }
}
