//! Convolutions as sums over rows: jobs, and the loops that run them.

mod partition;
mod plan;

use crate::micro::{BLOCK, Epilogue, Item, MAX_PANELS, Micro, Order, Panel, RowsTile};
use crate::pool::Pool;
use crate::precision::Weights;
use crate::shared::SharedMut;
use partition::Partition;
use std::ptr::null;

pub(crate) use plan::{RowsGeometry, RowsPlan};

/// Most items of a tile: the taps of a kernel, or 1x1 kernels of two inputs.
const MAX_ITEMS: usize = 9;

/// One output of a convolution: `y = relu(sum + bias + residual)` (+ what `y` holds).
pub struct RowsJob<'a> {
    pub(crate) x: &'a [f32],
    pub(crate) w: Weights<'a>,
    pub(crate) y: SharedMut<'a>,
    /// One value per output channel, padded to whole blocks.
    pub bias: Option<&'a [f32]>,
    /// Input of the other convolution of a [`ConvPlan::forward_sum`](crate::ConvPlan::forward_sum).
    pub skip: Option<&'a [f32]>,
    /// Planes of the output's shape, with the images of the plan alone.
    pub residual: Option<&'a [f32]>,
    /// Add what `y` holds already.
    pub accumulate: bool,
    /// Clamp below at zero.
    pub relu: bool,
}

impl<'a> RowsJob<'a> {
    /// `y = x * w`, nothing else: input planes, packed weights in the plan's precision, output planes (from the first of
    /// the plan's images on, if there are more).
    pub fn new(x: &'a [f32], w: impl Into<Weights<'a>>, y: &'a mut [f32]) -> Self {
        Self {
            x,
            w: w.into(),
            y: SharedMut::new(y),
            bias: None,
            skip: None,
            residual: None,
            accumulate: false,
            relu: false,
        }
    }

    /// A block of output channels.
    ///
    /// # Safety
    /// There must be a panel of this number in the weights, the output and what finishes it.
    unsafe fn panel(&self, panel: usize, dims: &RowsDims, b_panel: usize) -> Panel {
        // SAFETY: by the caller.
        unsafe {
            Panel {
                b: self.w.f32().as_ptr().add(panel * b_panel),
                c: self.y.as_ptr().add(panel * dims.c_plane),
                epilogue: Epilogue {
                    bias: self.bias.map_or(null(), |b| b.as_ptr().add(panel * BLOCK)),
                    residual: self.residual.map_or(null(), |r| r.as_ptr().add(panel * dims.r_plane)),
                    accumulate: self.accumulate,
                    relu: self.relu,
                },
            }
        }
    }
}

/// Sizes of a [`run`], the same for all its jobs.
pub(crate) struct RowsDims {
    /// Blocks of 16 input channels per tap, and what is left.
    pub k_blocks: usize,
    pub k_tail: usize,
    /// Floats between a row's channel blocks.
    pub a_block: usize,
    /// Blocks of 16 output channels.
    pub panels: usize,
    /// Floats of an output plane.
    pub c_plane: usize,
    /// Floats of a residual's plane.
    pub r_plane: usize,
}

impl RowsDims {
    /// Values of k per tap.
    pub fn k(&self) -> usize {
        self.k_blocks * BLOCK + self.k_tail
    }
}

/// One of the convolutions that a [`run`] sums.
pub(crate) type Part<'a> = (&'a RowsPlan, &'a RowsDims);

