//! Products of tiles in plain Rust.

use super::outcome::{Bytes, finish_tile};
use crate::tiles::{Finish, Product, ROW_BYTES, Registers, RowTiles, SIDE, SUMS, TILE, TILE_BYTES};
use std::hint::black_box;

/// Bytes of k that meet in a sum of 32 bits.
const LANE: usize = size_of::<u32>();

/// Tiles in memory.
pub struct Software;

impl Registers for Software {
    unsafe fn new() -> Self {
        Self
    }
}

impl RowTiles<Bytes<'_>> for Software {
    #[inline(always)]
    unsafe fn multiply_rows<const M: usize, const N: usize>(
        &self,
        p: &Product<'_>,
        _own: &Finish<Bytes<'_>>,
        before: Option<&Finish<Bytes<'_>>>,
    ) {
        // SAFETY: pointers by the caller; rows and tiles of bytes have no alignment to keep, sums are aligned.
        unsafe {
            if let Some(before) = before {
                self.settle(before);
            }
            p.sums.write_bytes(0, SUMS);
            for (step, m, n) in
                p.steps.iter().flat_map(|s| (0..M).flat_map(move |m| (0..N).map(move |n| (s, m, n))))
            {
                let w = &*p.b.add((step.b as usize * N + n) * TILE_BYTES).cast::<[[i8; ROW_BYTES]; SIDE]>();
                let sums = &mut *p.sums.add((m * 2 + n) * TILE).cast::<[[i32; SIDE]; SIDE]>();
                for (r, sums) in sums.iter_mut().enumerate() {
                    let a = &*step.a[m].add(r * step.stride[m] as usize).cast::<[u8; ROW_BYTES]>();
                    add_row(a, w, sums);
                }
            }
        }
    }

    #[inline(always)]
    unsafe fn settle(&self, f: &Finish<Bytes<'_>>) {
        for m in 0..f.m {
            // SAFETY: passed on to the caller.
            unsafe { finish_tile(f, m) }
        }
    }
}

/// Adds the products of a row with a tile of weights.
#[inline(always)]
fn add_row(a: &[u8; ROW_BYTES], w: &[[i8; ROW_BYTES]; SIDE], sums: &mut [i32; SIDE]) {
    for (a, w) in a.as_chunks::<LANE>().0.iter().zip(w) {
        let a = a.map(i16::from);
        for (sum, w) in sums.iter_mut().zip(w.as_chunks::<LANE>().0) {
            let product = |k: usize| i32::from(a[k]) * i32::from(w[k]);
            *sum += product(0) + product(1) + product(2) + product(3);
        }
    }
}

/// See [`Int8Compute::multiply_adds`](super::super::Int8Compute::multiply_adds).
pub fn multiply_adds(rounds: u64) -> u64 {
    let (row, weights) = ([1; ROW_BYTES], [[1; ROW_BYTES]; SIDE]);
    for _ in 0..rounds {
        let mut sums = [0; SIDE];
        add_row(black_box(&row), &weights, &mut sums);
        black_box(sums);
    }
    rounds * (ROW_BYTES * SIDE) as u64
}
