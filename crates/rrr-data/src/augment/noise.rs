//! Gaussian noise.

use super::Scratch;
use crate::rng::SeededRng;

/// Number of random words that the normal distribution is divided among.
const WORDS: usize = 1 << 16;

/// Adds normal noise of standard deviation `sigma` to every value: `floor(p + g)`, cut off at 0 and 255, which
/// for whole `p` is `p + floor(g)`. The noise comes from the generator `(seed, "noise")`, one little-endian
/// 16-bit word per value, so that it is resolved to 1/65536 and reaches to 4.2 standard deviations.
#[inline(always)]
pub fn gaussian(image: &mut [u8], sigma: f64, seed: u64, scratch: &mut Scratch) {
    fill_levels(sigma, &mut scratch.levels);
    let levels = scratch.levels.as_slice();
    let mut rng = SeededRng::new(seed, "noise", "", 0, 0);
    let mut words = [0u8; 1024];
    for values in image.chunks_mut(words.len() / 2) {
        rng.fill(&mut words);
        for (p, word) in values.iter_mut().zip(words.as_chunks::<2>().0) {
            *p = p.saturating_add_signed(levels[usize::from(u16::from_le_bytes(*word))]);
        }
    }
}

/// Lists `floor(g)` for the random words in increasing order, each level as often as it is likely.
fn fill_levels(sigma: f64, levels: &mut Vec<i8>) {
    levels.clear();
    if sigma > 0.0 {
        for level in i8::MIN..i8::MAX {
            let below = normal_cdf((f64::from(level) + 1.0) / sigma);
            levels.resize((below * WORDS as f64).round() as usize, level);
        }
    }
    let rest = if sigma > 0.0 { i8::MAX } else { 0 };
    levels.resize(WORDS, rest);
}

/// The standard normal distribution function (Abramowitz and Stegun 26.2.17, error below 7.5e-8).
fn normal_cdf(x: f64) -> f64 {
    const B: [f64; 5] = [0.319381530, -0.356563782, 1.781477937, -1.821255978, 1.330274429];
    let t = 1.0 / (1.0 + 0.2316419 * x.abs());
    let polynomial = B.iter().rev().fold(0.0, |sum, b| (sum + b) * t);
    let tail = (-x * x / 2.0).exp() / std::f64::consts::TAU.sqrt() * polynomial;
    if x < 0.0 { tail } else { 1.0 - tail }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_have_the_moments_of_floored_normals() {
        for sigma in [10f64.sqrt(), 5.0, 50f64.sqrt()] {
            let mut levels = Vec::new();
            fill_levels(sigma, &mut levels);
            assert_eq!(levels.len(), WORDS);
            let n = WORDS as f64;
            let mean = levels.iter().map(|&l| f64::from(l)).sum::<f64>() / n;
            let variance = levels.iter().map(|&l| (f64::from(l) - mean).powi(2)).sum::<f64>() / n;
            assert!((mean + 0.5).abs() < 1e-3, "mean {mean}");
            assert!((variance / (sigma * sigma + 1.0 / 12.0) - 1.0).abs() < 2e-3, "variance {variance}");
        }
    }

    #[test]
    fn no_deviation_changes_nothing() {
        let mut image = vec![7; 600];
        gaussian(&mut image, 0.0, 1, &mut Scratch::default());
        assert_eq!(image, vec![7; 600]);
    }
}
