//! AdamW with a moving average of the weights.

use crate::State;
use crate::layout::Layout;
use rrr_kernels::{AdamWStep, AdamWTensor, Buffer};
use std::ops::Range;

/// AdamW with decoupled weight decay, as `torch.optim.AdamW`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamW {
    /// Exponential decay of the gradient's mean.
    pub beta1: f64,
    /// Exponential decay of the gradient's square.
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub eps: f64,
    /// Decoupled weight decay, applied to all parameters.
    pub weight_decay: f64,
}

impl Default for AdamW {
    fn default() -> Self {
        Self { beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.01 }
    }
}

/// The optimiser of a branch. Moments and average cover the trained range of the parameters.
pub(crate) struct Optimiser {
    pub m: Buffer,
    pub v: Buffer,
    /// Steps begun.
    pub steps: u64,
    pub ema: Option<Ema>,
    /// Constants of the last step, and the average's decay in it.
    begun: Option<(AdamWStep, f32)>,
}

/// Exponential moving average.
pub(crate) struct Ema {
    pub average: Buffer,
    pub target: f32,
    pub updates: u64,
}

impl Ema {
    /// An average beside parameters and moments.
    fn zeros(params: usize) -> Buffer {
        Buffer::zeros_aside(params, 3)
    }
}

impl Optimiser {
    pub fn new(params: usize) -> Self {
        let [m, v] = [1, 2].map(|place| Buffer::zeros_aside(params, place));
        Self { m, v, steps: 0, ema: None, begun: None }
    }

    /// Goes on from saved moments, average with its decay target, and counts of steps and of updates of the average.
    pub fn restore(
        &mut self,
        layout: &Layout,
        range: Range<usize>,
        [m, v]: [&State; 2],
        ema: Option<(&State, f32)>,
        [steps, updates]: [u64; 2],
    ) {
        layout.pack(m, range.clone(), &mut self.m);
        layout.pack(v, range.clone(), &mut self.v);
        self.steps = steps;
        self.ema = ema.map(|(ema, target)| {
            let mut average = Ema::zeros(range.len());
            layout.pack(ema, range, &mut average);
            Ema { average, target, updates }
        });
    }

    pub fn start_ema(&mut self, target: f32, params: &[f32]) {
        let mut average = Ema::zeros(params.len());
        average.copy_from_slice(params);
        self.ema = Some(Ema { average, target, updates: 0 });
    }

    pub fn ema_updates(&self) -> u64 {
        self.ema.as_ref().map_or(0, |e| e.updates)
    }

    /// Begins a step of AdamW, and of the moving average; what [`of`](Self::of) gives, each parameter once, does it.
    pub fn begin(&mut self, adamw: &AdamW, lr: f64) {
        self.steps += 1;
        let betas = (adamw.beta1, adamw.beta2);
        let step = AdamWStep::new(self.steps, lr, betas, adamw.eps, adamw.weight_decay);
        let decay = self.ema.as_mut().map_or(0.0, |ema| {
            ema.updates += 1;
            let n = ema.updates as f32;
            ema.target.min((1.0 + n) / (10.0 + n))
        });
        self.begun = Some((step, decay));
    }

    /// Some of the parameters, which must be trained, with their moments, for the step that has begun.
    ///
    /// # Panics
    /// If none has.
    pub fn of<'a>(&'a mut self, params: &'a mut [f32], at: Range<usize>) -> AdamWTensor<'a> {
        // The trained ones are all or the last ones.
        let base = params.len() - self.m.len();
        let own = at.start - base..at.end - base;
        let (step, decay) = self.begun.expect("a step has begun");
        AdamWTensor {
            step,
            params: &mut params[at],
            m: &mut self.m[own.clone()],
            v: &mut self.v[own.clone()],
            ema: self.ema.as_mut().map(|ema| (&mut ema.average[own], decay)),
        }
    }
}
