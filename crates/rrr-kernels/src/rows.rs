//! Rows plans: which input rows each output row needs, and the loops that run them.

use crate::micro::{
    Ahead, BLOCK, Epilogue, Item, MAX_PANELS, MAX_ROWS, Micro, Order, PIXEL_STEP, Panel, RUN, RowsTile,
};
use crate::pool::Pool;
use crate::precision::Weights;
use crate::shared::SharedMut;
use std::ops::Range;
use std::ptr::null;

/// Stands for the row of zeros.
pub(crate) const ZERO: u32 = u32::MAX;

/// Weights that a task keeps in the second-level cache.
const PANEL_BYTES: usize = 160 << 10;

/// Input that a task keeps in the second-level cache beside the weights.
const ROWS_BYTES: usize = 256 << 10;

/// Multiply-adds that make a piece of work worth handing out.
const TASK_MACS: usize = 1 << 19;

/// Tasks per thread that balance the load.
const TASKS_PER_THREAD: usize = 12;

/// With more tiles, weights are read often enough.
const AHEAD_TILES: usize = 8;

/// Most items of a tile: the taps of a kernel, or 1x1 kernels of two inputs.
const MAX_ITEMS: usize = 9;

/// The output pixels that need the same taps.
pub(crate) struct Class {
    pub taps: Vec<u32>,
    /// Offset of each output pixel's first image.
    pub out: Vec<u32>,
    /// `[pixel][tap]`: offset of the input pixel's first image, or `ZERO`.
    pub src: Vec<u32>,
}

/// Some rows of a class.
pub(crate) struct Tile {
    pub class: u32,
    /// Pixel (of the class) and image of the first row.
    pub pixel: u32,
    pub image: u32,
    pub rows: u32,
}

/// How the rows of an output are made of the rows of an input, tiled for a micro-kernel.
pub(crate) struct RowsPlan {
    pub n: usize,
    /// Floats between the same pixel of two images, in the input.
    pub image_stride: usize,
    pub zero_row: u32,
    pub classes: Vec<Class>,
    pub tiles: Vec<Tile>,
    /// Largest offsets in use, for the bounds checks.
    max_src: usize,
    max_out: usize,
    pub taps: usize,
    /// How the rows of tiles lie.
    order: Order,
}

/// What a [`RowsPlan`] is built from.
pub(crate) struct RowsGeometry<'a> {
    /// Images.
    pub n: usize,
    /// Output pixels.
    pub pixels: usize,
    /// Taps of the kernel.
    pub taps: usize,
    /// Offset in floats of the input pixel (first image) under a tap of an output pixel; `None`: padding.
    pub src: &'a dyn Fn(usize, usize) -> Option<usize>,
    /// Floats between the same pixel of two images, in the input.
    pub image_stride: usize,
    /// Offset in floats of the input's zero row.
    pub zero_row: usize,
    /// Whether pixels on padding skip the taps there; else they read zeros, and share tiles with others.
    pub skip_padding: bool,
}

impl Class {
    /// Whether rows of `n` images follow one another in the input and the output as they do in the class.
    fn is_contiguous(&self, n: usize) -> bool {
        let follow = |offsets: &[u32], width: usize| {
            let next = offsets.iter().skip(width);
            offsets.iter().zip(next).all(|(now, next)| *now as usize + n * BLOCK == *next as usize)
        };
        follow(&self.src, self.taps.len()) && follow(&self.out, 1)
    }

    /// Whether pixels of the class come in the runs of [`Order::PixelRuns`].
    fn is_of_pixels(&self, n: usize) -> bool {
        let taps = self.taps.len();
        let follows = |run: &[u32], tap: usize| {
            let sources = || run.iter().skip(tap).step_by(taps);
            sources().zip(sources().skip(1)).all(|(now, next)| *now as usize + PIXEL_STEP == *next as usize)
        };
        let is_run = |run: &[u32]| (0..taps).all(|tap| follows(run, tap));
        let put_out =
            |run: &[u32]| run.windows(2).all(|pair| pair[0] as usize + n * BLOCK == pair[1] as usize);
        self.out.len().is_multiple_of(RUN)
            && self.src.chunks(RUN * taps).all(is_run)
            && self.out.chunks(RUN).all(put_out)
    }
}

