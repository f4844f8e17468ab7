//! Convolutions with their batch norms folded in, unpacked.

use crate::{BlockSpec, SequenceSpec, State};
use rrr_kernels::{BN_EPS, Conv};

/// A convolution with bias.
pub(super) struct Folded {
    pub conv: Conv,
    /// `[cout][cin][kernel][kernel]`.
    pub weight: Vec<f32>,
    pub bias: Vec<f32>,
}

impl Folded {
    fn new(state: &State, conv: Conv, name: &str, norm: &str) -> Self {
        let values = |name: String| &state[&name].data;
        let (gamma, beta) = (values(format!("{norm}.weight")), values(format!("{norm}.bias")));
        let (mean, var) = (values(format!("{norm}.running_mean")), values(format!("{norm}.running_var")));
        let mut weight = values(format!("{name}.weight")).clone();
        let mut bias = beta.clone();
        let per_channel = weight.len() / conv.cout();
        for (o, weight) in weight.chunks_exact_mut(per_channel).enumerate() {
            let scale = (f64::from(gamma[o]) / f64::from(var[o] + BN_EPS).sqrt()) as f32;
            weight.iter_mut().for_each(|w| *w *= scale);
            bias[o] -= mean[o] * scale;
        }
        Self { conv, weight, bias }
    }
}

/// A bottleneck.
pub(super) struct FoldedBlock {
    pub conv1: Folded,
    pub conv2: Folded,
    pub conv3: Folded,
    pub downsample: Option<Folded>,
}

/// The convolutions of a sequence.
pub(super) struct FoldedSequence {
    pub conv1: Option<Folded>,
    pub blocks: Vec<FoldedBlock>,
}

impl FoldedSequence {
    /// Folds a checked state.
    pub fn new(spec: &SequenceSpec, state: &State) -> Self {
        let block = |b: &BlockSpec| {
            let fold = |conv: &str, norm: &str, geometry| {
                Folded::new(state, geometry, &format!("{}.{conv}", b.name), &format!("{}.{norm}", b.name))
            };
            FoldedBlock {
                conv1: fold("conv1", "bn1", Conv::new(b.cin, b.width, 1, 1)),
                conv2: fold("conv2", "bn2", Conv::new(b.width, b.width, 3, b.stride)),
                conv3: fold("conv3", "bn3", Conv::new(b.width, b.cout, 1, 1)),
                downsample: b
                    .downsample
                    .then(|| fold("downsample.0", "downsample.1", Conv::new(b.cin, b.cout, 1, b.stride))),
            }
        };
        Self {
            conv1: spec.conv1.map(|cout| Folded::new(state, Conv::image(cout), "conv1", "bn1")),
            blocks: spec.blocks.iter().map(block).collect(),
        }
    }
}
