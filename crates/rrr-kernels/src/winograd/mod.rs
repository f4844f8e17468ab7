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

use crate::activation::plane_len;
use crate::conv::Conv;
use crate::micro::{BLOCK, Micro};
use crate::pool::Pool;
use crate::rows::RowsJob;
use crate::{Isa, blocks};
use run::{Dims, Run};
use std::ops::Range;
use transform::{Kernels, PATCH, POINTS, TILE, WeightsTile};

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

/// Fewest tiles of all maps that make up for transforming weights for one call.
const MIN_TILES_ONCE: usize = 32;

/// Number of the weights that [`weights`] makes.
pub fn weights_len(conv: &Conv) -> usize {
    blocks(conv.cout) * POINTS * blocks(conv.cin) * BLOCK * BLOCK
}

/// The order of a kernel's taps.
#[derive(Clone, Copy, PartialEq)]
pub enum Taps {
    Forward,
    /// Turned by half a turn, as the input gradient needs them.
    Turned,
}

/// Packed weights to their points, `[cout / 16][point][cin, padded][16]`.
///
/// # Panics
/// If a length is wrong.
pub fn weights(isa: Isa, pool: &Pool, conv: &Conv, taps: Taps, packed: &[f32], points: &mut [f32]) {
    let k = blocks(conv.cin) * BLOCK;
    assert_eq!((conv.kernel, packed.len()), (3, conv.packed_len()));
    assert_eq!(points.len(), weights_len(conv));
    let kernels = Kernels::new(isa);
    pool.for_each_chunk(points, POINTS * k * BLOCK, |panel, points| {
        let packed = &packed[panel * 9 * k * BLOCK..(panel + 1) * 9 * k * BLOCK];
        let taps = std::array::from_fn(|tap| {
            let tap = if taps == Taps::Turned { 8 - tap } else { tap };
            packed[tap * k * BLOCK..].as_ptr()
        });
        // SAFETY: `k` rows follow each tap in `packed`, and 36 times `k` rows are the whole of `points`.
        unsafe {
            kernels.weights(&WeightsTile { taps, to: points.as_mut_ptr(), point: k * BLOCK, count: k });
        }
    });
}

/// The tiles of maps of one size.
pub struct Winograd {
    height: usize,
    width: usize,
    n: usize,
    /// Tiles of a map, down and across.
    tiles: (usize, usize),
    /// Of every tile of a map `[row][column]`: offset in a plane of the first image's pixel, and the floats to that of the
    /// next image; those of the row of zeros where there is none.
    patches: Vec<[(u32, u32); POINTS]>,
}

/// Tiles at one position of the map, of some neighbouring images.
struct Position {
    /// Number of the map's tile.
    map_tile: usize,
    top: usize,
    left: usize,
    images: Range<usize>,
    /// Number of the first tile.
    first: usize,
}

impl Winograd {
    /// For `n` maps of `height` x `width` and weights that are transformed once, if it is worth it there, which does not
    /// depend on `n`.
    pub fn new(conv: &Conv, size: (usize, usize), n: usize) -> Option<Self> {
        let plan = Self::of_maps(size, n);
        (plan.saves(conv) && plan.tiles.0 * plan.tiles.1 >= MIN_MAP_TILES).then_some(plan)
    }

    /// The same for weights that are transformed for one call, which pays with enough tiles only.
    pub fn for_one_call(conv: &Conv, size: (usize, usize), n: usize) -> Option<Self> {
        let plan = Self::of_maps(size, n);
        (plan.saves(conv) && plan.count() >= MIN_TILES_ONCE).then_some(plan)
    }

