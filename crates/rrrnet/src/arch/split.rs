//! Positions in a network.

use super::{ArchError, ResNet};
use serde::{Deserialize, Serialize};
use std::fmt;

/// Modules before `layer1.0` in the published numbering: `conv1`, `bn1`, `act1`, `maxpool`.
const FIRST_INDEX: usize = 4;

/// The block at which branches begin, for example `layer3.0`; ordered as the network is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Split {
    stage: usize,
    block: usize,
}

impl Split {
    /// Block `block` (from 0) of stage `stage` (from 1).
    ///
    /// # Panics
    /// If `stage` is not 1 to 4.
    pub fn new(stage: usize, block: usize) -> Self {
        assert!((1..=4).contains(&stage), "a ResNet has stages 1 to 4, not {stage}");
        Self { stage, block }
    }

    /// Stage, 1 to 4.
    pub fn stage(self) -> usize {
        self.stage
    }

    /// Block within the stage, from 0.
    pub fn block(self) -> usize {
        self.block
    }

    /// Reads a name (`layer3.0`) or a published index (`15`), which counts in the full network `backbone`.
    ///
    /// # Errors
    /// [`ArchError::SplitSyntax`] or [`ArchError::SplitIndex`].
    pub fn parse(text: &str, backbone: &ResNet) -> Result<Self, ArchError> {
        match text.parse() {
            Ok(index) => Self::from_index(index, backbone),
            Err(_) => text.parse(),
        }
    }

    /// The block with the published "divergence index": modules of the full network are counted from
    /// `conv1` = 0, so that `layer1.0` is 4. In ResNet-152, `layer3.0` is 15 and `layer4.0` is 51.
    ///
    /// # Errors
    /// [`ArchError::SplitIndex`] if that module is no block.
    pub fn from_index(index: usize, backbone: &ResNet) -> Result<Self, ArchError> {
        let count: usize = backbone.blocks.iter().sum();
        index.checked_sub(FIRST_INDEX).and_then(|i| backbone.positions().nth(i)).ok_or_else(|| {
            ArchError::SplitIndex {
                index,
                first: FIRST_INDEX,
                last: FIRST_INDEX + count - 1,
                name: backbone.name.clone(),
            }
        })
    }

    /// The published "divergence index" of this block; `backbone` is the full network, before it is reduced.
    pub fn index(self, backbone: &ResNet) -> usize {
        FIRST_INDEX + backbone.blocks[..self.stage - 1].iter().sum::<usize>() + self.block
    }
}

impl fmt::Display for Split {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "layer{}.{}", self.stage, self.block)
    }
}

impl std::str::FromStr for Split {
    type Err = ArchError;

    fn from_str(text: &str) -> Result<Self, ArchError> {
        let syntax = || ArchError::SplitSyntax { text: text.into() };
        let (stage, block) = text.strip_prefix("layer").and_then(|t| t.split_once('.')).ok_or_else(syntax)?;
        let stage = stage.parse().map_err(|_| syntax())?;
        let block = block.parse().map_err(|_| syntax())?;
        if (1..=4).contains(&stage) { Ok(Self { stage, block }) } else { Err(syntax()) }
    }
}

impl TryFrom<String> for Split {
    type Error = ArchError;

    fn try_from(text: String) -> Result<Self, ArchError> {
        text.parse()
    }
}

impl From<Split> for String {
    fn from(split: Split) -> Self {
        split.to_string()
    }
}
