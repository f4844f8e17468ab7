//! What a network is made of, without weights.

use std::ops::Range;

/// A bottleneck block: 1x1 (`cin` -> `width`), 3x3 (`width` -> `width`, `stride`), 1x1 (`width` -> `cout`),
/// each with a batch norm, and a skip path with its own 1x1 convolution and batch norm if `downsample`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockSpec {
    /// State-dict prefix, for example `layer3.0`.
    pub name: String,
    /// Input channels.
    pub cin: usize,
    /// Channels of the 3x3 convolution.
    pub width: usize,
    /// Output channels, 4 x planes.
    pub cout: usize,
    /// Stride of the 3x3 convolution and of the skip path.
    pub stride: usize,
    /// Whether the skip path has a 1x1 convolution; without it `cin == cout` and `stride == 1`.
    pub downsample: bool,
}

/// A run of layers: optionally `conv1`, `bn1`, ReLU and max-pool; blocks; optionally pool and classifier.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SequenceSpec {
    /// Output channels of the 7x7/2 convolution, if the sequence begins with one.
    pub conv1: Option<usize>,
    /// The blocks, in order.
    pub blocks: Vec<BlockSpec>,
    /// Number of classes, if the sequence ends with global average pooling and `fc`.
    pub classes: Option<usize>,
}

/// A whole network: `branches` copies of `branch`, all fed by one `stem`.
///
/// The stem may be empty (methods A and B: the branch then begins with `conv1`). A branch always ends with
/// a classifier.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetSpec {
    /// Runs once per image; frozen in training.
    pub stem: SequenceSpec,
    /// Number of branches, at least 1.
    pub branches: usize,
    /// Architecture of each branch.
    pub branch: SequenceSpec,
    /// How many of the branches, the first ones, see the images at half their height and width (means of 2 x 2
    /// pixels; a last odd line or column is left out). A stem then runs once for either size.
    pub coarse: usize,
}

/// Branches that see the images at one size.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BranchGroup {
    /// Which ones.
    pub branches: Range<usize>,
    /// Whether they see them at half the size.
    pub halved: bool,
}

impl NetSpec {
    /// Coarse branches, then the others; those of the two groups that have any.
    pub fn groups(&self) -> impl Iterator<Item = BranchGroup> + use<> {
        let coarse = BranchGroup { branches: 0..self.coarse, halved: true };
        let fine = BranchGroup { branches: self.coarse..self.branches, halved: false };
        [coarse, fine].into_iter().filter(|group| !group.branches.is_empty())
    }
}

/// Name, shape and role of one tensor of a sequence's state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParamSpec {
    /// timm / torchvision state-dict name.
    pub name: String,
    /// PyTorch's shape.
    pub shape: Vec<usize>,
    /// False for batch-norm running statistics.
    pub trainable: bool,
}

impl SequenceSpec {
    /// Every tensor of the sequence, in network order: `conv.weight`, then `bn.weight`, `bn.bias`,
    /// `bn.running_mean`, `bn.running_var`, ..., `fc.weight`, `fc.bias`.
    pub fn params(&self) -> Vec<ParamSpec> {
        let mut out = Vec::new();
        if let Some(c) = self.conv1 {
            push_conv_bn(&mut out, "conv1", "bn1", vec![c, 3, 7, 7]);
        }
        for b in &self.blocks {
            let p = &b.name;
            push_conv_bn(&mut out, &format!("{p}.conv1"), &format!("{p}.bn1"), vec![b.width, b.cin, 1, 1]);
            push_conv_bn(&mut out, &format!("{p}.conv2"), &format!("{p}.bn2"), vec![b.width, b.width, 3, 3]);
            push_conv_bn(&mut out, &format!("{p}.conv3"), &format!("{p}.bn3"), vec![b.cout, b.width, 1, 1]);
            if b.downsample {
                let d = format!("{p}.downsample");
                push_conv_bn(&mut out, &format!("{d}.0"), &format!("{d}.1"), vec![b.cout, b.cin, 1, 1]);
            }
        }
        if let Some(classes) = self.classes {
            let features = self.features();
            out.push(ParamSpec { name: "fc.weight".into(), shape: vec![classes, features], trainable: true });
            out.push(ParamSpec { name: "fc.bias".into(), shape: vec![classes], trainable: true });
        }
        out
    }

    /// Channels that the sequence puts out (before the classifier).
    ///
    /// Zero for an empty sequence.
    pub fn features(&self) -> usize {
        self.blocks.last().map(|b| b.cout).or(self.conv1).unwrap_or(0)
    }
}

fn push_conv_bn(out: &mut Vec<ParamSpec>, conv: &str, bn: &str, shape: Vec<usize>) {
    let channels = shape[0];
    out.push(ParamSpec { name: format!("{conv}.weight"), shape, trainable: true });
    for (suffix, trainable) in
        [("weight", true), ("bias", true), ("running_mean", false), ("running_var", false)]
    {
        out.push(ParamSpec { name: format!("{bn}.{suffix}"), shape: vec![channels], trainable });
    }
}
