//! Friedman's test.

use super::ranks::{average_ranks, tie_sum};
use super::special::{chi2_sf, f_sf};
use serde::Serialize;

/// Whether methods differ at all.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Friedman {
    /// Datasets.
    pub datasets: usize,
    /// Methods.
    pub methods: usize,
    /// Average rank of each method; 1 is best.
    pub ranks: Vec<f64>,
    /// Friedman's statistic, corrected for ties.
    pub chi2: f64,
    /// Its p-value, chi-squared with k - 1 degrees of freedom.
    pub p: f64,
    /// The less conservative statistic of Iman and Davenport (1980).
    pub f: f64,
    /// Its p-value, F with k - 1 and (k - 1)(N - 1) degrees of freedom.
    pub f_p: f64,
}

impl Friedman {
    /// The p-value to decide by: that of Iman and Davenport, but for datasets that all agree on the ranks, where their
    /// statistic is infinite however few there are.
    pub fn decisive_p(&self) -> f64 {
        if self.f.is_finite() { self.f_p } else { self.p }
    }
}

/// Friedman's test of `scores[dataset][method]`; none for fewer than two datasets or methods.
///
/// # Panics
/// If rows differ in length.
pub fn friedman(scores: &[Vec<f64>]) -> Option<Friedman> {
    let (n, k) = (scores.len(), scores.first()?.len());
    if n < 2 || k < 2 {
        return None;
    }
    let (nf, kf) = (n as f64, k as f64);
    let ranks = average_ranks(scores);
    let squares: f64 = ranks.iter().map(|r| r * r).sum();
    let plain = 12.0 * nf / (kf * (kf + 1.0)) * (squares - kf * (kf + 1.0) * (kf + 1.0) / 4.0);
    let ties: f64 = scores.iter().map(|row| tie_sum(row)).sum();
    let correction = 1.0 - ties / (nf * kf * (kf * kf - 1.0));
    let chi2 = if correction > 0.0 { plain / correction } else { 0.0 };
    let f = (nf - 1.0) * chi2 / (nf * (kf - 1.0) - chi2).max(0.0);
    let (p, f_p) = (chi2_sf(chi2, kf - 1.0), f_sf(f, kf - 1.0, (kf - 1.0) * (nf - 1.0)));
    Some(Friedman { datasets: n, methods: k, ranks, chi2, p, f, f_p })
}
