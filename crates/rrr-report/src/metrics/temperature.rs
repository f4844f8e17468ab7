use serde::{Deserialize, Serialize};

use super::{MetricsError, Predictions};

/// The hottest temperature that is fitted, and the inverse of the coldest.
const HOTTEST: f64 = 10.0;
/// Halvings of the range, in which it shrinks to one part in 10^11.
const HALVINGS: usize = 40;
/// What a probability that rounded to zero stands for.
const LEAST: f64 = f32::MIN_POSITIVE as f64;

/// One positive number that softens (above 1) or sharpens (below 1) an ensemble's probabilities, p_i^(1/T) / sum_j
/// p_j^(1/T), and leaves their order alone: Guo et al., "On Calibration of Modern Neural Networks", ICML 2017.
///
/// It acts on the ensemble, not on its branches (pool, then calibrate: Rahaman and Thiery, "Uncertainty
/// Quantification and Deep Ensembles", NeurIPS 2021). For the softmax of mean logits this is the softmax of the mean
/// logits divided by T.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(try_from = "f64", into = "f64")]
pub struct Temperature(f64);

impl Temperature {
    /// The temperature `value`; none unless it is positive and finite.
    pub fn new(value: f64) -> Option<Self> {
        (value > 0.0 && value.is_finite()).then_some(Self(value))
    }

    /// The number.
    pub fn get(self) -> f64 {
        self.0
    }

    /// The temperature that minimises the negative log-likelihood of the labels, any temperature of `predictions`
    /// left aside.
    ///
    /// None where the images do not determine one between 1/10 and 10: all are classified right, so that ever colder
    /// would be ever better, or the labels are no likelier than chance.
    ///
    /// # Errors
    /// See [`MetricsError`].
    pub fn fit(predictions: &Predictions) -> Result<Option<Self>, MetricsError> {
        let classes = predictions.classes.len();
        let mut logs: Vec<f64> = predictions.pooled()?.into_iter().map(log).collect();
        for row in logs.chunks_exact_mut(classes) {
            let top = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            row.iter_mut().for_each(|z| *z -= top);
        }
        // The loss is convex in 1/T, so its slope changes sign once.
        let slope_at = |ln_t: f64| slope(&logs, classes, &predictions.labels, (-ln_t).exp());
        let (mut low, mut high) = (-HOTTEST.ln(), HOTTEST.ln());
        if slope_at(low) <= 0.0 || slope_at(high) >= 0.0 {
            return Ok(None);
        }
        for _ in 0..HALVINGS {
            let middle = 0.5 * (low + high);
            if slope_at(middle) > 0.0 { low = middle } else { high = middle }
        }
        Ok(Self::new((0.5 * (low + high)).exp()))
    }

    /// Applies the temperature to probabilities `[..][classes]`, row by row. Distinct values may round to the same
    /// one, so predictions are best read off before.
    ///
    /// # Panics
    /// If `classes` is zero.
    pub fn apply(self, probs: &mut [f32], classes: usize) {
        for row in probs.chunks_exact_mut(classes) {
            let top = row.iter().copied().fold(0.0, f32::max);
            let top = log(top);
            let mut sum = 0.0f64;
            for p in row.iter_mut() {
                let weight = ((log(*p) - top) / self.0).exp();
                sum += weight;
                *p = weight as f32;
            }
            for p in row.iter_mut() {
                *p = (f64::from(*p) / sum) as f32;
            }
        }
    }
}

fn log(p: f32) -> f64 {
    f64::from(p).max(LEAST).ln()
}

/// The derivative of the negative log-likelihood with respect to `scale` = 1/T, summed over images, for rows of log
/// probabilities whose largest is 0.
fn slope(logs: &[f64], classes: usize, labels: &[u32], scale: f64) -> f64 {
    let of_row = |(row, &label): (&[f64], &u32)| {
        let (mut weights, mut weighted) = (0.0, 0.0);
        for z in row {
            let weight = (scale * z).exp();
            weights += weight;
            weighted += weight * z;
        }
        weighted / weights - row[label as usize]
    };
    logs.chunks_exact(classes).zip(labels).map(of_row).sum()
}

impl TryFrom<f64> for Temperature {
    type Error = String;

    fn try_from(value: f64) -> Result<Self, String> {
        Self::new(value).ok_or_else(|| format!("a temperature of {value} makes no sense"))
    }
}

impl From<Temperature> for f64 {
    fn from(temperature: Temperature) -> Self {
        temperature.0
    }
}

impl std::fmt::Display for Temperature {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// A number without and with the temperature.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Change {
    /// Without it.
    pub before: f64,
    /// With it.
    pub after: f64,
}

/// What a temperature does to the calibration of one set of images.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct TemperatureScaling {
    /// The temperature.
    pub temperature: Temperature,
    /// Negative log-likelihood, as [`Metrics::nll`](super::Metrics::nll).
    pub nll: Change,
    /// Expected calibration error, as [`Calibration::ece`](super::Calibration::ece).
    pub ece: Change,
}
