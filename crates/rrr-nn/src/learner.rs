//! What training changes: branches (or a stem) with their gradients and optimisers.

use crate::layout::Layout;
use crate::optimiser::Optimiser;
use crate::plans::{Plans, Workspace};
use crate::tape::Member;
use rrr_kernels::{Buffer, Compute};
use std::ops::Range;

/// A member with the buffers of its backward pass.
pub(crate) struct Learner {
    pub member: Member,
    /// Gradients of the trained parameters but the convolutions' weights: of batch norms, laid out like their statistics, and
    /// of the classifier.
    pub gradients: Buffer,
    /// Weights repacked for input gradients: all, or the last ones.
    pub transposed: Buffer,
}

impl AsMut<Member> for Learner {
    fn as_mut(&mut self) -> &mut Member {
        &mut self.member
    }
}

/// What a backward pass updates: learners, and the optimiser of each, whose step has begun.
pub(crate) struct Trained<'a> {
    pub learners: &'a mut [Learner],
    pub optimisers: &'a mut [Optimiser],
}

impl Trained<'_> {
    /// Updates what the backward pass of the layers has not: batch norms, if they are trained, and the classifier.
    pub fn update_vectors(&mut self, layout: &Layout, compute: &Compute) {
        let isa = compute.isa();
        let learners = self.learners.iter_mut().zip(self.optimisers.iter_mut());
        compute.pool().for_each(learners, |_, (learner, optimiser)| {
            let Learner { member: Member { params, .. }, gradients, .. } = learner;
            let classifier = layout.classifier();
            let (norms, of_classifier) = gradients.split_at(gradients.len() - classifier.len());
            optimiser.of(params, classifier).update(of_classifier, isa);
            for layer in layout.convs().filter(|_| !norms.is_empty()) {
                optimiser.of(params, layer.affine.clone()).update(&norms[layer.stats.clone()], isa);
            }
        });
    }
}

/// What a step works on, and what f32 is computed with.
pub(crate) struct Net<'a> {
    pub layout: &'a Layout,
    pub stem_layout: &'a Layout,
    /// Numbers of the branches that take part.
    pub which: Range<usize>,
    pub branches: Trained<'a>,
    pub stem: &'a mut Learner,
    /// If the stem is trained.
    pub stem_optimiser: Option<&'a mut Optimiser>,
    pub plans: &'a mut Plans,
    pub workspace: &'a mut Workspace,
    /// Momentum of batch-norm running statistics.
    pub momentum: f32,
    /// Whether all of the branches is trained, or but their classifier.
    pub trains_all: bool,
}
