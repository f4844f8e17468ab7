//! Forward and input gradient: rows of outputs as products of tiles.

use super::tiles::{Product, SIDE, STEP, TILE, Tiles};
use super::{Kernels, ThreadScratch, ZEROS};
use crate::isa::Isa;
use crate::micro::{BLOCK, Epilogue};
use crate::pool::Pool;
use crate::rows::{RowsDims, RowsJob, RowsPlan, Tile, ZERO};
use crate::simd::Simd;
use std::ops::Range;

/// Rows that are computed at a time: two tiles of them.
pub const TILE_ROWS: usize = 2 * SIDE;

/// Weights that a task keeps in the second-level cache.
const GROUP_BYTES: usize = 512 << 10;

/// Multiply-adds that make a piece of work worth handing out.
const TASK_MACS: usize = 8 << 20;

/// Tasks per thread that balance the load.
const TASKS_PER_THREAD: usize = 8;

/// A piece of work: some tiles of rows for some columns, the panels of the jobs one after another.
pub struct Task<'a> {
    plan: &'a RowsPlan,
    dims: &'a RowsDims,
    jobs: &'a [RowsJob<'a>],
    tiles: &'a [Tile],
    columns: Range<usize>,
}

impl RowsDims {
    /// Steps of 32 values of k per tap.
    fn steps(&self) -> usize {
        self.k().div_ceil(STEP)
    }
}

/// Computes all jobs in parallel; their weights are in bf16.
pub fn run(isa: Isa, pool: &Pool, plan: &RowsPlan, dims: &RowsDims, jobs: &[RowsJob<'_>]) {
    let panel = plan.taps * dims.steps() * TILE;
    for job in jobs.iter() {
        plan.check(dims, job);
        assert_eq!(job.w.bf16().len(), dims.panels * panel, "weights of another shape");
    }
    if jobs.is_empty() {
        return;
    }
    // Jobs that read the same input are one wide job: its rows are gathered once.
    let shared = jobs.iter().all(|j| std::ptr::eq(j.x, jobs[0].x));
    let (wide, width) = if shared { (1, jobs.len()) } else { (jobs.len(), 1) };
    let columns = width * dims.panels;
    let group = (GROUP_BYTES / (panel * size_of::<u32>())).clamp(2, columns.max(2)) & !1;
    let groups = columns.div_ceil(group);
    let tile_macs = TILE_ROWS * plan.taps * dims.k() * BLOCK * group.min(columns);
    let balanced = (plan.tiles.len() * wide * groups).div_ceil(TASKS_PER_THREAD * pool.threads());
    let tiles_per_task = (TASK_MACS / tile_macs).min(balanced).clamp(1, plan.tiles.len());
    let cuts = plan.tiles.len().div_ceil(tiles_per_task);
    let kernels = Kernels::new(isa);
    pool.run(wide * groups * cuts, |task| {
        let (task, cut) = (task / cuts, task % cuts);
        let (first, group_index) = (task / groups * columns, task % groups);
        let from = group_index * group;
        let task = Task {
            plan,
            dims,
            jobs,
            tiles: &plan.tiles[cut * tiles_per_task..((cut + 1) * tiles_per_task).min(plan.tiles.len())],
            columns: first + from..first + (from + group).min(columns),
        };
        // SAFETY: offsets were checked against the slices above, and the CPU by `Kernels::new`; this task
        // alone writes these rows of these panels.
        unsafe { (kernels.rows)(&task) }
    });
}

/// Result tiles before the epilogue.
#[repr(align(64))]
struct Sums([f32; 4 * TILE]);

/// Computes a task.
///
/// # Safety
/// The CPU must support `T`, and all offsets of the task must lie within its slices.
#[inline(always)]
pub unsafe fn work<T: Tiles>(task: &Task<'_>) {
    let (plan, dims) = (task.plan, task.dims);
    let per_tap = dims.steps();
    let most = plan.taps * per_tap;
    // SAFETY: the tile registers are there, by the caller; the rest as noted.
    let tiles = unsafe { T::new() };
    let mut scratch = ThreadScratch::take(most * (1 + 2 * TILE));
    let (a, steps) = scratch.0.split_at_mut(2 * most * TILE);
    let mut sums = Sums([0.0; 4 * TILE]);
    for tile in task.tiles {
        let class = &plan.classes[tile.class as usize];
        let steps = &mut steps[..class.taps.len() * per_tap];
        for (steps, &tap) in steps.chunks_exact_mut(per_tap).zip(&class.taps) {
            for (s, at) in steps.iter_mut().enumerate() {
                *at = ((tap as usize * per_tap + s) * TILE) as u32;
            }
        }
        let mut outputs = [0; TILE_ROWS];
        // SAFETY: the plan's offsets lie within the input, by the caller.
        unsafe { gather::<T>(task, tile, steps.len() * TILE, a, &mut outputs) };
        let outputs = &outputs[..tile.rows as usize];
        for first in task.columns.clone().step_by(2) {
            let pair = first..(first + 2).min(task.columns.end);
            // SAFETY: `a` and `sums` hold four tiles per step and in all; the weights were checked.
            unsafe {
                let column = |i: usize| task.weights(first + i, most * TILE);
                let (a, c) = (a.as_ptr(), sums.0.as_mut_ptr());
                let a_stride = steps.len() * TILE;
                let rest = (a, a_stride, &*steps, c);
                match (outputs.len() > SIDE, pair.len()) {
                    (true, 2) => tiles.multiply::<2, 2>(&product(rest, [column(0), column(1)])),
                    (true, _) => tiles.multiply::<2, 1>(&product(rest, [column(0)])),
                    (false, 2) => tiles.multiply::<1, 2>(&product(rest, [column(0), column(1)])),
                    (false, _) => tiles.multiply::<1, 1>(&product(rest, [column(0)])),
                }
                for (n, column) in pair.clone().enumerate() {
                    finish::<T::S>(task, column, outputs, pair.len(), &sums.0[n * TILE..]);
                }
            }
        }
    }
}

#[inline(always)]
fn product<'a, const N: usize>(
    (a, a_stride, steps, c): (*const u32, usize, &'a [u32], *mut f32),
    b: [*const u32; N],
) -> Product<'a, N> {
    Product { a, a_stride, b, steps, c, c_stride: N * TILE, accumulate: false }
}

