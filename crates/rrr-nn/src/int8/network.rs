//! Inference of quantised networks.

use super::QuantizedState;
use super::images::PaddedPixels;
use super::layers::{Arena, Layers, Pass, Plans};
use crate::classifier::Classifiers;
use crate::profile::{LayerTime, Profile, timed};
use crate::{Images, Logits, NetSpec, Normalize, StateError};
use rrr_kernels::Pool;
use rrr_kernels::int8::{Int8Compute, Int8Isa, int8_avg_pool};
use std::collections::HashMap;
use std::sync::Arc;

/// A quantised network in inference form: weights packed once, memory kept between calls.
pub struct QuantizedNetwork {
    spec: NetSpec,
    normalize: Normalize,
    stem: Option<Layers>,
    branches: Layers,
    classifiers: Classifiers,
    compute: Int8Compute,
    /// By input size and number of images.
    plans: HashMap<((usize, usize), usize), (Plans, Plans)>,
    arena: Arena,
    pixels: PaddedPixels,
    features: Vec<f32>,
    logits: Vec<f32>,
    profile: Option<Profile>,
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
            false => Some(Layers::new("stem", &spec.stem, std::slice::from_ref(&state.stem), None, false)?),
        };
        let steps = stem.as_ref().map(|s| s.steps().repeat(spec.branches));
        Ok(Self {
            branches: Layers::new("branches", &spec.branch, &state.branches, steps, true)?,
            classifiers: Classifiers::new(state.branches.iter().map(|branch| {
                let values = |name: &str| branch.values[name].data.as_slice();
                (values("fc.weight"), values("fc.bias"))
            })),
            spec: spec.clone(),
            normalize: state.normalize,
            stem,
            compute,
            plans: HashMap::new(),
            arena: Arena::default(),
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
        let layers = self.stem.iter().chain([&self.branches]).map(Layers::bytes).sum::<usize>();
        layers + self.classifiers.bytes()
    }

    /// Bytes of activations and input that are kept between calls: what the largest batch so far needed.
    pub fn activations_bytes(&self) -> usize {
        let rows = (self.features.len() + self.logits.len()) * size_of::<f32>();
        self.arena.bytes() + self.pixels.bytes() + rows
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
        let Self {
            stem,
            branches,
            classifiers,
            compute,
            plans,
            arena,
            pixels,
            features,
            logits,
            profile,
            ..
        } = self;
        let row = if want_features { classifiers.features } else { classifiers.classes };
        (out.branches, out.n, out.classes) = (self.spec.branches, images.n, row);
        out.data.resize(out.branches * out.n * row, 0.0);
        for (start, part) in images.parts() {
            pixels.load(&part, &self.normalize, compute.pool());
            let (size, n) = (pixels.size(), pixels.n());
            let (stem_plans, branch_plans) = plans.entry((size, n)).or_insert_with(|| {
                let (stem_plans, size) =
                    stem.as_ref().map_or((Plans::new(), size), |s| s.plan(size, n, compute));
                (stem_plans, branches.plan(size, n, compute).0)
            });
            if let Some(stem) = stem {
                stem.run(stem_plans, Pass { images: pixels, arena, compute, profile });
            }
            branches.run(branch_plans, Pass { images: pixels, arena, compute, profile });
            features.resize(out.branches * n * classifiers.features, 0.0);
            timed(
                profile,
                || "branches.avgpool".into(),
                0,
                || {
                    int8_avg_pool(&arena.x, branches.steps(), features, compute);
                },
            );
            let from = if want_features {
                &*features
            } else {
                logits.resize(out.branches * n * row, 0.0);
                let macs = (out.branches * n * classifiers.features * row) as u64;
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
            for (branch, values) in from.chunks_exact(n * row).enumerate() {
                out.data[(branch * images.n + start) * row..][..n * row].copy_from_slice(values);
            }
        }
    }
}
