//! Batch norm in train mode, one plane of 32 channels at a time, fused with the sum at the end of a block and ReLU.
//!
//! Parameters and statistics are slices of a plane's channels; those that a slice is too short for are padding, which stays
//! zero.

#![allow(clippy::needless_range_loop, reason = "channel loops index several rows at once")]

use super::super::Kernels;
use super::super::stored::{WIDTH, widen};
use super::super::tiles::Vectors;
use super::{Bits, Lanes, rows, rows_mut, store};
use crate::batch_norm::{PARTIAL_ROWS, affine};
use crate::{BN_EPS, Isa};

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
                    let mut v = [0.0; WIDTH];
                    for c in 0..WIDTH {
                        v[c] = relu(widen(x[c]) * scale[c] + shift[c]);
                    }
                    store::<V>(&v, y);
                }
            }
            Bf16Skip::Plane(skip) => {
                for ((y, x), skip) in y.iter_mut().zip(x).zip(rows(skip, job.rows)) {
                    let mut v = [0.0; WIDTH];
                    for c in 0..WIDTH {
                        v[c] = relu(widen(x[c]) * scale[c] + shift[c] + widen(skip[c]));
                    }
                    store::<V>(&v, y);
                }
            }
            Bf16Skip::Norm(norm) => {
                let skip = rows(norm.x, job.rows);
                let [skip_scale, skip_shift] = normalize(norm, skip, momentum);
                let mut both = shift;
                for c in 0..WIDTH {
                    both[c] += skip_shift[c];
                }
                for ((y, x), skip) in y.iter_mut().zip(x).zip(skip) {
                    let mut v = [0.0; WIDTH];
                    for c in 0..WIDTH {
                        let sum = widen(x[c]) * scale[c] + widen(skip[c]) * skip_scale[c];
                        v[c] = relu(sum + both[c]);
                    }
                    store::<V>(&v, y);
                }
            }
        }
    }
}

/// Takes the statistics of a batch; scale and shift that normalise it.
#[inline(always)]
fn normalize(norm: &mut Bf16Norm<'_>, x: &[Bits], momentum: f32) -> [Lanes; 2] {
    let count = x.len() as f64;
    let mean = total(x, |x, out| {
        for c in 0..WIDTH {
            out[c] = widen(x[c]);
        }
    })
    .map(|s| (s / count) as f32);
    let var = total(x, |x, out| {
        for c in 0..WIDTH {
            let d = widen(x[c]) - mean[c];
            out[c] = d * d;
        }
    })
    .map(|s| s / count);
    let unbiased = if count > 1.0 { count / (count - 1.0) } else { 1.0 };
    let (mut scale, mut shift) = ([0.0; WIDTH], [0.0; WIDTH]);
    for c in 0..norm.gamma.len() {
        norm.mean[c] = mean[c];
        norm.inv_std[c] = (1.0 / (var[c] + f64::from(BN_EPS)).sqrt()) as f32;
        (scale[c], shift[c]) = affine(norm.gamma[c], norm.beta[c], mean[c], norm.inv_std[c]);
        norm.running_mean[c] += momentum * (mean[c] - norm.running_mean[c]);
        norm.running_var[c] += momentum * ((var[c] * unbiased) as f32 - norm.running_var[c]);
    }
    [scale, shift]
}

