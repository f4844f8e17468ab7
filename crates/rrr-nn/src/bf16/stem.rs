//! A stem, which runs on few images at a time.

use super::{Arena, BatchShape, Input, Layers, PackedSequence, Pass, Plans, stem_parts};
use crate::Images;
use crate::input::PaddedImages;
use crate::profile::{Profile, timed};
use rrr_kernels::{Bf16Activation, Compute};
use std::collections::HashMap;
use std::ops::Range;

/// The frozen layers that all branches share.
pub(crate) struct Bf16Stem {
    layers: Layers,
    plans: HashMap<BatchShape, Plans>,
    arena: Arena,
    images: PaddedImages<u16>,
    /// What comes out of several parts.
    whole: Bf16Activation,
}

impl Bf16Stem {
    pub fn new(stem: PackedSequence) -> Self {
        Self {
            layers: Layers::new("stem", &[stem]),
            plans: HashMap::new(),
            arena: Arena::default(),
            images: PaddedImages::default(),
            whole: Bf16Activation::default(),
        }
    }

    /// Bytes of weights and biases.
    pub fn weights_bytes(&self) -> usize {
        self.layers.bytes()
    }

    /// Bytes of activations and input that are kept between calls.
    pub fn activations_bytes(&self) -> usize {
        self.arena.bytes() + self.images.bytes() + self.whole.bytes()
    }

    /// What comes out for a range of the images.
    pub fn run(
        &mut self,
        images: &Images<'_>,
        all: Range<usize>,
        compute: &Compute,
        profile: &mut Option<Profile>,
    ) -> &Bf16Activation {
        let Self { layers, plans, arena, whole, .. } = self;
        let size = (images.height, images.width);
        for range in stem_parts(all.clone(), size) {
            let n = range.len();
            let part = images.slice(range.start, n);
            timed(profile, || "images".into(), 0, || self.images.load(&part, compute));
            let plans = plans.entry((size, n)).or_insert_with(|| layers.plan(size, n));
            layers.run(plans, Pass { input: Input::Images(self.images.whole()), n, arena, compute, profile });
            let y = &arena.x;
            if n < all.len() {
                if range.start == all.start {
                    whole.reshape(1, y.channels(), y.size(), all.len());
                }
                whole.put(range.start - all.start, y, compute.pool());
            }
        }
        if arena.x.n() < all.len() { whole } else { &arena.x }
    }
}
