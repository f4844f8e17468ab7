//! The numbers of an evaluation: from probabilities and labels to [`Metrics`].
//!
//! All sums are accumulated in `f64` in a fixed order, so the same input gives the same bits.

mod auroc;
mod calibration;
mod classes;
mod interval;
mod predictions;
mod selective;
mod temperature;
mod uncertainty;

pub use auroc::auroc;
pub use calibration::{CALIBRATION_BINS, Calibration, CalibrationBin};
pub use classes::ClassMetrics;
pub use interval::{Interval, wilson_interval};
pub use predictions::{Combine, MetricsError, Predictions, argmax, softmax, softmax_of_mean_logits};
pub use selective::Selective;
pub use temperature::{Change, Temperature, TemperatureScaling};
pub use uncertainty::{Uncertainty, disagreement, entropy, uncertainty};

use predictions::top_k_contains;
use serde::{Deserialize, Serialize};

/// Probabilities below this count as this in the negative log-likelihood, so that one confident mistake cannot
/// make it infinite. The same floor scikit-learn's `log_loss` applies to `float32` input.
pub const NLL_FLOOR: f64 = f32::EPSILON as f64;

/// Everything measured about one model on one set of labelled images.
///
/// Fractions lie in 0..=1; the logarithm is natural.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Metrics {
    /// Number of images.
    pub n: usize,
    /// Fraction of images whose most probable class under the ensemble is the label.
    pub accuracy: f64,
    /// Wilson 95% interval of `accuracy`.
    pub accuracy_interval: Interval,
    /// Mean recall over the classes that have images.
    pub balanced_accuracy: f64,
    /// Mean F1 over the classes that occur as a label or as a prediction.
    pub macro_f1: f64,
    /// Fraction of images whose label is among the five most probable classes (1 with five classes or fewer).
    pub top5_accuracy: f64,
    /// Mean of -ln(probability of the label), the probability floored at [`NLL_FLOOR`].
    pub nll: f64,
    /// Mean over images of the squared distance between probabilities and the one-hot label, summed over classes
    /// (0..=2).
    pub brier: f64,
    /// Expected calibration error, and the bins it comes from.
    pub calibration: Calibration,
    /// The temperature of the probabilities and what it does; none without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub temperature_scaling: Option<TemperatureScaling>,
    /// Precision, recall, F1 and support, one entry per class, in class order.
    pub per_class: Vec<ClassMetrics>,
    /// Image counts `[label][prediction]`.
    pub confusion: Vec<Vec<u32>>,
    /// Accuracy of every branch alone.
    pub branch_accuracy: Vec<f64>,
    /// Mean of `branch_accuracy`.
    pub mean_branch_accuracy: f64,
    /// Fraction of branch pairs that predict different classes, averaged over images; none with a single branch.
    pub disagreement: Option<f64>,
}

impl Metrics {
    /// Measures `predictions`.
    ///
    /// # Errors
    /// See [`MetricsError`]: nothing to evaluate, sizes that do not fit together, labels outside the classes, or
    /// rows that are not probability distributions (NaN included).
    pub fn evaluate(predictions: &Predictions) -> Result<Self, MetricsError> {
        let (pooled, ensemble) = (predictions.pooled()?, predictions.ensemble()?);
        let classes = predictions.classes.len();
        let n = predictions.labels.len();

        let mut confusion = vec![vec![0u32; classes]; classes];
        let (mut brier, mut in_top5) = (0.0, 0usize);
        let rows = pooled.chunks_exact(classes).zip(ensemble.chunks_exact(classes));
        for ((pooled, row), &label) in rows.zip(&predictions.labels) {
            let label = label as usize;
            confusion[label][argmax(pooled)] += 1;
            brier += row
                .iter()
                .enumerate()
                .map(|(class, &p)| (f64::from(p) - f64::from(u8::from(class == label))).powi(2))
                .sum::<f64>();
            in_top5 += usize::from(top_k_contains(pooled, label, 5));
        }
        let (nll, calibration) = likelihood(&pooled, &ensemble, predictions);
        let temperature_scaling = predictions.temperature.map(|temperature| {
            let before = likelihood(&pooled, &pooled, predictions);
            TemperatureScaling {
                temperature,
                nll: Change { before: before.0, after: nll },
                ece: Change { before: before.1.ece, after: calibration.ece },
            }
        });

        let correct = (0..classes).map(|class| confusion[class][class] as usize).sum();
        let per_class = classes::per_class(&predictions.classes, &confusion);
        let branch_classes = predictions.branch_argmax();
        let branch_accuracy: Vec<f64> = branch_classes
            .iter()
            .map(|predicted| {
                let hits = predicted.iter().zip(&predictions.labels).filter(|(p, l)| p == l).count();
                hits as f64 / n as f64
            })
            .collect();
        let images = n as f64;
        Ok(Self {
            n,
            accuracy: correct as f64 / images,
            accuracy_interval: wilson_interval(correct, n),
            balanced_accuracy: mean(per_class.iter().filter_map(|class| class.recall)),
            macro_f1: mean(per_class.iter().filter_map(|class| class.f1)),
            top5_accuracy: in_top5 as f64 / images,
            nll,
            brier: brier / images,
            calibration,
            temperature_scaling,
            per_class,
            confusion,
            mean_branch_accuracy: mean(branch_accuracy.iter().copied()),
            branch_accuracy,
            disagreement: disagreement(&branch_classes),
        })
    }

    /// Number of images the ensemble classifies correctly.
    pub fn correct(&self) -> usize {
        self.confusion.iter().enumerate().map(|(class, row)| row[class] as usize).sum()
    }
}

/// Mean negative log-likelihood and calibration of `probs`, for predictions read off `pooled`.
fn likelihood(pooled: &[f32], probs: &[f32], predictions: &Predictions) -> (f64, Calibration) {
    let classes = predictions.classes.len();
    let mut nll = 0.0;
    let mut confidences = Vec::with_capacity(predictions.labels.len());
    let rows = pooled.chunks_exact(classes).zip(probs.chunks_exact(classes));
    for ((pooled, row), &label) in rows.zip(&predictions.labels) {
        let (label, predicted) = (label as usize, argmax(pooled));
        nll -= f64::from(row[label]).max(NLL_FLOOR).ln();
        confidences.push((row[predicted], predicted == label));
    }
    (nll / confidences.len() as f64, Calibration::new(&confidences))
}

fn mean(values: impl Iterator<Item = f64>) -> f64 {
    let (mut sum, mut count) = (0.0, 0usize);
    for value in values {
        sum += value;
        count += 1;
    }
    if count == 0 { 0.0 } else { sum / count as f64 }
}
