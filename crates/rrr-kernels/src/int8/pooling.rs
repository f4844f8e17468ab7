//! Pooling of bytes.

use super::{Int8Activation, Int8Compute};
use crate::isa::Vectorize;
use crate::pooling::Planes;
use crate::shared::SharedMut;
use crate::{BLOCK, max_pool_size};

/// Bytes that are taken at a time where there are so many: a vector of the widest kind.
const LINE: usize = 64;

/// Bytes that a task of average pooling reads, about.
const TASK_INPUT: usize = 32 << 10;

/// Sums that stay in the first-level cache: of neighbours in memory.
const SUMS: usize = 1 << 10;

/// 3x3 windows, stride 2, padding 1, as torchvision's stem; `y` takes the shape that this gives.
pub fn int8_max_pool(x: &Int8Activation, y: &mut Int8Activation, compute: &Int8Compute) {
    let (size, n) = (x.size(), x.n());
    y.reshape(x.groups(), x.channels(), (max_pool_size(size.0), max_pool_size(size.1)), n);
    let x = Planes { data: x.data(), plane: x.plane_len(), row: n * x.block(), size };
    let plane = y.plane_len();
    x.max_pool::<{ 4 * LINE }, LINE>(y.data_mut(), plane, compute.isa().base(), compute.pool());
}

/// Mean over the pixels, times a scale for every group and channel: `y` is `[group][n][channels]`.
///
/// # Panics
/// If a length is wrong.
pub fn int8_avg_pool(x: &Int8Activation, scales: &[f32], y: &mut [f32], compute: &Int8Compute) {
    let (n, channels, pixels) = (x.n(), x.channels(), x.size().0 * x.size().1);
    assert_eq!(scales.len(), x.groups() * channels, "a scale for every channel");
    assert_eq!(y.len(), x.groups() * n * channels, "output of another shape");
    let (plane, width) = (x.plane_len(), x.block());
    let blocks = channels.div_ceil(width);
    let some = (TASK_INPUT / (pixels * n * width)).clamp(1, blocks);
    let cuts = blocks.div_ceil(some);
    let (groups, x, y) = (x.groups(), x.data(), SharedMut::new(y));
    compute.pool().run(groups * cuts, |task| {
        let (g, first) = (task / cuts, task % cuts * some);
        let mut sums = [0; SUMS];
        for block in first..blocks.min(first + some) {
            let rows = &x[(g * blocks + block) * plane..][..pixels * n * width];
            let channel = block * width;
            let scales = &scales[g * channels..][channel..channels.min(channel + width)];
            for image in (0..n).step_by(SUMS / width) {
                let sums = &mut sums[..SUMS.min((n - image) * width)];
                compute.isa().base().vectorize(Sum { rows, row: n * width, first: image * width, sums });
                for (i, sums) in sums.chunks_exact(width).enumerate() {
                    let at = (g * n + image + i) * channels + channel;
                    // SAFETY: these channels of the group are this task's.
                    let means = unsafe { y.part(at, scales.len()) };
                    for ((mean, sum), scale) in means.iter_mut().zip(sums).zip(scales) {
                        *mean = *sum as f32 * (scale / pixels as f32);
                    }
                }
            }
        }
    });
}

/// Sums over rows of some of their bytes, a multiple of a block.
struct Sum<'a> {
    rows: &'a [u8],
    /// Bytes of a row.
    row: usize,
    /// The first byte of those.
    first: usize,
    sums: &'a mut [u32],
}

impl Sum<'_> {
    /// Of `L` bytes from `at` on, in registers.
    #[inline(always)]
    fn of<const L: usize>(&self, at: usize) -> [u32; L] {
        let mut sums = [0; L];
        for row in self.rows.chunks_exact(self.row) {
            let values = row[at..].first_chunk::<L>().expect("bytes of a row");
            for c in 0..L {
                sums[c] += u32::from(values[c]);
            }
        }
        sums
    }
}

impl Vectorize for Sum<'_> {
    type Output = ();

    #[inline(always)]
    fn run(mut self) {
        let sums = std::mem::take(&mut self.sums);
        let (lines, rest) = sums.as_chunks_mut::<LINE>();
        let mut at = self.first;
        for line in lines {
            *line = self.of(at);
            at += LINE;
        }
        for block in rest.as_chunks_mut::<BLOCK>().0 {
            *block = self.of(at);
            at += BLOCK;
        }
    }
}
