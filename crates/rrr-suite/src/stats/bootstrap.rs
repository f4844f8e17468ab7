//! Bootstrap intervals.

use super::describe::mean;
use super::special::{normal_cdf, normal_quantile};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use serde::Serialize;

const RESAMPLES: usize = 9999;

/// A mean and its interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Bootstrap {
    /// The mean.
    pub mean: f64,
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

/// Mean and bias-corrected accelerated interval (BCa; B. Efron, 1987) at `level`, such as 0.95; none of fewer than two
/// values. Where resampling gives no spread the interval is the mean itself.
pub fn bootstrap_mean(values: &[f64], level: f64, seed: u64) -> Option<Bootstrap> {
    let n = values.len();
    if n < 2 {
        return None;
    }
    let centre = mean(values);
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut means: Vec<f64> =
        (0..RESAMPLES).map(|_| (0..n).map(|_| values[below(&mut rng, n)]).sum::<f64>() / n as f64).collect();
    means.sort_by(f64::total_cmp);
    let under = means.iter().filter(|m| **m < centre).count() as f64;
    let equal = means.iter().filter(|m| **m == centre).count() as f64;
    let bias = normal_quantile((under + equal / 2.0) / RESAMPLES as f64);
    // The mean without a value moves against it, so that the jackknife's skewness is that of the values.
    let (cubes, squares) = values.iter().fold((0.0, 0.0), |(c, s), x| {
        let d = (x - centre) / (n - 1) as f64;
        (c + d * d * d, s + d * d)
    });
    let acceleration = if squares > 0.0 { cubes / (6.0 * squares.powf(1.5)) } else { 0.0 };
    let tail = (1.0 - level) / 2.0;
    let end = |p: f64| {
        let z = bias + normal_quantile(p);
        let shifted = normal_cdf(bias + z / (1.0 - acceleration * z));
        quantile(&means, if shifted.is_finite() { shifted } else { p })
    };
    Some(Bootstrap { mean: centre, low: end(tail), high: end(1.0 - tail) })
}

/// A number below `n`, each equally likely to within 2^-32.
fn below(rng: &mut ChaCha8Rng, n: usize) -> usize {
    ((u128::from(rng.next_u64()) * n as u128) >> 64) as usize
}

/// Quantile of sorted values, linear between them.
fn quantile(sorted: &[f64], p: f64) -> f64 {
    let at = p.clamp(0.0, 1.0) * (sorted.len() - 1) as f64;
    let (low, share) = (at.floor() as usize, at.fract());
    let high = (low + 1).min(sorted.len() - 1);
    sorted[low] + share * (sorted[high] - sorted[low])
}
