//! Convolutions made of products of 16 x 16 tiles, on AMX, in vector registers or in software: what is the
//! same for numbers of bf16 and bytes.
//!
//! # Layout
//! Activations lie in blocks of as many channels as fill 64 bytes, `[group][block][row][64 bytes]` with
//! `row = pixel * n + image` and a row of zeros after each block's rows. A row of a tile is 64 bytes too: wherever 16
//! output rows read input rows that are equally far apart, a tile is loaded right from the activation. Only tiles that
//! reach over a border are gathered first.
//!
//! A product adds to 16 x 16 sums of 32 bits those of 16 such rows (the first operand) with a tile of weights (the second),
//! which holds in row p and lane j what the p-th 4 bytes of a row meet for output j. Weights of a product, two tiles for
//! 32 outputs, lie in the order of its steps: `[outputs / 32][input][tap][block][2][16][16][4 bytes]`, without the second
//! tile where the last outputs are 16 or less.

#[cfg(target_arch = "x86_64")]
pub mod amx;
mod job;
mod plan;
mod product;
mod run;

pub use job::{Job, Task, TilePlan};
pub use plan::Part;
pub use product::{Finish, Outcome, Product, Registers, RowTiles, SUMS};
#[cfg(target_arch = "x86_64")]
pub use product::{STRIP, Step};
pub use run::work;

/// Rows of a tile, and its u32 (or f32, or i32) per row.
pub const SIDE: usize = 16;

/// u32 (or f32, or i32) of a tile.
pub const TILE: usize = SIDE * SIDE;

/// Bytes of a row of a block, and of a tile's row.
pub const ROW_BYTES: usize = SIDE * size_of::<u32>();

/// Bytes of a tile.
pub const TILE_BYTES: usize = SIDE * ROW_BYTES;

/// Numbers of some bytes behind padded images `[n][height + 6][width + 6][3]` that the convolution of images may read:
/// those of the 16 rows of a tile, 2 pixels apart, and of a whole tile's row.
pub const fn image_slack(bytes: usize) -> usize {
    SIDE * 2 * 3 + ROW_BYTES / bytes
}

/// Rows of a plane: those of the pixels, the row of zeros, and so many more that the same rows of neighbouring
/// planes fall into different halves of the first-level cache's 64 sets.
pub fn plane_rows(rows: usize) -> usize {
    const SETS: usize = 64;
    let least = rows + 1;
    if least < 4 * SETS { least | 1 } else { least + (SETS + SETS / 2 + 1 - least % SETS) % SETS }
}
