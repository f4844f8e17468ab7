//! 2-d convolution without bias.

use super::{Nchw, to_f32};

/// Geometry of a convolution with a square kernel; weights are `[cout, cin, kernel, kernel]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conv {
    /// Output channels.
    pub cout: usize,
    /// Input channels.
    pub cin: usize,
    /// Side of the kernel.
    pub kernel: usize,
    /// Step between output pixels, in input pixels.
    pub stride: usize,
    /// Zeros around the input on each side.
    pub pad: usize,
}

impl Conv {
    /// Side of the output for an input side.
    pub fn output_size(&self, input: usize) -> usize {
        (input + 2 * self.pad - self.kernel) / self.stride + 1
    }

    /// Calls `f(y_index, x_index, w_index)` for every product `x * w` that contributes to an output `y`.
    ///
    /// A convolution is linear in its input and in its weights, so these triples are all there is to its
    /// forward pass and both of its gradients.
    fn products(&self, x: &Shape, y: &Shape, mut f: impl FnMut(usize, usize, usize)) {
        let Self { cout, cin, kernel, stride, pad } = *self;
        // Input coordinate under kernel offset `k` at output coordinate `o`, unless it is in the padding.
        let source =
            |o: usize, k: usize, size: usize| (o * stride + k).checked_sub(pad).filter(|&i| i < size);
        for n in 0..x.n {
            for co in 0..cout {
                for oy in 0..y.h {
                    for ox in 0..y.w {
                        let y_index = ((n * cout + co) * y.h + oy) * y.w + ox;
                        for ci in 0..cin {
                            for ky in 0..kernel {
                                let Some(iy) = source(oy, ky, x.h) else { continue };
                                for kx in 0..kernel {
                                    let Some(ix) = source(ox, kx, x.w) else { continue };
                                    let x_index = ((n * cin + ci) * x.h + iy) * x.w + ix;
                                    let w_index = ((co * cin + ci) * kernel + ky) * kernel + kx;
                                    f(y_index, x_index, w_index);
                                }
                            }
                        }
                    }
                }
            }
        }
    }

    fn output_shape(&self, x: &Shape) -> Shape {
        Shape { n: x.n, h: self.output_size(x.h), w: self.output_size(x.w) }
    }

    fn weights(&self) -> usize {
        self.cout * self.cin * self.kernel * self.kernel
    }
}

/// Sizes of a batch of maps, channels aside.
struct Shape {
    n: usize,
    h: usize,
    w: usize,
}

impl Shape {
    fn of(x: &Nchw) -> Self {
        Self { n: x.n, h: x.h, w: x.w }
    }
}

/// `y[n, cout, oh, ow] = sum of x[n, cin, oh * stride + kh - pad, ow * stride + kw - pad] * w[cout, cin, kh, kw]`.
pub fn forward(conv: &Conv, x: &Nchw, w: &[f32]) -> Nchw {
    assert_eq!((x.c, w.len()), (conv.cin, conv.weights()), "input channels and weights of {conv:?}");
    let (xs, ys) = (Shape::of(x), conv.output_shape(&Shape::of(x)));
    let mut y = vec![0f64; ys.n * conv.cout * ys.h * ys.w];
    conv.products(&xs, &ys, |yi, xi, wi| y[yi] += f64::from(x.data[xi]) * f64::from(w[wi]));
    Nchw::new([ys.n, conv.cout, ys.h, ys.w], to_f32(y))
}

/// Gradient with respect to an input of `height` x `width`, `[n, cin, height, width]`, from the gradient `dy`
/// with respect to the output.
pub fn backward_input(conv: &Conv, height: usize, width: usize, dy: &Nchw, w: &[f32]) -> Nchw {
    let xs = Shape { n: dy.n, h: height, w: width };
    let ys = conv.output_shape(&xs);
    assert_eq!(dy.shape(), [ys.n, conv.cout, ys.h, ys.w], "output gradient of {conv:?}");
    let mut dx = vec![0f64; xs.n * conv.cin * xs.h * xs.w];
    conv.products(&xs, &ys, |yi, xi, wi| dx[xi] += f64::from(dy.data[yi]) * f64::from(w[wi]));
    Nchw::new([xs.n, conv.cin, height, width], to_f32(dx))
}

/// Gradient with respect to the weights, `[cout, cin, kernel, kernel]`, summed over the batch.
pub fn backward_weight(conv: &Conv, x: &Nchw, dy: &Nchw) -> Vec<f32> {
    let (xs, ys) = (Shape::of(x), conv.output_shape(&Shape::of(x)));
    assert_eq!(dy.shape(), [ys.n, conv.cout, ys.h, ys.w], "output gradient of {conv:?}");
    let mut dw = vec![0f64; conv.weights()];
    conv.products(&xs, &ys, |yi, xi, wi| dw[wi] += f64::from(dy.data[yi]) * f64::from(x.data[xi]));
    to_f32(dw)
}
