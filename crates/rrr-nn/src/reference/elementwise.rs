//! ReLU and the residual sum.

use super::Nchw;

/// `max(x, 0)`.
pub fn relu(x: &Nchw) -> Nchw {
    Nchw::new(x.shape(), x.data.iter().map(|v| v.max(0.0)).collect())
}

/// Gradient of [`relu`] from its *output* `y`; zero where the input was exactly zero, as in PyTorch.
pub fn relu_backward(y: &Nchw, dy: &Nchw) -> Nchw {
    assert_eq!(y.shape(), dy.shape());
    Nchw::new(y.shape(), y.data.iter().zip(&dy.data).map(|(y, d)| if *y > 0.0 { *d } else { 0.0 }).collect())
}

/// `a + b`. Its gradient passes unchanged to both.
pub fn add(a: &Nchw, b: &Nchw) -> Nchw {
    assert_eq!(a.shape(), b.shape());
    Nchw::new(a.shape(), a.data.iter().zip(&b.data).map(|(a, b)| a + b).collect())
}
