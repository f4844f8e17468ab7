//! What a model file says about its weights.

use super::spec::SpecFile;
use crate::arch::ResNet;
use crate::config::{Method, ResizeFilter};
use crate::named::named_enum;
use rrr_report::metrics::Temperature;
use serde::{Deserialize, Serialize};

named_enum! {
    /// How the branches' opinions become one.
    pub enum Combine {
        /// The mean of the branches' softmax probabilities.
        Probabilities = "probabilities",
        /// The softmax of the branches' mean logits (`fge`).
        Logits = "logits",
    }
}

/// How an image becomes the network's input.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Preprocessing {
    /// Side of the square that images are resized to, in pixels.
    pub size: usize,
    /// Filter of the resizing.
    pub interpolation: ResizeFilter,
    /// Subtracted per RGB channel, for pixels in [0, 1].
    pub mean: [f32; 3],
    /// Divided by, per RGB channel.
    pub std: [f32; 3],
}

/// Whether images can be normalised with a mean and a standard deviation per channel.
pub(crate) fn can_normalize(mean: &[f32; 3], std: &[f32; 3]) -> bool {
    mean.iter().all(|m| m.is_finite()) && std.iter().all(|s| s.is_finite() && *s > 0.0)
}

/// Where a model comes from.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Provenance {
    /// Version of rrrnet that trained it.
    pub rrrnet: String,
    /// Method it was trained with.
    pub method: Option<Method>,
    /// Recipe it was trained with.
    pub recipe: String,
    /// Epochs it was trained for.
    pub epochs: usize,
    /// Seed of the training.
    pub seed: u64,
    /// Name of the dataset.
    pub dataset: String,
    /// Training images.
    pub train_images: usize,
    /// SHA-256 of the names and labels of all its images by split, which tells whether they are still the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub images_sha256: Option<String>,
    /// Name of the pretrained backbone.
    pub backbone: String,
    /// Layout of that backbone, the yardstick of cost comparisons.
    pub backbone_layout: Option<ResNet>,
    /// Licence of its weights; a model derived from them is bound by it.
    pub backbone_licence: Option<String>,
    /// SHA-256 of the file its weights came from.
    pub backbone_sha256: Option<String>,
    /// Where its weights came from.
    pub backbone_source: Option<String>,
}

/// How a model was quantised.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Quantization {
    /// Version of rrrnet that did it.
    pub rrrnet: String,
    /// Where the calibration images came from.
    pub calibration: String,
    /// Number of calibration images.
    pub images: usize,
    /// What it did to the accuracy, if that was measured.
    pub accuracy: Option<AccuracyChange>,
}

/// Accuracy before and after quantisation, on the same images.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AccuracyChange {
    /// Name of the dataset.
    pub dataset: String,
    /// Name of the measured part, such as `test`.
    pub split: String,
    /// Number of images; none of them was a calibration image.
    pub images: usize,
    /// Share of them that the f32 model classifies correctly.
    pub before: f64,
    /// The same for the quantised model.
    pub after: f64,
}

/// Everything about a model but its weights.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelInfo {
    /// Class names by label.
    pub classes: Vec<String>,
    /// How images become input.
    pub preprocessing: Preprocessing,
    /// How branches become one prediction.
    pub combine: Combine,
    /// What calibrates that prediction's probabilities; none where the training had no images to fit it on.
    pub temperature: Option<Temperature>,
    /// Where it comes from.
    pub provenance: Provenance,
}

/// The JSON in the header of a model file.
#[derive(Serialize, Deserialize)]
pub(super) struct Header {
    /// Version of this structure.
    pub(super) version: u32,
    pub(super) architecture: SpecFile,
    pub(super) classes: Vec<String>,
    pub(super) preprocessing: Preprocessing,
    pub(super) combine: Combine,
    /// Readers that do not know it give the same predictions with uncalibrated probabilities, so that it needs no
    /// version of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) temperature: Option<Temperature>,
    pub(super) provenance: Provenance,
    /// Present in quantised models.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) quantization: Option<Quantization>,
}
