//! Means, spreads, wins.

use serde::Serialize;

/// Arithmetic mean; NaN without values.
pub fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// Standard deviation of a sample (n - 1 in the denominator); none of fewer than two values.
pub fn sd(values: &[f64]) -> Option<f64> {
    let m = mean(values);
    let squares: f64 = values.iter().map(|x| (x - m) * (x - m)).sum();
    (values.len() > 1).then(|| (squares / (values.len() - 1) as f64).sqrt())
}

/// How often one method is ahead of another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct WinTieLoss {
    /// Datasets on which the first is better.
    pub wins: usize,
    /// Datasets on which both are equal.
    pub ties: usize,
    /// Datasets on which the second is better.
    pub losses: usize,
}

/// Compares pairs, higher being better. What differs by rounding alone is equal.
pub fn win_tie_loss(a: &[f64], b: &[f64]) -> WinTieLoss {
    let mut count = WinTieLoss::default();
    for (a, b) in a.iter().zip(b) {
        match a - b {
            d if d > ROUNDING => count.wins += 1,
            d if d < -ROUNDING => count.losses += 1,
            _ => count.ties += 1,
        }
    }
    count
}

/// Differences of shares below this are rounding: no dataset has so many images.
pub(super) const ROUNDING: f64 = 1e-12;
