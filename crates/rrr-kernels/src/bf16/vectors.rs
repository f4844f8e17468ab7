//! AVX-512 with BF16: rows of f32 and bf16.

use super::tiles::Vectors;
use std::arch::x86_64::*;

/// AVX-512 with BF16.
pub struct Avx512Bf16;

impl Vectors for Avx512Bf16 {
    #[inline(always)]
    unsafe fn round(low: *const f32, high: *const f32, to: *mut u32) {
        // SAFETY: pointers and features by the caller.
        unsafe {
            let row = _mm512_cvtne2ps_pbh(_mm512_loadu_ps(high), _mm512_loadu_ps(low));
            to.cast::<__m512bh>().write_unaligned(row);
        }
    }

    #[inline(always)]
    unsafe fn pair(even: *const f32, odd: *const f32, to: *mut u32) {
        /// Interleaves the halves of a vector of bf16.
        static HALVES: [u16; 32] = alternating(16);
        // SAFETY: pointers and features by the caller.
        unsafe {
            let halves = _mm512_cvtne2ps_pbh(_mm512_loadu_ps(odd), _mm512_loadu_ps(even));
            let halves = std::mem::transmute::<__m512bh, __m512i>(halves);
            let order = _mm512_loadu_si512(HALVES.as_ptr().cast());
            _mm512_storeu_si512(to.cast(), _mm512_permutexvar_epi16(order, halves));
        }
    }

    #[inline(always)]
    unsafe fn interleave(even: *const u16, odd: *const u16, to: [*mut u32; 2]) {
        /// Pairs of the first halves of two vectors of bf16; 16 more for the second halves.
        static PAIRS: [u16; 32] = alternating(32);
        // SAFETY: pointers and features by the caller.
        unsafe {
            let (even, odd) = (_mm512_loadu_si512(even.cast()), _mm512_loadu_si512(odd.cast()));
            let first = _mm512_loadu_si512(PAIRS.as_ptr().cast());
            let second = _mm512_add_epi16(first, _mm512_set1_epi16(16));
            _mm512_storeu_si512(to[0].cast(), _mm512_permutex2var_epi16(even, first, odd));
            _mm512_storeu_si512(to[1].cast(), _mm512_permutex2var_epi16(even, second, odd));
        }
    }

    #[inline(always)]
    unsafe fn transpose(from: *const u32, to: *mut u32) {
        // SAFETY: pointers and features by the caller.
        unsafe {
            let mut r = [_mm512_setzero_si512(); 16];
            for (i, row) in r.iter_mut().enumerate() {
                *row = _mm512_loadu_si512(from.add(i * 16).cast());
            }
            // Groups of four rows: 2 x 2, then 4 x 4 within each 128-bit lane.
            let mut t = [_mm512_setzero_si512(); 16];
            for i in (0..16).step_by(4) {
                let low = [_mm512_unpacklo_epi32(r[i], r[i + 1]), _mm512_unpacklo_epi32(r[i + 2], r[i + 3])];
                let high = [_mm512_unpackhi_epi32(r[i], r[i + 1]), _mm512_unpackhi_epi32(r[i + 2], r[i + 3])];
                t[i] = _mm512_unpacklo_epi64(low[0], low[1]);
                t[i + 1] = _mm512_unpackhi_epi64(low[0], low[1]);
                t[i + 2] = _mm512_unpacklo_epi64(high[0], high[1]);
                t[i + 3] = _mm512_unpackhi_epi64(high[0], high[1]);
            }
            // Then the lanes: `t[4 g + c]` holds in lane l the rows 4 g.. of column 4 l + c.
            for c in 0..4 {
                /// Lanes 0 and 2 of both vectors, or 1 and 3.
                #[inline(always)]
                unsafe fn pick<const ODD: bool>(a: __m512i, b: __m512i) -> __m512i {
                    // SAFETY: features by the caller.
                    unsafe {
                        if ODD {
                            _mm512_shuffle_i32x4::<0xdd>(a, b)
                        } else {
                            _mm512_shuffle_i32x4::<0x88>(a, b)
                        }
                    }
                }
                let (first, second) = (t[c], t[4 + c]);
                let (third, fourth) = (t[8 + c], t[12 + c]);
                let lanes_02 = [pick::<false>(first, second), pick::<false>(third, fourth)];
                let lanes_13 = [pick::<true>(first, second), pick::<true>(third, fourth)];
                let columns = [
                    pick::<false>(lanes_02[0], lanes_02[1]),
                    pick::<false>(lanes_13[0], lanes_13[1]),
                    pick::<true>(lanes_02[0], lanes_02[1]),
                    pick::<true>(lanes_13[0], lanes_13[1]),
                ];
                for (lane, column) in columns.into_iter().enumerate() {
                    _mm512_storeu_si512(to.add((4 * lane + c) * 16).cast(), column);
                }
            }
        }
    }
}

/// 0, `distance`, 1, `distance + 1`, ...
const fn alternating(distance: u16) -> [u16; 32] {
    let mut order = [0; 32];
    let mut i = 0;
    while i < 32 {
        order[i] = i as u16 / 2 + i as u16 % 2 * distance;
        i += 1;
    }
    order
}
