//! The number format that products are computed in.

use crate::{Buffer, Isa};
use std::fmt;
use std::str::FromStr;

/// The number format of matrix products. Their sums are f32 in any case.
///
/// bf16 is what activations are stored in, their gradients, and the weights that products read. In inference a layer adds
/// products, bias and residual in f32 and rounds once. In training a convolution rounds its sums, and batch norm, residual
/// and ReLU behind it round once more; parameters, their gradients and what the optimiser keeps are f32. Pooled features
/// and the classifier are f32 in any case.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Precision {
    /// Not rounded.
    #[default]
    F32,
    /// bfloat16: 8 significant bits, the exponents of f32. Where the CPU has no products of it, the bits of AMX
    /// are computed in software, slower than in f32.
    Bf16,
}

impl Precision {
    /// What is fastest on this CPU: bf16 where the active instruction set is faster in it
    /// ([`Isa::is_faster_in_bf16`]), else f32.
    pub fn auto() -> Self {
        if Isa::active().is_faster_in_bf16() { Precision::Bf16 } else { Precision::F32 }
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

/// Packed weights of one kind or the other.
#[derive(Clone, Copy)]
pub enum Weights<'a> {
    /// As [`Conv::pack`](crate::Conv::pack) and [`Conv::transpose`](crate::Conv::transpose) make them.
    F32(&'a [f32]),
    /// As [`ConvPlan::winograd_weights`](crate::ConvPlan::winograd_weights) makes them.
    Winograd(&'a [f32]),
}

impl<'a> Weights<'a> {
    /// Number of bytes.
    pub fn bytes(self) -> usize {
        match self {
            Weights::F32(w) | Weights::Winograd(w) => size_of_val(w),
        }
    }

    /// # Panics
    /// If they are of another kind.
    pub(crate) fn f32(self) -> &'a [f32] {
        match self {
            Weights::F32(w) => w,
            Weights::Winograd(_) => panic!("the weights are Winograd's"),
        }
    }

    /// # Panics
    /// If they are of another kind.
    pub(crate) fn winograd(self) -> &'a [f32] {
        match self {
            Weights::Winograd(w) => w,
            _ => panic!("the weights are not Winograd's"),
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
