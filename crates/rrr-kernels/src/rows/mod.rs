//! Convolutions as sums over rows: jobs, and the loops that run them.

mod partition;
mod plan;

use crate::micro::{BLOCK, Epilogue, Item, MAX_PANELS, MAX_ROWS, Micro, Order, Panel, RowsTile};
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
    /// Planes of the output's shape.
    pub residual: Option<&'a [f32]>,
    /// Add what `y` holds already.
    pub accumulate: bool,
    /// Clamp below at zero.
    pub relu: bool,
}

impl<'a> RowsJob<'a> {
    /// `y = x * w`, nothing else: input planes, packed weights in the plan's precision, output planes.
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
        let at = panel * dims.c_plane;
        // SAFETY: by the caller.
        unsafe {
            Panel {
                b: self.w.f32().as_ptr().add(panel * b_panel),
                c: self.y.as_ptr().add(at),
                epilogue: Epilogue {
                    bias: self.bias.map_or(null(), |b| b.as_ptr().add(panel * BLOCK)),
                    residual: self.residual.map_or(null(), |r| r.as_ptr().add(at)),
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
                skip.is_pointwise() && plan.is_pointwise() && skip.out() == plan.out(),
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
    pool.run(jobs.len() / p.width * p.splits * p.cuts, |task| {
        let (task, cut) = (task / p.cuts, task % p.cuts);
        let (first_job, split) = (task / p.splits * p.width, task % p.splits);
        let panels = p.split(split);
        let first_tile = cut * p.tiles_per_task;
        let tiles = &plan.tiles[first_tile..(first_tile + p.tiles_per_task).min(plan.tiles.len())];
        let mut items = [Item::EMPTY; MAX_ITEMS];
        let mut c_rows = [0; MAX_ROWS];
        for from in panels.clone().step_by(p.group) {
            let group = from..(from + p.group).min(panels.end);
            let mut ahead = p.ahead(&group, tiles.len(), parts, &jobs[first_job..]);
            for tile in tiles {
                let x = jobs[first_job].x.as_ptr();
                let mut count = plan.locate(tile, dims, order, (x, 0), &mut items, &mut c_rows);
                if let ([_, (skip, dims)], Some(x)) = (parts, jobs[first_job].skip) {
                    let from = panel_len(&parts[..1]);
                    let x = (x.as_ptr(), from);
                    count += skip.locate(tile, dims, order, x, &mut items[count..], &mut c_rows);
                }
                let items = &items[..count];
                for from in group.clone().step_by(micro.max_panels()) {
                    let count = (group.end - from).min(micro.max_panels());
                    // SAFETY: offsets were checked against the slices above; this task alone writes these
                    // rows of these planes.
                    unsafe {
                        let panels: [Panel; MAX_PANELS] = std::array::from_fn(|p| {
                            let column = from + p.min(count - 1);
                            jobs[first_job + column / dims.panels].panel(column % dims.panels, dims, b_panel)
                        });
                        let rows = RowsTile { items, panels: &panels[..count], c_rows, c_step, ahead };
                        micro.rows(order, tile.rows as usize, &rows);
                        ahead.from = ahead.from.wrapping_add(ahead.lines * blocks * BLOCK);
                    }
                }
            }
        }
    });
}
