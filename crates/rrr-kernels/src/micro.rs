//! Micro-kernels: the innermost loops, written once over [`Simd`] and compiled for each instruction set.
//!
//! Two kernels carry every convolution and the classifier, in both directions:
//! - [`RowsTile`]: a few output rows x one or two blocks of 16 output channels, the sum over a batch of (input rows,
//!   weights) products (a batch-reduce GEMM): forward and data gradient;
//! - [`GradTile`]: a few input channels x one to three blocks of 16 output channels of a weight gradient, the sum over
//!   runs of rows.
//!
//! With AVX-512 a block of channels is one vector, so that a product per loaded value would be bound by the loads: two
//! or three blocks share them.
//!
//! Each element is summed in the same order whatever the tile's size, so that tiling never changes a result
//! (on one instruction set).

#![allow(clippy::needless_range_loop, reason = "register tiles are indexed by row and vector")]

use crate::isa::Isa;
use crate::prefetch::{FAR, NEAR, prefetch};
#[cfg(target_arch = "aarch64")]
use crate::simd::Neon;
#[cfg(target_arch = "x86_64")]
use crate::simd::{Avx2, Avx512};
use crate::simd::{Portable, Simd};

/// Channels in a block: one cache line of f32.
pub const BLOCK: usize = 16;

/// Most rows that any [`RowsTile`] kernel takes.
pub const MAX_ROWS: usize = 16;

/// Rows of a run: they lie equally far apart in every input and in the output, so that they share pointers. A pointer for
/// each row does not fit the registers.
pub const RUN: usize = 4;

/// How the rows of a tile lie in the inputs.
#[derive(Clone, Copy, PartialEq)]
pub enum Order {
    /// Anywhere.
    Apart,
    /// In runs of [`RUN`], the last one maybe shorter, of rows of 16 that follow one another.
    Runs,
    /// The same, of rows of pixels of an image, two pixels apart: the image convolution's stride.
    PixelRuns,
}

/// Values from a row of [`Order::PixelRuns`] to the next.
pub const PIXEL_STEP: usize = 2 * 3;

/// Blocks of input channels that runs of rows are fetched ahead.
const AHEAD: usize = 2;

/// With so few blocks of input channels, only those of the rows that follow are fetched.
const FEW: usize = 4;

/// Rows that a weight gradient's are fetched ahead.
const GRAD_AHEAD: usize = 16;

/// Values of k whose products are a loop's body, so that its own instructions are few beside these. With 32 registers there
/// are enough products for each, and more of them would make the compiler run out of registers.
const fn unrolled<S: Simd>() -> usize {
    if S::REGISTERS == 16 { 4 } else { 1 }
}

/// Rows of a weight gradient in a loop's body, for the same reason.
const fn grad_unrolled<S: Simd>() -> usize {
    if S::REGISTERS == 16 { 2 } else { 1 }
}

/// Most runs that any kernel takes.
pub const MAX_RUNS: usize = 4;

/// Most blocks of output channels that any kernel takes.
pub const MAX_PANELS: usize = 2;

/// Most blocks of output channels of a [`GradTile`].
pub const MAX_GRAD_PANELS: usize = 3;

/// One product of the batch that a tile sums, of numbers `T`, whose strides are in numbers.
#[derive(Clone, Copy)]
pub struct Item<T> {
    /// Input.
    pub x: *const T,
    /// From a row's block of 16 channels to its next one.
    pub x_block: usize,
    /// Blocks of 16 channels per row.
    pub blocks: usize,
    /// What is left: channels, or steps of a few, that make less than a block.
    pub tail: usize,
    /// Offset of the weights in the panel.
    pub w: usize,
}

impl<T> Item<T> {
    /// An item without any product.
    pub const EMPTY: Self = Self { x: std::ptr::null(), x_block: 0, blocks: 0, tail: 0, w: 0 };
}

