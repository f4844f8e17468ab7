//! Holm's correction for many tests.

/// Adjusted p-values: S. Holm, "A Simple Sequentially Rejective Multiple Test Procedure", 1979.
pub fn holm(p: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..p.len()).collect();
    order.sort_by(|a, b| p[*a].total_cmp(&p[*b]));
    let mut adjusted = vec![0.0; p.len()];
    let mut least: f64 = 0.0;
    for (at, &i) in order.iter().enumerate() {
        least = least.max(p[i] * (p.len() - at) as f64).min(1.0);
        adjusted[i] = least;
    }
    adjusted
}
