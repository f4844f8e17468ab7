use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{Temperature, Uncertainty, uncertainty};

/// How far a row's sum may be from 1, and a probability outside 0..=1, before it is refused: wide enough for
/// rounding in reduced precision, narrow enough to catch logits passed by mistake.
const TOLERANCE: f32 = 1e-2;

/// How the branches' outputs become the ensemble's probabilities.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub enum Combine {
    /// The mean of the branches' softmax probabilities: RRR-Net's prediction.
    #[default]
    MeanOfSoftmax,
    /// Probabilities `[image][class]` that the caller combined itself, such as the softmax of the mean logits of
    /// Fast Geometric Ensembling (see [`softmax_of_mean_logits`]).
    Given(Vec<f32>),
}

/// What a model said about a set of labelled images.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Predictions {
    /// Class names; a label is an index into them.
    pub classes: Vec<String>,
    /// The true class of every image.
    pub labels: Vec<u32>,
    /// Number of branches, 1 for a monolithic network.
    pub branches: usize,
    /// Softmax probabilities `[branch][image][class]`, row-major.
    pub probs: Vec<f32>,
    /// How the branches are combined.
    pub combine: Combine,
    /// What calibrates the combined probabilities, if anything does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub temperature: Option<Temperature>,
}

/// Why predictions cannot be evaluated.
#[derive(Debug, Clone, PartialEq, Error)]
pub enum MetricsError {
    /// There are no images.
    #[error("there are no images to evaluate")]
    NoImages,
    /// There are no classes.
    #[error("there are no classes to evaluate")]
    NoClasses,
    /// There are no branches.
    #[error("the predictions come from no branch; a monolithic network counts as one")]
    NoBranches,
    /// The number of branch probabilities is not branches x images x classes.
    #[error(
        "{branches} branches, {images} images and {classes} classes need {expected} probabilities, got {actual}"
    )]
    BranchSize {
        /// Number of branches.
        branches: usize,
        /// Number of labels.
        images: usize,
        /// Number of classes.
        classes: usize,
        /// Product of the three.
        expected: usize,
        /// Number of values given.
        actual: usize,
    },
    /// The number of given ensemble probabilities is not images x classes.
    #[error(
        "an ensemble of {images} images and {classes} classes needs {expected} probabilities, got {actual}"
    )]
    EnsembleSize {
        /// Number of labels.
        images: usize,
        /// Number of classes.
        classes: usize,
        /// Product of the two.
        expected: usize,
        /// Number of values given.
        actual: usize,
    },
    /// A label is not a class index.
    #[error("image {image} has label {label}, but there are only {classes} classes")]
    Label {
        /// Index of the image.
        image: usize,
        /// The label.
        label: u32,
        /// Number of classes.
        classes: usize,
    },
    /// A probability is NaN or infinite, which a diverged training leaves behind.
    #[error("image {image} has a probability that is not finite; the model's training may have diverged")]
    NotFinite {
        /// Index of the image.
        image: usize,
    },
    /// A row is no probability distribution.
    #[error(
        "the probabilities of image {image} are not a distribution (sum {sum}); pass softmax outputs, not logits"
    )]
    NotDistribution {
        /// Index of the image.
        image: usize,
        /// Sum of the row.
        sum: f32,
    },
}

impl Predictions {
    /// The ensemble's probabilities `[image][class]`, calibrated if there is a temperature, after checking everything.
    ///
    /// # Errors
    /// See [`MetricsError`].
    pub fn ensemble(&self) -> Result<Vec<f32>, MetricsError> {
        let mut probs = self.pooled()?;
        if let Some(temperature) = self.temperature {
            temperature.apply(&mut probs, self.classes.len());
        }
        Ok(probs)
    }

    /// The combined probabilities `[image][class]` before any temperature, after checking everything. Predictions
    /// are read off these, so that no rounding of calibrated ones can change a prediction.
    ///
    /// # Errors
    /// See [`MetricsError`].
    pub fn pooled(&self) -> Result<Vec<f32>, MetricsError> {
        self.check()?;
        Ok(match &self.combine {
            Combine::MeanOfSoftmax => mean_over_branches(&self.probs, self.branches),
            Combine::Given(probs) => probs.clone(),
        })
    }

