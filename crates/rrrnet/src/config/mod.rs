//! What a training run does, down to the last number.
//!
//! [`Settings`] are what somebody asked for: a flag, a line of a TOML file, a recipe; every field may be
//! absent. [`Settings::resolve`] puts layers of them on top of each other (flags over `--config` file over recipe
//! over defaults) and checks the result, a [`TrainConfig`] without gaps, which the run directory keeps.

mod change;
mod check;
mod error;
mod recipe;
mod resolve;
#[cfg(test)]
mod tests;

pub use change::Change;
pub use error::ConfigError;
pub use recipe::{RECIPES, Recipe};
pub use resolve::DEFAULT_SPLIT;

use crate::compute::Precision;
use crate::named::named_enum;
use crate::recycle::Recycle;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

named_enum! {
    /// What is trained.
    pub enum Method {
        /// RRR-Net: the reduced backbone with its tail split into branches (method D).
        Rrr = "rrr",
        /// The reduced backbone with one tail of full width (method C).
        Reduced = "reduced",
        /// Classical fine-tuning of the whole backbone (method B).
        Finetune = "finetune",
        /// A linear probe: the whole backbone, only its classifier trained (method A).
        Probe = "probe",
        /// Fast geometric ensembling: copies of one branch along a cyclic learning rate.
        Fge = "fge",
    }
}

impl Method {
    /// Whether the backbone is reduced to a stem and a tail (as against used whole).
    pub fn is_reduced(self) -> bool {
        matches!(self, Self::Rrr | Self::Reduced | Self::Fge)
    }

    /// Whether the method has a stem that can be trained together with what follows it.
    pub fn trains_stem(self) -> bool {
        matches!(self, Self::Rrr | Self::Reduced)
    }

    /// Whether the method has a number of branches to choose.
    pub fn has_branches(self) -> bool {
        matches!(self, Self::Rrr | Self::Fge)
    }
}

/// As [`TrainConfig::teacher`]: one that is trained first, by fine-tuning the whole backbone on the same images by the
/// same recipe, and kept in the run's folder.
pub const TEACHER_AUTO: &str = "auto";

named_enum! {
    /// How the learning rate moves over the steps.
    pub enum ScheduleKind {
        /// The same at every step.
        Constant = "constant",
        /// From `lr` down to zero along half a cosine.
        Cosine = "cosine",
    }
}

named_enum! {
    /// What happens to a training image before the network sees it.
    pub enum Augmentation {
        /// Whichever of the others does best in short trainings on a part of the training images.
        Auto = "auto",
        /// Half of the images flipped, then a small shift and scaling.
        Light = "light",
        /// A small shift and scaling, nothing mirrored.
        Shift = "shift",
        /// `shift` or `paper`, for every image anew.
        Mixed = "mixed",
        /// Two of the paper's twelve operations, drawn at random.
        Paper = "paper",
        /// Resizing only.
        None = "none",
    }
}

named_enum! {
    /// How images are brought to the network's square input.
    pub enum ResizeFilter {
        /// Bilinear over every source pixel, as Pillow and torchvision do it.
        Antialias = "antialias",
        /// Bilinear between the four nearest source pixels, as OpenCV and the published experiments do it.
        Bilinear = "bilinear",
    }
}

named_enum! {
    /// Which weights become the model.
    pub enum Select {
        /// Those at the end of training.
        Last = "last",
        /// Those with the best accuracy on the validation split.
        Best = "best",
    }
}

