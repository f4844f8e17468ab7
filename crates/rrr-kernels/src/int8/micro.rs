//! The 8-bit kernel: a few output rows x one or two blocks of 16 output channels (two share the loads of a tile where
//! a block is one vector), the sum over a batch of (input rows, weights) products, finished with scale, offset, residual and rounding to bytes. Written once over [`Dot`].

#![allow(clippy::needless_range_loop, reason = "register tiles are indexed by row and vector")]

#[cfg(target_arch = "aarch64")]
use super::simd::arm::{Neon, NeonDot};
#[cfg(target_arch = "x86_64")]
use super::simd::x86::{Avx2, Avx512, Avx512Vnni, AvxVnni};
use super::simd::{Dot, Portable};
use super::{Int8Isa, STEP, STEPS};
use crate::BLOCK;
use std::hint::black_box;

pub(super) use crate::micro::{Item, Order, RUN};

/// Most blocks of output channels that any kernel takes.
pub(super) const MAX_PANELS: usize = 2;

/// Blocks of input channels that runs of rows are fetched ahead.
const AHEAD: usize = 2;

/// Blocks of input channels that are few.
const FEW: usize = 4;

/// Weights of 16 input channels x 16 output channels.
const WEIGHTS: usize = BLOCK * BLOCK;

/// A block of 16 output channels of a [`Tile`].
#[derive(Clone, Copy)]
pub(super) struct Panel {
    /// Weights, `[step][16][4]` per item.
    pub w: *const i8,
    /// 16 values.
    pub scale: *const f32,
    /// 16 values.
    pub offset: *const f32,
    /// Plane of the output's shape, or null.
    pub residual: *const u8,
    /// 16 values, times the residual.
    pub residual_scale: *const f32,
    /// Output plane.
    pub y: *mut u8,
}

/// `y[row] = round(clamp(sum * scale + offset + residual[row] * residual_scale))` for some rows of some blocks of 16
/// channels.
pub(super) struct Tile<'a> {
    /// The batch.
    pub items: &'a [Item<u8>],
    /// Blocks of output channels.
    pub panels: &'a [Panel],
    /// Largest output.
    pub max: f32,
    /// `[item][row or run]`: offset of each input row, or of the first one of each run, from the item's `x`. Behind those
    /// of runs lie as many of what comes next, which is fetched ahead.
    pub x_rows: &'a [u32],
    /// Offset of each output row, or of the first one of each run.
    pub y_rows: &'a [u32],
    /// As `y_rows`, in the residual.
    pub residual_rows: &'a [u32],
    /// Bytes from a row of a run to the next in the output.
    #[allow(dead_code, reason = "only some instruction sets have kernels for runs, which read it")]
    pub y_step: usize,
}

type RowsFn = unsafe fn(&Tile<'_>);

/// The kernels of one instruction set; can only be made where the CPU has it.
#[derive(Clone, Copy)]
pub(super) struct Micro {
    isa: Int8Isa,
    /// Per number of panels and of rows; segments of 16 input channels.
    long: &'static [&'static [RowsFn]],
    /// Per number of panels and of rows; segments of one step.
    short: &'static [&'static [RowsFn]],
    /// Per number of panels and of runs of rows; segments of 16 input channels.
    runs: &'static [&'static [RowsFn]],
    /// The same; segments of one step.
    pixel_runs: &'static [&'static [RowsFn]],
    multiply_adds: unsafe fn(u64) -> u64,
}

/// Kernels per number of panels and of rows or runs.
type Table = &'static [&'static [RowsFn]];

/// Of [`Micro`]: `multiply_adds`, and `long`, `short`, `runs`, `pixel_runs`.
type Kernels = (unsafe fn(u64) -> u64, [Table; 4]);

