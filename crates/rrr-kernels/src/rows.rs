//! Rows plans: which input rows each output row needs, and the loops that run them.

use crate::micro::{BLOCK, Epilogue, Item, MAX_ROWS, Micro, RowsTile};
use crate::pool::Pool;

/// Stands for the row of zeros.
const ZERO: u32 = u32::MAX;

/// Weights that a task keeps in the second-level cache.
const PANEL_BYTES: usize = 160 << 10;

/// Multiply-adds that make a piece of work worth handing out.
const TASK_MACS: usize = 3 << 20;

/// The output pixels that need the same taps.
struct Class {
    taps: Vec<u32>,
    /// Offset of each output pixel's first image.
    out: Vec<u32>,
    /// `[pixel][tap]`: offset of the input pixel's first image, or `ZERO`.
    src: Vec<u32>,
}

struct Tile {
    class: u32,
    first: u32,
    rows: u32,
}

/// How the rows of an output are made of the rows of an input, tiled for a micro-kernel.
pub(crate) struct RowsPlan {
    n: usize,
    /// Floats between the same pixel of two images, in the input.
    image_stride: usize,
    zero_row: u32,
    classes: Vec<Class>,
    tiles: Vec<Tile>,
    /// Largest offsets in use, for the bounds checks.
    max_src: usize,
    max_out: usize,
    taps: usize,
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

impl RowsPlan {
    pub fn new(g: &RowsGeometry<'_>, max_rows: usize) -> Self {
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
        let mut tiles = Vec::new();
        for (index, class) in classes.iter().enumerate() {
            let rows = class.out.len() * g.n;
            // Tiles of nearly equal size: a small remainder would waste the registers of a whole tile.
            let count = rows.div_ceil(max_rows);
            let mut first = 0;
            for i in 0..count {
                let end = rows * (i + 1) / count;
                tiles.push(Tile { class: index as u32, first: to_u32(first), rows: (end - first) as u32 });
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
        }
    }

    /// Fills in the input offsets of a tile's items and its output offsets; returns the number of items.
    fn locate(&self, tile: &Tile, b_tap: usize, items: &mut [Item], c_rows: &mut [u32; MAX_ROWS]) -> usize {
        let class = &self.classes[tile.class as usize];
        let taps = class.taps.len();
        let mut pixel = tile.first as usize / self.n;
        let mut image = tile.first as usize % self.n;
        for (r, c_row) in c_rows.iter_mut().enumerate().take(tile.rows as usize) {
            *c_row = class.out[pixel] + (image * BLOCK) as u32;
            let shift = (image * self.image_stride) as u32;
            for (item, &src) in items.iter_mut().zip(&class.src[pixel * taps..(pixel + 1) * taps]) {
                item.a[r] = if src == ZERO { self.zero_row } else { src + shift };
            }
            image += 1;
            if image == self.n {
                image = 0;
                pixel += 1;
            }
        }
        for (item, &tap) in items.iter_mut().zip(&class.taps) {
            item.b = tap as usize * b_tap;
        }
        taps
    }
}

/// One output of a convolution: `y = relu(sum + bias + residual)` (+ what `y` holds).
pub struct RowsJob<'a> {
    /// Input planes.
    pub x: &'a [f32],
    /// Packed weights.
    pub w: &'a [f32],
    /// Output planes.
    pub y: &'a mut [f32],
    /// One value per output channel, padded to whole blocks.
    pub bias: Option<&'a [f32]>,
    /// Planes of the output's shape.
    pub residual: Option<&'a [f32]>,
    /// Add what `y` holds already.
    pub accumulate: bool,
    /// Clamp below at zero.
    pub relu: bool,
}

impl<'a> RowsJob<'a> {
    /// `y = x * w`, nothing else.
    pub fn new(x: &'a [f32], w: &'a [f32], y: &'a mut [f32]) -> Self {
        Self { x, w, y, bias: None, residual: None, accumulate: false, relu: false }
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
    fn k(&self) -> usize {
        self.k_blocks * BLOCK + self.k_tail
    }
}

/// A pointer that tasks share; each task writes to places of its own.
struct Shared(*mut f32);
// SAFETY: tasks write to disjoint rows or planes (see the uses).
unsafe impl Sync for Shared {}
// SAFETY: as above.
unsafe impl Send for Shared {}

/// Computes all jobs in parallel.
pub(crate) fn run(micro: Micro, pool: &Pool, plan: &RowsPlan, dims: &RowsDims, jobs: &mut [RowsJob<'_>]) {
    let b_tap = dims.k() * BLOCK;
    let b_panel = plan.taps * b_tap;
    let reach = if dims.k_tail > 0 {
        dims.k_blocks * dims.a_block + dims.k_tail
    } else {
        (dims.k_blocks - 1) * dims.a_block + BLOCK
    };
    for job in jobs.iter() {
        assert!(plan.max_src + reach <= job.x.len(), "input too small");
        assert!(plan.max_out + BLOCK <= dims.c_plane, "output plane too small");
        assert_eq!(job.w.len(), dims.panels * b_panel, "weights of another shape");
        assert!(job.y.len() >= dims.panels * dims.c_plane, "output too small");
        assert!(job.bias.is_none_or(|b| b.len() >= dims.panels * BLOCK), "bias too small");
        assert!(job.residual.is_none_or(|r| r.len() >= dims.panels * dims.c_plane), "residual too small");
    }

    let group = (PANEL_BYTES / (b_panel * size_of::<f32>())).clamp(1, dims.panels);
    let groups = dims.panels.div_ceil(group);
    let tile_macs = micro.max_rows() * b_panel * group;
    let tiles_per_task = (TASK_MACS / tile_macs).clamp(1, plan.tiles.len());
    let cuts = plan.tiles.len().div_ceil(tiles_per_task);
    let outputs: Vec<Shared> = jobs.iter_mut().map(|j| Shared(j.y.as_mut_ptr())).collect();
    let jobs = &*jobs;

    pool.run(jobs.len() * groups * cuts, |task| {
        let (task, cut) = (task / cuts, task % cuts);
        let (index, panels) = (task / groups, task % groups * group);
        let panels = panels..(panels + group).min(dims.panels);
        let job = &jobs[index];
        let y = &outputs[index];
        let mut items = [Item::ZERO; 9];
        let mut c_rows = [0; MAX_ROWS];
        let end = ((cut + 1) * tiles_per_task).min(plan.tiles.len());
        for tile in &plan.tiles[cut * tiles_per_task..end] {
            let taps = plan.locate(tile, b_tap, &mut items, &mut c_rows);
            for panel in panels.clone() {
                let at = panel * dims.c_plane;
                // SAFETY: offsets were checked against the slices above; this task alone writes these rows
                // of this plane.
                unsafe {
                    let epilogue = Epilogue {
                        bias: job.bias.map_or(std::ptr::null(), |b| b.as_ptr().add(panel * BLOCK)),
                        residual: job.residual.map_or(std::ptr::null(), |r| r.as_ptr().add(at)),
                        accumulate: job.accumulate,
                        relu: job.relu,
                    };
                    let rows = RowsTile {
                        items: &items[..taps],
                        a: job.x.as_ptr(),
                        a_block: dims.a_block,
                        k_blocks: dims.k_blocks,
                        k_tail: dims.k_tail,
                        b: job.w.as_ptr().add(panel * b_panel),
                        c: y.0.add(at),
                        c_rows,
                        epilogue,
                    };
                    micro.rows(tile.rows as usize, &rows);
                }
            }
        }
    });
}
