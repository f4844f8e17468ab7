//! Which input rows each output row needs, tiled for a kernel.

use super::micro::{Item, MAX_ROWS, Micro, Order, RUN};
use crate::BLOCK;
use crate::conv::Conv;

/// Stands for the row of zeros.
const ZERO: u32 = u32::MAX;

/// Below this many images, rows on padding read zeros instead of being computed apart: the pixels of a few
/// images would make tiles too small to be worth it.
const MIN_BATCH_TO_SKIP_PADDING: usize = 4;

/// One input of a convolution: sizes and strides in bytes.
#[derive(Clone, Copy)]
pub(super) struct Part {
    conv: Conv,
    size: (usize, usize),
    n: usize,
    /// From one pixel of an image to the same one of the next image.
    image_stride: usize,
    /// From a row's block of 16 channels to its next one.
    pub block: usize,
    /// Blocks of 16 channels per row and tap, and further steps of 4 channels.
    pub blocks: usize,
    pub tail: usize,
    /// A whole group's input.
    pub len: usize,
    zero_row: usize,
}

impl Part {
    pub fn new(conv: Conv, (height, width): (usize, usize), n: usize) -> Self {
        let steps = super::layout::steps(&conv);
        let (blocks, tail) = (steps / super::STEPS, steps % super::STEPS);
        let size = (height, width);
        if conv.rgb {
            let image = (height + 2 * (conv.kernel / 2)) * (width + 2 * (conv.kernel / 2)) * 3;
            let len = n * image + BLOCK;
            return Self { conv, size, n, image_stride: image, block: BLOCK, blocks, tail, len, zero_row: 0 };
        }
        let plane = super::plane_len(height * width * n);
        let len = crate::blocks(conv.cin) * plane;
        let zero_row = height * width * n * BLOCK;
        Self { conv, size, n, image_stride: BLOCK, block: plane, blocks, tail, len, zero_row }
    }

    /// Offset of the input pixel (first image) under a tap of an output pixel; `None`: padding.
    fn source(&self, out_width: usize, pixel: usize, tap: usize) -> Option<usize> {
        let Conv { kernel, stride, rgb, .. } = self.conv;
        let (oy, ox) = (pixel / out_width, pixel % out_width);
        let ((height, width), pad) = (self.size, kernel / 2);
        if rgb {
            return Some(((oy * stride + tap) * (width + 2 * pad) + ox * stride) * 3);
        }
        let y = (oy * stride + tap / kernel).checked_sub(pad)?;
        let x = (ox * stride + tap % kernel).checked_sub(pad)?;
        (y < height && x < width).then_some((y * width + x) * self.n * BLOCK)
    }
}

/// A position of a part's kernel.
struct Tap {
    part: usize,
    /// Offset of its weights in a panel.
    w: usize,
}

/// The output pixels that need the same taps.
struct Class {
    taps: Vec<u32>,
    /// Offset of each output pixel's first image.
    out: Vec<u32>,
    /// `[pixel][tap]`: offset of the input pixel's first image, or `ZERO`.
    src: Vec<u32>,
}

pub(super) struct Tile {
    class: u32,
    /// Pixel (of the class) and image of the first row.
    pixel: u32,
    image: u32,
    pub rows: u32,
}

/// How the rows of an output are made of the rows of one or two inputs.
pub(super) struct RowsPlan {
    n: usize,
    pub parts: Vec<Part>,
    taps: Vec<Tap>,
    classes: Vec<Class>,
    pub tiles: Vec<Tile>,
    /// Bytes of a panel's weights.
    pub panel: usize,
    /// How the rows of tiles lie in the inputs.
    pub order: Order,
}

