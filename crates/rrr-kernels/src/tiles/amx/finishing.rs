//! Products of tiles that finish the sums of the product before: the vector instructions for that run between those on
//! tiles, which take most of the time.

/// A function of a product that stores the sums of the one before and finishes them: two rows of every tile in a step from
/// the second one on, and what is left of them behind the last step.
///
/// As in `product!`. `operands` makes of an outcome what the registers `a`, `s` and `b` hold when `prologue` runs, which
/// fills some of the vector registers 16 to 23. `row` is a macro of the instructions that finish a row of two tiles with the
/// rest of these, given where its sums and its output lie. `sums` is the first sum of the next row; it begins at a multiple
/// of a tile, which tells when all 16 rows are done. Without anything to finish, the first output is null.
macro_rules! product_finishing {
    ($name:ident($outcome:ty, operands: $make_operands:path, prologue: $prologue:literal, row: $row:ident),
     $multiply:literal, load: [$($load:literal)+],
     sums: [$($sum:literal at $at:literal: $operands:literal => ($row_sums:literal, $y:literal)),+],
     advance: [$($advance:literal)+], outputs: [$($out:ident $index:literal)+]) => {
        #[inline(always)]
        unsafe fn $name(
            p: &$crate::tiles::Product<'_>,
            before: Option<&$crate::tiles::Finish<$outcome>>,
        ) {
            use $crate::tiles::{ROW_BYTES, STRIP, TILE_BYTES};
            debug_assert!(!p.steps.is_empty() && p.sums.addr() % TILE_BYTES == 0);
            let (operands, y, stride) = match before {
                Some(f) => ($make_operands(&f.outcome), f.y, f.stride),
                None => ($crate::tiles::amx::Operands::NONE, [std::ptr::null_mut(); STRIP], 0),
            };
            // SAFETY: pointers and features by the caller; all registers that change are declared. Sums stay from one block
            // to the next, as in `product!`.
            unsafe {
                std::arch::asm!(
                    "test {y0}, {y0}",
                    "jz 2f",
                    $prologue,
                    "2:",
                    $crate::tiles::amx::operands_of_step!(11),
                    $($load,)+
                    $($crate::tiles::amx::first_sum!($sum at $at: $multiply $operands),)+
                    "add {steps}, 32",
                    "dec {left}",
                    "test {y0}, {y0}",
                    "jz 5f",
                    "test {left}, {left}",
                    "jz 7f",
                    "3:",
                    $crate::tiles::amx::operands_of_step!(11),
                    $($load,)+
                    $(concat!($multiply, " ", $sum, ", ", $operands), $row!($row_sums, $y),)+
                    $($advance,)+
                    "add {sums}, 128",
                    "add {steps}, 32",
                    "dec {left}",
                    "jz 6f",
                    "test {sums:e}, 1023",
                    "jnz 3b",
                    // Nothing left to finish.
                    "4:",
                    $crate::tiles::amx::operands_of_step!(11),
                    $($load,)+
                    $(concat!($multiply, " ", $sum, ", ", $operands),)+
                    "add {steps}, 32",
                    "dec {left}",
                    "5:",
                    "test {left}, {left}",
                    "jnz 4b",
                    "jmp 8f",
                    // The rest of the rows.
                    "6:",
                    "test {sums:e}, 1023",
                    "jz 8f",
                    "7:",
                    $($row!($row_sums, $y),)+
                    $($advance,)+
                    "add {sums}, 128",
                    "jmp 6b",
                    "8:",
                    steps = inout(reg) p.steps.as_ptr() => _,
                    left = inout(reg) p.steps.len() => _,
                    first_b = in(reg) p.b,
                    sums = inout(reg) p.sums => _,
                    row = in(reg) ROW_BYTES,
                    a = inout(reg) operands.a => _,
                    s = inout(reg) operands.s => _,
                    b = inout(reg) u64::from(operands.b.to_bits()) => _,
                    $($out = inout(reg) y[$index] => _,)+
                    stride = in(reg) stride,
                    out("zmm16") _, out("zmm17") _, out("zmm18") _, out("zmm19") _,
                    out("zmm20") _, out("zmm21") _, out("zmm22") _, out("zmm23") _,
                    out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                    out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                    options(nostack),
                );
            }
        }
    };
}

pub(crate) use product_finishing;
