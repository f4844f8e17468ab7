//! Tile operations: what the loops of this module are made of, and a software implementation of them.
//!
//! A tile is 16 rows of 64 bytes. The first operand of a product holds 32 values of k per row; the second
//! holds, in row p and lane j, the values of k = 2p and 2p + 1 for output j: pairs of bf16 in a u32, the even
//! one in the lower half.

#![allow(clippy::needless_range_loop, reason = "register tiles are indexed by row and vector")]

use crate::simd::Simd;
use crate::tiles::{Registers, SIDE, TILE};
use std::marker::PhantomData;

/// Values of k in one product of two tiles.
pub const STEP: usize = 2 * SIDE;

/// A batch-reduce product of tiles: `c[m][n] = sum over steps of a[m][step] * b[n][step]`, `M x N` tiles.
pub struct Product<'a, const N: usize> {
    /// First operand, tiles in the order of the steps.
    pub a: *const u32,
    /// u32 from the tiles of one m to those of the next.
    pub a_stride: usize,
    /// Second operands.
    pub b: [*const u32; N],
    /// Offset of each step's tile in a second operand, in u32.
    pub steps: &'a [u32],
    /// Result, `N` tiles in a row for each m.
    pub c: *mut f32,
    /// Floats from one m of the result to the next.
    pub c_stride: usize,
    /// Add to what the result holds already.
    pub accumulate: bool,
}

/// Rows of f32 and bf16 in vectors.
///
/// All functions are `inline(always)`, as in [`Simd`].
pub trait Vectors {
    /// A row of a first operand: 16 values of `low`, then 16 of `high`, rounded.
    ///
    /// # Safety
    /// The CPU must support the instruction set (as for every function of the trait), and the pointers must be valid for reading 16 floats and writing 16 u32.
    unsafe fn round(low: *const f32, high: *const f32, to: *mut u32);

    /// A row of a second operand: 16 pairs of values of `even` and `odd`, rounded.
    ///
    /// # Safety
    /// As for [`Vectors::round`].
    unsafe fn pair(even: *const f32, odd: *const f32, to: *mut u32);

    /// Pairs of two rows of 32 values of bf16: the first 16 pairs and the last.
    ///
    /// # Safety
    /// The pointers must be valid for reading 32 values and writing 16 pairs.
    unsafe fn interleave(even: *const u16, odd: *const u16, to: [*mut u32; 2]);

    /// Transposes 16 x 16 values of 32 bits.
    ///
    /// # Safety
    /// The pointers must be valid for a tile each; the tiles must not overlap.
    unsafe fn transpose(from: *const u32, to: *mut u32);
}

/// An implementation of tiles; a value of it holds the tile registers, if there are any.
///
/// All functions are `inline(always)`, as in [`Simd`].
pub trait Tiles: Registers {
    /// Vectors that go with it.
    type V: Vectors;

    /// Computes a product of `M x N` tiles, `M` and `N` 1 or 2, with the sums of the instruction `TDPBF16PS`:
    /// per step the even and the odd values of k in chains of their own, then `c + (even + odd)`.
    ///
    /// # Safety
    /// All pointers and offsets must be valid for the tiles that they stand for.
    unsafe fn multiply<const M: usize, const N: usize>(&self, product: &Product<'_, N>);
}

/// `x` rounded to bf16, nearest even; values below the smallest normal number become zero, as AMX reads them.
#[inline(always)]
pub fn bf16(x: f32) -> u32 {
    let bits = x.to_bits();
    let magnitude = bits & 0x7fff_ffff;
    if magnitude > f32::INFINITY.to_bits() {
        bits >> 16 | 0x40
    } else if magnitude < f32::MIN_POSITIVE.to_bits() {
        bits >> 31 << 15
    } else {
        (bits + 0x7fff + (bits >> 16 & 1)) >> 16
    }
}

/// A row of 16 pairs.
#[inline(always)]
fn pairs(even: &[f32; SIDE], odd: &[f32; SIDE]) -> [u32; SIDE] {
    let mut pairs = [0; SIDE];
    for i in 0..SIDE {
        pairs[i] = bf16(even[i]) | bf16(odd[i]) << 16;
    }
    pairs
}

/// Plain loops, which the compiler makes vectors of.
pub struct Loops;

impl Vectors for Loops {
    #[inline(always)]
    unsafe fn round(low: *const f32, high: *const f32, to: *mut u32) {
        // SAFETY: pointers by the caller; u32 and bf16 have no invalid values.
        unsafe {
            let to = to.cast::<[[u16; SIDE]; 2]>();
            let (low, high) = (&*low.cast::<[f32; SIDE]>(), &*high.cast::<[f32; SIDE]>());
            for i in 0..SIDE {
                (*to)[0][i] = bf16(low[i]) as u16;
                (*to)[1][i] = bf16(high[i]) as u16;
            }
        }
    }

    #[inline(always)]
    unsafe fn pair(even: *const f32, odd: *const f32, to: *mut u32) {
        // SAFETY: pointers by the caller.
        unsafe { *to.cast() = pairs(&*even.cast(), &*odd.cast()) }
    }

