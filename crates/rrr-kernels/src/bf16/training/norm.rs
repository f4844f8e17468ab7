//! Batch norm in train mode, one plane of 32 channels at a time, fused with the sum at the end of a block and ReLU.
//!
//! Parameters and statistics are slices of a plane's channels; those that a slice is too short for are padding, which stays
//! zero.

#![allow(clippy::needless_range_loop, reason = "channel loops index several rows at once")]

use super::super::Kernels;
use super::super::stored::WIDTH;
use super::super::tiles::Vectors;
use super::{Bits, rows, rows_mut};
use crate::batch_norm::{PARTIAL_ROWS, affine};
use crate::prefetch::{FAR, prefetch};
use crate::tiles::SIDE;
use crate::{BN_EPS, Isa};

/// A number per channel of a plane: of the even ones and of the odd ones, as a row's pairs are taken apart.
type Halves = [[f32; SIDE]; 2];

/// Sums of them over many rows.
type Totals = [[f64; SIDE]; 2];

/// How many rows ahead a first pass over a plane fetches: two pages, since what CPUs fetch unasked ends with a page.
const AHEAD: usize = 2 * 4096 / size_of::<Bits>();

/// A batch norm of a plane.
pub struct Bf16Norm<'a> {
    /// Input plane.
    pub x: &'a [u16],
    /// Scale per channel.
    pub gamma: &'a [f32],
    /// Shift per channel.
    pub beta: &'a [f32],
    /// Set to the batch's mean.
    pub mean: &'a mut [f32],
    /// Set to `1 / sqrt(batch variance + eps)`.
    pub inv_std: &'a mut [f32],
    /// Moved towards the batch's mean.
    pub running_mean: &'a mut [f32],
    /// Moved towards the batch's unbiased variance.
    pub running_var: &'a mut [f32],
}

/// What is added to a batch norm's result.
pub enum Bf16Skip<'a> {
    /// Nothing.
    None,
    /// A plane.
    Plane(&'a [u16]),
    /// Another batch norm's result.
    Norm(Bf16Norm<'a>),
}

/// One plane of a forward pass: `y = relu(norm(x) + skip)`, in f32, then rounded.
pub struct Bf16BnForward<'a> {
    /// Rows of the planes, the row of zeros not counted.
    pub rows: usize,
    /// The batch norm.
    pub norm: Bf16Norm<'a>,
    /// What is added.
    pub skip: Bf16Skip<'a>,
    /// Output plane, of which only the rows are written.
    pub y: &'a mut [u16],
}

/// A [`Bf16BnForward`] with its momentum.
pub struct ForwardTask<'a> {
    job: Bf16BnForward<'a>,
    momentum: f32,
}

/// Runs a [`Bf16BnForward`] with PyTorch's epsilon and the given momentum (weight of the new batch in the running
/// statistics).
///
/// # Panics
/// If a plane is too short.
pub fn bf16_bn_forward(isa: Isa, momentum: f32, job: Bf16BnForward<'_>) {
    let kernels = Kernels::new(isa);
    // SAFETY: `Kernels::new` has checked the CPU.
    unsafe { (kernels.bn_forward)(&mut ForwardTask { job, momentum }) }
}

/// A batch norm's gradients.
pub struct Bf16NormGrad<'a> {
    /// The forward pass's input plane.
    pub x: &'a [u16],
    /// Scale per channel.
    pub gamma: &'a [f32],
    /// Shift per channel.
    pub beta: &'a [f32],
    /// The batch's mean.
    pub mean: &'a [f32],
    /// `1 / sqrt(batch variance + eps)`.
    pub inv_std: &'a [f32],
    /// Set to the gradient of `gamma`.
    pub dgamma: &'a mut [f32],
    /// Set to the gradient of `beta`.
    pub dbeta: &'a mut [f32],
    /// Set to the gradient of the input plane; `None`: that goes to [`Bf16BnBackward::dy`].
    pub dx: Option<&'a mut [u16]>,
}

