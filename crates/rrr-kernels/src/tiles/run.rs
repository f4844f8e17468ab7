//! The loops around the products of tiles.

use super::job::{Task, Work, strip};
use super::plan::{RowsPlan, Source};
use super::product::{COLUMN, Finish, Outcome, Product, RowTiles, STRIP, SUMS, Step};
use super::{ROW_BYTES, SIDE, TILE, TILE_BYTES};
use crate::scratch::ThreadScratch;
use std::cell::RefCell;
use std::ops::Range;

thread_local! {
    static STEPS: RefCell<Steps> = RefCell::default();
}

/// The steps of two strips of tiles: memory that a thread keeps between tasks.
#[derive(Default)]
struct Steps([Vec<Step>; 2]);

impl Drop for TakenSteps {
    fn drop(&mut self) {
        STEPS.set(std::mem::take(&mut self.0));
    }
}

/// [`Steps`] for as long as a task holds them.
struct TakenSteps(Steps);

impl TakenSteps {
    /// Room for as many steps as a plan has.
    fn take(steps: usize) -> Self {
        let mut taken = Self(STEPS.take());
        for list in &mut taken.0.0 {
            list.resize(list.len().max(steps), Step::EMPTY);
        }
        taken
    }
}

/// Sums of a product before they are finished.
#[repr(align(1024))]
struct Sums([u32; SUMS]);

/// Computes a task.
///
/// # Safety
/// The CPU must support `T`, the slices must hold what the plan's offsets reach, the outcome a value of every channel,
/// and no other task may write the same rows of the same columns.
#[inline(always)]
pub unsafe fn work<T: RowTiles<O>, O: Outcome>(task: &Task<'_, O>) {
    let (work, p) = (task.work, task.work.p);
    let plan = &p.rows;
    // SAFETY: the tile registers are there, by the caller.
    let tiles = unsafe { T::new() };
    let half = STRIP * plan.steps * TILE;
    let mut scratch = ThreadScratch::take(2 * half);
    let (front, back) = scratch.0.split_at_mut(half);
    let scratch = [front, back];
    let mut steps = TakenSteps::take(plan.steps);
    let steps = &mut steps.0.0;
    let mut sums = Sums([0; SUMS]);
    // Taken once: every new borrow would invalidate the pointer of the product before.
    let sums = sums.0.as_mut_ptr();
    let (first_group, first_column) = (task.columns.start / p.columns(), task.columns.start % p.columns());
    let turns = task.columns.len();
    // Finished together with the next product.
    let mut before: Option<Finish<O>> = None;
    let mut coming = None;
    for i in task.strips.clone() {
        let tiles_of = strip(plan, i);
        let (now, then) = (i % 2, (i + 1) % 2);
        let count = match coming.take() {
            Some(count) => count,
            // SAFETY: by the caller; the scratch holds all tiles of a strip, the list all steps.
            None => unsafe { find_steps(work, first_group, tiles_of.clone(), scratch[now], &mut steps[now]) },
        };
        let (mut group, mut column) = (first_group, first_column);
        for turn in 0..turns {
            // Before the last product, not behind it: the next one would wait until what is written has reached the
            // cache.
            if turn + 1 == turns && i + 1 < task.strips.end {
                let next = strip(plan, i + 1);
                // SAFETY: as above.
                coming =
                    Some(unsafe { find_steps(work, first_group, next, scratch[then], &mut steps[then]) });
            }
            // SAFETY: the weights were checked to hold all panels; `sums` has room for those of a product.
            unsafe {
                let b = work.w.as_ptr().add((group * p.panels + 2 * column) * plan.steps * TILE_BYTES);
                let product = Product { steps: &steps[now][..count], b, sums };
                let n = (p.panels - 2 * column).min(2);
                let own = finish(work, &tiles_of, (group, column), n, sums);
                match (tiles_of.len(), n) {
                    (2, 2) => tiles.multiply_rows::<2, 2>(&product, &own, before.as_ref()),
                    (2, _) => tiles.multiply_rows::<2, 1>(&product, &own, before.as_ref()),
                    (_, 2) => tiles.multiply_rows::<1, 2>(&product, &own, before.as_ref()),
                    (_, _) => tiles.multiply_rows::<1, 1>(&product, &own, before.as_ref()),
                }
                before = Some(own);
            }
            column += 1;
            if column == p.columns() {
                (group, column) = (group + 1, 0);
            }
        }
    }
    if let Some(before) = before {
        // SAFETY: by the caller.
        unsafe { tiles.settle(&before) }
    }
}