/// One layer of settings; absent fields are left to the layer below.
///
/// Field names are the keys of `--config` files and recipes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// See [`TrainConfig::data`].
    pub data: Option<PathBuf>,
    /// See [`TrainConfig::image_column`].
    pub image_column: Option<String>,
    /// See [`TrainConfig::label_column`].
    pub label_column: Option<String>,
    /// See [`TrainConfig::method`].
    pub method: Option<Method>,
    /// Name of the recipe that gives the settings nobody gave.
    pub recipe: Option<String>,
    /// See [`TrainConfig::backbone`].
    pub backbone: Option<String>,
    /// See [`TrainConfig::mean`].
    pub mean: Option<[f64; 3]>,
    /// See [`TrainConfig::std`].
    pub std: Option<[f64; 3]>,
    /// See [`TrainConfig::init`].
    pub init: Option<PathBuf>,
    /// See [`TrainConfig::teacher`].
    pub teacher: Option<PathBuf>,
    /// See [`TrainConfig::teacher_share`].
    pub teacher_share: Option<f64>,
    /// See [`TrainConfig::teacher_temperature`].
    pub teacher_temperature: Option<f64>,
    /// See [`TrainConfig::blocks`].
    pub blocks: Option<Vec<usize>>,
    /// See [`TrainConfig::split`].
    pub split: Option<String>,
    /// See [`TrainConfig::branches`].
    pub branches: Option<usize>,
    /// See [`TrainConfig::coarse_branches`].
    pub coarse_branches: Option<usize>,
    /// See [`TrainConfig::round_to`].
    pub round_to: Option<usize>,
    /// See [`TrainConfig::budget`].
    pub budget: Option<Vec<usize>>,
    /// See [`TrainConfig::recycle`].
    pub recycle: Option<Recycle>,
    /// See [`TrainConfig::train_per_class`].
    pub train_per_class: Option<usize>,
    /// See [`TrainConfig::val_per_class`].
    pub val_per_class: Option<usize>,
    /// See [`TrainConfig::test_per_class`].
    pub test_per_class: Option<usize>,
    /// See [`TrainConfig::val_fraction`].
    pub val_fraction: Option<f64>,
    /// See [`TrainConfig::test_fraction`].
    pub test_fraction: Option<f64>,
    /// See [`TrainConfig::epochs`].
    pub epochs: Option<usize>,
    /// See [`TrainConfig::batch_size`].
    pub batch_size: Option<usize>,
    /// See [`TrainConfig::lr`].
    pub lr: Option<f64>,
    /// See [`TrainConfig::stem_lr`].
    pub stem_lr: Option<f64>,
    /// See [`TrainConfig::weight_decay`].
    pub weight_decay: Option<f64>,
    /// See [`TrainConfig::label_smoothing`].
    pub label_smoothing: Option<f64>,
    /// See [`TrainConfig::schedule`].
    pub schedule: Option<ScheduleKind>,
    /// See [`TrainConfig::ema_epochs`].
    pub ema_epochs: Option<usize>,
    /// See [`TrainConfig::ema_decay`].
    pub ema_decay: Option<f64>,
    /// See [`TrainConfig::warm_passes`].
    pub warm_passes: Option<usize>,
    /// See [`TrainConfig::augmentation`].
    pub augmentation: Option<Augmentation>,
    /// See [`TrainConfig::image_size`].
    pub image_size: Option<usize>,
    /// See [`TrainConfig::resize`].
    pub resize: Option<ResizeFilter>,
    /// See [`TrainConfig::independent_batches`].
    pub independent_batches: Option<bool>,
    /// See [`TrainConfig::seed`].
    pub seed: Option<u64>,
    /// See [`TrainConfig::threads`].
    pub threads: Option<usize>,
    /// See [`TrainConfig::precision`].
    pub precision: Option<Precision>,
    /// See [`TrainConfig::checkpoint_every`].
    pub checkpoint_every: Option<usize>,
    /// See [`TrainConfig::select`].
    pub select: Option<Select>,
    /// See [`TrainConfig::skip_bad`].
    pub skip_bad: Option<bool>,
    /// See [`TrainConfig::memory_budget_mib`].
    pub memory_budget_mib: Option<u64>,
}

