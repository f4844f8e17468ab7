//! Pooling of activations in bf16.

use super::WIDTH;
use super::activation::{Bf16Activation, widen};
use crate::compute::Compute;
use crate::isa::Vectorize;
use crate::max_pool_size;
use crate::shared::SharedMut;

/// Numbers that a task of max pooling puts out, about.
const TASK_LEN: usize = 8 << 10;

/// Numbers that a task of average pooling reads, about.
const TASK_INPUT: usize = 16 << 10;

/// Images that are averaged at a time: neighbours in memory, whose sums stay in the first-level cache.
const IMAGES: usize = 32;

/// 3x3 windows, stride 2, padding 1, as torchvision's stem; `y` takes the shape that this gives. For values that are
/// not negative, as they are behind a ReLU: these are compared by their bits (NaN is above all).
pub fn bf16_max_pool(x: &Bf16Activation, y: &mut Bf16Activation, compute: &Compute) {
    let (size, n) = (x.size(), x.n());
    let (oh, ow) = (max_pool_size(size.0), max_pool_size(size.1));
    y.reshape(x.groups(), x.channels(), (oh, ow), n);
    let (x_plane, y_plane, row) = (x.plane_len(), y.plane_len(), n * WIDTH);
    let planes = y.data().len() / y_plane;
    let lines = (TASK_LEN / (ow * row)).clamp(1, oh);
    let cuts = oh.div_ceil(lines);
    let (x, y) = (x.data(), SharedMut::new(y.data_mut()));
    compute.pool().run(planes * cuts, |task| {
        let (plane, cut) = (task / cuts, task % cuts);
        let (first, end) = (cut * lines, ((cut + 1) * lines).min(oh));
        let x = &x[plane * x_plane..][..x_plane];
        // SAFETY: these lines of this plane are this task's.
        let y = unsafe { y.part(plane * y_plane + first * ow * row, (end - first) * ow * row) };
        compute.isa().vectorize(MaxPool { x, size, n, first, y });
    });
}

/// Some lines of a plane.
struct MaxPool<'a> {
    /// The plane.
    x: &'a [u16],
    size: (usize, usize),
    n: usize,
    /// First line of the output.
    first: usize,
    /// Whole lines.
    y: &'a mut [u16],
}

impl Vectorize for MaxPool<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Self { x, size: (height, width), n, first, y } = self;
        let (x, y) = (x.as_chunks::<WIDTH>().0, y.as_chunks_mut::<WIDTH>().0);
        for (i, out) in y.chunks_exact_mut(n).enumerate() {
            let ow = max_pool_size(width);
            let (oy, ox) = (first + i / ow, i % ow);
            // Lines and columns of the window; at an edge the first one again, which changes no maximum.
            let near = |o: usize, size: usize| [(2 * o).saturating_sub(1), 2 * o, (2 * o + 1).min(size - 1)];
            let (ys, xs) = (near(oy, height), near(ox, width));
            let mut window = [x; 9];
            for (at, pixel) in window.iter_mut().enumerate() {
                *pixel = &x[(ys[at / 3] * width + xs[at % 3]) * n..][..n];
            }
            for image in 0..n {
                let mut most = window[0][image];
                for pixel in &window[1..] {
                    let row = &pixel[image];
                    for c in 0..WIDTH {
                        most[c] = most[c].cast_signed().max(row[c].cast_signed()).cast_unsigned();
                    }
                }
                out[image] = most;
            }
        }
    }
}

/// Mean over the pixels: `y` is `[group][n][channels]`, in f32.
///
/// # Panics
/// If a length is wrong.
pub fn bf16_avg_pool(x: &Bf16Activation, y: &mut [f32], compute: &Compute) {
    let (n, channels, pixels) = (x.n(), x.channels(), x.size().0 * x.size().1);
    assert_eq!(y.len(), x.groups() * n * channels, "output of another shape");
    let (plane, blocks) = (x.plane_len(), channels.div_ceil(WIDTH));
    let some = (TASK_INPUT / (pixels * n * WIDTH)).clamp(1, blocks);
    let cuts = blocks.div_ceil(some);
    let (groups, x, y) = (x.groups(), x.data(), SharedMut::new(y));
    compute.pool().run(groups * cuts, |task| {
        let (g, first) = (task / cuts, task % cuts * some);
        let mut means = [[0.0; WIDTH]; IMAGES];
        for block in first..blocks.min(first + some) {
            let rows = &x[(g * blocks + block) * plane..][..pixels * n * WIDTH];
            let width = WIDTH.min(channels - block * WIDTH);
            for image in (0..n).step_by(IMAGES) {
                let means = &mut means[..IMAGES.min(n - image)];
                compute.isa().vectorize(AvgPool { rows, n, image, means });
                for (i, means) in means.iter().enumerate() {
                    let at = (g * n + image + i) * channels + block * WIDTH;
                    // SAFETY: these channels of the group are this task's.
                    unsafe { y.part(at, width) }.copy_from_slice(&means[..width]);
                }
            }
        }
    });
}

/// Some images of a block of channels.
struct AvgPool<'a> {
    /// The block, `[pixel][n][channel]`.
    rows: &'a [u16],
    n: usize,
    /// The first of the images.
    image: usize,
    means: &'a mut [[f32; WIDTH]],
}

impl Vectorize for AvgPool<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Self { rows, n, image, means } = self;
        let means = means.as_flattened_mut();
        let pixels = rows.len() / (n * WIDTH);
        means.fill(0.0);
        for pixel in 0..pixels {
            let row = &rows[(pixel * n + image) * WIDTH..][..means.len()];
            for (sum, v) in means.iter_mut().zip(row) {
                *sum += widen(*v);
            }
        }
        for mean in means {
            *mean /= pixels as f32;
        }
    }
}
