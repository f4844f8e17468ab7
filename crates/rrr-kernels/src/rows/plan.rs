//! Which input rows each output row needs, tiled for a kernel: of numbers of f32 and of bytes.

use crate::conv::{Geometry, rows};
use crate::micro::{BLOCK, Item, MAX_RUNS, Order, RUN};

/// Stands for the row of zeros.
const ZERO: u32 = u32::MAX;

/// Below this many images, rows on padding read zeros instead of being computed apart: the pixels of a few
/// images would make tiles too small to be worth it.
const MIN_BATCH_TO_SKIP_PADDING: usize = 4;

/// How many numbers a kernel reads of a row.
#[derive(Clone, Copy)]
pub(crate) struct Depth {
    /// Blocks of 16.
    pub blocks: usize,
    /// What is left: numbers, or steps of a few.
    pub tail: usize,
    /// All of them.
    pub numbers: usize,
}

/// One input of a sum. Lengths and offsets are numbers, f32 or bytes.
#[derive(Clone, Copy)]
pub(crate) struct Part {
    geometry: Geometry,
    n: usize,
    depth: Depth,
    /// From a pixel, and from an image, to the next.
    pixel: usize,
    pub image: usize,
    /// From a row's block of channels to its next one.
    block: usize,
    zero_row: usize,
    /// The whole input, of one group.
    pub len: usize,
}

impl Part {
    /// `n` images of `geometry`, in planes of `plane`; of padded RGB images, `slack` behind them can be read.
    pub fn new(geometry: Geometry, n: usize, depth: Depth, plane: usize, slack: usize) -> Self {
        if geometry.conv.rgb {
            let (pixel, image) = (3, 3 * geometry.pixels(1));
            return Self {
                geometry,
                n,
                depth,
                pixel,
                image,
                block: BLOCK,
                zero_row: 0,
                len: 3 * geometry.pixels(n) + slack,
            };
        }
        let len = crate::blocks(geometry.channels()) * plane;
        let zero_row = geometry.pixels(n) * BLOCK;
        Self { geometry, n, depth, pixel: n * BLOCK, image: BLOCK, block: plane, zero_row, len }
    }

    /// Offset of the row of the first image under a tap of an output pixel; `None`: padding.
    pub fn source(&self, at: (usize, usize), tap: usize) -> Option<usize> {
        Some(self.geometry.source(at, tap)? * self.pixel)
    }

    /// Positions of its kernel.
    fn taps(&self) -> usize {
        self.geometry.conv.taps()
    }

    /// Weights that meet a row in a block of output channels.
    fn weights(&self) -> usize {
        self.depth.numbers * BLOCK
    }

    /// From the first number of a row to behind the last.
    fn reach(&self) -> usize {
        if self.geometry.conv.rgb { self.depth.numbers } else { self.len - self.block + BLOCK }
    }
}

/// The output of a sum.
#[derive(Clone, Copy)]
pub(crate) struct Output {
    /// Height and width.
    pub size: (usize, usize),
    /// Images that there is room for.
    pub all: usize,
    /// Blocks of 16 channels.
    pub panels: usize,
    /// From one to the next: here, and in a residual, which has the plan's images alone.
    pub plane: usize,
    pub residual_plane: usize,
}

/// What the kernels take at most.
#[derive(Clone, Copy)]
pub(crate) struct Limits {
    /// Rows that lie anywhere.
    pub rows: usize,
    /// Rows in runs; 0: there are no kernels for runs.
    pub in_runs: usize,
    /// Whether the last run of a tile may be shorter.
    pub short_runs: bool,
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

impl Class {
    /// Whether all rows of `n` images follow one another, in the inputs and in an output of `all`.
    fn is_sequence(&self, n: usize, all: usize) -> bool {
        let follows = |now: u32, next: u32, step: usize| now as usize + step == next as usize;
        let next = self.src.iter().skip(self.taps.len());
        self.src.iter().zip(next).all(|(now, next)| follows(*now, *next, n * BLOCK))
            && self.out.windows(2).all(|pair| n == all && follows(pair[0], pair[1], 1))
    }
}

/// Some rows of the output that need the same taps.
pub(crate) struct Tile {
    pub rows: u32,
    /// Which taps they need: a number that differs from that of tiles that need others.
    pub class: u32,
    /// Where its offsets begin among the inputs' and the output's.
    sources: u32,
    outputs: u32,
}

/// How the rows of an output are made of the rows of one or two inputs.
pub(crate) struct RowsPlan {
    pub parts: Vec<Part>,
    pub output: Output,
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
    /// How the rows of tiles lie in the inputs.
    pub order: Order,
    /// Numbers of an output plane up to the last row.
    pub reach: usize,
    /// From a row of a run to the next in the output.
    pub y_step: usize,
    /// Weights of a block of output channels.
    pub panel: usize,
}

impl RowsPlan {
    /// Plans an output; every offset that it makes lies within the parts' `len` and the output's planes.
    pub fn new(parts: Vec<Part>, output: Output, limits: Limits) -> Self {
        let (n, Output { size, all, .. }) = (parts[0].n, output);
        let (mut taps, mut panel) = (Vec::new(), 0);
        for (part, p) in parts.iter().enumerate() {
            for tap in 0..p.taps() {
                taps.push((tap, Tap { part, w: panel }));
                panel += p.weights();
            }
        }
        // Most taps of a gradient fall between the pixels of a convolution with strides.
        let skips = n >= MIN_BATCH_TO_SKIP_PADDING || parts[0].geometry.is_gradient();
        let mut classes: Vec<Class> = Vec::new();
        for pixel in 0..size.0 * size.1 {
            let at = (pixel / size.1, pixel % size.1);
            let offset = |(tap, Tap { part, .. }): &(usize, Tap)| parts[*part].source(at, *tap);
            let offsets: Vec<Option<usize>> = taps.iter().map(offset).collect();
            let needed = |t: &u32| !skips || offsets[*t as usize].is_some();
            let needed: Vec<u32> = (0..taps.len() as u32).filter(needed).collect();
            let class = classes.iter().position(|c| c.taps == needed).unwrap_or_else(|| {
                classes.push(Class { taps: needed.clone(), out: Vec::new(), src: Vec::new() });
                classes.len() - 1
            });
            let class = &mut classes[class];
            class.out.push(to_u32(pixel));
            class.src.extend(needed.iter().map(|&t| offsets[t as usize].map_or(ZERO, to_u32)));
        }
        let taps = taps.into_iter().map(|(_, t)| t).collect();
        let reach = (rows(size, all) - (all - n)) * BLOCK;
        assert!(reach <= output.plane, "rows beyond the output's plane");
        let (order, unit) = order(&parts, &classes, &output, limits);
        let mut plan = Self {
            parts,
            output,
            taps,
            classes: Vec::new(),
            tiles: Vec::new(),
            sources: Vec::new(),
            outputs: Vec::new(),
            residuals: Vec::new(),
            order,
            reach,
            y_step: if order == Order::PixelRuns { all * BLOCK } else { BLOCK },
            panel,
        };
        let most = if order == Order::Apart { limits.rows } else { limits.in_runs };
        for class in classes {
            plan.tile(&class, unit, most / unit);
            plan.classes.push(class.taps);
        }
        // Kernels look ahead to the first rows of the next tile.
        plan.sources.extend([0; MAX_RUNS]);
        plan
    }

