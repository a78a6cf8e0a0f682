//! ChaCha20 (RFC 8439 §2.3): 16 blocks in vectors of 512 bits, 8 in vectors of 256 bits, or both side by side.
//!
//! Vector `i` holds word `i` of all blocks, a lane each, so that a round is the same for all of them and moves nothing. Only
//! at the end are the vectors turned into blocks.

use core::arch::x86_64::{
    __m256i, __m512i, _mm256_add_epi32, _mm256_permute2x128_si256, _mm256_rol_epi32,
    _mm256_set1_epi32, _mm256_setr_epi32, _mm256_unpackhi_epi32, _mm256_unpackhi_epi64,
    _mm256_unpacklo_epi32, _mm256_unpacklo_epi64, _mm256_xor_si256, _mm512_add_epi32,
    _mm512_castsi256_si512, _mm512_inserti64x4, _mm512_rol_epi32, _mm512_set1_epi32,
    _mm512_setr_epi32, _mm512_setzero_si512, _mm512_shuffle_i32x4, _mm512_unpackhi_epi32,
    _mm512_unpackhi_epi64, _mm512_unpacklo_epi32, _mm512_unpacklo_epi64, _mm512_xor_si512,
};

/// Bytes of a block of key stream.
pub(super) const BLOCK_LEN: usize = 64;
/// Blocks in vectors of 512 bits.
pub(super) const WIDE: usize = 16;
/// Blocks in vectors of 256 bits.
pub(super) const NARROW: usize = 8;

/// "expand 32-byte k" (RFC 8439 §2.3).
const CONSTANTS: [u32; 4] = [0x6170_7865, 0x3320_646e, 0x7962_2d32, 0x6b20_6574];
/// The word that counts blocks.
const COUNTER: usize = 12;

/// The key stream of one message.
#[derive(Clone, Copy)]
pub(super) struct Stream<'k> {
    pub(super) key: &'k [u32; 8],
    /// The last 64 bits of the nonce; the first 32 are zero.
    pub(super) nonce: u64,
}

/// A quarter of a quarter round, on four quarters: word 0 of a triple grows by word 1, word 2 takes it in and turns.
macro_rules! quarter {
    ($v:ident, $add:ident, $xor:ident, $rol:ident, $turn:literal, $([$a:literal, $b:literal, $d:literal]),+) => {
        $($v[$a] = $add($v[$a], $v[$b]);)+
        $($v[$d] = $xor($v[$d], $v[$a]);)+
        $($v[$d] = $rol::<$turn>($v[$d]);)+
    };
}

/// Two rounds, columns and diagonals, on one set of vectors or on two that take turns at every step: one alone waits for its
/// own results.
macro_rules! double_round {
    ($($v:ident: $add:ident, $xor:ident, $rol:ident);+) => {
        $(quarter!($v, $add, $xor, $rol, 16, [0, 4, 12], [1, 5, 13], [2, 6, 14], [3, 7, 15]);)+
        $(quarter!($v, $add, $xor, $rol, 12, [8, 12, 4], [9, 13, 5], [10, 14, 6], [11, 15, 7]);)+
        $(quarter!($v, $add, $xor, $rol, 8, [0, 4, 12], [1, 5, 13], [2, 6, 14], [3, 7, 15]);)+
        $(quarter!($v, $add, $xor, $rol, 7, [8, 12, 4], [9, 13, 5], [10, 14, 6], [11, 15, 7]);)+
        $(quarter!($v, $add, $xor, $rol, 16, [0, 5, 15], [1, 6, 12], [2, 7, 13], [3, 4, 14]);)+
        $(quarter!($v, $add, $xor, $rol, 12, [10, 15, 5], [11, 12, 6], [8, 13, 7], [9, 14, 4]);)+
        $(quarter!($v, $add, $xor, $rol, 8, [0, 5, 15], [1, 6, 12], [2, 7, 13], [3, 4, 14]);)+
        $(quarter!($v, $add, $xor, $rol, 7, [10, 15, 5], [11, 12, 6], [8, 13, 7], [9, 14, 4]);)+
    };
}

