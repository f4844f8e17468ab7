//! The optimiser's pass over one tensor.

use crate::Isa;
use crate::isa::Vectorize;
use crate::prefetch::{FAR, prefetch};
use crate::shared::SharedMut;
use std::ops::Range;

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

    /// A parameter and its moments behind the step, from those before it and the gradient.
    #[inline(always)]
    fn of(&self, [p, m, v]: [f32; 3], g: f32) -> [f32; 3] {
        let m = m + (g - m) * self.grad_weight;
        let v = v * self.beta2 + g * g * self.square_weight;
        let denominator = v.sqrt() * self.inv_root_correction + self.eps;
        [p * self.decay - self.step_size * (m / denominator), m, v]
    }
}

/// A tensor in training, or a part of one: slices of one length, and the step that is next.
pub struct AdamWTensor<'a> {
    /// Constants of the step.
    pub step: AdamWStep,
    /// The parameters.
    pub params: &'a mut [f32],
    /// First moments.
    pub m: &'a mut [f32],
    /// Second moments.
    pub v: &'a mut [f32],
    /// A moving average of the parameters and its decay `d`: behind the step it is `d * ema + (1 - d) * params`.
    pub ema: Option<(&'a mut [f32], f32)>,
}

impl AdamWTensor<'_> {
    /// Does the step.
    ///
    /// # Panics
    /// If the lengths differ.
    pub fn update(self, gradient: &[f32], isa: Isa) {
        self.check();
        assert_eq!(gradient.len(), self.params.len(), "lengths differ");
        isa.vectorize(Pass { tensor: self, gradient });
    }

    fn check(&self) {
        let len = self.params.len();
        assert!(self.m.len() == len && self.v.len() == len, "lengths differ");
        assert!(self.ema.as_ref().is_none_or(|(ema, _)| ema.len() == len), "lengths differ");
    }

    /// [`update`](Self::update), compiled for the instruction set of the caller.
    ///
    /// All numbers of an element are read before one is written: a CPU that goes by the last 12 bits of an address takes
    /// a read of one tensor for one of what was just written to another that lies alike in its pages, and waits.
    #[inline(always)]
    pub(crate) fn run(&mut self, gradient: &[f32]) {
        let Self { step, params, m, v, ema } = self;
        let elements = params.iter_mut().zip(m.iter_mut()).zip(v.iter_mut()).zip(gradient);
        match ema {
            None => {
                for (((p, m), v), g) in elements {
                    [*p, *m, *v] = step.of([*p, *m, *v], *g);
                }
            }
            Some((ema, decay)) => {
                for ((((p, m), v), g), ema) in elements.zip(ema.iter_mut()) {
                    let old = *ema;
                    let [new, m_new, v_new] = step.of([*p, *m, *v], *g);
                    [*p, *m, *v] = [new, m_new, v_new];
                    *ema = old * *decay + new * (1.0 - *decay);
                }
            }
        }
    }
}

struct Pass<'a> {
    tensor: AdamWTensor<'a>,
    gradient: &'a [f32],
}

impl Vectorize for Pass<'_> {
    type Output = ();

    #[inline(always)]
    fn run(mut self) {
        self.tensor.run(self.gradient);
    }
}

/// A tensor that tasks update at the same time, each at places of its own.
pub(crate) struct SharedTensor<'a> {
    step: AdamWStep,
    params: SharedMut<'a>,
    m: SharedMut<'a>,
    v: SharedMut<'a>,
    ema: Option<(SharedMut<'a>, f32)>,
}

impl<'a> SharedTensor<'a> {
    /// # Panics
    /// If the lengths differ.
    pub fn new(tensor: AdamWTensor<'a>) -> Self {
        tensor.check();
        let AdamWTensor { step, params, m, v, ema } = tensor;
        let [params, m, v] = [params, m, v].map(SharedMut::new);
        Self { step, params, m, v, ema: ema.map(|(ema, decay)| (SharedMut::new(ema), decay)) }
    }

    pub fn len(&self) -> usize {
        self.params.len()
    }

    /// Fetches a range of everything into the second-level cache.
    #[inline(always)]
    pub fn fetch(&self, at: Range<usize>) {
        const LINE: usize = 64 / size_of::<f32>();
        let ema = self.ema.as_ref().map(|(ema, _)| ema);
        for values in [&self.params, &self.m, &self.v].into_iter().chain(ema) {
            for start in at.clone().step_by(LINE) {
                prefetch::<FAR>(values.as_ptr().wrapping_add(start));
            }
        }
    }

    /// `len` values from `start` on.
    ///
    /// # Panics
    /// If there are fewer.
    ///
    /// # Safety
    /// No other part that overlaps them may be alive.
    #[inline(always)]
    pub unsafe fn part(&self, start: usize, len: usize) -> AdamWTensor<'_> {
        // SAFETY: passed on to the caller.
        unsafe {
            AdamWTensor {
                step: self.step,
                params: self.params.part(start, len),
                m: self.m.part(start, len),
                v: self.v.part(start, len),
                ema: match &self.ema {
                    Some((ema, decay)) => Some((ema.part(start, len), *decay)),
                    None => None,
                },
            }
        }
    }
}
