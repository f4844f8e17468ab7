//! Compute kernels of rrrnet: instruction-set dispatch, a thread pool, aligned memory, and convolution,
//! batch norm, pooling and optimiser loops on them. All `unsafe` code of the project lives in this crate;
//! its public functions are safe and check their arguments once per call, outside the loops.
//!
//! # Layout
//! An [`Activation`] of `C` channels for `n` images is stored in blocks of 16 channels,
//! `[C / 16][row][16]`, a row being one image at one pixel, images innermost: `row = pixel * n + image`.
//! A block of channels (a *plane*) is followed by one row of zeros, which stands for all padding.
//! Channels are padded to a multiple of 16 with zeros. So a pixel's batch is contiguous, every convolution
//! is a batch-reduce GEMM over whole rows, and every per-channel pass runs along one plane.

mod activation;
mod adamw;
mod batch_norm;
mod bf16;
mod buffer;
mod compute;
mod conv;
mod grouped;
pub mod int8;
mod isa;
mod micro;
pub mod mmap;
mod peak;
mod pool;
mod pooling;
mod precision;
mod prefetch;
mod rows;
mod scratch;
mod shared;
mod simd;
mod tiles;
mod winograd;

pub use activation::Activation;
pub use adamw::{AdamWStep, AdamWTensor};
pub use batch_norm::{BN_EPS, BnBackward, BnForward, Norm, NormGrad, Skip, bn_backward, bn_forward};
pub use bf16::{
    Bf16Activation, Bf16BnBackward, Bf16BnForward, Bf16Conv, Bf16Copy, Bf16GradPlan, Bf16Job, Bf16Norm,
    Bf16NormGrad, Bf16Plan, Bf16Skip, Bf16Weights, IMAGE_SLACK, bf16_avg_pool, bf16_avg_pool_backward,
    bf16_bn_backward, bf16_bn_forward, bf16_max_pool, bf16_max_pool_backward, bf16_mean_of_groups,
    bf16_pool_features, round_bf16,
};
pub use buffer::{Aligned, Arena, Buffer, Element};
pub use compute::Compute;
pub use conv::{Conv, ConvPlan, GradWeight};
pub use grouped::{Grouped, Stored};
pub use isa::{Isa, Vectorize};
pub use micro::BLOCK;
pub use peak::{bf16_peak, fma_peak, int8_peak};
pub use pool::Pool;
pub use pooling::{avg_pool, avg_pool_backward, max_pool, max_pool_backward, max_pool_size};
pub use precision::{Precision, Weights};
pub use rows::RowsJob;

/// Channels rounded up to whole blocks.
pub fn blocks(channels: usize) -> usize {
    channels.div_ceil(BLOCK)
}
