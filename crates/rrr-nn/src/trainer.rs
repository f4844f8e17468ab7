//! Training steps.

use crate::backward::{self, Learner};
use crate::folded::{self, Folded, Input, Pass};
use crate::input::PaddedImages;
use crate::layout::Layout;
use crate::loss;
use crate::plans::{Plans, Workspace};
use crate::tape::{self, Member};
use crate::{Images, NetSpec, NetState, State, StateError};
use rrr_kernels::{Activation, AdamWStep, Buffer, Compute, PackedWeights, Precision, adamw_step};
use std::ops::Range;

/// Parameters that one task of the optimiser updates.
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

/// Which tensors a step changes. The stem is never trained.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trainable {
    /// Everything in the branches.
    All,
    /// Only `fc`; batch norms of the branches still run in train mode and update their statistics.
    Classifier,
}

/// What a [`Trainer`] needs besides architecture and weights.
#[derive(Clone, Debug)]
pub struct TrainerOptions {
    /// Optimiser constants.
    pub adamw: AdamW,
    /// What is trained.
    pub trainable: Trainable,
    /// Momentum of batch-norm running statistics.
    pub bn_momentum: f32,
    /// Label smoothing of the cross-entropy, 0 for none.
    pub label_smoothing: f32,
}

impl Default for TrainerOptions {
    fn default() -> Self {
        Self { adamw: AdamW::default(), trainable: Trainable::All, bn_momentum: 0.1, label_smoothing: 0.0 }
    }
}

/// Losses of one step.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StepOutput {
    /// Mean loss of the batch, one per branch that took part.
    pub loss: Vec<f32>,
    /// Images that each of these branches classified correctly (in train mode, before the update); 0 where there are
    /// no labels.
    pub correct: Vec<usize>,
}

/// What the outputs of every branch should be.
#[derive(Clone, Copy)]
enum Target<'a> {
    Labels(&'a [u32]),
    Values { values: &'a [f32], scale: f32 },
}

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
}

/// A network in training: the stem in inference form, the branches in train mode.
pub struct Trainer {
    spec: NetSpec,
    options: TrainerOptions,
    stem_layout: Layout,
    layout: Layout,
    stem: Member,
    /// Made from `stem` when needed.
    folded_stem: Option<Folded>,
    /// The branches, and what updates each of them.
    learners: Vec<Learner>,
    optimisers: Vec<Optimiser>,
    plans: Plans,
    workspace: Workspace,
    images: PaddedImages,
    output: StepOutput,
}

/// The optimiser of a branch. Moments and average cover the trained range of the parameters.
struct Optimiser {
    m: Buffer,
    v: Buffer,
    steps: u64,
    ema: Option<Ema>,
}

struct Ema {
    average: Buffer,
    target: f32,
    updates: u64,
}

impl Trainer {
    /// Prepares training from `state`; the optimiser's moments begin at zero.
    ///
    /// # Errors
    /// [`StateError`] names every tensor that is missing, extra or misshapen.
    pub fn new(
        spec: &NetSpec,
        state: &NetState,
        options: &TrainerOptions,
        compute: Compute,
    ) -> Result<Self, StateError> {
        state.check(spec)?;
        let stem_layout = Layout::new(&spec.stem);
        let layout = Layout::new(&spec.branch);
        let trained = trained_range(&layout, options.trainable).len();
        let precision = compute.precision();
        let (transposed, rounded) = match options.trainable {
            Trainable::All => (layout.transposed, layout.rounded_transposed),
            Trainable::Classifier => (0, 0),
        };
        let branches = &state.branches;
        let learner = |s| Learner {
            member: member(&layout, s, precision),
            gradients: Buffer::zeros(trained),
            transposed: PackedWeights::zeros(precision, transposed, rounded),
        };
        let optimiser =
            |_| Optimiser { m: Buffer::zeros(trained), v: Buffer::zeros(trained), steps: 0, ema: None };
        Ok(Self {
            spec: spec.clone(),
            options: options.clone(),
            stem: member(&stem_layout, &state.stem, precision),
            folded_stem: None,
            stem_layout,
            learners: branches.iter().map(learner).collect(),
            optimisers: branches.iter().map(optimiser).collect(),
            layout,
            plans: Plans::new(compute, true),
            workspace: Workspace::default(),
            images: PaddedImages::default(),
            output: StepOutput::default(),
        })
    }

