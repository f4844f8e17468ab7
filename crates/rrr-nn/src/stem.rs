//! A stem that is not trained, in inference form.

use crate::Images;
use crate::bf16::{self, Bf16Stem, PackedSequence};
use crate::folded::{self, Folded, Input};
use crate::input::PaddedImages;
use crate::network;
use crate::plans::{Plans, Workspace};
use rrr_kernels::{Activation, Compute, Precision};

/// A stem in the precision that it runs in.
pub(crate) enum FrozenStem {
    F32(Box<Folded>),
    Bf16(Box<Bf16Stem>),
}

impl FrozenStem {
    /// Rounds the stem if `compute` asks for that.
    pub fn new(folded: Folded, compute: &Compute) -> Self {
        match compute.precision() {
            Precision::F32 => Self::F32(Box::new(folded)),
            Precision::Bf16 => Self::Bf16(Box::new(Bf16Stem::new(PackedSequence::new(&folded, compute)))),
        }
    }

    /// The stem's output, in f32 in any case; `padded` is memory for images.
    pub fn run(
        &mut self,
        images: &Images<'_>,
        padded: &mut PaddedImages,
        plans: &mut Plans,
        workspace: &mut Workspace,
    ) -> Vec<Activation> {
        match self {
            Self::F32(folded) => run_f32(folded, images, padded, plans, workspace),
            Self::Bf16(stem) => run_bf16(stem, images, plans.compute(), workspace),
        }
    }
}

/// The output of a stem in inference form.
pub(crate) fn run_f32(
    stem: &Folded,
    images: &Images<'_>,
    padded: &mut PaddedImages,
    plans: &mut Plans,
    workspace: &mut Workspace,
) -> Vec<Activation> {
    padded.load(images, plans.compute());
    let mut output: Option<Vec<Activation>> = None;
    for part in network::parts(images.n, (images.height, images.width)) {
        let input = Input::Images(padded.some(part.clone()));
        let mut pass = folded::Pass { plans, workspace, observer: None };
        let y = folded::run(std::slice::from_ref(stem), input, &mut pass);
        if part.len() == images.n {
            return y;
        }
        let (channels, size) = (y[0].channels(), (y[0].height(), y[0].width()));
        let whole = output.get_or_insert_with(|| workspace.take_many(1, channels, size, images.n));
        whole[0].put(part.start, &y[0], plans.compute().pool());
        workspace.give(y);
    }
    output.expect("a batch has images")
}

fn run_bf16(
    stem: &mut Bf16Stem,
    images: &Images<'_>,
    compute: &Compute,
    workspace: &mut Workspace,
) -> Vec<Activation> {
    let mut output: Option<Vec<Activation>> = None;
    for range in bf16::stem_parts(0..images.n, (images.height, images.width)) {
        let y = stem.run(images, range.clone(), compute, &mut None);
        let whole = output.get_or_insert_with(|| workspace.take_many(1, y.channels(), y.size(), images.n));
        y.put_into(0, &mut whole[0], range.start, compute.pool());
    }
    output.expect("a batch has images")
}