/// Lists the steps of a strip of tiles, gathers the rows that lie unevenly, and says how many steps there are.
///
/// # Safety
/// As for [`work`]; `scratch` must hold a strip's tiles for every step of the plan, `steps` all of them.
#[inline(always)]
unsafe fn find_steps<O>(
    work: &Work<'_, O>,
    group: usize,
    strip: Range<usize>,
    scratch: &mut [u32],
    steps: &mut [Step],
) -> usize {
    let plan = &work.p.rows;
    let mut count = 0;
    let zero = |s: &Source| matches!(s, Source::Zeros { .. });
    let mut free = scratch.as_mut_ptr().cast::<u8>();
    for (i, tap) in plan.taps.iter().enumerate() {
        if strip.clone().all(|tile| zero(&plan.sources(tile)[i])) {
            continue;
        }
        let part = &plan.parts[tap.part];
        let list = &mut steps[count..][..part.blocks];
        count += part.blocks;
        // SAFETY: by the caller; a tile takes up what its tap's steps have in the scratch.
        let x = unsafe { work.x[tap.part].as_ptr().add(group * work.x_group[tap.part]) };
        for (j, tile) in strip.clone().enumerate() {
            let (mut a, stride, advance) = match plan.sources(tile)[i] {
                Source::Rows { first, stride } => (x.wrapping_add(first as usize), stride, part.block),
                Source::Zeros { at } => (x.wrapping_add(at as usize), 0, 0),
                Source::Gather(rows) => {
                    let to = free;
                    // SAFETY: as above.
                    unsafe {
                        gather(plan, rows, x, part.block, part.blocks, to);
                        free = free.add(part.blocks * TILE_BYTES);
                    }
                    (to.cast_const(), ROW_BYTES as u32, TILE_BYTES)
                }
            };
            // Number by number, as they are read: a step that is copied as a whole waits for what it was made of.
            for (step, number) in list.iter_mut().zip(tap.step..) {
                (step.a[j], step.stride[j], step.b) = (a, stride, number as u32);
                step.words = SIDE as u32;
                a = a.wrapping_add(advance);
            }
        }
        if let Some(last) = list.last_mut() {
            last.words = part.last_words;
        }
    }
    count
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
                let from = x.add(row as usize + i * block).cast::<[u8; ROW_BYTES]>();
                to.add((i * SIDE + r) * ROW_BYTES).cast::<[u8; ROW_BYTES]>().write(from.read());
            }
        }
    }
}

/// How the sums of a strip and a column of a group are finished.
///
/// # Safety
/// As for [`work`].
#[inline(always)]
unsafe fn finish<O: Outcome>(
    work: &Work<'_, O>,
    strip: &Range<usize>,
    (group, column): (usize, usize),
    n: usize,
    sums: *mut u32,
) -> Finish<O> {
    let (p, tiles) = (work.p, &work.p.rows.tiles[strip.clone()]);
    let mut finish = Finish {
        sums,
        m: tiles.len(),
        n,
        outcome: work.outcome.from(group * O::values(p.panels) + column * COLUMN),
        y: [std::ptr::null_mut(); STRIP],
        residual: [std::ptr::null(); STRIP],
        rows: [0; STRIP],
        stride: p.rows.out_stride * ROW_BYTES,
        residual_stride: tiles[0].stride as usize * ROW_BYTES,
    };
    for (m, tile) in tiles.iter().enumerate() {
        let at = p.place(column, p.y_plane) + tile.out as usize * ROW_BYTES;
        let residual_at = p.place(column, p.r_plane) + tile.first as usize * ROW_BYTES;
        // SAFETY: by the caller.
        unsafe {
            finish.y[m] = work.y.as_ptr().add(group * p.planes() * p.y_plane + at);
            let residual = |x: &[u8]| x.as_ptr().add(group * work.residual_group + residual_at);
            finish.residual[m] = work.residual.map_or(std::ptr::null(), residual);
        }
        finish.rows[m] = tile.rows as usize;
    }
    finish
}