    /// Continues from a saved state as if never stopped.
    ///
    /// # Errors
    /// [`StateError`] names every tensor that is missing, extra or misshapen.
    pub fn resume(
        spec: &NetSpec,
        state: &TrainerState,
        options: &TrainerOptions,
        compute: Compute,
    ) -> Result<Self, StateError> {
        let mut trainer = Self::new(spec, &state.net, options, compute)?;
        let range = trainer.trained();
        let layout = &trainer.layout;
        state.check_optimiser(spec.branches, layout, range.clone())?;
        for (i, optimiser) in trainer.optimisers.iter_mut().enumerate() {
            layout.pack(&state.m[i], range.clone(), &mut optimiser.m);
            layout.pack(&state.v[i], range.clone(), &mut optimiser.v);
            optimiser.steps = state.steps[i];
            optimiser.ema = state.ema.as_ref().zip(state.ema_decay).map(|(ema, target)| {
                let mut average = Buffer::zeros(range.len());
                layout.pack(&ema[i], range.clone(), &mut average);
                Ema { average, target, updates: state.ema_updates[i] }
            });
        }
        Ok(trainer)
    }

    /// Everything needed to [`resume`](Self::resume).
    pub fn save(&self) -> TrainerState {
        let unpack = |values: &[f32]| {
            let mut state = State::new();
            self.layout.unpack(values, self.trained(), &mut state);
            state
        };
        let optimisers = &self.optimisers;
        let all = |f: fn(&Optimiser) -> &Buffer| optimisers.iter().map(|o| unpack(f(o))).collect();
        TrainerState {
            net: self.state(),
            m: all(|o| &o.m),
            v: all(|o| &o.v),
            ema: optimisers.iter().map(|o| o.ema.as_ref().map(|e| unpack(&e.average))).collect(),
            steps: optimisers.iter().map(|o| o.steps).collect(),
            ema_updates: optimisers.iter().map(|o| o.ema.as_ref().map_or(0, |e| e.updates)).collect(),
            ema_decay: optimisers.first().and_then(|o| o.ema.as_ref()).map(|e| e.target),
        }
    }

    /// The architecture.
    pub fn spec(&self) -> &NetSpec {
        &self.spec
    }

    /// One pass of a batch through the stem in train mode, which updates its batch-norm running statistics
    /// and nothing else ("warming"). Does nothing when there is no stem.
    pub fn warm_stem(&mut self, images: &Images<'_>) {
        if self.spec.stem.is_empty() {
            return;
        }
        self.images.load(images, self.plans.compute().pool());
        let input = Input::Images(&self.images);
        tape::forward(
            &self.stem_layout,
            std::slice::from_mut(&mut self.stem),
            input,
            self.options.bn_momentum,
            &mut self.plans,
        );
        self.folded_stem = None;
    }

    /// One optimiser step of all branches on one batch, the stem run once.
    ///
    /// # Panics
    /// If `labels.len() != images.n` or a label is not below the number of classes.
    pub fn step(&mut self, images: &Images<'_>, labels: &[u32], lr: f64) -> &StepOutput {
        self.step_range(0..self.learners.len(), images, Target::Labels(labels), lr)
    }

