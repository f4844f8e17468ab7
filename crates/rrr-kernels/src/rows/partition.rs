//! How the rows and output channels of a run are cut into tasks.

use super::{RowsJob, RowsPlan};
use crate::micro::{Ahead, BLOCK, Micro};
use std::ops::Range;

/// Weights that a task keeps in the second-level cache.
const PANEL_BYTES: usize = 160 << 10;

/// Most panels of a group, a multiple of what kernels take.
pub(super) const MAX_GROUP: usize = 64;

/// Input that a task keeps in the second-level cache beside the weights.
const ROWS_BYTES: usize = 256 << 10;

/// Multiply-adds that make a piece of work worth handing out.
const TASK_MACS: usize = 1 << 19;

/// Tasks per thread that balance the load.
const TASKS_PER_THREAD: usize = 12;

/// With more tiles, weights are read often enough.
const AHEAD_TILES: usize = 8;

/// How a [`run`] is cut into tasks: along the rows, and along the blocks of output channels of jobs that
/// read the same input.
pub(super) struct Partition {
    /// Jobs that are one wide job, because they read the same input: its rows are fetched once.
    pub(super) width: usize,
    /// Blocks of output channels of a wide job.
    pub(super) panels: usize,
    pub(super) splits: usize,
    pub(super) cuts: usize,
    pub(super) tiles_per_task: usize,
    /// Panels whose weights stay in the second-level cache while the rows of a task go by.
    pub(super) group: usize,
    /// Panels that a kernel takes at a time.
    pub(super) unit: usize,
}

impl Partition {
    pub(super) fn new(plan: &RowsPlan, jobs: &[RowsJob<'_>], micro: Micro, threads: usize) -> Self {
        let (tile_rows, unit) = (micro.max_rows(), micro.max_panels());
        let tiles = plan.tiles.len();
        let shared = plan.parts.len() == 1 && jobs.iter().all(|j| j.x.as_ptr() == jobs[0].x.as_ptr());
        let width = if shared { jobs.len() } else { 1 };
        let panels = width * plan.output.panels;
        let row_macs = plan.panel;
        let panel_bytes = row_macs * size_of::<f32>();
        let wanted = (TASKS_PER_THREAD * threads).div_ceil(jobs.len() / width);
        let worth = |tiles: usize| (tiles * tile_rows * row_macs * panels / TASK_MACS).max(1);
        let row_bytes = plan.numbers_per_row() * size_of::<f32>();
        let mut tiles_per_task = (ROWS_BYTES / (row_bytes * tile_rows)).clamp(1, tiles);
        if panels * panel_bytes <= PANEL_BYTES {
            tiles_per_task = tiles_per_task.min(tiles.div_ceil(wanted.min(worth(tiles))));
        }
        let cuts = tiles.div_ceil(tiles_per_task);
        let splits = wanted.div_ceil(cuts).min(worth(tiles_per_task)).min(panels.div_ceil(unit));
        let group = (PANEL_BYTES / panel_bytes).clamp(1, MAX_GROUP);
        // Tiles of as many panels as the kernels take.
        let group = group.next_multiple_of(unit);
        Self { width, panels, splits, cuts, tiles_per_task, group, unit }
    }

    /// What to fetch while a tile passes `group`, the panels of some tiles of the first of `jobs`: the panels behind it,
    /// if the group's own are not read often enough to make up for waiting for them.
    pub(super) fn ahead(
        &self,
        group: &Range<usize>,
        tiles: usize,
        plan: &RowsPlan,
        jobs: &[RowsJob<'_>],
    ) -> Ahead {
        let (panels, len) = (plan.output.panels, plan.panel);
        let Some(job) = jobs.get(group.end / panels) else { return Ahead::NONE };
        if self.cuts > 1 || tiles > AHEAD_TILES {
            return Ahead::NONE;
        }
        let weights = &job.w.f32()[group.end % panels * len..];
        let calls = tiles * group.len().div_ceil(self.unit);
        let lines = (group.len() * len / BLOCK).div_ceil(calls * plan.blocks().max(1));
        Ahead { from: weights.as_ptr(), lines }
    }

    /// Panels of a split.
    pub(super) fn split(&self, split: usize) -> Range<usize> {
        let units = self.panels.div_ceil(self.unit);
        let start = |split: usize| (units * split / self.splits * self.unit).min(self.panels);
        start(split)..start(split + 1)
    }
}
