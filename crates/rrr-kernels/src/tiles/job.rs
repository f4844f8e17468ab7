//! Convolutions as jobs, and how they are cut into tasks.

use super::plan::{Part, RowsPlan};
use super::product::{COLUMN, Outcome, STRIP};
use super::{ROW_BYTES, TILE_BYTES, plane_rows};
use crate::Pool;
use crate::conv::{MAX_GROUPS, rows};
use crate::shared::SharedMut;
use std::ops::Range;

/// Weights that a task keeps in the second-level cache.
const WEIGHT_BYTES: usize = 1 << 20;

/// Products of two tiles that make a task: 6 microseconds at least, of which its beginning and its end take about one.
const TASK_PRODUCTS: usize = 1 << 10;

/// Products of two tiles that make a piece of work worth handing to another thread.
const LEAST_PRODUCTS: usize = 1 << 7;

/// Tasks per thread that balance the load.
const TASKS_PER_THREAD: usize = 6;

/// A convolution on inputs of one size: everything about its loops that does not depend on values.
pub struct TilePlan {
    pub(super) rows: RowsPlan,
    groups: usize,
    /// Blocks of 16 output channels of a group.
    pub(super) panels: usize,
    /// Bytes of an output plane.
    pub(super) y_plane: usize,
    /// Bytes of a residual's plane.
    pub(super) r_plane: usize,
    /// Bytes of an output plane up to the last row.
    reach: usize,
    /// Columns of an output plane.
    plane_columns: usize,
    /// Blocks of tiles that are gathered.
    gathered_blocks: usize,
}

impl TilePlan {
    /// Plans an output of `out` pixels and `panels` blocks of 16 channels for the parts' images of `groups`, some of `all` in
    /// the output, in numbers of some bytes.
    pub fn new(
        parts: Vec<Part>,
        out: (usize, usize),
        (groups, all): (usize, usize),
        panels: usize,
        bytes: usize,
    ) -> Self {
        assert!((1..=MAX_GROUPS).contains(&groups), "no groups, or too many");
        let plan = RowsPlan::new(parts, out, all, panels);
        let n = plan.n();
        Self {
            gathered_blocks: plan.gathered_blocks(),
            rows: plan,
            y_plane: plane_rows(rows(out, all)) * ROW_BYTES,
            r_plane: plane_rows(rows(out, n)) * ROW_BYTES,
            reach: (rows(out, all) - (all - n)) * ROW_BYTES,
            groups,
            panels,
            plane_columns: ROW_BYTES / (COLUMN * bytes),
        }
    }

    /// Whether every output has rows of some input.
    pub fn is_covered(&self) -> bool {
        self.rows.is_covered()
    }

    /// Columns of 32 output channels of a group.
    pub(super) fn columns(&self) -> usize {
        self.panels.div_ceil(2)
    }

    /// Planes of a group's output.
    pub(super) fn planes(&self) -> usize {
        self.columns().div_ceil(self.plane_columns)
    }

    /// First column of a plane of all groups, the columns of the groups one after another.
    fn column_of(&self, plane: usize) -> usize {
        let (group, plane) = (plane / self.planes(), plane % self.planes());
        group * self.columns() + plane * self.plane_columns
    }

    /// Bytes before the first row of a column of a group's planes of some bytes.
    pub(super) fn place(&self, column: usize, plane: usize) -> usize {
        let row = column % self.plane_columns * (ROW_BYTES / self.plane_columns);
        column / self.plane_columns * plane + row
    }
}

/// A run of a [`TilePlan`].
pub struct Job<'a, O> {
    /// Input of each part: planes of all groups, or of a single one that all groups share; or padded images.
    pub x: [&'a [u8]; 2],
    /// Weights of all groups.
    pub w: &'a [u8],
    /// Planes of the output's shape, with the images of the plan alone, of all groups or of one that all share.
    pub residual: Option<&'a [u8]>,
    /// That of the channels of all groups.
    pub outcome: O,
    /// Output planes of all groups (from the first of the plan's images on, if there are more).
    pub y: &'a mut [u8],
}

/// A job in parts that its tasks share.
pub(super) struct Work<'a, O> {
    pub(super) p: &'a TilePlan,
    pub(super) x: [&'a [u8]; 2],
    /// Bytes from one group's input of a part to the next one's.
    pub(super) x_group: [usize; 2],
    pub(super) w: &'a [u8],
    pub(super) residual: Option<&'a [u8]>,
    pub(super) residual_group: usize,
    pub(super) outcome: O,
    pub(super) y: SharedMut<'a, u8>,
}

/// A piece of work: some strips of tiles of rows, for some columns of groups that read the same input.
pub struct Task<'a, O> {
    pub(super) work: &'a Work<'a, O>,
    pub(super) strips: Range<usize>,
    pub(super) columns: Range<usize>,
}

/// What gathering a tile of a block is worth in tiles that are read: it is read and written.
const GATHER_BLOCKS: usize = 2;