    /// Adds the tiles of a class, of at most some units of rows, which must not be cut.
    fn tile(&mut self, class: &Class, unit: usize, most: usize) {
        let (n, all, order) = (self.n(), self.output.all, self.order);
        let run = if order == Order::Apart { 1 } else { RUN };
        let units = class.out.len() * n / unit;
        // Tiles of nearly equal size: a small remainder would waste the registers of a whole tile.
        let count = units.div_ceil(most);
        for i in 0..count {
            let (first, end) = (units * i / count * unit, units * (i + 1) / count * unit);
            self.tiles.push(Tile {
                rows: to_u32(end - first),
                class: to_u32(self.classes.len()),
                sources: to_u32(self.sources.len()),
                outputs: to_u32(self.outputs.len()),
            });
            // Pixel (of the class) and image of the rows, or of the first ones of runs.
            let places = (first..end).step_by(run).map(|row| match order {
                Order::PixelRuns => (row / RUN / n * RUN, row / RUN % n),
                _ => (row / n, row % n),
            });
            let rows = |n: usize| {
                let row = move |(pixel, image)| to_u32((class.out[pixel] as usize * n + image) * BLOCK);
                places.clone().map(row)
            };
            self.outputs.extend(rows(all));
            if all > n {
                self.residuals.extend(rows(n));
            }
            for (tap, &of) in class.taps.iter().enumerate() {
                let part = &self.parts[self.taps[of as usize].part];
                self.sources.extend(places.clone().map(|(pixel, image)| {
                    let offset = match class.src[pixel * class.taps.len() + tap] {
                        ZERO => part.zero_row,
                        src => src as usize + image * part.image,
                    };
                    assert!(offset + part.reach() <= part.len, "a row beyond the input");
                    to_u32(offset)
                }));
            }
        }
    }

    /// Number of images.
    pub fn n(&self) -> usize {
        self.parts[0].n
    }

    /// Most items of a tile.
    pub fn max_items(&self) -> usize {
        self.taps.len()
    }

    /// Blocks of input channels that a kernel passes at most.
    pub fn blocks(&self) -> usize {
        self.parts.iter().map(|part| part.taps() * part.depth.blocks).sum()
    }

    /// About as many numbers as a row of the output reads that no other does: neighbours share most of what lies under
    /// their taps.
    pub fn numbers_per_row(&self) -> usize {
        self.parts.iter().map(|part| part.taps().min(4) * part.depth.numbers).sum()
    }

    /// Fills in the items of a class's tiles, which read `x` (one pointer per part); returns their number.
    pub fn fill<T>(&self, class: u32, x: &[*const T], items: &mut [Item<T>]) -> usize {
        let taps = &self.classes[class as usize];
        for (item, &tap) in items.iter_mut().zip(taps) {
            let tap = &self.taps[tap as usize];
            let Part { block, depth: Depth { blocks, tail, .. }, .. } = self.parts[tap.part];
            *item = Item { x: x[tap.part], x_block: block, blocks, tail, w: tap.w };
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

/// How the rows of tiles lie in the inputs, and how many of them must not be cut.
fn order(parts: &[Part], classes: &[Class], output: &Output, limits: Limits) -> (Order, usize) {
    let n = parts[0].n;
    if limits.in_runs == 0 {
        (Order::Apart, 1)
    } else if parts[0].geometry.conv.rgb {
        if output.size.1.is_multiple_of(RUN) { (Order::PixelRuns, RUN) } else { (Order::Apart, 1) }
    } else if classes.iter().any(|class| class.src.contains(&ZERO)) {
        (Order::Apart, 1)
    } else if n.is_multiple_of(RUN) {
        (Order::Runs, RUN)
    } else if limits.short_runs && classes.iter().all(|class| class.is_sequence(n, output.all)) {
        (Order::Runs, 1)
    } else {
        (Order::Apart, 1)
    }
}

fn to_u32(v: usize) -> u32 {
    u32::try_from(v).expect("activation too large")
}
