//! Poly1305 (RFC 8439 §2.5), 16 blocks at a time with the 52-bit multiply-add of AVX-512.
//!
//! Numbers modulo 2^130 - 5 are three limbs of 44, 44 and 42 bits. Blocks are dealt out to 16 lanes, each of which evaluates a
//! polynomial in r^16; at the end every lane is multiplied by the power of r that its last block is away from the end, and the
//! lanes are added up.

use core::arch::x86_64::{
    __m512i, _mm512_add_epi64, _mm512_and_si512, _mm512_broadcastq_epi64, _mm512_castsi512_si128,
    _mm512_madd52hi_epu64, _mm512_madd52lo_epu64, _mm512_mask_blend_epi64, _mm512_mask_set1_epi64,
    _mm512_or_si512, _mm512_reduce_add_epi64, _mm512_set1_epi64, _mm512_setr_epi64,
    _mm512_setzero_si512, _mm512_slli_epi64, _mm512_srli_epi64, _mm512_unpackhi_epi64,
    _mm512_unpacklo_epi64,
};

use super::bytes;

/// Bytes of a block, and of the tag.
const BLOCK_LEN: usize = 16;
/// Lanes of a vector.
const LANES: usize = 8;
/// Blocks that two vectors take at once.
const GROUP: usize = 2 * LANES;

/// Bits of r that are used (RFC 8439 §2.5).
const CLAMP: u128 = 0x0fff_fffc_0fff_fffc_0fff_fffc_0fff_ffff;
const MASK44: u64 = (1 << 44) - 1;
const MASK42: u64 = (1 << 42) - 1;
/// 2^128, which every block has on top (RFC 8439 §2.5.1), in the highest limb.
const TOP: u64 = 1 << 40;

/// The authenticator of one message.
pub(super) struct Poly1305 {
    r: Number,
    /// Added at the end, as a number of 128 bits.
    s: u128,
    /// What was fed so far.
    sum: Number,
}

/// A number modulo 2^130 - 5, not fully reduced.
#[derive(Clone, Copy)]
struct Number([u64; 3]);

impl Poly1305 {
    /// From the first 32 bytes of the key stream, RFC 8439 §2.6: four words of 64 bits.
    #[inline]
    pub(super) fn new([r0, r1, s0, s1]: [u64; 4]) -> Self {
        let r = (u128::from(r1) << 64 | u128::from(r0)) & CLAMP;

        Self {
            r: Number([
                r as u64 & MASK44,
                (r >> 44) as u64 & MASK44,
                (r >> 88) as u64,
            ]),
            s: u128::from(s1) << 64 | u128::from(s0),
            sum: Number([0; 3]),
        }
    }

    /// Feeds all of `data`, filled up with zeros to whole blocks.
    #[inline]
    #[target_feature(enable = "avx512f,avx512ifma")]
    pub(super) fn update_padded(&mut self, data: &[u8]) {
        let (blocks, rest) = data.as_chunks::<BLOCK_LEN>();
        // What is at the front belongs to no group: then the groups end with the last whole block.
        let (singles, groups) = blocks.as_rchunks::<GROUP>();

        for block in singles {
            self.update(block);
        }
        if let Some((first, others)) = groups.split_first() {
            self.update_groups(first, others);
        }
        if !rest.is_empty() {
            let mut last = [0; BLOCK_LEN];
            last[..rest.len()].copy_from_slice(rest);
            self.update(&last);
        }
    }

    /// Feeds one block.
    #[inline]
    pub(super) fn update(&mut self, block: &[u8; BLOCK_LEN]) {
        let block = u128::from_le_bytes(*block);
        let [h0, h1, h2] = self.sum.0;

        self.sum = Number([
            h0 + (block as u64 & MASK44),
            h1 + ((block >> 44) as u64 & MASK44),
            h2 + ((block >> 88) as u64 | TOP),
        ])
        .times(self.r);
    }

