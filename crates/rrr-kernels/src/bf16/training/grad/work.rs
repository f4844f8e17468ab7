//! The loops around the products of a task.

use super::super::super::ZEROS;
use super::super::super::stored::WIDTH;
use super::super::super::tiles::{Product, STEP, Tiles, Vectors};
use super::{Bf16GradPlan, CHUNK_ROWS, CHUNK_STEPS, MAX_TAPS, NONE, Outcome, Task, Work};
use crate::BLOCK;
use crate::prefetch::{NEAR, prefetch};
use crate::scratch::ThreadScratch;
use crate::tiles::{SIDE, TILE};
use std::ops::Range;

/// Computes a task.
///
/// # Safety
/// The CPU must support `T`; the plan's offsets must lie within the task's slices, and no other task may write the same
/// weights.
#[inline(always)]
pub unsafe fn work<T: Tiles>(task: &Task<'_>) {
    let p = task.work.p;
    // Blocks of 16 input channels.
    let blocks = task.planes.start * 2..(task.planes.end * 2).min(p.conv.k().div_ceil(BLOCK));
    let per_tap = task.panels.len() * blocks.len() * TILE;
    let sums = task.taps.len() * per_tap;
    let a_len = task.panels.len() * CHUNK_STEPS * TILE;
    let b_len = task.planes.len() * 2 * CHUNK_STEPS * TILE;
    // SAFETY: the tile registers are there, by the caller.
    let tiles = unsafe { T::new() };
    let mut scratch = ThreadScratch::take(sums + a_len + b_len);
    let (sums, rest) = scratch.0.split_at_mut(sums);
    let (a, rest) = rest.split_at_mut(a_len);
    let b = &mut rest[..b_len];
    let mut begun = [false; MAX_TAPS];
    let all = p.pixels * p.n;
    for first in (0..all).step_by(CHUNK_ROWS) {
        let rows = first..(first + CHUNK_ROWS).min(all);
        let is_last = rows.end == all;
        // SAFETY: as noted on `work`; operands and sums have room for all tiles.
        unsafe {
            transpose_gradient::<T>(task, &rows, a);
            let sums = task.taps.clone().zip(sums.chunks_exact_mut(per_tap));
            for ((tap, sums), begun) in sums.zip(&mut begun) {
                let mut sources = [NONE; CHUNK_ROWS];
                let is_there = locate(p, tap, &rows, &mut sources);
                if is_last && !is_there && !*begun {
                    sums.fill(0);
                }
                let tap = Tap { task, tap, blocks: blocks.clone(), sums: sums.as_mut_ptr() };
                if is_there {
                    let count = rows.len().div_ceil(STEP);
                    pair_input::<T>(task, &sources, count, b);
                    let add = std::mem::replace(begun, true);
                    tap.multiply_all(&tiles, (a, b), count, add, is_last);
                } else if is_last {
                    tap.finish::<T>(&(0..task.panels.len(), 0..blocks.len()));
                }
            }
        }
    }
}

/// First operand: the rows of the output's gradient, transposed, `[panel][step]` tiles.
///
/// # Safety
/// As for [`work`].
#[inline(always)]
unsafe fn transpose_gradient<T: Tiles>(task: &Task<'_>, rows: &Range<usize>, a: &mut [u32]) {
    let p = task.work.p;
    let y_group = p.conv.cout.div_ceil(WIDTH) * p.y_plane;
    let mut pairs = [[0u32; TILE]; 2];
    let mut panel = task.panels.start;
    while panel < task.panels.end {
        let (group, at) = (panel / p.panels(), panel % p.panels());
        let plane = group * y_group + at / 2 * p.y_plane;
        // A plane of 32 channels has two panels, of which the task may have one.
        let last = if at % 2 == 0 && at + 1 < p.panels() { panel + 1 } else { panel };
        let mine = panel..(last + 1).min(task.panels.end);
        for (s, step) in rows.clone().step_by(STEP).enumerate() {
            let row = |row: usize| {
                if row < rows.end {
                    task.work.dy[plane + row * WIDTH..][..WIDTH].as_ptr()
                } else {
                    (&raw const ZEROS).cast()
                }
            };
            // What the next step reads, or the next chunk's first.
            let ahead = task.work.dy.as_ptr().wrapping_add(plane + (step + STEP) * WIDTH);
            for i in 0..SIDE {
                prefetch::<NEAR>(ahead.wrapping_add(2 * i * WIDTH));
                prefetch::<NEAR>(ahead.wrapping_add((2 * i + 1) * WIDTH));
                let to = pairs.each_mut().map(|tile| tile[i * SIDE..].as_mut_ptr());
                // SAFETY: the rows hold 32 values each, the tiles 16 rows.
                unsafe { T::V::interleave(row(step + 2 * i), row(step + 2 * i + 1), to) };
            }
            for panel in mine.clone() {
                let half = panel % p.panels() % 2;
                let to = &mut a[((panel - task.panels.start) * CHUNK_STEPS + s) * TILE..][..TILE];
                // SAFETY: both are tiles.
                unsafe { T::V::transpose(pairs[half].as_ptr(), to.as_mut_ptr()) };
            }
        }
        panel = mine.end;
    }
}

