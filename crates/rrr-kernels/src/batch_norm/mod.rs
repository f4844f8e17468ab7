//! Batch norm in train mode, one plane of 16 channels at a time, fused with the sum at the end of a block and ReLU.

mod backward;
mod forward;

use crate::BLOCK;
use crate::isa::Isa;
#[cfg(target_arch = "aarch64")]
use crate::simd::Neon;
use crate::simd::Portable;
#[cfg(target_arch = "x86_64")]
use crate::simd::{Avx2, Avx512};

type Lanes = [f32; BLOCK];

/// PyTorch's default, which all ResNets use.
pub const BN_EPS: f32 = 1e-5;

/// Rows summed in f32 before they are added to the f64 totals: short enough that rounding stays far below
/// f32's resolution.
const PARTIAL_ROWS: usize = 64;

/// A batch norm of a plane.
pub struct Norm<'a> {
    /// Input plane, its zero row included.
    pub x: &'a [f32],
    /// Scale per channel.
    pub gamma: &'a Lanes,
    /// Shift per channel.
    pub beta: &'a Lanes,
    /// Set to the batch's mean.
    pub mean: &'a mut Lanes,
    /// Set to `1 / sqrt(batch variance + eps)`.
    pub inv_std: &'a mut Lanes,
    /// Moved towards the batch's mean.
    pub running_mean: &'a mut Lanes,
    /// Moved towards the batch's unbiased variance.
    pub running_var: &'a mut Lanes,
}

/// What is added to a batch norm's result.
pub enum Skip<'a> {
    /// Nothing.
    None,
    /// A plane.
    Plane(&'a [f32]),
    /// Another batch norm's result.
    Norm(Norm<'a>),
}

/// One plane of a forward pass: `y = relu(norm(x) + skip)`.
pub struct BnForward<'a> {
    /// The batch norm.
    pub norm: Norm<'a>,
    /// What is added.
    pub skip: Skip<'a>,
    /// Output plane; the zero row stays untouched.
    pub y: &'a mut [f32],
}

/// A batch norm's gradients.
pub struct NormGrad<'a> {
    /// The forward pass's input plane.
    pub x: &'a [f32],
    /// Scale per channel.
    pub gamma: &'a Lanes,
    /// Shift per channel.
    pub beta: &'a Lanes,
    /// The batch's mean.
    pub mean: &'a Lanes,
    /// `1 / sqrt(batch variance + eps)`.
    pub inv_std: &'a Lanes,
    /// Set to the gradient of `gamma`.
    pub dgamma: &'a mut Lanes,
    /// Set to the gradient of `beta`.
    pub dbeta: &'a mut Lanes,
}

/// One plane of a backward pass through `relu(norm(x) + skip)`.
pub struct BnBackward<'a> {
    /// The forward pass's output plane: the gradient passes where it is positive. `None`: nothing was added to the batch
    /// norm's result, which is as fast to compute as to read.
    pub y: Option<&'a [f32]>,
    /// Gradient of the output plane; becomes that before ReLU, or that of `x` without `dx`. The zero row stays untouched.
    pub dy: &'a mut [f32],
    /// The batch norm.
    pub norm: NormGrad<'a>,
    /// Set to the gradient of `x`, if that has a plane of its own.
    pub dx: Option<&'a mut [f32]>,
    /// The batch norm on the skip path, and a plane for the gradient of its input.
    pub skip: Option<(NormGrad<'a>, &'a mut [f32])>,
}

/// Runs a [`BnForward`] with PyTorch's epsilon and the given momentum (weight of the new batch in the
/// running statistics).
///
/// # Panics
/// If planes differ in length, or this CPU lacks the instruction set.
pub fn bn_forward(isa: Isa, momentum: f32, mut job: BnForward<'_>) {
    // SAFETY: `Kernels::new` has checked the CPU.
    unsafe { (Kernels::new(isa).forward)(momentum, &mut job) }
}

/// Runs a [`BnBackward`].
///
/// # Panics
/// If planes differ in length, or this CPU lacks the instruction set.
pub fn bn_backward(isa: Isa, mut job: BnBackward<'_>) {
    // SAFETY: `Kernels::new` has checked the CPU.
    unsafe { (Kernels::new(isa).backward)(&mut job) }
}

/// The loops of one instruction set.
struct Kernels {
    forward: unsafe fn(f32, &mut BnForward<'_>),
    backward: unsafe fn(&mut BnBackward<'_>),
}

impl Kernels {
    fn new(isa: Isa) -> Self {
        assert!(isa.is_available(), "this CPU does not support {isa}");
        match isa {
            #[cfg(target_arch = "x86_64")]
            Isa::Amx | Isa::Avx512 => avx512::KERNELS,
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => avx2::KERNELS,
            #[cfg(target_arch = "aarch64")]
            Isa::Neon => neon::KERNELS,
            _ => portable::KERNELS,
        }
    }
}

/// Compiles the loops for one instruction set, of so many vectors per row.
macro_rules! kernels {
    ($module:ident, $simd:ident, $n:literal, [$($feature:literal)?]) => {
        mod $module {
            use super::*;

            $(#[target_feature(enable = $feature)])?
            unsafe fn forward(momentum: f32, job: &mut BnForward<'_>) {
                // SAFETY: passed on to the caller.
                unsafe { forward::run::<$simd, $n>(momentum, job) }
            }

            $(#[target_feature(enable = $feature)])?
            unsafe fn backward(job: &mut BnBackward<'_>) {
                // SAFETY: passed on to the caller.
                unsafe { backward::run::<$simd, $n>(job) }
            }

            pub(super) const KERNELS: Kernels = Kernels { forward, backward };
        }
    };
}

#[cfg(target_arch = "x86_64")]
kernels!(avx512, Avx512, 1, ["avx512f,avx512vl,avx512bw,avx512dq,avx2,fma"]);
#[cfg(target_arch = "x86_64")]
kernels!(avx2, Avx2, 2, ["avx2,fma"]);
#[cfg(target_arch = "aarch64")]
kernels!(neon, Neon, 4, ["neon"]);
kernels!(portable, Portable, 4, []);

/// The rows of a plane, without its zero row.
#[inline(always)]
pub(crate) fn rows(plane: &[f32]) -> &[Lanes] {
    let (rows, rest) = plane.as_chunks::<BLOCK>();
    debug_assert!(rest.is_empty());
    &rows[..rows.len() - 1]
}

/// The rows of a plane, without its zero row.
#[inline(always)]
pub(crate) fn rows_mut(plane: &mut [f32]) -> &mut [Lanes] {
    let (rows, rest) = plane.as_chunks_mut::<BLOCK>();
    debug_assert!(rest.is_empty());
    let len = rows.len() - 1;
    &mut rows[..len]
}
