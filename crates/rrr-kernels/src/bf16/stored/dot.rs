//! Products in vector registers that read activations of bf16 where they lie.

use super::super::dot::{Dot, Operands, multiply};
use super::finish::Rows;
use super::outcome::Rounded;
use crate::tiles::{Finish, Product, RowTiles, TILE_BYTES};
use std::arch::x86_64::*;

/// Every product's sums are finished from the registers.
impl RowTiles<Rounded<'_>> for Dot {
    #[inline(always)]
    unsafe fn multiply_rows<const M: usize, const N: usize>(
        &self,
        p: &Product<'_>,
        own: &Finish<Rounded<'_>>,
        _before: Option<&Finish<Rounded<'_>>>,
    ) {
        for m in 0..M {
            for first in (0..own.rows[m]).step_by(if N == 1 { 16 } else { 8 }) {
                // SAFETY: passed on to the caller.
                unsafe {
                    match N {
                        1 => rows_of_tile::<16, N>(p, own, m, first),
                        _ => rows_of_tile::<8, N>(p, own, m, first),
                    }
                }
            }
        }
    }

    #[inline(always)]
    unsafe fn settle(&self, _last: &Finish<Rounded<'_>>) {}
}

/// Computes and finishes up to `R` rows of a tile from the `first` on.
///
/// # Safety
/// As for [`RowTiles::multiply_rows`].
#[inline(always)]
unsafe fn rows_of_tile<const R: usize, const N: usize>(
    p: &Product<'_>,
    own: &Finish<Rounded<'_>>,
    m: usize,
    first: usize,
) {
    let operands = |step: usize| {
        let step = &p.steps[step];
        let b = p.b.wrapping_add(step.b as usize * N * TILE_BYTES);
        let b = std::array::from_fn(|n| b.wrapping_add(n * TILE_BYTES));
        Operands { a: step.a[m], stride: step.stride[m] as usize, b, words: step.words as usize }
    };
    // SAFETY: by the caller.
    unsafe {
        let sums = multiply(p.steps.len(), operands, first, [[_mm512_setzero_ps(); N]; R]);
        let rows = own.rows[m].min(first + R) - first;
        if own.residual[m].is_null() {
            finish::<R, N, false>(own, m, first, rows, &sums);
        } else {
            finish::<R, N, true>(own, m, first, rows, &sums);
        }
    }
}

/// Finishes some of `R` rows.
///
/// # Safety
/// As for [`RowTiles::multiply_rows`].
#[inline(always)]
unsafe fn finish<const R: usize, const N: usize, const RESIDUAL: bool>(
    own: &Finish<Rounded<'_>>,
    m: usize,
    first: usize,
    rows: usize,
    sums: &[[__m512; N]; R],
) {
    // SAFETY: by the caller.
    unsafe {
        let to = Rows::<RESIDUAL>::new(own, m);
        for (r, sums) in sums.iter().enumerate() {
            if r < rows {
                let high = if N == 2 { sums[N - 1] } else { _mm512_setzero_ps() };
                to.finish(first + r, sums[0], high);
            }
        }
    }
}
