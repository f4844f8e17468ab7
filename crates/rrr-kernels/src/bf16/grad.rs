//! Weight gradient: the sum over rows is the k of the tiles.
//!
//! The output gradient is the first operand, transposed once for all taps and input channels; the input's
//! rows are the second, in pairs. So a result tile is `[16 output channels][16 input channels]`.

use super::tiles::{Product, SIDE, STEP, TILE, Tiles};
use super::{Kernels, ThreadScratch, ZEROS};
use crate::conv::GradWeight;
use crate::isa::Isa;
use crate::micro::{BLOCK, Run};
use crate::pool::Pool;
use crate::shared::SharedMut;
use std::ops::Range;

/// Rows whose operands are held at a time.
const CHUNK_ROWS: usize = 256;

const CHUNK_STEPS: usize = CHUNK_ROWS / STEP;

/// Most blocks of 16 input channels, and of output channels, of a task.
const MAX_GROUP: usize = 8;

/// Tasks per thread that balance the load.
const TASKS_PER_THREAD: usize = 4;

/// Stands for a row that is not there.
const NONE: u32 = u32::MAX;

/// Sizes of a [`grad_weight`], the same for all its jobs.
pub struct GradDims<'a> {
    /// Per tap, runs of rows in ascending order, none of which crosses a multiple of 128 output rows.
    pub runs: &'a [Vec<Run>],
    /// Floats between input rows.
    pub x_stride: usize,
    /// Floats between the input's blocks of 16 channels.
    pub x_block: usize,
    /// Input channels (values per row of the packed weights).
    pub k: usize,
    /// Output rows.
    pub rows: usize,
    /// Blocks of 16 output channels.
    pub panels: usize,
    /// Floats of a plane of the output gradient.
    pub y_plane: usize,
}

/// A piece of work: the gradients of some taps, panels and blocks of input channels of a job.
pub struct Task<'a> {
    dims: &'a GradDims<'a>,
    x: &'a [f32],
    dy: &'a [f32],
    dw: &'a SharedMut<'a>,
    taps: Range<usize>,
    panels: Range<usize>,
    blocks: Range<usize>,
}

/// Gradient of the packed weights for every job, in parallel.
///
/// The runs must stay within the jobs' slices, and `dw` must hold `[panel][tap][k][16]`.
pub fn grad_weight(isa: Isa, pool: &Pool, dims: &GradDims<'_>, jobs: &[GradWeight<'_>]) {
    let blocks = dims.k.div_ceil(BLOCK);
    let taps = dims.runs.len();
    // No sum crosses a task, so that they can be cut to measure.
    let wanted = TASKS_PER_THREAD * pool.threads();
    let (mut tap_group, mut group) = (taps, MAX_GROUP);
    let cut = |tap_group: usize, group: usize| {
        (taps.div_ceil(tap_group), dims.panels.div_ceil(group), blocks.div_ceil(group))
    };
    let tasks = |(t, p, b): (usize, usize, usize)| jobs.len() * t * p * b;
    while tasks(cut(tap_group, group)) < wanted && (tap_group > 1 || group > 2) {
        if group > 4 || tap_group == 1 { group /= 2 } else { tap_group = tap_group.div_ceil(3) }
    }
    let (tap_groups, panel_groups, block_groups) = cut(tap_group, group);
    let kernels = Kernels::new(isa);
    pool.run(jobs.len() * tap_groups * panel_groups * block_groups, |index| {
        let (index, b) = (index / block_groups, index % block_groups);
        let (index, p) = (index / panel_groups, index % panel_groups);
        let (job, t) = (index / tap_groups, index % tap_groups);
        let task = Task {
            dims,
            x: jobs[job].x,
            dy: jobs[job].dy,
            dw: &jobs[job].dw,
            taps: t * tap_group..((t + 1) * tap_group).min(taps),
            panels: p * group..((p + 1) * group).min(dims.panels),
            blocks: b * group..((b + 1) * group).min(blocks),
        };
        // SAFETY: the caller of this function has checked the slices, `Kernels::new` the CPU; this task alone
        // writes these weights.
        unsafe { (kernels.grad)(&task) }
    });
}

