//! Layers in training, of one or several learners: weights, plans and the tape.

use super::super::layers::Input;
use crate::Images;
use crate::layout::{ConvBn, Layout};
use crate::learner::Learner;
use crate::profile::Profile;
use rrr_kernels::{
    Aligned, Bf16Activation, Bf16Conv, Bf16Copy, Bf16GradPlan, Bf16Plan, Buffer, Compute, max_pool_size,
};
use std::collections::HashMap;
use std::ops::Range;
use std::slice::ChunksExactMut;
use std::sync::Arc;

/// What a pass runs on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Batch {
    /// Height and width of the input.
    pub size: (usize, usize),
    /// Number of images.
    pub n: usize,
    /// Learners that take part.
    pub which: Range<usize>,
}

impl Batch {
    pub fn of_images(images: &Images<'_>, which: Range<usize>) -> Self {
        Self { size: (images.height, images.width), n: images.n, which }
    }
}

/// What a pass works with besides the layers.
pub(super) struct Pass<'a> {
    pub input: Input<'a>,
    pub batch: &'a Batch,
    pub compute: &'a Compute,
    /// Takes the time of every layer, if there.
    pub profile: &'a mut Option<Profile>,
}

/// Weights in bf16 of all learners, one's after the other's.
pub(super) struct Packed {
    pub conv: Bf16Conv,
    weights: Aligned<u32>,
    /// Zeros.
    bias: Buffer,
}

impl Packed {
    fn zeros(conv: Bf16Conv, learners: usize) -> Self {
        let weights = Aligned::zeros(learners * conv.packed_len());
        let bias = Buffer::zeros(learners * conv.cout().next_multiple_of(32));
        Self { conv, weights, bias }
    }

    /// Those of some learners, and their biases.
    pub fn of(&self, which: &Range<usize>) -> (&[u32], &[f32]) {
        let (len, channels) = (self.conv.packed_len(), self.conv.cout().next_multiple_of(32));
        (&self.weights[which.start * len..which.end * len], &self.bias[..which.len() * channels])
    }

    /// Those of some learners, each for itself, to change a part of them.
    pub fn each(&mut self, which: &Range<usize>, part: usize) -> Copies<'_> {
        let len = self.conv.packed_len();
        let weights = self.weights[which.start * len..which.end * len].chunks_exact_mut(len);
        Copies { conv: &self.conv, part, weights }
    }
}

/// Weights in bf16, learner by learner.
pub(super) struct Copies<'a> {
    conv: &'a Bf16Conv,
    part: usize,
    weights: ChunksExactMut<'a, u32>,
}

impl<'a> Iterator for Copies<'a> {
    type Item = Bf16Copy<'a>;

    fn next(&mut self) -> Option<Self::Item> {
        let packed = self.weights.next()?;
        Some(Bf16Copy { conv: self.conv, part: self.part, packed })
    }
}

/// Convolutions that read the same input: one, or the first of a bottleneck and its downsample.
pub(super) struct Unit {
    /// With their places in the parameters.
    pub layers: Vec<ConvBn>,
    pub forward: Vec<Packed>,
    /// For the gradient of the input; none of images, and of weights that are not trained.
    pub gradient: Option<Packed>,
}

/// How far back gradients go.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Backward {
    /// There are none.
    None,
    /// To the parameters of the first layer.
    Parameters,
    /// To the input.
    Input,
}

impl Unit {
    fn new(layers: Vec<ConvBn>, learners: usize, has_gradient: bool) -> Self {
        let convs: Vec<_> = layers.iter().map(|layer| layer.conv).collect();
        Self {
            forward: convs.iter().map(|conv| Packed::zeros(Bf16Conv::new(*conv), learners)).collect(),
            gradient: has_gradient.then(|| Packed::zeros(Bf16Conv::input_gradient(&convs), learners)),
            layers,
        }
    }
}

/// Plans of a unit, for one batch.
pub(super) struct UnitPlans {
    pub forward: Vec<Bf16Plan>,
    pub weights: Vec<Bf16GradPlan>,
    pub gradient: Option<Bf16Plan>,
}

/// Of `conv1`, `bn1`, ReLU and max pooling.
#[derive(Default)]
pub(super) struct ImageTape {
    pub conv: Bf16Activation,
    pub act: Bf16Activation,
    pub pooled: Bf16Activation,
}

/// Of a bottleneck: the convolutions' outputs before batch norm, and the activations behind it.
#[derive(Default)]
pub(super) struct BlockTape {
    pub conv1: Bf16Activation,
    pub act1: Bf16Activation,
    pub conv2: Bf16Activation,
    pub act2: Bf16Activation,
    pub conv3: Bf16Activation,
    pub downsample: Bf16Activation,
    pub out: Bf16Activation,
}

