//! Batch norm in train mode, one plane of 16 channels at a time, fused with the sum at the end of a block and ReLU.

mod backward;
mod forward;

use crate::BLOCK;
use crate::isa::Isa;

type Lanes = [f32; BLOCK];

/// PyTorch's default, which all ResNets use.
pub const BN_EPS: f32 = 1e-5;

/// Rows summed in f32 before they are added to the f64 totals: short enough that rounding stays far below
/// f32's resolution.
pub(crate) const PARTIAL_ROWS: usize = 64;

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
pub fn bn_forward(isa: Isa, momentum: f32, job: BnForward<'_>) {
    isa.run(forward::Forward { momentum, job });
}

/// Runs a [`BnBackward`].
///
/// # Panics
/// If planes differ in length, or this CPU lacks the instruction set.
pub fn bn_backward(isa: Isa, job: BnBackward<'_>) {
    isa.run(job);
}

/// Scale and shift that normalise a channel.
#[inline(always)]
pub(crate) fn affine(gamma: f32, beta: f32, mean: f32, inv_std: f32) -> (f32, f32) {
    let scale = gamma * inv_std;
    (scale, beta - mean * scale)
}

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
