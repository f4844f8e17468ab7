//! Tile registers that read activations where they lie.

use super::super::amx::{Amx, ROW_BYTES};
use super::super::tiles::{SIDE, TILE};
use super::product::{Finish, Product, Step, StoredTiles};
use std::arch::asm;
use std::arch::x86_64::*;
use std::mem::{offset_of, transmute};

impl StoredTiles for Amx {
    #[inline(always)]
    #[allow(private_interfaces, reason = "as declared")]
    unsafe fn multiply_rows<const M: usize, const N: usize>(&self, p: &Product<'_>) {
        // SAFETY: pointers by the caller; `self` holds the configured tiles.
        unsafe {
            match (M, N) {
                (2, 2) => multiply_2x2(p),
                (2, 1) => multiply_2x1(p),
                (1, 2) => multiply_1x2(p),
                (1, 1) => multiply_1x1(p),
                _ => unreachable!("at most 2 x 2 tiles"),
            }
        }
    }

    #[inline(always)]
    #[allow(private_interfaces, reason = "as declared")]
    unsafe fn finish<const N: usize>(f: &Finish) {
        // SAFETY: by the caller.
        unsafe { if f.residual.is_null() { finish_rows::<N, false>(f) } else { finish_rows::<N, true>(f) } }
    }

    #[inline(always)]
    fn prefetch(first: *const u8, stride: usize) {
        for r in 0..SIDE {
            // SAFETY: a hint, which any address may be given to; every x86-64 has it.
            unsafe { _mm_prefetch::<_MM_HINT_T1>(first.wrapping_add(r * stride).cast()) }
        }
    }
}

/// See [`StoredTiles::finish`].
#[inline(always)]
unsafe fn finish_rows<const N: usize, const RESIDUAL: bool>(f: &Finish) {
    /// 16 bf16 as f32.
    #[inline(always)]
    unsafe fn widen(bits: *const u16) -> __m512 {
        // SAFETY: pointer and features by the caller.
        unsafe {
            let bits = _mm512_cvtepu16_epi32(_mm256_loadu_si256(bits.cast()));
            _mm512_castsi512_ps(_mm512_slli_epi32::<16>(bits))
        }
    }
    // SAFETY: pointers and features by the caller.
    unsafe {
        let bias = [_mm512_loadu_ps(f.bias), _mm512_loadu_ps(f.bias.add(SIDE))];
        // First operand of the maximum: NaN stays NaN.
        let least = _mm512_set1_ps(if f.relu { 0.0 } else { f32::NEG_INFINITY });
        for r in 0..f.rows {
            let sums = f.sums.add(r * SIDE);
            let mut low = _mm512_add_ps(_mm512_loadu_ps(sums), bias[0]);
            let high = if N == 2 { _mm512_loadu_ps(sums.add(TILE)) } else { _mm512_setzero_ps() };
            let mut high = _mm512_add_ps(high, bias[1]);
            if RESIDUAL {
                let residual = f.residual.add(r * f.stride);
                low = _mm512_add_ps(low, widen(residual));
                high = _mm512_add_ps(high, widen(residual.add(SIDE)));
            }
            let (low, high) = (_mm512_max_ps(least, low), _mm512_max_ps(least, high));
            let row = transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(high, low));
            _mm512_storeu_si512(f.y.add(r * f.stride).cast(), row);
        }
    }
}

/// A function of a product: zeroes the tiles of the result, adds the steps, stores them.
///
/// Tiles 0 to 3 are the result's, 4 and 5 the first operand's, 6 and 7 the second's. In a step, `a` and `s` hold
/// pointer and stride of the first tile of the first operand, and `b` the pointer to those of the second.
macro_rules! product {
    ($name:ident, shift: $shift:literal,
     zero: [$($zero:literal)+], step: [$($step:literal)+], store: [$($store:literal)+]) => {
        #[inline(always)]
        unsafe fn $name(p: &Product<'_>) {
            debug_assert!(!p.steps.is_empty());
            // SAFETY: pointers and features by the caller; all registers that change are declared.
            unsafe {
                asm!(
                    $($zero,)+
                    "2:",
                    "mov {b:e}, dword ptr [{steps} + 24]",
                    concat!("shl {b}, ", $shift),
                    "add {b}, {first_b}",
                    "mov {a}, qword ptr [{steps}]",
                    "mov {s:e}, dword ptr [{steps} + 16]",
                    $($step,)+
                    "add {steps}, 32",
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

product!(multiply_2x2, shift: 11,
    zero: ["tilezero tmm0" "tilezero tmm1" "tilezero tmm2" "tilezero tmm3"],
    step: [
        "tileloadd tmm6, [{b} + {row}*1]"
        "tileloadd tmm4, [{a} + {s}*1]"
        "mov {a}, qword ptr [{steps} + 8]"
        "mov {s:e}, dword ptr [{steps} + 20]"
        "tdpbf16ps tmm0, tmm4, tmm6"
        "tileloadd tmm7, [{b} + {row}*1 + 1024]"
        "tdpbf16ps tmm1, tmm4, tmm7"
        "tileloadd tmm5, [{a} + {s}*1]"
        "tdpbf16ps tmm2, tmm5, tmm6"
        "tdpbf16ps tmm3, tmm5, tmm7"
    ],
    store: [
        "tilestored [{c} + {row}*1], tmm0"
        "tilestored [{c} + {row}*1 + 1024], tmm1"
        "tilestored [{c} + {row}*1 + 2048], tmm2"
        "tilestored [{c} + {row}*1 + 3072], tmm3"
    ]
);

product!(multiply_2x1, shift: 10,
    zero: ["tilezero tmm0" "tilezero tmm2"],
    step: [
        "tileloadd tmm6, [{b} + {row}*1]"
        "tileloadd tmm4, [{a} + {s}*1]"
        "mov {a}, qword ptr [{steps} + 8]"
        "mov {s:e}, dword ptr [{steps} + 20]"
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

// What the assembly above takes for granted.
const _: () = {
    assert!(TILE * size_of::<u32>() == 1 << 10 && size_of::<Step>() == 32);
    assert!(offset_of!(Step, a) == 0 && offset_of!(Step, stride) == 16 && offset_of!(Step, b) == 24);
};
