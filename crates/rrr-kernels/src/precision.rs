//! The number format that products are computed in.

use crate::{Buffer, Isa};
use std::fmt;
use std::str::FromStr;

/// What the operands of matrix products are rounded to. Sums, and everything stored, are f32 in any case.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Precision {
    /// Not rounded.
    #[default]
    F32,
    /// bfloat16: 8 significant bits, the exponents of f32. Where the CPU has no tiles of it, the same bits
    /// are computed slower than in f32.
    Bf16,
}

impl Precision {
    /// The fastest on this CPU: bf16 where the active instruction set ([`Isa::active`]) has tiles of it.
    pub fn auto() -> Self {
        if Isa::active() == Isa::Amx { Precision::Bf16 } else { Precision::F32 }
    }
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Precision::F32 => "f32",
            Precision::Bf16 => "bf16",
        })
    }
}

impl FromStr for Precision {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        match s {
            "f32" => Ok(Precision::F32),
            "bf16" => Ok(Precision::Bf16),
            _ => Err(format!("unknown precision `{s}` (known: f32, bf16)")),
        }
    }
}

/// Packed weights in the precision that a plan computes in.
#[derive(Clone, Copy)]
pub enum Weights<'a> {
    /// As [`Conv::pack`](crate::Conv::pack) and [`Conv::transpose`](crate::Conv::transpose) make them.
    F32(&'a [f32]),
    /// Pairs of bf16, as [`Conv::round`](crate::Conv::round) and
    /// [`Conv::round_transposed`](crate::Conv::round_transposed) make them.
    Bf16(&'a [u32]),
}

impl<'a> Weights<'a> {
    /// # Panics
    /// If they are in bf16.
    pub(crate) fn f32(self) -> &'a [f32] {
        match self {
            Weights::F32(w) => w,
            Weights::Bf16(_) => panic!("this plan computes in f32, its weights are in bf16"),
        }
    }

    /// # Panics
    /// If they are in f32.
    pub(crate) fn bf16(self) -> &'a [u32] {
        match self {
            Weights::Bf16(w) => w,
            Weights::F32(_) => panic!("this plan computes in bf16, its weights are in f32"),
        }
    }
}

impl<'a> From<&'a [f32]> for Weights<'a> {
    fn from(w: &'a [f32]) -> Self {
        Weights::F32(w)
    }
}

impl<'a> From<&'a Buffer> for Weights<'a> {
    fn from(w: &'a Buffer) -> Self {
        Weights::F32(w)
    }
}
