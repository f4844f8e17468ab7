//! Products of tiles of a single row tile, or a single column.

use super::super::super::amx::ROW_BYTES;
use super::super::product::Product;
use std::arch::asm;

/// A function of a product: zeroes the tiles of the result, adds the steps, stores them.
///
/// The lower tiles are the result's, the upper ones the operands'. In a step, `a` and `s` hold pointer and stride of the
/// first tile of the first operand, and `b` the pointer to those of the second.
macro_rules! product {
    ($name:ident, shift: $shift:literal,
     zero: [$($zero:literal)+], step: [$($step:literal)+], store: [$($store:literal)+]) => {
        #[inline(always)]
        pub unsafe fn $name(p: &Product<'_>) {
            debug_assert!(!p.steps.is_empty());
            // SAFETY: pointers and features by the caller; all registers that change are declared.
            unsafe {
                asm!(
                    $($zero,)+
                    "2:",
                    "mov {b:e}, dword ptr [{steps} + 36]",
                    concat!("shl {b}, ", $shift),
                    "add {b}, {first_b}",
                    "mov {a}, qword ptr [{steps}]",
                    "mov {s:e}, dword ptr [{steps} + 24]",
                    $($step,)+
                    "add {steps}, 40",
                    "dec {left}",
                    "jnz 2b",
                    $($store,)+
                    steps = inout(reg) p.steps.as_ptr() => _,
                    left = inout(reg) p.steps.len() => _,
                    first_b = in(reg) p.b,
                    c = in(reg) p.c,
                    row = in(reg) ROW_BYTES,
                    a = out(reg) _,
                    s = out(reg) _,
                    b = out(reg) _,
                    out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                    out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                    options(nostack),
                );
            }
        }
    };
}

product!(multiply_3x1, shift: 10,
    zero: ["tilezero tmm0" "tilezero tmm1" "tilezero tmm2"],
    step: [
        "tileloadd tmm6, [{b} + {row}*1]"
        "tileloadd tmm3, [{a} + {s}*1]"
        "tdpbf16ps tmm0, tmm3, tmm6"
        "mov {a}, qword ptr [{steps} + 8]"
        "mov {s:e}, dword ptr [{steps} + 28]"
        "tileloadd tmm4, [{a} + {s}*1]"
        "tdpbf16ps tmm1, tmm4, tmm6"
        "mov {a}, qword ptr [{steps} + 16]"
        "mov {s:e}, dword ptr [{steps} + 32]"
        "tileloadd tmm5, [{a} + {s}*1]"
        "tdpbf16ps tmm2, tmm5, tmm6"
    ],
    store: [
        "tilestored [{c} + {row}*1], tmm0"
        "tilestored [{c} + {row}*1 + 1024], tmm1"
        "tilestored [{c} + {row}*1 + 2048], tmm2"
    ]
);

product!(multiply_2x1, shift: 10,
    zero: ["tilezero tmm0" "tilezero tmm2"],
    step: [
        "tileloadd tmm6, [{b} + {row}*1]"
        "tileloadd tmm4, [{a} + {s}*1]"
        "mov {a}, qword ptr [{steps} + 8]"
        "mov {s:e}, dword ptr [{steps} + 28]"
        "tdpbf16ps tmm0, tmm4, tmm6"
        "tileloadd tmm5, [{a} + {s}*1]"
        "tdpbf16ps tmm2, tmm5, tmm6"
    ],
    store: ["tilestored [{c} + {row}*1], tmm0" "tilestored [{c} + {row}*1 + 1024], tmm2"]
);

product!(multiply_1x2, shift: 11,
    zero: ["tilezero tmm0" "tilezero tmm1"],
    step: [
        "tileloadd tmm4, [{a} + {s}*1]"
        "tileloadd tmm6, [{b} + {row}*1]"
        "tdpbf16ps tmm0, tmm4, tmm6"
        "tileloadd tmm7, [{b} + {row}*1 + 1024]"
        "tdpbf16ps tmm1, tmm4, tmm7"
    ],
    store: ["tilestored [{c} + {row}*1], tmm0" "tilestored [{c} + {row}*1 + 1024], tmm1"]
);

product!(multiply_1x1, shift: 10,
    zero: ["tilezero tmm0"],
    step: [
        "tileloadd tmm4, [{a} + {s}*1]"
        "tileloadd tmm6, [{b} + {row}*1]"
        "tdpbf16ps tmm0, tmm4, tmm6"
    ],
    store: ["tilestored [{c} + {row}*1], tmm0"]
);