/// Fills in the offset of the input row under each of `rows`; whether there is any.
#[inline(always)]
fn locate(p: &Bf16GradPlan, tap: usize, rows: &Range<usize>, sources: &mut [u32; CHUNK_ROWS]) -> bool {
    let of_tap = &p.sources[tap * p.pixels..][..p.pixels];
    let (mut row, mut any) = (rows.start, false);
    while row < rows.end {
        let (pixel, image) = (row / p.n, row % p.n);
        let len = (p.n - image).min(rows.end - row);
        if of_tap[pixel] != NONE {
            let first = of_tap[pixel] as usize + image * p.x_image;
            for (i, to) in sources[row - rows.start..][..len].iter_mut().enumerate() {
                *to = (first + i * p.x_image) as u32;
            }
            any = true;
        }
        row += len;
    }
    any
}

/// Second operand: the input's rows in pairs, `[block][step]` tiles.
///
/// # Safety
/// As for [`work`].
#[inline(always)]
unsafe fn pair_input<T: Tiles>(task: &Task<'_>, sources: &[u32; CHUNK_ROWS], count: usize, b: &mut [u32]) {
    let Work { p, x, x_group, .. } = task.work;
    let group = task.panels.start / p.panels();
    let (pairs, _) = sources.as_chunks::<2>();
    let planes = task.planes.clone().zip(b.chunks_exact_mut(2 * CHUNK_STEPS * TILE));
    for (plane, b) in planes {
        let x = x.as_ptr().wrapping_add(group * x_group + plane * p.x_block);
        let (low, high) = b.split_at_mut(CHUNK_STEPS * TILE);
        let rows = low.chunks_exact_mut(SIDE).zip(high.chunks_exact_mut(SIDE));
        for (i, (pair, (low, high))) in pairs.iter().zip(rows).take(count * SIDE).enumerate() {
            // A step ahead, or the next plane's first.
            let (ahead, block) = match (i + SIDE).checked_sub(count * SIDE) {
                Some(over) => (pairs[over], p.x_block),
                None => (pairs[i + SIDE], 0),
            };
            for source in ahead.into_iter().filter(|source| *source != NONE) {
                prefetch::<NEAR>(x.wrapping_add(block + source as usize));
            }
            let row = |source: u32| {
                if source == NONE { (&raw const ZEROS).cast() } else { x.wrapping_add(source as usize) }
            };
            // SAFETY: the plan's rows lie within the input, by the caller.
            unsafe { T::V::interleave(row(pair[0]), row(pair[1]), [low.as_mut_ptr(), high.as_mut_ptr()]) };
        }
    }
}

/// The sums of a tap, tiles `[panel][block]`.
struct Tap<'a> {
    task: &'a Task<'a>,
    tap: usize,
    /// Of 16 values of k.
    blocks: Range<usize>,
    sums: *mut u32,
}

