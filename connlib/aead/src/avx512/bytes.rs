//! Between memory and vectors. All that is unsafe about them is here.

use core::arch::x86_64::{
    __m512i, _mm256_extract_epi64, _mm512_castsi512_si256, _mm512_loadu_si512,
    _mm512_mask_storeu_epi8, _mm512_maskz_loadu_epi8, _mm512_storeu_si512, _mm512_xor_si512,
};

/// The 64 bytes as they lie in memory.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn load(bytes: &[u8; 64]) -> __m512i {
    // SAFETY: reads 64 bytes, of any alignment.
    unsafe { _mm512_loadu_si512(bytes.as_ptr().cast()) }
}

/// Applies a block of key stream.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn xor(key: __m512i, from: &[u8; 64], to: &mut [u8; 64]) {
    let result = _mm512_xor_si512(key, load(from));
    // SAFETY: writes 64 bytes, of any alignment.
    unsafe { _mm512_storeu_si512(to.as_mut_ptr().cast(), result) }
}

/// Applies the front of a block of key stream to as many bytes as there are in both slices, at most 63.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
pub(super) fn xor_partial(key: __m512i, from: &[u8], to: &mut [u8]) {
    let len = from.len().min(to.len()).min(63);
    let mask = (1 << len) - 1;

    // SAFETY: only the bytes in the mask are read and written, and it has the `len` lowest bits; both slices are as long.
    unsafe {
        let text = _mm512_maskz_loadu_epi8(mask, from.as_ptr().cast());
        _mm512_mask_storeu_epi8(to.as_mut_ptr().cast(), mask, _mm512_xor_si512(key, text));
    }
}

/// The first four words of 64 bits.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn first_half(vector: __m512i) -> [u64; 4] {
    let half = _mm512_castsi512_si256(vector);

    [
        _mm256_extract_epi64::<0>(half) as u64,
        _mm256_extract_epi64::<1>(half) as u64,
        _mm256_extract_epi64::<2>(half) as u64,
        _mm256_extract_epi64::<3>(half) as u64,
    ]
}
