//! Inference on activations stored in bf16.
//!
//! # Layout
//! Activations lie in blocks of 32 channels, `[group][C / 32][row][32]` with `row = pixel * n + image` and a row of
//! zeros after each block's rows ([`Bf16Activation`]): 64 bytes in a row, see [`crate::tiles`]. *Groups* are independent
//! tensors of one shape: the branches of a network.
//!
//! # Sums
//! Tap by tap and 32 channels at a time in tile registers, in f32; then bias, residual and ReLU in f32, and one
//! rounding to bf16. Every instruction set gives the bits of AMX, for any number of threads and images, but AVX-512 with
//! BF16 those of its own: tap by tap and pair by pair of channels, the odd one of a pair before the even one.

mod activation;
#[cfg(target_arch = "x86_64")]
mod amx;
mod conv;
#[cfg(target_arch = "x86_64")]
mod dot;
#[cfg(target_arch = "x86_64")]
mod finish;
mod outcome;
mod packing;
mod pooling;

pub use activation::{Bf16Activation, round_bf16};
pub(super) use activation::{round, widen};
pub use conv::{Bf16Conv, Bf16Copy, Bf16Job, Bf16Plan};
pub(super) use outcome::Rounded;
pub(super) use packing::{Packing, Places, work as pack};
pub use pooling::{bf16_avg_pool, bf16_max_pool};

use super::tiles::STEP;
use crate::tiles::{image_slack, plane_rows};

/// Channels of a block.
pub(super) const WIDTH: usize = STEP;

/// Numbers behind padded images `[n][height + 6][width + 6][3]` that the convolution of images may read.
pub const IMAGE_SLACK: usize = image_slack(size_of::<u16>());

/// Numbers of a plane of some rows.
pub(super) fn plane_len(rows: usize) -> usize {
    plane_rows(rows) * WIDTH
}
