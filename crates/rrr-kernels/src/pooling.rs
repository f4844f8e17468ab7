//! Pooling, one plane of 16 channels at a time.

use crate::batch_norm::{rows, rows_mut};
use crate::isa::Kernel;
use crate::shared::SharedMut;
use crate::simd::{Row, Simd};
use crate::{Activation, BLOCK, Compute, Isa};

/// Output size of 3x3/2 max pooling with padding 1.
pub fn max_pool_size(size: usize) -> usize {
    (size - 1) / 2 + 1
}

/// Lines of an output that a task of [`max_pool`] takes.
const TASK_LINES: usize = 4;

/// 3x3 windows, stride 2, padding 1, as torchvision's stem.
///
/// # Panics
/// If the shapes do not fit.
pub fn max_pool(compute: &Compute, x: &Activation, y: &mut Activation) {
    let (isa, n, blocks) = (compute.isa(), x.n(), x.planes().len());
    let size = (x.height(), x.width());
    let (lines, line) = (max_pool_size(size.0), max_pool_size(size.1) * n * BLOCK);
    let shape = |a: &Activation| (a.channels(), a.height(), a.width(), a.n());
    assert_eq!(shape(y), (x.channels(), lines, max_pool_size(size.1), n), "output of another shape");
    let plane = y.plane_len();
    let y = SharedMut::new(y.data_mut());
    // Lines first: as the convolution before it, so that a thread reads what it wrote.
    compute.pool().run(lines.div_ceil(TASK_LINES) * blocks, |task| {
        let (first, block) = (task / blocks * TASK_LINES, task % blocks);
        let lines = first..(first + TASK_LINES).min(lines);
        // SAFETY: the pieces do not overlap.
        let y = unsafe { y.part(block * plane + first * line, lines.len() * line) };
        isa.run(MaxPool { size, n, x: rows(x.plane(block)), first, y: y.as_chunks_mut().0 });
    });
}

/// Lines of a plane, from `first` on.
struct MaxPool<'a> {
    size: (usize, usize),
    n: usize,
    x: &'a [[f32; BLOCK]],
    first: usize,
    y: &'a mut [[f32; BLOCK]],
}

impl Kernel for MaxPool<'_> {
    #[inline(always)]
    unsafe fn run<S: Simd, const N: usize>(self) {
        let Self { size: (height, width), n, x, first, y } = self;
        let line = max_pool_size(width);
        for (pixel, out) in y.chunks_exact_mut(n).enumerate() {
            let (oy, ox) = (first + pixel / line, pixel % line);
            // At an edge the pixel there again, which changes no maximum.
            let around =
                |at: usize, size: usize| [(2 * at).saturating_sub(1), 2 * at, (2 * at + 1).min(size - 1)];
            let (ys, xs) = (around(oy, height), around(ox, width));
            let mut places = [0; 9];
            for (i, place) in places.iter_mut().enumerate() {
                *place = (ys[i / 3] * width + xs[i % 3]) * n;
            }
            for (image, out) in out.iter_mut().enumerate() {
                // SAFETY: the CPU by the caller.
                unsafe {
                    let mut most = Row::<S, N>::load(&x[places[0] + image]);
                    for place in &places[1..] {
                        most = most.max(Row::load(&x[place + image]));
                    }
                    most.store(out);
                }
            }
        }
    }
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
