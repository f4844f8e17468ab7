//! Training steps.

mod options;
mod saved;
mod single;
mod step;

pub use options::{Trainable, TrainerOptions};
pub use saved::{StemState, TrainerState};
pub use step::StepOutput;

use crate::bf16::Bf16Training;
use crate::folded::{Folded, Input};
use crate::halved::Halved;
use crate::input::PaddedImages;
use crate::layout::Layout;
use crate::learner::Learner;
use crate::optimiser::Optimiser;
use crate::plans::{Plans, Workspace};
use crate::profile::Profile;
use crate::tape::{self, Member};
use crate::{Images, LayerTime, NetSpec, NetState, State, StateError};
use rrr_kernels::{Buffer, Compute, Precision};
use std::ops::Range;

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
        let trains_all = options.trainable == Trainable::All;
        let gradients =
            |layout: &Layout| if trains_all { layout.stats } else { 0 } + layout.classifier().len();
        let learner = |layout: &Layout, state, gradients, transposed| Learner {
            member: member(layout, state),
            gradients: Buffer::zeros(gradients),
            transposed: Buffer::zeros(transposed),
        };
        let of_branch = gradients(&layout);
        let learners: Vec<Learner> =
            state.branches.iter().map(|state| learner(&layout, state, of_branch, transposed)).collect();
        let trains_stem = trains_all && options.stem_rate > 0.0 && !spec.stem.is_empty();
        let (of_stem, transposed) =
            if trains_stem { (gradients(&stem_layout), stem_layout.transposed) } else { (0, 0) };
        let stem = learner(&stem_layout, &state.stem, of_stem, if bf16 { 0 } else { transposed });
        let bf16 = bf16.then(|| {
            let trained_stem = trains_stem.then_some((&stem_layout, &stem));
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