/// One plane of a backward pass through `relu(norm(x) + skip)`.
pub struct Bf16BnBackward<'a> {
    /// Rows of the planes, the row of zeros not counted.
    pub rows: usize,
    /// The forward pass's output plane: the gradient passes where it is positive. `None`: nothing was added to the batch
    /// norm's result, which is as fast to compute as to read.
    pub y: Option<&'a [u16]>,
    /// Gradient of the output plane; set to that before ReLU.
    pub dy: &'a mut [u16],
    /// The batch norm.
    pub norm: Bf16NormGrad<'a>,
    /// The batch norm on the skip path, with a plane of its own for its gradient.
    pub skip: Option<Bf16NormGrad<'a>>,
}

/// A [`Bf16BnBackward`].
pub struct BackwardTask<'a>(Bf16BnBackward<'a>);

/// Runs a [`Bf16BnBackward`].
///
/// # Panics
/// If a plane is too short.
pub fn bf16_bn_backward(isa: Isa, job: Bf16BnBackward<'_>) {
    let kernels = Kernels::new(isa);
    // SAFETY: `Kernels::new` has checked the CPU.
    unsafe { (kernels.bn_backward)(&mut BackwardTask(job)) }
}

/// Computes a task.
///
/// # Safety
/// The CPU must support `V`.
#[inline(always)]
pub unsafe fn forward<V: Vectors>(task: &mut ForwardTask<'_>) {
    let (job, momentum) = (&mut task.job, task.momentum);
    let y = rows_mut(job.y, job.rows);
    let x = rows(job.norm.x, job.rows);
    let [scale, shift] = normalize(&mut job.norm, x, momentum);
    // SAFETY: the CPU by the caller.
    unsafe {
        match &mut job.skip {
            Bf16Skip::None => {
                for (y, x) in y.iter_mut().zip(x) {
                    let x = widen(x);
                    store::<V>(|h, i| relu(x[h][i] * scale[h][i] + shift[h][i]), y);
                }
            }
            Bf16Skip::Plane(skip) => {
                for ((y, x), skip) in y.iter_mut().zip(x).zip(rows(skip, job.rows)) {
                    let (x, skip) = (widen(x), widen(skip));
                    store::<V>(|h, i| relu(x[h][i] * scale[h][i] + shift[h][i] + skip[h][i]), y);
                }
            }
            Bf16Skip::Norm(norm) => {
                let skip = rows(norm.x, job.rows);
                let [skip_scale, skip_shift] = normalize(norm, skip, momentum);
                let both = of_channels(|h, i| shift[h][i] + skip_shift[h][i]);
                for ((y, x), skip) in y.iter_mut().zip(x).zip(skip) {
                    let (x, skip) = (widen(x), widen(skip));
                    let sum = |h: usize, i: usize| x[h][i] * scale[h][i] + skip[h][i] * skip_scale[h][i];
                    store::<V>(|h, i| relu(sum(h, i) + both[h][i]), y);
                }
            }
        }
    }
}

/// Takes the statistics of a batch; scale and shift that normalise it.
#[inline(always)]
fn normalize(norm: &mut Bf16Norm<'_>, x: &[Bits], momentum: f32) -> [Halves; 2] {
    let count = x.len() as f64;
    let mean = total::<1, true>(x, |x, _, _| x).map(|s| (s / count) as f32);
    let means = halves(&mean);
    let square = |x: f32, h: usize, i: usize| (x - means[h][i]) * (x - means[h][i]);
    let var = total::<2, false>(x, square).map(|s| s / count);
    let unbiased = if count > 1.0 { count / (count - 1.0) } else { 1.0 };
    let (mut scale, mut shift) = ([0.0; WIDTH], [0.0; WIDTH]);
    for c in 0..norm.gamma.len() {
        norm.mean[c] = mean[c];
        norm.inv_std[c] = (1.0 / (var[c] + f64::from(BN_EPS)).sqrt()) as f32;
        (scale[c], shift[c]) = affine(norm.gamma[c], norm.beta[c], mean[c], norm.inv_std[c]);
        norm.running_mean[c] += momentum * (mean[c] - norm.running_mean[c]);
        norm.running_var[c] += momentum * ((var[c] * unbiased) as f32 - norm.running_var[c]);
    }
    [halves(&scale), halves(&shift)]
}

