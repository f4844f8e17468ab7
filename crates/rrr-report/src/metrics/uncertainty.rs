use serde::{Deserialize, Serialize};

/// How unsure an ensemble is about one image, in nats.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Uncertainty {
    /// Predictive entropy: the entropy of the ensemble's probabilities, 0..=ln(classes). A temperature changes it.
    pub entropy: f64,
    /// Mutual information between prediction and branch: the ensemble's entropy minus the branches' mean entropy,
    /// both before any temperature, which the branches do not have.
    /// The part of the uncertainty that comes from the branches' disagreement; 0 with a single branch. Never
    /// negative for a mean of softmaxes; for other combinations a negative difference counts as 0.
    pub mutual_information: f64,
}

/// The uncertainty about one image, from the ensemble's probabilities `[class]`, the same before any temperature, and
/// those of each branch.
pub fn uncertainty<'a>(
    ensemble: &[f32],
    pooled: &[f32],
    branches: impl IntoIterator<Item = &'a [f32]>,
) -> Uncertainty {
    let total = entropy(pooled);
    let (mut sum, mut count) = (0.0, 0usize);
    for branch in branches {
        sum += entropy(branch);
        count += 1;
    }
    let mean = if count == 0 { total } else { sum / count as f64 };
    Uncertainty { entropy: entropy(ensemble), mutual_information: (total - mean).max(0.0) }
}

/// The entropy of a distribution, in nats.
pub fn entropy(probs: &[f32]) -> f64 {
    let sum: f64 = probs.iter().map(|&p| f64::from(p)).filter(|&p| p > 0.0).map(|p| p * p.ln()).sum();
    (-sum).max(0.0)
}

/// The fraction of branch pairs that predict different classes, averaged over images; none with fewer than two
/// branches or no images.
///
/// `predicted` is `[branch][image]`.
pub fn disagreement(predicted: &[Vec<u32>]) -> Option<f64> {
    let images = predicted.first()?.len();
    let pairs = predicted.len() * (predicted.len() - 1) / 2;
    if pairs == 0 || images == 0 {
        return None;
    }
    let mut different = 0usize;
    for (index, first) in predicted.iter().enumerate() {
        for second in &predicted[index + 1..] {
            different += first.iter().zip(second).filter(|(a, b)| a != b).count();
        }
    }
    Some(different as f64 / (pairs * images) as f64)
}
