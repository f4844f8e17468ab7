//! Weight gradients of convolutions.

use super::ConvPlan;
use crate::adamw::{AdamWTensor, SharedTensor};
use crate::blocks;
use crate::micro::{BLOCK, GradTile, MAX_GRAD_PANELS, Micro, Run};
use crate::scratch::ThreadScratch;
use crate::shared::SharedMut;
use std::ops::Range;
use std::ptr::{null, null_mut};
use std::slice::from_raw_parts;

/// Rows that a weight gradient sums at a time: both operands come from the second-level cache at most, and sums are seldom
/// added to those before.
const CHUNK_ROWS: usize = 256;

/// Most input and output channel blocks of one task: so many share what comes from memory.
const TASK_BLOCKS: usize = 8;
const TASK_PANELS: usize = 9;

/// Tasks per thread that balance the load.
const TASKS_PER_THREAD: usize = 6;

/// How the weights of a kernel position are cut into tasks.
struct Partition {
    /// Input channel blocks of a task, and how often they are.
    blocks: usize,
    groups: usize,
    /// Parts of the output channel blocks.
    splits: usize,
    columns: usize,
    /// Output channel blocks that a kernel takes.
    unit: usize,
}

impl Partition {
    /// Cuts `columns` output and `k_blocks` input blocks, of which there are `count`.
    fn new(count: usize, k_blocks: usize, columns: usize, micro: Micro, threads: usize) -> Self {
        let unit = micro.max_grad_panels();
        let units = columns.div_ceil(unit);
        let wanted = (TASKS_PER_THREAD * threads).div_ceil(count);
        let mut groups = k_blocks.div_ceil(TASK_BLOCKS);
        let least = units.div_ceil(TASK_PANELS / unit);
        let splits = wanted.div_ceil(groups).clamp(least, units);
        groups = groups.max(wanted.div_ceil(splits).min(k_blocks));
        let blocks = k_blocks.div_ceil(groups);
        Self { blocks, groups: k_blocks.div_ceil(blocks), splits, columns, unit }
    }

    /// Output blocks of a part.
    fn split(&self, split: usize) -> (usize, usize) {
        let units = self.columns.div_ceil(self.unit);
        let start = |split: usize| (units * split / self.splits * self.unit).min(self.columns);
        (start(split), start(split + 1))
    }
}

/// One weight gradient: `x^T dy`, and what becomes of it.
pub struct GradWeight<'a> {
    x: &'a [f32],
    dy: &'a [f32],
    outcome: Outcome<'a>,
}

enum Outcome<'a> {
    Stored(SharedMut<'a>),
    Updated(SharedTensor<'a>),
}

impl<'a> GradWeight<'a> {
    /// Input planes, gradient of the output planes, and the gradient of the packed weights to overwrite.
    pub fn new(x: &'a [f32], dy: &'a [f32], dw: &'a mut [f32]) -> Self {
        Self { x, dy, outcome: Outcome::Stored(SharedMut::new(dw)) }
    }

    /// Input planes, gradient of the output planes, and the packed weights, which take a step of the optimiser: those of a
    /// task right after its sums, which are stored nowhere.
    ///
    /// # Panics
    /// If the slices of the tensor differ in length.
    pub fn updating(x: &'a [f32], dy: &'a [f32], weights: AdamWTensor<'a>) -> Self {
        Self { x, dy, outcome: Outcome::Updated(SharedTensor::new(weights)) }
    }
}

impl Outcome<'_> {
    fn len(&self) -> usize {
        match self {
            Self::Stored(dw) => dw.len(),
            Self::Updated(weights) => weights.len(),
        }
    }
}

