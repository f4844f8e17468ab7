//! Products of tiles that finish the sums of the product before: the vector instructions for that run between those on
//! tiles, which take most of the time.

use super::super::super::amx::ROW_BYTES;
use super::super::super::tiles::TILE;
use super::super::product::{Finish, Product, STRIP};
use std::arch::asm;

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

/// A function of a product that finishes the sums of the one before: two rows of every tile in a step, and what is left
/// of them behind the last step, before the new sums take their place.
///
/// As in `product!`. `sums` is the first sum of the next row; it begins at a multiple of a tile, which tells when all 16
/// rows are done. Without a product before, `a` is null.
macro_rules! product_finishing {
    ($name:ident,
     zero: [$($zero:literal)+], step: [$($step:literal $(=> ($sums:literal, $y:literal))?,)+],
     advance: [$($advance:literal)+], store: [$($store:literal)+], outputs: [$($out:ident $index:literal)+]) => {
        #[inline(always)]
        pub unsafe fn $name(p: &Product<'_>, before: Option<&Finish>) {
            debug_assert!(!p.steps.is_empty() && p.c.addr() % (TILE * size_of::<f32>()) == 0);
            let (bias, least, y, stride) = match before {
                Some(f) => (f.bias, f.least(), f.y, f.stride * size_of::<u16>()),
                None => (std::ptr::null(), 0.0, [std::ptr::null_mut(); STRIP], 0),
            };
            // SAFETY: pointers and features by the caller; all registers that change are declared.
            unsafe {
                asm!(
                    $($zero,)+
                    "test {a}, {a}",
                    "jz 6f",
                    "vmovups zmm16, zmmword ptr [{a}]",
                    "vmovups zmm17, zmmword ptr [{a} + 64]",
                    "vpbroadcastd zmm18, {s:e}",
                    "3:",
                    "mov {b:e}, dword ptr [{steps} + 36]",
                    "shl {b}, 11",
                    "add {b}, {first_b}",
                    "mov {a}, qword ptr [{steps}]",
                    "mov {s:e}, dword ptr [{steps} + 24]",
                    $($step, $(row!($sums, $y),)?)+
                    $($advance,)+
                    "add {sums}, 128",
                    "add {steps}, 40",
                    "dec {left}",
                    "jz 4f",
                    "test {sums:e}, 1023",
                    "jnz 3b",
                    "jmp 2f",
                    // The rest of the rows.
                    "4:",
                    "test {sums:e}, 1023",
                    "jz 5f",
                    $($(row!($sums, $y),)?)+
                    $($advance,)+
                    "add {sums}, 128",
                    "jmp 4b",
                    "6:",
                    "add {sums}, 1024",
                    // Nothing left to finish.
                    "2:",
                    "mov {b:e}, dword ptr [{steps} + 36]",
                    "shl {b}, 11",
                    "add {b}, {first_b}",
                    "mov {a}, qword ptr [{steps}]",
                    "mov {s:e}, dword ptr [{steps} + 24]",
                    $($step,)+
                    "add {steps}, 40",
                    "dec {left}",
                    "jnz 2b",
                    // `sums` is a tile further now.
                    "5:",
                    $($store,)+
                    steps = inout(reg) p.steps.as_ptr() => _,
                    left = inout(reg) p.steps.len() => _,
                    first_b = in(reg) p.b,
                    sums = inout(reg) p.c => _,
                    row = in(reg) ROW_BYTES,
                    a = inout(reg) bias => _,
                    s = inout(reg) u64::from(least.to_bits()) => _,
                    b = out(reg) _,
                    $($out = inout(reg) y[$index] => _,)+
                    stride = in(reg) stride,
                    out("zmm16") _, out("zmm17") _, out("zmm18") _, out("zmm19") _, out("zmm20") _,
                    out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                    out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                    options(nostack),
                );
            }
        }
    };
}