/// Weights of a panel.
fn panel_len(parts: &[Part<'_>]) -> usize {
    parts.iter().map(|(plan, dims)| plan.taps * dims.k() * BLOCK).sum()
}

/// Blocks of input channels that a kernel passes.
fn k_blocks(parts: &[Part<'_>]) -> usize {
    parts.iter().map(|(plan, dims)| plan.taps * dims.k_blocks).sum()
}

/// Computes all jobs in parallel: a convolution of their inputs, or the sum of that and one of their skipped inputs.
pub(crate) fn run(micro: Micro, pool: &Pool, parts: &[Part<'_>], jobs: &mut [RowsJob<'_>]) {
    let (plan, dims) = parts[0];
    let b_panel = panel_len(parts);
    for job in jobs.iter() {
        plan.check(dims, job);
        if let [_, (skip, dims)] = parts {
            assert!(
                skip.is_pointwise()
                    && plan.is_pointwise()
                    && skip.out() == plan.out()
                    && skip.tiles == plan.tiles,
                "parts of two shapes"
            );
            skip.check_input(dims, job.skip.expect("a sum has two inputs"));
        }
        assert_eq!(job.w.f32().len(), dims.panels * b_panel, "weights of another shape");
    }

    if jobs.is_empty() {
        return;
    }
    let jobs = &*jobs;
    let p = Partition::new(parts, jobs, micro, pool.threads());
    let blocks = k_blocks(parts);
    let same = parts.iter().all(|(part, _)| part.order == plan.order);
    let order = if same { plan.order } else { Order::Apart };
    let c_step = if order == Order::PixelRuns { plan.n * BLOCK } else { BLOCK };
    let offsets = plan.offsets(order);
    let skipped = parts.get(1).map(|(skip, dims)| (skip, dims, skip.offsets(order), panel_len(&parts[..1])));
    pool.run(jobs.len() / p.width * p.splits * p.cuts, |task| {
        let (task, cut) = (task / p.cuts, task % p.cuts);
        let (first_job, split) = (task / p.splits * p.width, task % p.splits);
        let panels = p.split(split);
        let first_tile = cut * p.tiles_per_task;
        let tiles = first_tile..(first_tile + p.tiles_per_task).min(plan.tiles.len());
        let x = jobs[first_job].x.as_ptr();
        let mut items = [Item::EMPTY; MAX_ITEMS];
        for from in panels.clone().step_by(p.group) {
            let group = from..(from + p.group).min(panels.end);
            let mut ahead = p.ahead(&group, tiles.len(), parts, &jobs[first_job..]);
            let first = Column::new(first_job, from, dims.panels);
            for tile in tiles.clone() {
                let (mut count, [c_rows, residual_rows]) =
                    plan.locate(tile, dims, offsets, (x, 0), &mut items);
                if let (Some((skip, dims, offsets, b)), Some(x)) = (skipped, jobs[first_job].skip) {
                    count += skip.locate(tile, dims, offsets, (x.as_ptr(), b), &mut items[count..]).0;
                }
                let first_rows = items[0].rows;
                let items = &items[..count];
                let next_rows =
                    plan.first_rows(if tile + 1 < tiles.end { tile + 1 } else { tiles.start }, offsets);
                let mut column = first;
                for from in group.clone().step_by(micro.max_panels()) {
                    let count = (group.end - from).min(micro.max_panels());
                    // SAFETY: offsets were checked against the slices above; this task alone writes these
                    // rows of these planes.
                    unsafe {
                        let mut next = || {
                            let Column { job, panel } = column;
                            column.step(dims.panels);
                            jobs[job].panel(panel, dims, b_panel)
                        };
                        let mut panels = [next(); MAX_PANELS];
                        panels[1..count].fill_with(next);
                        let (c_rows, residual_rows) = (c_rows.as_ptr(), residual_rows.as_ptr());
                        let then = if from + count < group.end { first_rows } else { next_rows.as_ptr() };
                        let panels = &panels[..count];
                        let rows = RowsTile { items, panels, c_rows, residual_rows, c_step, ahead, then };
                        micro.rows(order, plan.tiles[tile].rows as usize, &rows);
                        ahead.from = ahead.from.wrapping_add(ahead.lines * blocks * BLOCK);
                    }
                }
            }
        }
    });
}

/// A block of output channels among those of some jobs.
#[derive(Clone, Copy)]
struct Column {
    job: usize,
    panel: usize,
}

impl Column {
    /// The `index`th from a job on.
    fn new(job: usize, index: usize, panels: usize) -> Self {
        Self { job: job + index / panels, panel: index % panels }
    }

    fn step(&mut self, panels: usize) {
        self.panel += 1;
        if self.panel == panels {
            *self = Self { job: self.job + 1, panel: 0 };
        }
    }
}
