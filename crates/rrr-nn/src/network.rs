//! Inference.

use crate::folded::{self, Folded, Input};
use crate::input::PaddedImages;
use crate::layout::Layout;
use crate::plans::{Plans, Workspace};
use crate::{Images, Logits, NetSpec, NetState, Pixels, SequenceSpec, State, StateError};
use rrr_kernels::{Activation, Buffer, Compute, Pool};
use std::sync::Arc;

/// Images that go through the network at a time: more would only leave the caches sooner.
const MAX_BATCH: usize = 32;

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
    /// Folds and packs `state` for inference on `pool`'s threads.
    ///
    /// # Errors
    /// [`StateError`] names every tensor that is missing, extra or misshapen.
    pub fn new(spec: &NetSpec, state: &NetState, pool: Arc<Pool>) -> Result<Self, StateError> {
        state.check(spec)?;
        let branch_layout = Layout::new(&spec.branch);
        Ok(Self {
            spec: spec.clone(),
            stem: fold(&Layout::new(&spec.stem), &state.stem),
            branches: state.branches.iter().map(|b| fold(&branch_layout, b)).collect(),
            plans: Plans::new(Compute::new(pool), false),
            workspace: Workspace::default(),
            images: PaddedImages::default(),
        })
    }

    /// The architecture.
    pub fn spec(&self) -> &NetSpec {
        &self.spec
    }

    /// Logits of every branch for a batch of any size; buffers are kept between calls.
    ///
    /// # Panics
    /// If the number of pixels is not what the sizes of `images` say.
    pub fn forward(&mut self, images: &Images<'_>) -> Logits {
        self.run(images, |_, logits| logits)
    }

    /// Pooled features before the classifier, `[branch][n][features]` (the field `classes` of the result
    /// holds the number of features).
    ///
    /// # Panics
    /// As [`Network::forward`].
    pub fn features(&mut self, images: &Images<'_>) -> Logits {
        self.run(images, |features, _| features)
    }

    fn run(
        &mut self,
        images: &Images<'_>,
        pick: for<'a> fn(&'a [Activation], &'a [Activation]) -> &'a [Activation],
    ) -> Logits {
        let branches: Vec<&Folded> = self.branches.iter().collect();
        let mut out = Logits { branches: branches.len(), n: images.n, classes: 0, data: Vec::new() };
        for start in (0..images.n).step_by(MAX_BATCH) {
            let part = images.slice(start, MAX_BATCH.min(images.n - start));
            self.images.load(&part, self.plans.compute().pool());
            let stem = (!self.stem.is_empty()).then(|| {
                let input = Input::Images(&self.images);
                folded::run(&[&self.stem], input, &mut self.plans, &mut self.workspace)
            });
            let input = match &stem {
                Some(features) => Input::Features(&features[0]),
                None => Input::Images(&self.images),
            };
            let x = folded::run(&branches, input, &mut self.plans, &mut self.workspace);
            let (features, logits) = folded::run_head(&branches, &x, &mut self.plans, &mut self.workspace);
            let picked = pick(&features, &logits);
            let classes = picked[0].channels();
            if out.data.is_empty() {
                out.classes = classes;
                out.data = vec![0.0; branches.len() * images.n * classes];
            }
            for (branch, values) in picked.iter().enumerate() {
                let at = (branch * images.n + start) * classes;
                out.data[at..at + part.n * classes].copy_from_slice(&values.to_nchw());
            }
            self.workspace.give(stem.into_iter().flatten().chain(x).chain(features).chain(logits));
        }
        out
    }
}

fn fold(layout: &Layout, state: &State) -> Folded {
    let mut params = Buffer::zeros(layout.params);
    layout.pack(state, 0..layout.params, &mut params);
    Folded::new(layout, &params, &layout.pack_stats(state))
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