impl Tap<'_> {
    fn sum(&self, panel: usize, block: usize) -> *mut u32 {
        self.sums.wrapping_add((panel * self.blocks.len() + block) * TILE)
    }

    /// Sets the sums to the products of all panels and blocks, or adds these; and finishes them, if they are the last.
    ///
    /// # Safety
    /// As for [`work`]; `a` and `b` must hold the tiles of that many panels and blocks.
    #[inline(always)]
    unsafe fn multiply_all<T: Tiles>(
        &self,
        tiles: &T,
        (a, b): (&[u32], &[u32]),
        count: usize,
        add: bool,
        is_last: bool,
    ) {
        const STEPS: [u32; CHUNK_STEPS] = {
            let mut steps = [0; CHUNK_STEPS];
            let mut i = 0;
            while i < CHUNK_STEPS {
                steps[i] = (i * TILE) as u32;
                i += 1;
            }
            steps
        };
        let (panels, blocks) = (self.task.panels.len(), self.blocks.len());
        let stride = CHUNK_STEPS * TILE;
        let steps = &STEPS[..count];
        for panel in (0..panels).step_by(2) {
            for block in (0..blocks).step_by(2) {
                let tiles_of_sums = (panel..(panel + 2).min(panels), block..(block + 2).min(blocks));
                if is_last {
                    // They are there when the products are.
                    self.fetch(&tiles_of_sums);
                }
                // SAFETY: by the caller.
                unsafe {
                    let a = a.as_ptr().add(panel * stride);
                    let column = |i: usize| b.as_ptr().add((block + i) * stride);
                    let rest = (a, self.sum(panel, block).cast(), blocks * TILE, steps, add);
                    match (panel + 1 < panels, block + 1 < blocks) {
                        (true, true) => tiles.multiply::<2, 2>(&product(rest, [column(0), column(1)])),
                        (true, false) => tiles.multiply::<2, 1>(&product(rest, [column(0)])),
                        (false, true) => tiles.multiply::<1, 2>(&product(rest, [column(0), column(1)])),
                        (false, false) => tiles.multiply::<1, 1>(&product(rest, [column(0)])),
                    }
                    if is_last {
                        self.finish::<T>(&tiles_of_sums);
                    }
                }
            }
        }
    }

    /// What becomes of the gradients of a tile of sums, the range of the packed weights that they are of, and the tile's
    /// place in it: panel, tap and block of k.
    #[inline(always)]
    fn outcome(&self, panel: usize, block: usize) -> (&Outcome<'_>, Range<usize>, (usize, usize, usize)) {
        let p = self.task.work.p;
        let (panel, block) = (self.task.panels.start + panel, self.blocks.start + block);
        let (group, panel) = (panel / p.panels(), panel % p.panels());
        let k = p.conv.k();
        let first = (panel * p.conv.taps() + self.tap) * k;
        let at = (first + block * BLOCK) * BLOCK..(first + k.min((block + 1) * BLOCK)) * BLOCK;
        (&self.task.work.outcomes[group], at, (panel, self.tap, block))
    }

    /// Fetches what [`finish`](Self::finish) will need of panels and blocks.
    #[inline(always)]
    fn fetch(&self, (panels, blocks): &(Range<usize>, Range<usize>)) {
        for panel in panels.clone() {
            for block in blocks.clone() {
                let (outcome, at, place) = self.outcome(panel, block);
                outcome.fetch(at, place);
            }
        }
    }

    /// Hands sums of panels and blocks on, as gradients.
    ///
    /// # Safety
    /// As for [`work`].
    #[inline(always)]
    unsafe fn finish<T: Tiles>(&self, (panels, blocks): &(Range<usize>, Range<usize>)) {
        let mut gradient = [0.0f32; TILE];
        for panel in panels.clone() {
            for block in blocks.clone() {
                let (outcome, at, place) = self.outcome(panel, block);
                // SAFETY: tiles; nobody else has these weights, by the caller.
                unsafe {
                    T::V::transpose(self.sum(panel, block), gradient.as_mut_ptr().cast());
                    outcome.take::<T::V>(&gradient[..at.len()], at.start, place);
                }
            }
        }
    }
}

#[inline(always)]
fn product<'a, const N: usize>(
    (a, c, c_stride, steps, accumulate): (*const u32, *mut f32, usize, &'a [u32], bool),
    b: [*const u32; N],
) -> Product<'a, N> {
    Product { a, a_stride: CHUNK_STEPS * TILE, b, steps, c, c_stride, accumulate }
}
