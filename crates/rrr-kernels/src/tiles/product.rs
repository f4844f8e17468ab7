//! The operations on tiles that the loops of this module are made of.

use super::{SIDE, TILE};

/// Tiles of rows that a product takes at most.
pub const STRIP: usize = 2;

/// Output channels of a product: two tiles.
pub const COLUMN: usize = 2 * SIDE;

/// Sums of a product: of every tile of rows, two tiles.
pub const SUMS: usize = STRIP * 2 * TILE;

/// One step of a [`Product`]: 64 bytes of every row.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Step {
    /// First operands, a tile of 16 rows of 64 bytes for each m.
    pub a: [*const u8; STRIP],
    /// Bytes from one row of such a tile to the next.
    pub stride: [u32; STRIP],
    /// Number of the second operands' tiles.
    pub b: u32,
    /// How many of the 16 u32 of a row hold values, in the first operands and so in the second: the rest add nothing.
    pub words: u32,
}

impl Step {
    /// None.
    pub const EMPTY: Self = Self { a: [std::ptr::null(); STRIP], stride: [0; STRIP], b: 0, words: 0 };
}

/// `sums[m][n] = sum over steps of a[m][step] * b[step][n]` of whole tiles.
pub struct Product<'a> {
    /// At least one.
    pub steps: &'a [Step],
    /// Second operands, `[step][n]`.
    pub b: *const u8,
    /// Room for [`SUMS`] of 32 bits, the same for a product and the one before; aligned to whole tiles.
    pub sums: *mut u32,
}

/// What becomes of sums: how they are turned into numbers again.
pub trait Outcome: Copy + Sync {
    /// Values that it has for every group, of the channels of `panels` blocks of 16.
    fn values(panels: usize) -> usize;

    /// The one of the channels from the `first` value on.
    fn from(self, first: usize) -> Self;
}

/// What becomes of a product's sums.
#[derive(Clone, Copy)]
pub struct Finish<O> {
    /// Where the sums are, or belong when they are in registers still: tiles `[m][2]`.
    pub sums: *mut u32,
    pub m: usize,
    pub n: usize,
    /// That of these channels.
    pub outcome: O,
    /// First row of every tile's output.
    pub y: [*mut u8; STRIP],
    /// First row of every tile's residual, or null.
    pub residual: [*const u8; STRIP],
    /// Rows of every tile.
    pub rows: [usize; STRIP],
    /// Bytes from one row of the output to the next.
    pub stride: usize,
    /// Bytes from one row of the residual to the next.
    pub residual_stride: usize,
}

/// The tile registers of this thread, if there are any.
pub trait Registers {
    /// Takes them.
    ///
    /// # Safety
    /// The CPU must support the instruction set.
    unsafe fn new() -> Self;
}

/// Products of tiles whose rows lie where activations do, with sums that become an `O`.
///
/// All functions are `inline(always)`, as in [`Simd`](crate::simd::Simd).
pub trait RowTiles<O>: Registers {
    /// Computes a product of `M x N` tiles, both 1 or 2. Its own sums may be finished at once, or stay in registers or memory
    /// until the next call, which stores and finishes them as `before`, or until [`settle`](RowTiles::settle).
    ///
    /// # Safety
    /// The CPU must support the instruction set; pointers must be valid for the tiles and rows that they stand for, of
    /// first operands as far as `M` goes; `own` must be what becomes of this product, and `before` what becomes of that of
    /// the last call, if it was not settled, with the same room for sums.
    unsafe fn multiply_rows<const M: usize, const N: usize>(
        &self,
        product: &Product<'_>,
        own: &Finish<O>,
        before: Option<&Finish<O>>,
    );

    /// Finishes the sums of the last product, if they are not.
    ///
    /// # Safety
    /// As for [`multiply_rows`](RowTiles::multiply_rows).
    unsafe fn settle(&self, last: &Finish<O>);
}
