//! Training steps.

use crate::backward::{self, Learner};
use crate::bf16::{Bf16Training, Net};
use crate::folded::{Folded, Input, Source};
use crate::halved::Halved;
use crate::input::PaddedImages;
use crate::layout::Layout;
use crate::loss::{self, Lesson};
use crate::optimiser::{AdamW, Optimiser};
use crate::plans::{Plans, Workspace};
use crate::profile::Profile;
use crate::stem;
use crate::tape::{self, Member};
use crate::{Images, LayerTime, NetSpec, NetState, State, StateError};
use rrr_kernels::{Activation, Buffer, Compute, Precision};
use std::ops::Range;

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

    /// The loss of a branch, and its gradient.
    fn loss(self, logits: &Activation, smoothing: f32, gradient: &mut Activation) -> loss::Loss {
        match self {
            Self::Labels { labels, lesson: Some(lesson) } => {
                loss::taught_cross_entropy(logits, labels, smoothing, &lesson, gradient)
            }
            Self::Labels { labels, lesson: None } => loss::cross_entropy(logits, labels, smoothing, gradient),
            Self::Values { values, scale } => loss::squared_error(logits, values, scale, gradient),
        }
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
    /// Made from `stem` when needed, in f32.
    frozen_stem: Option<Folded>,
    /// The branches, and what updates each of them.
    learners: Vec<Learner>,
    optimisers: Vec<Optimiser>,
    /// In f32, as what follows.
    plans: Plans,
    workspace: Workspace,
    images: PaddedImages,
    halved: Halved,
    /// Runs what lies before the classifier, if that is to be in bf16.
    bf16: Option<Box<Bf16Training>>,
    output: StepOutput,
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
        let bf16 = compute.precision() == Precision::Bf16;
        let transposed = match (options.trainable, bf16) {
            (Trainable::All, false) => layout.transposed,
            // The classifier's.
            (Trainable::All, true) => layout.fc.as_ref().map_or(0, |fc| fc.transposed.len()),
            (Trainable::Classifier, _) => 0,
        };
        let learner = |layout: &Layout, state, trained, transposed| Learner {
            member: member(layout, state),
            gradients: Buffer::zeros(trained),
            transposed: Buffer::zeros(transposed),
        };
        let learners: Vec<Learner> =
            state.branches.iter().map(|state| learner(&layout, state, trained, transposed)).collect();
        let trains_stem = options.stem_rate > 0.0 && !spec.stem.is_empty();
        let (params, transposed) =
            if trains_stem { (stem_layout.params, stem_layout.transposed) } else { (0, 0) };
        let stem = learner(&stem_layout, &state.stem, params, if bf16 { 0 } else { transposed });
        let bf16 = bf16.then(|| {
            let trained_stem = trains_stem.then_some((&stem_layout, &stem));
            let trains_all = options.trainable == Trainable::All;
            Box::new(Bf16Training::new((&layout, &learners), trains_all, trained_stem, compute.clone()))
        });
        Ok(Self {
            spec: spec.clone(),
            options: options.clone(),
            stem,
            stem_optimiser: trains_stem.then(|| Optimiser::new(stem_layout.params)),
            frozen_stem: None,
            stem_layout,
            optimisers: learners.iter().map(|_| Optimiser::new(trained)).collect(),
            learners,
            layout,
            plans: Plans::new(compute.with_precision(Precision::F32), true),
            workspace: Workspace::default(),
            images: PaddedImages::default(),
            halved: Halved::default(),
            bf16,
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
        let stem = std::slice::from_mut(&mut self.stem);
        let (layout, plans, momentum) = (&self.stem_layout, &mut self.plans, self.options.bn_momentum);
        match &mut self.bf16 {
            Some(bf16) => bf16.warm(images, layout, stem, momentum),
            None => {
                self.images.load(images, plans.compute());
                tape::forward(layout, stem, Input::Images(self.images.all()), momentum, plans);
                self.frozen_stem = None;
            }
        }
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
        let smoothing = self.options.label_smoothing;
        let Self { options, learners, optimisers, output, .. } = self;
        let losses = |learners: &[Learner], workspace: &mut Workspace| {
            let mut gradients = workspace.take_many(learners.len(), classes, (1, 1), images.n);
            for (learner, gradient) in learners.iter().zip(&mut gradients) {
                let loss = target.loss(&learner.member.tape.logits, smoothing, gradient);
                output.loss.push(loss.mean);
                output.correct.push(loss.correct);
            }
            gradients
        };
        let net = Net {
            layout: &self.layout,
            stem_layout: &self.stem_layout,
            which: which.clone(),
            learners: &mut learners[which.clone()],
            stem: &mut self.stem,
            plans: &mut self.plans,
            workspace: &mut self.workspace,
            momentum: options.bn_momentum,
            trains_all: options.trainable == Trainable::All,
            trains_stem: self.stem_optimiser.is_some(),
        };
        match &mut self.bf16 {
            Some(bf16) => bf16.gradients(images, net, losses),
            None => gradients(images, net, &mut self.images, &mut self.frozen_stem, losses),
        }

        let (compute, profile) = self.plans.compute_and_profile();
        let trained = trained_range(&self.layout, options.trainable);
        let updates = learners[which.clone()].iter_mut().zip(&mut optimisers[which.clone()]);
        let updates = updates.map(|(Learner { member, gradients, .. }, optimiser)| {
            optimiser.begin(&options.adamw, lr, &mut member.params[trained.clone()], gradients)
        });
        match &mut self.bf16 {
            Some(bf16) if options.trainable == Trainable::All => {
                bf16.update_branches(&which, updates, profile);
            }
            _ => updates.for_each(|update| update.run_all(compute)),
        }
        if let Some(optimiser) = &mut self.stem_optimiser {
            let Learner { member, gradients, .. } = &mut self.stem;
            let lr = lr * options.stem_rate;
            let update = optimiser.begin(&options.adamw, lr, &mut member.params, gradients);
            match &mut self.bf16 {
                Some(bf16) => bf16.update_stem(update, profile),
                None => update.run_all(compute),
            }
        }
    }

    /// Notes the times of the layers of steps from now on (in bf16; others note but those of a frozen stem), and
    /// returns those noted so far.
    pub fn take_profile(&mut self) -> Vec<LayerTime> {
        self.plans.profile.replace(Profile::default()).map_or_else(Vec::new, |profile| profile.layers)
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

/// Gradients of everything that is trained, from those of the logits, which `losses` makes of the branches' tapes; in f32.
/// `padded` is memory for images.
fn gradients(
    images: &Images<'_>,
    net: Net<'_>,
    padded: &mut PaddedImages,
    frozen_stem: &mut Option<Folded>,
    losses: impl FnOnce(&[Learner], &mut Workspace) -> Vec<Activation>,
) {
    let Net { layout, stem_layout, learners, stem, plans, workspace, momentum, trains_stem, .. } = net;
    let has_stem = stem_layout.params > 0;
    if trains_stem || !has_stem {
        padded.load(images, plans.compute());
    }
    let frozen = (has_stem && !trains_stem).then(|| {
        let folded =
            frozen_stem.get_or_insert_with(|| Folded::new(stem_layout, &Source::Trained(&stem.member)));
        stem::run(folded, images, padded, plans, workspace)
    });
    let images_in = Input::Images(padded.all());
    if trains_stem {
        tape::forward(stem_layout, std::slice::from_mut(stem), images_in, momentum, plans);
    }
    let stem_output = match &frozen {
        Some(features) => Some(&features[0]),
        None if trains_stem => stem.member.tape.last(),
        None => None,
    };
    let input = stem_output.map_or(images_in, Input::Features);
    tape::forward(layout, learners, input, momentum, plans);
    let dlogits = losses(learners, workspace);
    if net.trains_all {
        let dx = backward::backward(layout, learners, input, dlogits, trains_stem, plans, workspace);
        if let Some(dx) = dx {
            let dy = mean(dx, plans, workspace);
            backward::stem(stem_layout, stem, images_in, dy, plans, workspace);
        }
    } else {
        let fc = layout.fc.as_ref().expect("training needs a classifier");
        backward::head(fc, learners, dlogits, false, plans, workspace);
    }
    if let Some(features) = frozen {
        workspace.give(features);
    }
}

/// The mean over the branches, summed in their order.
fn mean(parts: Vec<Activation>, plans: &Plans, workspace: &mut Workspace) -> Vec<Activation> {
    let (first, share) = (&parts[0], 1.0 / parts.len() as f32);
    let len = first.plane_len();
    let mut mean = workspace.take_many(1, first.channels(), (first.height(), first.width()), first.n());
    plans.compute().pool().for_each(mean[0].planes_mut(), |i, mean| {
        mean.fill(0.0);
        for part in &parts {
            for (m, p) in mean.iter_mut().zip(&part.data()[i * len..(i + 1) * len]) {
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

fn member(layout: &Layout, state: &State) -> Member {
    let mut params = Buffer::zeros(layout.params);
    layout.pack(state, 0..layout.params, &mut params);
    Member::new(layout, params, layout.pack_stats(state))
}

fn unpack_member(layout: &Layout, member: &Member) -> State {
    let mut state = State::new();
    layout.unpack(&member.params, 0..layout.params, &mut state);
    layout.unpack_stats(&member.running, &mut state);
    state
}
