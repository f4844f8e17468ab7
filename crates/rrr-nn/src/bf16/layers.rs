//! Sequences with weights in bf16, packed for the kernels.

use crate::folded::{Folded, FoldedConv};
use crate::profile::{Profile, timed};
use rrr_kernels::{
    Aligned, Bf16Activation, Bf16Conv, Bf16Job, Bf16Plan, Buffer, Compute, bf16_max_pool, max_pool_size,
};
use std::ops::Range;

/// A layer of one sequence.
struct PackedLayer {
    /// Without its place, such as `layer3.0.conv1`.
    name: String,
    conv: Bf16Conv,
    weight: Aligned<u32>,
    /// Padded to whole blocks of 32.
    bias: Buffer,
}

/// A sequence in inference form, rounded.
pub(crate) struct PackedSequence {
    /// In the order of the layers; the last of a bottleneck takes in its downsample.
    layers: Vec<PackedLayer>,
    /// Whether the first layer reads images.
    conv1: bool,
    /// Of every block, whether it has a downsample.
    downsamples: Vec<bool>,
    /// The classifier's weights, `[classes][features]`, and biases.
    pub fc: Option<(Vec<f32>, Vec<f32>)>,
}

impl PackedSequence {
    /// Rounds a sequence.
    pub fn new(folded: &Folded, compute: &Compute) -> Self {
        let blocks = folded.blocks.iter().flat_map(|b| [&b.conv1, &b.conv2, &b.conv3]);
        let layers = folded.conv1.iter().chain(blocks);
        Self {
            layers: layers.map(|conv| PackedLayer::new(conv, compute)).collect(),
            conv1: folded.conv1.is_some(),
            downsamples: folded.blocks.iter().map(|b| b.conv3.other().is_some()).collect(),
            fc: folded.fc.as_ref().map(|fc| (fc.weights().remove(0), fc.terms[0].bias().to_vec())),
        }
    }
}

impl PackedLayer {
    fn new(folded: &FoldedConv, compute: &Compute) -> Self {
        let conv = match folded.other() {
            Some(other) => Bf16Conv::sum(folded.conv(), other),
            None => Bf16Conv::new(folded.conv()),
        };
        let mut weight = Aligned::zeros(conv.packed_len());
        let weights = folded.packed();
        let weights: Vec<&[f32]> = weights.iter().map(|w| &w[..]).collect();
        conv.pack(compute.isa(), &weights, &mut weight);
        let mut bias = Buffer::zeros(conv.cout().next_multiple_of(32));
        bias[..folded.bias().len()].copy_from_slice(folded.bias());
        Self { name: folded.name().to_owned(), conv, weight, bias }
    }
}

/// A convolution of every branch, with ReLU.
struct Layer {
    /// With its place, such as `branches.layer3.0.conv1`.
    name: String,
    conv: Bf16Conv,
    /// Per branch.
    weight: Aligned<u32>,
    bias: Buffer,
}

/// The same layers of several branches.
pub(crate) struct Layers {
    /// `stem` or `branches`.
    place: &'static str,
    branches: usize,
    /// As in [`PackedSequence`].
    layers: Vec<Layer>,
    conv1: bool,
    downsamples: Vec<bool>,
}

/// Plans for one size of input, in the order of the layers.
pub(crate) type Plans = Vec<Bf16Plan>;

/// Memory for activations: what a block reads, its two inner ones, what it puts out, and what the last one puts out part by
/// part.
#[derive(Default)]
pub(crate) struct Arena {
    pub x: Bf16Activation,
    inner: [Bf16Activation; 2],
    y: Bf16Activation,
    whole: Bf16Activation,
}

impl Arena {
    /// Bytes that it holds.
    pub fn bytes(&self) -> usize {
        let Self { x, inner: [a, b], y, whole } = self;
        [x, a, b, y, whole].map(Bf16Activation::bytes).iter().sum()
    }
}

/// What a sequence reads.
#[derive(Clone, Copy)]
pub(crate) enum Input<'a> {
    /// Padded.
    Images(&'a [u16]),
    Features(&'a Bf16Activation),
}

impl<'a> Input<'a> {
    /// The features, for a sequence that does not begin with a convolution of images.
    pub fn features(self) -> &'a Bf16Activation {
        match self {
            Input::Features(a) => a,
            Input::Images(_) => panic!("the sequence begins with a block: it reads features, not images"),
        }
    }

    /// The images, for one that does.
    pub fn images(self) -> &'a [u16] {
        match self {
            Input::Images(images) => images,
            Input::Features(_) => panic!("the sequence begins with conv1: it reads images, not features"),
        }
    }
}

