//! The loops around the products of tiles.

use super::super::tiles::{SIDE, TILE};
use super::super::{Kernels, ThreadScratch};
use super::conv::{Bf16Job, Bf16Plan};
use super::plan::{RowsPlan, Source};
use super::product::{Finish, Product, STRIP, Step, StoredTiles};
use super::{ROW_BYTES, WIDTH};
use crate::compute::Compute;
use crate::shared::SharedMut;
use std::cell::RefCell;
use std::ops::Range;

/// Weights that a task keeps in the second-level cache.
const WEIGHT_BYTES: usize = 1 << 20;

/// First-level cache of CPUs with AMX.
const FIRST_LEVEL_BYTES: usize = 48 << 10;

/// Multiply-adds that make a piece of work worth handing out.
const TASK_MACS: usize = 1 << 20;

/// Tasks per thread that balance the load.
const TASKS_PER_THREAD: usize = 6;

/// A job in parts that its tasks share.
struct Work<'a> {
    p: &'a Bf16Plan,
    x: [&'a [u16]; 2],
    /// Numbers from one group's input of a part to the next one's.
    x_group: [usize; 2],
    w: &'a [u32],
    bias: &'a [f32],
    residual: Option<&'a [u16]>,
    relu: bool,
    y: SharedMut<'a, u16>,
}

/// A piece of work: some strips of tiles of rows, for some columns of 32 channels of groups that read the same input.
pub struct Task<'a> {
    work: &'a Work<'a>,
    strips: Range<usize>,
    columns: Range<usize>,
}

/// How a job is cut into tasks: along the rows, and along the columns of groups that read the same input.
struct Partition {
    /// Sets of groups that share all input; each is cut for itself.
    spans: usize,
    /// Columns of a span.
    columns: usize,
    splits: usize,
    cuts: usize,
}

impl Partition {
    fn new(p: &Bf16Plan, shared: bool, threads: usize) -> Self {
        let spans = if shared { 1 } else { p.groups };
        let columns = p.groups / spans * p.pairs();
        let strips = strips(&p.plan);
        let input = p.plan.tiles.len()
            * SIDE
            * ROW_BYTES
            * p.plan.parts.iter().map(|part| part.blocks).sum::<usize>();
        let weights = p.groups / spans * p.panels * p.plan.steps * TILE * size_of::<u32>();
        let macs = p.plan.tiles.len() * p.plan.steps * SIDE * WIDTH * p.panels * SIDE * p.groups;
        let wanted = (TASKS_PER_THREAD * threads).min(macs / TASK_MACS).div_ceil(spans);
        let mut splits = weights.div_ceil(WEIGHT_BYTES).min(columns);
        let mut cuts = 1;
        // Every split reads the input once more, every cut the weights.
        while splits * cuts < wanted {
            let (can_split, can_cut) = (splits * 2 <= columns, cuts * 2 <= strips);
            match (can_split, can_cut) {
                (true, true) if input * splits <= weights * cuts => splits *= 2,
                (true, false) => splits *= 2,
                (_, true) => cuts *= 2,
                (false, false) => break,
            }
        }
        Self { spans, columns, splits, cuts }
    }
}

/// The `i`th of `parts` nearly equal parts of `0..len`.
fn part(len: usize, i: usize, parts: usize) -> Range<usize> {
    len * i / parts..len * (i + 1) / parts
}

/// Strips of tiles of rows that a plan's are cut into, as equal as can be.
fn strips(plan: &RowsPlan) -> usize {
    // Where two tiles' rows and a column's weights stay in the first-level cache together, rows are read from there for
    // every column. Else all comes from the second level: the more products per tile, the better.
    let stay = 4 * plan.steps * TILE * size_of::<u32>() <= FIRST_LEVEL_BYTES;
    plan.tiles.len().div_ceil(if stay { 2 } else { STRIP })
}

/// Tiles of a strip.
fn strip(plan: &RowsPlan, i: usize) -> Range<usize> {
    part(plan.tiles.len(), i, strips(plan))
}

