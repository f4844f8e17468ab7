//! Products of tiles that finish the sums of the product before: the vector instructions for that run between those on
//! tiles, which take most of the time.

/// A function of a product that finishes the sums of the one before: two rows of every tile in a step, and what is left
/// of them behind the last step, before the new sums take their place.
///
/// As in `product!`. `operands` makes of an outcome what the registers `a`, `s` and `b` hold when `prologue` runs, which
/// fills some of the vector registers 16 to 23. `row` is a macro of the instructions that finish a row of two tiles with the
/// rest of these, given where its sums and its output lie. `sums` is the first sum of the next row; it begins at a multiple
/// of a tile, which tells when all 16 rows are done. Without a product before, `a` is null.
macro_rules! product_finishing {
    ($name:ident($outcome:ty, operands: $operands:path, prologue: $prologue:literal, row: $row:ident),
     zero: [$($zero:literal)+], step: [$($step:expr $(=> ($sums:literal, $y:literal))?),+],
     advance: [$($advance:literal)+], store: [$($store:literal)+], outputs: [$($out:ident $index:literal)+]) => {
        #[inline(always)]
        unsafe fn $name(
            p: &$crate::tiles::Product<'_>,
            before: Option<&$crate::tiles::Finish<$outcome>>,
        ) {
            use $crate::tiles::{ROW_BYTES, STRIP, TILE_BYTES};
            debug_assert!(!p.steps.is_empty() && p.c.addr() % TILE_BYTES == 0);
            let (operands, y, stride) = match before {
                Some(f) => ($operands(&f.outcome), f.y, f.stride),
                None => ($crate::tiles::amx::Operands::NONE, [std::ptr::null_mut(); STRIP], 0),
            };
            // SAFETY: pointers and features by the caller; all registers that change are declared.
            unsafe {
                std::arch::asm!(
                    $($zero,)+
                    "test {a}, {a}",
                    "jz 6f",
                    $prologue,
                    "3:",
                    $crate::tiles::amx::operands_of_step!(11),
                    $($step, $($row!($sums, $y),)?)+
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
                    $($($row!($sums, $y),)?)+
                    $($advance,)+
                    "add {sums}, 128",
                    "jmp 4b",
                    "6:",
                    "add {sums}, 1024",
                    // Nothing left to finish.
                    "2:",
                    $crate::tiles::amx::operands_of_step!(11),
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
