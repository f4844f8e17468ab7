//! Quantised sequences, packed for the kernels.

mod correct;

pub(super) use correct::Source;

use super::QuantizedSequence;
use super::images::PaddedPixels;
use crate::profile::{Profile, timed};
use crate::{BlockSpec, SequenceSpec, StateError};
use rrr_kernels::int8::{
    ACTIVATION_MAX, Int8Activation, Int8Compute, Int8Conv, Int8Job, Int8Plan, int8_max_pool,
};
use rrr_kernels::{BLOCK, Buffer, Conv, blocks, max_pool_size};
use std::ops::Range;

/// A convolution of every branch.
pub(super) struct Layer {
    /// Without its place, such as `layer3.0.conv1`.
    name: String,
    conv: Int8Conv,
    /// Per branch.
    weight: Buffer,
    scale: Vec<f32>,
    offset: Vec<f32>,
    /// Step of the skipped input over the output's.
    residual: Vec<f32>,
    /// What one unit of the output stands for, per branch and channel.
    steps: Vec<f32>,
    branches: usize,
    max: u8,
}

/// A bottleneck of every branch; `conv3` takes in the downsample, if there is one.
struct Block {
    conv1: Layer,
    conv2: Layer,
    conv3: Layer,
    downsample: bool,
}

/// The same layers of several branches.
pub(super) struct Layers {
    /// `stem` or `branches`.
    place: &'static str,
    branches: usize,
    conv1: Option<Layer>,
    blocks: Vec<Block>,
}

/// Plans for one size of input, in the order of the layers.
pub(super) type Plans = Vec<Int8Plan>;

/// Memory for activations: what a block reads, its two inner ones, what it puts out, and what the last one puts out part by
/// part.
pub(super) struct Arena {
    pub x: Int8Activation,
    inner: [Int8Activation; 2],
    y: Int8Activation,
    whole: Int8Activation,
}

impl Arena {
    /// An empty one, for convolutions of `compute`.
    pub fn new(compute: &Int8Compute) -> Self {
        let new = || Int8Activation::new(compute);
        Self { x: new(), inner: [new(), new()], y: new(), whole: new() }
    }

    /// Bytes that it holds.
    pub fn bytes(&self) -> usize {
        let Self { x, inner: [a, b], y, whole } = self;
        [x, a, b, y, whole].map(Int8Activation::bytes).iter().sum()
    }
}

/// What a pass works with besides the layers.
pub(super) struct Pass<'a> {
    pub pixels: &'a PaddedPixels,
    /// Which images of a batch of `all` these are.
    pub images: Range<usize>,
    pub all: usize,
    pub arena: &'a mut Arena,
    pub compute: &'a Int8Compute,
    /// Takes the time of every layer, if there.
    pub profile: &'a mut Option<Profile>,
}

impl Layers {
    /// Packs checked states for `compute`; `steps` are those of the input if the sequence reads no images, per branch
    /// and channel.
    ///
    /// # Errors
    /// [`StateError`] if weights are too large for 16-bit sums.
    pub fn new(
        place: &'static str,
        spec: &SequenceSpec,
        states: &[QuantizedSequence],
        steps: Option<Vec<f32>>,
        last: bool,
        compute: &Int8Compute,
    ) -> Result<Self, StateError> {
        let mut problems = Vec::new();
        let mut layer = |names: &[&str], conv: Int8Conv, skipped: &[f32], max: u8| {
            Layer::new(names, conv, states, skipped, max, compute, &mut problems)
        };
        let conv1 =
            spec.conv1.map(|cout| layer(&["conv1"], Int8Conv::new(Conv::image(cout)), &[], ACTIVATION_MAX));
        let mut x = conv1.as_ref().map(|l| l.steps.clone()).or(steps).unwrap_or_default();
        let mut blocks = Vec::with_capacity(spec.blocks.len());
        for (i, b) in spec.blocks.iter().enumerate() {
            let name = |conv: &str| format!("{}.{conv}", b.name);
            let max = if last && i + 1 == spec.blocks.len() { u8::MAX } else { ACTIVATION_MAX };
            let BlockSpec { cin, width, cout, stride, downsample, .. } = *b;
            let (first, second) = (Conv::new(cin, width, 1, 1), Conv::new(width, width, 3, stride));
            let third = Conv::new(width, cout, 1, 1);
            let (name3, down) = (name("conv3"), name("downsample.0"));
            let conv3 = if downsample {
                let sum = Int8Conv::sum(third, Conv::new(cin, cout, 1, stride));
                layer(&[&name3, &down], sum, &[], max)
            } else {
                layer(&[&name3], Int8Conv::new(third), &x, max)
            };
            let conv1 = layer(&[&name("conv1")], Int8Conv::new(first), &[], ACTIVATION_MAX);
            let conv2 = layer(&[&name("conv2")], Int8Conv::new(second), &[], ACTIVATION_MAX);
            x.clone_from(&conv3.steps);
            blocks.push(Block { conv1, conv2, conv3, downsample });
        }
        if problems.is_empty() {
            Ok(Self { place, branches: states.len(), conv1, blocks })
        } else {
            Err(StateError { problems })
        }
    }