impl Stream<'_> {
    /// [`WIDE`] blocks from block number `first` on.
    #[inline]
    #[target_feature(enable = "avx512f")]
    pub(super) fn wide(self, first: u32) -> [__m512i; WIDE] {
        let words = self.words();
        let counters = wide_counters(first);
        let mut v = wide_start(&words, counters);

        for _ in 0..10 {
            double_round!(v: _mm512_add_epi32, _mm512_xor_si512, _mm512_rol_epi32);
        }

        wide_end(v, &words, counters)
    }

    /// [`NARROW`] blocks from block number `first` on.
    #[inline]
    #[target_feature(enable = "avx512f,avx512vl")]
    pub(super) fn narrow(self, first: u32) -> [__m512i; NARROW] {
        let words = self.words();
        let counters = narrow_counters(first);
        let mut v = narrow_start(&words, counters);

        for _ in 0..10 {
            double_round!(v: _mm256_add_epi32, _mm256_xor_si256, _mm256_rol_epi32);
        }

        narrow_end(v, &words, counters)
    }

    /// [`WIDE`] blocks from block number `first` on, and [`NARROW`] blocks behind them.
    #[inline]
    #[target_feature(enable = "avx512f,avx512vl")]
    pub(super) fn both(self, first: u32) -> ([__m512i; WIDE], [__m512i; NARROW]) {
        let words = self.words();
        let counters = (wide_counters(first), narrow_counters(first + WIDE as u32));
        let mut wide = wide_start(&words, counters.0);
        let mut narrow = narrow_start(&words, counters.1);

        for _ in 0..10 {
            double_round!(
                wide: _mm512_add_epi32, _mm512_xor_si512, _mm512_rol_epi32;
                narrow: _mm256_add_epi32, _mm256_xor_si256, _mm256_rol_epi32
            );
        }

        (
            wide_end(wide, &words, counters.0),
            narrow_end(narrow, &words, counters.1),
        )
    }

    /// What all blocks have in common; the counter is zero.
    #[inline]
    fn words(self) -> [u32; 16] {
        let [c0, c1, c2, c3] = CONSTANTS;
        let [k0, k1, k2, k3, k4, k5, k6, k7] = *self.key;
        let (low, high) = (self.nonce as u32, (self.nonce >> 32) as u32);

        [
            c0, c1, c2, c3, k0, k1, k2, k3, k4, k5, k6, k7, 0, 0, low, high,
        ]
    }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn wide_counters(first: u32) -> __m512i {
    _mm512_add_epi32(
        _mm512_set1_epi32(first as i32),
        _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15),
    )
}

#[inline]
#[target_feature(enable = "avx2")]
fn narrow_counters(first: u32) -> __m256i {
    _mm256_add_epi32(
        _mm256_set1_epi32(first as i32),
        _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7),
    )
}

#[inline]
#[target_feature(enable = "avx512f")]
fn wide_start(words: &[u32; 16], counters: __m512i) -> [__m512i; 16] {
    let mut start = [counters; 16];
    for i in (0..16).filter(|i| *i != COUNTER) {
        start[i] = _mm512_set1_epi32(words[i] as i32);
    }

    start
}

#[inline]
#[target_feature(enable = "avx2")]
fn narrow_start(words: &[u32; 16], counters: __m256i) -> [__m256i; 16] {
    let mut start = [counters; 16];
    for i in (0..16).filter(|i| *i != COUNTER) {
        start[i] = _mm256_set1_epi32(words[i] as i32);
    }

    start
}

