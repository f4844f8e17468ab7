//! Products of tiles in AMX's registers that training adds, and rounding.

use super::tiles::{Product, Tiles};
use crate::simd::Avx512;
use crate::tiles::amx::Amx;
use crate::tiles::{ROW_BYTES, TILE};
use std::arch::asm;
use std::arch::x86_64::*;

impl Tiles for Amx {
    type S = Avx512;

    #[inline(always)]
    unsafe fn round(low: *const f32, high: *const f32, to: *mut u32) {
        // SAFETY: pointers and features by the caller.
        unsafe {
            let row = _mm512_cvtne2ps_pbh(_mm512_loadu_ps(high), _mm512_loadu_ps(low));
            to.cast::<__m512bh>().write_unaligned(row);
        }
    }

    #[inline(always)]
    unsafe fn pair(even: *const f32, odd: *const f32, to: *mut u32) {
        /// 0, 16, 1, 17, ...: interleaves the halves of a vector of bf16.
        static INTERLEAVE: [u16; 32] = {
            let mut order = [0; 32];
            let mut i = 0;
            while i < 32 {
                order[i] = (i / 2 + i % 2 * 16) as u16;
                i += 1;
            }
            order
        };
        // SAFETY: pointers and features by the caller.
        unsafe {
            let halves = _mm512_cvtne2ps_pbh(_mm512_loadu_ps(odd), _mm512_loadu_ps(even));
            let halves = std::mem::transmute::<__m512bh, __m512i>(halves);
            let order = _mm512_loadu_si512(INTERLEAVE.as_ptr().cast());
            _mm512_storeu_si512(to.cast(), _mm512_permutexvar_epi16(order, halves));
        }
    }

    #[inline(always)]
    unsafe fn interleave(even: *const u16, odd: *const u16, to: [*mut u32; 2]) {
        /// 0, 32, 1, 33, ...: pairs of the first halves of two vectors of bf16; 16 more for the second halves.
        static PAIRS: [u16; 32] = {
            let mut order = [0; 32];
            let mut i = 0;
            while i < 32 {
                order[i] = (i / 2 + i % 2 * 32) as u16;
                i += 1;
            }
            order
        };
        // SAFETY: pointers and features by the caller.
        unsafe {
            let (even, odd) = (_mm512_loadu_si512(even.cast()), _mm512_loadu_si512(odd.cast()));
            let first = _mm512_loadu_si512(PAIRS.as_ptr().cast());
            let second = _mm512_add_epi16(first, _mm512_set1_epi16(16));
            _mm512_storeu_si512(to[0].cast(), _mm512_permutex2var_epi16(even, first, odd));
            _mm512_storeu_si512(to[1].cast(), _mm512_permutex2var_epi16(even, second, odd));
        }
    }

    #[inline(always)]
    unsafe fn transpose(from: *const u32, to: *mut u32) {
        // SAFETY: pointers and features by the caller.
        unsafe {
            let mut r = [_mm512_setzero_si512(); 16];
            for (i, row) in r.iter_mut().enumerate() {
                *row = _mm512_loadu_si512(from.add(i * 16).cast());
            }
            // Groups of four rows: 2 x 2, then 4 x 4 within each 128-bit lane.
            let mut t = [_mm512_setzero_si512(); 16];
            for i in (0..16).step_by(4) {
                let low = [_mm512_unpacklo_epi32(r[i], r[i + 1]), _mm512_unpacklo_epi32(r[i + 2], r[i + 3])];
                let high = [_mm512_unpackhi_epi32(r[i], r[i + 1]), _mm512_unpackhi_epi32(r[i + 2], r[i + 3])];
                t[i] = _mm512_unpacklo_epi64(low[0], low[1]);
                t[i + 1] = _mm512_unpackhi_epi64(low[0], low[1]);
                t[i + 2] = _mm512_unpacklo_epi64(high[0], high[1]);
                t[i + 3] = _mm512_unpackhi_epi64(high[0], high[1]);
            }
            // Then the lanes: `t[4 g + c]` holds in lane l the rows 4 g.. of column 4 l + c.
            for c in 0..4 {
                /// Lanes 0 and 2 of both vectors, or 1 and 3.
                #[inline(always)]
                unsafe fn pick<const ODD: bool>(a: __m512i, b: __m512i) -> __m512i {
                    // SAFETY: features by the caller.
                    unsafe {
                        if ODD {
                            _mm512_shuffle_i32x4::<0xdd>(a, b)
                        } else {
                            _mm512_shuffle_i32x4::<0x88>(a, b)
                        }
                    }
                }
                let (first, second) = (t[c], t[4 + c]);
                let (third, fourth) = (t[8 + c], t[12 + c]);
                let lanes_02 = [pick::<false>(first, second), pick::<false>(third, fourth)];
                let lanes_13 = [pick::<true>(first, second), pick::<true>(third, fourth)];
                let columns = [
                    pick::<false>(lanes_02[0], lanes_02[1]),
                    pick::<false>(lanes_13[0], lanes_13[1]),
                    pick::<true>(lanes_02[0], lanes_02[1]),
                    pick::<true>(lanes_13[0], lanes_13[1]),
                ];
                for (lane, column) in columns.into_iter().enumerate() {
                    _mm512_storeu_si512(to.add((4 * lane + c) * 16).cast(), column);
                }
            }
        }
    }

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
