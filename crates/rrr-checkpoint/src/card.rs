//! A backbone's card: what its weights expect of an image, and where they come from.
//!
//! On disk it is timm's `config.json`: `architecture` and `num_classes` at the top, the rest in `pretrained_cfg`.
//! `color_order`, `source` and `sha256` are our additions to `pretrained_cfg`; timm ignores them.

use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::error::Error;
use crate::write::atomic_write;

/// How images are resized.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Interpolation {
    /// The nearest pixel.
    Nearest,
    /// Linear.
    Bilinear,
    /// Cubic.
    Bicubic,
    /// Lanczos with three lobes.
    Lanczos,
}

/// Order of an image's channels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ColorOrder {
    /// Red first: timm's and torchvision's convention, meant where a card says nothing.
    #[default]
    Rgb,
    /// Blue first: Caffe's and OpenCV's.
    Bgr,
}

/// The card of a backbone.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Card {
    /// Name of the architecture, such as `resnet152`; empty if unknown.
    pub architecture: String,
    /// Outputs of the pretrained classifier, if known.
    pub num_classes: Option<usize>,
    /// Subtracted from each channel, for values in 0..=1, in the order of `color_order`.
    pub mean: [f32; 3],
    /// Then divided by this.
    pub std: [f32; 3],
    /// Resizing the weights were trained with.
    pub interpolation: Interpolation,
    /// Part of the resized image's side that is kept in evaluation, if known.
    pub crop_pct: Option<f32>,
    /// Channels, height and width the weights were trained at, if known.
    pub input_size: Option<[usize; 3]>,
    /// Order of the channels.
    pub color_order: ColorOrder,
    /// Licence of the weights, if known.
    pub license: Option<String>,
    /// Where the weights come from, in words.
    pub source: Option<String>,
    /// SHA-256 of the weights' file beside the card, in lower-case hex.
    pub sha256: Option<String>,
}

const FILE: &str = "config.json";

impl Card {
    /// A card that says only how to normalise: for weights without one, from what the user gives.
    pub fn from_mean_std(mean: [f32; 3], std: [f32; 3]) -> Self {
        Self {
            architecture: String::new(),
            num_classes: None,
            mean,
            std,
            interpolation: Interpolation::Bilinear,
            crop_pct: None,
            input_size: None,
            color_order: ColorOrder::Rgb,
            license: None,
            source: None,
            sha256: None,
        }
    }

    /// Where the card of `weights` lies: `config.json` in the same folder.
    pub fn path_beside(weights: &Path) -> PathBuf {
        weights.with_file_name(FILE)
    }

    /// Reads the card beside `weights`; `None` if there is none.
    ///
    /// # Errors
    /// If there is one that cannot be read or lacks what a card must say.
    pub fn beside(weights: &Path) -> Result<Option<Self>, Error> {
        let path = Self::path_beside(weights);
        if path.is_file() { Self::read(&path).map(Some) } else { Ok(None) }
    }

    /// Reads the card beside `weights`, which must have one.
    ///
    /// # Errors
    /// [`Error::NoCard`] with what to do, or whatever is wrong with the card.
    pub fn require_beside(weights: &Path) -> Result<Self, Error> {
        Self::beside(weights)?.ok_or_else(|| Error::NoCard { weights: weights.into() })
    }

