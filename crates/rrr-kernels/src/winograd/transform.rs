//! The transforms of F(4x4, 3x3): Toom-Cook's points 0, ±√½, ±√2 and infinity.
//!
//! Of the usual sets of points this one has the smallest error (the integers 0, ±1, ±2 lose two to four times as
//! much), and as the product of √½ and √2 is 1, half of the rows need no factor. Each transform is a
//! kernel over [`Simd`], written once and compiled for each instruction set.

#![allow(clippy::needless_range_loop, reason = "register tiles are indexed by row and column")]

use crate::isa::Isa;
use crate::micro::{BLOCK, Epilogue};
#[cfg(target_arch = "aarch64")]
use crate::simd::Neon;
#[cfg(target_arch = "x86_64")]
use crate::simd::{Avx2, Avx512};
use crate::simd::{Portable, Simd};

/// Outputs of a tile, in each direction.
pub const TILE: usize = 4;

/// Inputs of a tile, in each direction.
pub const PATCH: usize = 6;

/// Products of a tile.
pub const POINTS: usize = PATCH * PATCH;

const HALF_ROOT: f32 = std::f32::consts::FRAC_1_SQRT_2;
const ROOT: f32 = std::f32::consts::SQRT_2;

/// Tiles of neighbouring images at one position, 16 channels of their input.
pub struct InputTiles<'a> {
    /// The plane.
    pub x: *const f32,
    /// Offset in the plane of the first image's input, `[row][column]`, and the floats to that of the next image.
    pub patch: &'a [(u32, u32); POINTS],
    /// First tile's image.
    pub image: usize,
    /// First tile's first point; tiles follow one another.
    pub to: *mut f32,
    /// Floats from point to point.
    pub point: usize,
    /// Number of tiles.
    pub count: usize,
}

/// Tiles of neighbouring images at one position, 16 channels of their output.
pub struct OutputTiles {
    /// First tile's first point; tiles follow one another.
    pub from: *const f32,
    /// Floats from point to point.
    pub point: usize,
    /// First image's first pixel; images follow one another.
    pub y: *mut f32,
    /// Rows and columns of a tile that lie on the map.
    pub size: (usize, usize),
    /// Floats from one row of the map to the next, and from one pixel to the next.
    pub strides: (usize, usize),
    /// Number of tiles.
    pub count: usize,
    /// How to finish; the residual lies as `y` does.
    pub epilogue: Epilogue,
}

/// Kernels of 16 output channels, for input channels that follow one another.
pub struct WeightsTile {
    /// First input channel's weights under each tap, `[row][column]`.
    pub taps: [*const f32; 9],
    /// First input channel's first point.
    pub to: *mut f32,
    /// Floats from point to point.
    pub point: usize,
    /// Number of input channels.
    pub count: usize,
}

/// The kernels of one instruction set.
#[derive(Clone, Copy)]
pub struct Kernels {
    input: unsafe fn(&InputTiles<'_>),
    output: unsafe fn(&OutputTiles),
    weights: unsafe fn(&WeightsTile),
}

impl Kernels {
    /// # Panics
    /// If this CPU lacks the instruction set.
    pub fn new(isa: Isa) -> Self {
        assert!(isa.is_available());
        match isa {
            #[cfg(target_arch = "x86_64")]
            Isa::Amx | Isa::Avx512Bf16 | Isa::Avx512 => avx512::KERNELS,
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => avx2::KERNELS,
            #[cfg(target_arch = "aarch64")]
            Isa::Neon => neon::KERNELS,
            _ => portable::KERNELS,
        }
    }

    /// Transforms input to its points.
    ///
    /// # Safety
    /// All pointers must be valid for `count` tiles, and no other thread may access the points.
    pub unsafe fn input(&self, tiles: &InputTiles<'_>) {
        // SAFETY: `new` has checked the CPU's features; the rest is the caller's promise.
        unsafe { (self.input)(tiles) }
    }

    /// Transforms points to the output, and finishes it.
    ///
    /// # Safety
    /// All pointers must be valid for `count` tiles, and no other thread may access the output rows.
    pub unsafe fn output(&self, tiles: &OutputTiles) {
        // SAFETY: `new` has checked the CPU's features; the rest is the caller's promise.
        unsafe { (self.output)(tiles) }
    }

