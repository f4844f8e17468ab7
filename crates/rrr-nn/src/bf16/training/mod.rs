//! Training in bf16: activations and their gradients are stored in bf16, and so are copies of the weights that each step
//! of the optimiser refreshes. Sums, statistics, gradients of parameters and the parameters themselves are f32. The
//! classifier is that of training in f32.

mod backward;
mod forward;
mod norms;
mod sequence;

use super::layers::Input;
use super::{Bf16Stem, PackedSequence};
use crate::Images;
use crate::backward::head;
use crate::folded::{Folded, Source};
use crate::input::PaddedImages;
use crate::layout::Layout;
use crate::learner::{Learner, Net, Trained};
use crate::plans::Workspace;
use crate::profile::timed;
use crate::tape::classify;
use backward::Arena;
use rrr_kernels::{Activation, Compute};
use sequence::{Backward, Batch, Pass, Sequence};

/// A network in training in bf16, but for what is f32.
pub(crate) struct Bf16Training {
    compute: Compute,
    branches: Sequence,
    /// If there is a stem that is trained, or was warmed.
    stem: Option<Sequence>,
    /// Made from the stem's weights when needed.
    frozen: Option<Bf16Stem>,
    images: PaddedImages<u16>,
    gradients: Arena,
}

impl Bf16Training {
    /// Rounds the weights of the branches, and of a stem that is trained; `trains_all` of the branches, or but their
    /// classifier.
    pub fn new(
        (layout, learners): (&Layout, &[Learner]),
        trains_all: bool,
        stem: Option<(&Layout, &Learner)>,
        compute: Compute,
    ) -> Self {
        let backward = match (trains_all, &stem) {
            (false, _) => Backward::None,
            (true, None) => Backward::Parameters,
            (true, Some(_)) => Backward::Input,
        };
        let of_stem = |(layout, learner)| {
            Sequence::new(layout, std::slice::from_ref(learner), Backward::Parameters, &compute)
        };
        Self {
            branches: Sequence::new(layout, learners, backward, &compute),
            stem: stem.map(of_stem),
            frozen: None,
            images: PaddedImages::default(),
            gradients: Arena::default(),
            compute,
        }
    }

    /// The stem in train mode on `images`, for its running statistics.
    pub fn warm(&mut self, images: &Images<'_>, layout: &Layout, learner: &mut [Learner], momentum: f32) {
        let Self { compute, stem, images: padded, .. } = self;
        let stem = stem.get_or_insert_with(|| Sequence::new(layout, learner, Backward::None, compute));
        padded.load(images, compute);
        let (batch, input) = (Batch::of_images(images, 0..1), Input::Images(padded.whole()));
        stem.forward(learner, momentum, &mut Pass { input, batch: &batch, compute, profile: &mut None });
        self.frozen = None;
    }

    /// A step of everything that is trained, from the gradients of the logits, which `losses` makes of the branches' tapes.
    pub fn step(
        &mut self,
        images: &Images<'_>,
        net: Net<'_>,
        losses: impl FnOnce(&[Learner], &mut Workspace) -> Vec<Activation>,
    ) {
        let Self { compute, branches, stem, frozen, images: padded, gradients } = self;
        let (has_stem, trains_stem) = (net.stem_layout.params > 0, net.stem_optimiser.is_some());
        let padded = if trains_stem || !has_stem {
            padded.load(images, compute);
            padded.whole()
        } else {
            &[]
        };
        let stem_learner = std::slice::from_mut(&mut *net.stem);
        let of_images = Batch::of_images(images, net.which.clone());
        let of_stem = Batch { which: 0..1, ..of_images.clone() };
        let profile = &mut net.plans.profile;
        let images_in = Input::Images(padded);
        let input = if trains_stem {
            let stem = stem.as_mut().expect("made for a stem that is trained");
            let mut pass = Pass { input: images_in, batch: &of_stem, compute, profile };
            stem.forward(stem_learner, net.momentum, &mut pass);
            Input::Features(stem.output())
        } else if has_stem {
            let member = &stem_learner[0].member;
            let frozen = frozen.get_or_insert_with(|| {
                let folded = Folded::new(net.stem_layout, &Source::Trained(member));
                Bf16Stem::new(PackedSequence::new(&folded, compute))
            });
            Input::Features(frozen.run(images, 0..images.n, compute, profile))
        } else {
            images_in
        };
        let size = if let Input::Features(x) = input { x.size() } else { of_images.size };
        let batch = Batch { size, ..of_images };

        let mut trained = net.branches;
        let learners = &mut *trained.learners;
        branches.forward(learners, net.momentum, &mut Pass { input, batch: &batch, compute, profile });
        timed(profile, || "avgpool".into(), 0, || branches.pool_features(learners, compute));
        let fc = net.layout.fc.as_ref().expect("training needs a classifier");
        classify(fc, learners, net.plans);
        let dlogits = losses(learners, net.workspace);
        let dpooled = head(fc, learners, dlogits, net.trains_all, net.plans, net.workspace);
        let profile = &mut net.plans.profile;
        if let Some(dpooled) = dpooled {
            timed(
                profile,
                || "avgpool.backward".into(),
                0,
                || {
                    branches.begin_backward(&dpooled, gradients, compute);
                },
            );
            net.workspace.give(dpooled);
            let mut pass = Pass { input, batch: &batch, compute, profile: &mut *profile };
            branches.backward(&mut trained, trains_stem, gradients, &mut pass);
        }
        timed(profile, || "update".into(), 0, || trained.update_vectors(net.layout, compute));
        if let Some(optimiser) = net.stem_optimiser {
            timed(profile, || "mean".into(), 0, || gradients.mean_of_groups(compute));
            let stem = stem.as_mut().expect("made for a stem that is trained");
            let mut trained = Trained { learners: stem_learner, optimisers: std::slice::from_mut(optimiser) };
            let mut pass = Pass { input: images_in, batch: &of_stem, compute, profile };
            stem.backward(&mut trained, false, gradients, &mut pass);
            trained.update_vectors(net.stem_layout, compute);
        }
    }
}
