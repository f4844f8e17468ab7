//! Measuring a model on labelled images.

use crate::compute::Precision;
use crate::config::{ConfigError, TrainConfig};
use crate::engine::Engine;
use crate::model::{Combine, Model, ModelError};
use crate::ood::{self, OutOfDistribution};
use crate::predict::{Predictor, probabilities};
use crate::run::{RunDir, RunError};
use crate::train::{Listed, store_options};
use rrr_data::{DataError, ImageStore, Loader, LoaderOptions, OpenOptions, Source, StoreOptions, Workers};
use rrr_nn::{Compute, Images, Normalize, Pixels};
use rrr_report::metrics::{self, Metrics, MetricsError, Predictions, Selective, Temperature};
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Why a model cannot be measured.
#[derive(Debug, thiserror::Error)]
pub enum EvaluateError {
    /// There is no usable model.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The run cannot be used.
    #[error(transparent)]
    Run(#[from] RunError),
    /// The run's configuration cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The images cannot be used.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The predictions cannot be measured.
    #[error(transparent)]
    Metrics(#[from] MetricsError),
    /// A model file, which does not know of images.
    #[error("{} is a model file: it does not know which images to measure it on\nhint: name labelled images after it", .0.display())]
    NoImages(PathBuf),
    /// The run was trained without a test split.
    #[error("this run has no test split\nhint: name labelled images to evaluate on")]
    NoTestSplit,
    /// The images of a run are not what they were.
    #[error(
        "the images of {} are not those that the run has learnt from and was measured with: some were added, removed or \
         renamed\nhint: bring them back, or name labelled images that the run has not seen", .0.display()
    )]
    DataChanged(PathBuf),
    /// Unreadable images were to be left out, and none is left.
    #[error("none of the images of {} can be read\nhint: repair them, or name another folder", .0.display())]
    NothingReadable(PathBuf),
}

/// What was measured.
#[derive(Clone, Debug, Serialize)]
pub struct Evaluation {
    /// Name of the dataset.
    pub dataset: String,
    /// Name of the measured part, such as `test`.
    pub split: String,
    /// Number format of matrix products: `f32`, `bf16`, or `int8` of a quantised model.
    pub precision: String,
    /// Unreadable images that were left out.
    pub skipped: Vec<String>,
    /// What else to know about the images, such as that some are of formats that are not read. One sentence each.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// The numbers.
    #[serde(flatten)]
    pub metrics: Metrics,
    /// What abstaining does, if that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub selective: Option<Selective>,
    /// How well images of another kind are told from these, if that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub out_of_distribution: Option<OutOfDistribution>,
}

impl Evaluation {
    fn with_notes(mut self, notes: Vec<String>) -> Self {
        self.notes.splice(0..0, notes);
        self
    }
}

/// How to measure.
#[derive(Clone, Copy, Debug)]
pub struct EvaluateOptions<'a> {
    /// Images per batch.
    pub batch_size: usize,
    /// Number of threads.
    pub threads: usize,
    /// Number format of matrix products.
    pub precision: Precision,
    /// Leave unreadable images out instead of failing.
    pub skip_bad: bool,
    /// Columns of a table of images, where they do not have the usual names.
    pub columns: Columns<'a>,
    /// Also measure what is left if the model abstains where its top probability is below this, in (0, 1].
    pub abstain_below: Option<f32>,
    /// Also measure how well the uncertainty tells the images of this folder, which need no labels, from the others.
    pub ood: Option<&'a Path>,
}

/// Columns of a table of labelled images, by name.
#[derive(Clone, Copy, Debug, Default)]
pub struct Columns<'a> {
    /// That of paths.
    pub image: Option<&'a str>,
    /// That of classes.
    pub label: Option<&'a str>,
}

impl Columns<'_> {
    /// How to open a dataset with the classes of a model.
    pub(crate) fn open(self, classes: &[String], skip_bad: bool) -> OpenOptions {
        OpenOptions {
            classes: Some(classes.to_vec()),
            skip_bad,
            image_column: self.image.map(String::from),
            label_column: self.label.map(String::from),
        }
    }
}

/// Measures `model` on a dataset with the model's classes: its `test/` folder if it has one, else its `val/`, else all
/// of it.
///
/// # Errors
/// [`EvaluateError`]: the images cannot be used, or have a class that the model does not know.
pub fn evaluate(
    model: &Model,
    data: &Path,
    options: EvaluateOptions<'_>,
) -> Result<Evaluation, EvaluateError> {
    let source = Source::open(data, &options.columns.open(&model.info.classes, options.skip_bad))?;
    let split = match (&source.test, &source.valid) {
        (Some(_), _) => "test",
        (None, Some(_)) => "validation",
        (None, None) => "all",
    };
    let workers = Workers::new(options.threads)?;
    let store_options = StoreOptions {
        resize: model.info.preprocessing.resize(),
        skip_bad: options.skip_bad,
        ..StoreOptions::new(model.info.preprocessing.size)
    };
    let store = Arc::new(ImageStore::load(source.evaluation(), store_options, &workers)?);
    Ok(measure(model, &store, split, options, &workers)?.with_notes(source.notes))
}

