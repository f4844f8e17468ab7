//! Products of bytes in AMX's registers.

use super::outcome::{Bytes, finish_tile};
use crate::tiles::amx::{Amx, Operands, row_tiles};
use crate::tiles::{Task, work};

/// The loops on AMX.
///
/// # Safety
/// The CPU must have AMX; the rest as for [`work`].
#[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512dq,avx2,fma")]
pub unsafe fn on_amx(task: &Task<'_, Bytes<'_>>) {
    // SAFETY: passed on to the caller.
    unsafe { work::<Amx, _>(task) }
}

/// Finishes a row: sums at `sums` and an offset, output at `y` and perhaps an offset.
macro_rules! row {
    ($sums:literal, $y:literal) => {
        concat!(
            "vcvtdq2ps zmm19, zmmword ptr [{sums} + ",
            $sums,
            "]\n",
            "vcvtdq2ps zmm20, zmmword ptr [{sums} + ",
            $sums,
            " + 1024]\n",
            "vmulps zmm19, zmm19, zmm16\n",
            "vmulps zmm20, zmm20, zmm17\n",
            "vaddps zmm19, zmm19, zmm21\n",
            "vaddps zmm20, zmm20, zmm22\n",
            // What is not above zero, NaN too, becomes the second operand.
            "vmaxps zmm19, zmm19, zmm23\n",
            "vmaxps zmm20, zmm20, zmm23\n",
            "vminps zmm19, zmm19, zmm18\n",
            "vminps zmm20, zmm20, zmm18\n",
            // To the nearest integer, ties to even.
            "vcvtps2dq zmm19, zmm19\n",
            "vcvtps2dq zmm20, zmm20\n",
            "vpmovdb xmmword ptr [",
            $y,
            "], zmm19\n",
            "vpmovdb xmmword ptr [",
            $y,
            " + 16], zmm20",
        )
    };
}

row_tiles!(
    Bytes<'_>,
    multiply: "tdpbusd",
    finish: finish_tile,
    operands: operands,
    prologue: "vmovups zmm16, zmmword ptr [{a}]
        vmovups zmm17, zmmword ptr [{a} + 64]
        vmovups zmm21, zmmword ptr [{s}]
        vmovups zmm22, zmmword ptr [{s} + 64]
        vpbroadcastd zmm18, {b:e}
        vpxord zmm23, zmm23, zmm23",
    row: row
);

/// What the vector registers are filled with: 32 scales, 32 offsets, and the largest output.
#[inline(always)]
fn operands(outcome: &Bytes<'_>) -> Operands {
    Operands { a: outcome.scale.as_ptr(), s: outcome.offset.as_ptr(), b: outcome.max }
}