/// The layers, with the activations of the last forward pass, a group for each learner that took part.
pub(crate) struct Sequence {
    /// `conv1`, if it has that, then three of each bottleneck.
    pub(super) units: Vec<Unit>,
    pub(super) image: Option<ImageTape>,
    pub(super) blocks: Vec<BlockTape>,
    plans: HashMap<Batch, Arc<Vec<UnitPlans>>>,
    backward: Backward,
}

impl Sequence {
    /// Layers with the learners' weights, rounded.
    pub fn new(layout: &Layout, learners: &[Learner], backward: Backward, compute: &Compute) -> Self {
        let count = learners.len();
        // An input's only if asked for, which of images it is not.
        let unit = |units: &[Unit], layers| {
            let has_gradient = match backward {
                Backward::None => false,
                Backward::Parameters => !units.is_empty(),
                Backward::Input => true,
            };
            Unit::new(layers, count, has_gradient)
        };
        let mut units = Vec::new();
        for layers in layout.units() {
            units.push(unit(&units, layers));
        }
        let mut sequence = Self {
            units,
            image: layout.conv1.is_some().then(ImageTape::default),
            blocks: layout.blocks.iter().map(|_| BlockTape::default()).collect(),
            plans: HashMap::new(),
            backward,
        };
        sequence.pack(learners, compute);
        sequence
    }

    /// Rounds all weights.
    fn pack(&mut self, learners: &[Learner], compute: &Compute) {
        let isa = compute.isa();
        let all = 0..learners.len();
        for Unit { layers, forward, gradient } in &mut self.units {
            for (layer, packed) in layers.iter().zip(forward) {
                compute.pool().for_each(packed.each(&all, 0).zip(learners), |_, (copy, learner)| {
                    copy.conv.pack(isa, &[&learner.member.params[layer.weight.clone()]], copy.packed);
                });
            }
            if let Some(packed) = gradient {
                compute.pool().for_each(packed.each(&all, 0).zip(learners), |_, (copy, learner)| {
                    let weights = |layer: &ConvBn| &learner.member.params[layer.weight.clone()];
                    let weights = [weights(&layers[0]), weights(layers.last().expect("a layer"))];
                    copy.conv.pack(isa, &weights[..layers.len()], copy.packed);
                });
            }
        }
    }

    /// Plans for a batch, made once.
    pub(super) fn plans(&mut self, batch: &Batch) -> Arc<Vec<UnitPlans>> {
        // Weights do not matter, only how many.
        let key = Batch { which: 0..batch.which.len(), ..batch.clone() };
        let (units, has_image) = (&self.units, self.image.is_some());
        let trained = self.backward != Backward::None;
        Arc::clone(self.plans.entry(key).or_insert_with(|| Arc::new(plan(units, has_image, trained, batch))))
    }

    /// What the last block puts out, or max pooling if there is no block.
    pub fn output(&self) -> &Bf16Activation {
        let pooled = || &self.image.as_ref().expect("a sequence has layers").pooled;
        self.blocks.last().map_or_else(pooled, |block| &block.out)
    }
}

/// Input of block `i`.
pub(super) fn input_of<'a>(
    i: usize,
    image: Option<&'a ImageTape>,
    blocks: &'a [BlockTape],
    input: Input<'a>,
) -> &'a Bf16Activation {
    let pooled = || image.map(|tape| &tape.pooled);
    let before = i.checked_sub(1).map(|i| &blocks[i].out).or_else(pooled);
    before.unwrap_or_else(|| input.features())
}

fn plan(units: &[Unit], has_image: bool, trained: bool, batch: &Batch) -> Vec<UnitPlans> {
    let (groups, n) = (batch.which.len(), batch.n);
    let mut size = batch.size;
    let mut plans = Vec::new();
    for (i, unit) in units.iter().enumerate() {
        let forward: Vec<Bf16Plan> =
            unit.forward.iter().map(|packed| Bf16Plan::new(&packed.conv, &[size], groups, n)).collect();
        let weights = unit.layers.iter().filter(|_| trained);
        let of_unit = UnitPlans {
            weights: weights.map(|layer| Bf16GradPlan::new(layer.conv, size, groups, n)).collect(),
            gradient: unit.gradient.as_ref().map(|packed| Bf16Plan::gradient(&packed.conv, size, groups, n)),
            forward,
        };
        size = of_unit.forward[0].output();
        if has_image && i == 0 {
            size = (max_pool_size(size.0), max_pool_size(size.1));
        }
        plans.push(of_unit);
    }
    plans
}
