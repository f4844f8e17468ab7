//! Pooling in training.

#![allow(clippy::needless_range_loop, reason = "channel loops index several rows at once")]

use super::super::Kernels;
use super::super::stored::{Bf16Activation, WIDTH, widen};
use super::super::tiles::Vectors;
use super::{Bits, rows, rows_mut};
use crate::compute::Compute;
use crate::shared::SharedMut;
use crate::tiles::SIDE;
use crate::{Activation, BLOCK, max_pool_size};

/// A piece of work. Rows are those of a plane (or of a plane of f32, of 16 channels), without its row of zeros.
pub enum Task<'a> {
    /// Means, of both halves of the channels (the second may have no rows).
    Features { x: &'a [Bits], n: usize, y: [&'a mut [[f32; BLOCK]]; 2] },
    /// Gradient of these, of both halves of the channels.
    Spread { dy: [Option<&'a [[f32; BLOCK]]>; 2], dx: &'a mut [Bits] },
    /// The mean over planes of all groups, the first rows of which are `x` and `stride` apart.
    Mean { x: &'a [Bits], stride: usize, y: &'a mut [Bits] },
    /// Gradient of max pooling.
    MaxPool(MaxPool<'a>),
}

/// Two lines (or the last one) of the gradient of max pooling.
pub struct MaxPool<'a> {
    x: &'a [Bits],
    dy: &'a [Bits],
    size: (usize, usize),
    n: usize,
    /// The first line.
    line: usize,
    dx: &'a mut [Bits],
}

impl Task<'_> {
    fn run(mut self, kernels: Kernels) {
        // SAFETY: a value of `Kernels` is for this CPU.
        unsafe { (kernels.pooling)(&mut self) }
    }
}

/// Mean over the pixels, to maps of one pixel in f32, one for each group.
///
/// # Panics
/// If a map has another number of channels or images, or more pixels, or there are not as many as groups.
pub fn bf16_pool_features<'a>(
    x: &Bf16Activation,
    y: impl IntoIterator<Item = &'a mut Activation>,
    compute: &Compute,
) {
    let (n, planes) = (x.n(), x.data().chunks_exact(x.plane_len()));
    let per_group = x.channels().div_ceil(WIDTH);
    let kernels = Kernels::new(compute.isa());
    let y = y.into_iter().flat_map(|y| {
        assert_eq!((y.channels(), y.rows(), y.n()), (x.channels(), n, n), "features of another shape");
        let plane = y.plane_len();
        y.data_mut().chunks_mut(2 * plane).map(move |pair| pair.split_at_mut(plane))
    });
    let mut count = 0;
    let jobs = planes.zip(y.inspect(|_| count += 1));
    compute.pool().for_each(jobs, |_, (x_plane, (first, second))| {
        let y = [first, second].map(|y| {
            let (y, _) = y.as_chunks_mut();
            let rows = n.min(y.len());
            &mut y[..rows]
        });
        Task::Features { x: rows(x_plane, x.rows()), n, y }.run(kernels);
    });
    assert_eq!(count, x.groups() * per_group, "features for every group");
}

/// Gradient of [`bf16_pool_features`] of all groups, of which `dy` holds one each; `dx` has its shape already.
///
/// # Panics
/// If the shapes do not go together.
pub fn bf16_avg_pool_backward(dy: &[Activation], dx: &mut Bf16Activation, compute: &Compute) {
    let (n, all) = (dx.n(), dx.rows());
    let fits = dy.iter().all(|dy| (dy.channels(), dy.rows()) == (dx.channels(), n));
    assert!(dy.len() == dx.groups() && fits, "shapes differ");
    let (plane, per_group) = (dx.plane_len(), dx.channels().div_ceil(WIDTH));
    let kernels = Kernels::new(compute.isa());
    compute.pool().for_each(dx.data_mut().chunks_exact_mut(plane), |i, dx| {
        let mut planes = dy[i / per_group].planes().skip(i % per_group * 2);
        let mut half = || planes.next().map(|dy| &dy.as_chunks().0[..n]);
        Task::Spread { dy: [half(), half()], dx: rows_mut(dx, all) }.run(kernels);
    });
}

