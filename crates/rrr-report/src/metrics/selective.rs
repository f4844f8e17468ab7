use serde::{Deserialize, Serialize};

use super::{MetricsError, Predictions, argmax};

/// What becomes of the accuracy if the ensemble abstains from images that it is unsure about: selective
/// classification (Geifman and El-Yaniv, NeurIPS 2017).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Selective {
    /// The ensemble abstains where its top probability is below this.
    pub abstain_below: f32,
    /// Number of images that it does not abstain from.
    pub kept: usize,
    /// Fraction of the images that are kept.
    pub coverage: f64,
    /// Accuracy on the kept images; none when there are none.
    pub accuracy: Option<f64>,
}

impl Selective {
    /// Measures `predictions`.
    ///
    /// # Errors
    /// See [`MetricsError`].
    pub fn evaluate(predictions: &Predictions, abstain_below: f32) -> Result<Self, MetricsError> {
        let (pooled, ensemble) = (predictions.pooled()?, predictions.ensemble()?);
        let classes = predictions.classes.len();
        let (mut kept, mut correct) = (0, 0);
        let rows = pooled.chunks_exact(classes).zip(ensemble.chunks_exact(classes));
        for ((pooled, row), &label) in rows.zip(&predictions.labels) {
            let predicted = argmax(pooled);
            if row[predicted] >= abstain_below {
                kept += 1;
                correct += usize::from(predicted == label as usize);
            }
        }
        Ok(Self {
            abstain_below,
            kept,
            coverage: kept as f64 / predictions.labels.len() as f64,
            accuracy: (kept > 0).then(|| correct as f64 / kept as f64),
        })
    }
}
