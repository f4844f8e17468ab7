//! What a network costs: parameters, multiply-adds and activation memory, at any input size.
//!
//! The conventions, which give the usual published figures (ResNet-50 at 224x224: 25.6 M and 4.09 G):
//! * **Parameters** are PyTorch's: weights of convolutions, weight and bias of batch norms and of the classifier.
//!   Running statistics are not counted. A batch norm belongs to the convolution before it.
//! * **MACs** are the multiply-adds of convolutions and classifier for one image ("FLOPs" in most papers). Batch norms
//!   fold into convolutions; ReLU, additions and pooling are left out.
//! * **Activations** are bytes of f32 for one image: the outputs of all convolutions, which a training pass keeps for
//!   the backward pass.
//! * **Peak** is the most bytes of f32 alive at once for one image when layers run one after another, in place where
//!   that is possible (batch norm, ReLU, residual sum), and buffers are freed after their last use.
//!
//! Real engines batch, tile and fuse, so the memory figures compare networks rather than predict a process's size.

#[cfg(test)]
mod tests;

use rrr_nn::{BlockSpec, BranchGroup, NetSpec, SequenceSpec};
use serde::Serialize;

/// Height and width in pixels.
pub type Size = [usize; 2];

const F32: u64 = 4;

/// One convolution with its batch norm, or the classifier.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LayerCost {
    /// State-dict prefix, for example `layer3.0.conv2`.
    pub name: String,
    /// Trainable numbers, the batch norm's included.
    pub params: u64,
    /// Multiply-adds for one image.
    pub macs: u64,
    /// Channels, height and width of the output.
    pub output: [usize; 3],
}

/// `conv1`, one block, or `fc`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PartCost {
    /// `conv1`, `layer3.0`, ... or `fc`.
    pub name: String,
    /// Trainable numbers.
    pub params: u64,
    /// Multiply-adds for one image.
    pub macs: u64,
    /// Bytes of the convolutions' outputs.
    pub activation_bytes: u64,
    /// Most bytes alive at once, the part's input and output included.
    pub peak_bytes: u64,
    /// Its convolutions, in order.
    pub layers: Vec<LayerCost>,
}

/// A run of layers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SequenceCost {
    /// Trainable numbers.
    pub params: u64,
    /// Multiply-adds for one image.
    pub macs: u64,
    /// Bytes of all convolutions' outputs.
    pub activation_bytes: u64,
    /// Most bytes alive at once.
    pub peak_bytes: u64,
    /// Channels, height and width of what the last block puts out.
    pub output: [usize; 3],
    /// `conv1`, the blocks, `fc`, in order.
    pub parts: Vec<PartCost>,
}

/// A whole network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NetCost {
    /// Trainable numbers of stem and all branches.
    pub params: u64,
    /// Multiply-adds for one image: stem once for each size that branches see it at, every branch once.
    pub macs: u64,
    /// Bytes of all convolutions' outputs for one image.
    pub activation_bytes: u64,
    /// Bytes that training keeps for one image: a frozen stem keeps only its output; branches keep all.
    pub training_bytes: u64,
    /// Most bytes alive at once in inference, branches run one after another on the stem's output.
    pub peak_bytes: u64,
    /// Coarse branches, if there are any, then the others, if there are any.
    pub groups: Vec<GroupCost>,
}

/// Branches that see the images at one size, and the stem at that size.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct GroupCost {
    /// Number of branches.
    pub branches: usize,
    /// Whether they see the images at half their size.
    pub halved: bool,
    /// The shared stem; all zero if empty.
    pub stem: SequenceCost,
    /// One branch.
    pub branch: SequenceCost,
}

impl NetCost {
    /// The last group: of branches that see the whole image, if there are any.
    fn last(&self) -> &GroupCost {
        self.groups.last().expect("a network has branches")
    }

    /// The shared stem, all zero if empty, on the whole image if any branch sees that.
    pub fn stem(&self) -> &SequenceCost {
        &self.last().stem
    }

    /// One branch, likewise.
    pub fn branch(&self) -> &SequenceCost {
        &self.last().branch
    }

    /// Number of branches.
    pub fn branches(&self) -> usize {
        self.groups.iter().map(|g| g.branches).sum()
    }
}

/// Costs of a network on images of `input` pixels.
pub fn net_cost(spec: &NetSpec, input: Size) -> NetCost {
    let group = |group: BranchGroup| {
        let [height, width] = input.map(|side| if group.halved { side / 2 } else { side });
        let stem = sequence_cost(&spec.stem, [3, height, width]);
        let branch = sequence_cost(&spec.branch, stem.output);
        GroupCost { branches: group.branches.len(), halved: group.halved, stem, branch }
    };
    let groups: Vec<GroupCost> = spec.groups().map(group).collect();
    let sum = |of: &dyn Fn(&SequenceCost) -> u64| {
        groups.iter().map(|g| of(&g.stem) + g.branches as u64 * of(&g.branch)).sum::<u64>()
    };
    let stem_params = groups.last().map_or(0, |g| g.stem.params);
    let branch_params = groups.iter().map(|g| g.branches as u64 * g.branch.params).sum::<u64>();
    NetCost {
        params: stem_params + branch_params,
        macs: sum(&|s| s.macs),
        activation_bytes: sum(&|s| s.activation_bytes),
        training_bytes: groups.iter().map(GroupCost::training_bytes).sum(),
        peak_bytes: groups.iter().map(GroupCost::peak_bytes).max().unwrap_or(0),
        groups,
    }
}

