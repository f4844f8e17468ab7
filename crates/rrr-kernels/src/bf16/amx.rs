//! Products of tiles in AMX's registers that training adds.

use super::tiles::{Product, Tiles};
use super::vectors::Avx512Bf16;
use crate::tiles::amx::Amx;
use crate::tiles::{ROW_BYTES, TILE};
use std::arch::asm;

impl Tiles for Amx {
    type V = Avx512Bf16;

    #[inline(always)]
    unsafe fn multiply<const M: usize, const N: usize>(&self, p: &Product<'_, N>) {
        // SAFETY: pointers by the caller; `self` holds the configured tiles.
        unsafe {
            match (M, N) {
                (2, 2) => multiply_2x2(p, p.b[1]),
                (2, 1) => multiply_2x1(p),
                (1, 2) => multiply_1x2(p, p.b[N - 1]),
                (1, 1) => multiply_1x1(p),
                _ => unreachable!("at most 2 x 2 tiles"),
            }
        }
    }
}

/// A function of a product: zeroes or loads the tiles of the result, adds the steps, stores them.
///
/// Tiles 0 to 3 are the result's, 4 and 5 the first operand's, 6 and 7 the second's.
macro_rules! product {
    ($name:ident($($b1:ident)?),
     load: [$($load:literal)+], zero: [$($zero:literal)+], step: [$($step:literal)+], store: [$($store:literal)+]) => {
        #[inline(always)]
        unsafe fn $name<const N: usize>(p: &Product<'_, N>, $($b1: *const u32)?) {
            // SAFETY: pointers and features by the caller; all registers that change are declared.
            unsafe {
                asm!(
                    "# {a1} {c1}", // Not every shape uses them.
                    "test {at}, {at}",
                    "jz 2f",
                    $($load,)+
                    "jmp 3f",
                    "2:",
                    $($zero,)+
                    "3:",
                    "test {left}, {left}",
                    "jz 5f",
                    "4:",
                    "mov {at:e}, dword ptr [{steps}]",
                    $($step,)+
                    "add {a}, 1024",
                    "add {steps}, 4",
                    "dec {left}",
                    "jnz 4b",
                    "5:",
                    $($store,)+
                    a = inout(reg) p.a => _,
                    a1 = in(reg) p.a_stride * size_of::<u32>(),
                    b0 = in(reg) p.b[0],
                    $($b1 = in(reg) $b1,)?
                    c = in(reg) p.c,
                    c1 = in(reg) p.c_stride * size_of::<f32>(),
                    steps = inout(reg) p.steps.as_ptr() => _,
                    left = inout(reg) p.steps.len() => _,
                    row = in(reg) ROW_BYTES,
                    at = inout(reg) usize::from(p.accumulate) => _,
                    temp = out(reg) _,
                    out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                    out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                    options(nostack),
                );
            }
        }
    };
}

product!(multiply_2x2(b1),
    load: [
        "tileloadd tmm0, [{c} + {row}*1]"
        "tileloadd tmm1, [{c} + {row}*1 + 1024]"
        "lea {temp}, [{c} + {c1}]"
        "tileloadd tmm2, [{temp} + {row}*1]"
        "tileloadd tmm3, [{temp} + {row}*1 + 1024]"
    ],
    zero: ["tilezero tmm0" "tilezero tmm1" "tilezero tmm2" "tilezero tmm3"],
    step: [
        "lea {temp}, [{b0} + {at}*4]"
        "tileloadd tmm4, [{a} + {row}*1]"
        "tileloadd tmm6, [{temp} + {row}*1]"
        "lea {temp}, [{b1} + {at}*4]"
        "tdpbf16ps tmm0, tmm4, tmm6"
        "tileloadd tmm7, [{temp} + {row}*1]"
        "lea {temp}, [{a} + {a1}]"
        "tdpbf16ps tmm1, tmm4, tmm7"
        "tileloadd tmm5, [{temp} + {row}*1]"
        "tdpbf16ps tmm2, tmm5, tmm6"
        "tdpbf16ps tmm3, tmm5, tmm7"
    ],
    store: [
        "tilestored [{c} + {row}*1], tmm0"
        "tilestored [{c} + {row}*1 + 1024], tmm1"
        "lea {temp}, [{c} + {c1}]"
        "tilestored [{temp} + {row}*1], tmm2"
        "tilestored [{temp} + {row}*1 + 1024], tmm3"
    ]
);

product!(multiply_2x1(),
    load: [
        "tileloadd tmm0, [{c} + {row}*1]"
        "lea {temp}, [{c} + {c1}]"
        "tileloadd tmm2, [{temp} + {row}*1]"
    ],
    zero: ["tilezero tmm0" "tilezero tmm2"],
    step: [
        "lea {temp}, [{b0} + {at}*4]"
        "tileloadd tmm6, [{temp} + {row}*1]"
        "tileloadd tmm4, [{a} + {row}*1]"
        "lea {temp}, [{a} + {a1}]"
        "tdpbf16ps tmm0, tmm4, tmm6"
        "tileloadd tmm5, [{temp} + {row}*1]"
        "tdpbf16ps tmm2, tmm5, tmm6"
    ],
    store: [
        "tilestored [{c} + {row}*1], tmm0"
        "lea {temp}, [{c} + {c1}]"
        "tilestored [{temp} + {row}*1], tmm2"
    ]
);

product!(multiply_1x2(b1),
    load: ["tileloadd tmm0, [{c} + {row}*1]" "tileloadd tmm1, [{c} + {row}*1 + 1024]"],
    zero: ["tilezero tmm0" "tilezero tmm1"],
    step: [
        "lea {temp}, [{b0} + {at}*4]"
        "tileloadd tmm4, [{a} + {row}*1]"
        "tileloadd tmm6, [{temp} + {row}*1]"
        "lea {temp}, [{b1} + {at}*4]"
        "tdpbf16ps tmm0, tmm4, tmm6"
        "tileloadd tmm7, [{temp} + {row}*1]"
        "tdpbf16ps tmm1, tmm4, tmm7"
    ],
    store: ["tilestored [{c} + {row}*1], tmm0" "tilestored [{c} + {row}*1 + 1024], tmm1"]
);

product!(multiply_1x1(),
    load: ["tileloadd tmm0, [{c} + {row}*1]"],
    zero: ["tilezero tmm0"],
    step: [
        "lea {temp}, [{b0} + {at}*4]"
        "tileloadd tmm4, [{a} + {row}*1]"
        "tileloadd tmm6, [{temp} + {row}*1]"
        "tdpbf16ps tmm0, tmm4, tmm6"
    ],
    store: ["tilestored [{c} + {row}*1], tmm0"]
);

const _: () = assert!(TILE * size_of::<u32>() == 1024, "the size of a tile in the assembly above");