product_finishing!(multiply_3x2,
    zero: [
        "tilezero tmm0" "tilezero tmm1" "tilezero tmm2" "tilezero tmm3" "tilezero tmm4" "tilezero tmm5"
    ],
    step: [
        "tileloadd tmm6, [{b} + {row}*1]",
        "tileloadd tmm7, [{a} + {s}*1]",
        "tdpbf16ps tmm0, tmm7, tmm6" => ("0", "{y0}"),
        "mov {a}, qword ptr [{steps} + 8]",
        "mov {s:e}, dword ptr [{steps} + 28]",
        "tileloadd tmm7, [{a} + {s}*1]",
        "tdpbf16ps tmm2, tmm7, tmm6" => ("64", "{y0} + {stride}"),
        "mov {a}, qword ptr [{steps} + 16]",
        "mov {s:e}, dword ptr [{steps} + 32]",
        "tileloadd tmm7, [{a} + {s}*1]",
        "tdpbf16ps tmm4, tmm7, tmm6" => ("2048", "{y1}"),
        "tileloadd tmm6, [{b} + {row}*1 + 1024]",
        "tdpbf16ps tmm5, tmm7, tmm6" => ("2112", "{y1} + {stride}"),
        "mov {a}, qword ptr [{steps} + 8]",
        "mov {s:e}, dword ptr [{steps} + 28]",
        "tileloadd tmm7, [{a} + {s}*1]",
        "tdpbf16ps tmm3, tmm7, tmm6" => ("4096", "{y2}"),
        "mov {a}, qword ptr [{steps}]",
        "mov {s:e}, dword ptr [{steps} + 24]",
        "tileloadd tmm7, [{a} + {s}*1]",
        "tdpbf16ps tmm1, tmm7, tmm6" => ("4160", "{y2} + {stride}"),
    ],
    advance: ["lea {y0}, [{y0} + {stride}*2]" "lea {y1}, [{y1} + {stride}*2]" "lea {y2}, [{y2} + {stride}*2]"],
    store: [
        "tilestored [{sums} + {row}*1 - 1024], tmm0"
        "tilestored [{sums} + {row}*1], tmm1"
        "tilestored [{sums} + {row}*1 + 1024], tmm2"
        "tilestored [{sums} + {row}*1 + 2048], tmm3"
        "tilestored [{sums} + {row}*1 + 3072], tmm4"
        "tilestored [{sums} + {row}*1 + 4096], tmm5"
    ],
    outputs: [y0 0 y1 1 y2 2]
);

product_finishing!(multiply_2x2,
    zero: ["tilezero tmm0" "tilezero tmm1" "tilezero tmm2" "tilezero tmm3"],
    step: [
        "tileloadd tmm6, [{b} + {row}*1]",
        "tileloadd tmm7, [{b} + {row}*1 + 1024]",
        "tileloadd tmm4, [{a} + {s}*1]",
        "mov {a}, qword ptr [{steps} + 8]",
        "mov {s:e}, dword ptr [{steps} + 28]",
        "tileloadd tmm5, [{a} + {s}*1]",
        "tdpbf16ps tmm0, tmm4, tmm6" => ("0", "{y0}"),
        "tdpbf16ps tmm1, tmm4, tmm7" => ("64", "{y0} + {stride}"),
        "tdpbf16ps tmm2, tmm5, tmm6" => ("2048", "{y1}"),
        "tdpbf16ps tmm3, tmm5, tmm7" => ("2112", "{y1} + {stride}"),
    ],
    advance: ["lea {y0}, [{y0} + {stride}*2]" "lea {y1}, [{y1} + {stride}*2]"],
    store: [
        "tilestored [{sums} + {row}*1 - 1024], tmm0"
        "tilestored [{sums} + {row}*1], tmm1"
        "tilestored [{sums} + {row}*1 + 1024], tmm2"
        "tilestored [{sums} + {row}*1 + 2048], tmm3"
    ],
    outputs: [y0 0 y1 1]
);