    /// One optimiser step of all branches on one batch towards given outputs `values` (`[n, classes]`), the stem run
    /// once: regression, as in distillation. The loss of a branch is the mean over the images of the squared distance
    /// between its outputs and the values, times `scale`.
    ///
    /// # Panics
    /// If `values` does not hold `images.n` rows of the classifier's outputs.
    pub fn step_towards(
        &mut self,
        images: &Images<'_>,
        values: &[f32],
        scale: f32,
        lr: f64,
    ) -> &StepOutput {
        self.step_range(0..self.learners.len(), images, Target::Values { values, scale }, lr)
    }

    /// One optimiser step of one branch on its own batch.
    ///
    /// # Panics
    /// As [`Trainer::step`], and if there is no such branch.
    pub fn step_branch(
        &mut self,
        branch: usize,
        images: &Images<'_>,
        labels: &[u32],
        lr: f64,
    ) -> &StepOutput {
        self.step_range(branch..branch + 1, images, Target::Labels(labels), lr)
    }

    fn step_range(
        &mut self,
        which: Range<usize>,
        images: &Images<'_>,
        target: Target<'_>,
        lr: f64,
    ) -> &StepOutput {
        let classes = self.layout.fc.as_ref().map_or(0, |fc| fc.conv.cout());
        match target {
            Target::Labels(labels) => {
                assert_eq!(labels.len(), images.n, "one label per image");
                assert!(labels.iter().all(|&l| (l as usize) < classes), "a label is not below {classes}");
            }
            Target::Values { values, .. } => {
                assert_eq!(values.len(), images.n * classes, "a value for each output and image");
            }
        }
        self.images.load(images, self.plans.compute().pool());
        let stem = self.run_stem();
        let images_in = Input::Images(&self.images);
        let input = stem.as_ref().map_or(images_in, |features| Input::Features(&features[0]));
        let (layout, plans, workspace) = (&self.layout, &mut self.plans, &mut self.workspace);
        let learners = &mut self.learners[which.clone()];
        tape::forward(layout, learners, input, self.options.bn_momentum, plans);
        let mut gradients = workspace.take_many(learners.len(), classes, (1, 1), images.n);
        self.output.loss.clear();
        self.output.correct.clear();
        for (learner, gradient) in learners.iter().zip(&mut gradients) {
            let logits = &learner.member.tape.logits;
            let loss = match target {
                Target::Labels(labels) => {
                    loss::cross_entropy(logits, labels, self.options.label_smoothing, gradient)
                }
                Target::Values { values, scale } => loss::squared_error(logits, values, scale, gradient),
            };
            self.output.loss.push(loss.mean);
            self.output.correct.push(loss.correct);
        }
        match self.options.trainable {
            Trainable::All => backward::backward(layout, learners, input, gradients, plans, workspace),
            Trainable::Classifier => {
                let fc = layout.fc.as_ref().expect("checked by `classes`");
                backward::head(fc, learners, gradients, false, plans, workspace);
            }
        }
        let trained = trained_range(layout, self.options.trainable);
        for (learner, optimiser) in learners.iter_mut().zip(&mut self.optimisers[which]) {
            optimiser.update(learner, &self.options.adamw, lr, trained.clone(), plans.compute());
        }
        if let Some(stem) = stem {
            workspace.give(stem);
        }
        &self.output
    }

    /// The stem's output for the loaded images, if there is a stem.
    fn run_stem(&mut self) -> Option<Vec<Activation>> {
        if self.spec.stem.is_empty() {
            return None;
        }
        let (layout, stem) = (&self.stem_layout, &self.stem);
        let compute = self.plans.compute();
        let fold = || Folded::new(layout, &stem.params, &stem.running, compute);
        let folded = self.folded_stem.get_or_insert_with(fold);
        let input = Input::Images(&self.images);
        let mut pass = Pass { plans: &mut self.plans, workspace: &mut self.workspace, observer: None };
        Some(folded::run(std::slice::from_ref(folded), input, &mut pass))
    }

