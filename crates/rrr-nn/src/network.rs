//! Inference.

use crate::bf16::{Bf16Network, PackedSequence};
use crate::folded::{self, Folded, Input, Pass, Source};
use crate::halved::Halved;
use crate::input::PaddedImages;
use crate::layout::Layout;
use crate::plans::{Plans, Workspace};
use crate::profile::{LayerTime, Profile, timed};
use crate::state::{StateView, borrow};
use crate::stem;
use crate::{Images, Logits, NetSpec, NetState, Part, Pixels, SequenceSpec, StateError};
use rrr_kernels::{Arena, Compute, Precision};
use std::ops::Range;

/// Pixels that go through layers in inference form at a time: enough to keep them busy, few enough for the activations
/// between them to stay in a cache of some 16 MiB.
pub(crate) const PART_PIXELS: usize = 1 << 16;

/// Images that go through branches at a time, at least: their maps are small, and they have most of the weights, which are
/// read once for all of these.
const BRANCH_IMAGES: usize = 32;

/// Ranges of `n` images of `size` that run at a time.
pub(crate) fn parts(n: usize, size: (usize, usize)) -> impl Iterator<Item = Range<usize>> {
    ranges(n, part_images(size))
}

/// Ranges of `n` images of `size` that run through a stem at a time. All of them do without `blocks`, of which the last puts
/// its output where it belongs among that of all images.
pub(crate) fn stem_parts(n: usize, size: (usize, usize), blocks: bool) -> impl Iterator<Item = Range<usize>> {
    ranges(n, if blocks { part_images(size) } else { n.max(1) })
}

/// Ranges of `n` images of `size` that run through branches at a time, after the stem, if there is one, ran on
/// [`stem_parts`] of them.
pub(crate) fn branch_parts(n: usize, size: (usize, usize), stem: bool) -> impl Iterator<Item = Range<usize>> {
    ranges(n, part_images(size).max(if stem { BRANCH_IMAGES } else { 1 }))
}

fn part_images(size: (usize, usize)) -> usize {
    (PART_PIXELS / (size.0 * size.1).max(1)).max(1)
}

fn ranges(n: usize, most: usize) -> impl Iterator<Item = Range<usize>> {
    (0..n).step_by(most).map(move |start| start..n.min(start + most))
}

/// A network in inference form: batch norms folded into the convolutions, weights packed once.
pub struct Network {
    spec: NetSpec,
    engine: Engine,
    compute: Compute,
    halved: Halved,
}

enum Engine {
    F32(Box<F32Network>),
    Bf16(Box<Bf16Network>),
}

struct F32Network {
    stem: Folded,
    branches: Vec<Folded>,
    plans: Plans,
    workspace: Workspace,
    images: PaddedImages,
}

impl Network {
    /// Folds and packs `state` for inference with `compute`.
    ///
    /// # Errors
    /// [`StateError`] names every tensor that is missing, extra or misshapen.
    pub fn new(spec: &NetSpec, state: &NetState, compute: Compute) -> Result<Self, StateError> {
        state.check(spec)?;
        Self::fold(spec, compute, |part| Ok(borrow(state.part(part))))
    }

