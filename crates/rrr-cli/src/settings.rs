//! The flags that set a training up; each has the name of its key in a configuration file.

use crate::args::positive;
use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use rrrnet::compute::Precision;
use rrrnet::config::{Augmentation, Method, ResizeFilter, ScheduleKind, Select, Settings};
use rrrnet::recycle::Recycle;
use std::path::PathBuf;

/// A parser for an enumeration of the library, by the names it has in configuration files.
macro_rules! named {
    ($type:ty) => {
        PossibleValuesParser::new(<$type>::NAMES).map(|name| name.parse::<$type>().expect("a listed name"))
    };
}

#[derive(Debug, Args)]
#[group(id = "settings", multiple = true)]
pub struct SettingsArgs {
    /// What to train: branches, the reduced network as one, the whole backbone, only its classifier, or copies
    /// along a cyclic learning rate [default: rrr]
    #[arg(long, value_parser = named!(Method), help_heading = "Method")]
    pub method: Option<Method>,
    /// Pretrained backbone: a name of the catalog, a file or a folder [default: resnet152]
    #[arg(long, value_name = "NAME", help_heading = "Method")]
    pub backbone: Option<String>,
    /// Mean of each input channel in 0..1, for a backbone without a card
    #[arg(long, value_name = "R,G,B", value_parser = three, requires = "std", help_heading = "Method")]
    pub mean: Option<[f64; 3]>,
    /// Standard deviation of each input channel, likewise
    #[arg(long, value_name = "R,G,B", value_parser = three, requires = "mean", help_heading = "Method")]
    pub std: Option<[f64; 3]>,
    /// Model to start from, a run or a file: its tensors replace those of the same name and shape
    #[arg(long, value_name = "MODEL", help_heading = "Method")]
    pub init: Option<PathBuf>,
    /// Blocks kept of each stage, as far as the backbone has them [default: by recipe; 1,1,1,1 with --split]
    #[arg(long, value_name = "N,N,N,N", value_delimiter = ',', help_heading = "Method")]
    pub blocks: Option<Vec<usize>>,
    /// Block at which branches begin, or its published index [default: layer3.0]
    #[arg(long, value_name = "BLOCK", help_heading = "Method")]
    pub split: Option<String>,
    /// Number of branches [default: 8]
    #[arg(long, value_name = "N", value_parser = positive, help_heading = "Method")]
    pub branches: Option<usize>,
    /// How many of the branches see the images at half their size [default: by recipe]
    #[arg(long, value_name = "N", help_heading = "Method")]
    pub coarse_branches: Option<usize>,
    /// Blocks of a network whose parameters stem and branches together must not exceed, such as 1,1,1,1: branches become
    /// thinner where the stem has more blocks
    #[arg(long, value_name = "N,N,N,N", value_delimiter = ',', help_heading = "Method")]
    pub budget: Option<Vec<usize>>,
    /// Make branch widths multiples of this, within the same budget
    #[arg(long, value_name = "N", value_parser = positive, help_heading = "Method")]
    pub round_to: Option<usize>,
    /// How branches get their pretrained filters [default: by recipe]
    #[arg(long, value_parser = PossibleValuesParser::new(["paper", "coherent"]).map(|n| n.parse::<Recycle>().expect("a listed name")), help_heading = "Method")]
    pub recycle: Option<Recycle>,

    /// Column of a table that names the images
    #[arg(long, value_name = "NAME", help_heading = "Data")]
    pub image_column: Option<String>,
    /// Column of a table that names the classes
    #[arg(long, value_name = "NAME", help_heading = "Data")]
    pub label_column: Option<String>,
    /// Training images per class; the rest is test
    #[arg(long, value_name = "N", value_parser = positive, help_heading = "Data")]
    pub train_per_class: Option<usize>,
    /// Validation images per class
    #[arg(long, value_name = "N", help_heading = "Data", conflicts_with = "val_fraction")]
    pub val_per_class: Option<usize>,
    /// Test images per class
    #[arg(long, value_name = "N", help_heading = "Data", conflicts_with = "test_fraction")]
    pub test_per_class: Option<usize>,
    /// Share of each class that is validation
    #[arg(long, value_name = "SHARE", help_heading = "Data")]
    pub val_fraction: Option<f64>,
    /// Share of each class that is test
    #[arg(long, value_name = "SHARE", help_heading = "Data")]
    pub test_fraction: Option<f64>,
    /// Side of the square images that the network sees, in pixels [default: by recipe]
    #[arg(long, value_name = "PIXELS", value_parser = positive, help_heading = "Data")]
    pub image_size: Option<usize>,
    /// How images are brought to that size [default: by recipe]
    #[arg(long, value_parser = named!(ResizeFilter), help_heading = "Data")]
    pub resize: Option<ResizeFilter>,
    /// What happens to training images [default: by recipe]
    #[arg(long, value_parser = named!(Augmentation), help_heading = "Data")]
    pub augmentation: Option<Augmentation>,
    /// Leave unreadable images out instead of stopping
    #[arg(long, help_heading = "Data")]
    pub skip_bad: bool,
    /// Memory for decoded images, in MiB; beyond it they are read again every epoch [default: 2048]
    #[arg(long, value_name = "MIB", help_heading = "Data")]
    pub memory_budget_mib: Option<u64>,

