//! FINGERPRINT (RFC 8489 §14.7): CRC-32 of the message in front of the attribute, XOR 0x5354554E.

use crate::attribute;

/// Size of the whole attribute.
pub(crate) const ATTRIBUTE_LEN: usize = 8;

const XOR: u32 = 0x5354_554E;

/// The value of the attribute for a message whose bytes in front of it are `prefix`.
///
/// The length field of `prefix` must already count the attribute.
pub(crate) fn value(prefix: &[u8]) -> u32 {
    crc32fast::hash(prefix) ^ XOR
}

/// Appends FINGERPRINT to an encoded message, as its last attribute.
///
/// # Panics
/// `message` is not an encoded STUN message (shorter than a header).
pub fn append_fingerprint(message: &mut Vec<u8>) {
    grow_length(message, ATTRIBUTE_LEN);
    let value = value(message);
    message.extend_from_slice(&attribute::FINGERPRINT.to_be_bytes());
    message.extend_from_slice(&4u16.to_be_bytes());
    message.extend_from_slice(&value.to_be_bytes());
}

/// Makes the length field of an encoded message count `extra` bytes that are about to be appended.
pub(crate) fn grow_length(message: &mut [u8], extra: usize) {
    let body = message.len() - crate::header::HEADER_LEN + extra;
    let body = u16::try_from(body).expect("control messages are far smaller than 64 KiB");
    message[2..4].copy_from_slice(&body.to_be_bytes());
}
