//! The distribution of a channel, and the step that loses least of it.

use rrr_kernels::{Activation, BLOCK, Pool};

/// Bins of a histogram; even.
const BINS: usize = 512;

/// Counts of one channel's values from zero on. The range doubles as needed, so that the counts do not depend on
/// the order in which values come.
#[derive(Clone)]
pub(super) struct Histogram {
    counts: Vec<u32>,
    range: f32,
    max: f32,
}

impl Histogram {
    pub fn new() -> Self {
        Self { counts: vec![0; BINS], range: 1.0 / 1024.0, max: 0.0 }
    }

    /// Counts a value; zeros and what is not finite do not matter.
    #[inline]
    pub fn add(&mut self, value: f32) {
        if value > 0.0 && value.is_finite() {
            if value >= self.range {
                self.widen(value);
            }
            self.max = self.max.max(value);
            self.counts[(value * (BINS as f32 / self.range)) as usize] += 1;
        }
    }

    /// Doubles the range until `value` is within.
    #[cold]
    fn widen(&mut self, value: f32) {
        while value >= self.range {
            for bin in 0..BINS / 2 {
                self.counts[bin] = self.counts[2 * bin] + self.counts[2 * bin + 1];
            }
            self.counts[BINS / 2..].fill(0);
            self.range *= 2.0;
        }
    }

    /// Sum of the counted values, to the width of a bin.
    pub fn sum(&self) -> f64 {
        let width = f64::from(self.range) / BINS as f64;
        self.counts.iter().enumerate().map(|(bin, n)| (bin as f64 + 0.5) * width * f64::from(*n)).sum()
    }

    /// The step for which rounding to `0..=levels` steps has the least squared error; 0 if nothing was counted.
    pub fn step(&self, levels: u8) -> f32 {
        if self.max == 0.0 {
            return 0.0;
        }
        if std::env::var("Q_RANGE").is_ok_and(|v| v == "max") {
            return self.max / f32::from(levels);
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

/// The distributions of an activation's channels.
#[derive(Clone)]
pub(super) struct Watched {
    channels: Vec<Histogram>,
    /// Values per channel, zeros too.
    values: u64,
}

impl Watched {
    pub fn new(channels: usize) -> Self {
        Self { channels: vec![Histogram::new(); channels], values: 0 }
    }

    /// Counts all values of an activation.
    pub fn add(&mut self, a: &Activation, pool: &Pool) {
        self.values += a.rows() as u64;
        let (planes, plane) = (a.data(), a.plane_len());
        pool.for_each_chunk(&mut self.channels, BLOCK, |block, channels| {
            let (rows, _) = planes[block * plane..][..plane].as_chunks::<BLOCK>();
            for row in rows {
                for (channel, v) in channels.iter_mut().zip(row) {
                    channel.add(*v);
                }
            }
        });
    }

    /// A step for every channel.
    pub fn steps(&self, levels: u8) -> Vec<f32> {
        let steps: Vec<f32> = self.channels.iter().map(|h| h.step(levels)).collect();
        let largest = steps.iter().copied().fold(0.0, f32::max);
        let alpha: f32 = std::env::var("Q_ALPHA").map_or(1.0, |v| v.parse().unwrap());
        // A channel that is always zero may have any step, and one that hardly differs from zero gets no finer one
        // than that of its neighbours allows.
        let floor = if largest > 0.0 { largest / 1024.0 } else { 1.0 };
        steps.into_iter().map(|s| s.max(floor).powf(alpha) * largest.max(floor).powf(1.0 - alpha)).collect()
    }

    /// Mean of every channel.
    pub fn means(&self) -> Vec<f32> {
        self.channels.iter().map(|h| (h.sum() / self.values as f64) as f32).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_do_not_depend_on_the_order() {
        let values: Vec<f32> = (1..5000).map(|i| (i as f32 * 0.37).sin().abs() * i as f32).collect();
        let (mut forth, mut back) = (Histogram::new(), Histogram::new());
        values.iter().for_each(|v| forth.add(*v));
        values.iter().rev().for_each(|v| back.add(*v));
        assert_eq!(forth.counts, back.counts);
        assert_eq!(forth.step(127), back.step(127));
        assert_eq!(forth.counts.iter().sum::<u32>(), values.len() as u32);
    }

    #[test]
    fn a_uniform_distribution_keeps_its_whole_range() {
        let mut h = Histogram::new();
        (0..100_000).for_each(|i| h.add(i as f32 / 1000.0));
        assert!((h.step(127) * 127.0 - 100.0).abs() < 3.0);
    }

    #[test]
    fn a_lone_outlier_is_clipped() {
        let mut h = Histogram::new();
        (0..1_000_000).for_each(|i| h.add(i as f32 / 1e6));
        h.add(3.0);
        assert!(h.step(127) * 127.0 < 1.5);
    }

    #[test]
    fn what_is_not_a_positive_number_does_not_count() {
        let mut h = Histogram::new();
        [0.0, f32::NAN, f32::INFINITY, -1.0].into_iter().for_each(|v| h.add(v));
        assert_eq!(h.step(127), 0.0);
    }
}

