//! How sums become bytes: `round(clamp(sum * scale + offset + residual * residual_scale, 0, max))`, by operations that
//! every CPU rounds alike.

use super::micro::{Panel, Tile};
use super::simd::Dot;
use crate::BLOCK;
use std::mem::MaybeUninit;

/// Adding it to a float in 0..=255 rounds to the nearest integer, ties to even, in the low bits.
const ROUND: f32 = 8_388_608.0;

/// Finishes the sums of some rows of a panel, one after the other.
///
/// # Safety
/// What the tile says of the panel must be true, and the CPU must support the instruction set.
#[inline(always)]
pub(super) unsafe fn in_memory<D: Dot, const R: usize, const N: usize>(
    t: &Tile<'_>,
    panel: &Panel,
    sums: &[[D::Sum; N]; R],
) {
    // SAFETY: by the caller.
    unsafe {
        // All sums first: a loop over rows that the compiler leaves one would keep them in memory all along.
        let mut rows = MaybeUninit::<[[i32; BLOCK]; R]>::uninit();
        let first = rows.as_mut_ptr().cast::<i32>();
        for (r, sums) in sums.iter().enumerate() {
            for (n, sum) in sums.iter().enumerate() {
                D::store(*sum, first.add(r * BLOCK + n * D::LANES));
            }
        }
        for (r, row) in rows.assume_init_ref().iter().enumerate() {
            finish(panel, t.max, (t.y_rows[r] as usize, t.residual_rows[r] as usize), row);
        }
    }
}

/// Turns the sums of a row into bytes, in plain Rust.
///
/// # Safety
/// The panel's pointers must be valid, those of the output and the residual at the offsets `at`.
#[inline(always)]
pub(super) unsafe fn finish(t: &Panel, max: f32, at: (usize, usize), sums: &[i32; BLOCK]) {
    // SAFETY: by the caller.
    unsafe {
        let (scale, offset) = (&*t.scale.cast::<[f32; BLOCK]>(), &*t.offset.cast::<[f32; BLOCK]>());
        let mut v: [f32; BLOCK] = std::array::from_fn(|c| sums[c] as f32 * scale[c] + offset[c]);
        if !t.residual.is_null() {
            let residual = &*t.residual.add(at.1).cast::<[u8; BLOCK]>();
            let scale = &*t.residual_scale.cast::<[f32; BLOCK]>();
            for c in 0..BLOCK {
                v[c] += f32::from(residual[c]) * scale[c];
            }
        }
        let bytes = v.map(|v| {
            let v = if v > 0.0 { v } else { 0.0 };
            let v = if v < max { v } else { max };
            (v + ROUND).to_bits() as u8
        });
        t.y.add(at.0).cast::<[u8; BLOCK]>().write(bytes);
    }
}

/// The same on AVX-512, four rows at a time.
#[cfg(target_arch = "x86_64")]
pub(super) mod avx512 {
    use super::*;
    use std::arch::x86_64::*;

    /// Rows whose bytes fill a vector.
    const ROWS: usize = 4;

    /// [`in_memory`](super::in_memory), but in registers, and of runs of `G` rows that lie `A` bytes apart in the input.
    ///
    /// # Safety
    /// As there.
    #[inline(always)]
    pub unsafe fn in_registers<const R: usize, const G: usize, const A: usize, const N: usize>(
        t: &Tile<'_>,
        panel: &Panel,
        sums: &[[__m512i; N]; R],
    ) {
        // SAFETY: by the caller.
        unsafe {
            // Not a loop: the compiler could leave it one, and would then keep the sums in memory.
            four_rows::<R, G, A, N, 0>(t, panel, sums);
            if R > 4 {
                four_rows::<R, G, A, N, 4>(t, panel, sums);
            }
            if R > 8 {
                four_rows::<R, G, A, N, 8>(t, panel, sums);
            }
            if R > 12 {
                four_rows::<R, G, A, N, 12>(t, panel, sums);
            }
        }
    }

