//! Pooling of activations in bf16.

use super::WIDTH;
use super::activation::{Bf16Activation, widen};
use crate::compute::Compute;
use crate::isa::Vectorize;
use crate::max_pool_size;
use crate::pooling::Planes;
use crate::shared::SharedMut;

/// Numbers that a task of average pooling reads, about.
const TASK_INPUT: usize = 16 << 10;

/// Images that are averaged at a time: neighbours in memory, whose sums stay in the first-level cache.
const IMAGES: usize = 32;

/// 3x3 windows, stride 2, padding 1, as torchvision's stem; `y` takes the shape that this gives. For values that are
/// not negative, as they are behind a ReLU: these are compared by their bits (NaN is above all).
pub fn bf16_max_pool(x: &Bf16Activation, y: &mut Bf16Activation, compute: &Compute) {
    let (size, n) = (x.size(), x.n());
    y.reshape(x.groups(), x.channels(), (max_pool_size(size.0), max_pool_size(size.1)), n);
    let x = Planes { data: x.data(), plane: x.plane_len(), row: n * WIDTH, size };
    let plane = y.plane_len();
    x.max_pool::<{ 4 * WIDTH }, WIDTH>(y.data_mut(), plane, compute.isa(), compute.pool());
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
