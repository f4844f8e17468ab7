//! Products of tiles that wait for nothing, to measure what AMX does at most.

use super::Amx;
use crate::tiles::{ROW_BYTES, Registers, SIDE};
use std::arch::asm;

/// A function of rounds, at least one, of four products of tiles of zeros, which says how many multiply-adds they were;
/// `$k` values meet in each sum of a product.
macro_rules! multiply_adds {
    ($name:ident, $multiply:literal, $k:expr) => {
        /// Rounds of products, at least one: how many multiply-adds they were.
        ///
        /// # Safety
        /// The CPU must have AMX.
        pub unsafe fn $name(rounds: u64) -> u64 {
            // SAFETY: by the caller; all registers that change are declared.
            unsafe {
                let _tiles = Amx::new();
                asm!(
                    "tilezero tmm0",
                    "tilezero tmm1",
                    "tilezero tmm2",
                    "tilezero tmm3",
                    "tilezero tmm4",
                    "tilezero tmm5",
                    "tilezero tmm6",
                    "tilezero tmm7",
                    "2:",
                    concat!($multiply, " tmm0, tmm4, tmm6"),
                    concat!($multiply, " tmm1, tmm4, tmm7"),
                    concat!($multiply, " tmm2, tmm5, tmm6"),
                    concat!($multiply, " tmm3, tmm5, tmm7"),
                    "dec {left}",
                    "jnz 2b",
                    left = inout(reg) rounds => _,
                    out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                    out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                    options(nostack, nomem),
                );
            }
            rounds * (4 * SIDE * SIDE * $k) as u64
        }
    };
}

multiply_adds!(bf16_multiply_adds, "tdpbf16ps", ROW_BYTES / size_of::<u16>());
multiply_adds!(int8_multiply_adds, "tdpbusd", ROW_BYTES);
