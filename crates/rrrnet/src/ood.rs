//! Telling images of another kind from those that a model was made for.

use crate::evaluate::{EvaluateError, EvaluateOptions};
use crate::model::ModelInfo;
use crate::predict::Predictor;
use rrr_data::{DataError, Dataset, ImageStore, StoreOptions, Workers};
use rrr_report::metrics::{MetricsError, Predictions, argmax, auroc};
use serde::Serialize;
use std::path::Path;
use std::sync::Arc;

/// How well a model's uncertainty tells the images of a folder from those that it was measured on.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct OutOfDistribution {
    /// Name of the folder.
    pub dataset: String,
    /// Number of its images.
    pub images: usize,
    /// Unreadable ones that were left out.
    pub skipped: Vec<String>,
    /// Area under the receiver operating characteristic of each score; 0.5 is chance.
    pub auroc: OodAuroc,
}

/// AUROC by score; every score should be higher on images of another kind.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct OodAuroc {
    /// By the mutual information of prediction and branch, the branches' disagreement; none with a single branch.
    pub mutual_information: Option<f64>,
    /// By the entropy of the ensemble's probabilities.
    pub entropy: f64,
    /// By 1 - the top probability (Hendrycks and Gimpel, ICLR 2017).
    pub top_probability: f64,
}

/// The images below `folder`, decoded for a model, and notes about them.
pub(crate) fn open(
    folder: &Path,
    info: &ModelInfo,
    skip_bad: bool,
    workers: &Workers,
) -> Result<(Arc<ImageStore>, Vec<String>), EvaluateError> {
    let (dataset, notes) = Dataset::unlabelled(folder, info.classes.clone())?;
    let resize = info.preprocessing.resize();
    let options = StoreOptions { resize, skip_bad, ..StoreOptions::new(info.preprocessing.size) };
    match ImageStore::load(dataset, options, workers) {
        Err(DataError::ClassUnreadable { .. }) => Err(EvaluateError::NothingReadable(folder.into())),
        loaded => Ok((Arc::new(loaded?), notes)),
    }
}

impl OutOfDistribution {
    /// Compares the uncertainty about the images of `other` with that of `known` predictions.
    pub(crate) fn measure(
        predictor: &mut Predictor,
        known: &Predictions,
        other: &Arc<ImageStore>,
        options: EvaluateOptions<'_>,
        workers: &Workers,
    ) -> Result<Self, EvaluateError> {
        let predictions = predictor.predict_store(other, options.batch_size, workers)?;
        let (known, unknown) = (Scores::new(known)?, Scores::new(&predictions)?);
        let auroc = |score: fn(&Scores) -> &[f64]| {
            auroc(score(&known), score(&unknown)).expect("there are images on both sides, and no NaN")
        };
        Ok(Self {
            dataset: other.dataset().name.clone(),
            images: other.len(),
            skipped: other.bad().iter().map(ToString::to_string).collect(),
            auroc: OodAuroc {
                mutual_information: (predictions.branches > 1).then(|| auroc(|s| &s.mutual_information)),
                entropy: auroc(|s| &s.entropy),
                top_probability: auroc(|s| &s.doubt),
            },
        })
    }
}

/// Scores of every image.
struct Scores {
    mutual_information: Vec<f64>,
    entropy: Vec<f64>,
    /// 1 - the top probability.
    doubt: Vec<f64>,
}

impl Scores {
    fn new(predictions: &Predictions) -> Result<Self, MetricsError> {
        let uncertain = predictions.uncertainties()?;
        // The sum of the others keeps what 1 - p rounds away where p is nearly 1.
        let doubt = |row: &[f32]| {
            let top = argmax(row);
            let others = row.iter().enumerate().filter(|(class, _)| *class != top);
            others.map(|(_, p)| f64::from(*p)).sum()
        };
        Ok(Self {
            mutual_information: uncertain.iter().map(|u| u.mutual_information).collect(),
            entropy: uncertain.iter().map(|u| u.entropy).collect(),
            doubt: predictions.ensemble()?.chunks_exact(predictions.classes.len()).map(doubt).collect(),
        })
    }
}
