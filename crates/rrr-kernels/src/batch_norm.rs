//! Batch norm in train mode, one plane of 16 channels at a time, fused with the residual sum and ReLU.

#![allow(clippy::needless_range_loop, reason = "channel loops index several rows at once")]

use crate::{BLOCK, Isa};

type Lanes = [f32; BLOCK];

/// Rows summed in f32 before they are added to the f64 totals: short enough that rounding stays far below
/// f32's resolution.
const PARTIAL_ROWS: usize = 64;

/// One plane of a forward pass: `y = relu(gamma * (x - mean) / sqrt(var + eps) + beta + residual)`.
pub struct BnForward<'a> {
    /// Input plane, its zero row included.
    pub x: &'a [f32],
    /// Output plane; the zero row stays untouched.
    pub y: &'a mut [f32],
    /// What to add before ReLU.
    pub residual: Residual<'a>,
    /// Clamp below at zero.
    pub relu: bool,
    /// Scale per channel.
    pub gamma: &'a Lanes,
    /// Shift per channel.
    pub beta: &'a Lanes,
    /// Set to the batch's mean.
    pub mean: &'a mut Lanes,
    /// Set to `1 / sqrt(batch variance + eps)`.
    pub inv_std: &'a mut Lanes,
    /// Moved towards the batch's mean.
    pub running_mean: &'a mut Lanes,
    /// Moved towards the batch's unbiased variance.
    pub running_var: &'a mut Lanes,
}

/// What a [`BnForward`] adds to its result before ReLU.
#[derive(Clone, Copy)]
pub enum Residual<'a> {
    /// Nothing.
    None,
    /// A plane.
    Plane(&'a [f32]),
    /// What the output plane holds.
    Output,
}

/// Runs a [`BnForward`] with PyTorch's epsilon and the given momentum (weight of the new batch in the
/// running statistics).
pub fn bn_forward(isa: Isa, momentum: f32, job: BnForward<'_>) {
    isa.vectorize(|| bn_forward_body(momentum, job));
}

/// PyTorch's default, which all ResNets use.
pub const BN_EPS: f32 = 1e-5;

#[inline(always)]
fn bn_forward_body(momentum: f32, job: BnForward<'_>) {
    let x = rows(job.x);
    let count = x.len() as f64;
    let mean = sum(x.iter(), |x| *x).map(|s| s / count);
    let mean32 = mean.map(|m| m as f32);
    let var = sum(x.iter(), |x| {
        let mut out = [0.0; BLOCK];
        for c in 0..BLOCK {
            let d = x[c] - mean32[c];
            out[c] = d * d;
        }
        out
    })
    .map(|s| s / count);
    let unbiased = if count > 1.0 { count / (count - 1.0) } else { 1.0 };
    let (mut scale, mut shift) = ([0.0; BLOCK], [0.0; BLOCK]);
    for c in 0..BLOCK {
        job.mean[c] = mean32[c];
        job.inv_std[c] = (1.0 / (var[c] + f64::from(BN_EPS)).sqrt()) as f32;
        scale[c] = job.gamma[c] * job.inv_std[c];
        shift[c] = job.beta[c] - mean32[c] * scale[c];
        job.running_mean[c] += momentum * (mean32[c] - job.running_mean[c]);
        job.running_var[c] += momentum * ((var[c] * unbiased) as f32 - job.running_var[c]);
    }
    let y = rows_mut(job.y);
    match job.residual {
        Residual::None => {
            for (y, x) in y.iter_mut().zip(x) {
                for c in 0..BLOCK {
                    let v = x[c] * scale[c] + shift[c];
                    y[c] = if job.relu { relu(v) } else { v };
                }
            }
        }
        Residual::Plane(residual) => {
            for ((y, x), r) in y.iter_mut().zip(x).zip(rows(residual)) {
                for c in 0..BLOCK {
                    let v = x[c] * scale[c] + shift[c] + r[c];
                    y[c] = if job.relu { relu(v) } else { v };
                }
            }
        }
        Residual::Output => {
            for (y, x) in y.iter_mut().zip(x) {
                for c in 0..BLOCK {
                    let v = x[c] * scale[c] + shift[c] + y[c];
                    y[c] = if job.relu { relu(v) } else { v };
                }
            }
        }
    }
}

/// One plane of a backward pass through `relu(batch_norm(x))`.
pub struct BnBackward<'a> {
    /// The forward pass's input plane.
    pub x: &'a [f32],
    /// The forward pass's output plane, if ReLU followed: the gradient passes where it is positive.
    pub relu_output: Option<&'a [f32]>,
    /// Gradient of the output plane; `None`: it is in `dx`.
    pub dy: Option<&'a [f32]>,
    /// Set to the gradient of the input plane; the zero row stays untouched.
    pub dx: &'a mut [f32],
    /// Scale per channel.
    pub gamma: &'a Lanes,
    /// The batch's mean.
    pub mean: &'a Lanes,
    /// `1 / sqrt(batch variance + eps)`.
    pub inv_std: &'a Lanes,
    /// Set to the gradient of `gamma`.
    pub dgamma: &'a mut Lanes,
    /// Set to the gradient of `beta`.
    pub dbeta: &'a mut Lanes,
}

