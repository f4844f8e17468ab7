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
                _own: &$crate::tiles::Finish<$outcome>,
                mut before: Option<&$crate::tiles::Finish<$outcome>>,
            ) {
                let plain = |f: &&$crate::tiles::Finish<$outcome>| {
                    let whole = f.rows[..M].iter().all(|&rows| rows == $crate::tiles::SIDE);
                    f.n == 2 && whole && f.residual[0].is_null()
                };
                debug_assert!(before.is_none_or(|before| before.sums == p.sums));
                // SAFETY: pointers by the caller; `self` holds the configured tiles.
                unsafe {
                    // A product stores as many sums as it has itself: tiles of another number of rows go first. (What it then
                    // stores, as the first product of all does, is overwritten before it is read.)
                    if let Some(other) = before.take_if(|before| before.m != M) {
                        self.settle(other);
                    }
                    let alongside = before.filter(|f| (M, N) == (2, 2) && plain(f));
                    match (M, N) {
                        (2, 2) => multiply_2x2(p, alongside),
                        (2, 1) => multiply_2x1(p),
                        (1, 2) => multiply_1x2(p),
                        (1, 1) => multiply_1x1(p),
                        _ => unreachable!("at most 2 x 2 tiles"),
                    }
                    if let (Some(before), None) = (before, alongside) {
                        finish_tiles(before);
                    }
                }
            }

            #[inline(always)]
            unsafe fn settle(&self, last: &$crate::tiles::Finish<$outcome>) {
                // SAFETY: by the caller.
                unsafe {
                    self.store(last.sums, last.m);
                    finish_tiles(last);
                }
            }
        }

        #[inline(always)]
        unsafe fn finish_tiles(f: &$crate::tiles::Finish<$outcome>) {
            for m in 0..f.m {
                // SAFETY: by the caller.
                unsafe { $finish(f, m) }
            }
        }

        $crate::tiles::amx::product_finishing!(
            multiply_2x2($outcome, operands: $operands, prologue: $prologue, row: $row),
            $multiply,
            load: [
                "tileloadd tmm6, [{b} + {row}*1]"
                "tileloadd tmm7, [{b} + {row}*1 + 1024]"
                "tileloadd tmm4, [{a} + {s}*1]"
                "mov {a}, qword ptr [{steps} + 8]"
                "mov {s:e}, dword ptr [{steps} + 20]"
                "tileloadd tmm5, [{a} + {s}*1]"
            ],
            sums: [
                "tmm0" at "0": "tmm4, tmm6" => ("0", "{y0}"),
                "tmm1" at "1024": "tmm4, tmm7" => ("64", "{y0} + {stride}"),
                "tmm2" at "2048": "tmm5, tmm6" => ("2048", "{y1}"),
                "tmm3" at "3072": "tmm5, tmm7" => ("2112", "{y1} + {stride}")
            ],
            advance: ["lea {y0}, [{y0} + {stride}*2]" "lea {y1}, [{y1} + {stride}*2]"],
            outputs: [y0 0 y1 1]
        );

        $crate::tiles::amx::product!(multiply_2x1, $multiply, shift: 10,
            load: [
                "tileloadd tmm6, [{b} + {row}*1]"
                "tileloadd tmm4, [{a} + {s}*1]"
                "mov {a}, qword ptr [{steps} + 8]"
                "mov {s:e}, dword ptr [{steps} + 20]"
                "tileloadd tmm5, [{a} + {s}*1]"
            ],
            sums: ["tmm0" at "0": "tmm4, tmm6", "tmm2" at "2048": "tmm5, tmm6"],
            others: ["tmm1" at "1024" "tmm3" at "3072"]
        );

        $crate::tiles::amx::product!(multiply_1x2, $multiply, shift: 11,
            load: [
                "tileloadd tmm4, [{a} + {s}*1]"
                "tileloadd tmm6, [{b} + {row}*1]"
                "tileloadd tmm7, [{b} + {row}*1 + 1024]"
            ],
            sums: ["tmm0" at "0": "tmm4, tmm6", "tmm1" at "1024": "tmm4, tmm7"],
            others: []
        );

        $crate::tiles::amx::product!(multiply_1x1, $multiply, shift: 10,
            load: ["tileloadd tmm4, [{a} + {s}*1]" "tileloadd tmm6, [{b} + {row}*1]"],
            sums: ["tmm0" at "0": "tmm4, tmm6"],
            others: ["tmm1" at "1024"]
        );
    };
}

pub(crate) use row_tiles;