/// The sum over the rows of what `f` makes of each number. `N` parts of the rows are summed side by side, so that sums need not
/// wait for one another; `FETCH` also fetches the rows ahead.
#[inline(always)]
fn total<const N: usize, const FETCH: bool>(
    x: &[Bits],
    f: impl Fn(f32, usize, usize) -> f32,
) -> [f64; WIDTH] {
    let mut totals = [[0.0; SIDE]; 2];
    let mut runs = x.chunks_exact(N * PARTIAL_ROWS);
    for rows in &mut runs {
        for sums in &partial::<N, FETCH>(rows, &f) {
            add(&mut totals, sums);
        }
    }
    for rows in runs.remainder().chunks(PARTIAL_ROWS) {
        add(&mut totals, &partial::<1, FETCH>(rows, &f)[0]);
    }
    in_order(&totals)
}

/// Sums over each of `N` parts of the rows.
#[inline(always)]
fn partial<const N: usize, const FETCH: bool>(
    rows: &[Bits],
    f: &impl Fn(f32, usize, usize) -> f32,
) -> [Halves; N] {
    let mut sums = [[[0.0; SIDE]; 2]; N];
    let len = rows.len() / N;
    for r in 0..len {
        for n in 0..N {
            let row = &rows[n * len + r];
            if FETCH {
                fetch(row);
            }
            let x = widen(row);
            for h in 0..2 {
                for i in 0..SIDE {
                    sums[n][h][i] += f(x[h][i], h, i);
                }
            }
        }
    }
    sums
}

/// Adds sums over some rows to the totals.
#[inline(always)]
fn add(totals: &mut Totals, sums: &Halves) {
    for h in 0..2 {
        for i in 0..SIDE {
            totals[h][i] += f64::from(sums[h][i]);
        }
    }
}

/// In the order of the channels.
#[inline(always)]
fn in_order(totals: &Totals) -> [f64; WIDTH] {
    let mut ordered = [0.0; WIDTH];
    for h in 0..2 {
        for i in 0..SIDE {
            ordered[2 * i + h] = totals[h][i];
        }
    }
    ordered
}