    /// What one unit of the output stands for, per branch and channel.
    pub fn steps(&self) -> &[f32] {
        self.blocks.last().map(|b| &b.conv3).or(self.conv1.as_ref()).map_or(&[], |l| &l.steps)
    }

    /// Whether there are layers behind a max pooling.
    pub fn have_blocks(&self) -> bool {
        !self.blocks.is_empty()
    }

    /// Plans all layers for `n` images of `size` in a batch of `all`; also the size of what comes out.
    pub fn plan(
        &self,
        mut size: (usize, usize),
        (n, all): (usize, usize),
        compute: &Int8Compute,
    ) -> (Plans, (usize, usize)) {
        let mut plans = Plans::new();
        let mut plan = |layer: &Layer, sizes: &[(usize, usize)], all: usize| {
            let plan = Int8Plan::within(&layer.conv, sizes, self.branches, (n, all), compute);
            let output = plan.output();
            plans.push(plan);
            output
        };
        if let Some(conv1) = &self.conv1 {
            let (height, width) = plan(conv1, &[size], n);
            size = (max_pool_size(height), max_pool_size(width));
        }
        for (i, b) in self.blocks.iter().enumerate() {
            let inner = plan(&b.conv1, &[size], n);
            let inner = plan(&b.conv2, &[inner], n);
            let sizes = [inner, size];
            let all = if i + 1 == self.blocks.len() { all } else { n };
            size = plan(&b.conv3, &sizes[..if b.downsample { 2 } else { 1 }], all);
        }
        (plans, size)
    }

    /// Bytes of the packed weights and of what goes with them.
    pub fn bytes(&self) -> usize {
        let blocks = self.blocks.iter().flat_map(|b| [&b.conv1, &b.conv2, &b.conv3]);
        self.conv1.iter().chain(blocks).map(Layer::bytes).sum()
    }