/// The sum over the rows of what `f` makes of each.
#[inline(always)]
fn total(x: &[Bits], f: impl Fn(&Bits, &mut Lanes)) -> [f64; WIDTH] {
    let mut total = [0.0f64; WIDTH];
    for rows in x.chunks(PARTIAL_ROWS) {
        let mut partial = [0.0f32; WIDTH];
        for row in rows {
            let mut v = [0.0; WIDTH];
            f(row, &mut v);
            for c in 0..WIDTH {
                partial[c] += v[c];
            }
        }
        for c in 0..WIDTH {
            total[c] += f64::from(partial[c]);
        }
    }
    total
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
    let mean = padded(job.norm.mean);
    let skip_x = job.skip.as_ref().map_or(&[][..], |skip| rows(skip.x, job.rows));
    let skip_mean = job.skip.as_ref().map_or(mean, |skip| padded(skip.mean));
    let [dbeta, dgamma, skip_dgamma] = if let Some(y) = job.y {
        let y = rows(y, job.rows);
        sums(dy, [x, skip_x], [mean, skip_mean], |r, c| y[r][c].cast_signed() > 0)
    } else {
        let [gamma, beta, inv_std] = [job.norm.gamma, job.norm.beta, job.norm.inv_std].map(padded);
        let (mut scale, mut shift) = ([0.0; WIDTH], [0.0; WIDTH]);
        for c in 0..WIDTH {
            (scale[c], shift[c]) = affine(gamma[c], beta[c], mean[c], inv_std[c]);
        }
        // Rounding makes zero of what is below the smallest normal number.
        let positive = |r: usize, c: usize| widen(x[r][c]) * scale[c] + shift[c] >= f32::MIN_POSITIVE;
        sums(dy, [x, skip_x], [mean, skip_mean], positive)
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
                    let v = input_gradient(dy, x, &mean, &slopes);
                    store::<V>(&v, dy);
                }
            }
        }
    }
}

/// Keeps the gradient where the output is positive; its sum, and those of its products with one or two inputs less their
/// means.
#[inline(always)]
fn sums(
    dy: &mut [Bits],
    x: [&[Bits]; 2],
    mean: [Lanes; 2],
    positive: impl Fn(usize, usize) -> bool,
) -> [[f64; WIDTH]; 3] {
    let mut totals = [[0.0f64; WIDTH]; 3];
    for start in (0..dy.len()).step_by(PARTIAL_ROWS) {
        let end = (start + PARTIAL_ROWS).min(dy.len());
        let [mut beta, mut gamma, mut skip_gamma] = [[0.0f32; WIDTH]; 3];
        for r in start..end {
            let mut g = [0.0; WIDTH];
            for c in 0..WIDTH {
                let kept = if positive(r, c) { dy[r][c] } else { 0 };
                dy[r][c] = kept;
                g[c] = widen(kept);
                beta[c] += g[c];
                gamma[c] += g[c] * (widen(x[0][r][c]) - mean[0][c]);
            }
            if let Some(x) = x[1].get(r) {
                for c in 0..WIDTH {
                    skip_gamma[c] += g[c] * (widen(x[c]) - mean[1][c]);
                }
            }
        }
        for (total, partial) in totals.iter_mut().zip([beta, gamma, skip_gamma]) {
            for c in 0..WIDTH {
                total[c] += f64::from(partial[c]);
            }
        }
    }
    totals
}

/// What the gradient of an input is made of: `scale * g - shift - slope * (x - mean)`.
struct Slopes {
    scale: Lanes,
    slope: Lanes,
    shift: Lanes,
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
    Slopes { scale, slope, shift }
}

/// Gradient of the input of a batch norm.
///
/// # Safety
/// The CPU must support `V`.
#[inline(always)]
unsafe fn spread<V: Vectors>(dy: &[Bits], x: &[Bits], mean: &Lanes, slopes: &Slopes, dx: &mut [Bits]) {
    for ((dx, dy), x) in dx.iter_mut().zip(dy).zip(x) {
        let v = input_gradient(dy, x, mean, slopes);
        // SAFETY: by the caller.
        unsafe { store::<V>(&v, dx) };
    }
}

#[inline(always)]
fn input_gradient(dy: &Bits, x: &Bits, mean: &Lanes, s: &Slopes) -> Lanes {
    let mut v = [0.0; WIDTH];
    for c in 0..WIDTH {
        v[c] = widen(dy[c]) * s.scale[c] - s.shift[c] - (widen(x[c]) - mean[c]) * s.slope[c];
    }
    v
}

fn padded(values: &[f32]) -> Lanes {
    let mut lanes = [0.0; WIDTH];
    lanes[..values.len()].copy_from_slice(values);
    lanes
}

/// ReLU that keeps NaN, as PyTorch's does.
#[inline(always)]
fn relu(v: f32) -> f32 {
    if v < 0.0 { 0.0 } else { v }
}
