//! Tasks: how tiles and output channels are shared among threads, and the loops of each.

use super::transform::{InputTiles, Kernels, OutputTiles, POINTS, TILE};
use super::{Position, Winograd};
use crate::micro::{Ahead, BLOCK, Epilogue, Item, MAX_PANELS, MAX_ROWS, Micro, Order, Panel, RUN, RowsTile};
use crate::pool::Pool;
use crate::rows::RowsJob;
use crate::shared::SharedMut;
use std::ops::Range;
use std::ptr::null;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Sizes of a [`Run`].
pub struct Dims {
    /// Blocks of 16 input and output channels.
    pub k_blocks: usize,
    pub panels: usize,
    /// Rows of a plane of the input, and of the output, and floats from one to the next.
    pub rows: usize,
    pub plane: usize,
    /// Tiles of a task (the last one's may be fewer), and into how many such shares they are cut.
    pub tiles: usize,
    pub shares: usize,
    /// Panels whose sums a task makes at a time.
    pub group: usize,
    /// Number of the transformed weights.
    pub weights: usize,
    /// Whether a task makes all panels of some tiles; else it makes one group of them.
    pub by_tiles: bool,
}

impl Dims {
    /// Floats between the points of a task's input: odd in rows, lest all of a tile's fall into one set of the cache.
    fn input_point(&self) -> usize {
        ((self.k_blocks * self.tiles) | 1) * BLOCK
    }

    fn input_len(&self) -> usize {
        POINTS * self.input_point()
    }

    /// Floats between the points of sums.
    fn sums_point(&self) -> usize {
        (self.tiles | 1) * BLOCK
    }

    fn sums_len(&self, panels: usize) -> usize {
        panels * POINTS * self.sums_point()
    }

    /// Floats that a [`Run`] works in.
    pub fn scratch_len(&self, jobs: usize, threads: usize) -> usize {
        let inputs = if self.by_tiles { threads } else { jobs * self.shares };
        inputs * self.input_len() + threads * self.sums_len(self.group)
    }
}

/// Some jobs on maps of one size.
pub struct Run<'a> {
    winograd: &'a Winograd,
    dims: Dims,
    micro: Micro,
    kernels: Kernels,
    jobs: &'a [RowsJob<'a>],
    points: Option<&'a [f32]>,
}

