//! Steps towards labels, a teacher's word or values: their targets, losses and updates.

use super::single::step;
use super::{Trainable, Trainer};
use crate::Images;
use crate::learner::{Learner, Net, Trained};
use crate::loss::{self, Lesson};
use crate::plans::Workspace;
use rrr_kernels::Activation;
use std::ops::Range;

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

impl Trainer {
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
        let (learners, optimisers) = (&mut learners[which.clone()], &mut optimisers[which.clone()]);
        optimisers.iter_mut().for_each(|optimiser| optimiser.begin(&options.adamw, lr));
        if let Some(optimiser) = &mut self.stem_optimiser {
            optimiser.begin(&options.adamw, lr * options.stem_rate);
        }
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
            which,
            branches: Trained { learners, optimisers },
            stem: &mut self.stem,
            stem_optimiser: self.stem_optimiser.as_mut(),
            plans: &mut self.plans,
            workspace: &mut self.workspace,
            momentum: options.bn_momentum,
            trains_all: options.trainable == Trainable::All,
        };
        match &mut self.bf16 {
            Some(bf16) => bf16.step(images, net, losses),
            None => step(images, net, &mut self.images, &mut self.frozen_stem, losses),
        }
    }
}
