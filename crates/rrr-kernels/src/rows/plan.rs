//! Which input rows each output row needs, in tiles.

use super::{RowsDims, RowsJob};
use crate::micro::{BLOCK, Item, MAX_RUNS, Order, PIXEL_STEP, RUN};
use std::sync::OnceLock;

/// Stands for the row of zeros.
const ZERO: u32 = u32::MAX;

/// The output pixels that need the same taps.
struct Class {
    taps: Vec<u32>,
    /// Offset of each output pixel's first image.
    out: Vec<u32>,
    /// `[pixel][tap]`: offset of the input pixel's first image, or `ZERO`.
    src: Vec<u32>,
}

/// Some rows of a class.
#[derive(PartialEq)]
pub(crate) struct Tile {
    class: u32,
    first: u32,
    pub rows: u32,
}

/// Where the rows of all tiles lie.
pub(super) struct Offsets {
    /// `[tile]`: where its own begin.
    starts: Vec<u32>,
    /// `[tile][output, residual, tap, tap, ...][row]`: offset of each row, or of the first one of each run; without a
    /// residual's where they are the output's.
    rows: Vec<u32>,
}

/// How the rows of an output are made of the rows of an input, tiled for a micro-kernel.
pub(crate) struct RowsPlan {
    pub n: usize,
    /// Images of the output, of which these are `n`.
    pub out_n: usize,
    /// Floats between the same pixel of two images, in the input.
    image_stride: usize,
    zero_row: u32,
    classes: Vec<Class>,
    pub tiles: Vec<Tile>,
    /// Largest offsets in use, for the bounds checks.
    max_src: usize,
    max_out: usize,
    pub taps: usize,
    /// How the rows of tiles lie.
    pub(super) order: Order,
    /// In that order.
    offsets: OnceLock<Offsets>,
    /// Of every row.
    offsets_apart: OnceLock<Offsets>,
}

/// What a [`RowsPlan`] is built from.
pub(crate) struct RowsGeometry<'a> {
    /// Images.
    pub n: usize,
    /// Images that the output has room for, `n` if it is theirs alone; else with one tap.
    pub out_n: usize,
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