/// Computes a job.
///
/// # Panics
/// If a slice of the job has the wrong length.
pub(super) fn run(p: &Bf16Plan, job: Bf16Job<'_>, compute: &Compute) {
    let (plan, groups) = (&p.plan, p.groups);
    assert_eq!(job.x.len(), plan.parts.len(), "an input for every part");
    let (mut x, mut x_group) = ([&[][..]; 2], [0; 2]);
    for (i, (from, part)) in job.x.iter().zip(&plan.parts).enumerate() {
        let len = part.len / size_of::<u16>();
        assert!(from.len() >= len, "input too small");
        x[i] = from;
        if from.len() >= groups * len {
            x_group[i] = len;
        }
    }
    let y_len = groups * p.pairs() * p.y_plane;
    assert_eq!(job.w.len(), groups * p.panels * plan.steps * TILE, "weights of another shape");
    assert_eq!(job.bias.len(), groups * p.bias_len(), "biases of another shape");
    assert!(job.residual.is_none_or(|r| r.len() >= y_len), "residual too small");
    assert!(job.y.len() >= y_len, "output too small");
    let Bf16Job { w, bias, residual, relu, y, .. } = job;
    let work = Work { p, x, x_group, w, bias, residual, relu, y: SharedMut::new(y) };

    let shared = groups == 1 || x_group == [0; 2];
    let cut = Partition::new(p, shared, compute.pool().threads());
    let kernels = Kernels::new(compute.isa());
    let strips = strips(plan);
    compute.pool().run(cut.spans * cut.splits * cut.cuts, |task| {
        let (task, rows) = (task / cut.cuts, part(strips, task % cut.cuts, cut.cuts));
        let columns = part(cut.columns, task % cut.splits, cut.splits);
        let first = task / cut.splits * cut.columns;
        let task = Task { work: &work, strips: rows, columns: first + columns.start..first + columns.end };
        // SAFETY: the slices were checked above to hold what the plan's offsets reach, the CPU by `Kernels::new`;
        // this task alone writes these rows of these planes.
        unsafe { (kernels.stored)(&task) }
    });
}

thread_local! {
    static STEPS: RefCell<Steps> = RefCell::default();
}

/// Steps of a strip of tiles: memory that a thread keeps between tasks.
#[derive(Default)]
struct Steps(Vec<Step>);

impl Drop for TakenSteps {
    fn drop(&mut self) {
        STEPS.set(std::mem::take(&mut self.0));
    }
}

/// [`Steps`] for as long as a task holds them.
struct TakenSteps(Steps);

/// Result tiles before they are finished.
#[repr(align(1024))]
struct Sums([f32; STRIP * 2 * TILE]);

/// Computes a task.
///
/// # Safety
/// The CPU must support `T`, the slices must hold what the plan's offsets reach, and no other task may write the
/// same rows of the same columns.
#[inline(always)]
pub unsafe fn work<T: StoredTiles>(task: &Task<'_>) {
    let (work, p) = (task.work, task.work.p);
    let plan = &p.plan;
    // SAFETY: the tile registers are there, by the caller.
    let tiles = unsafe { T::new() };
    let mut scratch = ThreadScratch::take(STRIP * plan.steps * TILE);
    let mut steps = TakenSteps(STEPS.take());
    let steps = &mut steps.0.0;
    let mut sums = Sums([0.0; STRIP * 2 * TILE]);
    let (first_group, first_column) = (task.columns.start / p.pairs(), task.columns.start % p.pairs());
    // Finished together with the next product.
    let mut before: Option<Finish> = None;
    for i in task.strips.clone() {
        let strip = strip(plan, i);
        // SAFETY: by the caller; the scratch holds all tiles of a strip.
        unsafe { find_steps(work, first_group, strip.clone(), &mut scratch.0, steps) };
        let (mut group, mut column) = (first_group, first_column);
        for turn in 0..task.columns.len() {
            if i + 1 < task.strips.end {
                prefetch_rows::<T>(work, first_group, i + 1, turn, task.columns.len());
            }
            // SAFETY: the weights were checked to hold all panels, the sums hold all tiles of a strip.
            unsafe {
                let b = work.w.as_ptr().add((group * p.panels + 2 * column) * plan.steps * TILE);
                let product = Product { steps, b, c: sums.0.as_mut_ptr() };
                let n = (p.panels - 2 * column).min(2);
                let finished = before.as_ref();
                match (strip.len(), n) {
                    (3, 2) => tiles.multiply_rows::<3, 2>(&product, finished),
                    (3, _) => tiles.multiply_rows::<3, 1>(&product, finished),
                    (2, 2) => tiles.multiply_rows::<2, 2>(&product, finished),
                    (2, _) => tiles.multiply_rows::<2, 1>(&product, finished),
                    (_, 2) => tiles.multiply_rows::<1, 2>(&product, finished),
                    (_, _) => tiles.multiply_rows::<1, 1>(&product, finished),
                }
                before = Some(finish(work, &strip, group * p.pairs() + column, n, product.c));
            }
            column += 1;
            if column == p.pairs() {
                (group, column) = (group + 1, 0);
            }
        }
    }
    if let Some(before) = before {
        // SAFETY: by the caller.
        unsafe { T::finish(&before) }
    }
}

