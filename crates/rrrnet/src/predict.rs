//! Classifying images.

use crate::compute::Precision;
use crate::engine::Engine;
use crate::evaluate::predict_store;
use crate::model::{Combine, Model, ModelError, ModelFile, ModelInfo};
use rrr_data::decode::{self, RgbImage};
use rrr_data::{DataError, ImageStore, Limits};
use rrr_nn::{Compute, Images, Logits, Normalize, Pixels};
use rrr_report::metrics::{Predictions, argmax, softmax, softmax_of_mean_logits, uncertainty};
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

pub use rrr_data::{BadImage, FoundImages, Workers};

/// A class and its probability.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Ranked {
    /// Name of the class.
    pub class: String,
    /// Probability in [0, 1].
    pub probability: f32,
}

/// What the model says about one image.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Prediction {
    /// The image.
    #[serde(serialize_with = "rrr_checkpoint::lossy::path")]
    pub path: PathBuf,
    /// The most probable classes, most probable first.
    pub top: Vec<Ranked>,
    /// Entropy of the probabilities, in nats: all of the uncertainty.
    pub entropy: f64,
    /// Mutual information of prediction and branch, in nats: the part that comes from the branches' disagreement.
    pub mutual_information: f64,
    /// Share of the branches whose own first choice is the ensemble's.
    pub agreement: f64,
    /// Whether the top probability is below [`Predictor::abstain_below`]; none without such a threshold.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub abstained: Option<bool>,
}

/// Where the time went; stages run one after another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Timing {
    /// Images.
    pub images: usize,
    /// Reading and decoding files.
    pub decode_seconds: f64,
    /// Resizing.
    pub preprocess_seconds: f64,
    /// The network.
    pub network_seconds: f64,
}

/// A model, ready to run.
pub struct Predictor {
    network: Engine,
    info: ModelInfo,
    abstain_below: Option<f32>,
}

impl Predictor {
    /// Folds and packs the model's weights for `compute`.
    ///
    /// # Errors
    /// [`ModelError::State`] if they do not fit the architecture.
    pub fn new(model: &Model, compute: Compute) -> Result<Self, ModelError> {
        let network = Engine::new(model, compute)?;
        Ok(Self { network, info: model.info.clone(), abstain_below: None })
    }

    /// Marks images whose top probability is below `threshold` as abstained from, from here on.
    #[must_use]
    pub fn abstain_below(self, threshold: Option<f32>) -> Self {
        Self { abstain_below: threshold, ..self }
    }

    /// What is known about the model.
    pub fn info(&self) -> &ModelInfo {
        &self.info
    }

    /// Logits of every branch for `n` RGB images `[n, size, size, 3]` of the model's input size.
    ///
    /// # Panics
    /// If `pixels` does not hold `n` such images.
    pub fn logits(&mut self, pixels: &[u8], n: usize) -> Logits {
        let size = self.info.preprocessing.size;
        assert_eq!(pixels.len(), n * size * size * 3, "pixels must hold n images of the model's input size");
        let normalize = self.info.preprocessing.normalize();
        self.network.forward(&Images {
            pixels: Pixels::U8 { data: pixels, normalize },
            n,
            height: size,
            width: size,
        })
    }

    /// Runs over all images of a store, in order.
    ///
    /// # Errors
    /// [`DataError`] if an image cannot be decoded any more.
    pub fn predict_store(
        &mut self,
        store: &Arc<ImageStore>,
        batch_size: usize,
        workers: &Workers,
    ) -> Result<Predictions, DataError> {
        let normalize = self.info.preprocessing.normalize();
        let combine = self.info.combine;
        let predictions = predict_store(&mut self.network, store, normalize, combine, batch_size, workers)?;
        Ok(Predictions { temperature: self.info.temperature, ..predictions })
    }

    /// Classifies image files, the `top` most probable classes each; unreadable ones come back as errors in their
    /// place.
    ///
    /// # Errors
    /// [`ModelError::NotFinite`].
    pub fn predict_files(
        &mut self,
        paths: &[PathBuf],
        top: usize,
        workers: &Workers,
        timing: &mut Timing,
    ) -> Result<Vec<Result<Prediction, BadImage>>, ModelError> {
        use rayon::prelude::*;
        let limits = Limits::default();
        let started = Instant::now();
        let decoded: Vec<Result<RgbImage, BadImage>> =
            workers.run(|| paths.par_iter().map(|path| decode::read(path, &limits)).collect());
        timing.decode_seconds += seconds(&started);

        let started = Instant::now();
        let (size, resize) = (self.info.preprocessing.size, self.info.preprocessing.resize());
        let readable: Vec<&RgbImage> = decoded.iter().filter_map(|r| r.as_ref().ok()).collect();
        let bytes = size * size * 3;
        let mut pixels = vec![0; readable.len() * bytes];
        workers.run(|| {
            let into = |(image, out): (&&RgbImage, &mut [u8])| image.resize_into(out, size, resize);
            readable.par_iter().zip(pixels.par_chunks_exact_mut(bytes)).for_each(into);
        });
        timing.preprocess_seconds += seconds(&started);

        let n = readable.len();
        let started = Instant::now();
        let mut said = if n > 0 { self.interpret(&pixels, n, top)? } else { Vec::new() }.into_iter();
        timing.network_seconds += seconds(&started);
        timing.images += n;
        let pair = |(path, image): (&PathBuf, Result<RgbImage, BadImage>)| {
            image.map(|_| {
                let said = said.next().expect("one prediction per readable image");
                Prediction { path: path.clone(), ..said }
            })
        };
        Ok(paths.iter().zip(decoded).map(pair).collect())
    }

