//! Products of tiles of a single row tile, or a single column.

/// The start of a step of a product: `a` and `s` become pointer and stride of the first tile of the first operand, `b` the
/// pointer to those of the second, of which there are `1 << shift` bytes per step.
macro_rules! operands_of_step {
    ($shift:literal) => {
        concat!(
            "mov {b:e}, dword ptr [{steps} + 36]\n",
            "shl {b}, ",
            $shift,
            "\n",
            "add {b}, {first_b}\n",
            "mov {a}, qword ptr [{steps}]\n",
            "mov {s:e}, dword ptr [{steps} + 24]",
        )
    };
}

/// A function of a product: zeroes the tiles of the result, adds the steps, stores them.
///
/// The lower tiles are the result's, the upper ones the operands'. Steps start with `operands_of_step!`.
macro_rules! product {
    ($name:ident, shift: $shift:literal,
     zero: [$($zero:literal)+], step: [$($step:expr),+], store: [$($store:literal)+]) => {
        #[inline(always)]
        unsafe fn $name(p: &$crate::tiles::Product<'_>) {
            debug_assert!(!p.steps.is_empty());
            // SAFETY: pointers and features by the caller; all registers that change are declared.
            unsafe {
                std::arch::asm!(
                    $($zero,)+
                    "2:",
                    $crate::tiles::amx::operands_of_step!($shift),
                    $($step,)+
                    "add {steps}, 40",
                    "dec {left}",
                    "jnz 2b",
                    $($store,)+
                    steps = inout(reg) p.steps.as_ptr() => _,
                    left = inout(reg) p.steps.len() => _,
                    first_b = in(reg) p.b,
                    c = in(reg) p.c,
                    row = in(reg) $crate::tiles::ROW_BYTES,
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

pub(crate) use {operands_of_step, product};
