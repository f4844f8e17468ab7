//! Convolutions of bytes: `u8` activations, `i8` weights, 32-bit sums, finished as bytes again.
//!
//! # Layout
//! Activations lie in blocks of 16 channels as in f32, a byte each: `[group][C / 16][row][16]` with
//! `row = pixel * n + image` and a row of zeros after each block's rows ([`Int8Activation`]). For AMX blocks are of 64
//! channels, a row of a tile ([`Int8Compute::width`]). *Groups* are independent tensors of one shape: the branches of a
//! network.
//!
//! # Exact on every CPU
//! All instruction sets sum the same integers, and finish them with the same correctly rounded operations, so
//! that the bytes that come out do not depend on the CPU. AVX2 has no dot product of bytes; it adds products in
//! 16 bits, which must not overflow. So activations stay within [`ACTIVATION_MAX`], 7 bits, and weights within
//! [`Int8Conv::share_of_16_bits`]: a lane of a segment of 16 input channels holds the sum of 8 products. Trained
//! weights nearly do that by themselves. Those of the convolution of pixels, which are much alike, do not: its
//! segments are single steps, whose two products always fit.

mod activation;
mod conv;
mod finish;
mod isa;
mod layout;
mod micro;
mod pooling;
mod run;
mod simd;
mod tiles;

pub use activation::Int8Activation;
pub use conv::{Int8Conv, Int8Job, Int8Plan};
pub use isa::Int8Isa;
pub use pooling::{int8_avg_pool, int8_max_pool};

use crate::{BLOCK, Pool};
use layout::Layout;
use micro::Micro;
use std::sync::Arc;

/// Largest activation that a convolution may read.
pub const ACTIVATION_MAX: u8 = 127;

/// Bytes behind padded images `[n][height + 6][width + 6][3]` that the convolution of images may read.
pub const INT8_IMAGE_SLACK: usize = crate::tiles::image_slack(1);

/// Input channels of a step: the products that a dot product sums.
const STEP: usize = 4;

/// Steps of a block of channels.
const STEPS: usize = BLOCK / STEP;

/// Bytes of a plane of `rows` rows and a row of zeros.
///
/// Large planes lie an odd number of cache lines apart that sends neighbouring blocks of a few rows to different
/// sets of the first-level cache; a power of two would send all blocks to the same.
fn plane_len(rows: usize) -> usize {
    const LINE: usize = 64;
    let bytes = (rows + 1) * BLOCK;
    if bytes < 32 * LINE {
        return bytes;
    }
    let lines = bytes.div_ceil(LINE);
    (lines + (16 + 7 - lines % 16) % 16) * LINE
}

/// The loops of one instruction set.
#[derive(Clone, Copy)]
enum Loops {
    Vectors(Micro),
    Tiles(tiles::Loops),
}

/// The kernels and threads to compute with.
#[derive(Clone)]
pub struct Int8Compute {
    loops: Loops,
    pool: Arc<Pool>,
}

impl Int8Compute {
    /// The active instruction set ([`Int8Isa::active`]) on a pool's threads.
    pub fn new(pool: Arc<Pool>) -> Self {
        Self::with_isa(pool, Int8Isa::active()).expect("the active instruction set is available")
    }

    /// A given instruction set, or `None` if this CPU lacks it.
    pub fn with_isa(pool: Arc<Pool>, isa: Int8Isa) -> Option<Self> {
        let loops = match tiles::Loops::new(isa) {
            Some(loops) => Loops::Tiles(loops),
            None => Loops::Vectors(Micro::new(isa)?),
        };
        Some(Self { loops, pool })
    }

    /// The instruction set.
    pub fn isa(&self) -> Int8Isa {
        match &self.loops {
            Loops::Vectors(micro) => micro.isa(),
            Loops::Tiles(loops) => loops.isa(),
        }
    }

    /// Some rounds, at least one, of products in registers that do not wait for one another: how many multiply-adds they
    /// were.
    pub(crate) fn multiply_adds(&self, rounds: u64) -> u64 {
        match &self.loops {
            Loops::Vectors(micro) => micro.multiply_adds(rounds),
            Loops::Tiles(loops) => loops.multiply_adds(rounds),
        }
    }

    /// Channels of a block of an activation.
    pub fn width(&self) -> usize {
        self.layout().width()
    }

    fn layout(&self) -> Layout {
        match self.loops {
            Loops::Vectors(_) => Layout::Vectors,
            Loops::Tiles(_) => Layout::Tiles,
        }
    }

    /// The threads.
    pub fn pool(&self) -> &Pool {
        &self.pool
    }
}
