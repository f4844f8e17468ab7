//! Inference of networks in bf16.

use super::{Arena, BatchShape, Bf16Stem, Input, Layers, PackedSequence, Pass, Plans, parts};
use crate::classifier::Classifiers;
use crate::input::PaddedImages;
use crate::profile::{Profile, timed};
use crate::{Images, Logits};
use rrr_kernels::{Compute, bf16_avg_pool};
use std::collections::HashMap;

/// A network in inference form: weights packed once, memory kept between calls.
pub(crate) struct Bf16Network {
    stem: Option<Bf16Stem>,
    branches: Layers,
    classifiers: Classifiers,
    compute: Compute,
    /// Of the branches, for what they read.
    plans: HashMap<BatchShape, Plans>,
    arena: Arena,
    images: PaddedImages<u16>,
    features: Vec<f32>,
    logits: Vec<f32>,
    pub profile: Option<Profile>,
}

impl Bf16Network {
    /// Puts the stem, if there is one, and the branches together.
    pub fn new(stem: Option<PackedSequence>, branches: &[PackedSequence], compute: Compute) -> Self {
        let classifiers = branches.iter().map(|branch| {
            let (weight, bias) = branch.fc.as_ref().expect("a branch has a classifier");
            (weight.as_slice(), bias.as_slice())
        });
        Self {
            stem: stem.map(Bf16Stem::new),
            branches: Layers::new("branches", branches),
            classifiers: Classifiers::new(classifiers),
            compute,
            plans: HashMap::new(),
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
        stem + self.branches.bytes() + self.classifiers.bytes()
    }

    /// Bytes of activations and input that are kept between calls.
    pub fn activations_bytes(&self) -> usize {
        let rows = (self.features.len() + self.logits.len()) * size_of::<f32>();
        let stem = self.stem.as_ref().map_or(0, Bf16Stem::activations_bytes);
        stem + self.arena.bytes() + self.images.bytes() + rows
    }

    /// The features before the classifier, or the logits, of every branch.
    pub fn run(&mut self, images: &Images<'_>, want_features: bool, out: &mut Logits) {
        let Self { stem, branches, classifiers, compute, plans, arena, profile, .. } = self;
        let count = out.branches;
        let row = if want_features { classifiers.features } else { classifiers.classes };
        (out.n, out.classes) = (images.n, row);
        out.data.resize(count * out.n * row, 0.0);
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
            let plans = plans.entry((size, n)).or_insert_with(|| branches.plan(size, n));
            branches.run(plans, Pass { input, n, arena, compute, profile });
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
            for (branch, values) in from.chunks_exact(n * row).enumerate() {
                let at = (branch * images.n + range.start) * row;
                out.data[at..at + n * row].copy_from_slice(values);
            }
        }
    }
}
