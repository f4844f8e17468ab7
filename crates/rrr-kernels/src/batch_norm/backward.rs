//! Gradients of a batch norm, its input and that of the skip path.

use super::forward::add;
use super::{BnBackward, Lanes, NormGrad, PARTIAL_ROWS, affine, rows, rows_mut};
use crate::BLOCK;
use crate::isa::Kernel;
use crate::simd::{Row, Simd};

impl Kernel for BnBackward<'_> {
    #[inline(always)]
    unsafe fn run<S: Simd, const N: usize>(self) {
        let mut job = self;
        let dy = rows_mut(job.dy);
        let x = rows(job.norm.x);
        let mut skip = job.skip.as_mut().map(|(norm, dx)| (norm, rows_mut(dx)));
        let skip_x = skip.as_ref().map(|(norm, _)| rows(norm.x));
        let y = job.y.map(rows);
        for plane in [Some(x), skip_x, y].into_iter().flatten() {
            assert_eq!(plane.len(), dy.len(), "planes differ in length");
        }
        let mut dx = job.dx.as_mut().map(|dx| rows_mut(dx));
        let outputs = dx.as_deref().into_iter().chain(skip.as_ref().map(|(_, dx)| &**dx));
        assert!(outputs.map(<[Lanes]>::len).all(|len| len == dy.len()), "planes differ in length");
        // SAFETY: the CPU by the caller.
        unsafe {
            let relu = Relu::<S, N>::new(y, &job.norm);
            let mean = Row::<S, N>::load(job.norm.mean);
            let skip_mean = skip.as_ref().map_or(mean, |(norm, _)| Row::load(norm.mean));

            let [mut dbeta, mut dgamma, mut skip_dgamma] = [[0.0f64; BLOCK]; 3];
            for start in (0..x.len()).step_by(PARTIAL_ROWS) {
                let [mut beta, mut gamma, mut skip_gamma] = [Row::<S, N>::zero(); 3];
                for r in start..(start + PARTIAL_ROWS).min(x.len()) {
                    let x = Row::load(&x[r]);
                    let g = relu.back(r, x, Row::load(&dy[r]));
                    beta = beta.add(g);
                    gamma = x.sub(mean).mul_add(g, gamma);
                    if let Some(x) = skip_x {
                        skip_gamma = Row::load(&x[r]).sub(skip_mean).mul_add(g, skip_gamma);
                    }
                }
                add(&mut dbeta, beta);
                add(&mut dgamma, gamma);
                add(&mut skip_dgamma, skip_gamma);
            }

            let slopes = Slopes::<S, N>::new(&mut job.norm, x.len(), &dbeta, &dgamma);
            let skip_slopes = match &mut skip {
                Some((norm, _)) => Slopes::new(norm, x.len(), &dbeta, &skip_dgamma),
                None => slopes,
            };
            for r in 0..x.len() {
                let x = Row::load(&x[r]);
                let g = relu.back(r, x, Row::load(&dy[r]));
                let gradient = slopes.input_gradient(g, x);
                match &mut dx {
                    Some(dx) => {
                        gradient.store(&mut dx[r]);
                        g.store(&mut dy[r]);
                    }
                    None => gradient.store(&mut dy[r]),
                }
                if let (Some(x), Some(dx)) = (skip_x, skip.as_mut().map(|(_, dx)| &mut **dx)) {
                    skip_slopes.input_gradient(g, Row::load(&x[r])).store(&mut dx[r]);
                }
            }
        }
    }
}

/// Where the gradient passes.
#[derive(Clone, Copy)]
enum Relu<'a, S: Simd, const N: usize> {
    /// Where a plane is positive.
    Of(&'a [Lanes]),
    /// Where the batch norm's result is: scale and shift.
    Norm(Row<S, N>, Row<S, N>),
}

impl<'a, S: Simd, const N: usize> Relu<'a, S, N> {
    /// # Safety
    /// The CPU must support `S`, of which `N` vectors make a row.
    #[inline(always)]
    unsafe fn new(y: Option<&'a [Lanes]>, norm: &NormGrad<'_>) -> Self {
        if let Some(y) = y {
            return Self::Of(y);
        }
        let (mut scale, mut shift) = ([0.0; BLOCK], [0.0; BLOCK]);
        for c in 0..BLOCK {
            (scale[c], shift[c]) = affine(norm.gamma[c], norm.beta[c], norm.mean[c], norm.inv_std[c]);
        }
        // SAFETY: the CPU by the caller.
        unsafe { Self::Norm(Row::load(&scale), Row::load(&shift)) }
    }

    /// A row's gradient before ReLU.
    ///
    /// # Safety
    /// The CPU must support `S`, of which `N` vectors make a row.
    #[inline(always)]
    unsafe fn back(&self, r: usize, x: Row<S, N>, dy: Row<S, N>) -> Row<S, N> {
        // SAFETY: the CPU by the caller.
        unsafe {
            match self {
                Self::Of(y) => dy.where_positive(Row::load(&y[r])),
                Self::Norm(scale, shift) => dy.where_positive(x.mul_add(*scale, *shift)),
            }
        }
    }
}

/// What the gradient of an input is made of: `scale * g - shift - slope * (x - mean)`.
#[derive(Clone, Copy)]
struct Slopes<S: Simd, const N: usize> {
    scale: Row<S, N>,
    /// Negative.
    slope: Row<S, N>,
    shift: Row<S, N>,
    mean: Row<S, N>,
}

impl<S: Simd, const N: usize> Slopes<S, N> {
    /// Sets a batch norm's gradients from their sums over the rows.
    ///
    /// # Safety
    /// The CPU must support `S`, of which `N` vectors make a row.
    #[inline(always)]
    unsafe fn new(norm: &mut NormGrad<'_>, rows: usize, dbeta: &[f64; BLOCK], dgamma: &[f64; BLOCK]) -> Self {
        let count = rows as f32;
        let [mut scale, mut slope, mut shift] = [[0.0; BLOCK]; 3];
        for c in 0..BLOCK {
            let inv_std = norm.inv_std[c];
            norm.dbeta[c] = dbeta[c] as f32;
            norm.dgamma[c] = dgamma[c] as f32 * inv_std;
            scale[c] = norm.gamma[c] * inv_std;
            slope[c] = -(scale[c] * inv_std * norm.dgamma[c] / count);
            shift[c] = scale[c] * norm.dbeta[c] / count;
        }
        // SAFETY: the CPU by the caller.
        unsafe {
            Self {
                scale: Row::load(&scale),
                slope: Row::load(&slope),
                shift: Row::load(&shift),
                mean: Row::load(norm.mean),
            }
        }
    }

    /// # Safety
    /// The CPU must support `S`, of which `N` vectors make a row.
    #[inline(always)]
    unsafe fn input_gradient(&self, g: Row<S, N>, x: Row<S, N>) -> Row<S, N> {
        // SAFETY: the CPU by the caller.
        unsafe { x.sub(self.mean).mul_add(self.slope, g.mul(self.scale).sub(self.shift)) }
    }
}
