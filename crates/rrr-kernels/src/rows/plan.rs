//! Which input rows each output row needs, in tiles.

use super::{RowsDims, RowsJob};
use crate::micro::{BLOCK, Item, MAX_ROWS, Order, PIXEL_STEP, RUN};

/// Stands for the row of zeros.
pub(crate) const ZERO: u32 = u32::MAX;

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
    pub(super) order: Order,
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
        assert!(job.y.len() >= dims.panels * dims.c_plane, "output too small");
        assert!(job.bias.is_none_or(|b| b.len() >= dims.panels * BLOCK), "bias too small");
        assert!(job.residual.is_none_or(|r| r.len() >= dims.panels * dims.c_plane), "residual too small");
    }

    pub(super) fn check_input(&self, dims: &RowsDims, x: &[f32]) {
        let reach = if dims.k_tail > 0 {
            dims.k_blocks * dims.a_block + dims.k_tail
        } else {
            (dims.k_blocks - 1) * dims.a_block + BLOCK
        };
        assert!(self.max_src + reach <= x.len(), "input too small");
    }

    /// Fills in a tile's items, which read `x` and weights from `b` on, and its output offsets; returns the number of
    /// items. Of each run in that `order` it finds the first row.
    pub(super) fn locate(
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
