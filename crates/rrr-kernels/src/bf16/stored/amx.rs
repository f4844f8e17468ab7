//! Tile registers that read activations of bf16 where they lie.

use super::outcome::Rounded;
use crate::tiles::amx::{Operands, row_tiles};
use crate::tiles::{Finish, SIDE, TILE};
use std::arch::x86_64::*;
use std::mem::transmute;

/// Finishes a row: sums at `sums` and an offset, output at `y` and perhaps an offset.
macro_rules! row {
    ($sums:literal, $y:literal) => {
        concat!(
            "vaddps zmm19, zmm16, zmmword ptr [{sums} + ",
            $sums,
            "]\n",
            "vaddps zmm20, zmm17, zmmword ptr [{sums} + ",
            $sums,
            " + 1024]\n",
            "vmaxps zmm19, zmm18, zmm19\n",
            "vmaxps zmm20, zmm18, zmm20\n",
            "vcvtne2ps2bf16 zmm19, zmm20, zmm19\n",
            "vmovdqu64 zmmword ptr [",
            $y,
            "], zmm19",
        )
    };
}

row_tiles!(
    Rounded<'_>,
    multiply: "tdpbf16ps",
    finish: finish_tile,
    operands: operands,
    prologue: "vmovups zmm16, zmmword ptr [{a}]
        vmovups zmm17, zmmword ptr [{a} + 64]
        vpbroadcastd zmm18, {b:e}",
    row: row
);

/// What the vector registers are filled with: 32 biases, and the least that a result may be.
#[inline(always)]
fn operands(outcome: &Rounded<'_>) -> Operands {
    Operands { a: outcome.bias.as_ptr(), b: outcome.least(), ..Operands::NONE }
}

/// Finishes a tile, see [`RowTiles::settle`](crate::tiles::RowTiles::settle).
#[inline(always)]
unsafe fn finish_tile(f: &Finish<Rounded<'_>>, m: usize) {
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

/// Finishes the rows of a tile.
#[inline(always)]
unsafe fn finish_rows<const N: usize, const RESIDUAL: bool>(f: &Finish<Rounded<'_>>, m: usize) {
    /// 16 bf16 as f32.
    #[inline(always)]
    unsafe fn widen(bits: *const u8) -> __m512 {
        // SAFETY: pointer and features by the caller.
        unsafe {
            let bits = _mm512_cvtepu16_epi32(_mm256_loadu_si256(bits.cast()));
            _mm512_castsi512_ps(_mm512_slli_epi32::<16>(bits))
        }
    }
    // SAFETY: pointers and features by the caller.
    unsafe {
        let bias = f.outcome.bias.as_ptr();
        let bias = [_mm512_loadu_ps(bias), _mm512_loadu_ps(bias.add(SIDE))];
        // First operand of the maximum: NaN stays NaN.
        let least = _mm512_set1_ps(f.outcome.least());
        for r in 0..f.rows[m] {
            let sums = f.sums.add(m * 2 * TILE + r * SIDE).cast::<f32>();
            let mut low = _mm512_add_ps(_mm512_loadu_ps(sums), bias[0]);
            let high = if N == 2 { _mm512_loadu_ps(sums.add(TILE)) } else { _mm512_setzero_ps() };
            let mut high = _mm512_add_ps(high, bias[1]);
            if RESIDUAL {
                let residual = f.residual[m].add(r * f.residual_stride);
                low = _mm512_add_ps(low, widen(residual));
                high = _mm512_add_ps(high, widen(residual.add(2 * SIDE)));
            }
            let (low, high) = (_mm512_max_ps(least, low), _mm512_max_ps(least, high));
            let row = transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(high, low));
            _mm512_storeu_si512(f.y[m].add(r * f.stride).cast(), row);
        }
    }
}
