//! First-byte classification and the channel-data header (RFC 8656 §12.4, RFC 7983; relay spec §2.1, §2.10).
//!
//! ```text
//!  0                   1                   2                   3
//! |        Channel Number         |            Length             |
//! |                      Application Data …                       |
//! ```
//!
//! This is the hot path: no allocation, one bounds check per datagram.

use std::fmt;

use thiserror::Error;

/// Bytes of a channel-data header.
pub const HEADER_LEN: usize = 4;

/// What a datagram is, judged by its first byte alone.
///
/// Ciphertext and scans can start with anything, so a class is a reason to look closer, never a proof.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PacketKind {
    /// First byte 0–3: continue with [`crate::Envelope::parse`].
    Stun,
    /// First byte within the channel range: continue with [`ChannelData::parse`].
    ChannelData,
    /// Empty, or any other first byte.
    Other,
}

/// Which channel numbers exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum ChannelRange {
    /// 0x4000–0x4FFF (RFC 8656): first bytes 64–79.
    #[default]
    Strict,
    /// 0x4000–0x7FFF (RFC 5766): first bytes 64–127. For stand-alone relays and older clients.
    Wide,
}

impl ChannelRange {
    /// Whether `number` belongs to the range.
    #[must_use]
    pub const fn contains(self, number: ChannelNumber) -> bool {
        number.0 <= self.max().0
    }

    /// The largest number of the range.
    #[must_use]
    pub const fn max(self) -> ChannelNumber {
        match self {
            Self::Strict => ChannelNumber(0x4FFF),
            Self::Wide => ChannelNumber(0x7FFF),
        }
    }
}

/// Classifies a received datagram by its first byte.
#[must_use]
pub const fn classify(datagram: &[u8], range: ChannelRange) -> PacketKind {
    match (datagram, range) {
        ([0..=3, ..], _) => PacketKind::Stun,
        ([64..=79, ..], _) | ([80..=127, ..], ChannelRange::Wide) => PacketKind::ChannelData,
        _ => PacketKind::Other,
    }
}

/// A channel number in 0x4000–0x7FFF.
///
/// The type admits the wide range; which numbers a party accepts is a [`ChannelRange`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChannelNumber(u16);

impl ChannelNumber {
    /// The smallest number, 0x4000.
    pub const MIN: Self = Self(0x4000);
    /// The largest number that RFC 8656 lets a client choose, 0x4FFF.
    pub const MAX_STRICT: Self = ChannelRange::Strict.max();

    /// `None` outside 0x4000–0x7FFF.
    #[must_use]
    pub const fn new(number: u16) -> Option<Self> {
        match number {
            0x4000..=0x7FFF => Some(Self(number)),
            _ => None,
        }
    }

    /// The number on the wire.
    #[must_use]
    pub const fn get(self) -> u16 {
        self.0
    }

    /// The number after this one, wrapping within the strict range (0x4FFF → 0x4000).
    #[must_use]
    pub const fn next_strict(self) -> Self {
        if self.0 >= Self::MAX_STRICT.0 {
            Self::MIN
        } else {
            Self(self.0 + 1)
        }
    }
}

impl fmt::Debug for ChannelNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#06x}", self.0)
    }
}

impl fmt::Display for ChannelNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// Writes the header of a channel-data message whose payload has `payload_len` bytes.
#[inline]
#[must_use]
pub const fn encode_header(number: ChannelNumber, payload_len: u16) -> [u8; HEADER_LEN] {
    let [n0, n1] = number.0.to_be_bytes();
    let [l0, l1] = payload_len.to_be_bytes();
    [n0, n1, l0, l1]
}

/// A received channel-data message, borrowed from its datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChannelData<'a> {
    /// The channel it arrived on.
    pub number: ChannelNumber,
    /// Exactly as many bytes as the header announces; padding behind them is cut off.
    pub payload: &'a [u8],
}

