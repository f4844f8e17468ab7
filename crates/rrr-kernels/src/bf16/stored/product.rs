//! The two operations that inference adds to those of [`Tiles`], and their implementation in software.

use super::super::tiles::{SIDE, STEP, Software, Split, TILE, Tiles, add_product, bf16};
use super::WIDTH;
use super::activation::widen;
use crate::simd::Simd;

/// One step of a [`Product`]: 32 values of k.
#[repr(C)]
#[derive(Clone, Copy)]
pub(super) struct Step {
    /// First operands, a tile of 16 rows of 64 bytes for each m.
    pub a: [*const u8; 2],
    /// Bytes from one row of such a tile to the next.
    pub stride: [u32; 2],
    /// Number of the second operands' tiles.
    pub b: u32,
    padding: u32,
}

impl Step {
    pub fn new(a: [*const u8; 2], stride: [u32; 2], b: u32) -> Self {
        Self { a, stride, b, padding: 0 }
    }
}

/// `c[m][n] = sum over steps of a[m][step] * b[step][n]` of whole tiles.
pub(super) struct Product<'a> {
    /// At least one.
    pub steps: &'a [Step],
    /// Second operands, `[step][n]`.
    pub b: *const u32,
    /// Result, `[m][n]`.
    pub c: *mut f32,
}

/// What becomes of a tile's rows of sums: `y = relu(sum + bias + residual)`, rounded.
pub(super) struct Finish {
    /// One tile of sums, or two for 32 channels; without the second, the upper half of the channels has none.
    pub sums: *const f32,
    /// 32 values.
    pub bias: *const f32,
    /// First row of the residual, or null.
    pub residual: *const u16,
    /// Whether negative results become zero.
    pub relu: bool,
    /// First row of the output.
    pub y: *mut u16,
    /// Numbers from one row of the output (and the residual) to the next.
    pub stride: usize,
    pub rows: usize,
}

/// Tiles of activations that are stored in bf16.
pub trait StoredTiles: Tiles {
    /// Computes a product of `M x N` tiles, `M` and `N` 1 or 2, with sums as in [`Tiles::multiply`].
    ///
    /// # Safety
    /// The CPU must support the instruction set; pointers must be valid for the tiles that they stand for, of first
    /// operands as far as `M` goes.
    #[allow(private_interfaces, reason = "implemented and used in this module only")]
    unsafe fn multiply_rows<const M: usize, const N: usize>(&self, product: &Product<'_>);

    /// Finishes rows of 32 channels, of `N` tiles of sums.
    ///
    /// # Safety
    /// The CPU must support the instruction set; all rows must be valid.
    #[allow(private_interfaces, reason = "implemented and used in this module only")]
    unsafe fn finish<const N: usize>(finish: &Finish);

    /// Fetches 16 rows of 64 bytes into the second-level cache, if there is a way to; they may be anywhere.
    #[inline(always)]
    fn prefetch(_first: *const u8, _stride: usize) {}
}

impl<S: Simd, const R: usize, const V: usize> StoredTiles for Software<S, R, V> {
    #[inline(always)]
    #[allow(private_interfaces, reason = "as declared")]
    unsafe fn multiply_rows<const M: usize, const N: usize>(&self, p: &Product<'_>) {
        // SAFETY: pointers and features by the caller.
        unsafe {
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
    unsafe fn finish<const N: usize>(f: &Finish) {
        for r in 0..f.rows {
            let mut sums = [0.0; WIDTH];
            // SAFETY: pointers by the caller.
            let (bias, y) = unsafe {
                for (n, sums) in sums.as_chunks_mut::<SIDE>().0.iter_mut().enumerate().take(N) {
                    *sums = f.sums.add(n * TILE + r * SIDE).cast::<[f32; SIDE]>().read();
                }
                let y = f.y.add(r * f.stride).cast::<[u16; WIDTH]>();
                (&*f.bias.cast::<[f32; WIDTH]>(), &mut *y)
            };
            for (sum, bias) in sums.iter_mut().zip(bias) {
                *sum += bias;
            }
            if !f.residual.is_null() {
                // SAFETY: by the caller.
                let residual = unsafe { &*f.residual.add(r * f.stride).cast::<[u16; WIDTH]>() };
                for (sum, residual) in sums.iter_mut().zip(residual) {
                    *sum += widen(*residual);
                }
            }
            for (y, sum) in y.iter_mut().zip(sums) {
                *y = bf16(if f.relu && sum < 0.0 { 0.0 } else { sum }) as u16;
            }
        }
    }
}
