//! The number format that products are computed in.

use crate::{Aligned, Buffer, Isa};
use std::fmt;
use std::ops::Range;
use std::str::FromStr;

/// The number format of matrix products. Their sums are f32 in any case.
///
/// In training everything stored is f32: bf16 rounds the operands of products on their way in. In inference (and in a
/// frozen stem) bf16 is what activations and weights are stored in: a layer adds products, bias and residual in f32 and
/// rounds once. So residuals and pooling read rounded values, which they do not in training; the classifier of an
/// inference reads pooled features in f32, with weights in f32.
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
    /// What is fastest on this CPU: bf16 where the active instruction set is AMX, else f32.
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
    /// As [`ConvPlan::winograd_weights`](crate::ConvPlan::winograd_weights) makes them.
    Winograd(&'a [f32]),
}

impl<'a> Weights<'a> {
    /// Number of bytes.
    pub fn bytes(self) -> usize {
        match self {
            Weights::F32(w) | Weights::Winograd(w) => size_of_val(w),
            Weights::Bf16(w) => size_of_val(w),
        }
    }

    /// # Panics
    /// If they are of another kind.
    pub(crate) fn f32(self) -> &'a [f32] {
        match self {
            Weights::F32(w) => w,
            Weights::Bf16(_) => panic!("this plan computes in f32, its weights are in bf16"),
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

    /// # Panics
    /// If they are of another kind.
    pub(crate) fn bf16(self) -> &'a [u32] {
        match self {
            Weights::Bf16(w) => w,
            _ => panic!("this plan computes in bf16, its weights are in f32"),
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

/// Memory for packed weights in one of the precisions.
#[derive(Clone)]
pub enum PackedWeights {
    /// See [`Weights::F32`].
    F32(Buffer),
    /// See [`Weights::Bf16`].
    Bf16(Aligned<u32>),
}

impl PackedWeights {
    /// Zeros: `f32` numbers or `bf16` pairs of them.
    pub fn zeros(precision: Precision, f32: usize, bf16: usize) -> Self {
        match precision {
            Precision::F32 => PackedWeights::F32(Buffer::zeros(f32)),
            Precision::Bf16 => PackedWeights::Bf16(Aligned::zeros(bf16)),
        }
    }

    /// All of them.
    pub fn get(&self) -> Weights<'_> {
        match self {
            PackedWeights::F32(w) => Weights::F32(w),
            PackedWeights::Bf16(w) => Weights::Bf16(w),
        }
    }

    /// Those at `f32` or at `bf16`, whichever they are.
    pub fn part(&self, f32: &Range<usize>, bf16: &Range<usize>) -> Weights<'_> {
        match self {
            PackedWeights::F32(w) => Weights::F32(&w[f32.clone()]),
            PackedWeights::Bf16(w) => Weights::Bf16(&w[bf16.clone()]),
        }
    }
}