impl RowsPlan {
    /// Tiles of at most `max_rows` rows; `runs`: in runs where the geometry allows it.
    pub fn new(g: &RowsGeometry<'_>, max_rows: usize, runs: bool) -> Self {
        let to_u32 = |v: usize| u32::try_from(v).expect("activation too large");
        let mut classes: Vec<Class> = Vec::new();
        let (mut max_src, mut max_out) = (0, 0);
        for pixel in 0..g.pixels {
            let all: Vec<Option<usize>> = (0..g.taps).map(|t| (g.src)(pixel, t)).collect();
            max_src = all.iter().flatten().copied().fold(max_src, usize::max);
            let taps: Vec<u32> =
                (0..g.taps as u32).filter(|&t| !g.skip_padding || all[t as usize].is_some()).collect();
            let class = classes.iter().position(|c| c.taps == taps).unwrap_or_else(|| {
                classes.push(Class { taps: taps.clone(), out: Vec::new(), src: Vec::new() });
                classes.len() - 1
            });
            let out = pixel * g.n * BLOCK;
            max_out = out;
            let class = &mut classes[class];
            class.out.push(to_u32(out));
            class.src.extend(taps.iter().map(|&t| all[t as usize].map_or(ZERO, to_u32)));
        }
        let runs = runs && classes.iter().all(|c| !c.src.contains(&ZERO));
        let blocked = runs && g.image_stride == BLOCK;
        let in_images = blocked && g.n.is_multiple_of(RUN);
        let order = if in_images || blocked && classes.iter().all(|c| c.is_contiguous(g.n)) {
            Order::Runs
        } else if runs && classes.iter().all(|c| c.is_of_pixels(g.n)) {
            Order::PixelRuns
        } else {
            Order::Apart
        };
        // Runs of images or pixels must not be cut.
        let unit = if in_images || order == Order::PixelRuns { RUN } else { 1 };
        let mut tiles = Vec::new();
        for (index, class) in classes.iter().enumerate() {
            let units = class.out.len() * g.n / unit;
            // Tiles of nearly equal size: a small remainder would waste the registers of a whole tile.
            let count = units.div_ceil(max_rows / unit);
            let mut first = 0;
            for i in 0..count {
                let end = units * (i + 1) / count * unit;
                let (pixel, image) = match order {
                    Order::PixelRuns => (first / RUN / g.n * RUN, first / RUN % g.n),
                    _ => (first / g.n, first % g.n),
                };
                tiles.push(Tile {
                    class: index as u32,
                    pixel: to_u32(pixel),
                    image: to_u32(image),
                    rows: (end - first) as u32,
                });
                first = end;
            }
        }
        Self {
            n: g.n,
            image_stride: g.image_stride,
            zero_row: to_u32(g.zero_row),
            classes,
            tiles,
            max_src: (max_src + (g.n - 1) * g.image_stride).max(g.zero_row),
            max_out: max_out + (g.n - 1) * BLOCK,
            taps: g.taps,
            order,
        }
    }

    /// Whether all rows need one and the same tap.
    fn is_pointwise(&self) -> bool {
        self.taps == 1 && self.classes.len() == 1
    }

    /// Offsets of the output pixels.
    fn out(&self) -> &[u32] {
        &self.classes[0].out
    }

    /// Checks a job's slices, the weights aside.
    ///
    /// # Panics
    /// If a slice is too small.
    pub fn check(&self, dims: &RowsDims, job: &RowsJob<'_>) {
        self.check_input(dims, job.x);
        assert!(self.max_out + BLOCK <= dims.c_plane, "output plane too small");
        assert!(job.y.len() >= dims.panels * dims.c_plane, "output too small");
        assert!(job.bias.is_none_or(|b| b.len() >= dims.panels * BLOCK), "bias too small");
        assert!(job.residual.is_none_or(|r| r.len() >= dims.panels * dims.c_plane), "residual too small");
    }

    fn check_input(&self, dims: &RowsDims, x: &[f32]) {
        let reach = if dims.k_tail > 0 {
            dims.k_blocks * dims.a_block + dims.k_tail
        } else {
            (dims.k_blocks - 1) * dims.a_block + BLOCK
        };
        assert!(self.max_src + reach <= x.len(), "input too small");
    }

