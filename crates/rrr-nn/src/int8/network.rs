//! Inference of quantised networks.

use super::images::PaddedPixels;
use super::layers::{Arena, Layers, Pass, Plans};
use super::{QuantizedSequence, QuantizedState};
use crate::classifier::Classifiers;
use crate::halved::Halved;
use crate::network::{branch_parts, stem_parts};
use crate::profile::{LayerTime, Profile, timed};
use crate::{Images, Logits, NetSpec, Normalize, StateError};
use rrr_kernels::Pool;
use rrr_kernels::int8::{Int8Compute, Int8Isa, int8_avg_pool};
use std::collections::HashMap;
use std::sync::Arc;

/// Height and width.
type Size = (usize, usize);

/// Height and width of inputs, their number and that of the batch they belong to.
type BatchShape = (Size, (usize, usize));

/// A quantised network in inference form: weights packed once, memory kept between calls.
pub struct QuantizedNetwork {
    spec: NetSpec,
    normalize: Normalize,
    stem: Option<Layers>,
    groups: Vec<Group>,
    compute: Int8Compute,
    halved: Halved,
    stem_plans: HashMap<BatchShape, (Plans, Size)>,
    arena: Arena,
    pixels: PaddedPixels,
    features: Vec<f32>,
    logits: Vec<f32>,
    profile: Option<Profile>,
}

/// Branches that see the images at one size.
struct Group {
    layers: Layers,
    classifiers: Classifiers,
    /// For what they read.
    plans: HashMap<BatchShape, Plans>,
}

impl QuantizedNetwork {
    /// Packs `state` for inference on `pool`'s threads.
    ///
    /// # Errors
    /// [`StateError`] names every tensor that is missing, extra, misshapen or not usable.
    pub fn new(spec: &NetSpec, state: &QuantizedState, pool: Arc<Pool>) -> Result<Self, StateError> {
        Self::with_compute(spec, state, Int8Compute::new(pool))
    }

    /// [`QuantizedNetwork::new`] on a given instruction set; `None` if this CPU lacks it.
    ///
    /// # Errors
    /// As [`QuantizedNetwork::new`].
    pub fn with_isa(
        spec: &NetSpec,
        state: &QuantizedState,
        pool: Arc<Pool>,
        isa: Int8Isa,
    ) -> Option<Result<Self, StateError>> {
        Some(Self::with_compute(spec, state, Int8Compute::with_isa(pool, isa)?))
    }

    fn with_compute(
        spec: &NetSpec,
        state: &QuantizedState,
        compute: Int8Compute,
    ) -> Result<Self, StateError> {
        state.check(spec)?;
        let stem = match spec.stem.is_empty() {
            true => None,
            false => {
                let states = std::slice::from_ref(&state.stem);
                Some(Layers::new("stem", &spec.stem, states, None, false, &compute)?)
            }
        };
        let group = |branches: &[QuantizedSequence]| {
            let steps = stem.as_ref().map(|s| s.steps().repeat(branches.len()));
            let classifiers = branches.iter().map(|branch| {
                let values = |name: &str| branch.values[name].data.as_slice();
                (values("fc.weight"), values("fc.bias"))
            });
            Ok(Group {
                layers: Layers::new("branches", &spec.branch, branches, steps, true, &compute)?,
                classifiers: Classifiers::new(classifiers),
                plans: HashMap::new(),
            })
        };
        let groups = spec.groups().map(|g| group(&state.branches[g.branches])).collect::<Result<_, _>>()?;
        Ok(Self {
            groups,
            spec: spec.clone(),
            normalize: state.normalize,
            stem,
            arena: Arena::new(&compute),
            compute,
            halved: Halved::default(),
            stem_plans: HashMap::new(),
            pixels: PaddedPixels::default(),
            features: Vec::new(),
            logits: Vec::new(),
            profile: None,
        })
    }

    /// The architecture.
    pub fn spec(&self) -> &NetSpec {
        &self.spec
    }

    /// Logits of every branch for a batch of any size. Of pixels the upper 7 bits count; values, and
    /// pixels of another normalisation than the calibration's, are rounded to pixels first.
    ///
    /// # Panics
    /// If the number of pixels is not what the sizes of `images` say.
    pub fn forward(&mut self, images: &Images<'_>) -> Logits {
        let mut out = Logits { branches: 0, n: 0, classes: 0, data: Vec::new() };
        self.forward_into(images, &mut out);
        out
    }

    /// [`QuantizedNetwork::forward`] into memory that is there: once the largest batch has been seen, nothing is
    /// allocated.
    ///
    /// # Panics
    /// As [`QuantizedNetwork::forward`].
    pub fn forward_into(&mut self, images: &Images<'_>, out: &mut Logits) {
        self.run(images, false, out);
    }

