//! Inference on activations stored in bf16.
//!
//! # Layout
//! Activations lie in blocks of 32 channels, `[group][C / 32][row][32]` with `row = pixel * n + image` and a row of
//! zeros after each block's rows ([`Bf16Activation`]). A row of a block is 64 bytes, as is a row of a tile: wherever
//! 16 output rows read input rows that are equally far apart, a tile is loaded right from the activation. Only tiles
//! that reach over a border are gathered first. *Groups* are independent tensors of one shape: the branches of a network.
//!
//! # Sums
//! Tap by tap and 32 channels at a time in tile registers, in f32; then bias, residual and ReLU in f32, and one
//! rounding to bf16. Every instruction set gives the bits of AMX, for any number of threads and images.

mod activation;
#[cfg(target_arch = "x86_64")]
mod amx;
mod conv;
mod packing;
mod plan;
mod pooling;
mod product;
mod run;

pub use activation::{Bf16Activation, round_bf16};
pub(super) use activation::{round, widen};
pub use conv::{Bf16Conv, Bf16Job, Bf16Plan};
pub(super) use packing::{Task as PackTask, work as pack};
pub use pooling::{bf16_avg_pool, bf16_max_pool};
pub(super) use run::{Task, work};

use super::tiles::{SIDE, STEP};

/// Channels of a block.
pub(super) const WIDTH: usize = STEP;

/// Bytes of a row of a block, and of a tile's row.
const ROW_BYTES: usize = WIDTH * size_of::<u16>();

/// Numbers behind padded images `[n][height + 6][width + 6][3]` that the convolution of images may read: those of
/// the 16 rows of a tile, 2 pixels apart, and of a whole tile's row.
pub const IMAGE_SLACK: usize = SIDE * 2 * 3 + WIDTH;

/// Rows of a plane: those of the pixels, the row of zeros, and so many more that the same rows of neighbouring
/// planes fall into different halves of the first-level cache's 64 sets.
pub(super) fn plane_rows(rows: usize) -> usize {
    const SETS: usize = 64;
    let least = rows + 1;
    if least < 4 * SETS { least | 1 } else { least + (SETS + SETS / 2 + 1 - least % SETS) % SETS }
}