impl<'a> ChannelData<'a> {
    /// Parses a datagram that [`classify`] named channel data.
    ///
    /// Bytes behind the announced payload are ignored (stream transports pad to four bytes, and some clients do so over
    /// UDP too).
    ///
    /// # Errors
    /// The datagram is shorter than a header or than the header announces, or the number is outside `range`.
    #[inline]
    pub fn parse(datagram: &'a [u8], range: ChannelRange) -> Result<Self, ChannelDataError> {
        let Some((&[n0, n1, l0, l1], rest)) = datagram.split_first_chunk::<HEADER_LEN>() else {
            return Err(ChannelDataError::Truncated);
        };
        let number = ChannelNumber::new(u16::from_be_bytes([n0, n1]))
            .filter(|number| range.contains(*number))
            .ok_or(ChannelDataError::NumberOutOfRange)?;
        let payload = rest
            .get(..usize::from(u16::from_be_bytes([l0, l1])))
            .ok_or(ChannelDataError::Truncated)?;
        Ok(Self { number, payload })
    }
}

/// Why a datagram is not a channel-data message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum ChannelDataError {
    /// Shorter than its header, or than the length its header announces.
    #[error("channel data ends before its announced length")]
    Truncated,
    /// The channel number does not exist in the range in force.
    #[error("channel number is out of range")]
    NumberOutOfRange,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn first_byte_decides() {
        for first in 0..=255u8 {
            let strict = classify(&[first, 1], ChannelRange::Strict);
            let wide = classify(&[first], ChannelRange::Wide);
            let (want_strict, want_wide) = match first {
                0..=3 => (PacketKind::Stun, PacketKind::Stun),
                64..=79 => (PacketKind::ChannelData, PacketKind::ChannelData),
                80..=127 => (PacketKind::Other, PacketKind::ChannelData),
                _ => (PacketKind::Other, PacketKind::Other),
            };
            assert_eq!((strict, wide), (want_strict, want_wide), "{first}");
        }
        assert_eq!(classify(&[], ChannelRange::Wide), PacketKind::Other);
    }

    // relay C-32: a recorded number outside the strict range, and one that never exists.
    #[test]
    fn relay_c32_ranges() {
        let number = 22110u16.to_be_bytes();
        let datagram = [number[0], number[1], 0, 0];
        assert_eq!(
            ChannelData::parse(&datagram, ChannelRange::Strict),
            Err(ChannelDataError::NumberOutOfRange)
        );
        let parsed = ChannelData::parse(&datagram, ChannelRange::Wide).unwrap();
        assert_eq!(parsed.number.get(), 22110);
        assert_eq!(parsed.payload, b"");
        assert_eq!(ChannelNumber::new(32768), None);
    }

    #[test]
    fn padding_is_ignored_and_missing_bytes_are_not() {
        let datagram = [0x40, 0, 0, 2, b'h', b'i', 0, 0];
        let parsed = ChannelData::parse(&datagram, ChannelRange::Strict).unwrap();
        assert_eq!(parsed.payload, b"hi");
        for len in 0..6 {
            assert_eq!(
                ChannelData::parse(&datagram[..len], ChannelRange::Strict),
                Err(ChannelDataError::Truncated)
            );
        }
    }

    #[test]
    fn numbers_wrap_within_the_strict_range() {
        assert_eq!(
            ChannelNumber::MIN.next_strict(),
            ChannelNumber::new(0x4001).unwrap()
        );
        assert_eq!(ChannelNumber::MAX_STRICT.next_strict(), ChannelNumber::MIN);
        assert_eq!(
            ChannelNumber::new(0x7000).unwrap().next_strict(),
            ChannelNumber::MIN
        );
    }

    proptest! {
        #[test]
        fn round_trip(number in 0x4000u16..=0x7FFF, payload: Vec<u8>, trailing: Vec<u8>) {
            let number = ChannelNumber::new(number).unwrap();
            let mut datagram = encode_header(number, payload.len() as u16).to_vec();
            datagram.extend_from_slice(&payload);
            datagram.extend_from_slice(&trailing);
            let parsed = ChannelData::parse(&datagram, ChannelRange::Wide).unwrap();
            prop_assert_eq!(parsed, ChannelData { number, payload: &payload });
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
            let _ = ChannelData::parse(&bytes, ChannelRange::Wide);
        }
    }
}
