//! Pooling, one plane of 16 channels at a time.

mod windows;

pub(crate) use windows::Planes;

use crate::batch_norm::{rows, rows_mut};
use crate::isa::Kernel;
use crate::simd::{Row, Simd};
use crate::{Activation, BLOCK, Compute, Isa};

/// Output size of 3x3/2 max pooling with padding 1.
pub fn max_pool_size(size: usize) -> usize {
    (size - 1) / 2 + 1
}

/// 3x3 windows, stride 2, padding 1, as torchvision's stem; NaN is above all, as in PyTorch.
///
/// # Panics
/// If the shapes do not fit.
pub fn max_pool(compute: &Compute, x: &Activation, y: &mut Activation) {
    let (size, n) = ((x.height(), x.width()), x.n());
    let out = (max_pool_size(size.0), max_pool_size(size.1));
    let shape = |a: &Activation| (a.channels(), (a.height(), a.width()), a.n());
    assert_eq!(shape(y), (x.channels(), out, n), "output of another shape");
    let x = Planes { data: x.data(), plane: x.plane_len(), row: n * BLOCK, size };
    let plane = y.plane_len();
    x.max_pool::<{ 4 * BLOCK }, BLOCK>(y.data_mut(), plane, compute.isa(), compute.pool());
}

/// Gradient of [`max_pool`]: goes to the first maximum of each window in reading order, as in PyTorch.
/// All are planes, of which `dx` is overwritten but for its zero row.
///
/// # Panics
/// If they hold fewer rows than the images have pixels, or the CPU lacks `isa`.
pub fn max_pool_backward(
    isa: Isa,
    (height, width, n): (usize, usize, usize),
    x: &[f32],
    dy: &[f32],
    dx: &mut [f32],
) {
    isa.vectorize(|| {
        let (x, dy, dx) = (rows(x), rows(dy), rows_mut(dx));
        let (oh, ow) = (max_pool_size(height), max_pool_size(width));
        dx.fill([0.0; BLOCK]);
        for oy in 0..oh {
            for ox in 0..ow {
                for image in 0..n {
                    let mut best = [f32::NEG_INFINITY; BLOCK];
                    let mut arg = [0u32; BLOCK];
                    for pixel in window(oy, ox, height, width) {
                        let row = pixel * n + image;
                        for c in 0..BLOCK {
                            let better = x[row][c] > best[c];
                            best[c] = if better { x[row][c] } else { best[c] };
                            arg[c] = if better { row as u32 } else { arg[c] };
                        }
                    }
                    let g = &dy[(oy * ow + ox) * n + image];
                    for c in 0..BLOCK {
                        dx[arg[c] as usize][c] += g[c];
                    }
                }
            }
        }
    });
}

/// Pixels of an output pixel's window, in reading order.
#[inline(always)]
fn window(oy: usize, ox: usize, height: usize, width: usize) -> impl Iterator<Item = usize> {
    let ys = (oy * 2).saturating_sub(1)..(oy * 2 + 2).min(height);
    let xs = (ox * 2).saturating_sub(1)..(ox * 2 + 2).min(width);
    ys.flat_map(move |y| xs.clone().map(move |x| y * width + x))
}

/// Mean over the pixels: the second of each pair gets one row per image of the first.
///
/// # Panics
/// If the shapes do not fit.
pub fn avg_pool<'a>(
    compute: &Compute,
    pairs: impl IntoIterator<Item = (&'a Activation, &'a mut Activation)>,
) {
    let pieces = pairs.into_iter().flat_map(|(x, y)| {
        let shape = |a: &Activation| (a.channels(), a.n());
        assert_eq!((shape(y), y.rows()), (shape(x), x.n()), "output of another shape");
        let (n, rows, planes) = (x.n(), x.rows(), (x.plane_len(), y.plane_len()));
        let x = x.data().chunks(TASK_PLANES * planes.0);
        let y = y.data_mut().chunks_mut(TASK_PLANES * planes.1);
        x.zip(y).map(move |(x, y)| AvgPool { n, rows, planes, x, y })
    });
    compute.pool().for_each(pieces, |_, piece| compute.isa().run(piece));
}

/// Planes that a task of [`avg_pool`] takes.
const TASK_PLANES: usize = 8;

/// Some planes.
struct AvgPool<'a> {
    n: usize,
    /// Of the input.
    rows: usize,
    /// Floats from a plane to the next, of the input and the output.
    planes: (usize, usize),
    x: &'a [f32],
    y: &'a mut [f32],
}

impl Kernel for AvgPool<'_> {
    #[inline(always)]
    unsafe fn run<S: Simd, const N: usize>(self) {
        let Self { n, rows, planes, x, y } = self;
        let pixels = (rows / n) as f32;
        for (x, y) in x.chunks_exact(planes.0).zip(y.chunks_exact_mut(planes.1)) {
            let (x, y) = (&x.as_chunks::<BLOCK>().0[..rows], &mut y.as_chunks_mut::<BLOCK>().0[..n]);
            for (image, y) in y.iter_mut().enumerate() {
                // SAFETY: the CPU by the caller.
                unsafe {
                    let mut sum = Row::<S, N>::zero();
                    for x in x[image..].iter().step_by(n) {
                        sum = sum.add(Row::load(x));
                    }
                    sum.store(y);
                }
                y.iter_mut().for_each(|v| *v /= pixels);
            }
        }
    }
}

/// Gradient of [`avg_pool`], both planes; the zero row of `dx` stays as it is.
///
/// # Panics
/// If `n` is zero, or the CPU lacks `isa`.
pub fn avg_pool_backward(isa: Isa, n: usize, dy: &[f32], dx: &mut [f32]) {
    isa.vectorize(|| {
        let (dy, dx) = (rows(dy), rows_mut(dx));
        let scale = 1.0 / (dx.len() / n) as f32;
        for pixel in dx.chunks_exact_mut(n) {
            for (dx, dy) in pixel.iter_mut().zip(dy) {
                for c in 0..BLOCK {
                    dx[c] = dy[c] * scale;
                }
            }
        }
    });
}
