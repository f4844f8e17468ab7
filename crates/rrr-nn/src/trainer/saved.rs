//! What a training goes on from.

use super::{Trainer, TrainerOptions};
use crate::layout::Layout;
use crate::optimiser::Optimiser;
use crate::{NetSpec, NetState, State, StateError};
use rrr_kernels::{Buffer, Compute};
use std::ops::Range;

/// Everything that a [`Trainer`] needs to go on bit for bit.
#[derive(Clone, Debug, PartialEq)]
pub struct TrainerState {
    /// Weights and batch-norm statistics.
    pub net: NetState,
    /// First moments of the trained tensors, one state per branch.
    pub m: Vec<State>,
    /// Second moments.
    pub v: Vec<State>,
    /// Exponential moving average of the trained tensors, one state per branch, if started.
    pub ema: Option<Vec<State>>,
    /// Optimiser steps done, per branch.
    pub steps: Vec<u64>,
    /// EMA updates done, per branch.
    pub ema_updates: Vec<u64>,
    /// Decay target of the EMA, if started.
    pub ema_decay: Option<f32>,
    /// The stem's optimiser, if the stem is trained.
    pub stem: Option<StemState>,
}

/// What [`TrainerState`] holds per branch, of a stem that is trained.
#[derive(Clone, Debug, PartialEq)]
pub struct StemState {
    /// First moments.
    pub m: State,
    /// Second moments.
    pub v: State,
    /// Exponential moving average, if started.
    pub ema: Option<State>,
    /// Optimiser steps done.
    pub steps: u64,
    /// EMA updates done.
    pub ema_updates: u64,
}

impl Trainer {
    /// Continues from a saved state as if never stopped.
    ///
    /// # Errors
    /// [`StateError`] names every tensor that is missing, extra or misshapen, and whatever else is there by half.
    pub fn resume(
        spec: &NetSpec,
        state: &TrainerState,
        options: &TrainerOptions,
        compute: Compute,
    ) -> Result<Self, StateError> {
        let mut trainer = Self::new(spec, &state.net, options, compute)?;
        let range = trainer.trained();
        state.check_optimiser(spec.branches, &trainer.layout, range.clone())?;
        for (i, optimiser) in trainer.optimisers.iter_mut().enumerate() {
            let ema = state.ema.as_ref().zip(state.ema_decay).map(|(ema, target)| (&ema[i], target));
            let counts = [state.steps[i], state.ema_updates[i]];
            optimiser.restore(&trainer.layout, range.clone(), [&state.m[i], &state.v[i]], ema, counts);
        }
        let problem = |text: &str| StateError { problems: vec![text.into()] };
        if trainer.stem_optimiser.is_none() && state.stem.is_some() {
            return Err(problem("the stem has an optimiser, but is frozen"));
        }
        if let Some(optimiser) = &mut trainer.stem_optimiser {
            let layout = &trainer.stem_layout;
            let range = 0..layout.params;
            let saved = state.stem.as_ref();
            let saved = saved.ok_or_else(|| problem("the stem's optimiser is missing"))?;
            let mut problems = Vec::new();
            if saved.ema.is_some() != state.ema.is_some() {
                problems.push("only one of stem and branches has a moving average".to_owned());
            }
            for state in [Some(&saved.m), Some(&saved.v), saved.ema.as_ref()].into_iter().flatten() {
                check_moments("the stem's optimiser", state, layout, range.clone(), &mut problems);
            }
            if !problems.is_empty() {
                return Err(StateError { problems });
            }
            let counts = [saved.steps, saved.ema_updates];
            let ema = saved.ema.as_ref().zip(state.ema_decay);
            optimiser.restore(layout, range, [&saved.m, &saved.v], ema, counts);
        }
        Ok(trainer)
    }

    /// Everything needed to [`resume`](Self::resume).
    pub fn save(&self) -> TrainerState {
        let unpack = |layout: &Layout, values: &[f32], range| {
            let mut state = State::new();
            layout.unpack(values, range, &mut state);
            state
        };
        let of_branch = |values: &Buffer| unpack(&self.layout, values, self.trained());
        let of_stem = |values: &Buffer| unpack(&self.stem_layout, values, 0..self.stem_layout.params);
        let optimisers = &self.optimisers;
        let all = |f: fn(&Optimiser) -> &Buffer| optimisers.iter().map(|o| of_branch(f(o))).collect();
        TrainerState {
            net: self.state(),
            m: all(|o| &o.m),
            v: all(|o| &o.v),
            ema: optimisers.iter().map(|o| o.ema.as_ref().map(|e| of_branch(&e.average))).collect(),
            steps: optimisers.iter().map(|o| o.steps).collect(),
            ema_updates: optimisers.iter().map(Optimiser::ema_updates).collect(),
            ema_decay: optimisers.first().and_then(|o| o.ema.as_ref()).map(|e| e.target),
            stem: self.stem_optimiser.as_ref().map(|o| StemState {
                m: of_stem(&o.m),
                v: of_stem(&o.v),
                ema: o.ema.as_ref().map(|e| of_stem(&e.average)),
                steps: o.steps,
                ema_updates: o.ema_updates(),
            }),
        }
    }
}

impl TrainerState {
    fn check_optimiser(
        &self,
        branches: usize,
        layout: &Layout,
        range: Range<usize>,
    ) -> Result<(), StateError> {
        let mut problems = Vec::new();
        let mut check = |what: &str, states: &[State]| {
            if states.len() != branches {
                problems.push(format!("{what}: {} branches given, {branches} expected", states.len()));
            }
            for (i, state) in states.iter().enumerate() {
                check_moments(&format!("{what}, branch {i}"), state, layout, range.clone(), &mut problems);
            }
        };
        check("first moments", &self.m);
        check("second moments", &self.v);
        if let Some(ema) = &self.ema {
            check("moving average", ema);
        }
        if self.ema.is_some() != self.ema_decay.is_some() {
            problems.push("a moving average and its decay are not there together".to_owned());
        }
        if self.steps.len() != branches || self.ema_updates.len() != branches {
            problems.push("step counts do not match the number of branches".to_owned());
        }
        if problems.is_empty() { Ok(()) } else { Err(StateError { problems }) }
    }
}

fn check_moments(
    what: &str,
    state: &State,
    layout: &Layout,
    range: Range<usize>,
    problems: &mut Vec<String>,
) {
    for (name, shape) in layout.trainable(range) {
        if state.get(name).is_none_or(|t| t.shape != shape) {
            problems.push(format!("{what}: {name} is missing or misshapen"));
        }
    }
}