impl Micro {
    /// The kernels of `isa`, or `None` if this CPU lacks it.
    pub fn new(isa: Int8Isa) -> Option<Self> {
        if !isa.is_available() {
            return None;
        }
        let (multiply_adds, [long, short, runs, pixel_runs]): Kernels = match isa {
            #[cfg(target_arch = "x86_64")]
            Int8Isa::Avx512Vnni => avx512vnni::KERNELS,
            #[cfg(target_arch = "x86_64")]
            Int8Isa::Avx512 => avx512::KERNELS,
            #[cfg(target_arch = "x86_64")]
            Int8Isa::AvxVnni => avxvnni::KERNELS,
            #[cfg(target_arch = "x86_64")]
            Int8Isa::Avx2 => avx2::KERNELS,
            #[cfg(target_arch = "aarch64")]
            Int8Isa::NeonDot => neondot::KERNELS,
            #[cfg(target_arch = "aarch64")]
            Int8Isa::Neon => neon::KERNELS,
            _ => portable::KERNELS,
        };
        Some(Self { isa, long, short, runs, pixel_runs, multiply_adds })
    }

    /// The instruction set.
    pub fn isa(&self) -> Int8Isa {
        self.isa
    }

    /// See [`Int8Compute::multiply_adds`](super::Int8Compute::multiply_adds).
    pub fn multiply_adds(&self, rounds: u64) -> u64 {
        // SAFETY: the CPU has the instruction set, as `new` has checked.
        unsafe { (self.multiply_adds)(rounds) }
    }

    /// Most rows in a [`Tile`].
    pub fn max_rows(&self) -> usize {
        self.long[0].len()
    }

    /// Most panels in a [`Tile`].
    pub fn max_panels(&self) -> usize {
        self.long.len()
    }

    /// Most runs in a [`Tile`] for [`Micro::runs`]; 0: there are none.
    pub fn max_runs(&self) -> usize {
        self.runs.first().map_or(0, |runs| runs.len())
    }

    /// Computes a tile of `rows` rows; `short`: the weights fit segments of one step only.
    ///
    /// # Safety
    /// All pointers and offsets of the tile must be valid, and no other thread may access the output rows.
    #[inline]
    pub unsafe fn rows(&self, order: Order, short: bool, rows: usize, tile: &Tile<'_>) {
        let (kernels, count) = match order {
            Order::Apart if short => (self.short, rows),
            Order::Apart => (self.long, rows),
            Order::Runs => (self.runs, rows / RUN),
            Order::PixelRuns => (self.pixel_runs, rows / RUN),
        };
        // SAFETY: `new` has checked the CPU's features; the rest is the caller's promise.
        unsafe { kernels[tile.panels.len() - 1][count - 1](tile) }
    }
}

/// The body of every kernel: `R` rows in runs of `G` that lie `A` bytes apart, `P` panels, `N` vectors of `D` across the 16
/// channels of each.
#[inline(always)]
unsafe fn body<
    D: Dot,
    const R: usize,
    const G: usize,
    const A: usize,
    const P: usize,
    const N: usize,
    const SHORT: bool,
>(
    t: &Tile<'_>,
) {
    // SAFETY: all accesses are within what the caller of `Micro::rows` vouches for.
    unsafe {
        let panels = &*t.panels.as_ptr().cast::<[Panel; P]>();
        let mut sums = [[[D::zero(); N]; R]; P];
        let mut rows = t.x_rows.as_ptr();
        for (i, item) in t.items.iter().enumerate() {
            let mut w: [*const i8; P] = std::array::from_fn(|p| panels[p].w.add(item.w));
            let a: [*const u8; R] = std::array::from_fn(|r| item.x.add(*rows.add(r / G) as usize));
            rows = rows.add(R / G);
            // One offset for all rows: a pointer each would not fit the registers.
            let mut at = 0;
            let step = item.x_block;
            if G > 1 && A == BLOCK {
                // The last blocks' turns are for the first rows of what follows; those of few blocks are all.
                let own = if item.blocks > FEW { item.blocks - AHEAD } else { 0 };
                let next = t.items.get(i + 1).unwrap_or(&t.items[0]);
                let then: [*const u8; R] =
                    std::array::from_fn(|r| next.x.wrapping_add(*rows.add(r / G) as usize));
                for _ in 0..own {
                    block::<D, R, G, A, P, N, SHORT>(&mut sums, &a, at, &mut w);
                    at += step;
                    fetch::<D, R, G>(&a, at + (AHEAD - 1) * step);
                }
                let mut ahead = 0;
                for _ in own..item.blocks {
                    block::<D, R, G, A, P, N, SHORT>(&mut sums, &a, at, &mut w);
                    at += step;
                    fetch::<D, R, G>(&then, ahead);
                    ahead += step;
                }
            } else {
                for _ in 0..item.blocks {
                    block::<D, R, G, A, P, N, SHORT>(&mut sums, &a, at, &mut w);
                    at += step;
                }
            }
            if item.tail > 0 {
                segment::<D, R, G, A, P, N, SHORT>(&mut sums, &a, at, &w, item.tail);
            }
        }
        // Not a loop: the compiler could leave it one, and would then keep the sums in memory.
        D::finish::<R, G, A, N>(t, &panels[0], &sums[0]);
        if P > 1 {
            D::finish::<R, G, A, N>(t, &panels[P - 1], &sums[P - 1]);
        }
    }
}

