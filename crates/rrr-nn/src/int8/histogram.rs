//! The distribution of an activation, and the step that loses least of it.

/// Bins of a histogram; even.
const BINS: usize = 4096;

/// Counts of values from zero on. The range doubles as needed, so that the counts do not depend on the order in
/// which values come.
#[derive(Clone)]
pub(super) struct Histogram {
    counts: Vec<u64>,
    range: f32,
    max: f32,
}

impl Histogram {
    pub fn new() -> Self {
        Self { counts: vec![0; BINS], range: 1.0 / 1024.0, max: 0.0 }
    }

    /// Counts values; zeros and what is not finite do not matter.
    pub fn add(&mut self, values: &[f32]) {
        let max = values.iter().copied().filter(|v| v.is_finite()).fold(0.0, f32::max);
        while max >= self.range {
            for bin in 0..BINS / 2 {
                self.counts[bin] = self.counts[2 * bin] + self.counts[2 * bin + 1];
            }
            self.counts[BINS / 2..].fill(0);
            self.range *= 2.0;
        }
        self.max = self.max.max(max);
        let scale = BINS as f32 / self.range;
        for &v in values.iter().filter(|v| **v > 0.0 && v.is_finite()) {
            self.counts[((v * scale) as usize).min(BINS - 1)] += 1;
        }
    }

    /// The step for which rounding to `0..=levels` steps has the least squared error.
    pub fn step(&self, levels: u8) -> f32 {
        if self.max == 0.0 {
            return 1.0;
        }
        let candidates = (0..=60).map(|i| self.max * (1.0 - f32::from(i as u8) / 80.0));
        let best = candidates.map(|clip| (self.error(clip, levels), clip)).min_by(|a, b| a.0.total_cmp(&b.0));
        best.expect("candidates").1 / f32::from(levels)
    }

    /// Sum of squared errors when values are clipped at `clip`.
    fn error(&self, clip: f32, levels: u8) -> f64 {
        let (width, clip) = (f64::from(self.range) / BINS as f64, f64::from(clip));
        let step = clip / f64::from(levels);
        let mut error = 0.0;
        for (bin, &count) in self.counts.iter().enumerate().filter(|(_, count)| **count > 0) {
            let v = (bin as f64 + 0.5) * width;
            let squared = if v > clip {
                (v - clip).powi(2)
            } else if v < step / 2.0 {
                v * v
            } else {
                step * step / 12.0
            };
            error += count as f64 * squared;
        }
        error
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_do_not_depend_on_the_order() {
        let values: Vec<f32> = (1..5000).map(|i| (i as f32 * 0.37).sin().abs() * i as f32).collect();
        let (mut forth, mut back) = (Histogram::new(), Histogram::new());
        values.chunks(100).for_each(|c| forth.add(c));
        values.rchunks(70).for_each(|c| back.add(c));
        assert_eq!(forth.counts, back.counts);
        assert_eq!(forth.step(127), back.step(127));
        assert_eq!(forth.counts.iter().sum::<u64>(), values.len() as u64);
    }

    #[test]
    fn a_uniform_distribution_keeps_its_whole_range() {
        let mut h = Histogram::new();
        h.add(&(0..100_000).map(|i| i as f32 / 1000.0).collect::<Vec<_>>());
        assert!((h.step(127) * 127.0 - 100.0).abs() < 2.0);
    }

    #[test]
    fn a_lone_outlier_is_clipped() {
        let mut h = Histogram::new();
        h.add(&(0..1_000_000).map(|i| i as f32 / 1e6).collect::<Vec<_>>());
        h.add(&[3.0]);
        assert!(h.step(127) * 127.0 < 1.5);
    }

    #[test]
    fn nothing_but_zeros_still_gives_a_step() {
        let mut h = Histogram::new();
        h.add(&[0.0, f32::NAN, f32::INFINITY]);
        assert!(h.step(127) > 0.0);
    }
}