    fn of_maps((height, width): (usize, usize), n: usize) -> Self {
        let tiles = (height.div_ceil(TILE), width.div_ceil(TILE));
        let patch = |tile: usize| {
            std::array::from_fn(|i| {
                // One pixel of padding: the map begins at 1.
                let (y, x) = (tile / tiles.1 * TILE + i / PATCH, tile % tiles.1 * TILE + i % PATCH);
                let inside = (1..=height).contains(&y) && (1..=width).contains(&x);
                let pixel = if inside { (y - 1) * width + x - 1 } else { height * width };
                let offset = u32::try_from(pixel * n * BLOCK).expect("activation too large");
                (offset, if inside { BLOCK as u32 } else { 0 })
            })
        };
        Self { height, width, n, tiles, patches: (0..tiles.0 * tiles.1).map(patch).collect() }
    }

    /// Whether there are sufficiently fewer products.
    fn saves(&self, conv: &Conv) -> bool {
        // Of the direct convolution, without those on padding.
        let products = (3 * self.height - 2) * (3 * self.width - 2);
        conv.kernel == 3 && conv.stride == 1 && products >= MIN_GAIN * POINTS * self.tiles.0 * self.tiles.1
    }

    /// Computes all jobs in parallel; their weights are Winograd's.
    ///
    /// # Panics
    /// If a slice of a job has the wrong length.
    pub fn run(&self, micro: Micro, pool: &Pool, conv: &Conv, jobs: &[RowsJob<'_>]) {
        let dims = self.dims_for(micro, pool, conv, jobs.len());
        pool.with_floats(dims.scratch_len(jobs.len(), pool.threads()), |scratch| {
            Run::new(self, dims, micro, jobs, None).run(pool, scratch);
        });
    }

    /// Computes all jobs, one by one, each in parallel; their weights are packed, and transformed for this one call.
    ///
    /// # Panics
    /// If a slice of a job has the wrong length.
    pub fn run_once(&self, micro: Micro, pool: &Pool, conv: &Conv, taps: Taps, jobs: &[RowsJob<'_>]) {
        let len = weights_len(conv);
        for job in jobs.chunks(1) {
            let dims = self.dims_for(micro, pool, conv, 1);
            pool.with_floats(len + dims.scratch_len(1, pool.threads()), |floats| {
                let (points, scratch) = floats.split_at_mut(len);
                weights(micro.isa(), pool, conv, taps, job[0].w.f32(), points);
                Run::new(self, dims, micro, job, Some(points)).run(pool, scratch);
            });
        }
    }

    fn dims_for(&self, micro: Micro, pool: &Pool, conv: &Conv, jobs: usize) -> Dims {
        let mut dims = self.dims(conv, self.tiles_per_task(conv).next_multiple_of(micro.max_rows()));
        let (shares, tasks) = (jobs * dims.shares, TASKS_PER_THREAD * pool.threads());
        dims.by_tiles = shares >= tasks;
        if !dims.by_tiles {
            dims.group = (shares * dims.panels / tasks).clamp(dims.group.min(micro.max_panels()), dims.group);
        }
        dims
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
        let rows = self.height * self.width * self.n;
        Dims {
            k_blocks: blocks(conv.cin),
            panels,
            rows,
            plane: plane_len(rows),
            tiles,
            shares: self.count().div_ceil(tiles),
            group: (SUMS_BYTES / (POINTS * tiles * BLOCK * size_of::<f32>())).clamp(1, panels),
            weights: weights_len(conv),
            by_tiles: true,
        }
    }

    /// Some tiles by position.
    fn positions(&self, tiles: Range<usize>) -> impl Iterator<Item = Position> {
        let (n, width) = (self.n, self.tiles.1 * TILE);
        let mut map_tile = tiles.start / n;
        let (mut top, mut left) = (map_tile / self.tiles.1 * TILE, map_tile % self.tiles.1 * TILE);
        let (mut first, mut image) = (tiles.start, tiles.start % n);
        std::iter::from_fn(move || {
            if first >= tiles.end {
                return None;
            }
            let images = image..n.min(image + tiles.end - first);
            let position = Position { map_tile, top, left, first, images: images.clone() };
            (first, image, map_tile, left) = (first + images.len(), 0, map_tile + 1, left + TILE);
            if left == width {
                (top, left) = (top + TILE, 0);
            }
            Some(position)
        })
    }
}