/// Adds the start and turns the vectors into blocks.
#[inline]
#[target_feature(enable = "avx512f")]
fn wide_end(mut v: [__m512i; 16], words: &[u32; 16], counters: __m512i) -> [__m512i; WIDE] {
    // Made again: there is no register to keep the start in.
    for i in 0..16 {
        let start = match i {
            COUNTER => counters,
            _ => _mm512_set1_epi32(words[i] as i32),
        };
        v[i] = _mm512_add_epi32(v[i], start);
    }
    let quads = [
        wide_quad([v[0], v[1], v[2], v[3]]),
        wide_quad([v[4], v[5], v[6], v[7]]),
        wide_quad([v[8], v[9], v[10], v[11]]),
        wide_quad([v[12], v[13], v[14], v[15]]),
    ];

    // 128-bit lane `l` of `quads[g][k]` is words 4g to 4g + 3 of block 4l + k.
    let mut blocks = v;
    for k in 0..4 {
        let [a, b, c, d] = [quads[0][k], quads[1][k], quads[2][k], quads[3][k]];
        let (ab_front, ab_back) = (
            _mm512_shuffle_i32x4::<0x44>(a, b),
            _mm512_shuffle_i32x4::<0xee>(a, b),
        );
        let (cd_front, cd_back) = (
            _mm512_shuffle_i32x4::<0x44>(c, d),
            _mm512_shuffle_i32x4::<0xee>(c, d),
        );
        blocks[k] = _mm512_shuffle_i32x4::<0x88>(ab_front, cd_front);
        blocks[4 + k] = _mm512_shuffle_i32x4::<0xdd>(ab_front, cd_front);
        blocks[8 + k] = _mm512_shuffle_i32x4::<0x88>(ab_back, cd_back);
        blocks[12 + k] = _mm512_shuffle_i32x4::<0xdd>(ab_back, cd_back);
    }

    blocks
}

/// Adds the start and turns the vectors into blocks.
#[inline]
#[target_feature(enable = "avx512f,avx512vl")]
fn narrow_end(mut v: [__m256i; 16], words: &[u32; 16], counters: __m256i) -> [__m512i; NARROW] {
    for i in 0..16 {
        let start = match i {
            COUNTER => counters,
            _ => _mm256_set1_epi32(words[i] as i32),
        };
        v[i] = _mm256_add_epi32(v[i], start);
    }
    let quads = [
        narrow_quad([v[0], v[1], v[2], v[3]]),
        narrow_quad([v[4], v[5], v[6], v[7]]),
        narrow_quad([v[8], v[9], v[10], v[11]]),
        narrow_quad([v[12], v[13], v[14], v[15]]),
    ];

    // 128-bit lane `l` of `quads[g][k]` is words 4g to 4g + 3 of block 4l + k.
    let mut blocks = [_mm512_setzero_si512(); NARROW];
    for k in 0..4 {
        let [a, b, c, d] = [quads[0][k], quads[1][k], quads[2][k], quads[3][k]];
        blocks[k] = _mm512_inserti64x4::<1>(
            _mm512_castsi256_si512(_mm256_permute2x128_si256::<0x20>(a, b)),
            _mm256_permute2x128_si256::<0x20>(c, d),
        );
        blocks[4 + k] = _mm512_inserti64x4::<1>(
            _mm512_castsi256_si512(_mm256_permute2x128_si256::<0x31>(a, b)),
            _mm256_permute2x128_si256::<0x31>(c, d),
        );
    }

    blocks
}