/// Fetches a line of each run.
#[inline(always)]
fn fetch<D: Dot, const R: usize, const G: usize>(a: &[*const u8; R], at: usize) {
    for r in (0..R).step_by(G) {
        D::fetch(a[r].wrapping_add(at));
    }
}

/// Adds the products of 16 input channels, and goes to the weights of the next ones.
#[inline(always)]
unsafe fn block<
    D: Dot,
    const R: usize,
    const G: usize,
    const A: usize,
    const P: usize,
    const N: usize,
    const SHORT: bool,
>(
    sums: &mut [[[D::Sum; N]; R]; P],
    a: &[*const u8; R],
    at: usize,
    w: &mut [*const i8; P],
) {
    // SAFETY: see `body`.
    unsafe {
        segment::<D, R, G, A, P, N, SHORT>(sums, a, at, w, STEPS);
        for p in w {
            *p = p.add(WEIGHTS);
        }
    }
}

/// Adds the products of at most 16 input channels, 4 at a step.
#[inline(always)]
unsafe fn segment<
    D: Dot,
    const R: usize,
    const G: usize,
    const A: usize,
    const P: usize,
    const N: usize,
    const SHORT: bool,
>(
    sums: &mut [[[D::Sum; N]; R]; P],
    a: &[*const u8; R],
    at: usize,
    w: &[*const i8; P],
    steps: usize,
) {
    // SAFETY: see `body`.
    unsafe {
        if SHORT || D::IN_PLACE {
            for s in 0..steps {
                let w = weights::<D, P, N>(w, s);
                for r in 0..R {
                    let x = D::activations(a[r / G * G].wrapping_add(at + s * STEP + r % G * A));
                    for p in 0..P {
                        for n in 0..N {
                            let sum = sums[p][r][n];
                            sums[p][r][n] = D::close(sum, D::step(D::open(sum), x, w[p][n]));
                        }
                    }
                }
            }
            return;
        }
        let mut partial: [[[D::Partial; N]; R]; P] =
            std::array::from_fn(|p| std::array::from_fn(|r| std::array::from_fn(|n| D::open(sums[p][r][n]))));
        for s in 0..steps {
            let w = weights::<D, P, N>(w, s);
            for r in 0..R {
                let x = D::activations(a[r / G * G].wrapping_add(at + s * STEP + r % G * A));
                for p in 0..P {
                    for n in 0..N {
                        partial[p][r][n] = D::step(partial[p][r][n], x, w[p][n]);
                    }
                }
            }
        }
        for p in 0..P {
            for r in 0..R {
                for n in 0..N {
                    sums[p][r][n] = D::close(sums[p][r][n], partial[p][r][n]);
                }
            }
        }
    }
}

/// Weights of a step.
#[inline(always)]
unsafe fn weights<D: Dot, const P: usize, const N: usize>(
    w: &[*const i8; P],
    s: usize,
) -> [[D::Weights; N]; P] {
    // SAFETY: see `body`.
    unsafe {
        std::array::from_fn(|p| {
            std::array::from_fn(|n| D::weights(w[p].add((s * BLOCK + n * D::LANES) * STEP)))
        })
    }
}

