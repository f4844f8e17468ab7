//! Inference of networks in bf16.

use super::{Arena, BatchShape, Layers, PackedSequence, Pass, Plans, parts};
use crate::classifier::Classifiers;
use crate::input::PaddedImages;
use crate::profile::{Profile, timed};
use crate::{Images, Logits};
use rrr_kernels::{Compute, bf16_avg_pool};
use std::collections::HashMap;

/// A network in inference form: weights packed once, memory kept between calls.
pub(crate) struct Bf16Network {
    stem: Option<Layers>,
    branches: Layers,
    classifiers: Classifiers,
    compute: Compute,
    plans: HashMap<BatchShape, (Option<Plans>, Plans)>,
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
            stem: stem.map(|stem| Layers::new("stem", std::slice::from_ref(&stem))),
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
        let layers = self.stem.iter().chain([&self.branches]).map(Layers::bytes).sum::<usize>();
        layers + self.classifiers.bytes()
    }

    /// Bytes of activations and input that are kept between calls.
    pub fn activations_bytes(&self) -> usize {
        let rows = (self.features.len() + self.logits.len()) * size_of::<f32>();
        self.arena.bytes() + self.images.bytes() + rows
    }

    /// The features before the classifier, or the logits, of every branch.
    pub fn run(&mut self, images: &Images<'_>, want_features: bool, out: &mut Logits) {
        let Self { stem, branches, classifiers, compute, plans, arena, profile, .. } = self;
        let count = out.branches;
        let row = if want_features { classifiers.features } else { classifiers.classes };
        (out.n, out.classes) = (images.n, row);
        out.data.resize(count * out.n * row, 0.0);
        for range in parts(images.n, (images.height, images.width)) {
            let part = images.slice(range.start, range.len());
            timed(profile, || "images".into(), 0, || self.images.load(&part, compute));
            let (size, n) = ((part.height, part.width), part.n);
            let (stem_plans, branch_plans) = plans.entry((size, n)).or_insert_with(|| {
                let stem_plans = stem.as_ref().map(|s| s.plan(size, n));
                let size = stem_plans.as_ref().map_or(size, |plans| plans.output);
                (stem_plans, branches.plan(size, n))
            });
            let images_in = self.images.whole();
            if let Some((stem, stem_plans)) = stem.as_ref().zip(stem_plans.as_ref()) {
                stem.run(stem_plans, Pass { images: images_in, n, arena, compute, profile });
            }
            branches.run(branch_plans, Pass { images: images_in, n, arena, compute, profile });
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
