//! One parameter tensor's optimiser step and moving average.

use crate::AdamW;

/// One step of `torch.optim.AdamW` on `param` with gradient `grad`; `m` and `v` are its moments and `step`
/// counts from 1.
pub fn adamw(
    options: &AdamW,
    lr: f64,
    step: u64,
    param: &mut [f32],
    grad: &[f32],
    m: &mut [f32],
    v: &mut [f32],
) {
    let AdamW { beta1, beta2, eps, weight_decay } = *options;
    let correction1 = 1.0 - beta1.powf(step as f64);
    let correction2 = 1.0 - beta2.powf(step as f64);
    for i in 0..param.len() {
        let g = f64::from(grad[i]);
        let mi = beta1 * f64::from(m[i]) + (1.0 - beta1) * g;
        let vi = beta2 * f64::from(v[i]) + (1.0 - beta2) * g * g;
        let update = (mi / correction1) / ((vi / correction2).sqrt() + eps);
        param[i] = (f64::from(param[i]) * (1.0 - lr * weight_decay) - lr * update) as f32;
        m[i] = mi as f32;
        v[i] = vi as f32;
    }
}

/// Decay of the `n`th update of an exponential moving average, `n` from 1: `min(target, (1 + n) / (10 + n))`.
pub fn ema_decay(target: f32, n: u64) -> f64 {
    f64::from(target).min((1 + n) as f64 / (10 + n) as f64)
}

/// `average = average * decay + param * (1 - decay)`.
pub fn ema(average: &mut [f32], param: &[f32], decay: f64) {
    for (a, p) in average.iter_mut().zip(param) {
        *a = (f64::from(*a) * decay + f64::from(*p) * (1.0 - decay)) as f32;
    }
}
