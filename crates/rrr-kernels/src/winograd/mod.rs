//! Winograd's F(4x4, 3x3): 3x3 convolutions of stride 1 with a quarter of the products.
//!
//! A tile is 4x4 output pixels of one image. Its 6x6 inputs become 36 points, each point has a matrix product of its
//! own over the input channels, and the 36 sums become the 16 outputs. Tiles are numbered as rows are, images
//! innermost, so that all of it works on rows of 16 channels. What a tile goes through does not depend on the others:
//! an image has the same output to the bit alone and in a batch.

mod run;
#[cfg(test)]
mod tests;
mod transform;

use crate::conv::Conv;
use crate::micro::{BLOCK, Micro};
use crate::pool::Pool;
use crate::rows::RowsJob;
use crate::{Isa, blocks};
use run::{Dims, Run};
use std::ops::Range;
use transform::{POINTS, TILE};

/// Transformed input that a task makes.
const INPUT_BYTES: usize = 256 << 10;

/// Sums of products that a task makes before it transforms them.
const SUMS_BYTES: usize = 128 << 10;

/// Fewest tiles of a task, if there are so many: they share what is read of the weights.
const MIN_TILES: usize = 24;

/// Tasks per thread that balance the load.
const TASKS_PER_THREAD: usize = 4;

/// How many times fewer products than the direct convolution make up for the transforms.
const MIN_GAIN: usize = 2;

/// Fewest tiles of a map: a map by itself has to make up for reading four times the weights.
const MIN_MAP_TILES: usize = 4;

/// Number of the weights that [`weights`] makes.
pub fn weights_len(conv: &Conv) -> usize {
    blocks(conv.cout) * POINTS * blocks(conv.cin) * BLOCK * BLOCK
}

/// Packed weights to their points, `[cout / 16][point][cin, padded][16]`.
///
/// # Panics
/// If a length is wrong.
pub fn weights(isa: Isa, pool: &Pool, conv: &Conv, packed: &[f32], points: &mut [f32]) {
    let k = blocks(conv.cin) * BLOCK;
    assert_eq!((conv.kernel, packed.len()), (3, conv.packed_len()));
    assert_eq!(points.len(), weights_len(conv));
    let (packed, _) = packed.as_chunks::<BLOCK>();
    pool.for_each_chunk(points, POINTS * k * BLOCK, |panel, points| {
        let (points, _) = points.as_chunks_mut::<BLOCK>();
        let packed = &packed[panel * 9 * k..(panel + 1) * 9 * k];
        isa.vectorize(|| transform::weights(k, packed, points));
    });
}

/// The tiles of maps of one size.
pub struct Winograd {
    height: usize,
    width: usize,
    n: usize,
    /// Tiles of a map, down and across.
    tiles: (usize, usize),
}

/// Tiles at one position of the map, of some neighbouring images.
struct Position {
    top: usize,
    left: usize,
    images: Range<usize>,
    /// Number of the first tile.
    first: usize,
}

impl Winograd {
    /// For `n` maps of `height` x `width`, if it is worth it there, which does not depend on `n`.
    pub fn new(conv: &Conv, (height, width): (usize, usize), n: usize) -> Option<Self> {
        let plan = Self::of_maps((height, width), n);
        let tiles = plan.tiles.0 * plan.tiles.1;
        // Of the direct convolution, without those on padding.
        let products = (3 * height - 2) * (3 * width - 2);
        let worth = products >= MIN_GAIN * POINTS * tiles && tiles >= MIN_MAP_TILES;
        (conv.kernel == 3 && conv.stride == 1 && worth).then_some(plan)
    }

    fn of_maps((height, width): (usize, usize), n: usize) -> Self {
        Self { height, width, n, tiles: (height.div_ceil(TILE), width.div_ceil(TILE)) }
    }

    /// Computes all jobs in parallel.
    ///
    /// # Panics
    /// If a slice of a job has the wrong length.
    pub fn run(&self, micro: Micro, pool: &Pool, conv: &Conv, jobs: &[RowsJob<'_>]) {
        let dims = self.dims(conv, self.tiles_per_task(conv).next_multiple_of(micro.max_rows()));
        let by_tiles = jobs.len() * dims.shares >= TASKS_PER_THREAD * pool.threads();
        let run = Run::new(self, dims, micro, weights_len(conv), jobs);
        if by_tiles { run.by_tiles(pool) } else { run.by_panels(pool) }
    }

    /// Number of tiles.
    fn count(&self) -> usize {
        self.tiles.0 * self.tiles.1 * self.n
    }

    /// As many tiles as the caches hold, nearly the same in each task.
    fn tiles_per_task(&self, conv: &Conv) -> usize {
        let bytes = POINTS * blocks(conv.cin) * BLOCK * size_of::<f32>();
        let most = (INPUT_BYTES / bytes).max(MIN_TILES);
        self.count().div_ceil(self.count().div_ceil(most))
    }

    fn dims(&self, conv: &Conv, tiles: usize) -> Dims {
        let panels = blocks(conv.cout);
        Dims {
            k_blocks: blocks(conv.cin),
            panels,
            plane: (self.height * self.width * self.n + 1) * BLOCK,
            tiles,
            shares: self.count().div_ceil(tiles),
            group: (SUMS_BYTES / (POINTS * tiles * BLOCK * size_of::<f32>())).clamp(1, panels),
        }
    }

    /// Some tiles by position.
    fn positions(&self, tiles: Range<usize>) -> impl Iterator<Item = Position> {
        let mut next = tiles.start;
        std::iter::from_fn(move || {
            let (at, image) = (next / self.n, next % self.n);
            let images = image..(image + tiles.end - next).min(self.n);
            let position = Position {
                top: at / self.tiles.1 * TILE,
                left: at % self.tiles.1 * TILE,
                first: next,
                images: images.clone(),
            };
            next += images.len();
            (!images.is_empty()).then_some(position)
        })
    }
}
