//! The Internet checksum (RFC 1071): full sums, and incremental updates (RFC 1624).
//!
//! Sums are kept in the machine's byte order and swapped once at the end, which RFC 1071 §2(B) shows to be equal;
//! that way whole machine words are added.

use std::net::IpAddr;

/// Bytes that are added in one step.
const BLOCK: usize = 64;
/// 64-bit words of a block.
const LANES: usize = BLOCK / 8;

/// A one's complement sum in the making.
///
/// Pieces may be added in any order; every piece except the last one must have an even number of bytes.
#[derive(Debug, Clone, Copy, Default)]
pub struct Sum(u64);

impl Sum {
    /// The empty sum.
    pub const fn new() -> Self {
        Self(0)
    }

    /// Adds bytes; an odd number is padded with zero, as at the end of a message.
    #[must_use]
    #[inline]
    pub fn add_bytes(self, bytes: &[u8]) -> Self {
        let (blocks, rest) = bytes.as_chunks();
        let blocks = if blocks.is_empty() {
            self
        } else {
            self.add_blocks(blocks)
        };
        blocks.add_short(rest)
    }

    /// Adds a known number of bytes, which costs no loop.
    #[must_use]
    #[inline]
    pub fn add_array<const N: usize>(self, bytes: &[u8; N]) -> Self {
        self.add_short(bytes)
    }

    /// Sums of 64-bit words side by side, in lanes that become vector registers of every x86-64 and every Arm.
    ///
    /// A vector has no carry, so the upper halves are summed once more by themselves, and the sum of the lower halves is what
    /// the sum of the whole words, which wraps, has beside them.
    #[inline(never)]
    fn add_blocks(self, blocks: &[[u8; BLOCK]]) -> Self {
        let (mut whole, mut upper) = ([0_u64; LANES], [0_u64; LANES]);
        for block in blocks {
            let (words, _) = block.as_chunks();
            for lane in 0..LANES {
                let word = u64::from_ne_bytes(words[lane]);
                whole[lane] = whole[lane].wrapping_add(word);
                upper[lane] += word >> 32;
            }
        }
        let whole = whole.into_iter().fold(0, u64::wrapping_add);
        let upper = upper.into_iter().sum::<u64>();
        let lower = whole.wrapping_sub(upper << 32);
        // Both halves count alike (RFC 1071 §2): 2^32 is one more than a multiple of 2^16 - 1.
        Self(self.0 + upper + lower)
    }

    #[inline]
    fn add_short(self, bytes: &[u8]) -> Self {
        let mut sum = self.0;
        let (words, rest) = bytes.as_chunks();
        // A u64 takes 2^32 additions of 32-bit words before it overflows: 16 GiB.
        for word in words {
            sum += u64::from(u32::from_ne_bytes(*word));
        }
        if !rest.is_empty() {
            let mut last = [0; 4];
            last[..rest.len()].copy_from_slice(rest);
            sum += u64::from(u32::from_ne_bytes(last));
        }
        Self(sum)
    }

    /// Adds one 16-bit word given as a number.
    #[must_use]
    pub fn add_u16(self, word: u16) -> Self {
        Self(self.0 + u64::from(word.to_be()))
    }

    /// Takes away bytes that were part of the sum: adds their complement.
    #[must_use]
    pub fn sub_bytes(self, bytes: &[u8]) -> Self {
        self.add_folded(!Self::new().add_bytes(bytes).fold_native())
    }

    /// Takes away one 16-bit word.
    #[must_use]
    pub fn sub_u16(self, word: u16) -> Self {
        self.add_u16(!word)
    }

    /// Adds another sum.
    #[must_use]
    pub fn add_sum(self, other: Self) -> Self {
        self.add_folded(other.fold_native())
    }

    /// Adds the pseudo-header of TCP, UDP and ICMPv6 (RFC 9293 §3.1, RFC 8200 §8.1); `length` is that of the
    /// transport header and its payload in bytes.
    #[must_use]
    pub fn add_pseudo_header(
        self,
        source: IpAddr,
        destination: IpAddr,
        protocol: u8,
        length: usize,
    ) -> Self {
        let sum = self
            .add_address(source)
            .add_address(destination)
            .add_u16(u16::from(protocol));
        // Wider than 16 bits only for a length that no packet has.
        sum.add_u16((length >> 16) as u16).add_u16(length as u16)
    }

