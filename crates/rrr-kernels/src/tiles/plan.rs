//! Which input rows each output row needs, in tiles of 16.

use super::{ROW_BYTES, SIDE, image_slack, plane_rows};
use crate::conv::{Conv, Geometry};

/// What gathering a row of a tile costs, in cycles, beside the [`SIDE`] cycles of a product of tiles.
const GATHER_CYCLES: usize = 2 * SIDE;

/// One input of a convolution. Sizes are bytes.
#[derive(Clone, Copy)]
pub struct Part {
    geometry: Geometry,
    n: usize,
    /// Of a number.
    bytes: usize,
    /// From a row's block of channels to its next one.
    pub block: usize,
    /// Blocks of channels per row and tap.
    pub blocks: usize,
    /// How many of the 16 u32 of a row of the last block hold values.
    pub last_words: u32,
    /// A whole group's input.
    pub len: usize,
    /// The first `readable` bytes can be read at every block.
    readable: usize,
    zero_row: usize,
}

impl Part {
    /// An input of `conv`, made of numbers of some bytes.
    pub fn new(conv: Conv, size: (usize, usize), n: usize, bytes: usize) -> Self {
        let geometry = Geometry::new(conv, size);
        if conv.rgb {
            let len = (geometry.pixels(n) * 3 + image_slack(bytes)) * bytes;
            let last_words = (conv.kernel * 3 * bytes).div_ceil(size_of::<u32>()) as u32;
            return Self {
                geometry,
                n,
                bytes,
                block: 0,
                blocks: 1,
                last_words,
                len,
                readable: len,
                zero_row: 0,
            };
        }
        Self::planes(geometry, n, bytes)
    }

    /// The gradient of the output of `conv`.
    pub fn gradient(conv: Conv, size: (usize, usize), n: usize, bytes: usize) -> Self {
        Self::planes(Geometry::gradient(conv, size), n, bytes)
    }

    fn planes(geometry: Geometry, n: usize, bytes: usize) -> Self {
        let rows = geometry.pixels(n);
        let block = plane_rows(rows) * ROW_BYTES;
        let used = geometry.channels() * bytes;
        let blocks = used.div_ceil(ROW_BYTES);
        let last_words = (used - (blocks - 1) * ROW_BYTES).div_ceil(size_of::<u32>()) as u32;
        let (len, zero_row) = (blocks * block, rows * ROW_BYTES);
        Self { geometry, n, bytes, block, blocks, last_words, len, readable: block, zero_row }
    }

    /// Offset of the input row under a tap of an output pixel; `None`: padding.
    fn source(&self, at: (usize, usize), image: usize, tap: usize) -> Option<usize> {
        let pixel = self.geometry.source(at, tap)?;
        Some(if self.geometry.conv.rgb {
            (image * self.geometry.pixels(1) + pixel) * 3 * self.bytes
        } else {
            (pixel * self.n + image) * ROW_BYTES
        })
    }
}

/// A position of a part's kernel.
pub struct Tap {
    pub part: usize,
    /// The kernel's position.
    at: usize,
    /// Number of its first step.
    pub step: usize,
}

/// Up to 16 rows of the images' own output, `stride` rows apart.
#[derive(Clone, Copy)]
pub struct Tile {
    pub first: u32,
    pub stride: u32,
    pub rows: u32,
    /// The first row among those of all of the output's images.
    pub out: u32,
}

/// Where the rows of a tile lie under a tap, in bytes from the part's first block.
#[derive(Clone, Copy)]
pub enum Source {
    /// 16 rows that are equally far apart; some of the last may be none of the tile's.
    Rows { first: u32, stride: u32 },
    /// All rows are the one of zeros.
    Zeros { at: u32 },
    /// Number of a list of rows.
    Gather(u32),
}

/// How the rows of an output are made of the rows of one or two inputs.
pub struct RowsPlan {
    pub parts: Vec<Part>,
    pub taps: Vec<Tap>,
    pub tiles: Vec<Tile>,
    /// Rows from one row of a tile to the next, among those of all of the output's images.
    pub out_stride: usize,
    /// `[tile][tap]`.
    sources: Vec<Source>,
    pub gathered: Vec<[u32; SIDE]>,
    /// Steps of all taps.
    pub steps: usize,
}

impl RowsPlan {
    /// Plans an output of `out` pixels and `columns` tiles of 16 channels, with room for `all` images; every offset it makes
    /// lies within the parts' `len`, and every row within the output's.
    pub fn new(parts: Vec<Part>, out: (usize, usize), all: usize, columns: usize) -> Self {
        let n = parts[0].n;
        let (mut taps, mut steps) = (Vec::new(), 0);
        for (part, p) in parts.iter().enumerate() {
            for at in 0..p.geometry.conv.taps() {
                taps.push(Tap { part, at, step: steps });
                steps += p.blocks;
            }
        }
        let located = |(tiles, out_stride)| Self::located(&parts, &taps, out, tiles, out_stride);
        let lines = located(line_tiles(out, n, all));
        // An image's pixels lie in lines of it, not image by image.
        let flat = flat_tiles(out.0 * out.1, n, all).filter(|_| !parts[0].geometry.conv.rgb).map(located);
        let best = match flat {
            Some(flat) if flat.cost(columns) <= lines.cost(columns) => flat,
            _ => lines,
        };
        Self { steps, parts, taps, ..best }.sorted()
    }

    /// Number of images.
    pub fn n(&self) -> usize {
        self.parts[0].n
    }

