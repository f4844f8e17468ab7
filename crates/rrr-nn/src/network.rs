//! Inference.

use crate::folded::{self, Folded, Input, Pass};
use crate::input::PaddedImages;
use crate::layout::Layout;
use crate::plans::{Plans, Workspace};
use crate::profile::{LayerTime, Profile};
use crate::{Images, Logits, NetSpec, NetState, Part, Pixels, SequenceSpec, State, StateError};
use rrr_kernels::{Activation, Compute};
use std::borrow::Cow;
use std::ops::Range;

/// Pixels that go through layers in inference form at a time: enough to keep them busy, few enough for the activations
/// between them to stay in a cache of some 16 MiB.
const PART_PIXELS: usize = 1 << 16;

/// Ranges of `n` images of `size` that run at a time.
pub(crate) fn parts(n: usize, size: (usize, usize)) -> impl Iterator<Item = Range<usize>> {
    let most = (PART_PIXELS / (size.0 * size.1).max(1)).max(1);
    (0..n).step_by(most).map(move |start| start..n.min(start + most))
}

/// A network in inference form: batch norms folded into the convolutions, weights packed once.
pub struct Network {
    spec: NetSpec,
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
        Self::fold(spec, compute, |part| Ok(Cow::Borrowed(state.part(part))))
    }

    /// Like [`Network::new`], but asks for the state of a part only when it is its turn, on any of the threads of
    /// `compute`: weights that are read from a file need not be held beside the packed ones.
    ///
    /// # Errors
    /// Whatever `read` fails with, and [`StateError`] as in [`Network::new`]: those of the first part that fails.
    pub fn read<E: From<StateError> + Send>(
        spec: &NetSpec,
        compute: Compute,
        read: impl Fn(Part) -> Result<State, E> + Sync,
    ) -> Result<Self, E> {
        Self::fold(spec, compute, |part| {
            let state = read(part)?;
            part.check(spec, &state)?;
            Ok(Cow::Owned(state))
        })
    }

    fn fold<'a, E: Send>(
        spec: &NetSpec,
        compute: Compute,
        state: impl Fn(Part) -> Result<Cow<'a, State>, E> + Sync,
    ) -> Result<Self, E> {
        let (stem, branch) = (Layout::new(&spec.stem), Layout::new(&spec.branch));
        let mut parts: Vec<Option<Result<Folded, E>>> = (0..=spec.branches).map(|_| None).collect();
        compute.pool().for_each(&mut parts, |i, folded| {
            let (part, layout) = if i == 0 { (Part::Stem, &stem) } else { (Part::Branch(i - 1), &branch) };
            *folded = Some(state(part).map(|state| Folded::of_state(layout, &state, &compute)));
        });
        let mut parts = parts.into_iter().map(|part| part.expect("every part was folded"));
        let stem = parts.next().expect("the stem is a part")?;
        Ok(Self {
            spec: spec.clone(),
            stem,
            branches: parts.collect::<Result<_, E>>()?,
            plans: Plans::new(compute, false),
            workspace: Workspace::default(),
            images: PaddedImages::default(),
        })
    }

    /// The architecture.
    pub fn spec(&self) -> &NetSpec {
        &self.spec
    }

    /// Bytes of the packed weights.
    pub fn weights_bytes(&self) -> usize {
        self.branches.iter().chain([&self.stem]).map(Folded::bytes).sum()
    }

    /// Bytes of activations and input that are kept between calls: what the largest batch so far needed.
    pub fn activations_bytes(&self) -> usize {
        self.workspace.bytes() + self.images.bytes()
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
        self.run(images, |_, logits| logits, logits);
    }

    /// As [`Network::forward`], with the time of every layer (a batch runs in parts of 65,536 pixels, each of which
    /// has its times).
    ///
    /// # Panics
    /// As [`Network::forward`].
    pub fn forward_timed(&mut self, images: &Images<'_>) -> (Logits, Vec<LayerTime>) {
        self.plans.profile = Some(Profile::default());
        let logits = self.forward(images);
        (logits, self.plans.profile.take().unwrap_or_default().layers)
    }

    /// Pooled features before the classifier, `[branch][n][features]` (the field `classes` of the result
    /// holds the number of features).
    ///
    /// # Panics
    /// As [`Network::forward`].
    pub fn features(&mut self, images: &Images<'_>) -> Logits {
        let mut features = Logits::default();
        self.run(images, |features, _| features, &mut features);
        features
    }

    fn run(
        &mut self,
        images: &Images<'_>,
        pick: for<'a> fn(&'a [Activation], &'a [Activation]) -> &'a [Activation],
        out: &mut Logits,
    ) {
        let (branches, plans, workspace) = (&self.branches, &mut self.plans, &mut self.workspace);
        (out.branches, out.n, out.classes) = (branches.len(), images.n, 0);
        out.data.clear();
        for (start, part) in images.parts() {
            self.images.load(&part, plans.compute().pool());
            let images_in = Input::Images(self.images.all());
            let mut pass = Pass { plans, workspace, observer: None };
            let stem = (!self.stem.is_empty())
                .then(|| folded::run(std::slice::from_ref(&self.stem), images_in, &mut pass));
            let input = stem.as_ref().map_or(images_in, |features| Input::Features(&features[0]));
            let x = folded::run(branches, input, &mut pass);
            let (features, logits) = folded::run_head(branches, &x, &mut pass);
            let picked = pick(&features, &logits);
            out.classes = picked[0].channels();
            out.data.resize(branches.len() * images.n * out.classes, 0.0);
            for (branch, values) in picked.iter().enumerate() {
                let at = (branch * images.n + start) * out.classes;
                values.copy_nchw(&mut out.data[at..at + part.n * out.classes]);
            }
            stem.into_iter().chain([x, features, logits]).for_each(|a| workspace.give(a));
        }
    }
}

impl<'a> Images<'a> {
    /// The images as they run, each part with the number of its first one.
    pub(crate) fn parts(&self) -> impl Iterator<Item = (usize, Images<'a>)> {
        parts(self.n, (self.height, self.width)).map(|r| (r.start, self.slice(r.start, r.len())))
    }

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