    #[inline(always)]
    unsafe fn interleave(even: *const u16, odd: *const u16, to: [*mut u32; 2]) {
        for (half, to) in to.into_iter().enumerate() {
            // SAFETY: pointers by the caller.
            unsafe {
                let even = even.add(half * SIDE).cast::<[u16; SIDE]>().read_unaligned();
                let odd = odd.add(half * SIDE).cast::<[u16; SIDE]>().read_unaligned();
                let to = &mut *to.cast::<[u32; SIDE]>();
                for i in 0..SIDE {
                    to[i] = u32::from(even[i]) | u32::from(odd[i]) << 16;
                }
            }
        }
    }

    #[inline(always)]
    unsafe fn transpose(from: *const u32, to: *mut u32) {
        // SAFETY: pointers by the caller.
        let (from, to) = unsafe { (&*from.cast::<[u32; TILE]>(), &mut *to.cast::<[u32; TILE]>()) };
        for r in 0..SIDE {
            for c in 0..SIDE {
                to[c * SIDE + r] = from[r * SIDE + c];
            }
        }
    }
}

/// Tiles in memory, computed with vectors of `S`: `R` rows of `V` vectors at a time. A product of two bf16 is
/// exact in f32, so this gives the bits of AMX (but for sums below the smallest normal f32).
pub struct Software<S, const R: usize, const V: usize>(PhantomData<S>);

impl<S: Simd, const R: usize, const V: usize> Registers for Software<S, R, V> {
    #[inline(always)]
    unsafe fn new() -> Self {
        const { assert!(V * S::LANES == SIDE && SIDE.is_multiple_of(R)) }
        Self(PhantomData)
    }
}

impl<S: Simd, const R: usize, const V: usize> Tiles for Software<S, R, V> {
    type V = Loops;

    #[inline(always)]
    unsafe fn multiply<const M: usize, const N: usize>(&self, p: &Product<'_, N>) {
        // SAFETY: pointers and features by the caller.
        unsafe {
            for m in 0..M {
                if !p.accumulate {
                    p.c.add(m * p.c_stride).write_bytes(0, N * TILE);
                }
            }
            for (step, &at) in p.steps.iter().enumerate() {
                for n in 0..N {
                    let b = Split::new(p.b[n].add(at as usize).cast(), SIDE * size_of::<u32>());
                    for m in 0..M {
                        let a = p.a.add(m * p.a_stride + step * TILE);
                        let a = Split::new(a.cast(), SIDE * size_of::<u32>());
                        add_product::<S, R, V>(&a, &b, p.c.add(m * p.c_stride + n * TILE));
                    }
                }
            }
        }
    }
}

/// A tile's values as f32, those at even k apart from those at odd k.
#[repr(align(64))]
pub(super) struct Split {
    even: [[f32; SIDE]; SIDE],
    odd: [[f32; SIDE]; SIDE],
}

impl Split {
    /// Of a tile whose rows begin `stride` bytes apart.
    ///
    /// # Safety
    /// All rows must be valid for reading.
    #[inline(always)]
    pub unsafe fn new(tile: *const u8, stride: usize) -> Self {
        let mut split = Self { even: [[0.0; SIDE]; SIDE], odd: [[0.0; SIDE]; SIDE] };
        for r in 0..SIDE {
            // SAFETY: by the caller.
            let row = unsafe { tile.add(r * stride).cast::<[u32; SIDE]>().read_unaligned() };
            for p in 0..SIDE {
                split.even[r][p] = f32::from_bits(row[p] << 16);
                split.odd[r][p] = f32::from_bits(row[p] & 0xffff_0000);
            }
        }
        split
    }
}

/// # Safety
/// `c` must be valid for a tile, and the CPU must support `S`.
#[inline(always)]
pub(super) unsafe fn add_product<S: Simd, const R: usize, const V: usize>(a: &Split, b: &Split, c: *mut f32) {
    // SAFETY: all accesses are within the tiles.
    unsafe {
        for first in (0..SIDE).step_by(R) {
            let mut even = [[S::zero(); V]; R];
            let mut odd = [[S::zero(); V]; R];
            for k in 0..SIDE {
                for v in 0..V {
                    let b_even = S::load(b.even[k].as_ptr().add(v * S::LANES));
                    let b_odd = S::load(b.odd[k].as_ptr().add(v * S::LANES));
                    for r in 0..R {
                        let a_even = S::broadcast(&raw const a.even[first + r][k]);
                        let a_odd = S::broadcast(&raw const a.odd[first + r][k]);
                        even[r][v] = S::mul_add(a_even, b_even, even[r][v]);
                        odd[r][v] = S::mul_add(a_odd, b_odd, odd[r][v]);
                    }
                }
            }
            for r in 0..R {
                for v in 0..V {
                    let c = c.add((first + r) * SIDE + v * S::LANES);
                    S::store(c, S::add(S::load(c), S::add(even[r][v], odd[r][v])));
                }
            }
        }
    }
}