    /// Like [`Network::new`], but asks for the tensors of a part only when it is its turn, on any of the threads of
    /// `compute`, and takes them from where they lie: weights of a file need not be held beside the packed ones.
    ///
    /// # Errors
    /// Whatever `read` fails with, and [`StateError`] as in [`Network::new`]: those of the first part that fails.
    pub fn read<'a, E: From<StateError> + Send>(
        spec: &NetSpec,
        compute: Compute,
        read: impl Fn(Part) -> Result<StateView<'a>, E> + Sync,
    ) -> Result<Self, E> {
        Self::fold(spec, compute, |part| {
            let state = read(part)?;
            part.check(spec, &state)?;
            Ok(state)
        })
    }

    fn fold<'a, E: Send>(
        spec: &NetSpec,
        compute: Compute,
        state: impl Fn(Part) -> Result<StateView<'a>, E> + Sync,
    ) -> Result<Self, E> {
        let (stem, branch) = (Layout::new(&spec.stem), Layout::new(&spec.branch));
        let layout = |i: usize| if i == 0 { (Part::Stem, &stem) } else { (Part::Branch(i - 1), &branch) };
        let count = 1 + spec.branches;
        let used = compute.clone();
        let engine = match compute.precision() {
            Precision::F32 => {
                let arena = Arena::new(stem.params + spec.branches * branch.params);
                let fold = |i: usize| {
                    let (part, layout) = layout(i);
                    state(part).map(|state| Folded::in_arena(layout, &Source::State(&state), &arena))
                };
                let mut parts = in_parallel(&compute, count, fold)?;
                Engine::F32(Box::new(F32Network {
                    stem: parts.remove(0),
                    branches: parts,
                    plans: Plans::new(compute, false),
                    workspace: Workspace::default(),
                    images: PaddedImages::default(),
                }))
            }
            Precision::Bf16 => {
                // Rounded part by part, so that not all are held in f32 at a time.
                let round = |i: usize| {
                    let (part, layout) = layout(i);
                    let fold = |state| Folded::new(layout, &Source::State(&state));
                    state(part).map(|state| PackedSequence::new(&fold(state), &compute))
                };
                let mut parts = in_parallel(&compute, count, round)?;
                let stem = Some(parts.remove(0)).filter(|_| !spec.stem.is_empty());
                Engine::Bf16(Box::new(Bf16Network::new(spec, stem, &parts, compute)))
            }
        };
        Ok(Self { spec: spec.clone(), engine, compute: used, halved: Halved::default() })
    }

    /// The architecture.
    pub fn spec(&self) -> &NetSpec {
        &self.spec
    }

    /// Bytes of the packed weights.
    pub fn weights_bytes(&self) -> usize {
        match &self.engine {
            Engine::F32(net) => net.branches.iter().chain([&net.stem]).map(Folded::bytes).sum(),
            Engine::Bf16(net) => net.weights_bytes(),
        }
    }

    /// Bytes of activations and input that are kept between calls: what the largest batch so far needed.
    pub fn activations_bytes(&self) -> usize {
        let engine = match &self.engine {
            Engine::F32(net) => net.workspace.bytes() + net.images.bytes(),
            Engine::Bf16(net) => net.activations_bytes(),
        };
        engine + self.halved.size()
    }

    /// Logits of every branch for a batch of any size; buffers are kept between calls.
    ///
    /// # Panics
    /// If the number of pixels is not what the sizes of `images` say.
    pub fn forward(&mut self, images: &Images<'_>) -> Logits {
        let mut logits = Logits::default();
        self.forward_into(images, &mut logits);
        logits
    }

    /// As [`Network::forward`], into memory that is used again.
    ///
    /// # Panics
    /// As [`Network::forward`].
    pub fn forward_into(&mut self, images: &Images<'_>, logits: &mut Logits) {
        self.run(images, false, logits);
    }

    /// As [`Network::forward`], with the time of every layer (a batch runs in parts, each of which has its times).
    ///
    /// # Panics
    /// As [`Network::forward`].
    pub fn forward_timed(&mut self, images: &Images<'_>) -> (Logits, Vec<LayerTime>) {
        *self.profile() = Some(Profile::default());
        let logits = self.forward(images);
        (logits, self.profile().take().unwrap_or_default().layers)
    }

    /// Pooled features before the classifier, `[branch][n][features]` (the field `classes` of the result
    /// holds the number of features).
    ///
    /// # Panics
    /// As [`Network::forward`].
    pub fn features(&mut self, images: &Images<'_>) -> Logits {
        let mut features = Logits::default();
        self.run(images, true, &mut features);
        features
    }

    fn profile(&mut self) -> &mut Option<Profile> {
        match &mut self.engine {
            Engine::F32(net) => &mut net.plans.profile,
            Engine::Bf16(net) => &mut net.profile,
        }
    }

    /// The features before the classifier, or the logits.
    fn run(&mut self, images: &Images<'_>, want_features: bool, out: &mut Logits) {
        out.resize(&self.spec, images.n, want_features);
        for (i, group) in self.spec.groups().enumerate() {
            let images = if group.halved { self.halved.of(images, self.compute.pool()) } else { *images };
            let range = group.branches.start * out.n * out.classes..group.branches.end * out.n * out.classes;
            let out = &mut out.data[range];
            match &mut self.engine {
                Engine::F32(net) => net.run(group.branches, &images, want_features, out),
                Engine::Bf16(net) => net.run(i, &images, want_features, out),
            }
        }
    }
}

