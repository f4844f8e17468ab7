//! Statistics of a batch, and its normalisation.

use super::{BN_EPS, BnForward, Lanes, Norm, PARTIAL_ROWS, Skip, affine, rows, rows_mut};
use crate::BLOCK;
use crate::isa::Kernel;
use crate::simd::{Row, Simd};

/// A [`BnForward`] with its momentum.
pub(super) struct Forward<'a> {
    pub momentum: f32,
    pub job: BnForward<'a>,
}

impl Kernel for Forward<'_> {
    #[inline(always)]
    unsafe fn run<S: Simd, const N: usize>(self) {
        let Self { momentum, mut job } = self;
        let y = rows_mut(job.y);
        // SAFETY: the CPU by the caller.
        unsafe {
            let x = rows(job.norm.x);
            let (scale, shift) = normalize::<S, N>(&mut job.norm, momentum);
            let (scale, shift) = (Row::<S, N>::load(&scale), Row::load(&shift));
            assert_eq!(y.len(), x.len(), "planes differ in length");
            match &mut job.skip {
                Skip::None => {
                    for (y, x) in y.iter_mut().zip(x) {
                        Row::load(x).mul_add(scale, shift).relu().store(y);
                    }
                }
                Skip::Plane(skip) => {
                    let skip = rows(skip);
                    assert_eq!(y.len(), skip.len(), "planes differ in length");
                    for ((y, x), skip) in y.iter_mut().zip(x).zip(skip) {
                        Row::load(x).mul_add(scale, shift).add(Row::load(skip)).relu().store(y);
                    }
                }
                Skip::Norm(norm) => {
                    let skip = rows(norm.x);
                    assert_eq!(y.len(), skip.len(), "planes differ in length");
                    let (skip_scale, skip_shift) = normalize::<S, N>(norm, momentum);
                    let (skip_scale, shift) = (Row::load(&skip_scale), shift.add(Row::load(&skip_shift)));
                    for ((y, x), skip) in y.iter_mut().zip(x).zip(skip) {
                        let skip = Row::load(skip).mul_add(skip_scale, shift);
                        Row::load(x).mul_add(scale, skip).relu().store(y);
                    }
                }
            }
        }
    }
}

/// Takes the statistics of a batch; scale and shift that normalise it.
///
/// # Safety
/// The CPU must support `S`, of which `N` vectors make a row.
#[inline(always)]
unsafe fn normalize<S: Simd, const N: usize>(norm: &mut Norm<'_>, momentum: f32) -> (Lanes, Lanes) {
    let x = rows(norm.x);
    let count = x.len() as f64;
    // SAFETY: the CPU by the caller.
    let (mean, var) = unsafe { statistics::<S, N>(x) };
    let unbiased = if count > 1.0 { count / (count - 1.0) } else { 1.0 };
    let (mut scale, mut shift) = ([0.0; BLOCK], [0.0; BLOCK]);
    for c in 0..BLOCK {
        let mean = mean[c] as f32;
        norm.mean[c] = mean;
        norm.inv_std[c] = (1.0 / (var[c] + f64::from(BN_EPS)).sqrt()) as f32;
        norm.running_mean[c] += momentum * (mean - norm.running_mean[c]);
        norm.running_var[c] += momentum * ((var[c] * unbiased) as f32 - norm.running_var[c]);
        (scale[c], shift[c]) = affine(norm.gamma[c], norm.beta[c], mean, norm.inv_std[c]);
    }
    (scale, shift)
}

/// Mean and variance of each channel, in one pass: sums of distances to the mean of the first rows, which lies among the
/// values, so that the squares do not cancel.
///
/// # Safety
/// The CPU must support `S`, of which `N` vectors make a row.
#[inline(always)]
unsafe fn statistics<S: Simd, const N: usize>(x: &[Lanes]) -> ([f64; BLOCK], [f64; BLOCK]) {
    // SAFETY: the CPU by the caller.
    unsafe {
        let first = &x[..x.len().min(PARTIAL_ROWS)];
        let mut sum = Row::<S, N>::zero();
        for row in first {
            sum = sum.add(Row::load(row));
        }
        let pivot = sum.lanes().map(|sum| sum / first.len() as f32);
        let middle = Row::<S, N>::load(&pivot);
        let (mut sums, mut squares) = ([0.0; BLOCK], [0.0; BLOCK]);
        for rows in x.chunks(PARTIAL_ROWS) {
            let (mut sum, mut square) = (Row::<S, N>::zero(), Row::<S, N>::zero());
            for row in rows {
                let distance = Row::load(row).sub(middle);
                sum = sum.add(distance);
                square = distance.mul_add(distance, square);
            }
            add(&mut sums, sum);
            add(&mut squares, square);
        }
        let count = x.len() as f64;
        let shift = sums.map(|sum| sum / count);
        let (mut mean, mut var) = ([0.0; BLOCK], [0.0; BLOCK]);
        for c in 0..BLOCK {
            mean[c] = f64::from(pivot[c]) + shift[c];
            var[c] = (squares[c] / count - shift[c] * shift[c]).max(0.0);
        }
        (mean, var)
    }
}

/// Adds sums of some rows to the totals.
///
/// # Safety
/// The CPU must support `S`, of which `N` vectors make a row.
#[inline(always)]
pub(super) unsafe fn add<S: Simd, const N: usize>(totals: &mut [f64; BLOCK], sums: Row<S, N>) {
    // SAFETY: the CPU by the caller.
    let sums = unsafe { sums.lanes() };
    for (total, sum) in totals.iter_mut().zip(sums) {
        *total += f64::from(sum);
    }
}