/// What a tile of output rows is finished with.
#[derive(Clone, Copy)]
pub struct Epilogue {
    /// 16 values added to each row, or null.
    pub bias: *const f32,
    /// Added at the offsets of [`RowsTile::residual_rows`], or null.
    pub residual: *const f32,
    /// Add what the output holds already.
    pub accumulate: bool,
    /// Clamp below at zero, at the very end.
    pub relu: bool,
}

/// A block of 16 output channels of a [`RowsTile`].
#[derive(Clone, Copy)]
pub struct Panel {
    /// Weights, `[k][16]` per item.
    pub w: *const f32,
    /// Output.
    pub y: *mut f32,
    /// How to finish.
    pub epilogue: Epilogue,
}

impl Panel {
    /// None.
    pub const EMPTY: Self = Self {
        w: std::ptr::null(),
        y: std::ptr::null_mut(),
        epilogue: Epilogue {
            bias: std::ptr::null(),
            residual: std::ptr::null(),
            accumulate: false,
            relu: false,
        },
    };
}

/// `y[row] = epilogue(sum over items, k of x[row, k] * w[k])` for some rows of some blocks of 16 channels.
pub struct RowsTile<'a> {
    /// The batch.
    pub items: &'a [Item<f32>],
    /// Blocks of output channels.
    pub panels: &'a [Panel],
    /// `[item][row or run]`: offset of each input row, or of the first one of each run, from the item's `x`, in floats.
    pub x_rows: &'a [u32],
    /// Offset of each output row, or of the first one of each run, in floats.
    pub y_rows: &'a [u32],
    /// As `y_rows`, in the residual.
    pub residual_rows: &'a [u32],
    /// Floats from a row of a run to the next, in the output and the residual.
    pub y_step: usize,
    /// Offsets of the rows that the first item reads in the next tile, which are fetched: as many as for this one at least.
    pub then: &'a [u32],
    /// Weights to fetch meanwhile.
    pub ahead: Ahead,
}

impl RowsTile<'_> {
    /// Offset of row `r` in runs of `G`.
    ///
    /// # Safety
    /// `rows` must have one for each run.
    #[inline(always)]
    unsafe fn place<const G: usize>(&self, rows: &[u32], r: usize) -> usize {
        // SAFETY: by the caller.
        unsafe { *rows.get_unchecked(r / G) as usize + r % G * self.y_step }
    }
}

/// Weights that a later tile reads, fetched into the second-level cache while this one computes.
#[derive(Clone, Copy)]
pub struct Ahead {
    /// Where they begin.
    pub from: *const f32,
    /// Lines of 16 floats to fetch at every block of 16 input channels.
    pub lines: usize,
}

impl Ahead {
    /// Nothing.
    pub const NONE: Ahead = Ahead { from: std::ptr::null(), lines: 0 };
}

/// A run of rows of a [`GradTile`].
#[derive(Clone, Copy, Debug)]
pub struct Run {
    /// Offset of the first input row, in floats.
    pub x: u32,
    /// Offset of the first output-gradient row, in floats.
    pub dy: u32,
    /// Number of rows.
    pub len: u32,
}

/// `dw[i, j] += sum over runs, rows of x[row, i] * dy[row, j]` for some input channels i and blocks of 16 channels j.
pub struct GradTile<'a> {
    /// Runs of rows.
    pub runs: &'a [Run],
    /// Input, already moved to the tile's first channel.
    pub x: *const f32,
    /// Floats between input rows.
    pub x_stride: usize,
    /// Output gradient, rows of 16, and weight gradient, `[i][16]`, of each block of output channels.
    pub panels: &'a [(*const f32, *mut f32)],
}