impl Offsets {
    /// Where those of a tile begin and end.
    fn of(&self, tile: usize) -> (usize, usize) {
        let end = self.starts.get(tile + 1).map_or(self.rows.len() - MAX_RUNS, |end| *end as usize);
        (self.starts[tile] as usize, end)
    }
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
            let out = pixel * g.out_n * BLOCK;
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
                tiles.push(Tile { class: index as u32, first: to_u32(first), rows: (end - first) as u32 });
                first = end;
            }
        }
        Self {
            n: g.n,
            out_n: g.out_n,
            image_stride: g.image_stride,
            zero_row: to_u32(g.zero_row),
            classes,
            tiles,
            max_src: (max_src + (g.n - 1) * g.image_stride).max(g.zero_row),
            max_out: max_out + (g.n - 1) * BLOCK,
            taps: g.taps,
            order,
            offsets: OnceLock::new(),
            offsets_apart: OnceLock::new(),
        }
    }

    /// Where the rows lie, for kernels that take them in the plan's own order or apart.
    pub(super) fn offsets(&self, order: Order) -> &Offsets {
        if order == self.order {
            self.offsets.get_or_init(|| self.offsets_in(order))
        } else {
            assert!(order == Order::Apart, "rows in another order");
            self.offsets_apart.get_or_init(|| self.offsets_in(order))
        }
    }

    fn offsets_in(&self, order: Order) -> Offsets {
        let mut offsets = Offsets { starts: Vec::with_capacity(self.tiles.len()), rows: Vec::new() };
        let run = if order == Order::Apart { 1 } else { RUN };
        for tile in &self.tiles {
            let class = &self.classes[tile.class as usize];
            let taps = class.taps.len();
            // Pixel (of the class) and image of the first row of each run.
            let places =
                (tile.first as usize..(tile.first + tile.rows) as usize).step_by(run).map(
                    |row| match order {
                        Order::PixelRuns => (row / RUN / self.n * RUN, row / RUN % self.n),
                        _ => (row / self.n, row % self.n),
                    },
                );
            offsets.starts.push(u32::try_from(offsets.rows.len()).expect("activation too large"));
            let out = places.clone().map(|(pixel, image)| class.out[pixel] + (image * BLOCK) as u32);
            offsets.rows.extend(out);
            if self.has_own_residual() {
                let row = |pixel: usize| class.out[pixel] / self.out_n as u32 * self.n as u32;
                offsets.rows.extend(places.clone().map(|(p, image)| row(p) + (image * BLOCK) as u32));
            }
            for tap in 0..taps {
                offsets.rows.extend(places.clone().map(|(pixel, image)| {
                    match class.src[pixel * taps + tap] {
                        ZERO => self.zero_row,
                        src => src + (image * self.image_stride) as u32,
                    }
                }));
            }
        }
        // Kernels fetch the first rows of the next tile, which may be shorter.
        offsets.rows.extend([0; MAX_RUNS]);
        offsets
    }

    /// Whether a residual, which is of these images alone, has its rows elsewhere than the output.
    fn has_own_residual(&self) -> bool {
        self.out_n != self.n
    }

    /// Lists of offsets of a tile in [`Offsets`].
    fn lists(&self, class: &Class) -> usize {
        1 + usize::from(self.has_own_residual()) + class.taps.len()
    }

    /// Whether all rows need one and the same tap.
    pub(super) fn is_pointwise(&self) -> bool {
        self.taps == 1 && self.classes.len() == 1
    }

    /// Offsets of the output pixels.
    pub(super) fn out(&self) -> &[u32] {
        &self.classes[0].out
    }

    /// Checks a job's slices, the weights aside.
    ///
    /// # Panics
    /// If a slice is too small.
    pub fn check(&self, dims: &RowsDims, job: &RowsJob<'_>) {
        self.check_input(dims, job.x);
        assert!(self.max_out + BLOCK <= dims.c_plane, "output plane too small");
        let reach = (dims.panels - 1) * dims.c_plane + self.max_out + BLOCK;
        assert!(job.y.len() >= reach, "output too small");
        assert!(job.bias.is_none_or(|b| b.len() >= dims.panels * BLOCK), "bias too small");
        assert!(job.residual.is_none_or(|r| r.len() >= dims.panels * dims.r_plane), "residual too small");
    }

    pub(super) fn check_input(&self, dims: &RowsDims, x: &[f32]) {
        let reach = if dims.k_tail > 0 {
            dims.k_blocks * dims.a_block + dims.k_tail
        } else {
            (dims.k_blocks - 1) * dims.a_block + BLOCK
        };
        assert!(self.max_src + reach <= x.len(), "input too small");
    }

    /// Offsets of the rows that the first item of a tile reads, and of [`MAX_RUNS`] at least.
    pub(super) fn first_rows<'a>(&self, tile: usize, offsets: &'a Offsets) -> &'a [u32] {
        let (start, end) = offsets.of(tile);
        let class = &self.classes[self.tiles[tile].class as usize];
        let lists = self.lists(class);
        &offsets.rows[start + (end - start) / lists * (lists - class.taps.len())..]
    }

    /// Fills in the items of a tile, which read `x` and weights from `b` on, and tells their number and the offsets of its
    /// output rows and of its residual's.
    pub(super) fn locate<'a>(
        &self,
        tile: usize,
        dims: &RowsDims,
        offsets: &'a Offsets,
        (x, b): (*const f32, usize),
        items: &mut [Item],
    ) -> (usize, [&'a [u32]; 2]) {
        let class = &self.classes[self.tiles[tile].class as usize];
        let (start, end) = offsets.of(tile);
        let rows = &offsets.rows[start..end];
        let mut rows = rows.chunks_exact(rows.len() / self.lists(class));
        let mut next = || rows.next().expect("a tile has rows");
        let outputs = next();
        let residual = if self.has_own_residual() { next() } else { outputs };
        for ((item, &tap), rows) in items.iter_mut().zip(&class.taps).zip(rows) {
            *item = Item {
                a: x,
                a_block: dims.a_block,
                k_blocks: dims.k_blocks,
                k_tail: dims.k_tail,
                b: b + tap as usize * dims.k() * BLOCK,
                rows: rows.as_ptr(),
            };
        }
        (class.taps.len(), [outputs, residual])
    }
}
