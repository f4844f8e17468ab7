//! Ranks.

use super::describe::ROUNDING;

/// Ranks of values, the smallest has rank 1; equal values share the mean of their ranks.
pub fn ranks(values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|a, b| values[*a].total_cmp(&values[*b]));
    let mut ranks = vec![0.0; values.len()];
    for tied in runs(&order, values) {
        let (first, last) = (tied.start + 1, tied.end);
        for &i in &order[tied] {
            ranks[i] = (first + last) as f64 / 2.0;
        }
    }
    ranks
}

/// Runs of equal values in sorted order.
fn runs(order: &[usize], values: &[f64]) -> Vec<std::ops::Range<usize>> {
    let mut runs = Vec::new();
    let mut start = 0;
    for i in 1..=order.len() {
        if i == order.len() || values[order[i]] - values[order[i - 1]] > ROUNDING {
            runs.push(start..i);
            start = i;
        }
    }
    runs
}

/// Sum of t^3 - t over the groups of t equal values.
pub(super) fn tie_sum(values: &[f64]) -> f64 {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|a, b| values[*a].total_cmp(&values[*b]));
    runs(&order, values).into_iter().map(|r| r.len() as f64).map(|t| t * t * t - t).sum()
}

/// Mean rank of each method over datasets, `scores[dataset][method]`; the best score has rank 1.
///
/// # Panics
/// If rows differ in length.
pub fn average_ranks(scores: &[Vec<f64>]) -> Vec<f64> {
    let methods = scores.first().map_or(0, Vec::len);
    let mut sums = vec![0.0; methods];
    for row in scores {
        assert_eq!(row.len(), methods, "every dataset needs a score of every method");
        let descending: Vec<f64> = row.iter().map(|x| -x).collect();
        sums.iter_mut().zip(ranks(&descending)).for_each(|(sum, rank)| *sum += rank);
    }
    sums.into_iter().map(|sum| sum / scores.len() as f64).collect()
}
