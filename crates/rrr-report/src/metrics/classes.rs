use serde::{Deserialize, Serialize};

/// How well one class is recognised.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ClassMetrics {
    /// Class name.
    pub name: String,
    /// Number of images with this label.
    pub support: usize,
    /// Number of images predicted to be of this class.
    pub predicted: usize,
    /// Fraction of the predictions of this class that are right; none when it is never predicted.
    pub precision: Option<f64>,
    /// Fraction of the images of this class that are found; none when it has no images.
    pub recall: Option<f64>,
    /// Harmonic mean of precision and recall, 2 TP / (2 TP + FP + FN); none when the class occurs neither as a
    /// label nor as a prediction.
    pub f1: Option<f64>,
}

pub(super) fn per_class(names: &[String], confusion: &[Vec<u32>]) -> Vec<ClassMetrics> {
    let ratio = |part: usize, whole: usize| (whole > 0).then(|| part as f64 / whole as f64);
    names
        .iter()
        .enumerate()
        .map(|(class, name)| {
            let hits = confusion[class][class] as usize;
            let support = confusion[class].iter().map(|&count| count as usize).sum();
            let predicted = confusion.iter().map(|row| row[class] as usize).sum();
            ClassMetrics {
                name: name.clone(),
                support,
                predicted,
                precision: ratio(hits, predicted),
                recall: ratio(hits, support),
                f1: ratio(2 * hits, support + predicted),
            }
        })
        .collect()
}