impl Task<'_> {
    /// Job and panel of a column.
    #[inline(always)]
    fn place(&self, column: usize) -> (usize, usize) {
        (column / self.dims.panels, column % self.dims.panels)
    }

    /// The weights of a column, of `len` u32 per panel.
    ///
    /// # Safety
    /// The job's weights must have that size.
    #[inline(always)]
    unsafe fn weights(&self, column: usize, len: usize) -> *const u32 {
        let (job, panel) = self.place(column);
        // SAFETY: by the caller.
        unsafe { self.jobs[job].w.bf16().as_ptr().add(panel * len) }
    }
}

/// Fills `a` with the input rows of a tile, rounded: `[16 rows][tap][step][row]`, `a_stride` u32 for 16
/// rows; and `outputs` with the offsets of its output rows.
///
/// # Safety
/// The plan's offsets must lie within the job's input.
#[inline(always)]
unsafe fn gather<T: Tiles>(
    task: &Task<'_>,
    tile: &Tile,
    a_stride: usize,
    a: &mut [u32],
    outputs: &mut [u32; TILE_ROWS],
) {
    let (plan, dims) = (task.plan, task.dims);
    let class = &plan.classes[tile.class as usize];
    let taps = class.taps.len();
    let rows = tile.rows as usize;
    let x = task.jobs[task.place(task.columns.start).0].x.as_ptr();
    // Row -> pixel of the class and image.
    let mut places = [(0, 0); TILE_ROWS];
    let (mut pixel, mut image) = (tile.pixel as usize, tile.image as usize);
    for (place, output) in places.iter_mut().zip(outputs).take(rows) {
        *place = (pixel, image);
        *output = class.out[pixel] + (image * BLOCK) as u32;
        image += 1;
        if image == plan.n {
            (pixel, image) = (pixel + 1, 0);
        }
    }
    let steps = dims.steps();
    let whole = dims.k_blocks;
    let mut tail = [ZEROS.0; 2];
    for tap in 0..taps {
        let mut sources = [0; TILE_ROWS];
        for (source, &(pixel, image)) in sources.iter_mut().zip(&places).take(rows) {
            *source = match class.src[pixel * taps + tap] {
                ZERO => plan.zero_row,
                first => first + (image * plan.image_stride) as u32,
            };
        }
        for step in 0..steps {
            for (r, &source) in sources.iter().enumerate().take(rows) {
                // SAFETY: whole blocks and the tail's values lie within the input, by the caller.
                unsafe {
                    let mut half = |i: usize| {
                        let block = 2 * step + i;
                        let from = x.add(source as usize).wrapping_add(block * dims.a_block);
                        if block < whole {
                            from
                        } else if block == whole && dims.k_tail > 0 {
                            std::ptr::copy_nonoverlapping(from, tail[i].as_mut_ptr(), dims.k_tail);
                            tail[i].as_ptr()
                        } else {
                            ZEROS.0.as_ptr()
                        }
                    };
                    let (low, high) = (half(0), half(1));
                    let at = r / SIDE * a_stride + (tap * steps + step) * TILE + r % SIDE * SIDE;
                    T::round(low, high, a.as_mut_ptr().add(at));
                }
            }
        }
    }
}

/// Finishes and stores the rows of one column; `sums` begins at the column's first tile, `width` tiles make
/// 16 rows.
///
/// # Safety
/// As for [`work`].
#[inline(always)]
unsafe fn finish<S: Simd>(task: &Task<'_>, column: usize, outputs: &[u32], width: usize, sums: &[f32]) {
    let (job, panel) = task.place(column);
    let plane = panel * task.dims.c_plane;
    let job = &task.jobs[job];
    // SAFETY: by the caller.
    unsafe {
        let c = job.y.as_ptr().add(plane);
        let e = Epilogue {
            bias: job.bias.map_or(std::ptr::null(), |b| b.as_ptr().add(panel * BLOCK)),
            residual: job.residual.map_or(std::ptr::null(), |r| r.as_ptr().add(plane)),
            accumulate: job.accumulate,
            relu: job.relu,
        };
        for (r, &row) in outputs.iter().enumerate() {
            let from = sums.as_ptr().add(r / SIDE * width * TILE + r % SIDE * SIDE);
            for at in (0..BLOCK).step_by(S::LANES) {
                let c = c.add(row as usize + at);
                let mut v = S::load(from.add(at));
                if e.accumulate {
                    v = S::add(v, S::load(c));
                }
                if !e.bias.is_null() {
                    v = S::add(v, S::load(e.bias.add(at)));
                }
                if !e.residual.is_null() {
                    v = S::add(v, S::load(e.residual.add(row as usize + at)));
                }
                if e.relu {
                    v = S::relu(v);
                }
                S::store(c, v);
            }
        }
    }
}
