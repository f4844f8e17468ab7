//! Pooling of activations in bf16.

use super::WIDTH;
use super::activation::{Bf16Activation, widen};
use crate::compute::Compute;
use crate::max_pool_size;
use crate::shared::SharedMut;

/// Numbers that a task of max pooling puts out, about.
const TASK_LEN: usize = 8 << 10;

/// 3x3 windows, stride 2, padding 1, as torchvision's stem; `y` takes the shape that this gives. For values that are
/// not negative, as they are behind a ReLU: these are compared by their bits (NaN is above all).
pub fn bf16_max_pool(x: &Bf16Activation, y: &mut Bf16Activation, compute: &Compute) {
    let ((height, width), n) = (x.size(), x.n());
    let (oh, ow) = (max_pool_size(height), max_pool_size(width));
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
        compute.isa().vectorize(|| {
            for (oy, line) in (first..end).zip(y.chunks_exact_mut(ow * row)) {
                let ys = (oy * 2).saturating_sub(1)..(oy * 2 + 2).min(height);
                for (ox, out) in line.chunks_exact_mut(row).enumerate() {
                    let xs = (ox * 2).saturating_sub(1)..(ox * 2 + 2).min(width);
                    let pixels = ys.clone().flat_map(|y| xs.clone().map(move |x| y * width + x));
                    // The window's pixels; at an edge the first one again, which changes no maximum.
                    let first = ys.start * width + xs.start;
                    let mut window = [&x[first * row..][..row]; 9];
                    for (slot, pixel) in window.iter_mut().zip(pixels) {
                        *slot = &x[pixel * row..][..row];
                    }
                    for (at, out) in out.as_chunks_mut::<WIDTH>().0.iter_mut().enumerate() {
                        let mut most = [i16::MIN; WIDTH];
                        for row in window {
                            let x: &[u16; WIDTH] =
                                row.as_chunks().0.get(at).expect("rows of the same length");
                            for c in 0..WIDTH {
                                most[c] = most[c].max(x[c].cast_signed());
                            }
                        }
                        *out = most.map(i16::cast_unsigned);
                    }
                }
            }
        });
    });
}

/// Mean over the pixels: `y` is `[group][n][channels]`, in f32.
///
/// # Panics
/// If a length is wrong.
pub fn bf16_avg_pool(x: &Bf16Activation, y: &mut [f32], compute: &Compute) {
    let (n, channels, pixels) = (x.n(), x.channels(), x.size().0 * x.size().1);
    assert_eq!(y.len(), x.groups() * n * channels, "output of another shape");
    let (plane, group) = (x.plane_len(), x.group_len());
    let x = x.data();
    compute.pool().for_each_chunk(y, channels, |index, features| {
        let (g, image) = (index / n, index % n);
        compute.isa().vectorize(|| {
            for (block, features) in features.chunks_mut(WIDTH).enumerate() {
                let rows = &x[g * group + block * plane..][..pixels * n * WIDTH];
                let mut sums = [0.0; WIDTH];
                for row in rows[image * WIDTH..].chunks(n * WIDTH) {
                    for (sum, v) in sums.iter_mut().zip(&row[..WIDTH]) {
                        *sum += widen(*v);
                    }
                }
                for (feature, sum) in features.iter_mut().zip(sums) {
                    *feature = sum / pixels as f32;
                }
            }
        });
    });
}