/// What a pass works with besides the layers.
pub(crate) struct Pass<'a> {
    pub input: Input<'a>,
    /// Which images of a batch of `all` these are.
    pub images: Range<usize>,
    pub all: usize,
    pub arena: &'a mut Arena,
    pub compute: &'a Compute,
    /// Takes the time of every layer, if there.
    pub profile: &'a mut Option<Profile>,
}

impl Layers {
    /// Puts the branches' layers together.
    pub fn new(place: &'static str, branches: &[PackedSequence]) -> Self {
        let first = &branches[0];
        let layer = |(i, layer): (usize, &PackedLayer)| {
            let len = layer.weight.len();
            let mut weight = Aligned::zeros(branches.len() * len);
            let mut bias = Buffer::zeros(branches.len() * layer.bias.len());
            for (b, branch) in branches.iter().enumerate() {
                weight[b * len..][..len].copy_from_slice(&branch.layers[i].weight);
                bias[b * layer.bias.len()..][..layer.bias.len()].copy_from_slice(&branch.layers[i].bias);
            }
            Layer { name: format!("{place}.{}", layer.name), conv: layer.conv.clone(), weight, bias }
        };
        Self {
            place,
            branches: branches.len(),
            layers: first.layers.iter().enumerate().map(layer).collect(),
            conv1: first.conv1,
            downsamples: first.downsamples.clone(),
        }
    }

    /// Whether there are layers behind a max pooling.
    pub fn have_blocks(&self) -> bool {
        !self.downsamples.is_empty()
    }

    /// Plans all layers for `n` images of `size` in a batch of `all`.
    pub fn plan(&self, mut size: (usize, usize), (n, all): (usize, usize)) -> Plans {
        let mut layers = self.layers.iter().enumerate();
        let mut plans = Plans::new();
        let mut plan = |sizes: &[(usize, usize)]| {
            let (i, layer) = layers.next().expect("one per plan");
            let all = if i + 1 == self.layers.len() { all } else { n };
            let plan = Bf16Plan::within(&layer.conv, sizes, self.branches, (n, all));
            let output = plan.output();
            plans.push(plan);
            output
        };
        if self.conv1 {
            let (height, width) = plan(&[size]);
            size = (max_pool_size(height), max_pool_size(width));
        }
        for &downsample in &self.downsamples {
            let inner = plan(&[size]);
            let inner = plan(&[inner]);
            size = plan(&[inner, size][..if downsample { 2 } else { 1 }]);
        }
        plans
    }

    /// Bytes of weights and biases.
    pub fn bytes(&self) -> usize {
        self.layers.iter().map(|l| size_of_val(&l.weight[..]) + size_of_val(&l.bias[..])).sum()
    }

    /// Runs the layers, and leaves what comes out in `arena.x`, when all images of the batch, which come in their order, went
    /// through.
    pub fn run(&self, plans: &Plans, pass: Pass<'_>) {
        let Pass { input, images, all, arena, compute, profile } = pass;
        let n = images.len();
        let mut layers = self.layers.iter().zip(plans);
        let Arena { x, inner: [a, b], y, whole } = arena;
        let mut step = |from: &[&[u16]],
                        residual: Option<&[u16]>,
                        (to, images, all): (&mut Bf16Activation, Range<usize>, usize),
                        profile: &mut Option<Profile>| {
            let (layer, plan) = layers.next().expect("one per step");
            if images.start == 0 {
                to.reshape(self.branches, layer.conv.cout(), plan.output(), all);
            }
            let job = Bf16Job {
                x: from,
                w: &layer.weight,
                bias: &layer.bias,
                residual,
                relu: true,
                y: to.images_mut(images),
            };
            timed(profile, || layer.name.clone(), plan.macs(), || plan.forward(job, compute));
        };
        let mut features = match input {
            Input::Features(features) => Some(features.data()),
            Input::Images(images) => {
                step(&[images], None, (a, 0..n, n), profile);
                timed(profile, || format!("{}.maxpool", self.place), 0, || bf16_max_pool(a, x, compute));
                None
            }
        };
        for (i, &downsample) in self.downsamples.iter().enumerate() {
            let from = features.take().unwrap_or(x.data());
            step(&[from], None, (a, 0..n, n), profile);
            step(&[a.data()], None, (b, 0..n, n), profile);
            let is_part = n < all && i + 1 == self.downsamples.len();
            let to = if is_part { (&mut *whole, images.clone(), all) } else { (&mut *y, 0..n, n) };
            if downsample {
                step(&[b.data(), from], None, to, profile);
            } else {
                step(&[b.data()], Some(from), to, profile);
            }
            if !is_part {
                std::mem::swap(x, y);
            } else if images.end == all {
                std::mem::swap(x, whole);
            }
        }
    }
}