type RowsFn = unsafe fn(&RowsTile<'_>);
type GradFn = unsafe fn(&GradTile<'_>);

/// The micro-kernels of one instruction set; can only be made where the CPU has it.
#[derive(Clone, Copy)]
pub struct Micro {
    isa: Isa,
    /// Per number of panels and of rows.
    rows: Table<RowsFn>,
    /// The same for rows in runs; none where a pointer for each row fits the registers.
    runs: Table<RowsFn>,
    pixel_runs: Table<RowsFn>,
    grad: Table<GradFn>,
}

/// Kernels per number of panels and of rows.
type Table<F> = &'static [&'static [F]];

impl Micro {
    /// The kernels of `isa`, or `None` if this CPU lacks it.
    pub fn new(isa: Isa) -> Option<Self> {
        if !isa.is_available() {
            return None;
        }
        Some(match isa {
            #[cfg(target_arch = "x86_64")]
            Isa::Amx | Isa::Avx512Bf16 | Isa::Avx512 => avx512::micro(isa),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => avx2::micro(isa),
            #[cfg(target_arch = "aarch64")]
            Isa::Neon => neon::micro(isa),
            _ => portable::micro(isa),
        })
    }

    /// The instruction set.
    pub fn isa(&self) -> Isa {
        self.isa
    }

    /// Most rows in a [`RowsTile`].
    pub fn max_rows(&self) -> usize {
        self.rows[0].len()
    }

    /// Whether there are kernels for rows in runs.
    pub fn has_runs(&self) -> bool {
        !self.runs.is_empty()
    }

    /// Most panels in a [`RowsTile`].
    pub fn max_panels(&self) -> usize {
        self.rows.len()
    }

    /// Most input channels in a [`GradTile`] of some panels.
    pub fn max_grad_rows(&self, panels: usize) -> usize {
        self.grad[panels - 1].len()
    }

    /// Most panels in a [`GradTile`].
    pub fn max_grad_panels(&self) -> usize {
        self.grad.len()
    }

    /// Computes a tile of `rows` rows.
    ///
    /// # Safety
    /// All pointers and offsets of the tile must be valid, and no other thread may access the output rows.
    #[inline]
    pub unsafe fn rows(&self, order: Order, rows: usize, tile: &RowsTile<'_>) {
        let kernels = match order {
            Order::Apart => self.rows,
            Order::Runs => self.runs,
            Order::PixelRuns => self.pixel_runs,
        };
        // SAFETY: `new` has checked the CPU's features; the rest is the caller's promise.
        unsafe { kernels[tile.panels.len() - 1][rows - 1](tile) }
    }

    /// Adds to a tile of `rows` input channels of a weight gradient.
    ///
    /// # Safety
    /// As for [`Micro::rows`].
    #[inline]
    pub unsafe fn grad(&self, rows: usize, tile: &GradTile<'_>) {
        // SAFETY: `new` has checked the CPU's features; the rest is the caller's promise.
        unsafe { self.grad[tile.panels.len() - 1][rows - 1](tile) }
    }
}

/// The body of every rows kernel: `R` rows in runs of `G` that lie `A` floats apart, `P` panels, `N` vectors of `S` across the
/// 16 channels of each.
#[inline(always)]
unsafe fn rows_body<
    S: Simd,
    const R: usize,
    const G: usize,
    const A: usize,
    const P: usize,
    const N: usize,
>(
    t: &RowsTile<'_>,
) {
    // SAFETY: all accesses are within what the caller of `Micro::rows` vouches for.
    unsafe {
        let mut acc = [[[S::zero(); N]; R]; P];
        let panels = &*t.panels.as_ptr().cast::<[Panel; P]>();
        let mut ahead = t.ahead;
        for panel in panels {
            fetch_output::<R, G>(t, panel);
        }
        let mut rows = t.x_rows.as_ptr();
        for (i, item) in t.items.iter().enumerate() {
            let mut b: [*const f32; P] = std::array::from_fn(|p| panels[p].w.add(item.w));
            let mut a: [*const f32; R] = std::array::from_fn(|r| item.x.add(*rows.add(r / G) as usize));
            rows = rows.add(R.div_ceil(G));
            if A == BLOCK && (G > 1 || S::REGISTERS == 16 && item.blocks > FEW) {
                // The last blocks are busy while the first ones of the rows that follow are fetched.
                let own = if item.blocks > FEW { item.blocks - AHEAD } else { 0 };
                for _ in 0..own {
                    fetch_ahead(&mut ahead);
                    fetch_rows::<R, G>(&a, AHEAD * item.x_block);
                    block::<S, R, G, A, P, N>(&mut acc, &mut a, item.x_block, &mut b);
                }
                let (next, rows) = match t.items.get(i + 1) {
                    Some(next) => (next, rows),
                    None => (&t.items[0], t.then.as_ptr()),
                };
                let then: [*const f32; R] =
                    std::array::from_fn(|r| next.x.wrapping_add(*rows.add(r / G) as usize));
                for i in 0..item.blocks - own {
                    fetch_ahead(&mut ahead);
                    fetch_rows::<R, G>(&then, i * next.x_block);
                    block::<S, R, G, A, P, N>(&mut acc, &mut a, item.x_block, &mut b);
                }
            } else {
                for _ in 0..item.blocks {
                    fetch_ahead(&mut ahead);
                    block::<S, R, G, A, P, N>(&mut acc, &mut a, item.x_block, &mut b);
                }
            }
            for k in 0..item.tail {
                step::<S, R, G, A, P, N>(&mut acc, &a, k, &b);
            }
        }
        // Not a loop: the compiler could leave it one, and would then keep the sums in memory.
        finish::<S, R, G, N>(&mut acc[0], t, &panels[0]);
        if P > 1 {
            finish::<S, R, G, N>(&mut acc[P - 1], t, &panels[P - 1]);
        }
    }
}

/// Asks for a block's share of the weights of a later tile.
#[inline(always)]
fn fetch_ahead(ahead: &mut Ahead) {
    for _ in 0..ahead.lines {
        prefetch::<FAR>(ahead.from);
        ahead.from = ahead.from.wrapping_add(BLOCK);
    }
}

/// Asks for the lines that a panel will write, and for its residual: while the products run, they come from memory.
#[inline(always)]
unsafe fn fetch_output<const R: usize, const G: usize>(t: &RowsTile<'_>, panel: &Panel) {
    // SAFETY: see `rows_body`.
    unsafe {
        for r in 0..R {
            prefetch::<NEAR>(panel.y.wrapping_add(t.place::<G>(t.y_rows, r)));
        }
        if !panel.epilogue.residual.is_null() {
            for r in 0..R {
                prefetch::<NEAR>(panel.epilogue.residual.wrapping_add(t.place::<G>(t.residual_rows, r)));
            }
        }
    }
}

/// Asks for the lines of rows in runs of `G`, `at` floats behind their pointers.
#[inline(always)]
fn fetch_rows<const R: usize, const G: usize>(a: &[*const f32; R], at: usize) {
    for r in 0..R {
        prefetch::<NEAR>(a[r].wrapping_add(r % G * BLOCK + at));
    }
}

/// Adds the products of 16 values of k, and goes on to the next ones, whose weights it fetches meanwhile.
#[inline(always)]
unsafe fn block<S: Simd, const R: usize, const G: usize, const A: usize, const P: usize, const N: usize>(
    acc: &mut [[[S::V; N]; R]; P],
    a: &mut [*const f32; R],
    a_block: usize,
    b: &mut [*const f32; P],
) {
    // SAFETY: see `rows_body`.
    unsafe {
        for first in (0..BLOCK).step_by(const { unrolled::<S>() }) {
            for k in first..first + const { unrolled::<S>() } {
                for p in 0..P {
                    prefetch::<NEAR>(b[p].wrapping_add((BLOCK + k) * BLOCK));
                }
                step::<S, R, G, A, P, N>(acc, a, k, b);
            }
        }
        for p in b {
            *p = p.add(BLOCK * BLOCK);
        }
        for p in a {
            *p = p.wrapping_add(a_block);
        }
    }
}

/// Adds the products of value `k`.
#[inline(always)]
unsafe fn step<S: Simd, const R: usize, const G: usize, const A: usize, const P: usize, const N: usize>(
    acc: &mut [[[S::V; N]; R]; P],
    a: &[*const f32; R],
    k: usize,
    b: &[*const f32; P],
) {
    // SAFETY: see `rows_body`.
    unsafe {
        let b: [[S::V; N]; P] =
            std::array::from_fn(|p| std::array::from_fn(|n| S::load(b[p].add(k * BLOCK + n * S::LANES))));
        for r in 0..R {
            let x = S::broadcast(a[r].add(r % G * A + k));
            for p in 0..P {
                for n in 0..N {
                    acc[p][r][n] = S::mul_add(x, b[p][n], acc[p][r][n]);
                }
            }
        }
    }
}

/// Finishes a panel and stores it.
#[inline(always)]
unsafe fn finish<S: Simd, const R: usize, const G: usize, const N: usize>(
    acc: &mut [[S::V; N]; R],
    t: &RowsTile<'_>,
    panel: &Panel,
) {
    // SAFETY: see `rows_body`.
    unsafe {
        let e = &panel.epilogue;
        let y: [*mut f32; R] = std::array::from_fn(|r| panel.y.add(t.place::<G>(t.y_rows, r)));
        if e.accumulate {
            for r in 0..R {
                for n in 0..N {
                    acc[r][n] = S::add(acc[r][n], S::load(y[r].add(n * S::LANES)));
                }
            }
        }
        if !e.bias.is_null() {
            for n in 0..N {
                let bias = S::load(e.bias.add(n * S::LANES));
                for r in 0..R {
                    acc[r][n] = S::add(acc[r][n], bias);
                }
            }
        }
        if !e.residual.is_null() {
            for r in 0..R {
                let residual = e.residual.add(t.place::<G>(t.residual_rows, r));
                for n in 0..N {
                    acc[r][n] = S::add(acc[r][n], S::load(residual.add(n * S::LANES)));
                }
            }
        }
        if e.relu {
            for r in 0..R {
                for n in 0..N {
                    acc[r][n] = S::relu(acc[r][n]);
                }
            }
        }
        for r in 0..R {
            for n in 0..N {
                S::store(y[r].add(n * S::LANES), acc[r][n]);
            }
        }
    }
}

/// The body of every gradient kernel: `R` input channels, `P` panels, `N` vectors across the 16 output channels of each.
#[inline(always)]
unsafe fn grad_body<S: Simd, const R: usize, const P: usize, const N: usize>(t: &GradTile<'_>) {
    // SAFETY: all accesses are within what the caller of `Micro::grad` vouches for.
    unsafe {
        let mut acc = [[[S::zero(); N]; P]; R];
        let panels = &*t.panels.as_ptr().cast::<[(*const f32, *mut f32); P]>();
        for run in t.runs {
            let mut x = t.x.add(run.x as usize);
            let mut dy: [*const f32; P] = std::array::from_fn(|p| panels[p].0.add(run.dy as usize));
            let unrolled = const { grad_unrolled::<S>() };
            for _ in 0..run.len as usize / unrolled {
                for _ in 0..unrolled {
                    row::<S, R, P, N>(&mut acc, &mut x, t.x_stride, &mut dy);
                }
            }
            for _ in 0..run.len as usize % unrolled {
                row::<S, R, P, N>(&mut acc, &mut x, t.x_stride, &mut dy);
            }
        }
        for p in 0..P {
            for r in 0..R {
                for n in 0..N {
                    let dw = panels[p].1.add(r * BLOCK + n * S::LANES);
                    S::store(dw, S::add(S::load(dw), acc[r][p][n]));
                }
            }
        }
    }
}

/// Adds the products of a row, and goes on to the next one.
#[inline(always)]
unsafe fn row<S: Simd, const R: usize, const P: usize, const N: usize>(
    acc: &mut [[[S::V; N]; P]; R],
    x: &mut *const f32,
    x_stride: usize,
    dy: &mut [*const f32; P],
) {
    // SAFETY: see `grad_body`.
    unsafe {
        prefetch::<NEAR>(x.wrapping_add(GRAD_AHEAD * x_stride));
        for p in 0..P {
            prefetch::<NEAR>(dy[p].wrapping_add(GRAD_AHEAD * BLOCK));
        }
        let b: [[S::V; N]; P] =
            std::array::from_fn(|p| std::array::from_fn(|n| S::load(dy[p].add(n * S::LANES))));
        for r in 0..R {
            let v = S::broadcast(x.add(r));
            for p in 0..P {
                for n in 0..N {
                    acc[r][p][n] = S::mul_add(v, b[p][n], acc[r][p][n]);
                }
            }
        }
        *x = x.wrapping_add(x_stride);
        for p in dy {
            *p = p.wrapping_add(BLOCK);
        }
    }
}

/// Compiles the bodies for one instruction set and each number of panels and rows.
macro_rules! kernels {
    ($module:ident, $simd:ident, $n:expr, [$($feature:literal)?],
     rows: [$($p:literal: $r:tt)+], runs: [$($rp:literal: $rr:tt)*], grad: [$($gp:literal: $g:tt)+]) => {
        mod $module {
            use super::*;

            $(#[target_feature(enable = $feature)])?
            unsafe fn rows<const R: usize, const P: usize>(t: &RowsTile<'_>) {
                // SAFETY: passed on to the caller.
                unsafe { rows_body::<$simd, R, 1, BLOCK, P, $n>(t) }
            }

            $(#[target_feature(enable = $feature)])?
            #[allow(dead_code, reason = "not every instruction set has them")]
            unsafe fn runs<const R: usize, const P: usize>(t: &RowsTile<'_>) {
                // SAFETY: passed on to the caller.
                unsafe { rows_body::<$simd, R, RUN, BLOCK, P, $n>(t) }
            }

            $(#[target_feature(enable = $feature)])?
            #[allow(dead_code, reason = "not every instruction set has them")]
            unsafe fn pixel_runs<const R: usize, const P: usize>(t: &RowsTile<'_>) {
                // SAFETY: passed on to the caller.
                unsafe { rows_body::<$simd, R, RUN, PIXEL_STEP, P, $n>(t) }
            }

            $(#[target_feature(enable = $feature)])?
            unsafe fn grad<const R: usize, const P: usize>(t: &GradTile<'_>) {
                // SAFETY: passed on to the caller.
                unsafe { grad_body::<$simd, R, P, $n>(t) }
            }

            pub(super) fn micro(isa: Isa) -> Micro {
                Micro {
                    isa,
                    rows: &[$(of!(rows, $p, $r)),+],
                    runs: &[$(of!(runs, $rp, $rr)),*],
                    pixel_runs: &[$(of!(pixel_runs, $rp, $rr)),*],
                    grad: &[$(of!(grad, $gp, $g)),+],
                }
            }
        }
    };
}

/// Kernels of some panels.
macro_rules! of {
    ($kernel:ident, $p:literal, [$($r:literal)+]) => { &[$($kernel::<$r, $p>),+] };
}

#[cfg(target_arch = "x86_64")]
kernels!(avx512, Avx512, 1, ["avx512f,avx512vl,avx512bw,avx512dq,avx2,fma"],
    rows: [1: [1 2 3 4 5 6 7 8 9 10 11 12 13 14] 2: [1 2 3 4 5 6 7 8 9 10 11 12 13 14]],
    runs: [1: [1 2 3 4 5 6 7 8 9 10 11 12 13 14] 2: [1 2 3 4 5 6 7 8 9 10 11 12 13 14]],
    grad: [1: [1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16] 2: [1 2 3 4 5 6 7 8] 3: [1 2 3 4 5 6 7 8]]);
#[cfg(target_arch = "x86_64")]
kernels!(avx2, Avx2, 2, ["avx2,fma"], rows: [1: [1 2 3 4 5 6]], runs: [], grad: [1: [1 2 3 4 5 6]]);
#[cfg(target_arch = "aarch64")]
kernels!(neon, Neon, 4, ["neon"], rows: [1: [1 2 3 4 5 6]], runs: [], grad: [1: [1 2 3 4 5 6]]);
kernels!(portable, Portable, 4, [], rows: [1: [1 2]], runs: [], grad: [1: [1 2 3]]);
