//! Training steps.

use crate::backward::{self, Learner};
use crate::folded::{Folded, Input};
use crate::halved::Halved;
use crate::input::PaddedImages;
use crate::layout::Layout;
use crate::loss::{self, Lesson};
use crate::plans::{Plans, Workspace};
use crate::stem::FrozenStem;
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

/// Which tensors of the branches a step changes.
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
    /// Learning rate of the stem as a share of the branches'. At 0 the stem is frozen and runs in inference form;
    /// else it runs in train mode and follows the mean of the branches' losses.
    pub stem_rate: f64,
}

impl Default for TrainerOptions {
    fn default() -> Self {
        Self {
            adamw: AdamW::default(),
            trainable: Trainable::All,
            bn_momentum: 0.1,
            label_smoothing: 0.0,
            stem_rate: 0.0,
        }
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
    Labels { labels: &'a [u32], lesson: Option<Lesson<'a>> },
    Values { values: &'a [f32], scale: f32 },
}

impl<'a> Target<'a> {
    fn labels(labels: &'a [u32]) -> Self {
        Self::Labels { labels, lesson: None }
    }
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

/// A network in training: the branches in train mode, the stem in inference form unless it is trained too.
pub struct Trainer {
    spec: NetSpec,
    options: TrainerOptions,
    stem_layout: Layout,
    layout: Layout,
    /// Its buffers for training are empty while it is frozen.
    stem: Learner,
    /// Of a stem that is trained.
    stem_optimiser: Option<Optimiser>,
    /// Made from `stem` when needed.
    frozen_stem: Option<FrozenStem>,
    /// The branches, and what updates each of them.
    learners: Vec<Learner>,
    optimisers: Vec<Optimiser>,
    plans: Plans,
    workspace: Workspace,
    images: PaddedImages,
    halved: Halved,
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
    ///
    /// # Panics
    /// If the stem is to be trained while some of the branches are coarse: it would take a step for each size.
    pub fn new(
        spec: &NetSpec,
        state: &NetState,
        options: &TrainerOptions,
        compute: Compute,
    ) -> Result<Self, StateError> {
        assert!(spec.coarse == 0 || options.stem_rate == 0.0, "the stem of coarse branches stays frozen");
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
        let trains_stem = options.stem_rate > 0.0 && !spec.stem.is_empty();
        let sizes = if trains_stem {
            [stem_layout.params, stem_layout.transposed, stem_layout.rounded_transposed]
        } else {
            [0; 3]
        };
        let stem = Learner {
            member: member(&stem_layout, &state.stem, precision),
            gradients: Buffer::zeros(sizes[0]),
            transposed: PackedWeights::zeros(precision, sizes[1], sizes[2]),
        };
        Ok(Self {
            spec: spec.clone(),
            options: options.clone(),
            stem,
            stem_optimiser: trains_stem.then(|| Optimiser::new(stem_layout.params)),
            frozen_stem: None,
            stem_layout,
            learners: branches.iter().map(learner).collect(),
            optimisers: branches.iter().map(|_| Optimiser::new(trained)).collect(),
            layout,
            plans: Plans::new(compute, true),
            workspace: Workspace::default(),
            images: PaddedImages::default(),
            halved: Halved::default(),
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
        state.check_optimiser(spec.branches, &trainer.layout, range.clone())?;
        for (i, optimiser) in trainer.optimisers.iter_mut().enumerate() {
            let ema = state.ema.as_ref().zip(state.ema_decay).map(|(ema, target)| (&ema[i], target));
            let counts = [state.steps[i], state.ema_updates[i]];
            optimiser.restore(&trainer.layout, range.clone(), [&state.m[i], &state.v[i]], ema, counts);
        }
        if let Some(optimiser) = &mut trainer.stem_optimiser {
            let (layout, problem) =
                (&trainer.stem_layout, |text: String| StateError { problems: vec![text] });
            let range = 0..layout.params;
            let saved = state.stem.as_ref();
            let saved = saved.ok_or_else(|| problem("the stem's optimiser is missing".into()))?;
            let mut problems = Vec::new();
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
        self.images.load(images, self.plans.compute());
        self.forward_stem();
    }

    /// One optimiser step of all branches on one batch, the stem run once.
    ///
    /// # Panics
    /// If `labels.len() != images.n` or a label is not below the number of classes.
    pub fn step(&mut self, images: &Images<'_>, labels: &[u32], lr: f64) -> &StepOutput {
        self.step_range(0..self.learners.len(), images, Target::labels(labels), lr)
    }

    /// [`step`](Self::step) towards the labels and what a teacher says of the images.
    ///
    /// # Panics
    /// As [`Trainer::step`], and if the lesson does not hold `images.n` rows of the classifier's outputs.
    pub fn step_taught(
        &mut self,
        images: &Images<'_>,
        labels: &[u32],
        lesson: Lesson<'_>,
        lr: f64,
    ) -> &StepOutput {
        let target = Target::Labels { labels, lesson: Some(lesson) };
        self.step_range(0..self.learners.len(), images, target, lr)
    }

    /// One optimiser step of all branches on one batch towards given outputs `values` (`[n, classes]`), the stem run
    /// once: regression, as in distillation. The loss of a branch is the mean over the images of the squared distance
    /// between its outputs and the values, times `scale`.
    ///
    /// # Panics
    /// If `values` does not hold `images.n` rows of the classifier's outputs.
    pub fn step_towards(&mut self, images: &Images<'_>, values: &[f32], scale: f32, lr: f64) -> &StepOutput {
        self.step_range(0..self.learners.len(), images, Target::Values { values, scale }, lr)
    }

    /// One optimiser step of one branch on its own batch (and of the stem, if it is trained).
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
        self.step_range(branch..branch + 1, images, Target::labels(labels), lr)
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
            Target::Labels { labels, lesson } => {
                let told = lesson.map_or(images.n * classes, |lesson| lesson.probabilities.len());
                assert_eq!(told, images.n * classes, "a probability for each class and image");
                assert_eq!(labels.len(), images.n, "one label per image");
                assert!(labels.iter().all(|&l| (l as usize) < classes), "a label is not below {classes}");
            }
            Target::Values { values, .. } => {
                assert_eq!(values.len(), images.n * classes, "a value for each output and image");
            }
        }
        self.output.loss.clear();
        self.output.correct.clear();
        let mut halved = std::mem::take(&mut self.halved);
        for group in self.spec.groups() {
            let branches = group.branches.start.max(which.start)..group.branches.end.min(which.end);
            if branches.is_empty() {
                continue;
            }
            let seen = if group.halved { halved.of(images, self.plans.compute().pool()) } else { *images };
            self.step_group(branches, &seen, target, lr);
        }
        self.halved = halved;
        &self.output
    }

    /// One optimiser step of branches that see images of one size (and of the stem, if it is trained).
    fn step_group(&mut self, which: Range<usize>, images: &Images<'_>, target: Target<'_>, lr: f64) {
        let classes = self.layout.fc.as_ref().map_or(0, |fc| fc.conv.cout());
        let trains_stem = self.stem_optimiser.is_some();
        if trains_stem || self.spec.stem.is_empty() {
            self.images.load(images, self.plans.compute());
        }
        if trains_stem {
            self.forward_stem();
        }
        let frozen = if trains_stem { None } else { self.run_stem(images) };
        let images_in = Input::Images(self.images.all());
        let stem_output = match &frozen {
            Some(features) => Some(&features[0]),
            None if trains_stem => self.stem.member.tape.last(),
            None => None,
        };
        let input = stem_output.map_or(images_in, Input::Features);
        let (layout, plans, workspace) = (&self.layout, &mut self.plans, &mut self.workspace);
        let learners = &mut self.learners[which.clone()];
        tape::forward(layout, learners, input, self.options.bn_momentum, plans);
        let mut gradients = workspace.take_many(learners.len(), classes, (1, 1), images.n);
        for (learner, gradient) in learners.iter().zip(&mut gradients) {
            let logits = &learner.member.tape.logits;
            let loss = match target {
                Target::Labels { labels, lesson } => {
                    let smoothing = self.options.label_smoothing;
                    match &lesson {
                        Some(lesson) => {
                            loss::taught_cross_entropy(logits, labels, smoothing, lesson, gradient)
                        }
                        None => loss::cross_entropy(logits, labels, smoothing, gradient),
                    }
                }
                Target::Values { values, scale } => loss::squared_error(logits, values, scale, gradient),
            };
            self.output.loss.push(loss.mean);
            self.output.correct.push(loss.correct);
        }
        match self.options.trainable {
            Trainable::All => {
                let dx =
                    backward::backward(layout, learners, input, gradients, trains_stem, plans, workspace);
                if let Some(dx) = dx {
                    let dy = mean(dx, plans, workspace);
                    backward::stem(&self.stem_layout, &mut self.stem, images_in, dy, plans, workspace);
                }
            }
            Trainable::Classifier => {
                let fc = layout.fc.as_ref().expect("checked by `classes`");
                backward::head(fc, learners, gradients, false, plans, workspace);
            }
        }
        let trained = trained_range(layout, self.options.trainable);
        for (learner, optimiser) in learners.iter_mut().zip(&mut self.optimisers[which]) {
            optimiser.update(learner, &self.options.adamw, lr, trained.clone(), plans.compute());
        }
        if let Some(optimiser) = &mut self.stem_optimiser {
            let (all, lr) = (0..self.stem_layout.params, lr * self.options.stem_rate);
            optimiser.update(&mut self.stem, &self.options.adamw, lr, all, plans.compute());
        }
        if let Some(features) = frozen {
            workspace.give(features);
        }
    }

    /// The stem in train mode on the loaded images; its output stays on its tape.
    fn forward_stem(&mut self) {
        let stem = std::slice::from_mut(&mut self.stem);
        let momentum = self.options.bn_momentum;
        tape::forward(&self.stem_layout, stem, Input::Images(self.images.all()), momentum, &mut self.plans);
        self.frozen_stem = None;
    }

    /// The frozen stem's output for `images`, if there is a stem.
    fn run_stem(&mut self, images: &Images<'_>) -> Option<Vec<Activation>> {
        if self.spec.stem.is_empty() {
            return None;
        }
        let (layout, stem, compute) = (&self.stem_layout, &self.stem.member, self.plans.compute());
        let freeze = || FrozenStem::new(Folded::new(layout, &stem.params, &stem.running), compute);
        let frozen = self.frozen_stem.get_or_insert_with(freeze);
        Some(frozen.run(images, &mut self.images, &mut self.plans, &mut self.workspace))
    }

    /// Starts the exponential moving average of the trained tensors at their present values; every later
    /// step updates it with decay `min(decay, (1 + n) / (10 + n))`, n = 1 at the first update.
    pub fn start_ema(&mut self, decay: f32) {
        let range = self.trained();
        for (learner, optimiser) in self.learners.iter().zip(&mut self.optimisers) {
            optimiser.start_ema(decay, &learner.member.params[range.clone()]);
        }
        if let Some(optimiser) = &mut self.stem_optimiser {
            optimiser.start_ema(decay, &self.stem.member.params);
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
        if let Some(ema) = self.stem_optimiser.as_ref().and_then(|o| o.ema.as_ref()) {
            self.stem_layout.unpack(&ema.average, 0..self.stem_layout.params, &mut state.stem);
        }
        state
    }

    /// Current weights and running statistics.
    pub fn state(&self) -> NetState {
        NetState {
            stem: unpack_member(&self.stem_layout, &self.stem.member),
            branches: self.learners.iter().map(|l| unpack_member(&self.layout, &l.member)).collect(),
        }
    }

    fn trained(&self) -> Range<usize> {
        trained_range(&self.layout, self.options.trainable)
    }
}

impl Optimiser {
    fn new(params: usize) -> Self {
        Self { m: Buffer::zeros(params), v: Buffer::zeros(params), steps: 0, ema: None }
    }

    /// Goes on from saved moments, average with its decay target, and counts of steps and of updates of the average.
    fn restore(
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

    fn start_ema(&mut self, target: f32, params: &[f32]) {
        let mut average = Buffer::zeros(params.len());
        average.copy_from_slice(params);
        self.ema = Some(Ema { average, target, updates: 0 });
    }

    fn ema_updates(&self) -> u64 {
        self.ema.as_ref().map_or(0, |e| e.updates)
    }

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
                check_moments(&format!("{what}, branch {i}"), state, layout, range.clone(), &mut problems);
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

/// The mean over the branches, summed in their order.
fn mean(parts: Vec<Activation>, plans: &Plans, workspace: &mut Workspace) -> Vec<Activation> {
    let (first, share) = (&parts[0], 1.0 / parts.len() as f32);
    let mut mean = workspace.take_many(1, first.channels(), (first.height(), first.width()), first.n());
    plans.compute().pool().for_each(mean[0].planes_mut(), |i, mean| {
        mean.fill(0.0);
        for part in &parts {
            for (m, p) in mean.iter_mut().zip(part.plane(i)) {
                *m += p;
            }
        }
        mean.iter_mut().for_each(|m| *m *= share);
    });
    workspace.give(parts);
    mean
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