/// Calls `f(0)`, `f(1)`, ... on all threads, and collects what they return.
fn in_parallel<T: Send, E: Send>(
    compute: &Compute,
    count: usize,
    f: impl Fn(usize) -> Result<T, E> + Sync,
) -> Result<Vec<T>, E> {
    let mut results: Vec<Option<Result<T, E>>> = (0..count).map(|_| None).collect();
    compute.pool().for_each(&mut results, |i, result| *result = Some(f(i)));
    results.into_iter().map(|result| result.expect("every result was computed")).collect()
}

impl F32Network {
    /// The features or logits of some branches, `[branch][n][row]`.
    fn run(&mut self, branches: Range<usize>, images: &Images<'_>, want_features: bool, out: &mut [f32]) {
        let branches = &self.branches[branches];
        let (plans, workspace) = (&mut self.plans, &mut self.workspace);
        let has_stem = !self.stem.is_empty();
        for range in branch_parts(images.n, (images.height, images.width), has_stem) {
            let part = images.slice(range.start, range.len());
            let stem = has_stem.then(|| stem::run(&self.stem, &part, &mut self.images, plans, workspace));
            let input = match &stem {
                Some(features) => Input::Features(&features[0]),
                None => {
                    let (compute, profile) = plans.compute_and_profile();
                    timed(profile, || "images".into(), 0, || self.images.load(&part, compute));
                    Input::Images(self.images.all())
                }
            };
            let mut pass = Pass { place: "branches", plans, workspace, observer: None };
            let x = folded::run(branches, input, &mut pass);
            let (features, logits) = folded::run_head(branches, &x, &mut pass);
            let picked = if want_features { &features } else { &logits };
            let row = picked[0].channels();
            for (values, out) in picked.iter().zip(out.chunks_exact_mut(images.n * row)) {
                values.copy_nchw(&mut out[range.start * row..][..part.n * row]);
            }
            stem.into_iter().chain([x, features, logits]).for_each(|a| workspace.give(a));
        }
    }
}

impl Logits {
    /// Makes room for what a network says of `n` images.
    pub(crate) fn resize(&mut self, spec: &NetSpec, n: usize, want_features: bool) {
        let classes = spec.branch.classes.expect("a branch has a classifier");
        (self.branches, self.n) = (spec.branches, n);
        self.classes = if want_features { spec.branch.features() } else { classes };
        self.data.resize(self.branches * n * self.classes, 0.0);
    }
}

impl<'a> Images<'a> {
    /// `count` images from `start` on.
    ///
    /// # Panics
    /// If there are fewer.
    pub fn slice(&self, start: usize, count: usize) -> Images<'a> {
        let len = self.height * self.width * 3;
        let range = start * len..(start + count) * len;
        let pixels = match self.pixels {
            Pixels::U8 { data, normalize } => Pixels::U8 { data: &data[range], normalize },
            Pixels::F32(data) => Pixels::F32(&data[range]),
        };
        Images { pixels, n: count, ..*self }
    }
}

impl SequenceSpec {
    /// Whether the sequence has no layers.
    pub fn is_empty(&self) -> bool {
        self.conv1.is_none() && self.blocks.is_empty() && self.classes.is_none()
    }
}