impl ConvPlan {
    /// Gradient of the packed weights, or the optimiser's step with it, for every job in parallel.
    ///
    /// # Panics
    /// If a slice of a job has the wrong length, or the plan was made without gradients.
    pub fn grad_weight<'a>(&self, jobs: impl IntoIterator<Item = GradWeight<'a>>) {
        self.compute.pool.with_slice(jobs, |jobs| self.run_grad_weight(jobs));
    }

    fn run_grad_weight(&self, jobs: &mut [GradWeight<'_>]) {
        assert!(!self.runs.is_empty(), "planned with gradients");
        let (panels, taps, k) = (blocks(self.conv.cout), self.conv.taps(), self.conv.k());
        let k_blocks = k.div_ceil(BLOCK);
        for job in jobs.iter() {
            let x_len = if self.conv.rgb { self.x_plane } else { k_blocks * self.x_plane };
            assert!(job.x.len() >= x_len, "input too small");
            assert!(job.dy.len() >= panels * self.y_plane, "output gradient too small");
            assert_eq!(job.outcome.len(), self.conv.packed_len(), "weights of another shape");
        }
        if jobs.is_empty() {
            return;
        }
        let jobs = &*jobs;
        let micro = self.compute.micro;
        // Jobs that read the same input are one wide job.
        let width = if jobs.iter().all(|j| j.x.as_ptr() == jobs[0].x.as_ptr()) { jobs.len() } else { 1 };
        let columns = width * panels;
        let p =
            Partition::new(jobs.len() / width * taps, k_blocks, columns, micro, self.compute.pool.threads());
        self.compute.pool.run(jobs.len() / width * taps * p.groups * p.splits, |task| {
            let (rest, group) = (task / p.groups, task % p.groups);
            let (rest, split) = (rest / p.splits, rest % p.splits);
            let (jobs, tap) = (&jobs[rest / taps * width..][..width], rest % taps);
            let (first, end) = p.split(split);
            let from = group * p.blocks * BLOCK;
            let rows = (p.blocks * BLOCK).min(k - from);
            let mut pieces = [(null(), null_mut()); TASK_PANELS];
            let place = |column: usize| {
                let (job, panel) = (&jobs[column / panels], column % panels);
                (job, panel, ((panel * taps + tap) * k + from) * BLOCK)
            };
            let len = rows * BLOCK;
            let mut scratch = ThreadScratch::take((end - first) * len);
            let sums = scratch.floats().chunks_exact_mut(len);
            for ((column, piece), sums) in (first..end).zip(&mut pieces).zip(sums) {
                let (job, panel, at) = place(column);
                let dw = match &job.outcome {
                    // SAFETY: the pieces do not overlap.
                    Outcome::Stored(dw) => unsafe { dw.part(at, len) },
                    Outcome::Updated(_) => sums,
                };
                dw.fill(0.0);
                *piece = (job.dy[panel * self.y_plane..].as_ptr(), dw.as_mut_ptr());
            }
            let mut runs = self.runs[tap].as_slice();
            while let Some(run) = runs.first() {
                let chunk = |run: &Run| run.dy as usize / (CHUNK_ROWS * BLOCK);
                let count = runs.iter().take_while(|r| chunk(r) == chunk(run)).count();
                let (now, later) = runs.split_at(count);
                runs = later;
                let is_last = runs.is_empty();
                for piece in evenly(end - first, micro.max_grad_panels()) {
                    let most = micro.max_grad_rows(piece.len());
                    let equal = |len: usize| len.div_ceil(len.div_ceil(most));
                    let usual = equal(BLOCK);
                    for b in (0..rows).step_by(BLOCK) {
                        if is_last {
                            // They are there when the products are.
                            for (job, _, at) in piece.clone().map(|i| place(first + i)) {
                                if let Outcome::Updated(weights) = &job.outcome {
                                    weights.fetch(at + b * BLOCK..at + (b + BLOCK).min(rows) * BLOCK);
                                }
                            }
                        }
                        let block = (from + b) / BLOCK;
                        let x_block = if self.conv.rgb { block * BLOCK } else { block * self.x_plane };
                        let channels = BLOCK.min(rows - b);
                        let step = if channels == BLOCK { usual } else { equal(channels) };
                        for channel in (0..channels).step_by(step) {
                            let mut panels = [(null(), null_mut()); MAX_GRAD_PANELS];
                            for (to, (dy, dw)) in panels.iter_mut().zip(&pieces[piece.clone()]) {
                                *to = (*dy, dw.wrapping_add((b + channel) * BLOCK));
                            }
                            // SAFETY: the runs stay within a plane of `x` and `dy` (or within the padded
                            // images), whose lengths were checked above; the pieces hold `rows` rows of 16.
                            unsafe {
                                let tile = GradTile {
                                    runs: now,
                                    x: jobs[0].x.as_ptr().add(x_block + channel),
                                    x_stride: self.x_stride,
                                    panels: &panels[..piece.len()],
                                };
                                micro.grad(step.min(channels - channel), &tile);
                            }
                        }
                    }
                }
            }
            for (column, (_, dw)) in (first..end).zip(pieces) {
                let (job, _, at) = place(column);
                if let Outcome::Updated(weights) = &job.outcome {
                    // SAFETY: the sums of the piece, and the pieces do not overlap.
                    unsafe { weights.part(at, len).update(from_raw_parts(dw, len), self.compute.isa()) };
                }
            }
        });
    }
}

/// `0..len` in the fewest pieces of at most `most`, of nearly equal lengths.
fn evenly(len: usize, most: usize) -> impl Iterator<Item = Range<usize>> {
    let count = len.div_ceil(most);
    (0..count).map(move |i| len * i / count..len * (i + 1) / count)
}

/// Runs of output rows whose input rows lie `x_stride` floats apart, for one tap.
pub(super) fn grad_runs(
    pixels: usize,
    n: usize,
    x_stride: usize,
    src: &dyn Fn(usize) -> Option<usize>,
) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    let to_u32 = |v: usize| u32::try_from(v).expect("activation too large");
    for pixel in 0..pixels {
        let Some(mut x) = src(pixel) else { continue };
        let mut row = pixel * n;
        let end = row + n;
        while row < end {
            let len = (CHUNK_ROWS - row % CHUNK_ROWS).min(end - row);
            let joins = |r: &Run| {
                !row.is_multiple_of(CHUNK_ROWS)
                    && r.x as usize + r.len as usize * x_stride == x
                    && r.dy as usize + r.len as usize * BLOCK == row * BLOCK
            };
            match runs.last_mut() {
                Some(last) if joins(last) => last.len += len as u32,
                _ => runs.push(Run { x: to_u32(x), dy: to_u32(row * BLOCK), len: len as u32 }),
            }
            row += len;
            x += len * x_stride;
        }
    }
    runs
}
