//! Pooling of bytes.

use super::{Int8Activation, Int8Compute};
use crate::{BLOCK, max_pool_size};

/// Bytes that are compared at a time where there are so many: a vector of the widest kind.
const LINE: usize = 64;

/// 3x3 windows, stride 2, padding 1, as torchvision's stem; `y` takes the shape that this gives.
pub fn int8_max_pool(x: &Int8Activation, y: &mut Int8Activation, compute: &Int8Compute) {
    let ((height, width), n) = (x.size(), x.n());
    let (oh, ow) = (max_pool_size(height), max_pool_size(width));
    y.reshape(x.groups(), x.channels(), (oh, ow), n);
    let (x_plane, y_plane, line) = (x.plane_len(), y.plane_len(), ow * n * x.block());
    let row = n * x.block();
    let x = x.data();
    compute.pool().for_each_chunk(y.data_mut(), y_plane, |plane, y| {
        y[oh * line..].fill(0);
        let x = &x[plane * x_plane..][..x_plane];
        compute.isa().base().vectorize(|| {
            for (oy, line) in y[..oh * line].chunks_exact_mut(line).enumerate() {
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
                    let (lines, rest) = out.as_chunks_mut::<LINE>();
                    for (at, out) in lines.iter_mut().enumerate() {
                        *out = most(&window, at * LINE);
                    }
                    let done = lines.len() * LINE;
                    for (at, out) in rest.as_chunks_mut::<BLOCK>().0.iter_mut().enumerate() {
                        *out = most(&window, done + at * BLOCK);
                    }
                }
            }
        });
    });
}

/// Maximum of `L` bytes of each row from `at` on.
#[inline(always)]
fn most<const L: usize>(rows: &[&[u8]; 9], at: usize) -> [u8; L] {
    let of = |row: &[u8]| *row[at..].first_chunk::<L>().expect("rows of the same length");
    let mut most = of(rows[0]);
    for row in &rows[1..] {
        let row = of(row);
        for c in 0..L {
            most[c] = most[c].max(row[c]);
        }
    }
    most
}

/// Mean over the pixels, times a scale for every group and channel: `y` is `[group][n][channels]`.
///
/// # Panics
/// If a length is wrong.
pub fn int8_avg_pool(x: &Int8Activation, scales: &[f32], y: &mut [f32], compute: &Int8Compute) {
    let (n, channels, pixels) = (x.n(), x.channels(), x.size().0 * x.size().1);
    assert_eq!(scales.len(), x.groups() * channels, "a scale for every channel");
    assert_eq!(y.len(), x.groups() * n * channels, "output of another shape");
    let (plane, group, width) = (x.plane_len(), x.group_len(), x.block());
    let x = x.data();
    compute.pool().for_each_chunk(y, channels, |index, features| {
        let (g, image) = (index / n, index % n);
        let scales = &scales[g * channels..][..channels];
        compute.isa().base().vectorize(|| {
            for (block, (features, scales)) in
                features.chunks_mut(BLOCK).zip(scales.chunks(BLOCK)).enumerate()
            {
                let (plane_at, first) = (block * BLOCK / width * plane, block * BLOCK % width);
                let rows = &x[g * group + plane_at..][..pixels * n * width];
                let mut sums = [0u32; BLOCK];
                for row in rows[image * width + first..].chunks(n * width) {
                    for (sum, v) in sums.iter_mut().zip(&row[..BLOCK]) {
                        *sum += u32::from(*v);
                    }
                }
                for ((feature, sum), scale) in features.iter_mut().zip(sums).zip(scales) {
                    *feature = sum as f32 * (scale / pixels as f32);
                }
            }
        });
    });
}
