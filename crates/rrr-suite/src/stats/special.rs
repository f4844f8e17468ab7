//! Distribution functions, on the special functions of `statrs`.

use statrs::function::beta::beta_reg;
use statrs::function::erf::{erfc, erfc_inv};
use statrs::function::gamma::gamma_ur;
use std::f64::consts::{PI, SQRT_2};

/// P(Z <= z), standard normal.
pub(super) fn normal_cdf(z: f64) -> f64 {
    0.5 * erfc(-z / SQRT_2)
}

/// The z with P(Z <= z) = p.
pub(super) fn normal_quantile(p: f64) -> f64 {
    -SQRT_2 * erfc_inv(2.0 * p)
}

/// P(X > x), chi-squared with `df` degrees of freedom.
pub(super) fn chi2_sf(x: f64, df: f64) -> f64 {
    if x <= 0.0 { 1.0 } else { gamma_ur(df / 2.0, x / 2.0) }
}

/// P(X > x), F with `d1` and `d2` degrees of freedom.
pub(super) fn f_sf(x: f64, d1: f64, d2: f64) -> f64 {
    match x {
        x if x <= 0.0 => 1.0,
        x if x.is_infinite() => 0.0,
        x => beta_reg(d2 / 2.0, d1 / 2.0, d2 / (d2 + d1 * x)),
    }
}

/// P(Q > q), the studentised range of `k` groups with infinitely many degrees of freedom:
/// 1 - k * integral of phi(z) (Phi(z) - Phi(z - q))^(k-1) dz.
pub(super) fn studentized_range_sf(q: f64, k: usize) -> f64 {
    if q <= 0.0 {
        return 1.0;
    }
    let density = |z: f64| (-0.5 * z * z).exp() / (2.0 * PI).sqrt();
    let inside = |z: f64| density(z) * (normal_cdf(z) - normal_cdf(z - q)).powi(k as i32 - 1);
    // Beyond these ends the density is below 1e-17; Simpson's rule is exact to 1e-12 at this step.
    let (low, high, n) = (-8.5, 8.5 + q.min(20.0), 2000);
    let h = (high - low) / f64::from(n);
    let weight = |i: i32| match i {
        0 => 1.0,
        i if i == n => 1.0,
        i if i % 2 == 1 => 4.0,
        _ => 2.0,
    };
    let sum: f64 = (0..=n).map(|i| weight(i) * inside(low + f64::from(i) * h)).sum();
    (1.0 - k as f64 * sum * h / 3.0).clamp(0.0, 1.0)
}

/// The q with P(Q > q) = alpha.
pub(super) fn studentized_range_quantile(alpha: f64, k: usize) -> f64 {
    let (mut low, mut high) = (0.0, 100.0);
    for _ in 0..80 {
        let middle = (low + high) / 2.0;
        if studentized_range_sf(middle, k) > alpha {
            low = middle;
        } else {
            high = middle;
        }
    }
    (low + high) / 2.0
}