    /// Named settings for everything that is not given [default: fast]
    #[arg(long, value_parser = PossibleValuesParser::new(rrrnet::config::RECIPES.iter().map(|(name, _)| *name)), help_heading = "Training")]
    pub recipe: Option<String>,
    /// Passes over the training images
    #[arg(long, value_name = "N", value_parser = positive, help_heading = "Training")]
    pub epochs: Option<usize>,
    /// Images per step [default: 32]
    #[arg(long, value_name = "N", value_parser = positive, help_heading = "Training")]
    pub batch_size: Option<usize>,
    /// Learning rate of AdamW
    #[arg(long, value_name = "RATE", help_heading = "Training")]
    pub lr: Option<f64>,
    /// Learning rate of the stem as a share of that; 0 keeps it frozen [default: by recipe]
    #[arg(long, value_name = "SHARE", help_heading = "Training")]
    pub stem_lr: Option<f64>,
    /// Learn from this model too, a run or a file trained on the same images, such as a fine-tuned backbone
    #[arg(long, value_name = "MODEL", help_heading = "Training")]
    pub teacher: Option<PathBuf>,
    /// The teacher's share of the loss, above 0 and at most 1; the labels have the rest [default: 0.9]
    #[arg(long, value_name = "SHARE", help_heading = "Training")]
    pub teacher_share: Option<f64>,
    /// What logits are divided by where the teacher is learnt from [default: 2]
    #[arg(long, value_name = "T", help_heading = "Training")]
    pub teacher_temperature: Option<f64>,
    /// Decoupled weight decay [default: 0.01]
    #[arg(long, value_name = "RATE", help_heading = "Training")]
    pub weight_decay: Option<f64>,
    /// Label smoothing [default: 0]
    #[arg(long, value_name = "SHARE", help_heading = "Training")]
    pub label_smoothing: Option<f64>,
    /// How the learning rate moves [default: by recipe]
    #[arg(long, value_parser = named!(ScheduleKind), help_heading = "Training")]
    pub schedule: Option<ScheduleKind>,
    /// Average the weights over this many last epochs; 0 for never [default: a fifth of the epochs]
    #[arg(long, value_name = "N", help_heading = "Training")]
    pub ema_epochs: Option<usize>,
    /// Decay target of that average [default: 59/60]
    #[arg(long, value_name = "RATE", help_heading = "Training")]
    pub ema_decay: Option<f64>,
    /// Passes over the training images that set the stem's batch-norm statistics
    #[arg(long, value_name = "N", help_heading = "Training")]
    pub warm_passes: Option<usize>,
    /// Every branch draws its own batches, as in the published code
    #[arg(long, help_heading = "Training")]
    pub independent_batches: bool,
    /// Seed of everything random [default: 0]
    #[arg(long, value_name = "SEED", help_heading = "Training")]
    pub seed: Option<u64>,
    /// Number format of matrix products; `auto` is bf16 on CPUs that are faster in it (AMX, Zen 4), else f32 [default: auto]
    #[arg(long, value_parser = precision(), help_heading = "Training")]
    pub precision: Option<Precision>,
    /// Epochs between checkpoints, of which there is also one a minute; 0 for only when interrupted and at the end [default: 5]
    #[arg(long, value_name = "N", help_heading = "Training")]
    pub checkpoint_every: Option<usize>,
    /// Which weights become the model; `best` needs validation images, and is not for fge [default: last]
    #[arg(long, value_parser = named!(Select), help_heading = "Training")]
    pub select: Option<Select>,
}

/// A parser for [`Precision`].
pub fn precision() -> impl TypedValueParser<Value = Precision> {
    named!(Precision)
}

/// Parses three numbers with commas between them.
pub fn three(text: &str) -> Result<[f64; 3], String> {
    let numbers = text.split(',').map(|t| t.trim().parse::<f64>()).collect::<Result<Vec<_>, _>>();
    let numbers = numbers.map_err(|e| e.to_string())?;
    numbers.try_into().map_err(|_| "give three numbers, such as 0.485,0.456,0.406".into())
}

impl SettingsArgs {
    /// The layer of settings that these flags are.
    pub fn into_settings(self, data: Option<PathBuf>, threads: Option<usize>) -> Settings {
        Settings {
            data,
            image_column: self.image_column,
            label_column: self.label_column,
            method: self.method,
            recipe: self.recipe,
            backbone: self.backbone,
            mean: self.mean,
            std: self.std,
            init: self.init,
            teacher: self.teacher,
            teacher_share: self.teacher_share,
            teacher_temperature: self.teacher_temperature,
            blocks: self.blocks,
            split: self.split,
            branches: self.branches,
            coarse_branches: self.coarse_branches,
            round_to: self.round_to,
            budget: self.budget,
            recycle: self.recycle,
            train_per_class: self.train_per_class,
            val_per_class: self.val_per_class,
            test_per_class: self.test_per_class,
            val_fraction: self.val_fraction,
            test_fraction: self.test_fraction,
            epochs: self.epochs,
            batch_size: self.batch_size,
            lr: self.lr,
            stem_lr: self.stem_lr,
            weight_decay: self.weight_decay,
            label_smoothing: self.label_smoothing,
            schedule: self.schedule,
            ema_epochs: self.ema_epochs,
            ema_decay: self.ema_decay,
            warm_passes: self.warm_passes,
            augmentation: self.augmentation,
            image_size: self.image_size,
            resize: self.resize,
            independent_batches: self.independent_batches.then_some(true),
            seed: self.seed,
            threads,
            precision: self.precision,
            checkpoint_every: self.checkpoint_every,
            select: self.select,
            skip_bad: self.skip_bad.then_some(true),
            memory_budget_mib: self.memory_budget_mib,
        }
    }
}
