//! Nemenyi's test after Friedman's.

use super::special::{studentized_range_quantile, studentized_range_sf};
use serde::Serialize;

/// Which methods cannot be told apart.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Nemenyi {
    /// The level.
    pub alpha: f64,
    /// Average ranks that differ by less are not significantly different.
    pub critical_difference: f64,
    /// p-values of all pairs.
    pub p: Vec<Vec<f64>>,
    /// Largest sets of methods, best first, whose ranks lie within the critical difference.
    pub groups: Vec<Vec<usize>>,
}

/// Nemenyi's test of average ranks over `datasets` datasets.
pub fn nemenyi(ranks: &[f64], datasets: usize, alpha: f64) -> Nemenyi {
    let k = ranks.len();
    let error = (k as f64 * (k as f64 + 1.0) / (6.0 * datasets as f64)).sqrt();
    let critical_difference = studentized_range_quantile(alpha, k) / std::f64::consts::SQRT_2 * error;
    let pair = |i: usize, j: usize| {
        let q = (ranks[i] - ranks[j]).abs() / error * std::f64::consts::SQRT_2;
        if i == j { 1.0 } else { studentized_range_sf(q, k) }
    };
    let p = (0..k).map(|i| (0..k).map(|j| pair(i, j)).collect()).collect();
    Nemenyi { alpha, critical_difference, p, groups: groups(ranks, critical_difference) }
}

fn groups(ranks: &[f64], difference: f64) -> Vec<Vec<usize>> {
    let mut order: Vec<usize> = (0..ranks.len()).collect();
    order.sort_by(|a, b| ranks[*a].total_cmp(&ranks[*b]));
    let mut groups: Vec<Vec<usize>> = Vec::new();
    let mut reached = 0;
    for (start, &first) in order.iter().enumerate() {
        let within = order[start..].iter().take_while(|i| ranks[**i] - ranks[first] <= difference).count();
        let end = start + within;
        // One that ends where the last did is part of it.
        if within > 1 && end > reached {
            groups.push(order[start..end].to_vec());
            reached = end;
        }
    }
    groups
}
