use serde::{Deserialize, Serialize};

/// A range that covers the true value with 95% confidence.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

/// The 0.975 quantile of the standard normal distribution.
const Z: f64 = 1.959_963_984_540_054;

/// The Wilson score 95% interval of a proportion of `successes` out of `n` (0..=1 when `n` is zero).
///
/// Unlike the normal approximation it stays inside 0..=1 and does not collapse at 0% and 100%.
pub fn wilson_interval(successes: usize, n: usize) -> Interval {
    if n == 0 {
        return Interval { low: 0.0, high: 1.0 };
    }
    let n = n as f64;
    let p = successes as f64 / n;
    let z2 = Z * Z;
    let centre = p + z2 / (2.0 * n);
    let half = Z * (p * (1.0 - p) / n + z2 / (4.0 * n * n)).sqrt();
    let scale = 1.0 + z2 / n;
    // Rounding must not push an exact 0 or 1 past the proportion itself.
    Interval { low: ((centre - half) / scale).clamp(0.0, p), high: ((centre + half) / scale).clamp(p, 1.0) }
}
