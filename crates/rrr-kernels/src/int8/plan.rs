//! Which input rows each output row needs, tiled for a kernel.

use super::micro::{Item, MAX_RUNS, Micro, Order, RUN};
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
    /// Output pixels.
    out: Vec<u32>,
    /// `[pixel][tap]`: offset of the input pixel's first image, or `ZERO`.
    src: Vec<u32>,
}

/// Some rows of the output that need the same taps.
pub(super) struct Tile {
    pub rows: u32,
    /// Which taps they need: a number that differs from that of tiles that need others.
    pub class: u32,
    /// Where its offsets begin among the inputs' and the output's.
    sources: u32,
    outputs: u32,
}

/// How the rows of an output are made of the rows of one or two inputs.
pub(super) struct RowsPlan {
    pub parts: Vec<Part>,
    taps: Vec<Tap>,
    /// Taps of each class.
    classes: Vec<Vec<u32>>,
    pub tiles: Vec<Tile>,
    /// `[tile][tap][unit]`: offset of each input row, or of the first one of each run.
    sources: Vec<u32>,
    /// `[tile][unit]`: offset of each output row, or of the first one of each run.
    outputs: Vec<u32>,
    /// As `outputs`, of a residual that has fewer images than the output; else empty.
    residuals: Vec<u32>,
    /// Bytes of an output plane up to the last row.
    pub reach: usize,
    /// Bytes from a row of a run to the next in the output.
    pub y_step: usize,
    /// Bytes of a panel's weights.
    pub panel: usize,
    /// How the rows of tiles lie in the inputs.
    pub order: Order,
}

impl RowsPlan {
    /// Plans an output of `out` pixels, which has room for `all` images; every offset it makes lies within the parts' `len`
    /// and the output's `reach`.
    pub fn new(parts: Vec<Part>, out: (usize, usize), all: usize, micro: &Micro) -> Self {
        let n = parts[0].n;
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
            class.out.push(to_u32(pixel));
            class.src.extend(needed.iter().map(|&t| all[t as usize].map_or(ZERO, to_u32)));
        }
        for part in &parts {
            to_u32(part.len);
        }
        let order = order(&parts[0], out, micro);
        let mut plan = Self {
            parts,
            taps: taps.into_iter().map(|(_, t)| t).collect(),
            classes: Vec::new(),
            tiles: Vec::new(),
            sources: Vec::new(),
            outputs: Vec::new(),
            residuals: Vec::new(),
            reach: ((out.0 * out.1 - 1) * all + n) * BLOCK,
            y_step: if order == Order::PixelRuns { all * BLOCK } else { BLOCK },
            panel,
            order,
        };
        for class in classes {
            plan.tile(&class, (n, all), micro);
            plan.classes.push(class.taps);
        }
        // Kernels look ahead to the first rows of the next tile.
        plan.sources.extend([0; MAX_RUNS]);
        plan
    }

    /// Adds the tiles of a class.
    fn tile(&mut self, class: &Class, (n, all): (usize, usize), micro: &Micro) {
        let (unit, most) =
            if self.order == Order::Apart { (1, micro.max_rows()) } else { (RUN, micro.max_runs()) };
        let units = class.out.len() * n / unit;
        // Tiles of nearly equal size: a small remainder would waste the registers of a whole tile.
        let count = units.div_ceil(most);
        for i in 0..count {
            let range = units * i / count..units * (i + 1) / count;
            self.tiles.push(Tile {
                rows: to_u32(range.len() * unit),
                class: to_u32(self.classes.len()),
                sources: to_u32(self.sources.len()),
                outputs: to_u32(self.outputs.len()),
            });
            // Pixel (of the class) and image of a unit's first row.
            let place = |at: usize| match self.order {
                Order::Apart => (at / n, at % n),
                Order::Runs => (at * RUN / n, at * RUN % n),
                Order::PixelRuns => (at / n * RUN, at % n),
            };
            let rows = |n: usize| {
                let row = move |(pixel, image)| (class.out[pixel] as usize * n + image) * BLOCK;
                range.clone().map(place).map(row).map(to_u32)
            };
            self.outputs.extend(rows(all));
            if all > n {
                self.residuals.extend(rows(n));
            }
            for (tap, &of) in class.taps.iter().enumerate() {
                let part = &self.parts[self.taps[of as usize].part];
                for (pixel, image) in range.clone().map(place) {
                    let offset = match class.src[pixel * class.taps.len() + tap] {
                        ZERO => part.zero_row,
                        src => src as usize + image * part.image_stride,
                    };
                    self.sources.push(to_u32(offset));
                }
            }
        }
    }

    /// Most items of a tile.
    pub fn max_items(&self) -> usize {
        self.taps.len()
    }

    /// Fills in the items of a class's tiles, which read `x` (one pointer per part); returns their number.
    pub fn fill(&self, class: u32, x: &[*const u8], items: &mut [Item]) -> usize {
        let taps = &self.classes[class as usize];
        for (item, &tap) in items.iter_mut().zip(taps) {
            let tap = &self.taps[tap as usize];
            let part = &self.parts[tap.part];
            *item =
                Item { x: x[tap.part], x_block: part.block, blocks: part.blocks, tail: part.tail, w: tap.w };
        }
        taps.len()
    }

    /// Offsets of a tile's rows, or of the first ones of its runs, in the inputs, the output and the residual: from these
    /// on.
    pub fn offsets(&self, tile: &Tile) -> [&[u32]; 3] {
        let outputs = tile.outputs as usize;
        let residuals = if self.residuals.is_empty() { &self.outputs } else { &self.residuals };
        [&self.sources[tile.sources as usize..], &self.outputs[outputs..], &residuals[outputs..]]
    }
}

fn to_u32(v: usize) -> u32 {
    u32::try_from(v).expect("activation too large")
}

/// How rows of tiles lie in inputs of which `part` is the first.
fn order(part: &Part, out: (usize, usize), micro: &Micro) -> Order {
    let (rgb, n) = (part.conv.rgb, part.n);
    if micro.max_runs() == 0 {
        Order::Apart
    } else if rgb && out.1.is_multiple_of(RUN) {
        Order::PixelRuns
    } else if !rgb && n.is_multiple_of(RUN) && n >= MIN_BATCH_TO_SKIP_PADDING {
        // No row is on padding.
        Order::Runs
    } else {
        Order::Apart
    }
}
