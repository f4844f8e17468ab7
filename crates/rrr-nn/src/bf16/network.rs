//! Inference of networks in bf16.

use super::{Arena, BatchShape, Bf16Stem, Input, Layers, PackedSequence, Pass, Plans, parts};
use crate::classifier::Classifiers;
use crate::input::PaddedImages;
use crate::profile::{Profile, timed};
use crate::{Images, NetSpec};
use rrr_kernels::{Compute, bf16_avg_pool};
use std::collections::HashMap;

/// A network in inference form: weights packed once, memory kept between calls.
pub(crate) struct Bf16Network {
    stem: Option<Bf16Stem>,
    groups: Vec<Group>,
    compute: Compute,
    arena: Arena,
    images: PaddedImages<u16>,
    features: Vec<f32>,
    logits: Vec<f32>,
    pub profile: Option<Profile>,
}

/// Branches that see the images at one size.
struct Group {
    layers: Layers,
    classifiers: Classifiers,
    /// For what they read.
    plans: HashMap<BatchShape, Plans>,
}

impl Group {
    fn new(branches: &[PackedSequence]) -> Self {
        let classifiers = branches.iter().map(|branch| {
            let (weight, bias) = branch.fc.as_ref().expect("a branch has a classifier");
            (weight.as_slice(), bias.as_slice())
        });
        Self {
            layers: Layers::new("branches", branches),
            classifiers: Classifiers::new(classifiers),
            plans: HashMap::new(),
        }
    }
}

impl Bf16Network {
    /// Puts the stem, if there is one, and the branches together.
    pub fn new(
        spec: &NetSpec,
        stem: Option<PackedSequence>,
        branches: &[PackedSequence],
        compute: Compute,
    ) -> Self {
        Self {
            stem: stem.map(Bf16Stem::new),
            groups: spec.groups().map(|group| Group::new(&branches[group.branches])).collect(),
            compute,
            arena: Arena::default(),
            images: PaddedImages::default(),
            features: Vec::new(),
            logits: Vec::new(),
            profile: None,
        }
    }

    /// Bytes of the packed weights.
    pub fn weights_bytes(&self) -> usize {
        let stem = self.stem.as_ref().map_or(0, Bf16Stem::weights_bytes);
        stem + self.groups.iter().map(|g| g.layers.bytes() + g.classifiers.bytes()).sum::<usize>()
    }

    /// Bytes of activations and input that are kept between calls.
    pub fn activations_bytes(&self) -> usize {
        let rows = (self.features.len() + self.logits.len()) * size_of::<f32>();
        let stem = self.stem.as_ref().map_or(0, Bf16Stem::activations_bytes);
        stem + self.arena.bytes() + self.images.bytes() + rows
    }

    /// The features before the classifier, or the logits, of the branches of a group: `[branch][n][row]`.
    pub fn run(&mut self, group: usize, images: &Images<'_>, want_features: bool, out: &mut [f32]) {
        let Self { stem, groups, compute, arena, profile, .. } = self;
        let Group { layers, classifiers, plans } = &mut groups[group];
        let row = if want_features { classifiers.features } else { classifiers.classes };
        let count = out.len() / (images.n * row).max(1);
        for range in parts(images.n, (images.height, images.width)) {
            let n = range.len();
            let (input, size) = if let Some(stem) = stem {
                let x = stem.run(images, range.clone(), compute, profile);
                (Input::Features(x), x.size())
            } else {
                let part = images.slice(range.start, n);
                timed(profile, || "images".into(), 0, || self.images.load(&part, compute));
                (Input::Images(self.images.whole()), (images.height, images.width))
            };
            let plans = plans.entry((size, (n, n))).or_insert_with(|| layers.plan(size, (n, n)));
            layers.run(plans, Pass { input, images: 0..n, all: n, arena, compute, profile });
            let (features, logits) = (&mut self.features, &mut self.logits);
            features.resize(count * n * classifiers.features, 0.0);
            let pool = || bf16_avg_pool(&arena.x, features, compute);
            timed(profile, || "branches.avgpool".into(), 0, pool);
            let from = if want_features {
                &*features
            } else {
                logits.resize(count * n * row, 0.0);
                let macs = (count * n * classifiers.features * row) as u64;
                let classify = || classifiers.forward(features, logits, n, compute.isa(), compute.pool());
                timed(profile, || "branches.fc".into(), macs, classify);
                &*logits
            };
            for (out, values) in out.chunks_exact_mut(images.n * row).zip(from.chunks_exact(n * row)) {
                out[range.start * row..][..n * row].copy_from_slice(values);
            }
        }
    }
}