    /// Finishes four rows or what there are from `FIRST` on.
    ///
    /// # Safety
    /// As for [`in_registers`].
    #[inline(always)]
    unsafe fn four_rows<
        const R: usize,
        const G: usize,
        const A: usize,
        const N: usize,
        const FIRST: usize,
    >(
        t: &Tile<'_>,
        panel: &Panel,
        sums: &[[__m512i; N]; R],
    ) {
        // SAFETY: by the caller.
        unsafe {
            let (scale, offset) = (_mm512_loadu_ps(panel.scale), _mm512_loadu_ps(panel.offset));
            let rows = (R - FIRST).min(ROWS);
            // Rows of images follow one another.
            let step = if A == BLOCK { BLOCK } else { t.y_step };
            let at = |rows: &[u32], i: usize| match G {
                1 => *rows.get_unchecked(FIRST + i) as usize,
                _ => *rows.get_unchecked((FIRST + i) / G) as usize + (FIRST + i) % G * step,
            };
            let mut v: [__m512; ROWS] = std::array::from_fn(|i| {
                let sum = sums[FIRST + i.min(rows - 1)][0];
                _mm512_add_ps(_mm512_mul_ps(_mm512_cvtepi32_ps(sum), scale), offset)
            });
            if !panel.residual.is_null() {
                let scale = _mm512_loadu_ps(panel.residual_scale);
                for (i, v) in v.iter_mut().enumerate().take(rows) {
                    let bytes = _mm_loadu_si128(panel.residual.add(at(t.residual_rows, i)).cast());
                    let residual = _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(bytes));
                    *v = _mm512_add_ps(*v, _mm512_mul_ps(residual, scale));
                }
            }
            let bytes = bytes(v, _mm512_set1_ps(t.max));
            let y = |i: usize| panel.y.add(at(t.y_rows, i));
            if G == ROWS && A == BLOCK {
                _mm512_storeu_si512(y(0).cast(), bytes);
                return;
            }
            _mm_storeu_si128(y(0).cast(), _mm512_castsi512_si128(bytes));
            if rows > 1 {
                _mm_storeu_si128(y(1).cast(), _mm512_extracti32x4_epi32::<1>(bytes));
            }
            if rows > 2 {
                _mm_storeu_si128(y(2).cast(), _mm512_extracti32x4_epi32::<2>(bytes));
            }
            if rows > 3 {
                _mm_storeu_si128(y(3).cast(), _mm512_extracti32x4_epi32::<3>(bytes));
            }
        }
    }

    /// The lesser of a row's values and `max`, rounded.
    ///
    /// # Safety
    /// The CPU must support AVX-512.
    #[inline(always)]
    unsafe fn clamped_and_rounded(v: __m512, max: __m512) -> __m512i {
        // SAFETY: features by the caller; for Miri, which knows neither instruction, all types are 16 numbers.
        unsafe {
            if cfg!(miri) {
                let [v, max] = [v, max].map(|v| std::mem::transmute::<__m512, [f32; BLOCK]>(v));
                let lanes = std::array::from_fn(|i| {
                    let v = if max[i] < v[i] { max[i] } else { v[i] };
                    if v.is_nan() { i32::MIN } else { v.round_ties_even() as i32 }
                });
                return std::mem::transmute::<[i32; BLOCK], __m512i>(lanes);
            }
            _mm512_cvtps_epi32(_mm512_min_ps(max, v))
        }
    }

    /// Clamps and rounds four rows to bytes. What is negative or no number becomes 0 when it is packed.
    ///
    /// # Safety
    /// The CPU must support AVX-512.
    #[inline(always)]
    unsafe fn bytes(v: [__m512; ROWS], max: __m512) -> __m512i {
        // SAFETY: features by the caller.
        unsafe {
            // In this order, what is no number stays that.
            let [a, b, c, d] = v.map(|v| clamped_and_rounded(v, max));
            let packed = _mm512_packus_epi16(_mm512_packs_epi32(a, b), _mm512_packs_epi32(c, d));
            // Now four channels of each row, then the next four of each.
            let rows = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
            _mm512_permutexvar_epi32(rows, packed)
        }
    }
}