/// The mean over the groups, summed in their order in f32; `y` takes the shape of one group.
pub fn bf16_mean_of_groups(x: &Bf16Activation, y: &mut Bf16Activation, compute: &Compute) {
    y.reshape(1, x.channels(), x.size(), x.n());
    let (plane, stride, all) = (x.plane_len(), x.group_len() / WIDTH, x.rows());
    let kernels = Kernels::new(compute.isa());
    compute.pool().for_each(y.data_mut().chunks_exact_mut(plane), |i, y| {
        let x = x.data()[i * plane..].as_chunks().0;
        Task::Mean { x, stride, y: rows_mut(y, all) }.run(kernels);
    });
}

/// Gradient of [`bf16_max_pool`](crate::bf16_max_pool), `x` being its input: goes to the first maximum of each window in
/// reading order, as in PyTorch. `dx` takes the shape of `x`.
///
/// # Panics
/// If `dy` has not the shape of the output.
pub fn bf16_max_pool_backward(
    x: &Bf16Activation,
    dy: &Bf16Activation,
    dx: &mut Bf16Activation,
    compute: &Compute,
) {
    let (size, n) = (x.size(), x.n());
    let pooled = (max_pool_size(size.0), max_pool_size(size.1));
    let shape = (x.groups(), x.channels(), pooled, n);
    assert_eq!((dy.groups(), dy.channels(), dy.size(), dy.n()), shape, "shapes differ");
    dx.reshape(x.groups(), x.channels(), size, n);
    let (x_plane, y_plane, row) = (x.plane_len(), dy.plane_len(), size.1 * n * WIDTH);
    let pairs = size.0.div_ceil(2);
    let planes = x.data().len() / x_plane;
    let kernels = Kernels::new(compute.isa());
    let (x_rows, y_rows) = (x.rows(), dy.rows());
    let (x, dy, dx) = (x.data(), dy.data(), SharedMut::new(dx.data_mut()));
    compute.pool().run(planes * pairs, |task| {
        let (plane, line) = (task / pairs, task % pairs * 2);
        let lines = (size.0 - line).min(2);
        // SAFETY: these lines of this plane are this task's.
        let dx = unsafe { dx.part(plane * x_plane + line * row, lines * row) };
        let x = rows(&x[plane * x_plane..], x_rows);
        let dy = rows(&dy[plane * y_plane..], y_rows);
        let dx = dx.as_chunks_mut().0;
        Task::MaxPool(MaxPool { x, dy, size, n, line, dx }).run(kernels);
    });
}

/// Computes a task.
///
/// # Safety
/// The CPU must support `V`.
#[inline(always)]
pub unsafe fn work<V: Vectors>(task: &mut Task<'_>) {
    // SAFETY: by the caller.
    unsafe {
        match task {
            Task::Features { x, n, y } => features(x, *n, y),
            Task::Spread { dy, dx } => spread::<V>(*dy, dx),
            Task::Mean { x, stride, y } => mean::<V>(x, *stride, y),
            Task::MaxPool(task) => max_pool::<V>(task),
        }
    }
}

#[inline(always)]
fn features(x: &[Bits], n: usize, y: &mut [&mut [[f32; BLOCK]]; 2]) {
    let pixels = (x.len() / n) as f32;
    for image in 0..n {
        let mut sums = [0.0; WIDTH];
        for pixel in x.chunks_exact(n) {
            for c in 0..WIDTH {
                sums[c] += widen(pixel[image][c]);
            }
        }
        for (y, sums) in y.iter_mut().zip(sums.as_chunks::<BLOCK>().0) {
            if let Some(y) = y.get_mut(image) {
                for c in 0..BLOCK {
                    y[c] = sums[c] / pixels;
                }
            }
        }
    }
}