    /// Reads a card from a file in timm's `config.json` format.
    ///
    /// # Errors
    /// If the file cannot be read, is no JSON, or lacks mean, std or interpolation: nothing is assumed.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let bytes = fs::read(path).map_err(|e| Error::io("read", path, e))?;
        Self::parse(&bytes).map_err(|what| Error::BadCard { path: path.into(), what })
    }

    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, String> {
        let config: Value = serde_json::from_slice(bytes).map_err(|e| format!("is not JSON ({e})"))?;
        // Before 2023 timm wrote all fields at the top.
        let fields = config.get("pretrained_cfg").unwrap_or(&config);
        let card = Self {
            architecture: optional(&config, "architecture")?.unwrap_or_default(),
            num_classes: optional(&config, "num_classes")?.or(optional(fields, "num_classes")?),
            mean: required(fields, "mean")?,
            std: required(fields, "std")?,
            interpolation: required(fields, "interpolation")?,
            crop_pct: optional(fields, "crop_pct")?,
            input_size: optional(fields, "input_size")?,
            color_order: optional(fields, "color_order")?.unwrap_or_default(),
            license: optional(fields, "license")?,
            source: optional(fields, "source")?.or(optional(fields, "origin_url")?),
            sha256: optional(fields, "sha256")?,
        };
        if card.mean.iter().any(|m| !m.is_finite()) {
            return Err("has a mean that is not finite".into());
        }
        if card.std.iter().any(|s| !s.is_finite() || *s <= 0.0) {
            return Err("has a std that is not positive".into());
        }
        Ok(card)
    }

    /// Writes the card, atomically, in timm's `config.json` format.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn write(&self, path: &Path) -> Result<(), Error> {
        let mut fields = json!({
            "mean": self.mean,
            "std": self.std,
            "interpolation": self.interpolation,
            "crop_pct": self.crop_pct,
            "input_size": self.input_size,
            "num_classes": self.num_classes,
            "color_order": self.color_order,
            "license": self.license,
            "source": self.source,
            "sha256": self.sha256,
        });
        if let Some(fields) = fields.as_object_mut() {
            fields.retain(|_, value| !value.is_null());
        }
        let mut config = json!({ "architecture": self.architecture, "pretrained_cfg": fields });
        if let Some(classes) = self.num_classes {
            config["num_classes"] = classes.into();
        }
        atomic_write(path, format!("{config:#}\n").as_bytes())
    }
}

fn required<T: serde::de::DeserializeOwned>(fields: &Value, name: &str) -> Result<T, String> {
    optional(fields, name)?
        .ok_or_else(|| format!("has no {name}\nhint: add it, in timm's format, or give --mean and --std"))
}

fn optional<T: serde::de::DeserializeOwned>(fields: &Value, name: &str) -> Result<Option<T>, String> {
    match fields.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => T::deserialize(value).map(Some).map_err(|e| format!("has a wrong {name} ({e})")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As on the Hugging Face hub, shortened.
    const TIMM: &str = r#"{"architecture": "resnet152", "num_classes": 1000, "num_features": 2048,
        "pretrained_cfg": {"tag": "a1h_in1k", "input_size": [3, 224, 224], "interpolation": "bicubic",
        "crop_pct": 0.95, "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225], "license": "apache-2.0",
        "origin_url": "somewhere", "num_classes": 1000, "first_conv": "conv1", "classifier": "fc"}}"#;

    #[test]
    fn reads_timm_and_reads_back_what_it_writes() {
        let card = Card::parse(TIMM.as_bytes()).unwrap();
        assert_eq!(card.mean, [0.485, 0.456, 0.406]);
        assert_eq!(card.interpolation, Interpolation::Bicubic);
        assert_eq!((card.num_classes, card.crop_pct), (Some(1000), Some(0.95)));
        assert_eq!(card.input_size, Some([3, 224, 224]));
        assert_eq!(card.color_order, ColorOrder::Rgb);
        assert_eq!(card.license.as_deref(), Some("apache-2.0"));
        let folder = tempfile::tempdir().unwrap();
        let weights = folder.path().join("model.safetensors");
        assert!(Card::beside(&weights).unwrap().is_none());
        assert!(Card::require_beside(&weights).unwrap_err().to_string().contains("--mean and --std"));
        let bgr = Card { color_order: ColorOrder::Bgr, sha256: Some("ab".into()), ..card };
        bgr.write(&Card::path_beside(&weights)).unwrap();
        assert_eq!(Card::beside(&weights).unwrap(), Some(bgr));
    }

    #[test]
    fn never_assumes_a_normalisation() {
        for (from, to, message) in [
            ("\"mean\"", "\"mena\"", "has no mean"),
            ("\"std\"", "\"dev\"", "has no std"),
            ("0.485, ", "", "has a wrong mean"),
            ("0.229", "0", "has a std that is not positive"),
            ("bicubic", "sinc", "has a wrong interpolation"),
            ("\"interpolation\"", "\"resizing\"", "has no interpolation"),
            ("{", "", "is not JSON"),
        ] {
            let error = Card::parse(TIMM.replacen(from, to, 1).as_bytes()).unwrap_err();
            assert!(error.contains(message), "{error}");
        }
    }
}