/// Computes a task.
///
/// # Safety
/// The CPU must support `V`.
#[inline(always)]
pub unsafe fn backward<V: Vectors>(task: &mut BackwardTask<'_>) {
    let job = &mut task.0;
    let dy = rows_mut(job.dy, job.rows);
    let x = rows(job.norm.x, job.rows);
    let mean = halves(job.norm.mean);
    let skip_x = job.skip.as_ref().map_or(&[][..], |skip| rows(skip.x, job.rows));
    let skip_mean = job.skip.as_ref().map_or(mean, |skip| halves(skip.mean));
    let (inputs, means) = ([x, skip_x], [mean, skip_mean]);
    let [dbeta, dgamma, skip_dgamma] = if let Some(y) = job.y {
        let y = rows(y, job.rows);
        let signs = |r: usize, _: &Halves| {
            fetch(&y[r]);
            widen(&y[r])
        };
        sums(dy, inputs, means, signs, |y, _, _| y.to_bits().cast_signed() > 0)
    } else {
        let (mut scale, mut shift) = ([0.0; WIDTH], [0.0; WIDTH]);
        let Bf16NormGrad { gamma, beta, mean, inv_std, .. } = &job.norm;
        for c in 0..gamma.len() {
            (scale[c], shift[c]) = affine(gamma[c], beta[c], mean[c], inv_std[c]);
        }
        let [scale, shift] = [scale, shift].map(|values| halves(&values));
        // Rounding makes zero of what is below the smallest normal number.
        let positive = |x: f32, h: usize, i: usize| x * scale[h][i] + shift[h][i] >= f32::MIN_POSITIVE;
        sums(dy, inputs, means, |_, x| *x, positive)
    };
    // SAFETY: the CPU by the caller.
    unsafe {
        if let Some(skip) = &mut job.skip {
            let slopes = gradients(skip, job.rows, &dbeta, &skip_dgamma);
            let dx = skip.dx.as_mut().expect("the skip path has a plane of its own");
            spread::<V>(&*dy, skip_x, &skip_mean, &slopes, rows_mut(dx, job.rows));
        }
        let slopes = gradients(&mut job.norm, job.rows, &dbeta, &dgamma);
        match &mut job.norm.dx {
            Some(dx) => spread::<V>(&*dy, x, &mean, &slopes, rows_mut(dx, job.rows)),
            None => {
                for (dy, x) in dy.iter_mut().zip(x) {
                    let (g, x) = (widen(dy), widen(x));
                    store::<V>(|h, i| slopes.input_gradient(g[h][i], x[h][i] - mean[h][i], h, i), dy);
                }
            }
        }
    }
}

/// Keeps the gradient where the output is positive; its sum, and those of its products with one or two inputs less their
/// means. Where that is, `positive` tells from the row that `signs` gives for the number of a row and the first input's.
#[inline(always)]
fn sums(
    dy: &mut [Bits],
    x: [&[Bits]; 2],
    mean: [Halves; 2],
    signs: impl Fn(usize, &Halves) -> Halves,
    positive: impl Fn(f32, usize, usize) -> bool,
) -> [[f64; WIDTH]; 3] {
    let mut totals = [[[0.0; SIDE]; 2]; 3];
    for start in (0..dy.len()).step_by(PARTIAL_ROWS) {
        let end = (start + PARTIAL_ROWS).min(dy.len());
        let [mut beta, mut gamma, mut skip_gamma] = [[[0.0f32; SIDE]; 2]; 3];
        for r in start..end {
            for row in [&dy[r], &x[0][r]].into_iter().chain(x[1].get(r)) {
                fetch(row);
            }
            let (mut g, x0) = (widen(&dy[r]), widen(&x[0][r]));
            let signs = signs(r, &x0);
            for h in 0..2 {
                for i in 0..SIDE {
                    g[h][i] = if positive(signs[h][i], h, i) { g[h][i] } else { 0.0 };
                    beta[h][i] += g[h][i];
                    gamma[h][i] += g[h][i] * (x0[h][i] - mean[0][h][i]);
                }
            }
            dy[r] = narrow(&g);
            if let Some(x) = x[1].get(r) {
                let x = widen(x);
                for h in 0..2 {
                    for i in 0..SIDE {
                        skip_gamma[h][i] += g[h][i] * (x[h][i] - mean[1][h][i]);
                    }
                }
            }
        }
        for (total, partial) in totals.iter_mut().zip([beta, gamma, skip_gamma]) {
            add(total, &partial);
        }
    }
    totals.map(|totals| in_order(&totals))
}

/// What the gradient of an input is made of: `scale * g - shift - slope * (x - mean)`.
struct Slopes {
    scale: Halves,
    slope: Halves,
    shift: Halves,
}

impl Slopes {
    /// The gradient of an input, from that of the output and the distance to the mean.
    #[inline(always)]
    fn input_gradient(&self, g: f32, distance: f32, h: usize, i: usize) -> f32 {
        g * self.scale[h][i] - self.shift[h][i] - distance * self.slope[h][i]
    }
}

