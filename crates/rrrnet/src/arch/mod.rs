//! Bottleneck ResNets without weights: layouts, positions, and the networks cut out of them.
//!
//! The networks behind *reuse* and *reduce* in RRR-Net (arXiv 2310.01157). A [`ResNet`] is a layout; it makes the
//! specifications that the compute core runs: the full network ([`ResNet::full_net`]), the reduced one (the
//! same of [`ResNet::reduced`]) and the one that is split into branches at a [`Split`] ([`ResNet::split_net`]).
//!
//! A bottleneck is 1x1 (in -> width), 3x3 (width -> width, carries the stride: the "v1.5" form of torchvision
//! and timm), 1x1 (width -> 4 x planes). A block whose input and output differ in size or channels has a 1x1
//! convolution on its skip path.

mod split;
#[cfg(test)]
mod tests;

pub use split::Split;

use rrr_nn::{BlockSpec, NetSpec, SequenceSpec};
use serde::{Deserialize, Serialize};

/// Output channels of a bottleneck per plane.
pub const EXPANSION: usize = 4;

/// The layout of a bottleneck ResNet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ResNet {
    /// What people call it, for example `resnet152`.
    pub name: String,
    /// Output channels of `conv1`; 64 in the published networks.
    pub stem: usize,
    /// Bottlenecks of `layer1` to `layer4`.
    pub blocks: [usize; 4],
    /// Planes of each stage: a quarter of its output channels.
    pub planes: [usize; 4],
    /// The 3x3 convolutions have `planes * base_width / 64` channels; 64 but for the wide variants (128).
    pub base_width: usize,
}

/// Why a layout or a position cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ArchError {
    /// No layout of that name is built in.
    #[error("unknown architecture {name:?}; hint: one of {}", ResNet::NAMES.join(", "))]
    UnknownName {
        /// As given.
        name: String,
    },
    /// A stage would keep no block, or more than it has.
    #[error(
        "layer{stage} cannot keep {kept} blocks: {name} has {available} there; hint: give 1 to {available}"
    )]
    Blocks {
        /// 1 to 4.
        stage: usize,
        /// Blocks asked for.
        kept: usize,
        /// Blocks in the layout.
        available: usize,
        /// The layout.
        name: String,
    },
    /// Text that is neither a block's name nor a number.
    #[error("{text:?} is no block; hint: name a stage and a block, as in layer3.0, or give its index")]
    SplitSyntax {
        /// As given.
        text: String,
    },
    /// A published index that is no block's.
    #[error("index {index} is no block of {name}; hint: its blocks are {first} to {last}")]
    SplitIndex {
        /// As given.
        index: usize,
        /// Index of `layer1.0`.
        first: usize,
        /// Index of the last block of `layer4`.
        last: usize,
        /// The layout.
        name: String,
    },
    /// The branches would begin at a block that the reduced network does not have.
    #[error(
        "the branches cannot begin at {split}: only {kept} of that stage's blocks are kept; hint: keep more \
         blocks of layer{stage} or split at layer{stage}.0"
    )]
    SplitNotKept {
        /// As given.
        split: Split,
        /// 1 to 4.
        stage: usize,
        /// Blocks that the stage keeps.
        kept: usize,
    },
}

/// `blocks` of each stage, as far as so many are `available`.
pub fn at_most(blocks: [usize; 4], available: [usize; 4]) -> [usize; 4] {
    std::array::from_fn(|i| blocks[i].min(available[i]))
}

/// The blocks of each stage as flags take them, such as `1,1,1,1`.
pub fn blocks_text(blocks: [usize; 4]) -> String {
    blocks.map(|n| n.to_string()).join(",")
}

impl ResNet {
    /// Names that [`by_name`](Self::by_name) knows.
    pub const NAMES: [&str; 5] =
        ["resnet50", "resnet101", "resnet152", "wide_resnet50_2", "wide_resnet101_2"];

    /// A layout with the published channel counts: stem 64, planes 64, 128, 256, 512.
    pub fn standard(name: impl Into<String>, blocks: [usize; 4], base_width: usize) -> Self {
        Self { name: name.into(), stem: 64, blocks, planes: [64, 128, 256, 512], base_width }
    }

    /// 50 layers.
    pub fn resnet50() -> Self {
        Self::standard("resnet50", [3, 4, 6, 3], 64)
    }

    /// 101 layers.
    pub fn resnet101() -> Self {
        Self::standard("resnet101", [3, 4, 23, 3], 64)
    }

    /// 152 layers: the paper's backbone.
    pub fn resnet152() -> Self {
        Self::standard("resnet152", [3, 8, 36, 3], 64)
    }

