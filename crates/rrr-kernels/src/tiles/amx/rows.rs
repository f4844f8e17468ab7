//! Products of tiles whose rows lie where activations do.

/// Implements [`RowTiles`](crate::tiles::RowTiles) for [`Amx`](super::Amx) and an outcome: `multiply` is the instruction
/// for products of two tiles, `finish` a function that finishes a tile of a [`Finish`](crate::tiles::Finish), and the rest
/// is what `product_finishing!` takes.
macro_rules! row_tiles {
    ($outcome:ty, multiply: $multiply:literal, finish: $finish:path,
     operands: $operands:path, prologue: $prologue:literal, row: $row:ident) => {
        impl $crate::tiles::RowTiles<$outcome> for $crate::tiles::amx::Amx {
            #[inline(always)]
            unsafe fn multiply_rows<const M: usize, const N: usize>(
                &self,
                p: &$crate::tiles::Product<'_>,
                before: Option<&$crate::tiles::Finish<$outcome>>,
            ) {
                let plain = |f: &&$crate::tiles::Finish<$outcome>| {
                    let whole = f.rows[..M].iter().all(|&rows| rows == $crate::tiles::SIDE);
                    f.m == M && f.n == 2 && whole && f.residual[0].is_null()
                };
                let alongside = before.filter(|f| M > 1 && N == 2 && plain(f));
                // SAFETY: pointers by the caller; `self` holds the configured tiles.
                unsafe {
                    if let (Some(before), None) = (before, alongside) {
                        Self::finish(before);
                    }
                    match (M, N) {
                        (3, 2) => multiply_3x2(p, alongside),
                        (3, 1) => multiply_3x1(p),
                        (2, 2) => multiply_2x2(p, alongside),
                        (2, 1) => multiply_2x1(p),
                        (1, 2) => multiply_1x2(p),
                        (1, 1) => multiply_1x1(p),
                        _ => unreachable!("at most 3 x 2 tiles"),
                    }
                }
            }

            #[inline(always)]
            unsafe fn finish(f: &$crate::tiles::Finish<$outcome>) {
                for m in 0..f.m {
                    // SAFETY: by the caller.
                    unsafe { $finish(f, m) }
                }
            }

            #[inline(always)]
            fn prefetch(first: *const u8, stride: usize) {
                $crate::tiles::amx::prefetch(first, stride);
            }
        }

        $crate::tiles::amx::product_finishing!(multiply_3x2($outcome, operands: $operands, prologue: $prologue, row: $row),
            zero: [
                "tilezero tmm0" "tilezero tmm1" "tilezero tmm2" "tilezero tmm3" "tilezero tmm4" "tilezero tmm5"
            ],
            step: [
                "tileloadd tmm6, [{b} + {row}*1]",
                "tileloadd tmm7, [{a} + {s}*1]",
                concat!($multiply, " tmm0, tmm7, tmm6") => ("0", "{y0}"),
                "mov {a}, qword ptr [{steps} + 8]",
                "mov {s:e}, dword ptr [{steps} + 28]",
                "tileloadd tmm7, [{a} + {s}*1]",
                concat!($multiply, " tmm2, tmm7, tmm6") => ("64", "{y0} + {stride}"),
                "mov {a}, qword ptr [{steps} + 16]",
                "mov {s:e}, dword ptr [{steps} + 32]",
                "tileloadd tmm7, [{a} + {s}*1]",
                concat!($multiply, " tmm4, tmm7, tmm6") => ("2048", "{y1}"),
                "tileloadd tmm6, [{b} + {row}*1 + 1024]",
                concat!($multiply, " tmm5, tmm7, tmm6") => ("2112", "{y1} + {stride}"),
                "mov {a}, qword ptr [{steps} + 8]",
                "mov {s:e}, dword ptr [{steps} + 28]",
                "tileloadd tmm7, [{a} + {s}*1]",
                concat!($multiply, " tmm3, tmm7, tmm6") => ("4096", "{y2}"),
                "mov {a}, qword ptr [{steps}]",
                "mov {s:e}, dword ptr [{steps} + 24]",
                "tileloadd tmm7, [{a} + {s}*1]",
                concat!($multiply, " tmm1, tmm7, tmm6") => ("4160", "{y2} + {stride}")
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

        $crate::tiles::amx::product_finishing!(multiply_2x2($outcome, operands: $operands, prologue: $prologue, row: $row),
            zero: ["tilezero tmm0" "tilezero tmm1" "tilezero tmm2" "tilezero tmm3"],
            step: [
                "tileloadd tmm6, [{b} + {row}*1]",
                "tileloadd tmm7, [{b} + {row}*1 + 1024]",
                "tileloadd tmm4, [{a} + {s}*1]",
                "mov {a}, qword ptr [{steps} + 8]",
                "mov {s:e}, dword ptr [{steps} + 28]",
                "tileloadd tmm5, [{a} + {s}*1]",
                concat!($multiply, " tmm0, tmm4, tmm6") => ("0", "{y0}"),
                concat!($multiply, " tmm1, tmm4, tmm7") => ("64", "{y0} + {stride}"),
                concat!($multiply, " tmm2, tmm5, tmm6") => ("2048", "{y1}"),
                concat!($multiply, " tmm3, tmm5, tmm7") => ("2112", "{y1} + {stride}")
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

        $crate::tiles::amx::product!(multiply_3x1, shift: 10,
            zero: ["tilezero tmm0" "tilezero tmm1" "tilezero tmm2"],
            step: [
                "tileloadd tmm6, [{b} + {row}*1]",
                "tileloadd tmm3, [{a} + {s}*1]",
                concat!($multiply, " tmm0, tmm3, tmm6"),
                "mov {a}, qword ptr [{steps} + 8]",
                "mov {s:e}, dword ptr [{steps} + 28]",
                "tileloadd tmm4, [{a} + {s}*1]",
                concat!($multiply, " tmm1, tmm4, tmm6"),
                "mov {a}, qword ptr [{steps} + 16]",
                "mov {s:e}, dword ptr [{steps} + 32]",
                "tileloadd tmm5, [{a} + {s}*1]",
                concat!($multiply, " tmm2, tmm5, tmm6")
            ],
            store: [
                "tilestored [{c} + {row}*1], tmm0"
                "tilestored [{c} + {row}*1 + 1024], tmm1"
                "tilestored [{c} + {row}*1 + 2048], tmm2"
            ]
        );

        $crate::tiles::amx::product!(multiply_2x1, shift: 10,
            zero: ["tilezero tmm0" "tilezero tmm2"],
            step: [
                "tileloadd tmm6, [{b} + {row}*1]",
                "tileloadd tmm4, [{a} + {s}*1]",
                "mov {a}, qword ptr [{steps} + 8]",
                "mov {s:e}, dword ptr [{steps} + 28]",
                concat!($multiply, " tmm0, tmm4, tmm6"),
                "tileloadd tmm5, [{a} + {s}*1]",
                concat!($multiply, " tmm2, tmm5, tmm6")
            ],
            store: ["tilestored [{c} + {row}*1], tmm0" "tilestored [{c} + {row}*1 + 1024], tmm2"]
        );

        $crate::tiles::amx::product!(multiply_1x2, shift: 11,
            zero: ["tilezero tmm0" "tilezero tmm1"],
            step: [
                "tileloadd tmm4, [{a} + {s}*1]",
                "tileloadd tmm6, [{b} + {row}*1]",
                concat!($multiply, " tmm0, tmm4, tmm6"),
                "tileloadd tmm7, [{b} + {row}*1 + 1024]",
                concat!($multiply, " tmm1, tmm4, tmm7")
            ],
            store: ["tilestored [{c} + {row}*1], tmm0" "tilestored [{c} + {row}*1 + 1024], tmm1"]
        );

        $crate::tiles::amx::product!(multiply_1x1, shift: 10,
            zero: ["tilezero tmm0"],
            step: [
                "tileloadd tmm4, [{a} + {s}*1]",
                "tileloadd tmm6, [{b} + {row}*1]",
                concat!($multiply, " tmm0, tmm4, tmm6")
            ],
            store: ["tilestored [{c} + {row}*1], tmm0"]
        );
    };
}

pub(crate) use row_tiles;
