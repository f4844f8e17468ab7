//! Wilcoxon's signed-rank test.

use super::describe::ROUNDING;
use super::ranks::{ranks, tie_sum};
use super::special::normal_cdf;
use serde::Serialize;

/// Up to so many differences, without ties, the exact distribution is used (as in SciPy).
const EXACT: usize = 50;

/// Two-sided test of paired differences.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Wilcoxon {
    /// Differences that are not zero.
    pub n: usize,
    /// The smaller of the rank sums of positive and of negative differences.
    pub statistic: f64,
    /// Two-sided p-value.
    pub p: f64,
    /// Whether it is exact rather than by the normal approximation.
    pub exact: bool,
}

/// Tests whether `a` and `b` differ; zero differences are left out (SciPy's `zero_method="wilcox"`). None if all are
/// zero.
///
/// Exact up to 50 differences if none is zero and no two are equally large; else normal, corrected for ties, without
/// continuity correction.
pub fn wilcoxon(a: &[f64], b: &[f64]) -> Option<Wilcoxon> {
    let all: Vec<f64> = a.iter().zip(b).map(|(a, b)| a - b).collect();
    let differences: Vec<f64> = all.iter().copied().filter(|d| d.abs() > ROUNDING).collect();
    let sizes: Vec<f64> = differences.iter().map(|d| d.abs()).collect();
    let n = sizes.len();
    if n == 0 {
        return None;
    }
    let ranks = ranks(&sizes);
    let plus: f64 = ranks.iter().zip(&differences).filter(|(_, d)| **d > 0.0).map(|(r, _)| r).sum();
    let total = (n * (n + 1)) as f64 / 2.0;
    let statistic = plus.min(total - plus);
    let ties = tie_sum(&sizes);
    let exact = n == all.len() && ties == 0.0 && n <= EXACT;
    let p = if exact {
        exact_p(statistic as usize, n)
    } else {
        let n = n as f64;
        let variance = (n * (n + 1.0) * (2.0 * n + 1.0) - ties / 2.0) / 24.0;
        2.0 * normal_cdf((statistic - total / 2.0) / variance.sqrt())
    };
    Some(Wilcoxon { n, statistic, p: p.min(1.0), exact })
}

/// Twice the probability of a rank sum of at most `statistic`: every sign equally likely.
fn exact_p(statistic: usize, n: usize) -> f64 {
    let total = n * (n + 1) / 2;
    // Share of the sign patterns with each rank sum, one rank after the other.
    let mut share = vec![0.0; total + 1];
    share[0] = 1.0;
    for rank in 1..=n {
        for sum in (0..=total).rev() {
            let with = if sum >= rank { share[sum - rank] } else { 0.0 };
            share[sum] = (share[sum] + with) / 2.0;
        }
    }
    2.0 * share[..=statistic.min(total)].iter().sum::<f64>()
}
