//! Convolutions of bytes: `u8` activations, `i8` weights, 32-bit sums, finished as bytes again.
//!
//! # Layout
//! Activations lie in blocks of 16 channels as in f32, a byte each: `[group][C / 16][row][16]` with
//! `row = pixel * n + image` and a row of zeros after each block's rows ([`Int8Activation`]). *Groups* are
//! independent tensors of one shape: the branches of a network.
//!
//! # Exact on every CPU
//! All instruction sets sum the same integers, and finish them with the same correctly rounded operations, so
//! that the bytes that come out do not depend on the CPU. AVX2 has no dot product of bytes; it adds products in
//! 16 bits, which must not overflow. So activations stay below [`ACTIVATION_MAX`] (7 bits; pixels have 8), and
//! weights keep within [`Int8Conv::share_of_16_bits`]: a lane of a segment of 16 input channels holds the sum of
//! 8 products.

mod activation;
mod conv;
mod isa;
mod micro;
mod plan;
mod pooling;
mod run;
mod simd;

pub use activation::Int8Activation;
pub use conv::{Int8Conv, Int8Job, Int8Plan};
pub use isa::Int8Isa;
pub use pooling::{int8_avg_pool, int8_max_pool};

use crate::{BLOCK, Pool};
use micro::Micro;
use std::sync::Arc;

/// Largest activation that a convolution may read, pixels aside.
pub const ACTIVATION_MAX: u8 = 127;

/// Input channels of a step: the products that a dot product sums.
const STEP: usize = 4;

/// Steps of a segment, whose sums may stay in 16 bits.
const STEPS: usize = BLOCK / STEP;

/// The kernels and threads to compute with.
#[derive(Clone)]
pub struct Int8Compute {
    micro: Micro,
    pool: Arc<Pool>,
}

impl Int8Compute {
    /// The active instruction set ([`Int8Isa::active`]) on a pool's threads.
    pub fn new(pool: Arc<Pool>) -> Self {
        Self::with_isa(pool, Int8Isa::active()).expect("the active instruction set is available")
    }

    /// A given instruction set, or `None` if this CPU lacks it.
    pub fn with_isa(pool: Arc<Pool>, isa: Int8Isa) -> Option<Self> {
        Some(Self { micro: Micro::new(isa)?, pool })
    }

    /// The instruction set.
    pub fn isa(&self) -> Int8Isa {
        self.micro.isa()
    }

    /// The threads.
    pub fn pool(&self) -> &Pool {
        &self.pool
    }
}
