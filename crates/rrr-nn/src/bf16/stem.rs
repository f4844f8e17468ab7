//! A stem, which runs on few images at a time.

use super::{Arena, BatchShape, Input, Layers, PackedSequence, Pass, Plans};
use crate::Images;
use crate::input::PaddedImages;
use crate::network::stem_parts;
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
}

impl Bf16Stem {
    pub fn new(stem: PackedSequence) -> Self {
        Self {
            layers: Layers::new("stem", &[stem]),
            plans: HashMap::new(),
            arena: Arena::default(),
            images: PaddedImages::default(),
        }
    }

    /// Bytes of weights and biases.
    pub fn weights_bytes(&self) -> usize {
        self.layers.bytes()
    }

    /// Bytes of activations and input that are kept between calls.
    pub fn activations_bytes(&self) -> usize {
        self.arena.bytes() + self.images.bytes()
    }

    /// What comes out for a range of the images.
    pub fn run(
        &mut self,
        images: &Images<'_>,
        all: Range<usize>,
        compute: &Compute,
        profile: &mut Option<Profile>,
    ) -> &Bf16Activation {
        let Self { layers, plans, arena, .. } = self;
        let (size, count) = ((images.height, images.width), all.len());
        for range in stem_parts(count, size, layers.have_blocks()) {
            let part = images.slice(all.start + range.start, range.len());
            timed(profile, || "images".into(), 0, || self.images.load(&part, compute));
            let n = (range.len(), count);
            let plans = plans.entry((size, n)).or_insert_with(|| layers.plan(size, n));
            let input = Input::Images(self.images.whole());
            layers.run(plans, Pass { input, images: range, all: count, arena, compute, profile });
        }
        &arena.x
    }
}