/// Sets a batch norm's gradients from their sums over the rows.
#[inline(always)]
fn gradients(
    norm: &mut Bf16NormGrad<'_>,
    rows: usize,
    dbeta: &[f64; WIDTH],
    dgamma: &[f64; WIDTH],
) -> Slopes {
    let count = rows as f32;
    let [mut scale, mut slope, mut shift] = [[0.0; WIDTH]; 3];
    for c in 0..norm.gamma.len() {
        let inv_std = norm.inv_std[c];
        norm.dbeta[c] = dbeta[c] as f32;
        norm.dgamma[c] = dgamma[c] as f32 * inv_std;
        scale[c] = norm.gamma[c] * inv_std;
        slope[c] = scale[c] * inv_std * norm.dgamma[c] / count;
        shift[c] = scale[c] * norm.dbeta[c] / count;
    }
    let [scale, slope, shift] = [scale, slope, shift].map(|values| halves(&values));
    Slopes { scale, slope, shift }
}

/// Gradient of the input of a batch norm.
///
/// # Safety
/// The CPU must support `V`.
#[inline(always)]
unsafe fn spread<V: Vectors>(dy: &[Bits], x: &[Bits], mean: &Halves, slopes: &Slopes, dx: &mut [Bits]) {
    for ((dx, dy), x) in dx.iter_mut().zip(dy).zip(x) {
        let (g, x) = (widen(dy), widen(x));
        // SAFETY: by the caller.
        unsafe { store::<V>(|h, i| slopes.input_gradient(g[h][i], x[h][i] - mean[h][i], h, i), dx) };
    }
}

/// Numbers of channels, zero where there is none.
#[inline(always)]
fn halves(values: &[f32]) -> Halves {
    of_channels(|h, i| values.get(2 * i + h).copied().unwrap_or(0.0))
}

#[inline(always)]
fn of_channels(f: impl Fn(usize, usize) -> f32) -> Halves {
    let mut halves = [[0.0; SIDE]; 2];
    for h in 0..2 {
        for i in 0..SIDE {
            halves[h][i] = f(h, i);
        }
    }
    halves
}

/// Asks for the row [`AHEAD`] of another, which may be one of the next plane.
#[inline(always)]
fn fetch(row: &Bits) {
    prefetch::<FAR>(row.as_ptr().wrapping_add(AHEAD * WIDTH));
}

/// The values of a row.
#[inline(always)]
fn widen(row: &Bits) -> Halves {
    // SAFETY: 32 values of 16 bits are 16 pairs, and all bits are numbers.
    let pairs = unsafe { row.as_ptr().cast::<[u32; SIDE]>().read_unaligned() };
    // A closure for `map` would not be compiled for the task's instruction set.
    let mut halves = [[0.0; SIDE]; 2];
    for i in 0..SIDE {
        halves[0][i] = f32::from_bits(pairs[i] << 16);
        halves[1][i] = f32::from_bits(pairs[i] & 0xffff_0000);
    }
    halves
}

/// A row of values that are bf16 already.
#[inline(always)]
fn narrow(values: &Halves) -> Bits {
    let mut pairs = [0; SIDE];
    for i in 0..SIDE {
        pairs[i] = values[0][i].to_bits() >> 16 | values[1][i].to_bits();
    }
    // SAFETY: as many bits, and all are numbers.
    unsafe { std::mem::transmute::<[u32; SIDE], Bits>(pairs) }
}

/// Rounds what `f` gives for every channel.
///
/// # Safety
/// The CPU must support `V`.
#[inline(always)]
unsafe fn store<V: Vectors>(f: impl Fn(usize, usize) -> f32, to: &mut Bits) {
    let [even, odd] = of_channels(f);
    // SAFETY: 16 values each and a row of as many pairs.
    unsafe { V::pair(even.as_ptr(), odd.as_ptr(), to.as_mut_ptr().cast()) }
}

/// ReLU that keeps NaN, as PyTorch's does.
#[inline(always)]
fn relu(v: f32) -> f32 {
    if v < 0.0 { 0.0 } else { v }
}