/// Rounds of products with sums that do not wait for one another; returns the number of multiply-adds.
///
/// # Safety
/// The CPU must support `D`.
#[inline(always)]
unsafe fn multiply_adds<D: Dot, const SUMS: usize>(rounds: u64) -> u64 {
    let ones = [1u8; STEP];
    // Weights that the compiler must take for different, lest it keeps one sum for all.
    let weights = black_box([[1i8; BLOCK * STEP]; SUMS]);
    let mut out = [[0i32; BLOCK]; SUMS];
    // SAFETY: the CPU by the caller; a vector has at most 16 channels.
    unsafe {
        let weights: [D::Weights; SUMS] = std::array::from_fn(|i| D::weights(weights[i].as_ptr()));
        let mut partials = [D::open(D::zero()); SUMS];
        for _ in 0..rounds {
            // What the compiler must take for others, lest it computes the products but once.
            let a = D::activations(black_box(&ones).as_ptr());
            for (partial, weights) in partials.iter_mut().zip(&weights) {
                *partial = D::step(*partial, a, *weights);
            }
        }
        for (partial, out) in partials.into_iter().zip(&mut out) {
            D::store(D::close(D::zero(), partial), out.as_mut_ptr());
        }
    }
    // Lest the compiler leaves the sums out.
    black_box(out);
    rounds * (SUMS * D::LANES * STEP) as u64
}

/// Compiles the body for one instruction set and each number of panels and rows, and of panels and runs.
macro_rules! kernels {
    ($module:ident, $dot:ident, $n:expr, [$($feature:literal)?], [$($p:literal: $r:tt)+], runs: [$($rp:literal: $rr:tt)*]) => {
        mod $module {
            use super::*;

            $(#[target_feature(enable = $feature)])?
            unsafe fn rows<const R: usize, const G: usize, const A: usize, const P: usize, const SHORT: bool>(
                t: &Tile<'_>,
            ) {
                // SAFETY: passed on to the caller.
                unsafe { body::<$dot, R, G, A, P, $n, SHORT>(t) }
            }

            $(#[target_feature(enable = $feature)])?
            unsafe fn multiply_adds(rounds: u64) -> u64 {
                // As many as hide the latency of a step: sums take all of it, partial ones only that of an addition.
                // SAFETY: passed on to the caller.
                unsafe {
                    if $dot::IN_PLACE {
                        super::multiply_adds::<$dot, 12>(rounds)
                    } else {
                        super::multiply_adds::<$dot, 6>(rounds)
                    }
                }
            }

            pub(super) static KERNELS: Kernels = (multiply_adds, [
                &[$(of!(1, BLOCK, $p, false, $r)),+],
                &[$(of!(1, BLOCK, $p, true, $r)),+],
                &[$(of!(RUN, BLOCK, $rp, false, $rr)),*],
                &[$(of!(RUN, crate::micro::PIXEL_STEP, $rp, true, $rr)),*],
            ]);
        }
    };
}

/// Kernels of some panels.
macro_rules! of {
    ($run:expr, $step:expr, $p:literal, $short:literal, [$($r:literal)+]) => {
        &[$(rows::<{ $r * $run }, { $run }, { $step }, $p, $short>),+]
    };
}

#[cfg(target_arch = "x86_64")]
kernels!(avx512vnni, Avx512Vnni, 1, ["avx512f,avx512vl,avx512bw,avx512dq,avx512vnni,avx2"],
    [1: [1 2 3 4 5 6 7 8 9 10 11 12 13 14] 2: [1 2 3 4 5 6 7 8 9 10 11 12 13 14]],
    runs: [1: [1 2 3] 2: [1 2 3]]);
#[cfg(target_arch = "x86_64")]
kernels!(avx512, Avx512, 1, ["avx512f,avx512vl,avx512bw,avx512dq,avx2"], [1: [1 2 3 4 5 6 7 8 9 10 11 12]], runs: []);
#[cfg(target_arch = "x86_64")]
kernels!(avxvnni, AvxVnni, 2, ["avx2,avxvnni"], [1: [1 2 3 4 5 6]], runs: []);
#[cfg(target_arch = "x86_64")]
kernels!(avx2, Avx2, 2, ["avx2"], [1: [1 2 3]], runs: []);
#[cfg(target_arch = "aarch64")]
kernels!(neondot, NeonDot, 4, ["neon,dotprod"], [1: [1 2 3 4 5]], runs: []);
#[cfg(target_arch = "aarch64")]
kernels!(neon, Neon, 4, ["neon"], [1: [1 2]], runs: []);
kernels!(portable, Portable, 4, [], [1: [1 2]], runs: []);
