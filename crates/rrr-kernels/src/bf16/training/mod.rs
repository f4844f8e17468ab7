//! What training adds to convolutions of activations in bf16: weight gradients, batch norm in train mode, and the
//! gradients of pooling. Activations and their gradients lie as in inference; sums, statistics and gradients of parameters
//! are f32.

mod grad;
mod norm;
mod pooling;

use super::stored::WIDTH;

pub use grad::{Bf16GradPlan, Bf16Weights};
pub(super) use grad::{Task as GradTask, work as grad};
pub(super) use norm::{BackwardTask, ForwardTask, backward, forward};
pub use norm::{
    Bf16BnBackward, Bf16BnForward, Bf16Norm, Bf16NormGrad, Bf16Skip, bf16_bn_backward, bf16_bn_forward,
};
pub(super) use pooling::{Task as PoolingTask, work as pooling};
pub use pooling::{bf16_avg_pool_backward, bf16_max_pool_backward, bf16_mean_of_groups, bf16_pool_features};

/// A row of a plane.
type Bits = [u16; WIDTH];

/// The rows of a plane.
#[inline(always)]
fn rows(plane: &[u16], rows: usize) -> &[Bits] {
    &plane.as_chunks().0[..rows]
}

/// The rows of a plane.
#[inline(always)]
fn rows_mut(plane: &mut [u16], rows: usize) -> &mut [Bits] {
    &mut plane.as_chunks_mut().0[..rows]
}
