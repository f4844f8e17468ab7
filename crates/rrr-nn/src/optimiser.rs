//! AdamW with a moving average of the weights.

use crate::State;
use crate::layout::Layout;
use rrr_kernels::{AdamWStep, Buffer, Compute, adamw_step};
use std::ops::Range;

/// Parameters that one task updates.
const UPDATE_CHUNK: usize = 1 << 16;

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
    /// Steps done.
    pub steps: u64,
    pub ema: Option<Ema>,
}

/// Exponential moving average.
pub(crate) struct Ema {
    pub average: Buffer,
    pub target: f32,
    pub updates: u64,
}

/// One step: of all trained parameters, or of some that [`split_off`](Self::split_off) takes.
pub(crate) struct Update<'a> {
    step: AdamWStep,
    pub params: &'a mut [f32],
    gradients: &'a [f32],
    m: &'a mut [f32],
    v: &'a mut [f32],
    /// Moving average, and its decay.
    ema: Option<(&'a mut [f32], f32)>,
}

impl Optimiser {
    pub fn new(params: usize) -> Self {
        Self { m: Buffer::zeros(params), v: Buffer::zeros(params), steps: 0, ema: None }
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
            let mut average = Buffer::zeros(range.len());
            layout.pack(ema, range, &mut average);
            Ema { average, target, updates }
        });
    }

    pub fn start_ema(&mut self, target: f32, params: &[f32]) {
        let mut average = Buffer::zeros(params.len());
        average.copy_from_slice(params);
        self.ema = Some(Ema { average, target, updates: 0 });
    }

    pub fn ema_updates(&self) -> u64 {
        self.ema.as_ref().map_or(0, |e| e.updates)
    }

    /// Begins a step of AdamW from the present gradients, and of the moving average.
    pub fn begin<'a>(
        &'a mut self,
        adamw: &AdamW,
        lr: f64,
        params: &'a mut [f32],
        gradients: &'a [f32],
    ) -> Update<'a> {
        self.steps += 1;
        let betas = (adamw.beta1, adamw.beta2);
        let step = AdamWStep::new(self.steps, lr, betas, adamw.eps, adamw.weight_decay);
        let ema = self.ema.as_mut().map(|ema| {
            ema.updates += 1;
            let n = ema.updates as f32;
            (&mut ema.average[..], ema.target.min((1.0 + n) / (10.0 + n)))
        });
        Update { step, params, gradients, m: &mut self.m, v: &mut self.v, ema }
    }
}

impl<'a> Update<'a> {
    /// Takes the first `len` parameters off.
    ///
    /// # Panics
    /// If there are fewer.
    pub fn split_off(&mut self, len: usize) -> Self {
        fn take<'a>(rest: &mut &'a mut [f32], len: usize) -> &'a mut [f32] {
            rest.split_off_mut(..len).expect("as laid out")
        }
        Self {
            step: self.step,
            params: take(&mut self.params, len),
            gradients: self.gradients.split_off(..len).expect("as laid out"),
            m: take(&mut self.m, len),
            v: take(&mut self.v, len),
            ema: self.ema.as_mut().map(|(ema, decay)| (take(ema, len), *decay)),
        }
    }

    /// Updates a range of the parameters.
    pub fn run(&mut self, at: Range<usize>, compute: &Compute) {
        let Self { step, params, gradients, m, v, ema } = self;
        let ema = ema.as_mut().map(|(ema, decay)| (&mut ema[at.clone()], *decay));
        let (g, m, v) = (&gradients[at.clone()], &mut m[at.clone()], &mut v[at.clone()]);
        adamw_step(compute.isa(), step, &mut params[at], g, m, v, ema);
    }

    /// Updates all parameters, on all threads.
    pub fn run_all(mut self, compute: &Compute) {
        let len = self.params.len();
        let chunks =
            (0..len).step_by(UPDATE_CHUNK).map(|start| self.split_off(UPDATE_CHUNK.min(len - start)));
        compute.pool().for_each(chunks, |_, mut chunk| chunk.run(0..chunk.params.len(), compute));
    }
}
