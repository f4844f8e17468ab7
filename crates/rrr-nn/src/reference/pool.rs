//! The stem's max-pool (3x3, stride 2, padding 1) and global average pooling.

use super::{Nchw, to_f32};

/// Output of [`max_forward`].
#[derive(Clone, Debug)]
pub struct MaxPooled {
    /// `[n, c, (h - 1) / 2 + 1, (w - 1) / 2 + 1]`.
    pub y: Nchw,
    /// For every output, the position in the input's data that it was taken from.
    pub source: Vec<usize>,
}

/// Maximum over 3x3 windows, stride 2, padding 1; of equal values the first in row-major order wins.
pub fn max_forward(x: &Nchw) -> MaxPooled {
    let (oh, ow) = ((x.h - 1) / 2 + 1, (x.w - 1) / 2 + 1);
    let mut source = Vec::with_capacity(x.n * x.c * oh * ow);
    for n in 0..x.n {
        for c in 0..x.c {
            for oy in 0..oh {
                for ox in 0..ow {
                    // The window is centred on (2 oy, 2 ox), cut at the borders.
                    let rows = (2 * oy).saturating_sub(1)..(2 * oy + 2).min(x.h);
                    let columns = (2 * ox).saturating_sub(1)..(2 * ox + 2).min(x.w);
                    let mut best = x.at(n, c, rows.start, columns.start);
                    for iy in rows {
                        for ix in columns.clone() {
                            let i = x.at(n, c, iy, ix);
                            if x.data[i] > x.data[best] {
                                best = i;
                            }
                        }
                    }
                    source.push(best);
                }
            }
        }
    }
    let data = source.iter().map(|&i| x.data[i]).collect();
    MaxPooled { y: Nchw::new([x.n, x.c, oh, ow], data), source }
}

/// Gradient of [`max_forward`] for an input of shape `[n, c, h, w]`: every output's gradient goes to its source.
pub fn max_backward(shape: [usize; 4], source: &[usize], dy: &Nchw) -> Nchw {
    assert_eq!(source.len(), dy.data.len());
    let mut dx = vec![0f64; shape.iter().product()];
    for (&i, &d) in source.iter().zip(&dy.data) {
        dx[i] += f64::from(d);
    }
    Nchw::new(shape, to_f32(dx))
}

/// Mean over each channel's map, `[n, c, 1, 1]`.
pub fn average_forward(x: &Nchw) -> Nchw {
    let area = x.h * x.w;
    let mean = |map: &[f32]| (map.iter().map(|v| f64::from(*v)).sum::<f64>() / area as f64) as f32;
    Nchw::new([x.n, x.c, 1, 1], x.data.chunks_exact(area).map(mean).collect())
}

/// Gradient of [`average_forward`] for an input of `h` x `w`.
pub fn average_backward(h: usize, w: usize, dy: &Nchw) -> Nchw {
    let area = h * w;
    let data = dy.data.iter().flat_map(|d| std::iter::repeat_n(d / area as f32, area)).collect();
    Nchw::new([dy.n, dy.c, h, w], data)
}
