//! The pretrained backbone: a layout, its weights and the card that says how its images are prepared.
//!
//! *Reuse* of RRR-Net (arXiv 2310.01157). Any checkpoint of a bottleneck ResNet with torchvision's and timm's names
//! will do, whatever its prefix and file format; the layout is found from the tensors' shapes. The
//! old classifier is not read.
//!
//! Everything downstream is red-green-blue: weights for blue-green-red images are turned around when they are loaded
//! ([`Backbone::new`]).

mod reduced;
#[cfg(test)]
mod tests;
mod weights;

pub use reduced::{Header, ReducedBackbone, Repair};
pub use weights::{read_layout, read_weights};

use crate::arch::{ResNet, Split};
use crate::model::can_normalize;
use rrr_checkpoint::{Card, Checkpoint, ColorOrder, PullOptions, resolve};
use rrr_nn::State;
use std::path::PathBuf;
use weights::swap_red_and_blue;

/// A pretrained network, ready to be reduced and recycled.
#[derive(Clone, Debug, PartialEq)]
pub struct Backbone {
    /// The catalog's name, or the path as given.
    pub name: String,
    /// The full layout, whatever of it is still there.
    pub arch: ResNet,
    /// How many blocks of each stage are there, the first ones: all of them, unless the backbone has been reduced.
    pub kept: [usize; 4],
    /// The branches of a backbone that has been split already; `state` then ends where they begin.
    pub tail: Option<Tail>,
    /// Input convention, licence and source; always in red-green-blue order, as `state` is.
    pub card: Card,
    /// Every tensor of the kept blocks but the classifier's, by its standard name.
    pub state: State,
    /// What the user should know, such as why an alias led to its second choice.
    pub notes: Vec<String>,
}

/// Branches that do not depend on the number of classes.
#[derive(Clone, Debug, PartialEq)]
pub struct Tail {
    /// Where they begin.
    pub split: Split,
    /// Planes of each stage; those from the split's on are the branches'.
    pub planes: [usize; 4],
    /// Their tensors, without classifiers.
    pub branches: Vec<State>,
}

/// How to find a backbone.
#[derive(Default)]
pub struct BackboneOptions<'a> {
    /// Cache, network and progress.
    pub pull: PullOptions<'a>,
    /// Mean and standard deviation per channel in the order of the weights' channels, for values in 0..=1: instead of
    /// the card's, or for weights that have no card.
    pub normalize: Option<([f32; 3], [f32; 3])>,
}

impl Backbone {
    /// Finds the backbone `spec` (a name of the catalog, a file or a folder), downloading it where allowed, and reads
    /// it.
    ///
    /// # Errors
    /// [`BackboneError`] if it cannot be found or fetched, has no card, or is no bottleneck ResNet.
    pub fn load(spec: &str, options: &BackboneOptions<'_>) -> Result<Self, BackboneError> {
        if options.normalize.is_some_and(|(mean, std)| !can_normalize(&mean, &std)) {
            return Err(BackboneError::Normalize);
        }
        let found = resolve(spec, &options.pull)?;
        let checkpoint = Checkpoint::open(&found.weights)?;
        if let Some(reduced) = ReducedBackbone::read(&checkpoint)? {
            return Ok(reduced.into_backbone(found.name, options.normalize));
        }
        let card = match (options.normalize, &found.card) {
            (None, _) => found.require_card()?.clone(),
            (Some((mean, std)), Some(card)) => Card { mean, std, ..card.clone() },
            (Some((mean, std)), None) => Card::from_mean_std(mean, std),
        };
        let (arch, state) = read_weights(&checkpoint)?;
        Ok(Self { notes: found.notes, ..Self::new(found.name, arch, card, state) })
    }

    /// A backbone from its parts. If its card says blue-green-red, the input channels of `conv1` and the card's
    /// numbers are turned around.
    pub fn new(name: impl Into<String>, arch: ResNet, mut card: Card, mut state: State) -> Self {
        if card.color_order == ColorOrder::Bgr {
            swap_red_and_blue(&mut state);
            card.mean.reverse();
            card.std.reverse();
            card.color_order = ColorOrder::Rgb;
        }
        let kept = arch.blocks;
        Self { name: name.into(), arch, kept, tail: None, card, state, notes: Vec::new() }
    }
}

/// Why a backbone cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BackboneError {
    /// It cannot be found, fetched or read, or is no bottleneck ResNet.
    #[error(transparent)]
    Checkpoint(#[from] rrr_checkpoint::Error),
    /// A bottleneck ResNet whose channel counts follow another rule than ours.
    #[error("{} is no ResNet that can be cut into branches: {reason}", path.display())]
    Layout {
        /// The checkpoint.
        path: PathBuf,
        /// What is different.
        reason: String,
    },
    /// A given mean or standard deviation that no image can be normalised with.
    #[error("--mean must be finite numbers, --std finite numbers above 0")]
    Normalize,
    /// A reduced backbone whose header or weights make no sense.
    #[error("the reduced backbone {} is damaged: {reason}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
}