/// # Safety
/// The CPU must support `V`.
#[inline(always)]
unsafe fn spread<V: Vectors>(dy: [Option<&[[f32; BLOCK]]>; 2], dx: &mut [Bits]) {
    let n = dy[0].map_or(0, <[_]>::len);
    let scale = 1.0 / (dx.len() / n) as f32;
    let (first, rest) = dx.split_at_mut(n);
    for (image, dx) in first.iter_mut().enumerate() {
        let mut v = [0.0; WIDTH];
        for (dy, v) in dy.iter().zip(v.as_chunks_mut::<BLOCK>().0) {
            if let Some(dy) = dy {
                for c in 0..BLOCK {
                    v[c] = dy[image][c] * scale;
                }
            }
        }
        // SAFETY: by the caller.
        unsafe { store::<V>(&v, dx) };
    }
    for other in rest.chunks_exact_mut(n) {
        other.copy_from_slice(first);
    }
}

/// # Safety
/// The CPU must support `V`.
#[inline(always)]
unsafe fn mean<V: Vectors>(x: &[Bits], stride: usize, y: &mut [Bits]) {
    let groups = x.len().div_ceil(stride);
    let share = 1.0 / groups as f32;
    for (r, y) in y.iter_mut().enumerate() {
        let mut sum = [0.0; WIDTH];
        for group in 0..groups {
            let x = &x[group * stride + r];
            for c in 0..WIDTH {
                sum[c] += widen(x[c]);
            }
        }
        for c in 0..WIDTH {
            sum[c] *= share;
        }
        // SAFETY: by the caller.
        unsafe { store::<V>(&sum, y) };
    }
}

/// # Safety
/// The CPU must support `V`.
#[inline(always)]
unsafe fn max_pool<V: Vectors>(task: &mut MaxPool<'_>) {
    let ((height, width), n) = (task.size, task.n);
    let (oh, ow) = (max_pool_size(height), max_pool_size(width));
    for (i, dx) in task.dx.iter_mut().enumerate() {
        let (pixel, image) = (task.line * width + i / n, i % n);
        let (y, x) = (pixel / width, pixel % width);
        let at = pixel * n + image;
        let mut sum = [0.0; WIDTH];
        // The windows that hold the pixel.
        for oy in y / 2..(y / 2 + 1 + y % 2).min(oh) {
            for ox in x / 2..(x / 2 + 1 + x % 2).min(ow) {
                let first = is_first(task.x, (oy, ox), task.size, (n, image), at);
                let g = &task.dy[(oy * ow + ox) * n + image];
                for c in 0..WIDTH {
                    sum[c] += widen(g[c] & first[c]);
                }
            }
        }
        // SAFETY: by the caller.
        unsafe { store::<V>(&sum, dx) };
    }
}

/// Per channel all bits, if row `at` is the first maximum of a window, or none. Values are not negative, so that their bits
/// compare as they do.
#[inline(always)]
fn is_first(
    x: &[Bits],
    (oy, ox): (usize, usize),
    (height, width): (usize, usize),
    (n, image): (usize, usize),
    at: usize,
) -> Bits {
    let own = &x[at];
    let mut first = [u16::MAX; WIDTH];
    for y in (oy * 2).saturating_sub(1)..(oy * 2 + 2).min(height) {
        for px in (ox * 2).saturating_sub(1)..(ox * 2 + 2).min(width) {
            let other_at = (y * width + px) * n + image;
            let (other, before) = (&x[other_at], i16::from(other_at < at));
            for c in 0..WIDTH {
                // What comes before must be less.
                let keeps = own[c].cast_signed() >= other[c].cast_signed().saturating_add(before);
                first[c] &= if keeps { u16::MAX } else { 0 };
            }
        }
    }
    first
}

/// Rounds a row.
///
/// # Safety
/// The CPU must support `V`.
#[inline(always)]
unsafe fn store<V: Vectors>(v: &[f32; WIDTH], to: &mut Bits) {
    let (low, high) = v.split_at(SIDE);
    // SAFETY: two halves of 16 values and a row of as many pairs.
    unsafe { V::round(low.as_ptr(), high.as_ptr(), to.as_mut_ptr().cast()) }
}
