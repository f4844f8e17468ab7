//! The loops around the kernel.

use super::conv::{Int8Job, VectorPlan};
use super::micro::{Item, MAX_PANELS, Panel, Tile};
use crate::rows::{MAX_ITEMS, Output};
use crate::shared::SharedMut;
use crate::{BLOCK, Pool};

/// Weights that a task keeps in the second-level cache.
const WEIGHT_BYTES: usize = 256 << 10;

/// Multiply-adds of a task: enough to be worth handing out, few enough to balance the load.
const TASK_MACS: std::ops::RangeInclusive<usize> = (1 << 18)..=(1 << 24);

/// Tasks per thread that balance the load.
const TASKS_PER_THREAD: usize = 8;

/// Tiles that share a panel's weights while those are in the first-level cache.
const TILES: usize = 8;

pub(super) fn run(p: &VectorPlan, job: Int8Job<'_>, pool: &Pool) {
    let (plan, groups) = (&p.plan, p.groups);
    let Output { panels, plane, residual_plane, .. } = plan.output;
    let (y_group, r_group) = (panels * plane, panels * residual_plane);
    assert_eq!(job.x.len(), plan.parts.len(), "an input for every part");
    assert!(plan.max_items() <= MAX_ITEMS);
    // Bytes to the next group's input: none if the groups share it.
    let mut x_group = [0; 2];
    for ((x, part), stride) in job.x.iter().zip(&plan.parts).zip(&mut x_group) {
        assert!(x.len() >= part.len, "input too small");
        *stride = if x.len() >= groups * part.len { part.len } else { 0 };
    }
    assert_eq!(job.w.len(), groups * panels * plan.panel, "weights of another shape");
    assert_eq!(job.scale.len(), groups * panels * BLOCK, "scales of another shape");
    assert_eq!(job.offset.len(), groups * panels * BLOCK, "offsets of another shape");
    assert!(job.y.len() >= (groups * panels - 1) * plane + plan.reach, "output too small");
    let mut residual_group = 0;
    if let Some((residual, scales)) = job.residual {
        assert!(residual.len() >= r_group, "residual too small");
        assert_eq!(scales.len(), groups * panels * BLOCK, "residual scales of another shape");
        residual_group = if residual.len() >= groups * r_group { r_group } else { 0 };
    }

    // Groups that share all input are one wide convolution, else each is cut for itself.
    let spans = if x_group == [0; 2] { 1 } else { groups };
    let columns = groups * panels / spans;
    let tile_macs = p.micro.max_rows() * plan.panel;
    let total = plan.tiles.len() * groups * panels * tile_macs;
    let goal = (total / (TASKS_PER_THREAD * pool.threads())).clamp(*TASK_MACS.start(), *TASK_MACS.end());
    let share = plan.tiles.len().min(TILES) * tile_macs;
    let width = (WEIGHT_BYTES / plan.panel).min(goal / share).max(1);
    // Tiles of as many panels as the kernels take.
    let width = width.next_multiple_of(p.micro.max_panels()).min(columns);
    let splits = columns.div_ceil(width);
    let tiles_per_task = (goal / (width * tile_macs)).clamp(1, plan.tiles.len());
    let cuts = plan.tiles.len().div_ceil(tiles_per_task);
    let Int8Job { x, w, scale, offset, residual, max, y } = job;
    let y = SharedMut::new(y);

    pool.run(spans * splits * cuts, |task| {
        let (task, cut) = (task / cuts, task % cuts);
        let (span, split) = (task / splits, task % splits);
        let first = span * columns;
        let range = first + split * width..first + ((split + 1) * width).min(columns);
        let end = ((cut + 1) * tiles_per_task).min(plan.tiles.len());
        let (mut items, mut count) = ([Item::EMPTY; MAX_ITEMS], 0);
        // Group and class of tiles of the items.
        let mut filled = None;
        for tiles in plan.tiles[cut * tiles_per_task..end].chunks(TILES) {
            let mut column = range.start;
            while column < range.end {
                let group = column / panels;
                let mut inputs = [std::ptr::null(); 2];
                for (at, (slice, stride)) in inputs.iter_mut().zip(x.iter().zip(x_group)) {
                    *at = slice[group * stride..].as_ptr();
                }
                // Panels of one tile read the same input.
                let end = if spans > 1 { range.end.min((group + 1) * panels) } else { range.end };
                let wide = (end - column).min(p.micro.max_panels());
                let of_tile: [Panel; MAX_PANELS] = std::array::from_fn(|i| {
                    let column = column + i.min(wide - 1);
                    let (group, channels) = (column / panels, column % panels);
                    // SAFETY: the slices were checked above to hold all columns.
                    unsafe {
                        Panel {
                            w: w.as_ptr().add(column * plan.panel).cast(),
                            scale: scale.as_ptr().add(column * BLOCK),
                            offset: offset.as_ptr().add(column * BLOCK),
                            residual: residual.map_or(std::ptr::null(), |(r, _)| {
                                r.as_ptr().add(group * residual_group + channels * residual_plane)
                            }),
                            residual_scale: residual
                                .map_or(std::ptr::null(), |(_, s)| s.as_ptr().add(column * BLOCK)),
                            y: y.as_ptr().add(group * y_group + channels * plane),
                        }
                    }
                });
                for tile in tiles {
                    let reads = Some((if spans > 1 { group } else { 0 }, tile.class));
                    if filled != reads {
                        filled = reads;
                        count = plan.fill(tile.class, &inputs, &mut items);
                    }
                    let [x_rows, y_rows, residual_rows] = plan.offsets(tile);
                    let job = Tile {
                        items: &items[..count],
                        panels: &of_tile[..wide],
                        max: f32::from(max),
                        x_rows,
                        y_rows,
                        residual_rows,
                        y_step: plan.y_step,
                    };
                    // SAFETY: the slices were checked above to hold what the plan's offsets reach; this task
                    // alone writes these rows of these planes.
                    unsafe { p.micro.rows(plan.order, p.short, tile.rows as usize, &job) }
                }
                column += wide;
            }
        }
    });
}
