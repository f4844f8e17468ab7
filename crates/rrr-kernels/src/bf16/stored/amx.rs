//! Tile registers that read activations of bf16 where they lie.

use super::finish::finish_tile;
use super::outcome::Rounded;
use crate::tiles::amx::{Operands, row_tiles};

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