/// How a job is cut into tasks: along the rows, and along the planes of groups that read the same input.
struct Partition {
    /// Sets of groups that share all input; each is cut for itself.
    spans: usize,
    /// Planes of a span's output: tasks that wrote parts of the same rows would fight for cache lines.
    planes: usize,
    splits: usize,
    cuts: usize,
    /// Whether tasks of the same rows follow one another, not those of the same planes. A thread begins with such: in a stem
    /// with the rows that it made before, while all weights stay in its caches; in branches with the branches that it made.
    by_rows: bool,
}

impl Partition {
    fn new(p: &TilePlan, shared: bool, threads: usize) -> Self {
        let spans = if shared { 1 } else { p.groups };
        let planes = p.groups / spans * p.planes();
        let (rows, strips) = (&p.rows, strips(&p.rows));
        let blocks = rows.parts.iter().map(|part| part.blocks).sum::<usize>();
        let input = (rows.tiles.len() * blocks + GATHER_BLOCKS * p.gathered_blocks) * TILE_BYTES;
        let weights = p.groups / spans * p.panels * rows.steps * TILE_BYTES;
        let products = rows.tiles.len() * rows.steps * p.panels * p.groups;
        let by_rows = p.groups == 1 && weights <= WEIGHT_BYTES;
        let few = threads.min(products / LEAST_PRODUCTS);
        let wanted = (TASKS_PER_THREAD * threads).min(products / TASK_PRODUCTS).max(few).div_ceil(spans);
        let mut splits = weights.div_ceil(WEIGHT_BYTES).min(planes);
        let mut cuts = 1;
        // Every split reads (and gathers) the input once more, every cut the weights, which does not matter where they stay in
        // the caches.
        while splits * cuts < wanted {
            let can_cut = cuts * 2 <= strips;
            let can_split = splits * 2 <= planes && !(by_rows && can_cut);
            match (can_split, can_cut) {
                (true, true) if input * splits <= weights * cuts => splits *= 2,
                (true, false) => splits *= 2,
                (_, true) => cuts *= 2,
                (false, false) => break,
            }
        }
        Self { spans, planes, splits, cuts, by_rows }
    }

    /// Span, split and cut of a task.
    fn task(&self, task: usize) -> (usize, usize, usize) {
        let (span, task) = (task / (self.splits * self.cuts), task % (self.splits * self.cuts));
        let (split, cut) = if self.by_rows {
            (task % self.splits, task / self.splits)
        } else {
            (task / self.cuts, task % self.cuts)
        };
        (span, split, cut)
    }
}

/// The `i`th of `parts` nearly equal parts of `0..len`.
fn part(len: usize, i: usize, parts: usize) -> Range<usize> {
    len * i / parts..len * (i + 1) / parts
}

/// Strips of tiles of rows that a plan's are cut into, as equal as can be.
fn strips(plan: &RowsPlan) -> usize {
    plan.tiles.len().div_ceil(STRIP)
}

/// Tiles of a strip.
pub(super) fn strip(plan: &RowsPlan, i: usize) -> Range<usize> {
    part(plan.tiles.len(), i, strips(plan))
}

impl<O: Outcome> Job<'_, O> {
    /// Computes it on a pool's threads; `work` is [`work`], compiled for an instruction set.
    ///
    /// # Panics
    /// If a slice has the wrong length (the outcome's are the caller's to check).
    ///
    /// # Safety
    /// The CPU must support what `work` takes for granted.
    pub unsafe fn run(self, p: &TilePlan, pool: &Pool, work: unsafe fn(&Task<'_, O>)) {
        let (rows, groups) = (&p.rows, p.groups);
        let mut x_group = [0; 2];
        for ((x, part), group) in self.x.iter().zip(&rows.parts).zip(&mut x_group) {
            assert!(x.len() >= part.len, "input too small");
            *group = if x.len() >= groups * part.len { part.len } else { 0 };
        }
        let r_group = p.planes() * p.r_plane;
        assert_eq!(self.w.len(), groups * p.panels * rows.steps * TILE_BYTES, "weights of another shape");
        let residual_len = self.residual.map_or(usize::MAX, <[u8]>::len);
        assert!(residual_len >= r_group, "residual too small");
        let reach = (groups * p.planes() - 1) * p.y_plane + p.reach;
        assert!(self.y.len() >= reach, "output too small");
        let residual_group = if residual_len >= groups * r_group { r_group } else { 0 };
        let Self { x, w, residual, outcome, y, .. } = self;
        let y = SharedMut::new(y);
        let all = &Work { p, x, x_group, w, residual, residual_group, outcome, y };

        let shared = groups == 1 || x_group == [0; 2];
        let cut = Partition::new(p, shared, pool.threads());
        let strips = strips(rows);
        pool.run(cut.spans * cut.splits * cut.cuts, |task| {
            let (span, split, piece) = cut.task(task);
            let strips = part(strips, piece, cut.cuts);
            let planes = part(cut.planes, split, cut.splits);
            let first = span * cut.planes;
            let columns = p.column_of(first + planes.start)..p.column_of(first + planes.end);
            // SAFETY: the slices were checked above to hold what the plan's offsets reach, the CPU by the caller;
            // this task alone writes these rows of these planes.
            unsafe { work(&Task { work: all, strips, columns }) }
        });
    }
}