/// Computes a task.
///
/// # Safety
/// The CPU must support `T`; the runs must lie within the task's slices.
#[inline(always)]
pub unsafe fn work<T: Tiles>(task: &Task<'_>) {
    let (panels, blocks) = (task.panels.len(), task.blocks.len());
    let per_tap = panels * blocks * TILE;
    let sums = task.taps.len() * per_tap;
    let (a_len, b_len) = (panels * CHUNK_STEPS * TILE, blocks * CHUNK_STEPS * TILE);
    // SAFETY: the tile registers are there, by the caller.
    let tiles = unsafe { T::new() };
    let mut scratch = ThreadScratch::take(sums + a_len + b_len);
    let (sums, rest) = scratch.0.split_at_mut(sums);
    let (a, b) = rest.split_at_mut(a_len);
    sums.fill(0);
    let mut runs = [0; 9];
    for first in (0..task.dims.rows).step_by(CHUNK_ROWS) {
        let rows = first..(first + CHUNK_ROWS).min(task.dims.rows);
        let count = rows.len().div_ceil(STEP);
        // SAFETY: as noted on `work`; operands and sums have room for all tiles.
        unsafe {
            transpose_gradient::<T>(task, &rows, a);
            let taps = task.taps.clone().zip(&mut runs).zip(sums.chunks_exact_mut(per_tap));
            for ((tap, run), sums) in taps {
                let mut sources = [NONE; CHUNK_ROWS];
                if locate(task, tap, &rows, run, &mut sources) {
                    pair_input::<T>(task, &sources, count, b);
                    multiply_all(&tiles, (panels, blocks), (a, b, sums), count);
                }
            }
        }
    }
    // SAFETY: the result lies within the weights.
    unsafe { store::<T>(task, sums) };
}

/// First operand: the rows of the output gradient, transposed and rounded, `[panel][step]` tiles.
///
/// # Safety
/// As for [`work`].
#[inline(always)]
unsafe fn transpose_gradient<T: Tiles>(task: &Task<'_>, rows: &Range<usize>, a: &mut [u32]) {
    let mut pairs = [0u32; TILE];
    for (panel, a) in task.panels.clone().zip(a.chunks_exact_mut(CHUNK_STEPS * TILE)) {
        for (step, a) in (rows.start..rows.end).step_by(STEP).zip(a.chunks_exact_mut(TILE)) {
            let row = |row: usize| {
                if row < rows.end {
                    task.dy[panel * task.dims.y_plane + row * BLOCK..][..BLOCK].as_ptr()
                } else {
                    ZEROS.0.as_ptr()
                }
            };
            for p in 0..SIDE {
                // SAFETY: the rows hold 16 values each.
                unsafe {
                    T::pair(row(step + 2 * p), row(step + 2 * p + 1), pairs.as_mut_ptr().add(p * SIDE));
                }
            }
            // SAFETY: both are tiles.
            unsafe { T::transpose(pairs.as_ptr(), a.as_mut_ptr()) };
        }
    }
}

/// Fills in the offset of the input row under each of `rows`, from the tap's runs, of which `next` is the
/// first not yet used; whether there is any.
#[inline(always)]
fn locate(
    task: &Task<'_>,
    tap: usize,
    rows: &Range<usize>,
    next: &mut usize,
    sources: &mut [u32; CHUNK_ROWS],
) -> bool {
    let runs = &task.dims.runs[tap][*next..];
    let mut used = 0;
    for run in runs {
        let first = run.dy as usize / BLOCK;
        if first >= rows.end {
            break;
        }
        let to = &mut sources[first - rows.start..][..run.len as usize];
        for (i, to) in to.iter_mut().enumerate() {
            *to = run.x + (i * task.dims.x_stride) as u32;
        }
        used += 1;
    }
    *next += used;
    used > 0
}

