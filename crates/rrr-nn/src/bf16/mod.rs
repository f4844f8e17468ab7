//! Inference and training in bf16: weights and activations stored in bf16, sums in f32 (see [`crate::Precision`]).

mod layers;
mod network;
mod stem;
mod training;

pub(crate) use layers::PackedSequence;
use layers::{Arena, Input, Layers, Pass, Plans};
pub(crate) use network::Bf16Network;
use stem::Bf16Stem;
pub(crate) use training::{Bf16Training, Net};

use crate::network::PART_PIXELS;
use std::ops::Range;

/// Pixels that go through a stem at a time: few enough for the activations between its layers, which are large, to stay
/// near the second-level caches.
const STEM_PIXELS: usize = 1 << 16;

/// Images whose rows at one pixel fill a tile: what branches, whose maps are small, run at a time at least.
const TILE_IMAGES: usize = 16;

/// Height and width of images, and their number.
type BatchShape = ((usize, usize), usize);

/// Ranges of `n` images of `size` that run at a time.
pub(crate) fn parts(n: usize, size: (usize, usize)) -> impl Iterator<Item = Range<usize>> {
    let most = (PART_PIXELS / (size.0 * size.1).max(1)).max(1).next_multiple_of(TILE_IMAGES);
    ranges(0..n, most)
}

/// Ranges of such a range that go through a stem at a time.
pub(crate) fn stem_parts(part: Range<usize>, size: (usize, usize)) -> impl Iterator<Item = Range<usize>> {
    ranges(part, (STEM_PIXELS / (size.0 * size.1).max(1)).max(1))
}

fn ranges(all: Range<usize>, most: usize) -> impl Iterator<Item = Range<usize>> {
    all.clone().step_by(most).map(move |start| start..all.end.min(start + most))
}
