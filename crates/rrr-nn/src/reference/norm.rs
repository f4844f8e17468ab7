//! Batch normalisation over `[n, h, w]`, per channel.

use super::Nchw;

/// Added to the variance.
pub const EPS: f64 = 1e-5;

/// Output of [`train`] and what its gradient needs.
#[derive(Clone, Debug)]
pub struct Normalized {
    /// Output, of the input's shape.
    pub y: Nchw,
    /// Mean of the batch per channel.
    pub mean: Vec<f32>,
    /// Biased variance of the batch per channel (the one that normalises).
    pub var: Vec<f32>,
}

/// Gradients of [`train`].
#[derive(Clone, Debug)]
pub struct Gradients {
    /// With respect to the input.
    pub dx: Nchw,
    /// With respect to the scale.
    pub dweight: Vec<f32>,
    /// With respect to the shift.
    pub dbias: Vec<f32>,
}

/// Indices of one channel's elements.
fn channel(x: &Nchw, c: usize) -> impl Iterator<Item = usize> + use<> {
    let (n, channels, area) = (x.n, x.c, x.h * x.w);
    (0..n).flat_map(move |image| (image * channels + c) * area..(image * channels + c + 1) * area)
}

/// Normalises with the statistics of the batch.
pub fn train(x: &Nchw, weight: &[f32], bias: &[f32]) -> Normalized {
    let count = (x.n * x.h * x.w) as f64;
    let mut y = vec![0f32; x.data.len()];
    let (mut means, mut vars) = (Vec::new(), Vec::new());
    for c in 0..x.c {
        let mean = channel(x, c).map(|i| f64::from(x.data[i])).sum::<f64>() / count;
        let var = channel(x, c).map(|i| (f64::from(x.data[i]) - mean).powi(2)).sum::<f64>() / count;
        let scale = f64::from(weight[c]) / (var + EPS).sqrt();
        for i in channel(x, c) {
            y[i] = ((f64::from(x.data[i]) - mean) * scale + f64::from(bias[c])) as f32;
        }
        means.push(mean as f32);
        vars.push(var as f32);
    }
    Normalized { y: Nchw::new(x.shape(), y), mean: means, var: vars }
}

/// Moves running statistics towards those of a batch with `count = n * h * w` values per channel:
/// `running = (1 - momentum) * running + momentum * batch`, the variance unbiased.
///
/// PyTorch refuses batches with one value per channel; here their variance is 0.
pub fn update_running(running_mean: &mut [f32], running_var: &mut [f32], batch: &Normalized, momentum: f32) {
    let count = (batch.y.n * batch.y.h * batch.y.w) as f64;
    let unbias = count / (count - 1.0).max(1.0);
    let momentum = f64::from(momentum);
    let mix = |old: &mut f32, new: f64| *old = ((1.0 - momentum) * f64::from(*old) + momentum * new) as f32;
    for c in 0..batch.y.c {
        mix(&mut running_mean[c], f64::from(batch.mean[c]));
        mix(&mut running_var[c], f64::from(batch.var[c]) * unbias);
    }
}

/// Normalises with running statistics.
pub fn eval(x: &Nchw, weight: &[f32], bias: &[f32], mean: &[f32], var: &[f32]) -> Nchw {
    let mut y = vec![0f32; x.data.len()];
    for c in 0..x.c {
        let scale = f64::from(weight[c]) / (f64::from(var[c]) + EPS).sqrt();
        for i in channel(x, c) {
            y[i] = ((f64::from(x.data[i]) - f64::from(mean[c])) * scale + f64::from(bias[c])) as f32;
        }
    }
    Nchw::new(x.shape(), y)
}

/// Gradients of [`train`] for input `x` and output gradient `dy`; the batch's mean and variance depend on `x`.
pub fn backward(x: &Nchw, weight: &[f32], batch: &Normalized, dy: &Nchw) -> Gradients {
    assert_eq!(x.shape(), dy.shape());
    let count = (x.n * x.h * x.w) as f64;
    let mut dx = vec![0f32; x.data.len()];
    let (mut dweight, mut dbias) = (Vec::new(), Vec::new());
    for (c, &weight) in weight.iter().enumerate() {
        let inv_std = 1.0 / (f64::from(batch.var[c]) + EPS).sqrt();
        let normalized = |i: usize| (f64::from(x.data[i]) - f64::from(batch.mean[c])) * inv_std;
        let sum: f64 = channel(x, c).map(|i| f64::from(dy.data[i])).sum();
        let dot: f64 = channel(x, c).map(|i| f64::from(dy.data[i]) * normalized(i)).sum();
        for i in channel(x, c) {
            let centered = f64::from(dy.data[i]) - sum / count - normalized(i) * dot / count;
            dx[i] = (f64::from(weight) * inv_std * centered) as f32;
        }
        dweight.push(dot as f32);
        dbias.push(sum as f32);
    }
    Gradients { dx: Nchw::new(x.shape(), dx), dweight, dbias }
}
