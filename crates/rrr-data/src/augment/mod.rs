//! Seeded augmentation of 8-bit RGB images.
//!
//! An [`Op`] is an operation with its parameters: a pure function of the image. A [`Policy`] draws operations from
//! a generator. The twelve of the paper follow albumentations 1.2.0 on OpenCV, with the published settings; each
//! is tested against their output.

pub mod filter;
mod geometric;
mod jpeg;
mod noise;
mod op;
mod pointwise;
mod words;

pub use op::Op;

use crate::rng::SeededRng;

/// Adding it leaves a small float's value, rounded, in the low bits: unlike rounding and casts, that is vectorised.
const ROUND: f32 = (3 << 22) as f32;

/// What is done to every training image.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Policy {
    /// Nothing.
    #[default]
    None,
    /// A horizontal flip half of the time, then a shift by up to 1/16 of the side and a scale of 0.9 to 1.1.
    Light,
    /// That shift and scale without the flip: for classes that a mirror image may not belong to, such as characters.
    Shift,
    /// [`Shift`](Self::Shift) or [`Paper`](Self::Paper), for every image anew.
    Mixed,
    /// The published augmentation: one of twelve operations, then another, drawn independently
    /// ([`Op::sample_paper`]).
    Paper,
}

/// Memory that operations need beside the image. Keep one per thread.
#[derive(Clone, Debug, Default)]
pub struct Scratch {
    /// A copy of the image with a border.
    image: Vec<u8>,
    /// One row of sums.
    sums: Vec<u16>,
    warp: geometric::Warp,
    levels: noise::Levels,
    jpeg: jpeg::Planes,
}

impl Policy {
    /// Augments one image `[size, size, 3]` in place with choices drawn from `rng`.
    ///
    /// # Panics
    /// If `image` is not `size * size * 3` long.
    pub fn apply(self, image: &mut [u8], size: usize, rng: &mut SeededRng, scratch: &mut Scratch) {
        match self {
            Self::None => {}
            Self::Light => {
                if rng.below(2) == 1 {
                    Op::FlipHorizontal.apply(image, size, scratch);
                }
                Op::sample_light_shift(rng).apply(image, size, scratch);
            }
            Self::Shift => Op::sample_light_shift(rng).apply(image, size, scratch),
            Self::Mixed if rng.below(2) == 0 => Self::Shift.apply(image, size, rng, scratch),
            Self::Paper | Self::Mixed => {
                for _ in 0..2 {
                    Op::sample_paper(rng).apply(image, size, scratch);
                }
            }
        }
    }
}
