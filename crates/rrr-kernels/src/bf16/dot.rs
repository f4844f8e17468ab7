//! Products of tiles with AVX-512's dot products of pairs, `VDPBF16PS`: rows meet weights in vector registers, 8 rows of
//! two tiles or 16 rows of one at a time.

#![allow(clippy::needless_range_loop, reason = "register tiles are indexed by row and vector")]

use super::tiles::{Product, Tiles};
use super::vectors::Avx512Bf16;
use crate::prefetch::{NEAR, prefetch};
use crate::tiles::{ROW_BYTES, Registers, SIDE, TILE};
use std::arch::x86_64::*;

/// Products in vector registers.
pub struct Dot(());

/// The operands of a step of `N` tiles of sums.
pub struct Operands<const N: usize> {
    /// First operand, rows of 64 bytes.
    pub a: *const u8,
    /// Bytes from one of these rows to the next.
    pub stride: usize,
    /// Second operands.
    pub b: [*const u8; N],
    /// How many u32 of a row hold values.
    pub words: usize,
}

/// Steps ahead of which operands are fetched.
const AHEAD: usize = 2;

impl Registers for Dot {
    #[inline(always)]
    unsafe fn new() -> Self {
        Self(())
    }
}

impl Tiles for Dot {
    type V = Avx512Bf16;

    #[inline(always)]
    unsafe fn multiply<const M: usize, const N: usize>(&self, p: &Product<'_, N>) {
        // SAFETY: pointers and features by the caller.
        unsafe {
            for m in 0..M {
                let a = p.a.add(m * p.a_stride);
                let operands = |step: usize| Operands {
                    a: a.wrapping_add(step * TILE).cast(),
                    stride: ROW_BYTES,
                    b: p.b.map(|b| b.wrapping_add(p.steps[step] as usize).cast()),
                    words: SIDE,
                };
                let c = p.c.add(m * p.c_stride);
                if N == 1 {
                    add_rows::<16, N>(p.steps.len(), operands, 0, c, p.accumulate);
                } else {
                    add_rows::<8, N>(p.steps.len(), operands, 0, c, p.accumulate);
                    add_rows::<8, N>(p.steps.len(), operands, 8, c, p.accumulate);
                }
            }
        }
    }
}

/// Sets `R` rows of `N` tiles of `c` to a product, or adds it.
///
/// # Safety
/// As for [`multiply`]; `c` must have the tiles.
#[inline(always)]
unsafe fn add_rows<const R: usize, const N: usize>(
    steps: usize,
    operands: impl Fn(usize) -> Operands<N>,
    first: usize,
    c: *mut f32,
    add: bool,
) {
    // SAFETY: by the caller.
    unsafe {
        let c = c.add(first * SIDE);
        let mut sums = [[_mm512_setzero_ps(); N]; R];
        if add {
            for r in 0..R {
                for n in 0..N {
                    sums[r][n] = _mm512_loadu_ps(c.add(n * TILE + r * SIDE));
                }
            }
        }
        let sums = multiply(steps, operands, first, sums);
        for r in 0..R {
            for n in 0..N {
                _mm512_storeu_ps(c.add(n * TILE + r * SIDE), sums[r][n]);
            }
        }
    }
}

/// Adds to `R` rows of `N` tiles of sums the products of all steps with the rows from the `first` on: pair by pair, the odd
/// value of k before the even one.
///
/// # Safety
/// The CPU must have AVX-512 with BF16, and the operands of all steps must be valid for reading.
#[inline(always)]
pub unsafe fn multiply<const R: usize, const N: usize>(
    steps: usize,
    operands: impl Fn(usize) -> Operands<N>,
    first: usize,
    mut sums: [[__m512; N]; R],
) -> [[__m512; N]; R] {
    // SAFETY: by the caller.
    unsafe {
        for step in 0..steps {
            let now = operands(step);
            let then = operands((step + AHEAD).min(steps - 1));
            let a = now.a.add(first * now.stride);
            for p in 0..now.words {
                prefetch::<NEAR>(then.a.wrapping_add(p * then.stride));
                let mut b = [_mm512_setzero_si512(); N];
                for n in 0..N {
                    prefetch::<NEAR>(then.b[n].wrapping_add(p * ROW_BYTES));
                    b[n] = _mm512_loadu_si512(now.b[n].add(p * ROW_BYTES).cast());
                }
                for r in 0..R {
                    let pair = a.add(r * now.stride + p * size_of::<u32>()).cast::<i32>();
                    let pair = bf16(_mm512_set1_epi32(pair.read_unaligned()));
                    for n in 0..N {
                        sums[r][n] = _mm512_dpbf16_ps(sums[r][n], pair, bf16(b[n]));
                    }
                }
            }
        }
        sums
    }
}

#[inline(always)]
unsafe fn bf16(bits: __m512i) -> __m512bh {
    // SAFETY: both are 64 bytes, for which all bits are valid.
    unsafe { std::mem::transmute(bits) }
}