    /// Transforms weights to their points.
    ///
    /// # Safety
    /// All pointers must be valid for `count` channels, and no other thread may access the points.
    pub unsafe fn weights(&self, tile: &WeightsTile) {
        // SAFETY: `new` has checked the CPU's features; the rest is the caller's promise.
        unsafe { (self.weights)(tile) }
    }
}

/// No `array::from_fn` here: its closures could be left calls, compiled without the instruction set.
#[inline(always)]
unsafe fn input_body<S: Simd>(t: &InputTiles<'_>) {
    // SAFETY: all accesses are within what the caller of `Kernels::input` vouches for.
    unsafe {
        for tile in 0..t.count {
            for lane in (0..BLOCK).step_by(S::LANES) {
                let mut columns = [[S::zero(); PATCH]; PATCH];
                for c in 0..PATCH {
                    let mut d = [S::zero(); PATCH];
                    for r in 0..PATCH {
                        let (first, step) = t.patch[r * PATCH + c];
                        d[r] = S::load(t.x.add(first as usize + (t.image + tile) * step as usize + lane));
                    }
                    columns[c] = input_line::<S>(d);
                }
                for r in 0..PATCH {
                    let mut d = [S::zero(); PATCH];
                    for c in 0..PATCH {
                        d[c] = columns[c][r];
                    }
                    let row = input_line::<S>(d);
                    for c in 0..PATCH {
                        S::store(t.to.add((r * PATCH + c) * t.point + tile * BLOCK + lane), row[c]);
                    }
                }
            }
        }
    }
}

#[inline(always)]
unsafe fn output_body<S: Simd>(t: &OutputTiles) {
    // SAFETY: all accesses are within what the caller of `Kernels::output` vouches for.
    unsafe {
        let e = &t.epilogue;
        for tile in 0..t.count {
            for lane in (0..BLOCK).step_by(S::LANES) {
                let mut columns = [[S::zero(); TILE]; PATCH];
                for c in 0..PATCH {
                    let mut m = [S::zero(); PATCH];
                    for r in 0..PATCH {
                        m[r] = S::load(t.from.add((r * PATCH + c) * t.point + tile * BLOCK + lane));
                    }
                    columns[c] = output_line::<S>(m);
                }
                let bias = if e.bias.is_null() { S::zero() } else { S::load(e.bias.add(lane)) };
                for r in 0..TILE {
                    if r == t.size.0 {
                        break;
                    }
                    let mut m = [S::zero(); PATCH];
                    for c in 0..PATCH {
                        m[c] = columns[c][r];
                    }
                    let row = output_line::<S>(m);
                    for c in 0..TILE {
                        if c == t.size.1 {
                            break;
                        }
                        let mut v = row[c];
                        let at = r * t.strides.0 + c * t.strides.1 + tile * BLOCK + lane;
                        if e.accumulate {
                            v = S::add(v, S::load(t.y.add(at)));
                        }
                        v = S::add(v, bias);
                        if !e.residual.is_null() {
                            v = S::add(v, S::load(e.residual.add(at)));
                        }
                        if e.relu {
                            v = S::relu(v);
                        }
                        S::store(t.y.add(at), v);
                    }
                }
            }
        }
    }
}

#[inline(always)]
unsafe fn weights_body<S: Simd>(t: &WeightsTile) {
    // SAFETY: all accesses are within what the caller of `Kernels::weights` vouches for.
    unsafe {
        for channel in 0..t.count {
            for lane in (0..BLOCK).step_by(S::LANES) {
                let at = channel * BLOCK + lane;
                let mut columns = [[S::zero(); PATCH]; 3];
                for c in 0..3 {
                    let mut g = [S::zero(); 3];
                    for r in 0..3 {
                        g[r] = S::load(t.taps[r * 3 + c].add(at));
                    }
                    columns[c] = weights_line::<S>(g);
                }
                for r in 0..PATCH {
                    let row = weights_line::<S>([columns[0][r], columns[1][r], columns[2][r]]);
                    for c in 0..PATCH {
                        S::store(t.to.add((r * PATCH + c) * t.point + at), row[c]);
                    }
                }
            }
        }
    }
}

#[inline(always)]
unsafe fn input_line<S: Simd>(d: [S::V; PATCH]) -> [S::V; PATCH] {
    // SAFETY: features by the caller.
    unsafe {
        let near = (splat_add::<S>(-2.0, d[2], d[4]), splat_add::<S>(-2.0, d[1], d[3]));
        let far = (splat_add::<S>(-0.5, d[2], d[4]), splat_add::<S>(-0.5, d[1], d[3]));
        [
            splat_add::<S>(-2.5, d[2], S::add(d[0], d[4])),
            splat_add::<S>(HALF_ROOT, near.1, near.0),
            splat_add::<S>(-HALF_ROOT, near.1, near.0),
            splat_add::<S>(ROOT, far.1, far.0),
            splat_add::<S>(-ROOT, far.1, far.0),
            splat_add::<S>(-2.5, d[3], S::add(d[1], d[5])),
        ]
    }
}

#[inline(always)]
unsafe fn output_line<S: Simd>(m: [S::V; PATCH]) -> [S::V; TILE] {
    // SAFETY: features by the caller.
    unsafe {
        let near = (S::add(m[1], m[2]), splat_add::<S>(-1.0, m[2], m[1]));
        let far = (S::add(m[3], m[4]), splat_add::<S>(-1.0, m[4], m[3]));
        [
            S::add(m[0], S::add(near.0, far.0)),
            splat_add::<S>(HALF_ROOT, near.1, splat_add::<S>(ROOT, far.1, S::zero())),
            splat_add::<S>(0.5, near.0, S::add(far.0, far.0)),
            splat_add::<S>(0.5 * HALF_ROOT, near.1, splat_add::<S>(2.0 * ROOT, far.1, m[5])),
        ]
    }
}

#[inline(always)]
unsafe fn weights_line<S: Simd>(g: [S::V; 3]) -> [S::V; PATCH] {
    // SAFETY: features by the caller.
    unsafe {
        let near = splat_add::<S>(-2.0 / 3.0, g[0], splat_add::<S>(-1.0 / 3.0, g[2], S::zero()));
        let far = splat_add::<S>(1.0 / 6.0, g[0], splat_add::<S>(1.0 / 3.0, g[2], S::zero()));
        [
            g[0],
            splat_add::<S>(-2.0 / 3.0 * HALF_ROOT, g[1], near),
            splat_add::<S>(2.0 / 3.0 * HALF_ROOT, g[1], near),
            splat_add::<S>(1.0 / 6.0 * ROOT, g[1], far),
            splat_add::<S>(-1.0 / 6.0 * ROOT, g[1], far),
            g[2],
        ]
    }
}

/// `a * b + c`.
#[inline(always)]
unsafe fn splat_add<S: Simd>(a: f32, b: S::V, c: S::V) -> S::V {
    // SAFETY: features by the caller.
    unsafe { S::mul_add(S::broadcast(&raw const a), b, c) }
}

/// Compiles the bodies for one instruction set.
macro_rules! kernels {
    ($module:ident, $simd:ident, [$($feature:literal)?]) => {
        mod $module {
            use super::*;

            $(#[target_feature(enable = $feature)])?
            unsafe fn input(t: &InputTiles<'_>) {
                // SAFETY: passed on to the caller.
                unsafe { input_body::<$simd>(t) }
            }

            $(#[target_feature(enable = $feature)])?
            unsafe fn output(t: &OutputTiles) {
                // SAFETY: passed on to the caller.
                unsafe { output_body::<$simd>(t) }
            }

            $(#[target_feature(enable = $feature)])?
            unsafe fn weights(t: &WeightsTile) {
                // SAFETY: passed on to the caller.
                unsafe { weights_body::<$simd>(t) }
            }

            pub(super) const KERNELS: Kernels = Kernels { input, output, weights };
        }
    };
}

#[cfg(target_arch = "x86_64")]
kernels!(avx512, Avx512, ["avx512f,avx512vl,avx512bw,avx512dq,avx2,fma"]);
#[cfg(target_arch = "x86_64")]
kernels!(avx2, Avx2, ["avx2,fma"]);
#[cfg(target_arch = "aarch64")]
kernels!(neon, Neon, ["neon"]);
kernels!(portable, Portable, []);
