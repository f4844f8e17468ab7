//! The quickstart: a short training on the sample dataset that lies inside the program.

use crate::config::{Settings, TrainConfig};
use crate::train::{Listed, TrainError};
use rrr_checkpoint::cache_dir;
use rrr_data::sample;
use std::path::PathBuf;

/// A test image and its true class.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Example {
    /// The file.
    pub path: PathBuf,
    /// Name of the class.
    pub class: String,
}

/// Writes the sample into the cache folder and configures a training on it; `wishes` may set more.
///
/// # Errors
/// [`TrainError`] if the sample cannot be written or a wish makes no sense.
pub fn configure(wishes: Settings) -> Result<TrainConfig, TrainError> {
    let data = sample::write_clp(&cache_dir()?.join("samples"))?;
    let base = Settings { data: Some(data), ..Settings::default() };
    Ok(wishes.over(base).resolve()?)
}

/// Up to `count` test images of a training, each of another class.
///
/// # Errors
/// [`TrainError::Data`] if the dataset is not there any more.
pub fn examples(config: &TrainConfig, count: usize) -> Result<Vec<Example>, TrainError> {
    let Some(test) = Listed::open(config)?.test else { return Ok(Vec::new()) };
    let first_of = |label: usize| test.samples.iter().find(|s| s.label as usize == label);
    let step = (test.classes.len() / count.max(1)).max(1);
    Ok((0..test.classes.len())
        .step_by(step)
        .filter_map(first_of)
        .take(count)
        .map(|s| Example { path: s.path.clone(), class: test.classes[s.label as usize].clone() })
        .collect())
}
