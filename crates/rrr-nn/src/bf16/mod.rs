//! Inference and training in bf16: weights and activations stored in bf16, sums in f32 (see [`crate::Precision`]).

mod layers;
mod network;
mod stem;
mod training;

pub(crate) use layers::PackedSequence;
use layers::{Arena, Input, Layers, Pass, Plans};
pub(crate) use network::Bf16Network;
use stem::Bf16Stem;
pub(crate) use training::Bf16Training;

use crate::network::PART_PIXELS;
use std::ops::Range;

/// Images whose rows at one pixel fill a tile: what branches, whose maps are small, run at a time at least.
const TILE_IMAGES: usize = 16;

/// Height and width of images, their number and that of the batch they belong to.
type BatchShape = ((usize, usize), (usize, usize));

/// Ranges of `n` images of `size` that run at a time.
pub(crate) fn parts(n: usize, size: (usize, usize)) -> impl Iterator<Item = Range<usize>> {
    let most = (PART_PIXELS / (size.0 * size.1).max(1)).max(1).next_multiple_of(TILE_IMAGES);
    (0..n).step_by(most).map(move |start| start..n.min(start + most))
}
