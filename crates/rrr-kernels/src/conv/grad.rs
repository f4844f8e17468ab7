//! Weight gradients of convolutions.

use super::ConvPlan;
use crate::blocks;
use crate::micro::{BLOCK, GradTile, MAX_PANELS, Run};
use crate::shared::SharedMut;
use std::ptr::{null, null_mut};

/// Rows that a weight gradient sums at a time, so that both operands stay in the first-level cache.
const CHUNK_ROWS: usize = 128;

/// Input channel blocks of one weight-gradient task.
const GRAD_BLOCKS: usize = 8;

/// One weight gradient: `dw = x^T dy`.
pub struct GradWeight<'a> {
    pub(crate) x: &'a [f32],
    pub(crate) dy: &'a [f32],
    pub(crate) dw: SharedMut<'a>,
}

impl<'a> GradWeight<'a> {
    /// Input planes, gradient of the output planes, and the gradient of the packed weights to overwrite.
    pub fn new(x: &'a [f32], dy: &'a [f32], dw: &'a mut [f32]) -> Self {
        Self { x, dy, dw: SharedMut::new(dw) }
    }
}

impl ConvPlan {
    /// Gradient of the packed weights, for every job in parallel.
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
        let groups = k_blocks.div_ceil(GRAD_BLOCKS);
        for job in jobs.iter() {
            let x_len = if self.conv.rgb { self.x_plane } else { k_blocks * self.x_plane };
            assert!(job.x.len() >= x_len, "input too small");
            assert!(job.dy.len() >= panels * self.y_plane, "output gradient too small");
            assert_eq!(job.dw.len(), self.conv.packed_len(), "weight gradient of another shape");
        }
        let jobs = &*jobs;
        let micro = self.compute.micro;
        let width = micro.max_grad_panels();
        let columns = panels.div_ceil(width);
        self.compute.pool.run(jobs.len() * columns * taps * groups, |task| {
            let (rest, group) = (task / groups, task % groups);
            let (rest, tap) = (rest / taps, rest % taps);
            let (job, first) = (&jobs[rest / columns], rest % columns * width);
            let count = (panels - first).min(width);
            let from = group * GRAD_BLOCKS * BLOCK;
            let rows = (GRAD_BLOCKS * BLOCK).min(k - from);
            let mut pieces = [(null(), null_mut()); MAX_PANELS];
            for (p, piece) in pieces[..count].iter_mut().enumerate() {
                let panel = first + p;
                // SAFETY: the pieces do not overlap.
                let dw = unsafe { job.dw.part(((panel * taps + tap) * k + from) * BLOCK, rows * BLOCK) };
                dw.fill(0.0);
                *piece = (job.dy[panel * self.y_plane..].as_ptr(), dw.as_mut_ptr());
            }
            let most = micro.max_grad_rows(count);
            let mut runs = self.runs[tap].as_slice();
            while let Some(run) = runs.first() {
                let chunk = |run: &Run| run.dy as usize / (CHUNK_ROWS * BLOCK);
                let len = runs.iter().take_while(|r| chunk(r) == chunk(run)).count();
                let (now, later) = runs.split_at(len);
                runs = later;
                for b in (0..rows).step_by(BLOCK) {
                    let block = (from + b) / BLOCK;
                    let x_block = if self.conv.rgb { block * BLOCK } else { block * self.x_plane };
                    let channels = BLOCK.min(rows - b);
                    let tiles = channels.div_ceil(most);
                    for t in 0..tiles {
                        let (from, to) = (channels * t / tiles, channels * (t + 1) / tiles);
                        // SAFETY: the runs stay within a plane of `x` and `dy` (or within the padded
                        // images), whose lengths were checked above; the pieces hold `rows` rows of 16.
                        unsafe {
                            let panels = pieces.map(|(dy, dw)| (dy, dw.wrapping_add((b + from) * BLOCK)));
                            let tile = GradTile {
                                runs: now,
                                x: job.x.as_ptr().add(x_block + from),
                                x_stride: self.x_stride,
                                panels: &panels[..count],
                            };
                            micro.grad(to - from, &tile);
                        }
                    }
                }
            }
        });
    }
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
