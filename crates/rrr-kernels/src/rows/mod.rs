//! Convolutions as sums over rows: jobs, and the loops that run them.

mod partition;
mod plan;

use crate::micro::{BLOCK, Epilogue, Item, Micro, Panel, RowsTile};
use crate::pool::Pool;
use crate::precision::Weights;
use crate::shared::SharedMut;
use partition::{MAX_GROUP, Partition};
use std::ptr::null;

pub(crate) use plan::{Depth, Limits, Output, Part, RowsPlan};

/// Most items of a tile: a 3x3 kernel and a 1x1 one.
pub(crate) const MAX_ITEMS: usize = 10;

/// One output of a convolution: `y = relu(sum + bias + residual)` (+ what `y` holds).
pub struct RowsJob<'a> {
    pub(crate) x: &'a [f32],
    pub(crate) w: Weights<'a>,
    pub(crate) y: SharedMut<'a>,
    /// One value per output channel, padded to whole blocks.
    pub bias: Option<&'a [f32]>,
    /// Input of the other convolution of a sum ([`ConvPlan::sum`](crate::ConvPlan::sum)).
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

    /// Checks the slices.
    ///
    /// # Panics
    /// If one is too small.
    fn check(&self, plan: &RowsPlan) {
        let Output { panels, plane, residual_plane, .. } = plan.output;
        assert!(self.x.len() >= plan.parts[0].len, "input too small");
        if let Some(part) = plan.parts.get(1) {
            assert!(self.skip.expect("a sum has two inputs").len() >= part.len, "input too small");
        }
        assert_eq!(self.w.f32().len(), panels * plan.panel, "weights of another shape");
        assert!(self.y.len() >= (panels - 1) * plane + plan.reach, "output too small");
        assert!(self.bias.is_none_or(|b| b.len() >= panels * BLOCK), "bias too small");
        assert!(self.residual.is_none_or(|r| r.len() >= panels * residual_plane), "residual too small");
    }

    /// A pointer for each part of a plan.
    fn inputs(&self) -> [*const f32; 2] {
        [self.x.as_ptr(), self.skip.map_or(null(), <[f32]>::as_ptr)]
    }

    /// A block of output channels.
    ///
    /// # Safety
    /// There must be a panel of this number in the weights, the output and what finishes it.
    unsafe fn panel(&self, panel: usize, plan: &RowsPlan) -> Panel {
        // SAFETY: by the caller.
        unsafe {
            Panel {
                w: self.w.f32().as_ptr().add(panel * plan.panel),
                y: self.y.as_ptr().add(panel * plan.output.plane),
                epilogue: Epilogue {
                    bias: self.bias.map_or(null(), |b| b.as_ptr().add(panel * BLOCK)),
                    residual: self
                        .residual
                        .map_or(null(), |r| r.as_ptr().add(panel * plan.output.residual_plane)),
                    accumulate: self.accumulate,
                    relu: self.relu,
                },
            }
        }
    }
}

/// Computes all jobs in parallel.
pub(crate) fn run(micro: Micro, pool: &Pool, plan: &RowsPlan, jobs: &mut [RowsJob<'_>]) {
    for job in jobs.iter() {
        job.check(plan);
    }
    if jobs.is_empty() {
        return;
    }
    assert!(plan.max_items() <= MAX_ITEMS);
    let jobs = &*jobs;
    let p = Partition::new(plan, jobs, micro, pool.threads());
    pool.run(jobs.len() / p.width * p.splits * p.cuts, |task| {
        let (task, cut) = (task / p.cuts, task % p.cuts);
        let (first_job, split) = (task / p.splits * p.width, task % p.splits);
        let panels = p.split(split);
        let first_tile = cut * p.tiles_per_task;
        let tiles = &plan.tiles[first_tile..(first_tile + p.tiles_per_task).min(plan.tiles.len())];
        let inputs = jobs[first_job].inputs();
        let (mut items, mut count) = ([Item::EMPTY; MAX_ITEMS], 0);
        let mut filled = None;
        for from in panels.clone().step_by(p.group) {
            let group = from..(from + p.group).min(panels.end);
            let mut ahead = p.ahead(&group, tiles.len(), plan, &jobs[first_job..]);
            let mut columns = [Panel::EMPTY; MAX_GROUP];
            for (to, index) in columns.iter_mut().zip(group.clone()) {
                let (job, panel) = (first_job + index / plan.output.panels, index % plan.output.panels);
                // SAFETY: there is such a panel of this job.
                *to = unsafe { jobs[job].panel(panel, plan) };
            }
            let columns = &columns[..group.len()];
            for (i, tile) in tiles.iter().enumerate() {
                if filled != Some(tile.class) {
                    filled = Some(tile.class);
                    count = plan.fill(tile.class, &inputs, &mut items);
                }
                let [x_rows, y_rows, residual_rows] = plan.offsets(tile);
                let [next_rows, ..] = plan.offsets(tiles.get(i + 1).unwrap_or(&tiles[0]));
                let mut left = columns.len();
                for panels in columns.chunks(micro.max_panels()) {
                    left -= panels.len();
                    let rows = RowsTile {
                        items: &items[..count],
                        panels,
                        x_rows,
                        y_rows,
                        residual_rows,
                        y_step: plan.y_step,
                        ahead,
                        then: if left > 0 { x_rows } else { next_rows },
                    };
                    // SAFETY: the slices were checked above to hold what the plan's offsets reach; this task alone
                    // writes these rows of these planes.
                    unsafe { micro.rows(plan.order, tile.rows as usize, &rows) };
                    ahead.from = ahead.from.wrapping_add(ahead.lines * plan.blocks() * BLOCK);
                }
            }
        }
    });
}