/// Transposes 4 by 4 words in each 128-bit lane.
#[inline]
#[target_feature(enable = "avx512f")]
fn wide_quad([a, b, c, d]: [__m512i; 4]) -> [__m512i; 4] {
    let (ab_low, ab_high) = (_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
    let (cd_low, cd_high) = (_mm512_unpacklo_epi32(c, d), _mm512_unpackhi_epi32(c, d));

    [
        _mm512_unpacklo_epi64(ab_low, cd_low),
        _mm512_unpackhi_epi64(ab_low, cd_low),
        _mm512_unpacklo_epi64(ab_high, cd_high),
        _mm512_unpackhi_epi64(ab_high, cd_high),
    ]
}

/// Transposes 4 by 4 words in each 128-bit lane.
#[inline]
#[target_feature(enable = "avx2")]
fn narrow_quad([a, b, c, d]: [__m256i; 4]) -> [__m256i; 4] {
    let (ab_low, ab_high) = (_mm256_unpacklo_epi32(a, b), _mm256_unpackhi_epi32(a, b));
    let (cd_low, cd_high) = (_mm256_unpacklo_epi32(c, d), _mm256_unpackhi_epi32(c, d));

    [
        _mm256_unpacklo_epi64(ab_low, cd_low),
        _mm256_unpackhi_epi64(ab_low, cd_low),
        _mm256_unpacklo_epi64(ab_high, cd_high),
        _mm256_unpackhi_epi64(ab_high, cd_high),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first block of a stream, however it is made.
    fn first_blocks(key: [u8; 32]) -> Option<[[u8; 64]; 3]> {
        if !(is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512vl")) {
            return None;
        }
        let (words, _) = key.as_chunks::<4>();
        let key = core::array::from_fn(|i| u32::from_le_bytes(words[i]));
        let stream = Stream {
            key: &key,
            nonce: 0,
        };
        let bytes = |block: __m512i| {
            let mut bytes = [0; 64];
            // SAFETY: the instructions are there, as was asked above.
            unsafe { super::super::bytes::xor(block, &[0; 64], &mut bytes) };
            bytes
        };

        // SAFETY: as above.
        Some(unsafe {
            [
                bytes(stream.wide(0)[0]),
                bytes(stream.narrow(0)[0]),
                bytes(stream.both(0).0[0]),
            ]
        })
    }

    /// RFC 8439 §A.1, test vector 1.
    #[test]
    fn block_0_of_the_zero_key() {
        let expected = [
            0x76, 0xb8, 0xe0, 0xad, 0xa0, 0xf1, 0x3d, 0x90, 0x40, 0x5d, 0x6a, 0xe5, 0x53, 0x86,
            0xbd, 0x28, 0xbd, 0xd2, 0x19, 0xb8, 0xa0, 0x8d, 0xed, 0x1a, 0xa8, 0x36, 0xef, 0xcc,
            0x8b, 0x77, 0x0d, 0xc7, 0xda, 0x41, 0x59, 0x7c, 0x51, 0x57, 0x48, 0x8d, 0x77, 0x24,
            0xe0, 0x3f, 0xb8, 0xd8, 0x4a, 0x37, 0x6a, 0x43, 0xb8, 0xf4, 0x15, 0x18, 0xa1, 0x1c,
            0xc3, 0x87, 0xb6, 0x69, 0xb2, 0xee, 0x65, 0x86,
        ];

        for block in first_blocks([0; 32]).iter().flatten() {
            assert_eq!(*block, expected);
        }
    }

    /// The same block must come out of each width, wherever it stands.
    #[test]
    fn widths_agree() {
        if !(is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512vl")) {
            return;
        }
        let key = core::array::from_fn(|i| i as u32 * 0x0123_4567);
        let stream = Stream {
            key: &key,
            nonce: u64::MAX - 5,
        };
        let bytes = |block: __m512i| {
            let mut bytes = [0; 64];
            // SAFETY: the instructions are there, as was asked above.
            unsafe { super::super::bytes::xor(block, &[0; 64], &mut bytes) };
            bytes
        };

        // SAFETY: as above.
        let (both, wide, narrow) = unsafe {
            let (front, back) = stream.both(0);
            (
                [&front[..], &back[..]].concat(),
                [stream.wide(0), stream.wide(16)].concat(),
                [stream.narrow(0), stream.narrow(8), stream.narrow(16)].concat(),
            )
        };
        for ((both, wide), narrow) in both.into_iter().zip(wide).zip(narrow) {
            assert_eq!(bytes(both), bytes(wide));
            assert_eq!(bytes(both), bytes(narrow));
        }
    }
}
