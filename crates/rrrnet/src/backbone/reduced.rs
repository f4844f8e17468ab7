//! Reduced backbones in files: what `rrr reduce` writes and `--backbone` takes.
//!
//! The file is safetensors: tensors `stem.NAME` and `branches.I.NAME` with timm's names, and a JSON header with layout,
//! card and provenance under the metadata key `rrrnet.backbone`. Branch widths are fixed in it, whatever the number of
//! classes that will be trained; there is no classifier.

use super::{Backbone, BackboneError, Tail};
use crate::arch::{ResNet, Split};
use crate::model::MAX_BRANCHES;
use crate::tensors::{Bundle, read_state, read_states};
use rrr_checkpoint::{Card, Checkpoint};
use rrr_nn::{NetSpec, NetState, SequenceSpec};
use serde::{Deserialize, Serialize};
use std::path::Path;

const KEY: &str = "rrrnet.backbone";
const VERSION: u32 = 1;

/// A backbone that was reduced, and perhaps split and repaired.
#[derive(Clone, Debug, PartialEq)]
pub struct ReducedBackbone {
    /// Layout, card and provenance.
    pub header: Header,
    /// Stem and branches, without classifiers.
    pub state: NetState,
}

/// What the file says about its weights.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Header {
    version: u32,
    /// Version of rrrnet that made it.
    pub rrrnet: String,
    /// Layout of the full backbone.
    pub backbone: ResNet,
    /// Blocks kept of each stage.
    pub blocks: [usize; 4],
    /// Where the branches begin.
    pub split: Split,
    /// Number of branches.
    pub branches: usize,
    /// Planes of each stage; those from the split's on are the branches'.
    pub planes: [usize; 4],
    /// Input convention, licence and source of the weights it was made from.
    pub card: Card,
    /// How it was repaired, if it was.
    pub repair: Option<Repair>,
}

/// How a reduced backbone was repaired.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Repair {
    /// Pictures that it learned from.
    pub pictures: usize,
    /// Crops of them.
    pub crops: usize,
    /// Side in pixels of the crops as it saw them.
    pub image_size: usize,
    /// Side in pixels of the crops as the full backbone saw them.
    pub teacher_size: usize,
    /// Passes over the crops before the split and after it.
    pub epochs: [usize; 2],
    /// Seed of everything random.
    pub seed: u64,
    /// Squared error of the full backbone's pooled features on crops of other pictures, mean over the branches, as a
    /// share of their variance: when the repair began and at its end.
    pub error: [f64; 2],
}

impl Header {
    /// The header of weights made by this version.
    pub fn new(
        backbone: ResNet,
        blocks: [usize; 4],
        split: Split,
        branches: usize,
        planes: [usize; 4],
        card: Card,
    ) -> Self {
        let rrrnet = env!("CARGO_PKG_VERSION").into();
        Self { version: VERSION, rrrnet, backbone, blocks, split, branches, planes, card, repair: None }
    }

    /// The network without classifiers.
    fn spec(&self) -> Result<NetSpec, String> {
        if self.branches == 0 || self.branches > MAX_BRANCHES {
            return Err(format!("{} branches make no sense", self.branches));
        }
        let wrong = |(&q, &p): (&usize, &usize)| q == 0 || q > p || p > 1 << 16;
        if self.planes.iter().zip(&self.backbone.planes).any(wrong) {
            return Err(format!("planes of {:?} make no sense", self.planes));
        }
        let net = &self.backbone;
        if net.blocks.iter().any(|&b| b > 1 << 10) || net.stem > 1 << 16 || net.base_width > 1 << 12 {
            return Err("its layout makes no sense".into());
        }
        let net = net.reduced(self.blocks).map_err(|e| e.to_string())?;
        let spec = net.split_net(self.split, self.branches, &self.planes, 1).map_err(|e| e.to_string())?;
        Ok(NetSpec { branch: SequenceSpec { classes: None, ..spec.branch }, ..spec })
    }
}

impl ReducedBackbone {
    /// Writes the file, atomically.
    ///
    /// # Errors
    /// [`rrr_checkpoint::Error`] if it cannot be written.
    pub fn save(&self, path: &Path) -> Result<(), rrr_checkpoint::Error> {
        let mut bundle = Bundle::default();
        bundle.add("stem.", &self.state.stem);
        bundle.add_all("branches.", &self.state.branches);
        bundle.write(path, KEY, serde_json::to_string(&self.header).expect("a header is plain values"))
    }

    /// Reads a reduced backbone; `None` if the checkpoint is something else.
    ///
    /// # Errors
    /// [`BackboneError::Damaged`] if it says that it is one but cannot be.
    pub fn read(checkpoint: &Checkpoint) -> Result<Option<Self>, BackboneError> {
        let Some(text) = checkpoint.metadata().get(KEY) else { return Ok(None) };
        let damaged = |reason: String| BackboneError::Damaged { path: checkpoint.path().into(), reason };
        let header: Header = serde_json::from_str(text).map_err(|e| damaged(e.to_string()))?;
        if header.version != VERSION {
            let found = header.version;
            return Err(damaged(format!("its format is {found}, this version reads {VERSION}")));
        }
        let spec = header.spec().map_err(damaged)?;
        let state = NetState {
            stem: read_state(checkpoint, "stem.", &spec.stem, false)?,
            branches: read_states(checkpoint, "branches.", spec.branches, &spec.branch, false)?,
        };
        state.check(&spec).map_err(|e| damaged(e.to_string()))?;
        Ok(Some(Self { header, state }))
    }

    /// A backbone to train with: split if this one is, else whole up to its last kept block.
    pub(super) fn into_backbone(self, name: String, normalize: Option<([f32; 3], [f32; 3])>) -> Backbone {
        let Self { header, state: NetState { stem: mut state, mut branches } } = self;
        let tail = if branches.len() == 1 {
            state.extend(branches.pop().unwrap_or_default());
            None
        } else {
            Some(Tail { split: header.split, planes: header.planes, branches })
        };
        let card = match normalize {
            Some((mean, std)) => Card { mean, std, ..header.card },
            None => header.card,
        };
        let (arch, kept) = (header.backbone, header.blocks);
        Backbone { name, arch, kept, tail, card, state, notes: Vec::new() }
    }
}
