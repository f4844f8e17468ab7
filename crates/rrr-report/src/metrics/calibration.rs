use serde::{Deserialize, Serialize};

/// Number of equal-width confidence bins, as in Guo et al., "On Calibration of Modern Neural Networks", ICML 2017.
pub const CALIBRATION_BINS: usize = 15;

/// The images whose confidence lies in `(low, high]`; the first bin includes 0.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct CalibrationBin {
    /// Lower edge.
    pub low: f64,
    /// Upper edge.
    pub high: f64,
    /// Number of images.
    pub count: usize,
    /// Mean confidence of these images; none when empty.
    pub confidence: Option<f64>,
    /// Accuracy on these images; none when empty.
    pub accuracy: Option<f64>,
}

/// How well confidence (the largest ensemble probability) matches accuracy.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Calibration {
    /// Expected calibration error: the mean over images of |accuracy - confidence| of their bin.
    pub ece: f64,
    /// Mean confidence over all images.
    pub mean_confidence: f64,
    /// The bins, by rising confidence.
    pub bins: Vec<CalibrationBin>,
}

impl Calibration {
    /// From every image's confidence and whether its prediction is right.
    pub(super) fn new(images: &[(f32, bool)]) -> Self {
        let mut sums = [(0usize, 0.0f64, 0usize); CALIBRATION_BINS];
        for &(confidence, correct) in images {
            let confidence = f64::from(confidence);
            let (count, total, hits) = &mut sums[bin_of(confidence)];
            *count += 1;
            *total += confidence;
            *hits += usize::from(correct);
        }
        let n = images.len() as f64;
        let bins: Vec<CalibrationBin> = sums
            .iter()
            .enumerate()
            .map(|(index, &(count, total, hits))| {
                let average = |sum: f64| (count > 0).then(|| sum / count as f64);
                CalibrationBin {
                    low: edge(index),
                    high: edge(index + 1),
                    count,
                    confidence: average(total),
                    accuracy: average(hits as f64),
                }
            })
            .collect();
        let ece = sums.iter().map(|&(_, total, hits)| (hits as f64 - total).abs()).sum::<f64>() / n;
        let mean_confidence = sums.iter().map(|&(_, total, _)| total).sum::<f64>() / n;
        Self { ece, mean_confidence, bins }
    }
}

fn edge(index: usize) -> f64 {
    index as f64 / CALIBRATION_BINS as f64
}

fn bin_of(confidence: f64) -> usize {
    (0..CALIBRATION_BINS).find(|&index| confidence <= edge(index + 1)).unwrap_or(CALIBRATION_BINS - 1)
}
