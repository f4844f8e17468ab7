//! Inference in bf16: weights and activations stored in bf16, sums in f32 (see [`crate::Precision`]).

mod layers;
mod network;

pub(crate) use layers::{Arena, Layers, PackedSequence, Pass, Plans};
pub(crate) use network::Bf16Network;

use crate::network::PART_PIXELS;
use std::ops::Range;

/// Images whose rows at one pixel fill a tile.
const TILE_IMAGES: usize = 16;

/// Height and width of images, and their number.
pub(crate) type BatchShape = ((usize, usize), usize);

/// Ranges of `n` images of `size` that run at a time: whole tiles of images, and no fewer.
pub(crate) fn parts(n: usize, size: (usize, usize)) -> impl Iterator<Item = Range<usize>> {
    let most = (PART_PIXELS / (size.0 * size.1).max(1)).max(1).next_multiple_of(TILE_IMAGES);
    (0..n).step_by(most).map(move |start| start..n.min(start + most))
}
