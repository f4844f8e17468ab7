//! The operations on tiles that the loops of this module are made of.

use super::SIDE;

/// Tiles of rows that a product takes at most.
pub const STRIP: usize = 3;

/// Output channels of a product: two tiles.
pub const COLUMN: usize = 2 * SIDE;

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
}

impl Step {
    /// None.
    pub const EMPTY: Self = Self { a: [std::ptr::null(); STRIP], stride: [0; STRIP], b: 0 };
}

/// `c[m][n] = sum over steps of a[m][step] * b[step][n]` of whole tiles.
pub struct Product<'a> {
    /// At least one.
    pub steps: &'a [Step],
    /// Second operands, `[step][n]`.
    pub b: *const u8,
    /// Result, `[m][n]`, sums of 32 bits; aligned to whole tiles.
    pub c: *mut u32,
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
    /// Tiles `[m][n]` of sums.
    pub sums: *const u32,
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
    /// Computes a product of `M x N` tiles, `M` at most 3 and `N` at most 2, after (or while) it finishes the sums of the
    /// one before, which may lie where the new ones will.
    ///
    /// # Safety
    /// The CPU must support the instruction set; pointers must be valid for the tiles and rows that they stand for, of
    /// first operands as far as `M` goes.
    unsafe fn multiply_rows<const M: usize, const N: usize>(
        &self,
        product: &Product<'_>,
        before: Option<&Finish<O>>,
    );

    /// Finishes a product's sums.
    ///
    /// # Safety
    /// The CPU must support the instruction set; all rows must be valid.
    unsafe fn finish(finish: &Finish<O>);

    /// Fetches 16 rows of 64 bytes into the second-level cache, if there is a way to; they may be anywhere.
    #[inline(always)]
    fn prefetch(_first: *const u8, _stride: usize) {}
}
