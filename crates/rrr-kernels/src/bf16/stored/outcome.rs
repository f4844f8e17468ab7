//! How sums become numbers in bf16, and products of tiles in software.

use super::super::tiles::{STEP, Software, Split, add_product, bf16};
use super::WIDTH;
use super::activation::widen;
use crate::simd::Simd;
use crate::tiles::{Finish, Outcome, Product, RowTiles, SIDE, SUMS, TILE};

/// `y = relu(sum + bias + residual)`, rounded; with a single tile of a product, the upper half of the 32 channels has no
/// sums.
#[derive(Clone, Copy)]
pub struct Rounded<'a> {
    /// A value for every channel, padded to 32 of each group's.
    pub bias: &'a [f32],
    /// Whether negative results become zero.
    pub relu: bool,
}

impl Outcome for Rounded<'_> {
    fn values(panels: usize) -> usize {
        panels.next_multiple_of(2) * SIDE
    }

    #[inline(always)]
    fn from(self, first: usize) -> Self {
        Self { bias: &self.bias[first..], ..self }
    }
}

impl Rounded<'_> {
    /// The least that a result may be.
    #[inline(always)]
    pub fn least(&self) -> f32 {
        if self.relu { 0.0 } else { f32::NEG_INFINITY }
    }
}

/// With sums as in [`Tiles::multiply`](super::super::tiles::Tiles::multiply).
impl<S: Simd, const R: usize, const V: usize> RowTiles<Rounded<'_>> for Software<S, R, V> {
    #[inline(always)]
    unsafe fn multiply_rows<const M: usize, const N: usize>(
        &self,
        p: &Product<'_>,
        _own: &Finish<Rounded<'_>>,
        before: Option<&Finish<Rounded<'_>>>,
    ) {
        // SAFETY: pointers and features by the caller.
        unsafe {
            if let Some(before) = before {
                self.settle(before);
            }
            p.sums.write_bytes(0, SUMS);
            let b = p.b.cast::<u32>();
            for step in p.steps {
                for n in 0..N {
                    let b = b.add((step.b as usize * N + n) * TILE);
                    let b = Split::new(b.cast(), STEP * size_of::<u16>());
                    for m in 0..M {
                        let a = Split::new(step.a[m], step.stride[m] as usize);
                        add_product::<S, R, V>(&a, &b, p.sums.add((m * 2 + n) * TILE).cast());
                    }
                }
            }
        }
    }

    #[inline(always)]
    unsafe fn settle(&self, f: &Finish<Rounded<'_>>) {
        // SAFETY: pointers by the caller.
        let bias = unsafe { &*f.outcome.bias.as_ptr().cast::<[f32; WIDTH]>() };
        let least = f.outcome.least();
        for (m, r) in (0..f.m).flat_map(|m| (0..f.rows[m]).map(move |r| (m, r))) {
            let mut sums = [0.0; WIDTH];
            // SAFETY: pointers by the caller.
            let y = unsafe {
                for (n, sums) in sums.as_chunks_mut::<SIDE>().0.iter_mut().enumerate().take(f.n) {
                    *sums = f.sums.add((m * 2 + n) * TILE + r * SIDE).cast::<[f32; SIDE]>().read();
                }
                &mut *f.y[m].add(r * f.stride).cast::<[u16; WIDTH]>()
            };
            for (sum, bias) in sums.iter_mut().zip(bias) {
                *sum += bias;
            }
            if !f.residual[m].is_null() {
                // SAFETY: by the caller.
                let residual = unsafe { &*f.residual[m].add(r * f.residual_stride).cast::<[u16; WIDTH]>() };
                for (sum, residual) in sums.iter_mut().zip(residual) {
                    *sum += widen(*residual);
                }
            }
            for (y, sum) in y.iter_mut().zip(sums) {
                *y = bf16(if sum < least { least } else { sum }) as u16;
            }
        }
    }
}