    /// Feeds whole groups.
    #[inline]
    #[target_feature(enable = "avx512f,avx512ifma")]
    fn update_groups(
        &mut self,
        first: &[[u8; BLOCK_LEN]; GROUP],
        others: &[[[u8; BLOCK_LEN]; GROUP]],
    ) {
        let powers = Powers::new(self.r);
        let (front, back) = Lanes::load_group(first);
        // What came before goes with the first block.
        let (mut front, mut back) = (front.plus(Lanes::first(self.sum)), back);

        for group in others {
            let (next_front, next_back) = Lanes::load_group(group);
            front = front.times(&powers.of_group).plus(next_front);
            back = back.times(&powers.of_group).plus(next_back);
        }

        self.sum = front
            .times(&powers.from16to9)
            .plus(back.times(&powers.from8to1))
            .add_up();
    }

    /// The tag.
    #[inline]
    pub(super) fn finish(self) -> [u8; BLOCK_LEN] {
        let [h0, h1, h2] = self.sum.reduced().0.map(u128::from);

        (h0 | h1 << 44 | h2 << 88)
            .wrapping_add(self.s)
            .to_le_bytes()
    }
}

impl Number {
    /// Product; limbs of both factors may exceed their width by a few bits.
    #[inline]
    fn times(self, other: Self) -> Self {
        let [h0, h1, h2] = self.0.map(u128::from);
        let [r0, r1, r2] = other.0.map(u128::from);
        // 2^132 = 20 (mod 2^130 - 5).
        let (s1, s2) = (20 * r1, 20 * r2);

        let d0 = h0 * r0 + h1 * s2 + h2 * s1;
        let d1 = h0 * r1 + h1 * r0 + h2 * s2 + (d0 >> 44);
        let d2 = h0 * r2 + h1 * r1 + h2 * r0 + (d1 >> 44);
        let over = (d2 >> 42) as u64 * 5;
        let d0 = (d0 as u64 & MASK44) + over;

        Self([
            d0 & MASK44,
            (d1 as u64 & MASK44) + (d0 >> 44),
            d2 as u64 & MASK42,
        ])
    }

    /// The one representation below 2^130 - 5.
    #[inline]
    fn reduced(self) -> Self {
        let mut h = self.0;
        // Twice, since the first carry out of the top may ripple through all limbs.
        for _ in 0..2 {
            h[1] += h[0] >> 44;
            h[2] += h[1] >> 44;
            let over = h[2] >> 42;
            h = [(h[0] & MASK44) + 5 * over, h[1] & MASK44, h[2] & MASK42];
        }
        h[1] += h[0] >> 44;
        h[0] &= MASK44;

        // Subtract 2^130 - 5 if that does not go below zero, without a branch.
        let g0 = h[0] + 5;
        let g1 = h[1] + (g0 >> 44);
        let g2 = (h[2] + (g1 >> 44)).wrapping_sub(1 << 42);
        let below = ((g2 as i64) >> 63) as u64;

        Self([
            h[0] & below | g0 & MASK44 & !below,
            h[1] & below | g1 & MASK44 & !below,
            h[2] & below | g2 & !below,
        ])
    }
}

/// Eight numbers, limb by limb. Lane order as [`Lanes::load`] leaves it.
#[derive(Clone, Copy)]
struct Lanes([__m512i; 3]);

/// Eight factors with what a product needs of them.
struct Factor {
    r: [__m512i; 3],
    /// 20 times the two higher limbs.
    s: [__m512i; 2],
}

/// Powers of r, in the lane order of [`Lanes::load`].
struct Powers {
    /// r^16 in all lanes.
    of_group: Factor,
    from16to9: Factor,
    from8to1: Factor,
}

impl Powers {
    #[inline]
    #[target_feature(enable = "avx512f,avx512ifma")]
    fn new(r: Number) -> Self {
        let r2 = r.times(r);
        let (r3, r4) = (r2.times(r), r2.times(r2));
        let from4to1 = Lanes::set([r4, r4, r3, r3, r2, r2, r, r]);
        let from8to5 = from4to1.times(&Factor::new(Lanes::set([r4; LANES])));
        // Even lanes hold the first four blocks, odd lanes the last four.
        let from8to1 = from8to5.blend(from4to1, 0b1010_1010);
        let factor8to1 = Factor::new(from8to1);
        let from16to9 = from8to1.times(&Factor::new(from8to1.spread_first()));

        Self {
            of_group: Factor::new(from16to9.spread_first()),
            from16to9: Factor::new(from16to9),
            from8to1: factor8to1,
        }
    }
}

