//! Times of single calls, summed up.

use serde::Serialize;
use std::time::Duration;

/// Percentiles of the time of a call, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Latency {
    /// Number of calls.
    pub calls: usize,
    /// The fastest.
    pub min_ms: f64,
    /// The median.
    pub p50_ms: f64,
    /// 95 % took at most this.
    pub p95_ms: f64,
    /// 99 % took at most this.
    pub p99_ms: f64,
    /// The slowest.
    pub max_ms: f64,
}

impl Latency {
    /// Sums `times` up; percentiles are nearest-rank, the median of an even number the mean of the middle two.
    ///
    /// # Panics
    /// If there are no times.
    pub fn of(times: &[Duration]) -> Self {
        let mut ms: Vec<f64> = times.iter().map(|t| 1e3 * t.as_secs_f64()).collect();
        ms.sort_by(f64::total_cmp);
        let n = ms.len();
        let rank = |percent: usize| ms[(percent * n).div_ceil(100).max(1) - 1];
        Self {
            calls: n,
            min_ms: ms[0],
            p50_ms: (ms[(n - 1) / 2] + ms[n / 2]) / 2.0,
            p95_ms: rank(95),
            p99_ms: rank(99),
            max_ms: ms[n - 1],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_nearest_rank() {
        let times: Vec<Duration> = (1..=200).rev().map(Duration::from_millis).collect();
        let l = Latency::of(&times);
        assert_eq!(
            (l.calls, l.min_ms, l.p50_ms, l.p95_ms, l.p99_ms, l.max_ms),
            (200, 1.0, 100.5, 190.0, 198.0, 200.0)
        );
        let one = Latency::of(&[Duration::from_millis(7)]);
        assert_eq!((one.p50_ms, one.p95_ms, one.p99_ms), (7.0, 7.0, 7.0));
    }
}
