//! How sums become rows of bf16, with AVX-512 and BF16.

use super::outcome::Rounded;
use crate::tiles::{Finish, SIDE, TILE};
use std::arch::x86_64::*;
use std::mem::transmute;

/// Finishes a tile, see [`RowTiles::settle`](crate::tiles::RowTiles::settle).
///
/// # Safety
/// As there; the CPU must have AVX-512 with BF16.
#[inline(always)]
pub unsafe fn finish_tile(f: &Finish<Rounded<'_>>, m: usize) {
    // SAFETY: passed on to the caller.
    unsafe {
        match (f.n, f.residual[m].is_null()) {
            (2, true) => finish_rows::<2, false>(f, m),
            (2, false) => finish_rows::<2, true>(f, m),
            (_, true) => finish_rows::<1, false>(f, m),
            (_, false) => finish_rows::<1, true>(f, m),
        }
    }
}

/// Finishes the rows of a tile whose sums are in memory.
#[inline(always)]
unsafe fn finish_rows<const N: usize, const RESIDUAL: bool>(f: &Finish<Rounded<'_>>, m: usize) {
    // SAFETY: pointers and features by the caller.
    unsafe {
        let rows = Rows::<RESIDUAL>::new(f, m);
        for r in 0..f.rows[m] {
            let sums = f.sums.add(m * 2 * TILE + r * SIDE).cast::<f32>();
            let high = if N == 2 { _mm512_loadu_ps(sums.add(TILE)) } else { _mm512_setzero_ps() };
            rows.finish(r, _mm512_loadu_ps(sums), high);
        }
    }
}

/// What the rows of a tile have in common.
pub struct Rows<'a, const RESIDUAL: bool> {
    finish: &'a Finish<Rounded<'a>>,
    m: usize,
    bias: [__m512; 2],
    least: __m512,
}

impl<'a, const RESIDUAL: bool> Rows<'a, RESIDUAL> {
    /// Those of the tile `m`.
    ///
    /// # Safety
    /// The CPU must have AVX-512 with BF16, and the biases must be there.
    #[inline(always)]
    pub unsafe fn new(finish: &'a Finish<Rounded<'a>>, m: usize) -> Self {
        let bias = finish.outcome.bias.as_ptr();
        // SAFETY: by the caller.
        unsafe {
            let bias = [_mm512_loadu_ps(bias), _mm512_loadu_ps(bias.add(SIDE))];
            Self { finish, m, bias, least: _mm512_set1_ps(finish.outcome.least()) }
        }
    }

    /// Finishes a row.
    ///
    /// # Safety
    /// As for [`Rows::new`]; output and residual must have such a row.
    #[inline(always)]
    pub unsafe fn finish(&self, r: usize, low: __m512, high: __m512) {
        /// 16 bf16 as f32.
        #[inline(always)]
        unsafe fn widen(bits: *const u8) -> __m512 {
            // SAFETY: pointer and features by the caller.
            unsafe {
                let bits = _mm512_cvtepu16_epi32(_mm256_loadu_si256(bits.cast()));
                _mm512_castsi512_ps(_mm512_slli_epi32::<16>(bits))
            }
        }
        let f = self.finish;
        // SAFETY: by the caller.
        unsafe {
            let mut low = _mm512_add_ps(low, self.bias[0]);
            let mut high = _mm512_add_ps(high, self.bias[1]);
            if RESIDUAL {
                let residual = f.residual[self.m].add(r * f.residual_stride);
                low = _mm512_add_ps(low, widen(residual));
                high = _mm512_add_ps(high, widen(residual.add(2 * SIDE)));
            }
            // First operand of the maximum: NaN stays NaN.
            let (low, high) = (_mm512_max_ps(self.least, low), _mm512_max_ps(self.least, high));
            let row = transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(high, low));
            _mm512_storeu_si512(f.y[self.m].add(r * f.stride).cast(), row);
        }
    }
}