impl GroupCost {
    /// Bytes of the stem's output, which all branches read.
    fn shared_bytes(&self) -> u64 {
        if self.stem.parts.is_empty() { 0 } else { bytes(self.stem.output) }
    }

    fn training_bytes(&self) -> u64 {
        self.shared_bytes() + self.branches as u64 * self.branch.activation_bytes
    }

    fn peak_bytes(&self) -> u64 {
        // The first block's input is the stem's output itself; later layers run while it waits for the next branch.
        let waiting = if self.branches > 1 { self.shared_bytes() } else { 0 };
        let parts = self.branch.parts.iter().enumerate();
        let peak = parts.map(|(i, p)| p.peak_bytes + if i > 0 { waiting } else { 0 }).max();
        self.stem.peak_bytes.max(peak.unwrap_or(0))
    }
}

/// Costs of a run of layers on an input of `[channels, height, width]`.
pub fn sequence_cost(spec: &SequenceSpec, input: [usize; 3]) -> SequenceCost {
    let mut at = input;
    let mut parts = Vec::new();
    if let Some(channels) = spec.conv1 {
        let layer = conv("conv1", at, channels, 7, 2, 3);
        let pooled = [channels, shrink(layer.output[1], 3, 2, 1), shrink(layer.output[2], 3, 2, 1)];
        let peak = bytes(layer.output) + bytes(at).max(bytes(pooled));
        parts.push(part("conv1", vec![layer], peak));
        at = pooled;
    }
    for block in &spec.blocks {
        let cost = block_cost(block, at);
        at = cost.layers[2].output;
        parts.push(cost);
    }
    if let Some(classes) = spec.classes {
        let features = at[0] as u64;
        let layer = LayerCost {
            name: "fc".into(),
            params: (features + 1) * classes as u64,
            macs: features * classes as u64,
            output: [classes, 1, 1],
        };
        let peak = bytes(at) + F32 * (features + classes as u64);
        parts.push(PartCost { activation_bytes: 0, ..part("fc", vec![layer], peak) });
    }
    SequenceCost {
        params: parts.iter().map(|p| p.params).sum(),
        macs: parts.iter().map(|p| p.macs).sum(),
        activation_bytes: parts.iter().map(|p| p.activation_bytes).sum(),
        peak_bytes: parts.iter().map(|p| p.peak_bytes).max().unwrap_or(0),
        output: at,
        parts,
    }
}

/// Trainable numbers of a sequence, without the rest of its costs.
pub fn trainable_params(spec: &SequenceSpec) -> u64 {
    let trainable = spec.params().into_iter().filter(|p| p.trainable);
    trainable.map(|p| p.shape.iter().product::<usize>() as u64).sum()
}

fn block_cost(b: &BlockSpec, input: [usize; 3]) -> PartCost {
    let name = |layer: &str| format!("{}.{layer}", b.name);
    let conv1 = conv(&name("conv1"), input, b.width, 1, 1, 0);
    let conv2 = conv(&name("conv2"), conv1.output, b.width, 3, b.stride, 1);
    let conv3 = conv(&name("conv3"), conv2.output, b.cout, 1, 1, 0);
    // The block's input waits for the skip path.
    let [x, a1, a2, a3] = [input, conv1.output, conv2.output, conv3.output].map(bytes);
    let mut peak = x + (a1 + a2).max(a2 + a3);
    let mut layers = vec![conv1, conv2, conv3];
    if b.downsample {
        peak = peak.max(x + 2 * a3);
        layers.push(conv(&name("downsample.0"), input, b.cout, 1, b.stride, 0));
    }
    part(&b.name, layers, peak)
}

fn part(name: &str, layers: Vec<LayerCost>, peak_bytes: u64) -> PartCost {
    PartCost {
        name: name.into(),
        params: layers.iter().map(|l| l.params).sum(),
        macs: layers.iter().map(|l| l.macs).sum(),
        activation_bytes: layers.iter().map(|l| bytes(l.output)).sum(),
        peak_bytes,
        layers,
    }
}

fn conv(name: &str, input: [usize; 3], cout: usize, k: usize, stride: usize, pad: usize) -> LayerCost {
    let output = [cout, shrink(input[1], k, stride, pad), shrink(input[2], k, stride, pad)];
    let weights = (input[0] * cout * k * k) as u64;
    LayerCost {
        name: name.into(),
        params: weights + 2 * cout as u64,
        macs: weights * (output[1] * output[2]) as u64,
        output,
    }
}

fn shrink(n: usize, kernel: usize, stride: usize, pad: usize) -> usize {
    (n + 2 * pad - kernel) / stride + 1
}

fn bytes(shape: [usize; 3]) -> u64 {
    F32 * shape.iter().product::<usize>() as u64
}