/// A complete training configuration.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainConfig {
    /// The dataset: a folder of class folders, a Meta-Album folder, or a CSV/TSV of path and label.
    pub data: PathBuf,
    /// Column of a table that names the images, where its header does not tell.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image_column: Option<String>,
    /// Column of a table that names the classes, where its header does not tell.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label_column: Option<String>,
    /// What is trained.
    pub method: Method,
    /// The recipe that filled the gaps.
    pub recipe: String,
    /// Catalog name, file or folder of the pretrained backbone.
    pub backbone: String,
    /// Mean per channel, for a backbone without a card.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mean: Option<[f64; 3]>,
    /// Standard deviation per channel, for a backbone without a card.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub std: Option<[f64; 3]>,
    /// A model to start from, a run or a file: its tensors replace those of the same name and shape.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub init: Option<PathBuf>,
    /// A model trained on the same images, a run or a file, whose probabilities are learnt beside the labels; or
    /// [`TEACHER_AUTO`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub teacher: Option<PathBuf>,
    /// Weight of the teacher in the loss, in (0, 1]; the labels have the rest. Absent without a teacher.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub teacher_share: Option<f64>,
    /// What logits are divided by where the teacher is learnt from. Absent likewise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub teacher_temperature: Option<f64>,
    /// Blocks kept of each of the four stages, as far as the backbone has them; absent where the method uses the whole backbone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub blocks: Option<[usize; 4]>,
    /// Where the branches begin: a block such as `layer3.0`, or its published index; absent likewise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub split: Option<String>,
    /// Number of branches, or of copies for `fge`; absent where the method has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub branches: Option<usize>,
    /// How many of the branches, the first ones, see the images at half of `image_size`.
    #[serde(default, skip_serializing_if = "crate::named::is_default")]
    pub coarse_branches: usize,
    /// Branch widths are multiples of this where given (hardware-friendly plans).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub round_to: Option<usize>,
    /// Blocks of each stage of the network whose parameters stem and branches together must not exceed; where absent
    /// the branches have as many as the one-branch tail of `blocks`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub budget: Option<[usize; 4]>,
    /// How branches get their filters; absent where the backbone is used whole.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recycle: Option<Recycle>,
    /// Training images per class; the rest where absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub train_per_class: Option<usize>,
    /// Validation images per class.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub val_per_class: Option<usize>,
    /// Test images per class.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub test_per_class: Option<usize>,
    /// Share of each class that is validation, in [0, 1).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub val_fraction: Option<f64>,
    /// Share of each class that is test, in [0, 1).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub test_fraction: Option<f64>,
    /// Passes over the training images.
    pub epochs: usize,
    /// Images per optimiser step; the last batch of an epoch may be smaller.
    pub batch_size: usize,
    /// Learning rate of AdamW (at the start, where the schedule moves it).
    pub lr: f64,
    /// Learning rate of the stem as a share of `lr`; at 0 it is frozen, as published.
    #[serde(default, skip_serializing_if = "crate::named::is_default")]
    pub stem_lr: f64,
    /// Decoupled weight decay.
    pub weight_decay: f64,
    /// Label smoothing of the cross-entropy, in [0, 1).
    pub label_smoothing: f64,
    /// How the learning rate moves.
    pub schedule: ScheduleKind,
    /// The exponential moving average runs over this many last epochs; 0 for none. The paper's is 60 of
    /// 300; where nothing is said it is the recipe's share of the epochs, else a fifth, rounded up.
    pub ema_epochs: usize,
    /// Decay target of the exponential moving average.
    pub ema_decay: f64,
    /// Passes over the augmented training images that set the batch-norm statistics of the frozen stem.
    pub warm_passes: usize,
    /// Augmentation policy.
    pub augmentation: Augmentation,
    /// Side of the square images that the network sees, in pixels.
    pub image_size: usize,
    /// How images are brought to that size.
    pub resize: ResizeFilter,
    /// Every branch draws its own shuffled and augmented batches, as in the published code.
    pub independent_batches: bool,
    /// Seed of everything random: splits, shuffling, augmentation, filter selection, initial classifier.
    pub seed: u64,
    /// Threads, all of the machine's where absent. Never changes a result.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub threads: Option<usize>,
    /// Number format of matrix products, never `auto`: a run is continued as it was begun.
    #[serde(default = "f32_precision")]
    pub precision: Precision,
    /// Epochs between checkpoints, which are also written every minute (less often where writing takes long); 0 to
    /// save only when interrupted and at the end.
    pub checkpoint_every: usize,
    /// Which weights become the model.
    pub select: Select,
    /// Leave unreadable images out instead of stopping.
    pub skip_bad: bool,
    /// Decoded images are kept in memory up to this size; beyond it they are read again every epoch.
    pub memory_budget_mib: u64,
}

/// The precision of runs that do not say.
fn f32_precision() -> Precision {
    Precision::F32
}

impl TrainConfig {
    /// Number of branches of the finished model.
    pub fn branch_count(&self) -> usize {
        self.branches.unwrap_or(1)
    }

    /// Reads a resolved configuration, as a run directory keeps it.
    ///
    /// # Errors
    /// [`ConfigError`] if the file cannot be read, is not a complete configuration, or has values that make no sense.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let config: Self = recipe::parse_file(path)?;
        config.check_file(&Settings::read(path)?, path)?;
        Ok(config)
    }

    /// The configuration as TOML, with every key that a recipe may set.
    pub fn to_toml(&self) -> String {
        let plain = "a configuration is plain values, checked to fit TOML";
        let mut text = toml::to_string(self).expect(plain);
        // Serde leaves these out at zero, on which the hashes of suites rest; as settings they would then be the recipe's.
        if self.coarse_branches == 0 {
            text.push_str("coarse_branches = 0\n");
        }
        if self.stem_lr == 0.0 {
            text.push_str("stem_lr = 0.0\n");
        }
        text
    }
}

impl Settings {
    /// Reads a `--config` file.
    ///
    /// # Errors
    /// [`ConfigError`] if it cannot be read or has an unknown key or a value of the wrong kind.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        recipe::parse_file(path)
    }
}