    /// Starts the exponential moving average of the trained tensors at their present values; every later
    /// step updates it with decay `min(decay, (1 + n) / (10 + n))`, n = 1 at the first update.
    pub fn start_ema(&mut self, decay: f32) {
        let range = self.trained();
        for (learner, optimiser) in self.learners.iter().zip(&mut self.optimisers) {
            let mut average = Buffer::zeros(range.len());
            average.copy_from_slice(&learner.member.params[range.clone()]);
            optimiser.ema = Some(Ema { average, target: decay, updates: 0 });
        }
    }

    /// Weights for evaluation: the EMA where it has started, with the current running statistics.
    pub fn eval_state(&self) -> NetState {
        let mut state = self.state();
        for (optimiser, tensors) in self.optimisers.iter().zip(&mut state.branches) {
            if let Some(ema) = &optimiser.ema {
                self.layout.unpack(&ema.average, self.trained(), tensors);
            }
        }
        state
    }

    /// Current weights and running statistics.
    pub fn state(&self) -> NetState {
        NetState {
            stem: unpack_member(&self.stem_layout, &self.stem),
            branches: self.learners.iter().map(|l| unpack_member(&self.layout, &l.member)).collect(),
        }
    }

    fn trained(&self) -> Range<usize> {
        trained_range(&self.layout, self.options.trainable)
    }
}

impl Optimiser {
    /// One step of AdamW from the present gradients, and of the moving average.
    fn update(
        &mut self,
        learner: &mut Learner,
        adamw: &AdamW,
        lr: f64,
        trained: Range<usize>,
        compute: &Compute,
    ) {
        self.steps += 1;
        let betas = (adamw.beta1, adamw.beta2);
        let step = AdamWStep::new(self.steps, lr, betas, adamw.eps, adamw.weight_decay);
        let decay = self.ema.as_mut().map(|ema| {
            ema.updates += 1;
            let n = ema.updates as f32;
            ema.target.min((1.0 + n) / (10.0 + n))
        });
        let params = learner.member.params[trained].chunks_mut(UPDATE_CHUNK);
        let moments = self.m.chunks_mut(UPDATE_CHUNK).zip(self.v.chunks_mut(UPDATE_CHUNK));
        let mut averages = self.ema.as_mut().map(|ema| ema.average.chunks_mut(UPDATE_CHUNK));
        let jobs = params
            .zip(learner.gradients.chunks(UPDATE_CHUNK))
            .zip(moments)
            .map(|((p, g), (m, v))| (p, g, m, v, averages.as_mut().and_then(Iterator::next).zip(decay)));
        compute
            .pool()
            .for_each(jobs, |_, (p, g, m, v, ema)| adamw_step(compute.isa(), &step, p, g, m, v, ema));
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
                for (name, shape) in layout.trainable(range.clone()) {
                    if state.get(name).is_none_or(|t| t.shape != shape) {
                        problems.push(format!("{what}, branch {i}: {name} is missing or misshapen"));
                    }
                }
            }
        };
        check("first moments", &self.m);
        check("second moments", &self.v);
        if let Some(ema) = &self.ema {
            check("moving average", ema);
        }
        if self.steps.len() != branches || self.ema_updates.len() != branches {
            problems.push("step counts do not match the number of branches".to_owned());
        }
        if problems.is_empty() { Ok(()) } else { Err(StateError { problems }) }
    }
}

fn trained_range(layout: &Layout, trainable: Trainable) -> Range<usize> {
    match trainable {
        Trainable::All => 0..layout.params,
        Trainable::Classifier => layout.classifier(),
    }
}

fn member(layout: &Layout, state: &State, precision: Precision) -> Member {
    let mut params = Buffer::zeros(layout.params);
    layout.pack(state, 0..layout.params, &mut params);
    Member::new(layout, params, layout.pack_stats(state), precision)
}

fn unpack_member(layout: &Layout, member: &Member) -> State {
    let mut state = State::new();
    layout.unpack(&member.params, 0..layout.params, &mut state);
    layout.unpack_stats(&member.running, &mut state);
    state
}