/// Runs `network` over all images of `store`, in order.
pub(crate) fn predict_store(
    network: &mut Engine,
    store: &Arc<ImageStore>,
    normalize: Normalize,
    combine: Combine,
    batch_size: usize,
    workers: &Workers,
) -> Result<Predictions, DataError> {
    let classes = store.dataset().classes.clone();
    let (branches, images) = (network.spec().branches, store.len());
    let row = classes.len();
    assert_eq!(network.spec().branch.classes, Some(row), "a dataset with the model's classes");
    let mut logits = vec![0.0; branches * images * row];
    let mut labels = Vec::with_capacity(images);
    let loader = Loader::new(Arc::clone(store), LoaderOptions::evaluation(batch_size), workers);
    let mut batches = loader.epoch(0, 0)?;
    while let Some(batch) = batches.next() {
        let batch = batch?;
        let out = network.forward(&Images {
            pixels: Pixels::U8 { data: &batch.pixels, normalize },
            n: batch.n,
            height: batch.size,
            width: batch.size,
        });
        let done = labels.len();
        for branch in 0..branches {
            let from = branch * batch.n * row;
            logits[(branch * images + done) * row..][..batch.n * row]
                .copy_from_slice(&out.data[from..from + batch.n * row]);
        }
        labels.extend_from_slice(&batch.labels);
        batches.recycle(batch);
    }
    let (probs, combined) = probabilities(logits, branches, row, combine);
    let combine = combined.map_or(metrics::Combine::MeanOfSoftmax, metrics::Combine::Given);
    Ok(Predictions { classes, labels, branches, probs, combine, temperature: None })
}

/// The temperature that suits `model` on the images of `store`; see [`Temperature::fit`].
pub(crate) fn fit_temperature(
    model: &Model,
    compute: Compute,
    store: &Arc<ImageStore>,
    batch_size: usize,
    workers: &Workers,
) -> Result<Option<Temperature>, EvaluateError> {
    let mut predictor = Predictor::new(model, compute)?;
    Ok(Temperature::fit(&predictor.predict_store(store, batch_size, workers)?)?)
}

/// Measures the model of a run on the run's own test split.
///
/// # Errors
/// [`EvaluateError`]; the images must still be where they were, all of them and no others.
pub fn evaluate_run(run: &Path, options: EvaluateOptions<'_>) -> Result<Evaluation, EvaluateError> {
    let model = Model::load(run)?;
    if run.is_file() {
        return Err(EvaluateError::NoImages(run.to_path_buf()));
    }
    let dir = RunDir::open(run)?;
    let mut config = TrainConfig::read(&dir.config())?;
    config.skip_bad |= options.skip_bad;
    let listed = listed(&config, &model)?;
    let test = listed.test.ok_or(EvaluateError::NoTestSplit)?;
    let workers = Workers::new(options.threads)?;
    let store = Arc::new(ImageStore::load(test, store_options(&config), &workers)?);
    Ok(measure(&model, &store, "test", options, &workers)?.with_notes(listed.notes))
}

/// The images of a finished run, which must be those that its model was trained on and measured with.
pub(crate) fn listed(config: &TrainConfig, model: &Model) -> Result<Listed, EvaluateError> {
    let listed = Listed::open(config)?;
    if listed.is_of(&model.info) { Ok(listed) } else { Err(EvaluateError::DataChanged(config.data.clone())) }
}

/// Measures `model` on all images of `store`.
pub(crate) fn measure(
    model: &Model,
    store: &Arc<ImageStore>,
    split: &str,
    options: EvaluateOptions<'_>,
    workers: &Workers,
) -> Result<Evaluation, EvaluateError> {
    let open = |folder| ood::open(folder, &model.info, options.skip_bad, workers);
    let (other, notes) = options.ood.map(open).transpose()?.unzip();
    let mut predictor = Predictor::new(model, options.precision.compute(options.threads))?;
    let predictions = predictor.predict_store(store, options.batch_size, workers)?;
    let out_of_distribution = other
        .map(|other| OutOfDistribution::measure(&mut predictor, &predictions, &other, options, workers))
        .transpose()?;
    Ok(Evaluation {
        dataset: store.dataset().name.clone(),
        split: split.into(),
        precision: match model.quantization() {
            Some(_) => "int8".into(),
            None => options.precision.resolve().to_string(),
        },
        skipped: store.bad().iter().map(ToString::to_string).collect(),
        notes: notes.unwrap_or_default(),
        metrics: Metrics::evaluate(&predictions)?,
        selective: options.abstain_below.map(|p| Selective::evaluate(&predictions, p)).transpose()?,
        out_of_distribution,
    })
}
