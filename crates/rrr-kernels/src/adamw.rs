//! The optimiser's pass over one tensor.

use crate::Isa;
use crate::isa::Vectorize;

/// Constants of one AdamW step (`torch.optim.AdamW`), with the bias corrections of its step number.
#[derive(Clone, Copy, Debug)]
pub struct AdamWStep {
    eps: f32,
    /// `1 - beta1`, `beta2` and `1 - beta2`, subtracted in f64: in f32 they would be off by 1e-5.
    grad_weight: f32,
    beta2: f32,
    square_weight: f32,
    /// `1 - lr * weight_decay`.
    decay: f32,
    /// `lr / (1 - beta1^t)`.
    step_size: f32,
    /// `1 / sqrt(1 - beta2^t)`.
    inv_root_correction: f32,
}

impl AdamWStep {
    /// Step number `t`, counted from 1.
    pub fn new(t: u64, lr: f64, (beta1, beta2): (f64, f64), eps: f64, weight_decay: f64) -> Self {
        let correction = |beta: f64| 1.0 - beta.powf(t as f64);
        Self {
            eps: eps as f32,
            grad_weight: (1.0 - beta1) as f32,
            beta2: beta2 as f32,
            square_weight: (1.0 - beta2) as f32,
            decay: (1.0 - lr * weight_decay) as f32,
            step_size: (lr / correction(beta1)) as f32,
            inv_root_correction: (1.0 / correction(beta2).sqrt()) as f32,
        }
    }
}

/// Updates weights `p` and moments `m` and `v` from gradient `g`; then, if given, the moving average
/// `ema = d * ema + (1 - d) * p` with `(ema, d)`.
///
/// # Panics
/// If the lengths differ.
pub fn adamw_step(
    isa: Isa,
    s: &AdamWStep,
    p: &mut [f32],
    g: &[f32],
    m: &mut [f32],
    v: &mut [f32],
    ema: Option<(&mut [f32], f32)>,
) {
    let len = p.len();
    assert!(g.len() == len && m.len() == len && v.len() == len, "lengths differ");
    assert!(ema.as_ref().is_none_or(|(ema, _)| ema.len() == len), "lengths differ");
    isa.vectorize(Pass { s: *s, p, g, m, v, ema });
}

/// Slices of one length.
struct Pass<'a> {
    s: AdamWStep,
    p: &'a mut [f32],
    g: &'a [f32],
    m: &'a mut [f32],
    v: &'a mut [f32],
    ema: Option<(&'a mut [f32], f32)>,
}

impl Vectorize for Pass<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Self { s, p, g, m, v, ema } = self;
        for (((p, g), m), v) in p.iter_mut().zip(g).zip(m).zip(v) {
            *m += (g - *m) * s.grad_weight;
            *v = *v * s.beta2 + g * g * s.square_weight;
            let denominator = v.sqrt() * s.inv_root_correction + s.eps;
            *p = *p * s.decay - s.step_size * (*m / denominator);
        }
        if let Some((ema, d)) = ema {
            for (e, p) in ema.iter_mut().zip(p) {
                *e = *e * d + *p * (1.0 - d);
            }
        }
    }
}