/// Second operand: the input's rows in pairs, rounded, `[block][step]` tiles.
///
/// # Safety
/// As for [`work`].
#[inline(always)]
unsafe fn pair_input<T: Tiles>(task: &Task<'_>, sources: &[u32; CHUNK_ROWS], count: usize, b: &mut [u32]) {
    let mut tail = [ZEROS.0; 2];
    for (block, b) in task.blocks.clone().zip(b.chunks_exact_mut(CHUNK_STEPS * TILE)) {
        let x = task.x.as_ptr().wrapping_add(block * task.dims.x_block);
        let values = (task.dims.k - block * BLOCK).min(BLOCK);
        let (pairs, _) = sources.as_chunks::<2>();
        for (pair, to) in pairs.iter().zip(b.chunks_exact_mut(SIDE)).take(count * SIDE) {
            // SAFETY: the runs lie within the input, by the caller; fewer than 16 values are copied first.
            unsafe {
                let mut row = |i: usize| {
                    if pair[i] == NONE {
                        return ZEROS.0.as_ptr();
                    }
                    let from = x.wrapping_add(pair[i] as usize);
                    if values == BLOCK {
                        return from;
                    }
                    std::ptr::copy_nonoverlapping(from, tail[i].as_mut_ptr(), values);
                    tail[i].as_ptr()
                };
                let (even, odd) = (row(0), row(1));
                T::pair(even, odd, to.as_mut_ptr());
            }
        }
    }
}

/// Adds the products of all panels and blocks to `sums`, tiles `[panel][block]`.
///
/// # Safety
/// `a`, `b` and `sums` must hold the tiles of that many panels and blocks.
#[inline(always)]
unsafe fn multiply_all<T: Tiles>(
    tiles: &T,
    (panels, blocks): (usize, usize),
    (a, b, sums): (&[u32], &[u32], &mut [u32]),
    count: usize,
) {
    const STEPS: [u32; CHUNK_STEPS] = {
        let mut steps = [0; CHUNK_STEPS];
        let mut i = 0;
        while i < CHUNK_STEPS {
            steps[i] = (i * TILE) as u32;
            i += 1;
        }
        steps
    };
    let stride = CHUNK_STEPS * TILE;
    let steps = &STEPS[..count];
    for panel in (0..panels).step_by(2) {
        for block in (0..blocks).step_by(2) {
            // SAFETY: by the caller.
            unsafe {
                let a = a.as_ptr().add(panel * stride);
                let column = |i: usize| b.as_ptr().add((block + i) * stride);
                let c = sums.as_mut_ptr().cast::<f32>().add((panel * blocks + block) * TILE);
                let rest = (a, c, blocks * TILE, steps);
                match (panel + 1 < panels, block + 1 < blocks) {
                    (true, true) => tiles.multiply::<2, 2>(&product(rest, [column(0), column(1)])),
                    (true, false) => tiles.multiply::<2, 1>(&product(rest, [column(0)])),
                    (false, true) => tiles.multiply::<1, 2>(&product(rest, [column(0), column(1)])),
                    (false, false) => tiles.multiply::<1, 1>(&product(rest, [column(0)])),
                }
            }
        }
    }
}

#[inline(always)]
fn product<'a, const N: usize>(
    (a, c, c_stride, steps): (*const u32, *mut f32, usize, &'a [u32]),
    b: [*const u32; N],
) -> Product<'a, N> {
    Product { a, a_stride: CHUNK_STEPS * TILE, b, steps, c, c_stride, accumulate: true }
}

/// Writes the sums to the packed weights.
///
/// # Safety
/// As for [`work`].
#[inline(always)]
unsafe fn store<T: Tiles>(task: &Task<'_>, sums: &[u32]) {
    let dims = task.dims;
    let mut sums = sums.chunks_exact(TILE);
    let mut transposed = [0u32; TILE];
    for tap in task.taps.clone() {
        for panel in task.panels.clone() {
            for block in task.blocks.clone() {
                let sum = sums.next().expect("a tile for each");
                let values = (dims.k - block * BLOCK).min(BLOCK);
                let at = ((panel * dims.runs.len() + tap) * dims.k + block * BLOCK) * BLOCK;
                // SAFETY: tiles; the place lies within the weights, by the caller.
                unsafe {
                    T::transpose(sum.as_ptr(), transposed.as_mut_ptr());
                    let to = task.dw.as_ptr().add(at).cast::<u32>();
                    std::ptr::copy_nonoverlapping(transposed.as_ptr(), to, values * BLOCK);
                }
            }
        }
    }
}