    /// [`QuantizedNetwork::forward`] with the time of every layer (a batch runs in parts of 65,536 pixels, each of which
    /// has its times).
    ///
    /// # Panics
    /// As [`QuantizedNetwork::forward`].
    pub fn forward_timed(&mut self, images: &Images<'_>) -> (Logits, Vec<LayerTime>) {
        self.profile = Some(Profile::default());
        let logits = self.forward(images);
        (logits, self.profile.take().unwrap_or_default().layers)
    }

    /// Bytes of the packed weights.
    pub fn weights_bytes(&self) -> usize {
        let groups = self.groups.iter().map(|g| g.layers.bytes() + g.classifiers.bytes());
        self.stem.iter().map(Layers::bytes).chain(groups).sum()
    }

    /// Bytes of activations and input that are kept between calls: what the largest batch so far needed.
    pub fn activations_bytes(&self) -> usize {
        let rows = (self.features.len() + self.logits.len()) * size_of::<f32>();
        self.arena.bytes() + self.pixels.bytes() + self.halved.size() + rows
    }

    /// Pooled features before the classifier, `[branch][n][features]` (the field `classes` of the result
    /// holds the number of features).
    ///
    /// # Panics
    /// As [`QuantizedNetwork::forward`].
    pub fn features(&mut self, images: &Images<'_>) -> Logits {
        let mut out = Logits { branches: 0, n: 0, classes: 0, data: Vec::new() };
        self.run(images, true, &mut out);
        out
    }

    fn run(&mut self, images: &Images<'_>, want_features: bool, out: &mut Logits) {
        out.resize(&self.spec, images.n, want_features);
        let mut halved = std::mem::take(&mut self.halved);
        for (i, group) in self.spec.groups().enumerate() {
            let images = if group.halved { halved.of(images, self.compute.pool()) } else { *images };
            let range = group.branches.start * out.n * out.classes..group.branches.end * out.n * out.classes;
            self.run_group(i, &images, want_features, &mut out.data[range]);
        }
        self.halved = halved;
    }

    /// The features or logits of the branches of a group, `[branch][n][row]`.
    fn run_group(&mut self, group: usize, images: &Images<'_>, want_features: bool, out: &mut [f32]) {
        let Self { stem, groups, compute, stem_plans, arena, pixels, features, logits, profile, .. } = self;
        let Group { layers, classifiers, plans } = &mut groups[group];
        let row = if want_features { classifiers.features } else { classifiers.classes };
        let branches = out.len() / (images.n * row).max(1);
        let image_size = (images.height, images.width);
        let load = |pixels: &mut PaddedPixels, part: &Images<'_>, profile: &mut Option<Profile>| {
            let (isa, pool) = (compute.isa().base(), compute.pool());
            timed(profile, || "images".into(), 0, || pixels.load(part, &self.normalize, isa, pool));
        };
        for range in branch_parts(images.n, image_size, stem.is_some()) {
            let (start, n) = (range.start, range.len());
            let mut size = image_size;
            if let Some(stem) = stem {
                for part in stem_parts(n, image_size, stem.have_blocks()) {
                    load(pixels, &images.slice(start + part.start, part.len()), profile);
                    let numbers = (part.len(), n);
                    let plan = || stem.plan(image_size, numbers, compute);
                    let (plans, output) = stem_plans.entry((image_size, numbers)).or_insert_with(plan);
                    size = *output;
                    stem.run(plans, Pass { pixels, images: part, all: n, arena, compute, profile });
                }
            } else {
                load(pixels, &images.slice(start, n), profile);
            }
            let plans = plans.entry((size, (n, n))).or_insert_with(|| layers.plan(size, (n, n), compute).0);
            layers.run(plans, Pass { pixels, images: 0..n, all: n, arena, compute, profile });
            features.resize(branches * n * classifiers.features, 0.0);
            timed(
                profile,
                || "branches.avgpool".into(),
                0,
                || {
                    int8_avg_pool(&arena.x, layers.steps(), features, compute);
                },
            );
            let from = if want_features {
                &*features
            } else {
                logits.resize(branches * n * row, 0.0);
                let macs = (branches * n * classifiers.features * row) as u64;
                timed(
                    profile,
                    || "branches.fc".into(),
                    macs,
                    || {
                        classifiers.forward(features, logits, n, compute.isa().base(), compute.pool());
                    },
                );
                &*logits
            };
            for (out, values) in out.chunks_exact_mut(images.n * row).zip(from.chunks_exact(n * row)) {
                out[start * row..][..n * row].copy_from_slice(values);
            }
        }
    }
}