    /// Classifies RGB images `[n, size, size, 3]` of the model's input size; paths stay empty.
    ///
    /// # Errors
    /// [`ModelError::NotFinite`].
    ///
    /// # Panics
    /// If `pixels` does not hold `n` such images.
    pub fn interpret(&mut self, pixels: &[u8], n: usize, top: usize) -> Result<Vec<Prediction>, ModelError> {
        let logits = self.logits(pixels, n);
        if !logits.data.iter().all(|v| v.is_finite()) {
            return Err(ModelError::NotFinite);
        }
        let (branches, classes) = (logits.branches, logits.classes);
        let (probs, combined) = probabilities(logits.data, branches, classes, self.info.combine);
        let row = |branch: usize, image: usize| &probs[(branch * n + image) * classes..][..classes];
        let ensemble = |image: usize| match &combined {
            Some(c) => c[image * classes..][..classes].to_vec(),
            None => mean((0..branches).map(|b| row(b, image)), classes),
        };
        let predictions = (0..n)
            .map(|image| {
                let pooled = ensemble(image);
                let mut calibrated = pooled.clone();
                if let Some(temperature) = self.info.temperature {
                    temperature.apply(&mut calibrated, classes);
                }
                let u = uncertainty(&calibrated, &pooled, (0..branches).map(|b| row(b, image)));
                let first = argmax(&pooled);
                let agree = (0..branches).filter(|b| argmax(row(*b, image)) == first).count();
                Prediction {
                    path: PathBuf::new(),
                    top: ranked(&pooled, &calibrated, &self.info.classes, top),
                    entropy: u.entropy,
                    mutual_information: u.mutual_information,
                    agreement: agree as f64 / branches as f64,
                    abstained: self.abstain_below.map(|below| calibrated[first] < below),
                }
            })
            .collect();
        Ok(predictions)
    }
}

impl crate::model::Preprocessing {
    /// The normalisation as the network takes it.
    pub fn normalize(&self) -> Normalize {
        Normalize { mean: self.mean, std: self.std }
    }

    /// The filter that brings images to size.
    pub fn resize(&self) -> rrr_data::Resize {
        crate::train::resize(self.interpolation)
    }
}

/// Softmax probabilities `[branch][image][class]`, and the ensemble's where they are not the branches' mean.
pub(crate) fn probabilities(
    mut logits: Vec<f32>,
    branches: usize,
    classes: usize,
    combine: Combine,
) -> (Vec<f32>, Option<Vec<f32>>) {
    let combined = match combine {
        Combine::Probabilities => None,
        Combine::Logits => Some(softmax_of_mean_logits(&logits, branches, classes)),
    };
    softmax(&mut logits, classes);
    (logits, combined)
}

/// One distribution per image, `[n, classes]`, of logits divided by a temperature.
pub(crate) fn softened(logits: Logits, combine: Combine, temperature: f32) -> Vec<f32> {
    let (branches, n, classes) = (logits.branches, logits.n, logits.classes);
    let mut data = logits.data;
    data.iter_mut().for_each(|v| *v /= temperature);
    let (probs, combined) = probabilities(data, branches, classes, combine);
    combined.unwrap_or_else(|| {
        (0..n)
            .flat_map(|i| mean((0..branches).map(|b| &probs[(b * n + i) * classes..][..classes]), classes))
            .collect()
    })
}

fn mean<'a>(rows: impl ExactSizeIterator<Item = &'a [f32]>, classes: usize) -> Vec<f32> {
    let count = rows.len() as f64;
    let mut sum = vec![0.0f64; classes];
    for row in rows {
        sum.iter_mut().zip(row).for_each(|(s, p)| *s += f64::from(*p));
    }
    sum.into_iter().map(|s| (s / count) as f32).collect()
}

/// The `top` most probable classes, as they were before calibration; equals keep the order of the classes.
fn ranked(pooled: &[f32], probs: &[f32], classes: &[String], top: usize) -> Vec<Ranked> {
    let mut order: Vec<usize> = (0..pooled.len()).collect();
    order.sort_by(|a, b| pooled[*b].total_cmp(&pooled[*a]));
    order.into_iter().take(top).map(|i| Ranked { class: classes[i].clone(), probability: probs[i] }).collect()
}

fn seconds(since: &Instant) -> f64 {
    let elapsed: Duration = since.elapsed();
    elapsed.as_secs_f64()
}

/// Image files for [`Predictor::predict_files`]: files as they are, folders searched.
///
/// # Errors
/// [`DataError`] names a path that does not exist or a folder without images.
pub fn find_images(paths: &[PathBuf]) -> Result<FoundImages, DataError> {
    rrr_data::find_images(paths)
}

/// Loads the model of a run or a file, to be run on `threads` threads.
///
/// # Errors
/// Those of [`Model::load`].
pub fn load(path: &Path, threads: usize, precision: Precision) -> Result<Predictor, ModelError> {
    let file = ModelFile::open(path)?;
    let network = file.network(precision.compute(threads))?;
    Ok(Predictor { network, info: file.info, abstain_below: None })
}