    /// A built-in layout; timm's suffix of the weights (`resnet152.a1h_in1k`) is ignored.
    ///
    /// # Errors
    /// [`ArchError::UnknownName`] lists the names.
    pub fn by_name(name: &str) -> Result<Self, ArchError> {
        match name.split('.').next().unwrap_or_default() {
            "resnet50" => Ok(Self::resnet50()),
            "resnet101" => Ok(Self::resnet101()),
            "resnet152" => Ok(Self::resnet152()),
            "wide_resnet50_2" => Ok(Self::standard("wide_resnet50_2", [3, 4, 6, 3], 128)),
            "wide_resnet101_2" => Ok(Self::standard("wide_resnet101_2", [3, 4, 23, 3], 128)),
            _ => Err(ArchError::UnknownName { name: name.into() }),
        }
    }

    /// Channels of the 3x3 convolution of a bottleneck with `planes` planes, at least 1.
    pub fn width(&self, planes: usize) -> usize {
        (planes * self.base_width / 64).max(1)
    }

    /// The layout that keeps the first `blocks[i]` blocks of stage `i + 1`.
    ///
    /// # Errors
    /// [`ArchError::Blocks`] if a stage would keep none or more than there are.
    pub fn reduced(&self, blocks: [usize; 4]) -> Result<Self, ArchError> {
        for (i, (&kept, &available)) in blocks.iter().zip(&self.blocks).enumerate() {
            if kept == 0 || kept > available {
                return Err(ArchError::Blocks { stage: i + 1, kept, available, name: self.name.clone() });
            }
        }
        Ok(Self { blocks, ..self.clone() })
    }

    /// All layers from `conv1` to the last block, then pooling and a classifier if `classes` is given.
    pub fn sequence(&self, classes: Option<usize>) -> SequenceSpec {
        let blocks = self.run_of_blocks(Split::new(1, 0), None, self.stem, &self.planes);
        SequenceSpec { conv1: Some(self.stem), blocks, classes }
    }

    /// The whole network as one branch with an empty stem: everything can be trained.
    pub fn full_net(&self, classes: usize) -> NetSpec {
        NetSpec {
            stem: SequenceSpec::default(),
            branches: 1,
            branch: self.sequence(Some(classes)),
            coarse: 0,
        }
    }

    /// A stem up to the block `at` (excluded) with this layout's widths, then `branches` branches from there
    /// on, with `planes` planes in each stage (the entries of stages before the split are not used).
    ///
    /// # Errors
    /// [`ArchError::SplitNotKept`] if the block is not part of this layout.
    pub fn split_net(
        &self,
        at: Split,
        branches: usize,
        planes: &[usize; 4],
        classes: usize,
    ) -> Result<NetSpec, ArchError> {
        let kept = self.blocks[at.stage() - 1];
        if at.block() >= kept {
            return Err(ArchError::SplitNotKept { split: at, stage: at.stage(), kept });
        }
        let stem = SequenceSpec {
            conv1: Some(self.stem),
            blocks: self.run_of_blocks(Split::new(1, 0), Some(at), self.stem, &self.planes),
            classes: None,
        };
        let mut blocks = self.run_of_blocks(at, None, stem.features(), planes);
        // A thinner branch leaves the stem's residual stream, even where the channel counts happen to agree.
        blocks[0].downsample |= planes[at.stage() - 1] != self.planes[at.stage() - 1];
        let branch = SequenceSpec { conv1: None, blocks, classes: Some(classes) };
        Ok(NetSpec { stem, branches, branch, coarse: 0 })
    }

    /// The blocks `from` (included) to `to` (excluded; `None`: to the end), fed with `cin` channels.
    fn run_of_blocks(
        &self,
        from: Split,
        to: Option<Split>,
        mut cin: usize,
        planes: &[usize; 4],
    ) -> Vec<BlockSpec> {
        let mut out = Vec::new();
        for at in self.positions().filter(|&at| at >= from && to.is_none_or(|to| at < to)) {
            let p = planes[at.stage() - 1];
            let cout = EXPANSION * p;
            let stride = if at.block() == 0 && at.stage() > 1 { 2 } else { 1 };
            out.push(BlockSpec {
                name: at.to_string(),
                cin,
                width: self.width(p),
                cout,
                stride,
                downsample: stride != 1 || cin != cout,
            });
            cin = cout;
        }
        out
    }

    /// Every block of the layout, first to last.
    pub fn positions(&self) -> impl Iterator<Item = Split> {
        let blocks = self.blocks;
        (1..=4).flat_map(move |stage| (0..blocks[stage - 1]).map(move |block| Split::new(stage, block)))
    }
}
