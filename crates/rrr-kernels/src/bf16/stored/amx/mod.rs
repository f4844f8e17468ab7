//! Tile registers that read activations where they lie.

mod finishing;
mod product;

use super::super::amx::Amx;
use super::super::tiles::{SIDE, TILE};
use super::product::{Finish, Product, Step, StoredTiles};
use finishing::{multiply_2x2, multiply_3x2};
use product::{multiply_1x1, multiply_1x2, multiply_2x1, multiply_3x1};
use std::arch::x86_64::*;
use std::mem::{offset_of, transmute};

impl StoredTiles for Amx {
    #[inline(always)]
    #[allow(private_interfaces, reason = "as declared")]
    unsafe fn multiply_rows<const M: usize, const N: usize>(&self, p: &Product<'_>, before: Option<&Finish>) {
        let plain = |f: &&Finish| {
            f.m == M && f.n == 2 && f.rows[..M].iter().all(|&rows| rows == SIDE) && f.residual[0].is_null()
        };
        let alongside = before.filter(|f| M > 1 && N == 2 && plain(f));
        // SAFETY: pointers by the caller; `self` holds the configured tiles.
        unsafe {
            if let (Some(before), None) = (before, alongside) {
                Self::finish(before);
            }
            match (M, N) {
                (3, 2) => multiply_3x2(p, alongside),
                (3, 1) => multiply_3x1(p),
                (2, 2) => multiply_2x2(p, alongside),
                (2, 1) => multiply_2x1(p),
                (1, 2) => multiply_1x2(p),
                (1, 1) => multiply_1x1(p),
                _ => unreachable!("at most 3 x 2 tiles"),
            }
        }
    }

    #[inline(always)]
    #[allow(private_interfaces, reason = "as declared")]
    unsafe fn finish(f: &Finish) {
        for m in 0..f.m {
            // SAFETY: by the caller.
            unsafe {
                match (f.n, f.residual[m].is_null()) {
                    (2, true) => finish_tile::<2, false>(f, m),
                    (2, false) => finish_tile::<2, true>(f, m),
                    (_, true) => finish_tile::<1, false>(f, m),
                    (_, false) => finish_tile::<1, true>(f, m),
                }
            }
        }
    }

    #[inline(always)]
    fn prefetch(first: *const u8, stride: usize) {
        for r in 0..SIDE {
            // SAFETY: a hint, which any address may be given to; every x86-64 has it.
            unsafe { _mm_prefetch::<_MM_HINT_T1>(first.wrapping_add(r * stride).cast()) }
        }
    }
}

/// Finishes the rows of a tile, see [`StoredTiles::finish`].
#[inline(always)]
unsafe fn finish_tile<const N: usize, const RESIDUAL: bool>(f: &Finish, m: usize) {
    /// 16 bf16 as f32.
    #[inline(always)]
    unsafe fn widen(bits: *const u16) -> __m512 {
        // SAFETY: pointer and features by the caller.
        unsafe {
            let bits = _mm512_cvtepu16_epi32(_mm256_loadu_si256(bits.cast()));
            _mm512_castsi512_ps(_mm512_slli_epi32::<16>(bits))
        }
    }
    // SAFETY: pointers and features by the caller.
    unsafe {
        let bias = [_mm512_loadu_ps(f.bias), _mm512_loadu_ps(f.bias.add(SIDE))];
        // First operand of the maximum: NaN stays NaN.
        let least = _mm512_set1_ps(f.least());
        for r in 0..f.rows[m] {
            let sums = f.sums.add(m * N * TILE + r * SIDE);
            let mut low = _mm512_add_ps(_mm512_loadu_ps(sums), bias[0]);
            let high = if N == 2 { _mm512_loadu_ps(sums.add(TILE)) } else { _mm512_setzero_ps() };
            let mut high = _mm512_add_ps(high, bias[1]);
            if RESIDUAL {
                let residual = f.residual[m].add(r * f.stride);
                low = _mm512_add_ps(low, widen(residual));
                high = _mm512_add_ps(high, widen(residual.add(SIDE)));
            }
            let (low, high) = (_mm512_max_ps(least, low), _mm512_max_ps(least, high));
            let row = transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(high, low));
            _mm512_storeu_si512(f.y[m].add(r * f.stride).cast(), row);
        }
    }
}

// What the assembly takes for granted.
const _: () = {
    assert!(TILE * size_of::<u32>() == 1 << 10 && size_of::<Step>() == 40);
    assert!(offset_of!(Step, a) == 0 && offset_of!(Step, stride) == 24 && offset_of!(Step, b) == 36);
};
