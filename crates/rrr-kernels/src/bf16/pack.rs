//! Weights in the form of second operands.

use super::tiles::{SIDE, STEP, TILE, bf16, pairs};
use crate::Isa;

/// Number of u32 of weights `[panel][tap][k][16]` in bf16.
pub fn len(panels: usize, taps: usize, k: usize) -> usize {
    panels * taps * k.div_ceil(STEP) * TILE
}

/// Rounds f32 weights `[panel and tap][k][16]` to tiles `[panel and tap][k / 32][16 pairs of k][16]`.
#[inline(always)]
pub fn pack(k: usize, from: &[f32], to: &mut [u32]) {
    let zero = [0.0; SIDE];
    for (from, to) in from.chunks_exact(k * SIDE).zip(to.chunks_exact_mut(k.div_ceil(STEP) * TILE)) {
        let (rows, _) = from.as_chunks::<SIDE>();
        let (to, _) = to.as_chunks_mut::<SIDE>();
        for (p, to) in to.iter_mut().enumerate() {
            let row = |k: usize| rows.get(k).unwrap_or(&zero);
            *to = pairs(row(2 * p), row(2 * p + 1));
        }
    }
}

/// Rounds f32 weights `[o / 16][tap][i][16]`, i padded to whole blocks, to tiles for the input gradient:
/// `[i / 16][tap][o / 32][16 pairs of o][16]`.
#[inline(always)]
pub fn pack_transposed(o_blocks: usize, taps: usize, i_blocks: usize, from: &[f32], to: &mut [u32]) {
    let (from, _) = from.as_chunks::<TILE>();
    let (to, _) = to.as_chunks_mut::<{ TILE / 2 }>();
    let o_padded = o_blocks.next_multiple_of(2);
    for i in 0..i_blocks {
        for tap in 0..taps {
            for o in 0..o_padded {
                let to = &mut to[(i * taps + tap) * o_padded + o];
                if o == o_blocks {
                    to.fill(0);
                    continue;
                }
                let from = &from[(o * taps + tap) * i_blocks + i];
                for p in 0..SIDE / 2 {
                    for lane in 0..SIDE {
                        let pair = &from[lane * SIDE + 2 * p..][..2];
                        to[p * SIDE + lane] = bf16(pair[0]) | bf16(pair[1]) << 16;
                    }
                }
            }
        }
    }
}

/// Rounds `from` to bf16, as many values as `to` holds.
pub fn round_bf16(isa: Isa, from: &[f32], to: &mut [u16]) {
    isa.vectorize(|| {
        for (to, from) in to.iter_mut().zip(from) {
            *to = bf16(*from) as u16;
        }
    });
}
