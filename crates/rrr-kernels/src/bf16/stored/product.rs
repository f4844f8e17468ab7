//! The two operations that inference adds to those of [`Tiles`], and their implementation in software.

use super::super::tiles::{SIDE, STEP, Software, Split, TILE, Tiles, add_product, bf16};
use super::WIDTH;
use super::activation::widen;
use crate::simd::Simd;

/// Tiles of rows that a product takes at most.
pub(super) const STRIP: usize = 3;

/// One step of a [`Product`]: 32 values of k.
#[repr(C)]
#[derive(Clone, Copy)]
pub(super) struct Step {
    /// First operands, a tile of 16 rows of 64 bytes for each m.
    pub a: [*const u8; STRIP],
    /// Bytes from one row of such a tile to the next.
    pub stride: [u32; STRIP],
    /// Number of the second operands' tiles.
    pub b: u32,
}

/// `c[m][n] = sum over steps of a[m][step] * b[step][n]` of whole tiles.
pub(super) struct Product<'a> {
    /// At least one.
    pub steps: &'a [Step],
    /// Second operands, `[step][n]`.
    pub b: *const u32,
    /// Result, `[m][n]`; aligned to whole tiles.
    pub c: *mut f32,
}

/// What becomes of a product's sums: `y = relu(sum + bias + residual)`, rounded.
#[derive(Clone, Copy)]
pub(super) struct Finish {
    /// Tiles `[m][n]` of sums; with a single n, the upper half of the 32 channels has none.
    pub sums: *const f32,
    pub m: usize,
    pub n: usize,
    /// 32 values.
    pub bias: *const f32,
    /// Whether negative results become zero.
    pub relu: bool,
    /// First row of every tile's output.
    pub y: [*mut u16; STRIP],
    /// First row of every tile's residual, or null.
    pub residual: [*const u16; STRIP],
    /// Rows of every tile.
    pub rows: [usize; STRIP],
    /// Numbers from one row of the output (and the residual) to the next.
    pub stride: usize,
}

impl Finish {
    /// The least that a result may be.
    #[inline(always)]
    pub fn least(&self) -> f32 {
        if self.relu { 0.0 } else { f32::NEG_INFINITY }
    }
}

/// Tiles of activations that are stored in bf16.
pub trait StoredTiles: Tiles {
    /// Computes a product of `M x N` tiles, `M` at most 3 and `N` at most 2, with sums as in [`Tiles::multiply`], after
    /// (or while) it finishes the sums of the one before, which may lie where the new ones will.
    ///
    /// # Safety
    /// The CPU must support the instruction set; pointers must be valid for the tiles and rows that they stand for, of
    /// first operands as far as `M` goes.
    #[allow(private_interfaces, reason = "implemented and used in this module only")]
    unsafe fn multiply_rows<const M: usize, const N: usize>(
        &self,
        product: &Product<'_>,
        before: Option<&Finish>,
    );

    /// Finishes a product's sums.
    ///
    /// # Safety
    /// The CPU must support the instruction set; all rows must be valid.
    #[allow(private_interfaces, reason = "implemented and used in this module only")]
    unsafe fn finish(finish: &Finish);

    /// Fetches 16 rows of 64 bytes into the second-level cache, if there is a way to; they may be anywhere.
    #[inline(always)]
    fn prefetch(_first: *const u8, _stride: usize) {}
}

impl<S: Simd, const R: usize, const V: usize> StoredTiles for Software<S, R, V> {
    #[inline(always)]
    #[allow(private_interfaces, reason = "as declared")]
    unsafe fn multiply_rows<const M: usize, const N: usize>(&self, p: &Product<'_>, before: Option<&Finish>) {
        // SAFETY: pointers and features by the caller.
        unsafe {
            if let Some(before) = before {
                Self::finish(before);
            }
            p.c.write_bytes(0, M * N * TILE);
            for step in p.steps {
                for n in 0..N {
                    let b =
                        Split::new(p.b.add((step.b as usize * N + n) * TILE).cast(), STEP * size_of::<u16>());
                    for m in 0..M {
                        let a = Split::new(step.a[m], step.stride[m] as usize);
                        add_product::<S, R, V>(&a, &b, p.c.add((m * N + n) * TILE));
                    }
                }
            }
        }
    }

    #[inline(always)]
    #[allow(private_interfaces, reason = "as declared")]
    unsafe fn finish(f: &Finish) {
        // SAFETY: pointers by the caller.
        let bias = unsafe { &*f.bias.cast::<[f32; WIDTH]>() };
        for (m, r) in (0..f.m).flat_map(|m| (0..f.rows[m]).map(move |r| (m, r))) {
            let mut sums = [0.0; WIDTH];
            // SAFETY: pointers by the caller.
            let y = unsafe {
                for (n, sums) in sums.as_chunks_mut::<SIDE>().0.iter_mut().enumerate().take(f.n) {
                    *sums = f.sums.add((m * f.n + n) * TILE + r * SIDE).cast::<[f32; SIDE]>().read();
                }
                &mut *f.y[m].add(r * f.stride).cast::<[u16; WIDTH]>()
            };
            for (sum, bias) in sums.iter_mut().zip(bias) {
                *sum += bias;
            }
            if !f.residual[m].is_null() {
                // SAFETY: by the caller.
                let residual = unsafe { &*f.residual[m].add(r * f.stride).cast::<[u16; WIDTH]>() };
                for (sum, residual) in sums.iter_mut().zip(residual) {
                    *sum += widen(*residual);
                }
            }
            for (y, sum) in y.iter_mut().zip(sums) {
                *y = bf16(if sum < f.least() { f.least() } else { sum }) as u16;
            }
        }
    }
}