    /// Runs the layers on pixels or on `arena.x`, and leaves what comes out there, when all images of the batch, which come in
    /// their order, went through.
    pub fn run(&self, plans: &Plans, pass: Pass<'_>) {
        let Pass { pixels, images, all, arena, compute, profile } = pass;
        let n = images.len();
        let mut plans = plans.iter();
        let mut next = || plans.next().expect("one per layer");
        let Arena { x, inner: [a, b], y, whole } = arena;
        let named = |name: &str| format!("{}.{name}", self.place);
        if let Some(conv1) = &self.conv1 {
            let plan = next();
            a.reshape(self.branches, conv1.conv.cout(), plan.output(), n);
            let macs = conv1.macs(plan, n);
            timed(
                profile,
                || named(&conv1.name),
                macs,
                || {
                    conv1.run(plan, &[pixels.data()], None, a.images_mut(0..n), compute);
                },
            );
            timed(profile, || named("maxpool"), 0, || int8_max_pool(a, x, compute));
        }
        for (i, block) in self.blocks.iter().enumerate() {
            type To<'a> = (&'a mut Int8Activation, Range<usize>, usize);
            let mut step = |layer: &Layer, from: &[&[u8]], skipped, (to, images, all): To<'_>| {
                let plan = next();
                if images.start == 0 {
                    to.reshape(self.branches, layer.conv.cout(), plan.output(), all);
                }
                let macs = layer.macs(plan, n);
                timed(
                    profile,
                    || named(&layer.name),
                    macs,
                    || {
                        layer.run(plan, from, skipped, to.images_mut(images), compute);
                    },
                );
            };
            step(&block.conv1, &[x.data()], None, (a, 0..n, n));
            step(&block.conv2, &[a.data()], None, (b, 0..n, n));
            let is_part = n < all && i + 1 == self.blocks.len();
            let to = if is_part { (&mut *whole, images.clone(), all) } else { (&mut *y, 0..n, n) };
            if block.downsample {
                step(&block.conv3, &[b.data(), x.data()], None, to);
            } else {
                step(&block.conv3, &[b.data()], Some(x.data()), to);
            }
            if !is_part {
                std::mem::swap(x, y);
            } else if images.end == all {
                std::mem::swap(x, whole);
            }
        }
    }
}

impl Layer {
    fn new(
        names: &[&str],
        conv: Int8Conv,
        states: &[QuantizedSequence],
        skipped: &[f32],
        max: u8,
        compute: &Int8Compute,
        problems: &mut Vec<String>,
    ) -> Self {
        let (len, padded) = (conv.packed_len(compute), blocks(conv.cout()) * BLOCK);
        let mut layer = Self {
            name: names[0].to_string(),
            weight: Buffer::zeros((states.len() * len).div_ceil(size_of::<f32>())),
            scale: vec![0.0; states.len() * padded],
            offset: vec![0.0; states.len() * padded],
            residual: vec![0.0; states.len() * padded],
            steps: Vec::new(),
            branches: states.len(),
            conv,
            max,
        };
        for (i, state) in states.iter().enumerate() {
            let weights: Vec<&[i8]> =
                names.iter().map(|n| state.weights[&format!("{n}.weight")].data.as_slice()).collect();
            let packed = &mut layer.weight.as_bytes_mut()[i * len..(i + 1) * len];
            if let Err(channel) = layer.conv.pack(&weights, packed, compute) {
                problems.push(format!("{}.weight is too large in channel {channel}", names[0]));
            }
            let value = |what: &str| &state.values[&format!("{}.{what}", names[0])].data;
            let steps = value("step");
            let channels = layer.conv.cout();
            let divide = |to: &mut [f32], from: &[f32]| {
                let to = &mut to[i * padded..][..channels];
                to.iter_mut().zip(from.iter().zip(steps)).for_each(|(to, (v, step))| *to = v / step);
            };
            divide(&mut layer.scale, value("scale"));
            divide(&mut layer.offset, value("bias"));
            if !skipped.is_empty() {
                divide(&mut layer.residual, &skipped[i * channels..(i + 1) * channels]);
            }
            layer.steps.extend(steps);
        }
        layer
    }

    fn bytes(&self) -> usize {
        let values = [&self.scale, &self.offset, &self.residual, &self.steps].map(Vec::len);
        self.weight.as_bytes().len() + values.iter().sum::<usize>() * size_of::<f32>()
    }

    /// Multiply-accumulates of all branches and `n` images.
    fn macs(&self, plan: &Int8Plan, n: usize) -> u64 {
        let (height, width) = plan.output();
        (self.branches * self.conv.weights() * height * width * n) as u64
    }

    fn run(&self, plan: &Int8Plan, x: &[&[u8]], skipped: Option<&[u8]>, y: &mut [u8], compute: &Int8Compute) {
        let job = Int8Job {
            x,
            w: &self.weight.as_bytes()[..self.branches * self.conv.packed_len(compute)],
            scale: &self.scale,
            offset: &self.offset,
            residual: skipped.map(|s| (s, self.residual.as_slice())),
            max: self.max,
            y,
        };
        plan.forward(job, compute);
    }
}