    /// Fills in a tile's items, which read `x` and weights from `b` on, and its output offsets; returns the number of
    /// items. Of each run in that `order` it finds the first row.
    fn locate(
        &self,
        tile: &Tile,
        dims: &RowsDims,
        order: Order,
        (x, b): (*const f32, usize),
        items: &mut [Item],
        c_rows: &mut [u32; MAX_ROWS],
    ) -> usize {
        let class = &self.classes[tile.class as usize];
        // Pixels or images from one run to the next.
        let (pixels, images) = match order {
            Order::Apart => (1, 1),
            Order::Runs => (1, RUN),
            Order::PixelRuns => (RUN, 1),
        };
        let (rows, taps) = ((tile.rows as usize).div_ceil(pixels * images), class.taps.len());
        let (mut pixel, mut image) = (tile.pixel as usize, tile.image as usize);
        for (r, c_row) in c_rows.iter_mut().enumerate().take(rows) {
            *c_row = class.out[pixel] + (image * BLOCK) as u32;
            let shift = (image * self.image_stride) as u32;
            for (item, &src) in items.iter_mut().zip(&class.src[pixel * taps..(pixel + 1) * taps]) {
                item.rows[r] = if src == ZERO { self.zero_row } else { src + shift };
            }
            image += images;
            while image >= self.n {
                (pixel, image) = (pixel + pixels, image - self.n);
            }
        }
        for (item, &tap) in items.iter_mut().zip(&class.taps) {
            (item.a, item.b) = (x, b + tap as usize * dims.k() * BLOCK);
            (item.a_block, item.k_blocks, item.k_tail) = (dims.a_block, dims.k_blocks, dims.k_tail);
        }
        taps
    }
}

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

/// How a [`run`] is cut into tasks: along the rows, and along the blocks of output channels of jobs that
/// read the same input.
struct Partition {
    /// Jobs that are one wide job, because they read the same input: its rows are fetched once.
    width: usize,
    /// Blocks of output channels of a wide job.
    panels: usize,
    splits: usize,
    cuts: usize,
    tiles_per_task: usize,
    /// Panels whose weights stay in the second-level cache while the rows of a task go by.
    group: usize,
    /// Panels that a kernel takes at a time.
    unit: usize,
}

impl Partition {
    fn new(parts: &[Part<'_>], jobs: &[RowsJob<'_>], micro: Micro, threads: usize) -> Self {
        let tile_rows = micro.max_rows();
        let (plan, dims) = parts[0];
        let shared = parts.len() == 1 && jobs.iter().all(|j| j.x.as_ptr() == jobs[0].x.as_ptr());
        let width = if shared { jobs.len() } else { 1 };
        let panels = width * dims.panels;
        let row_macs = panel_len(parts);
        let panel_bytes = row_macs * size_of::<f32>();
        let tiles = plan.tiles.len();
        let wanted = (TASKS_PER_THREAD * threads).div_ceil(jobs.len() / width);
        let worth = |tiles: usize| (tiles * tile_rows * row_macs * panels / TASK_MACS).max(1);
        // Neighbouring rows share most of what lies under their taps.
        let row_bytes: usize =
            parts.iter().map(|(plan, dims)| dims.k() * size_of::<f32>() * plan.taps.min(4)).sum();
        let mut tiles_per_task = (ROWS_BYTES / (row_bytes * tile_rows)).clamp(1, tiles);
        if panels * panel_bytes <= PANEL_BYTES {
            tiles_per_task = tiles_per_task.min(tiles.div_ceil(wanted.min(worth(tiles))));
        }
        let cuts = tiles.div_ceil(tiles_per_task);
        let splits =
            wanted.div_ceil(cuts).min(worth(tiles_per_task)).min(panels.div_ceil(micro.max_panels()));
        let group = (PANEL_BYTES / panel_bytes).max(1);
        // Tiles of as many panels as the kernels take.
        let group = group.next_multiple_of(micro.max_panels());
        Self { width, panels, splits, cuts, tiles_per_task, group, unit: micro.max_panels() }
    }

    /// What to fetch while a tile passes `group`, the panels of some tiles of the first of `jobs`: the panels behind it,
    /// if the group's own are not read often enough to make up for waiting for them.
    fn ahead(&self, group: &Range<usize>, tiles: usize, parts: &[Part<'_>], jobs: &[RowsJob<'_>]) -> Ahead {
        let panels = parts[0].1.panels;
        let Some(job) = jobs.get(group.end / panels) else { return Ahead::NONE };
        if self.cuts > 1 || tiles > AHEAD_TILES {
            return Ahead::NONE;
        }
        let len = panel_len(parts);
        let weights = &job.w.f32()[group.end % panels * len..];
        let calls = tiles * group.len().div_ceil(self.unit);
        let lines = (group.len() * len / BLOCK).div_ceil(calls * k_blocks(parts).max(1));
        Ahead { from: weights.as_ptr(), lines }
    }

    /// Panels of a split.
    fn split(&self, split: usize) -> Range<usize> {
        let units = self.panels.div_ceil(self.unit);
        let start = |split: usize| (units * split / self.splits * self.unit).min(self.panels);
        start(split)..start(split + 1)
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