impl RowsPlan {
    /// Plans an output of `out` pixels; every offset it makes lies within the parts' `len` and the output's plane.
    pub fn new(parts: Vec<Part>, out: (usize, usize), micro: &Micro) -> Self {
        let n = parts[0].n;
        let to_u32 = |v: usize| u32::try_from(v).expect("activation too large");
        let mut taps = Vec::new();
        let mut panel = 0;
        for (part, p) in parts.iter().enumerate() {
            for tap in 0..p.conv.taps() {
                taps.push((tap, Tap { part, w: panel }));
                panel += super::layout::steps(&p.conv) * super::STEP * BLOCK;
            }
        }
        let mut classes: Vec<Class> = Vec::new();
        for pixel in 0..out.0 * out.1 {
            let all: Vec<Option<usize>> =
                taps.iter().map(|(tap, t)| parts[t.part].source(out.1, pixel, *tap)).collect();
            let needed = |t: &u32| n < MIN_BATCH_TO_SKIP_PADDING || all[*t as usize].is_some();
            let needed: Vec<u32> = (0..taps.len() as u32).filter(needed).collect();
            let class = classes.iter().position(|c| c.taps == needed).unwrap_or_else(|| {
                classes.push(Class { taps: needed.clone(), out: Vec::new(), src: Vec::new() });
                classes.len() - 1
            });
            let class = &mut classes[class];
            class.out.push(to_u32(pixel * n * BLOCK));
            class.src.extend(needed.iter().map(|&t| all[t as usize].map_or(ZERO, to_u32)));
        }
        let rgb = parts[0].conv.rgb;
        let order = if micro.max_runs() == 0 {
            Order::Apart
        } else if rgb && out.1.is_multiple_of(RUN) {
            Order::PixelRuns
        } else if !rgb && n.is_multiple_of(RUN) && n >= MIN_BATCH_TO_SKIP_PADDING {
            // No row is on padding.
            Order::Runs
        } else {
            Order::Apart
        };
        let (unit, most) =
            if order == Order::Apart { (1, micro.max_rows()) } else { (RUN, micro.max_runs()) };
        let mut tiles = Vec::new();
        for (index, class) in classes.iter().enumerate() {
            let units = class.out.len() * n / unit;
            // Tiles of nearly equal size: a small remainder would waste the registers of a whole tile.
            let count = units.div_ceil(most);
            for i in 0..count {
                let (first, end) = (units * i / count * unit, units * (i + 1) / count * unit);
                let (pixel, image) = match order {
                    Order::PixelRuns => (first / RUN / n * RUN, first / RUN % n),
                    _ => (first / n, first % n),
                };
                tiles.push(Tile {
                    class: index as u32,
                    pixel: to_u32(pixel),
                    image: to_u32(image),
                    rows: (end - first) as u32,
                });
            }
        }
        for part in &parts {
            to_u32(part.len);
        }
        Self { n, parts, taps: taps.into_iter().map(|(_, t)| t).collect(), classes, tiles, panel, order }
    }

    /// Most items of a tile.
    pub fn max_items(&self) -> usize {
        self.taps.len()
    }

    /// Fills in a tile's items, reading `x` (one pointer per part), and its output offsets; returns the number
    /// of items.
    pub fn locate(
        &self,
        tile: &Tile,
        x: &[*const u8],
        items: &mut [Item],
        y_rows: &mut [u32; MAX_ROWS],
    ) -> usize {
        let class = &self.classes[tile.class as usize];
        let count = class.taps.len();
        // Rows of a run; pixels and images from one of its rows to the next.
        let (run, pixels, images) = match self.order {
            Order::Apart => (1, 0, 0),
            Order::Runs => (RUN, 0, 1),
            Order::PixelRuns => (RUN, 1, 0),
        };
        let rows = tile.rows as usize;
        // Place of each run's row among the sources, and image.
        let mut places = [(0, 0); MAX_ROWS];
        let (mut pixel, mut image) = (tile.pixel as usize, tile.image as usize);
        for (place, y_rows) in places.iter_mut().zip(y_rows[..rows].chunks_mut(run)) {
            *place = (pixel * count, image as u32);
            for (i, row) in y_rows.iter_mut().enumerate() {
                *row = class.out[pixel + i * pixels] + ((image + i * images) * BLOCK) as u32;
            }
            image += (run * images).max(1);
            if image == self.n {
                (pixel, image) = (pixel + (run * pixels).max(1), 0);
            }
        }
        let places = &places[..rows / run];
        for (i, (item, &tap)) in items.iter_mut().zip(&class.taps).enumerate() {
            let tap = &self.taps[tap as usize];
            let part = &self.parts[tap.part];
            (item.x, item.x_block, item.w) = (x[tap.part], part.block, tap.w);
            (item.blocks, item.tail) = (part.blocks, part.tail);
            let (zero, stride) = (part.zero_row as u32, part.image_stride as u32);
            for (row, &(place, image)) in item.rows.iter_mut().step_by(run).zip(places) {
                let src = class.src[place + i];
                *row = if src == ZERO { zero } else { src + image * stride };
            }
        }
        count
    }
}