    /// Adds the bytes of an address.
    #[must_use]
    pub fn add_address(self, address: IpAddr) -> Self {
        match address {
            IpAddr::V4(v4) => self.add_bytes(&v4.octets()),
            IpAddr::V6(v6) => self.add_bytes(&v6.octets()),
        }
    }

    /// The sum folded to 16 bits, not complemented: what a partially offloaded checksum field holds.
    pub fn fold(self) -> u16 {
        u16::from_be(self.fold_native())
    }

    /// The checksum: the complement of the folded sum.
    pub fn finish(self) -> u16 {
        !self.fold()
    }

    fn add_folded(self, native: u16) -> Self {
        Self(self.0 + u64::from(native))
    }

    fn fold_native(self) -> u16 {
        let mut sum = (self.0 & 0xffff_ffff) + (self.0 >> 32);
        sum = (sum & 0xffff) + (sum >> 16);
        sum = (sum & 0xffff) + (sum >> 16);
        sum = (sum & 0xffff) + (sum >> 16);
        sum as u16
    }
}

/// Full checksum of a message without a pseudo-header (IPv4 header, ICMPv4); its checksum field must be zero.
pub fn of(bytes: &[u8]) -> u16 {
    Sum::new().add_bytes(bytes).finish()
}

/// Full checksum of a TCP, UDP or ICMPv6 message in `bytes`, whose checksum field must be zero.
///
/// For UDP pass the result through [`udp_nonzero`].
pub fn of_transport(source: IpAddr, destination: IpAddr, protocol: u8, bytes: &[u8]) -> u16 {
    Sum::new()
        .add_pseudo_header(source, destination, protocol, bytes.len())
        .add_bytes(bytes)
        .finish()
}

/// A computed UDP checksum of zero is sent as all ones, since zero means "absent" (RFC 768).
pub fn udp_nonzero(checksum: u16) -> u16 {
    if checksum == 0 { 0xffff } else { checksum }
}

/// A checksum after part of what it covers changed by `delta` = new words − old words (RFC 1624, equation 3).
pub fn update(checksum: u16, delta: Sum) -> u16 {
    delta.add_u16(!checksum).finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn rfc_1071_example() {
        let bytes = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        assert_eq!(Sum::new().add_bytes(&bytes).fold(), 0xddf2);
        assert_eq!(of(&bytes), 0x220d);
    }

    #[test]
    fn rfc_1624_example() {
        // RFC 1624 §4: checksum 0xdd2f, word 0x5555 becomes 0x3285, new checksum 0x0000.
        let delta = Sum::new().sub_u16(0x5555).add_u16(0x3285);
        assert_eq!(update(0xdd2f, delta), 0x0000);
    }

    #[test]
    fn zero_udp_sum_becomes_all_ones() {
        assert_eq!(udp_nonzero(0), 0xffff);
        assert_eq!(udp_nonzero(7), 7);
    }

    fn slow(bytes: &[u8]) -> u16 {
        let mut sum = 0u64;
        for pair in bytes.chunks(2) {
            sum += u64::from(pair[0]) << 8 | u64::from(*pair.get(1).unwrap_or(&0));
        }
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        !(sum as u16)
    }

    proptest! {
        #[test]
        fn equals_word_by_word_sum(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
            prop_assert_eq!(of(&bytes), slow(&bytes));
        }

        /// The lanes wrap as often as they can.
        #[test]
        fn equals_word_by_word_sum_of_large_words(len in 0..70_000_usize, dent in 0..70_000_usize) {
            let mut bytes = vec![0xff; len];
            if let Some(byte) = bytes.get_mut(dent) {
                *byte = 0xfe;
            }
            prop_assert_eq!(of(&bytes), slow(&bytes));
        }

        #[test]
        fn incremental_equals_full(mut bytes in proptest::collection::vec(any::<u8>(), 20..100), new: [u8; 4]) {
            // At least one word stays non-zero, as in every header, so that no sum is the other zero.
            bytes[0] = 0x45;
            let before = of(&bytes);
            let delta = Sum::new().sub_bytes(&bytes[4..8]).add_bytes(&new);
            bytes[4..8].copy_from_slice(&new);
            prop_assert_eq!(update(before, delta), of(&bytes));
        }
    }
}