    /// Finds the rows under all taps of `tiles`.
    fn located(
        parts: &[Part],
        taps: &[Tap],
        out: (usize, usize),
        tiles: Vec<Tile>,
        out_stride: usize,
    ) -> Self {
        let n = parts[0].n;
        let (mut sources, mut gathered) = (Vec::with_capacity(tiles.len() * taps.len()), Vec::new());
        for tile in &tiles {
            for tap in taps {
                let part = &parts[tap.part];
                let mut rows = [None; SIDE];
                for (i, row) in rows.iter_mut().enumerate().take(tile.rows as usize) {
                    let row_index = (tile.first + i as u32 * tile.stride) as usize;
                    let (pixel, image) = (row_index / n, row_index % n);
                    *row = part.source((pixel / out.1, pixel % out.1), image, tap.at);
                }
                sources.push(find(part, &rows[..tile.rows as usize], &mut gathered));
            }
        }
        Self { parts: Vec::new(), taps: Vec::new(), tiles, out_stride, sources, gathered, steps: 0 }
    }

    /// Estimated cycles of all tiles, for one block of channels.
    fn cost(&self, columns: usize) -> usize {
        let cost = |source: &Source| match source {
            Source::Rows { .. } => columns * SIDE,
            Source::Zeros { .. } => 0,
            Source::Gather(_) => columns * SIDE + GATHER_CYCLES,
        };
        self.sources.iter().map(cost).sum()
    }

    /// Puts tiles next to each other that reach over the same borders, so that pairs of them skip the same taps.
    fn sorted(self) -> Self {
        let count = self.taps.len();
        let zeros = |tile: usize| -> u32 {
            let zero = |s: &Source| u32::from(matches!(s, Source::Zeros { .. }));
            self.sources[tile * count..][..count].iter().fold(0, |mask, s| mask << 1 | zero(s))
        };
        let mut order: Vec<usize> = (0..self.tiles.len()).collect();
        order.sort_by_key(|&tile| zeros(tile));
        let tiles = order.iter().map(|&tile| self.tiles[tile]).collect();
        let sources = order.iter().flat_map(|&tile| self.sources[tile * count..][..count].iter().copied());
        let sources = sources.collect();
        Self { tiles, sources, ..self }
    }

    /// Whether every tile has rows under some tap.
    pub fn is_covered(&self) -> bool {
        let empty = |s: &Source| matches!(s, Source::Zeros { .. });
        self.sources.chunks_exact(self.taps.len()).all(|tile| !tile.iter().all(empty))
    }

    /// Blocks of tiles that are gathered.
    pub fn gathered_blocks(&self) -> usize {
        let of = |tile: &[Source]| -> usize {
            let gathered =
                tile.iter().zip(&self.taps).filter(|(source, _)| matches!(source, Source::Gather(_)));
            gathered.map(|(_, tap)| self.parts[tap.part].blocks).sum()
        };
        self.sources.chunks_exact(self.taps.len()).map(of).sum()
    }

    /// Where a tile's rows lie under each tap.
    pub fn sources(&self, tile: usize) -> &[Source] {
        &self.sources[tile * self.taps.len()..][..self.taps.len()]
    }
}

/// Rows in the order of the images' own output, if they are equally far apart among those of `all` images: and how far.
fn flat_tiles(pixels: usize, n: usize, all: usize) -> Option<(Vec<Tile>, usize)> {
    let out_stride = if n == 1 { all } else { 1 };
    let regular = n == all || n == 1 || n.is_multiple_of(SIDE);
    let rows = pixels * n;
    let tile = |first: usize| Tile {
        first: to_u32(first),
        stride: 1,
        rows: SIDE.min(rows - first) as u32,
        out: to_u32(first / n * all + first % n),
    };
    regular.then(|| ((0..rows).step_by(SIDE).map(tile).collect(), out_stride))
}

/// Pixels of a line of an image, and how far apart they are among those of `all` images.
fn line_tiles((height, width): (usize, usize), n: usize, all: usize) -> (Vec<Tile>, usize) {
    let tile = |y: usize, image: usize, x: usize| Tile {
        first: to_u32((y * width + x) * n + image),
        stride: to_u32(n),
        rows: SIDE.min(width - x) as u32,
        out: to_u32((y * width + x) * all + image),
    };
    let line = |y: usize, image: usize| (0..width).step_by(SIDE).map(move |x| tile(y, image, x));
    ((0..height).flat_map(|y| (0..n).flat_map(move |image| line(y, image))).collect(), all)
}

/// How a tile of these rows is loaded.
fn find(part: &Part, rows: &[Option<usize>], gathered: &mut Vec<[u32; SIDE]>) -> Source {
    if rows.iter().all(Option::is_none) {
        return Source::Zeros { at: to_u32(part.zero_row) };
    }
    let stride = match rows {
        [Some(first), Some(second), ..] => second.checked_sub(*first),
        [Some(_)] => Some(ROW_BYTES),
        _ => None,
    };
    if let (Some(first), Some(stride)) = (rows[0], stride) {
        let regular = rows.iter().enumerate().all(|(i, row)| *row == Some(first + i * stride));
        if regular && first + (SIDE - 1) * stride + ROW_BYTES <= part.readable {
            return Source::Rows { first: to_u32(first), stride: to_u32(stride) };
        }
    }
    let mut list = [to_u32(part.zero_row); SIDE];
    for (to, row) in list.iter_mut().zip(rows) {
        *to = to_u32(row.unwrap_or(part.zero_row));
    }
    gathered.push(list);
    Source::Gather(to_u32(gathered.len() - 1))
}

fn to_u32(v: usize) -> u32 {
    u32::try_from(v).expect("activation too large")
}
