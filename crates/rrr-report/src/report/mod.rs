//! One HTML page about one run.
//!
//! [`Report`] holds everything the page shows; [`render_html`] turns it into a single file that needs no network,
//! scripts or other files. Parts without data are left out of the page.

mod charts;
mod format;
mod frame;
mod render;
mod thumbnail;

pub use frame::render_page;
pub use render::render_html;
pub use thumbnail::{ImageFormat, Thumbnail};

use serde::{Deserialize, Serialize};

use crate::metrics::Metrics;

/// Everything the page shows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Heading, such as the run's name.
    pub title: String,
    /// Method in words, such as `RRR-Net, 8 branches from layer3.0`.
    pub method: String,
    /// What was trained and evaluated on.
    pub dataset: Dataset,
    /// The evaluation.
    pub metrics: Metrics,
    /// Training history; none for a model that was only evaluated.
    pub curves: Option<Curves>,
    /// The worst mistakes, worst first.
    pub mistakes: Vec<Mistake>,
    /// Size and work, next to the full backbone.
    pub cost: Option<CostComparison>,
    /// Measured speed, next to the full backbone where that was measured too.
    pub speed: Option<Speed>,
    /// The resolved configuration as TOML text.
    pub config: Option<String>,
    /// What it takes to trace the result back.
    pub provenance: Provenance,
}

/// The data of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Dataset {
    /// Name, such as `CLP_Micro`.
    pub name: String,
    /// Number of classes.
    pub classes: usize,
    /// Number of training images; none when unknown.
    pub train_images: Option<usize>,
    /// Name of the evaluated split, such as `test`.
    pub split: String,
    /// Side of the square images the network sees, in pixels.
    pub image_size: usize,
}

/// The training history.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Curves {
    /// What `CurvePoint::at` counts, such as `epoch` or `step`.
    pub axis: String,
    /// Measurements, by rising `at`.
    pub points: Vec<CurvePoint>,
}

/// What was measured at one time of a training; a value not measured then is none.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct CurvePoint {
    /// Position on the time axis.
    pub at: f64,
    /// Mean training loss (cross-entropy in nats).
    pub train_loss: Option<f64>,
    /// Training accuracy, 0..=1.
    pub train_accuracy: Option<f64>,
    /// Loss on the evaluation images.
    pub eval_loss: Option<f64>,
    /// Accuracy on the evaluation images, 0..=1.
    pub eval_accuracy: Option<f64>,
    /// Learning rate.
    pub learning_rate: Option<f64>,
}

/// A misclassified image.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Mistake {
    /// File name or path, as shown to the reader.
    pub name: String,
    /// The picture; none when it could not be made.
    pub thumbnail: Option<Thumbnail>,
    /// The true class.
    pub label: String,
    /// The predicted class.
    pub predicted: String,
    /// Probability of the predicted class.
    pub confidence: f64,
    /// Probability of the true class.
    pub label_probability: f64,
}

/// The cost of a network, or of a part of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Cost {
    /// Parameters.
    pub params: u64,
    /// Multiply-accumulate operations for one image.
    pub macs: u64,
    /// Size of the weights in bytes.
    pub bytes: u64,
}

/// A named part of the network.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CostPart {
    /// Name, such as `stem` or `branch`.
    pub name: String,
    /// How many of it there are; `cost` is for one.
    pub count: usize,
    /// Cost of one.
    pub cost: Cost,
}

/// The network's cost next to that of the full backbone.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CostComparison {
    /// Side of the square input the MACs are counted for, in pixels.
    pub image_size: usize,
    /// The parts, which add up to `total`.
    pub parts: Vec<CostPart>,
    /// The whole network.
    pub total: Cost,
    /// Name of the full backbone, such as `ResNet-152`.
    pub full_name: String,
    /// The full backbone, with a classifier for the same classes.
    pub full: Cost,
}

/// Measured inference speed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Speed {
    /// Images per batch.
    pub batch: usize,
    /// Images per second of this network.
    pub images_per_second: f64,
    /// Milliseconds from one image to its prediction; none when not measured.
    pub latency_ms: Option<f64>,
    /// Images per second of the full backbone on the same machine; none when not measured.
    pub full_images_per_second: Option<f64>,
}

/// A name and a value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fact {
    /// Name.
    pub name: String,
    /// Value.
    pub value: String,
}

impl Fact {
    /// A fact from anything that can be shown.
    pub fn new(name: impl Into<String>, value: impl ToString) -> Self {
        Self { name: name.into(), value: value.to_string() }
    }
}

/// Where the pretrained weights come from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backbone {
    /// Name, such as `resnet152.a1h_in1k`.
    pub name: String,
    /// Licence of the weights; none when unknown.
    pub licence: Option<String>,
    /// SHA-256 of the weights file, in hexadecimal.
    pub sha256: Option<String>,
    /// Where it was downloaded or read from.
    pub source: Option<String>,
}

/// The machine a run ran on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// Processor model; none when unknown.
    pub cpu: Option<String>,
    /// Number of threads used.
    pub cores: usize,
    /// Instruction set the kernels ran with, such as `avx512`.
    pub isa: String,
    /// Operating system and architecture, such as `linux x86_64`.
    pub platform: String,
}

/// What it takes to trace a result back.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Provenance {
    /// Versions of the programs involved.
    pub versions: Vec<Fact>,
    /// Random seed.
    pub seed: u64,
    /// Command line that started the run; none when it was started through the library.
    pub command: Option<String>,
    /// Where the pretrained weights come from; none when training started from random weights.
    pub backbone: Option<Backbone>,
    /// The machine.
    pub machine: Machine,
    /// When the run ended, as text, such as `2025-03-01 12:00 UTC`.
    pub finished: Option<String>,
    /// Training time in seconds.
    pub train_seconds: Option<f64>,
    /// Anything else worth recording.
    pub notes: Vec<Fact>,
}