impl<'a> Run<'a> {
    /// Transformed weights of all jobs, if not their own.
    ///
    /// # Panics
    /// If a slice of a job has the wrong length.
    pub fn new(
        winograd: &'a Winograd,
        dims: Dims,
        micro: Micro,
        jobs: &'a [RowsJob<'a>],
        points: Option<&'a [f32]>,
    ) -> Self {
        for job in jobs {
            assert!(job.x.len() >= dims.k_blocks * dims.plane, "input too small");
            assert!(job.y.len() >= dims.panels * dims.plane, "output too small");
            let weights = points.unwrap_or_else(|| job.w.winograd());
            assert_eq!(weights.len(), dims.weights, "weights of another shape");
            assert!(job.bias.is_none_or(|b| b.len() >= dims.panels * BLOCK), "bias too small");
            assert!(job.residual.is_none_or(|r| r.len() >= dims.panels * dims.plane), "residual too small");
        }
        Self { winograd, dims, micro, kernels: Kernels::new(micro.isa()), jobs, points }
    }

    /// Computes all jobs in parallel.
    ///
    /// # Panics
    /// If `scratch` is shorter than [`Dims::scratch_len`].
    pub fn run(&self, pool: &Pool, scratch: &mut [f32]) {
        let scratch = &mut scratch[..self.dims.scratch_len(self.jobs.len(), pool.threads())];
        if self.dims.by_tiles { self.by_tiles(pool, scratch) } else { self.by_panels(pool, scratch) }
    }

    /// What a task transforms stays in its caches.
    fn by_tiles(&self, pool: &Pool, scratch: &mut [f32]) {
        let dims = &self.dims;
        in_slots(pool, self.jobs.len() * dims.shares, scratch, |task, scratch| {
            let (job, tiles) = (&self.jobs[task / dims.shares], self.share(task % dims.shares));
            let (input, sums) = scratch.split_at_mut(dims.input_len());
            let to = SharedMut::new(input);
            for block in 0..dims.k_blocks {
                self.transform_input(job, block, tiles.clone(), &to, 0);
            }
            for from in (0..dims.panels).step_by(dims.group) {
                let panels = from..(from + dims.group).min(dims.panels);
                self.finish(job, panels, tiles.clone(), input, sums);
            }
        });
    }

    /// For few tiles: all are transformed first; then every thread has work, and weights are read once.
    fn by_panels(&self, pool: &Pool, scratch: &mut [f32]) {
        let dims = &self.dims;
        let shares = self.jobs.len() * dims.shares;
        let (input, sums) = scratch.split_at_mut(shares * dims.input_len());
        let to = SharedMut::new(input);
        pool.run(shares * dims.k_blocks, |task| {
            let (at, block) = (task / dims.k_blocks, task % dims.k_blocks);
            let (job, tiles) = (&self.jobs[at / dims.shares], self.share(at % dims.shares));
            self.transform_input(job, block, tiles, &to, at * dims.input_len());
        });
        let groups = dims.panels.div_ceil(dims.group);
        in_slots(pool, shares * groups, sums, |task, sums| {
            let (rest, share) = (task / dims.shares, task % dims.shares);
            let (index, from) = (rest / groups, rest % groups * dims.group);
            let panels = from..(from + dims.group).min(dims.panels);
            let input = &input[(index * dims.shares + share) * dims.input_len()..];
            self.finish(&self.jobs[index], panels, self.share(share), input, sums);
        });
    }

    /// Tiles of a share.
    fn share(&self, share: usize) -> Range<usize> {
        share * self.dims.tiles..((share + 1) * self.dims.tiles).min(self.winograd.count())
    }

    /// From transformed input to output, for some panels.
    fn finish(
        &self,
        job: &RowsJob<'_>,
        panels: Range<usize>,
        tiles: Range<usize>,
        input: &[f32],
        sums: &mut [f32],
    ) {
        self.multiply(job, panels.clone(), tiles.len(), input, sums);
        for (sums, panel) in sums.chunks_exact(self.dims.sums_len(1)).zip(panels) {
            self.transform_output(job, panel, tiles.clone(), sums);
        }
    }

    /// Transforms 16 channels of some tiles to `to[base..]`, `[point][block][tile][16]`.
    fn transform_input(
        &self,
        job: &RowsJob<'_>,
        block: usize,
        tiles: Range<usize>,
        to: &SharedMut<'_>,
        base: usize,
    ) {
        let dims = &self.dims;
        assert!(block < dims.k_blocks && tiles.len() <= dims.tiles && (dims.rows + 1) * BLOCK <= dims.plane);
        assert!(base + dims.input_len() <= to.len());
        let plane = &job.x[block * dims.plane..(block + 1) * dims.plane];
        for Position { map_tile, images, first, .. } in self.winograd.positions(tiles.clone()) {
            let at = base + (block * dims.tiles + first - tiles.start) * BLOCK;
            // SAFETY: patches lie within a plane, all their images too; points of the tiles within the input checked
            // above; one task makes all of a block.
            unsafe {
                self.kernels.input(&InputTiles {
                    x: plane.as_ptr(),
                    patch: &self.winograd.patches[map_tile],
                    image: images.start,
                    to: to.as_ptr().add(at),
                    point: dims.input_point(),
                    count: images.len(),
                });
            }
        }
    }

    /// `sums = input * weights` at every point, `[panel][point][tile][16]`.
    fn multiply(
        &self,
        job: &RowsJob<'_>,
        panels: Range<usize>,
        tiles: usize,
        input: &[f32],
        sums: &mut [f32],
    ) {
        let (dims, micro) = (&self.dims, self.micro);
        assert!(tiles <= dims.tiles && input.len() >= dims.input_len());
        assert!(panels.end <= dims.panels && sums.len() >= dims.sums_len(panels.len()));
        let weights = self.points.unwrap_or_else(|| job.w.winograd());
        let point_len = dims.k_blocks * BLOCK * BLOCK;
        assert!(weights.len() >= dims.panels * POINTS * point_len);
        let count = tiles.div_ceil(micro.max_rows());
        let (order, run) = if micro.has_runs() { (Order::Runs, RUN) } else { (Order::Apart, 1) };
        let rows: [u32; MAX_ROWS] = std::array::from_fn(|r| (r * run * BLOCK) as u32);
        let (x_block, blocks) = (dims.tiles * BLOCK, dims.k_blocks);
        let epilogue = Epilogue { bias: null(), residual: null(), accumulate: false, relu: false };
        // Taken once: every new borrow would invalidate the pointers of the panels before.
        let sums = sums.as_mut_ptr();
        for point in 0..POINTS {
            for first in panels.clone().step_by(micro.max_panels()) {
                let of_tile = (panels.end - first).min(micro.max_panels());
                for t in 0..count {
                    let (from, to) = (tiles * t / count, tiles * (t + 1) / count);
                    // SAFETY: rows of the tiles lie within a point of `input` and of `sums`, whose lengths were
                    // checked above; `weights` holds a panel for each one of `sums`.
                    unsafe {
                        let panels: [Panel; MAX_PANELS] = std::array::from_fn(|p| {
                            let panel = first + p.min(of_tile - 1);
                            let y =
                                ((panel - panels.start) * POINTS + point) * dims.sums_point() + from * BLOCK;
                            Panel {
                                w: weights.as_ptr().add((panel * POINTS + point) * point_len),
                                y: sums.add(y),
                                epilogue,
                            }
                        });
                        let x = input.as_ptr().add(point * dims.input_point() + from * BLOCK);
                        let tile = RowsTile {
                            items: &[Item { x, x_block, blocks, tail: 0, w: 0 }],
                            panels: &panels[..of_tile],
                            x_rows: &rows,
                            y_rows: &rows,
                            residual_rows: &rows,
                            y_step: BLOCK,
                            then: &rows,
                            ahead: Ahead::NONE,
                        };
                        micro.rows(order, to - from, &tile);
                    }
                }
            }
        }
    }

    /// Transforms sums, `[point][tile][16]`, to the output of a panel, and finishes it.
    fn transform_output(&self, job: &RowsJob<'_>, panel: usize, tiles: Range<usize>, sums: &[f32]) {
        let (Winograd { height, width, n, .. }, dims) = (self.winograd, &self.dims);
        assert!(panel < dims.panels && tiles.len() <= dims.tiles);
        assert!(sums.len() >= dims.sums_len(1));
        for Position { top, left, images, first, .. } in self.winograd.positions(tiles.clone()) {
            let at = panel * dims.plane + ((top * width + left) * n + images.start) * BLOCK;
            // SAFETY: the pixels of a position lie on the map, sums and output were checked to hold them, bias and
            // residual by `new`; a task alone writes the rows of its tiles in its panels.
            unsafe {
                self.kernels.output(&OutputTiles {
                    from: sums.as_ptr().add((first - tiles.start) * BLOCK),
                    point: dims.sums_point(),
                    y: job.y.as_ptr().add(at),
                    size: ((height - top).min(TILE), (width - left).min(TILE)),
                    strides: (width * n * BLOCK, n * BLOCK),
                    count: images.len(),
                    epilogue: Epilogue {
                        bias: job.bias.map_or(null(), |b| b.as_ptr().add(panel * BLOCK)),
                        residual: job.residual.map_or(null(), |r| r.as_ptr().add(at)),
                        accumulate: job.accumulate,
                        relu: job.relu,
                    },
                });
            }
        }
    }
}

/// Calls `f(task, scratch)` for each task, in parallel, with a part of `scratch` for each thread.
fn in_slots(pool: &Pool, tasks: usize, scratch: &mut [f32], f: impl Fn(usize, &mut [f32]) + Sync) {
    let (len, next) = (scratch.len() / pool.threads(), AtomicUsize::new(0));
    pool.for_each_chunk(scratch, len, |_, scratch| {
        loop {
            let task = next.fetch_add(1, Ordering::Relaxed);
            if task >= tasks {
                return;
            }
            f(task, scratch);
        }
    });
}