    /// The uncertainty of every image, in image order.
    ///
    /// # Errors
    /// See [`MetricsError`].
    pub fn uncertainties(&self) -> Result<Vec<Uncertainty>, MetricsError> {
        let classes = self.classes.len();
        let (ensemble, pooled) = (self.ensemble()?, self.pooled()?);
        let rows = ensemble.chunks_exact(classes).zip(pooled.chunks_exact(classes));
        Ok(rows
            .enumerate()
            .map(|(image, (row, pooled))| {
                uncertainty(row, pooled, (0..self.branches).map(|branch| self.row(branch, image)))
            })
            .collect())
    }

    /// The probabilities `[class]` that `branch` gives to `image`.
    pub fn row(&self, branch: usize, image: usize) -> &[f32] {
        let classes = self.classes.len();
        let start = (branch * self.labels.len() + image) * classes;
        &self.probs[start..start + classes]
    }

    /// The class that each branch predicts, `[branch][image]`.
    pub(super) fn branch_argmax(&self) -> Vec<Vec<u32>> {
        let images = self.labels.len();
        (0..self.branches)
            .map(|branch| (0..images).map(|image| argmax(self.row(branch, image)) as u32).collect())
            .collect()
    }

    fn check(&self) -> Result<(), MetricsError> {
        let (branches, images, classes) = (self.branches, self.labels.len(), self.classes.len());
        if images == 0 {
            return Err(MetricsError::NoImages);
        }
        if classes == 0 {
            return Err(MetricsError::NoClasses);
        }
        if branches == 0 {
            return Err(MetricsError::NoBranches);
        }
        let (expected, actual) = (branches * images * classes, self.probs.len());
        if actual != expected {
            return Err(MetricsError::BranchSize { branches, images, classes, expected, actual });
        }
        for (image, &label) in self.labels.iter().enumerate() {
            if label as usize >= classes {
                return Err(MetricsError::Label { image, label, classes });
            }
        }
        check_rows(&self.probs, classes, images)?;
        if let Combine::Given(probs) = &self.combine {
            let (expected, actual) = (images * classes, probs.len());
            if actual != expected {
                return Err(MetricsError::EnsembleSize { images, classes, expected, actual });
            }
            check_rows(probs, classes, images)?;
        }
        Ok(())
    }
}

fn check_rows(probs: &[f32], classes: usize, images: usize) -> Result<(), MetricsError> {
    for (index, row) in probs.chunks_exact(classes).enumerate() {
        let image = index % images;
        if row.iter().any(|p| !p.is_finite()) {
            return Err(MetricsError::NotFinite { image });
        }
        let sum: f32 = row.iter().sum();
        let inside = row.iter().all(|p| (-TOLERANCE..=1.0 + TOLERANCE).contains(p));
        if !inside || (sum - 1.0).abs() > TOLERANCE {
            return Err(MetricsError::NotDistribution { image, sum });
        }
    }
    Ok(())
}

/// The mean over the outermost of `branches` equal parts of `values`.
fn mean_over_branches(values: &[f32], branches: usize) -> Vec<f32> {
    let size = values.len() / branches;
    (0..size)
        .map(|i| {
            let sum: f64 = (0..branches).map(|branch| f64::from(values[branch * size + i])).sum();
            (sum / branches as f64) as f32
        })
        .collect()
}

/// The index of the largest value, the first of equals.
pub fn argmax(row: &[f32]) -> usize {
    let mut best = 0;
    for (index, &value) in row.iter().enumerate().skip(1) {
        if value > row[best] {
            best = index;
        }
    }
    best
}

/// Whether `class` is among the `k` largest values, equals ranked in index order as in [`argmax`].
pub(super) fn top_k_contains(row: &[f32], class: usize, k: usize) -> bool {
    let value = row[class];
    let ahead = row.iter().enumerate().filter(|&(i, &v)| v > value || (v == value && i < class)).count();
    ahead < k
}

/// Replaces logits `[..][classes]` by their softmax, row by row.
///
/// # Panics
/// If `classes` is zero.
pub fn softmax(logits: &mut [f32], classes: usize) {
    for row in logits.chunks_exact_mut(classes) {
        let max = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let mut sum = 0.0f64;
        for value in row.iter_mut() {
            *value = (*value - max).exp();
            sum += f64::from(*value);
        }
        for value in row.iter_mut() {
            *value = (f64::from(*value) / sum) as f32;
        }
    }
}

/// The softmax of the branches' mean logits: `[branch][image][class]` in, `[image][class]` out.
///
/// # Panics
/// If `branches` or `classes` is zero.
pub fn softmax_of_mean_logits(logits: &[f32], branches: usize, classes: usize) -> Vec<f32> {
    let mut mean = mean_over_branches(logits, branches);
    softmax(&mut mean, classes);
    mean
}