/// Fetches some tiles of a strip, in one of `turns`: of a 1x1 convolution only, others read mostly what they have just
/// read.
#[inline(always)]
fn prefetch_rows<T: StoredTiles>(work: &Work<'_>, group: usize, i: usize, turn: usize, turns: usize) {
    let plan = &work.p.plan;
    if plan.taps.len() > plan.parts.len() {
        return;
    }
    let strip = strip(plan, i);
    for i in part(strip.len() * plan.steps, turn, turns) {
        let (tile, step) = (strip.start + i / plan.steps, i % plan.steps);
        let tap = usize::from(step >= plan.parts[0].blocks);
        let part = &plan.parts[tap];
        if let Source::Rows { first, stride } = plan.sources(tile)[tap] {
            let x = work.x[tap].as_ptr().wrapping_add(group * work.x_group[tap]).cast::<u8>();
            let block = (step - plan.taps[tap].step) * part.block;
            T::prefetch(x.wrapping_add(first as usize + block), stride as usize);
        }
    }
}

/// Lists the steps of a strip of tiles, and gathers the rows that lie unevenly.
///
/// # Safety
/// As for [`work`]; `scratch` must hold a strip's tiles for every step of the plan.
#[inline(always)]
unsafe fn find_steps(
    work: &Work<'_>,
    group: usize,
    strip: Range<usize>,
    scratch: &mut [u32],
    steps: &mut Vec<Step>,
) {
    let plan = &work.p.plan;
    steps.clear();
    let zero = |s: &Source| matches!(s, Source::Zeros { .. });
    let mut free = scratch.as_mut_ptr().cast::<u8>();
    for (i, tap) in plan.taps.iter().enumerate() {
        if strip.clone().all(|tile| zero(&plan.sources(tile)[i])) {
            continue;
        }
        let part = &plan.parts[tap.part];
        // SAFETY: by the caller; a tile takes up what its tap's steps have in the scratch.
        unsafe {
            let x = work.x[tap.part].as_ptr().add(group * work.x_group[tap.part]).cast::<u8>();
            let mut a = [x; STRIP];
            let (mut stride, mut advance) = ([0; STRIP], [0; STRIP]);
            for (j, tile) in strip.clone().enumerate() {
                (a[j], stride[j], advance[j]) = match plan.sources(tile)[i] {
                    Source::Rows { first, stride } => (x.add(first as usize), stride, part.block),
                    Source::Zeros { at } => (x.add(at as usize), 0, 0),
                    Source::Gather(list) => {
                        let to = free;
                        gather(plan, list, x, part.block, part.blocks, to);
                        free = free.add(part.blocks * TILE * size_of::<u32>());
                        (to.cast_const(), ROW_BYTES as u32, TILE * size_of::<u32>())
                    }
                };
            }
            for block in 0..part.blocks {
                steps.push(Step { a, stride, b: (tap.step + block) as u32 });
                for (a, advance) in a.iter_mut().zip(advance) {
                    *a = a.wrapping_add(advance);
                }
            }
        }
    }
}

/// Copies the rows of a list, tiles of all blocks one after another.
///
/// # Safety
/// The list's rows must lie within the input at `x`, and `to` must have room.
#[inline(always)]
unsafe fn gather(plan: &RowsPlan, list: u32, x: *const u8, block: usize, blocks: usize, to: *mut u8) {
    for (r, &row) in plan.gathered[list as usize].iter().enumerate() {
        for i in 0..blocks {
            // SAFETY: by the caller.
            unsafe {
                let from = x.add(row as usize + i * block).cast::<[u16; WIDTH]>();
                to.add((i * SIDE + r) * ROW_BYTES).cast::<[u16; WIDTH]>().write(from.read());
            }
        }
    }
}

/// How the sums of a strip and a column of all groups are finished.
///
/// # Safety
/// As for [`work`].
#[inline(always)]
unsafe fn finish(work: &Work<'_>, strip: &Range<usize>, column: usize, n: usize, sums: *const f32) -> Finish {
    let tiles = &work.p.plan.tiles[strip.clone()];
    // SAFETY: by the caller.
    let bias = unsafe { work.bias.as_ptr().add(column * WIDTH) };
    let mut finish = Finish {
        sums,
        m: tiles.len(),
        n,
        bias,
        relu: work.relu,
        y: [std::ptr::null_mut(); STRIP],
        residual: [std::ptr::null(); STRIP],
        rows: [0; STRIP],
        stride: tiles[0].stride as usize * WIDTH,
    };
    for (m, tile) in tiles.iter().enumerate() {
        let at = column * work.p.y_plane + tile.first as usize * WIDTH;
        // SAFETY: by the caller.
        unsafe {
            finish.y[m] = work.y.as_ptr().add(at);
            finish.residual[m] = work.residual.map_or(std::ptr::null(), |x| x.as_ptr().add(at));
        }
        finish.rows[m] = tile.rows as usize;
    }
    finish
}