impl Factor {
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn new(Lanes(r): Lanes) -> Self {
        let times20 =
            |limb| _mm512_add_epi64(_mm512_slli_epi64::<4>(limb), _mm512_slli_epi64::<2>(limb));

        Self {
            r,
            s: [times20(r[1]), times20(r[2])],
        }
    }
}

impl Lanes {
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn set(numbers: [Number; LANES]) -> Self {
        let limb = |i: usize| {
            let [a, b, c, d, e, f, g, h] = numbers.map(|number| number.0[i] as i64);
            _mm512_setr_epi64(a, b, c, d, e, f, g, h)
        };

        Self([limb(0), limb(1), limb(2)])
    }

    /// `number` in the first lane, zero in the others.
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn first(number: Number) -> Self {
        Self(
            number
                .0
                .map(|limb| _mm512_mask_set1_epi64(_mm512_setzero_si512(), 1, limb as i64)),
        )
    }

    /// The first lane in all lanes.
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn spread_first(self) -> Self {
        Self(
            self.0
                .map(|limb| _mm512_broadcastq_epi64(_mm512_castsi512_si128(limb))),
        )
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    fn load_group(group: &[[u8; BLOCK_LEN]; GROUP]) -> (Self, Self) {
        let [a, b, c, d] = group.as_flattened().as_chunks().0 else {
            unreachable!("a group is four times 64 bytes");
        };

        (Self::load(a, b), Self::load(c, d))
    }

    /// Eight blocks. Lane `i` takes block `[0, 4, 1, 5, 2, 6, 3, 7][i]`.
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn load(front: &[u8; 64], back: &[u8; 64]) -> Self {
        let (front, back) = (bytes::load(front), bytes::load(back));
        let low = _mm512_unpacklo_epi64(front, back);
        let high = _mm512_unpackhi_epi64(front, back);
        let middle = _mm512_or_si512(_mm512_srli_epi64::<44>(low), _mm512_slli_epi64::<20>(high));
        let mask = _mm512_set1_epi64(MASK44 as i64);
        let top = _mm512_set1_epi64(TOP as i64);

        Self([
            _mm512_and_si512(low, mask),
            _mm512_and_si512(middle, mask),
            _mm512_or_si512(_mm512_srli_epi64::<24>(high), top),
        ])
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    fn blend(self, other: Self, from_other: u8) -> Self {
        Self(core::array::from_fn(|i| {
            _mm512_mask_blend_epi64(from_other, self.0[i], other.0[i])
        }))
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    fn plus(self, other: Self) -> Self {
        Self(core::array::from_fn(|i| {
            _mm512_add_epi64(self.0[i], other.0[i])
        }))
    }

    /// Lane by lane. Limbs may exceed their width by 7 bits; those of the product are within, but for a carry of 12 bits
    /// in the middle one.
    #[inline]
    #[target_feature(enable = "avx512f,avx512ifma")]
    fn times(self, factor: &Factor) -> Self {
        let [h0, h1, h2] = self.0;
        let Factor {
            r: [r0, r1, r2],
            s: [s1, s2],
        } = *factor;
        let zero = _mm512_setzero_si512();
        let low = |a, b, c, d, e, f| {
            _mm512_madd52lo_epu64(
                _mm512_madd52lo_epu64(_mm512_madd52lo_epu64(zero, a, b), c, d),
                e,
                f,
            )
        };
        let high = |a, b, c, d, e, f| {
            _mm512_madd52hi_epu64(
                _mm512_madd52hi_epu64(_mm512_madd52hi_epu64(zero, a, b), c, d),
                e,
                f,
            )
        };
        let d0 = low(h0, r0, h1, s2, h2, s1);
        let d1 = low(h0, r1, h1, r0, h2, s2);
        let d2 = low(h0, r2, h1, r1, h2, r0);
        // 52 bits above: 8 bits into the next limb.
        let u0 = high(h0, r0, h1, s2, h2, s1);
        let u1 = high(h0, r1, h1, r0, h2, s2);
        let u2 = high(h0, r2, h1, r1, h2, r0);

        let mask44 = _mm512_set1_epi64(MASK44 as i64);
        let mask42 = _mm512_set1_epi64(MASK42 as i64);
        let d1 = _mm512_add_epi64(d1, _mm512_slli_epi64::<8>(u0));
        let d2 = _mm512_add_epi64(d2, _mm512_slli_epi64::<8>(u1));
        let d1 = _mm512_add_epi64(d1, _mm512_srli_epi64::<44>(d0));
        let d2 = _mm512_add_epi64(d2, _mm512_srli_epi64::<44>(d1));
        // What exceeds 2^130 comes back five times.
        let over = _mm512_add_epi64(_mm512_srli_epi64::<42>(d2), _mm512_slli_epi64::<10>(u2));
        let over = _mm512_add_epi64(over, _mm512_slli_epi64::<2>(over));
        let d0 = _mm512_add_epi64(_mm512_and_si512(d0, mask44), over);

        Self([
            _mm512_and_si512(d0, mask44),
            _mm512_add_epi64(_mm512_and_si512(d1, mask44), _mm512_srli_epi64::<44>(d0)),
            _mm512_and_si512(d2, mask42),
        ])
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    fn add_up(self) -> Number {
        let [h0, h1, h2] = self.0.map(|limb| _mm512_reduce_add_epi64(limb) as u64);
        let h1 = h1 + (h0 >> 44);
        let h2 = h2 + (h1 >> 44);

        Number([(h0 & MASK44) + 5 * (h2 >> 42), h1 & MASK44, h2 & MASK42])
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// r, s, message, tag.
    type Vector = (u128, u128, &'static [[u8; 16]], u128);

    const ONES: [u8; 16] = [0xff; 16];

    const fn block(low: u128) -> [u8; 16] {
        low.to_le_bytes()
    }

    /// RFC 8439 §A.3, test vectors 7 to 11: carries and reductions at their limits.
    const LIMITS: [Vector; 5] = [
        (2, 0, &[ONES], 3),
        (2, u128::MAX, &[block(2)], 3),
        (1, 0, &[ONES, block(u128::MAX - 0xf), block(0x11)], 5),
        (
            1,
            0,
            &[
                ONES,
                [
                    0xfb, 0xfe, 0xfe, 0xfe, 0xfe, 0xfe, 0xfe, 0xfe, 0xfe, 0xfe, 0xfe, 0xfe, 0xfe,
                    0xfe, 0xfe, 0xfe,
                ],
                [1; 16],
            ],
            0,
        ),
        (2, 0, &[block(u128::MAX - 2)], u128::MAX - 5),
    ];

    fn poly(r: u128, s: u128) -> Poly1305 {
        Poly1305::new([r as u64, (r >> 64) as u64, s as u64, (s >> 64) as u64])
    }

    #[test]
    fn limits_of_the_rfc() {
        for (r, s, message, tag) in LIMITS {
            let mut poly = poly(r, s);
            for block in message {
                poly.update(block);
            }
            assert_eq!(u128::from_le_bytes(poly.finish()), tag, "r = {r}, s = {s}");
        }
    }

    fn available() -> bool {
        is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512ifma")
    }

    /// Bytes that make for carries more often than random ones do.
    fn extreme_bytes() -> impl Strategy<Value = Vec<u8>> {
        let byte = prop_oneof![4 => Just(0xff_u8), 2 => Just(0), 1 => Just(0xfb), 2 => any::<u8>()];
        prop::collection::vec(byte, 0..1400)
    }

    proptest! {
        /// Sixteen blocks at a time or one by one, it is the same sum.
        #[test]
        fn groups_are_blocks(
            r in prop_oneof![Just(u128::MAX), Just(0), any::<u128>()],
            s in any::<u128>(),
            before in prop::collection::vec(prop_oneof![Just(ONES), any::<[u8; 16]>()], 0..3),
            message in extreme_bytes(),
        ) {
            if !available() {
                return Ok(());
            }
            let (mut whole, mut single) = (poly(r, s), poly(r, s));
            for block in &before {
                whole.update(block);
                single.update(block);
            }
            // SAFETY: the instructions are there, as was asked above.
            unsafe { whole.update_padded(&message) };
            for chunk in message.chunks(16) {
                let mut block = [0; 16];
                block[..chunk.len()].copy_from_slice(chunk);
                single.update(&block);
            }

            prop_assert_eq!(whole.finish(), single.finish());
        }
    }
}