/// Runs a [`BnBackward`].
pub fn bn_backward(isa: Isa, job: BnBackward<'_>) {
    isa.vectorize(|| bn_backward_body(job));
}

#[inline(always)]
fn bn_backward_body(job: BnBackward<'_>) {
    let (x, dy) = (rows(job.x), job.dy.map(rows));
    let count = x.len() as f32;
    let (mean, inv_std) = (*job.mean, *job.inv_std);
    let dx = rows_mut(job.dx);

    // First pass: the masked gradient goes to `dx`, its sums to `dbeta` and `dgamma`.
    let (mut dbeta, mut dgamma) = ([0.0f64; BLOCK], [0.0f64; BLOCK]);
    let mask = job.relu_output.map(rows);
    for start in (0..x.len()).step_by(PARTIAL_ROWS) {
        let end = (start + PARTIAL_ROWS).min(x.len());
        let (mut beta, mut gamma) = ([0.0f32; BLOCK], [0.0f32; BLOCK]);
        for r in start..end {
            let mut g = dy.map_or(dx[r], |dy| dy[r]);
            if let Some(mask) = mask {
                for c in 0..BLOCK {
                    g[c] = if mask[r][c] > 0.0 { g[c] } else { 0.0 };
                }
            }
            for c in 0..BLOCK {
                beta[c] += g[c];
                gamma[c] += g[c] * (x[r][c] - mean[c]);
            }
            dx[r] = g;
        }
        for c in 0..BLOCK {
            dbeta[c] += f64::from(beta[c]);
            dgamma[c] += f64::from(gamma[c]);
        }
    }
    let (mut scale, mut slope, mut shift) = ([0.0; BLOCK], [0.0; BLOCK], [0.0; BLOCK]);
    for c in 0..BLOCK {
        job.dbeta[c] = dbeta[c] as f32;
        job.dgamma[c] = dgamma[c] as f32 * inv_std[c];
        scale[c] = job.gamma[c] * inv_std[c];
        slope[c] = scale[c] * inv_std[c] * job.dgamma[c] / count;
        shift[c] = scale[c] * job.dbeta[c] / count;
    }
    for (dx, x) in dx.iter_mut().zip(x) {
        for c in 0..BLOCK {
            dx[c] = dx[c] * scale[c] - shift[c] - (x[c] - mean[c]) * slope[c];
        }
    }
}

/// Gradient of ReLU on one plane, in place: keeps `dy` where the output `y` is positive.
pub fn relu_backward(isa: Isa, y: &[f32], dy: &mut [f32]) {
    isa.vectorize(|| {
        for (g, y) in rows_mut(dy).iter_mut().zip(rows(y)) {
            for c in 0..BLOCK {
                g[c] = if y[c] > 0.0 { g[c] } else { 0.0 };
            }
        }
    });
}

/// ReLU that keeps NaN, as PyTorch's does.
#[inline(always)]
fn relu(v: f32) -> f32 {
    if v < 0.0 { 0.0 } else { v }
}

#[inline(always)]
fn sum<'a>(rows: impl Iterator<Item = &'a Lanes>, f: impl Fn(&Lanes) -> Lanes) -> [f64; BLOCK] {
    let mut total = [0.0f64; BLOCK];
    let mut partial = [0.0f32; BLOCK];
    let mut left = PARTIAL_ROWS;
    for row in rows {
        let v = f(row);
        for c in 0..BLOCK {
            partial[c] += v[c];
        }
        left -= 1;
        if left == 0 {
            for c in 0..BLOCK {
                total[c] += f64::from(partial[c]);
            }
            partial = [0.0; BLOCK];
            left = PARTIAL_ROWS;
        }
    }
    for c in 0..BLOCK {
        total[c] += f64::from(partial[c]);
    }
    total
}

/// The rows of a plane, without its zero row.
#[inline(always)]
pub(crate) fn rows(plane: &[f32]) -> &[Lanes] {
    let (rows, rest) = plane.as_chunks::<BLOCK>();
    debug_assert!(rest.is_empty());
    &rows[..rows.len() - 1]
}

/// The rows of a plane, without its zero row.
#[inline(always)]
pub(crate) fn rows_mut(plane: &mut [f32]) -> &mut [Lanes] {
    let (rows, rest) = plane.as_chunks_mut::<BLOCK>();
    debug_assert!(rest.is_empty());
    let len = rows.len() - 1;
    &mut rows[..len]
}
