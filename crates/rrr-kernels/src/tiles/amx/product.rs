//! Products of tiles of a single row tile, or a single column.

/// The start of a step of a product: `a` and `s` become pointer and stride of the first tile of the first operand, `b` the
/// pointer to those of the second, of which there are `1 << shift` bytes per step.
macro_rules! operands_of_step {
    ($shift:literal) => {
        concat!(
            "mov {b:e}, dword ptr [{steps} + 24]\n",
            "shl {b}, ",
            $shift,
            "\n",
            "add {b}, {first_b}\n",
            "mov {a}, qword ptr [{steps}]\n",
            "mov {s:e}, dword ptr [{steps} + 16]",
        )
    };
}

/// What a first step does with a tile of sums: that of the product before is stored, and the product's own begins. Behind the
/// last step of the product before, storing would hold up the loads of this one until those sums are there.
macro_rules! first_sum {
    ($sum:literal at $at:literal: $multiply:literal $operands:literal) => {
        concat!(
            "tilestored [{sums} + {row}*1 + ",
            $at,
            "], ",
            $sum,
            "\ntilezero ",
            $sum,
            "\n",
            $multiply,
            " ",
            $sum,
            ", ",
            $operands,
        )
    };
}

/// A function of a product: stores the sums of the one before, and adds the steps.
///
/// The lower tiles are the result's, the upper ones the operands'. A step is `load`, which starts behind
/// `operands_of_step!`, and the products of `sums`, each with its place; `others` are tiles that hold no sums of this
/// product, but perhaps of the one before.
macro_rules! product {
    ($name:ident, $multiply:literal, shift: $shift:literal, load: [$($load:literal)+],
     sums: [$($sum:literal at $at:literal: $operands:literal),+], others: [$($other:literal at $other_at:literal)*]) => {
        #[inline(always)]
        unsafe fn $name(p: &$crate::tiles::Product<'_>) {
            debug_assert!(!p.steps.is_empty());
            // SAFETY: pointers and features by the caller; all registers that change are declared. No instruction of the
            // compiler's changes tiles, so that sums stay from one block to the next.
            unsafe {
                std::arch::asm!(
                    $crate::tiles::amx::operands_of_step!($shift),
                    $($load,)+
                    $(concat!("tilestored [{sums} + {row}*1 + ", $other_at, "], ", $other),)*
                    $($crate::tiles::amx::first_sum!($sum at $at: $multiply $operands),)+
                    "jmp 3f",
                    "2:",
                    $crate::tiles::amx::operands_of_step!($shift),
                    $($load,)+
                    $(concat!($multiply, " ", $sum, ", ", $operands),)+
                    "3:",
                    "add {steps}, 32",
                    "dec {left}",
                    "jnz 2b",
                    steps = inout(reg) p.steps.as_ptr() => _,
                    left = inout(reg) p.steps.len() => _,
                    first_b = in(reg) p.b,
                    sums = in(reg) p.sums,
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

pub(crate) use {first_sum, operands_of_step, product};
